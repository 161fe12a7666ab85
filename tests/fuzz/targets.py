"""What is fuzzed, and what has to hold for every input: one plain function ``target(data)`` for each entry.

* ``packet_<type>``: the body of one control packet. The first byte holds the flags of the fixed header in its
  low four bits and chooses the version with its high two; the rest is the body.
* ``decode_<version>``: whole bytes into ``decode_packet``, fixed header and all.
* ``receive_<version>``: a connection after CONNACK, with messages in flight in both directions. The first
  byte says how many bytes of piece lengths follow it (low three bits); the rest is what the server sends,
  given to ``receive_data`` once as it is and once in those pieces.
* ``url``: UTF-8 text into ``parse_url``.

A target returns, or raises; whatever it raises is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from device_sdk.errors import ArgumentError, DeviceSdkError, RemoteProtocolError
from device_sdk.mqtt import (
    Connack,
    Message,
    Packet,
    Publish,
    Pubrec,
    Subscription,
    decode_packet,
    encode_packet,
)
from device_sdk.mqtt.codes import PACKET_TYPES, VERSIONS
from device_sdk.mqtt.decode import decode_body
from device_sdk.mqtt.events import ConnectionEnded
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.protocol import CLOSED, Protocol
from device_sdk.mqtt.session import Outgoing, Session
from device_sdk.mqtt.wire import encode_varint
from device_sdk.net import parse_url

__all__ = ["PACKET_NAMES", "TARGETS", "VERSION_NAMES", "Target", "target_name"]

Target = Callable[[bytes], None]

VERSION_NAMES = tuple(VERSIONS)
#: The names of packets by their type number; 0 is reserved and has none of its own.
PACKET_NAMES = {number: name for number, name in enumerate(PACKET_TYPES) if number}


def target_name(kind: str, version: str) -> str:
    """``("decode", "3.1.1")`` is the target ``decode_311``."""
    return f"{kind}_{version.replace('.', '')}"


# The decoder


def _packet(number: int, data: bytes) -> None:
    """Decode one body in place, between bytes that belong to somebody else."""
    if not data:
        return
    version = VERSION_NAMES[(data[0] >> 6) % 3]
    body = data[1:]
    first_byte = number << 4 | data[0] & 15
    try:
        packet = decode_body(first_byte, b"\xff" + body + b"\xff", 1, len(data), version)
    except RemoteProtocolError as error:
        _check_error(error)
        return
    assert packet.type == PACKET_NAMES[number]
    header = 1 + len(encode_varint(len(body)))
    _check_written_again(packet, header + len(body), version)


def _decode(version: str, data: bytes) -> None:
    try:
        result = decode_packet(data, version)
    except RemoteProtocolError as error:
        _check_error(error)
        return
    if result is not None:
        packet, used = result
        assert 2 <= used <= len(data), used
        _check_written_again(packet, used, version)


def _check_error(error: RemoteProtocolError) -> None:
    assert 0x80 <= error.reason_code <= 0xA2, error.reason_code
    # An error that quotes a hostile packet in full would fill the log.
    assert 0 < len(str(error)) < 400, str(error)


#: What we read and would not write ourselves, by the field that the encoder then names.
_READ_ONLY: dict[str, Callable[[Any, str], bool]] = {
    # The server answers it with return code 2; a client must not send it.
    "client_id": lambda packet, version: version != "5.0" and not packet.client_id,
    # MQTT 3.1 says nothing about DUP at QoS 0.
    "dup": lambda packet, version: version == "3.1" and packet.qos == 0,
    # Delivered as it came: decision 0025.
    "response_topic": lambda packet, version: version == "5.0",
    # Servers send it, although the table of §3.14.2.1 leaves it out.
    "reason_code": lambda packet, version: packet.type == "disconnect" and packet.reason_code == 0x8C,
}


def _check_written_again(packet: Packet, used: int, version: str) -> None:
    """What was decoded encodes to no more bytes than it took, and decodes to the same."""
    try:
        encoded = encode_packet(packet, version)
    except ArgumentError as error:
        if "levels; the limit is" not in str(error):  # more than 200 levels are read and not written
            assert _READ_ONLY[error.argument](packet, version), error
        return
    assert len(encoded) <= used, (len(encoded), used)
    assert decode_packet(encoded, version) == (packet, len(encoded))


# A connection

_MAXIMUM_PACKET_SIZE = 1_000
_RECEIVE_MAXIMUM = 4
_LARGEST_HEAD = 65_535 + 10
#: The most that a received byte may make us send: PUBREL with two bytes for an identifier costs us five.
_ANSWER_FACTOR = 2
#: What belongs to us and may leave besides: the repeats of our own messages, a DISCONNECT.
_OWN_OUTPUT = 400


class _Connection:
    """One connection past CONNACK, set up once and put back before each input.

    The client has messages in flight at QoS 1 and 2, one past PUBREC, one that waits for room in the window,
    a SUBSCRIBE and an UNSUBSCRIBE without an answer, and holds a QoS 2 message of an earlier connection. Two
    connections have met text that is not UTF-8: this one passes over it.
    """

    def __init__(self, version: str) -> None:
        method = {"authentication_method": "m"} if version == "5.0" else None
        options = ConnectOptions(
            "fuzz",
            version=version,
            maximum_packet_size=_MAXIMUM_PACKET_SIZE,
            receive_maximum=_RECEIVE_MAXIMUM,
            topic_alias_maximum=2,
            properties=method,
        )
        self.session = Session()
        earlier = Protocol(self.session, options, inflight=4)
        earlier.connect(0.0, clean_start=True)
        say = partial(self._say, version)
        say(earlier, Connack(properties=method))
        self.messages = [Outgoing(b"\x00\x01t", b"x", qos << 1, _block(version)) for qos in (2, 1, 2, 1)]
        for message in self.messages:
            earlier.publish(message)
        say(earlier, Pubrec(1), Publish("t", b"two", qos=2, packet_id=9))
        earlier.receive_eof(0.0)
        for _ in range(2):
            self.session.unreadable.begin()
            self.session.unreadable.met()
        self.protocol = Protocol(self.session, options, inflight=3)
        self.protocol.connect(1.0, clean_start=False)
        say(self.protocol, Connack(version != "3.1", 0, method))
        self.protocol.subscribe([Subscription("t", 1), Subscription("u", 2)])
        self.protocol.unsubscribe(["t"])
        self.protocol.data_to_send(0, 1.0)
        protocol = self.protocol
        parts = (protocol.handshake, protocol.framing, protocol.inbound, protocol.outbound, protocol.output)
        owners = (
            self.session,
            self.session.unreadable,
            protocol,
            protocol.keep_alive,
            *parts,
            *self.messages,
        )
        self._saved = [_saved(owner) for owner in owners]

    @staticmethod
    def _say(version: str, protocol: Protocol, *packets: Packet) -> None:
        for event in protocol.receive_data(b"".join(encode_packet(p, version) for p in packets), 0.0):
            assert not isinstance(event, ConnectionEnded), event.error

    def put_back(self) -> None:
        for owner, plain, containers in self._saved:
            for name, value in plain:
                setattr(owner, name, value)
            for name, make, value in containers:
                setattr(owner, name, make(value))

    def receive(self, pieces: list[bytes]) -> list[Any]:
        """Receive these and return all events, having looked at what must hold after each piece."""
        self.put_back()
        protocol = self.protocol
        events: list[Any] = []
        size = 0
        for piece in pieces:
            ended = protocol.state == CLOSED
            found = protocol.receive_data(piece, 2.0)
            assert not (ended and found), "events after the end"
            events += found
            size += len(piece)
            self._check_memory(size, len(piece))
        for event in events[:-1]:
            assert type(event) is not ConnectionEnded, "the end is not the last event"
        if events and type(events[-1]) is ConnectionEnded:
            assert isinstance(events[-1].error, DeviceSdkError)
            assert protocol.state == CLOSED
        else:
            assert protocol.state != CLOSED
        sent = sum(map(len, protocol.data_to_send(0, 2.0)))
        assert sent <= _ANSWER_FACTOR * size + _OWN_OUTPUT, (sent, size)
        return events

    def _check_memory(self, size: int, piece: int) -> None:
        protocol, session = self.protocol, self.session
        # Of a message of MQTT 3.x that is passed over the topic name and the packet identifier are kept.
        largest = _MAXIMUM_PACKET_SIZE if protocol.version == "5.0" else _LARGEST_HEAD
        assert protocol.framing.begun < largest + piece
        assert sum(map(len, protocol.inbound.topics)) <= size
        assert protocol.inbound.aliases.keys() <= {1, 2}
        assert protocol.held_acknowledgements <= size // 5
        if protocol.version == "5.0":
            assert len(session.received) <= 1 + _RECEIVE_MAXIMUM


def _block(version: str) -> bytes:
    return b"\0" if version == "5.0" else b""


def _saved(owner: Any) -> tuple[Any, list[tuple[str, Any]], list[tuple[str, Any, Any]]]:
    """Remember the attributes of an object: its containers by a copy, everything else as it is."""
    names = getattr(owner, "__dict__", None) or type(owner).__slots__
    plain = []
    containers = []
    for name in list(names):
        value = getattr(owner, name)
        if hasattr(value, "copy") and not isinstance(value, (bytes, frozenset)):
            containers.append((name, type(value), value.copy()))
        else:
            plain.append((name, value))
    return owner, plain, containers


_connections: dict[str, _Connection] = {}


def _receive(version: str, data: bytes) -> None:
    connection = _connections.get(version)
    if connection is None:
        connection = _connections[version] = _Connection(version)
    count = data[0] & 7 if data else 0
    stream = data[1 + count :]
    events = connection.receive([stream])
    if count:
        whole = [_told(event) for event in events]
        pieces = []
        for length in data[1 : 1 + count]:
            pieces.append(stream[:length])
            stream = stream[length:]
        events = connection.receive([*pieces, stream])
        assert [_told(event) for event in events] == whole, "cut into pieces it means something else"


def _told(event: Any) -> tuple[Any, ...]:
    """What an event says, to be compared with that of the same bytes in other pieces."""
    kind = type(event)
    if kind is Message:
        return event.topic, event.payload, event.qos, event.packet_id, event.properties
    if kind is ConnectionEnded:
        return str(event.error), event.reason_code, event.properties
    if kind is Outgoing:
        return event.sequence, event.flags, event.status, str(event.error)
    fields = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
    values = [getattr(event, name) for name in fields]
    return kind, *(_told(value) if type(value) is Message else value for value in values)


# URLs


def _url(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        parsed = parse_url(text)
    except ArgumentError as error:
        assert error.argument == "url", error
        return
    assert parsed.scheme == parsed.scheme.lower()
    assert 0 <= parsed.port <= 65_535
    if parsed.password is not None:
        shown = repr(parsed)
        parsed.password = "another"
        assert repr(parsed) == shown, "the repr depends on the password"
    if parsed.host:
        again = parse_url(f"{parsed.scheme}://{parsed.address.replace('%', '%25', 1)}")
        assert (again.host, again.port) == (parsed.host, parsed.port)


#: Every target by its name, which is also the name of its folder in ``corpus/``.
TARGETS: dict[str, Target] = {
    **{f"packet_{name}": partial(_packet, number) for number, name in PACKET_NAMES.items()},
    **{target_name("decode", version): partial(_decode, version) for version in VERSION_NAMES},
    **{target_name("receive", version): partial(_receive, version) for version in VERSION_NAMES},
    "url": _url,
}
