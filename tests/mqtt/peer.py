"""The two ends of a connection under test: our Protocol, and a server whose every packet the test writes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from device_sdk.errors import DeviceSdkError
from device_sdk.mqtt import Connack, Connect, Packet, decode_packet, encode_packet
from device_sdk.mqtt.codes import VERSIONS
from device_sdk.mqtt.events import ConnectAcknowledged, ConnectionEnded
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.protocol import Protocol
from device_sdk.mqtt.rules import STANDARD, ProtocolRules
from device_sdk.mqtt.session import Outgoing, Session
from device_sdk.mqtt.wire import encode_properties

__all__ = [
    "EVERYTHING",
    "Peer",
    "connected",
    "decode_all",
    "end_of",
    "every_version",
    "messages_in",
    "outgoing",
    "summary",
    "versions_3",
]

#: A ``durable_through`` that holds nothing back.
EVERYTHING = 1 << 62

every_version = pytest.mark.parametrize("version", list(VERSIONS))
versions_3 = pytest.mark.parametrize("version", ["3.1", "3.1.1"])

_sequences = itertools.count(1)


def decode_all(data: bytes, version: str) -> list[Packet]:
    """Decode whole packets, and nothing but whole packets."""
    packets = []
    while data:
        decoded = decode_packet(data, version)
        assert decoded is not None, f"the bytes end inside a packet: {data.hex(' ')}"
        packets.append(decoded[0])
        data = data[decoded[1] :]
    return packets


def outgoing(
    payload: bytes = b"x",
    qos: int = 1,
    *,
    topic: str = "t",
    retain: bool = False,
    version: str = "5.0",
    expires_at: float | None = None,
    **properties: Any,
) -> Outgoing:
    """Make a message as the engine does."""
    topic_field = len(topic.encode()).to_bytes(2) + topic.encode()
    block = encode_properties(properties, "publish") if version == "5.0" else b""
    message = Outgoing(topic_field, payload, qos << 1 | retain, block, expires_at)
    message.sequence = next(_sequences)
    return message


class Peer:
    """A Protocol and what the test, as the server, says to it."""

    def __init__(
        self,
        version: str = "5.0",
        *,
        session: Session | None = None,
        inflight: int = 20,
        now: float = 0.0,
        rules: ProtocolRules = STANDARD,
        use_aliases: bool = False,
        **options: Any,
    ) -> None:
        self.version = version
        self.now = now
        self.session = Session() if session is None else session
        self.options = ConnectOptions("c", version=version, **options)
        self.protocol = Protocol(
            self.session, self.options, inflight=inflight, use_aliases=use_aliases, rules=rules
        )

    def connect(self, *, clean_start: bool = True) -> Connect:
        """Send CONNECT and return it as the server reads it."""
        self.session.requests.clear()  # as the engine does between two connections
        self.protocol.connect(self.now, clean_start=clean_start)
        (connect,) = self.sent()
        assert isinstance(connect, Connect)
        return connect

    def receive(self, *packets: Packet) -> list[Any]:
        """Let the server send packets; return the events."""
        return self.receive_bytes(b"".join(encode_packet(packet, self.version) for packet in packets))

    def receive_bytes(self, data: bytes) -> list[Any]:
        return list(self.protocol.receive_data(data, self.now))

    def bytes_sent(self, durable_through: int = EVERYTHING) -> bytes:
        return b"".join(self.protocol.data_to_send(durable_through, self.now))

    def sent(self, durable_through: int = EVERYTHING) -> list[Packet]:
        """Return the packets that leave now."""
        return decode_all(self.bytes_sent(durable_through), self.version)

    def publish(self, payload: bytes = b"x", qos: int = 1, **fields: Any) -> Outgoing:
        """Publish a QoS 1 or 2 message, in the version of this connection."""
        message = outgoing(payload, qos, version=self.version, **fields)
        self.protocol.publish(message, self.now)
        return message

    def handle(self, *messages: Message) -> list[Packet]:
        """Let the application finish with messages; return what leaves for it."""
        for message in messages:
            message.handled = True
        self.protocol.acknowledge_handled()
        return self.sent()

    def cut(self) -> None:
        """Let the stream end."""
        self.protocol.receive_eof(self.now)

    def advance(self, seconds: float) -> list[Any]:
        """Let time pass, handling each deadline when it is due; return the events."""
        until = self.now + seconds
        events: list[Any] = []
        for _ in range(100_000):
            deadline = self.protocol.next_deadline()
            if deadline is None or deadline > until:
                self.now = until
                return events
            self.now = max(self.now, deadline)
            events += self.protocol.handle_deadline(self.now)
        raise AssertionError("next_deadline() stays in the past")


def connected(
    version: str = "5.0",
    *,
    peer: Peer | None = None,
    session: Session | None = None,
    clean_start: bool | None = None,
    present: bool | None = None,
    server: dict[str, Any] | None = None,
    **arguments: Any,
) -> Peer:
    """Return a Peer past CONNACK, with the repeats of a resumed session still to be read.

    A given ``session`` is resumed, unless ``present`` says otherwise. ``server``: properties of CONNACK.
    ``peer``: one to connect instead of a new one.
    """
    peer = peer or Peer(version, session=session, **arguments)
    resumes = session is not None
    peer.session.known |= resumes
    peer.connect(clean_start=not resumes if clean_start is None else clean_start)
    present = resumes if present is None else present
    events = peer.receive(Connack(present and version != "3.1", 0, server))
    assert isinstance(events[0], ConnectAcknowledged), events
    return peer


def messages_in(events: list[Any]) -> list[Message]:
    return [event for event in events if isinstance(event, Message)]


def end_of(events: list[Any]) -> Any:
    """Return the error of the ConnectionEnded that has to be the last event, and the only one of its kind."""
    ends = [event for event in events if isinstance(event, ConnectionEnded)]
    assert len(ends) == 1, events
    assert events[-1] is ends[0]
    assert isinstance(ends[0].error, DeviceSdkError)
    return ends[0].error


def summary(events: list[Any]) -> list[Any]:
    """Return what events say, to compare those of two connections."""
    return [_summary(event) for event in events]


def _summary(event: Any) -> Any:
    kind = type(event).__name__
    if isinstance(event, ConnectionEnded):
        return kind, type(event.error), str(event.error), event.reason_code, event.properties
    if isinstance(event, ConnectAcknowledged):
        return kind, event.session_present, event.properties, summary(event.republish)
    if isinstance(event, Outgoing):
        return kind, event.payload, event.status, str(event.error)
    fields: list[str] = [name for base in type(event).__mro__ for name in getattr(base, "__slots__", ())]
    return kind, *(getattr(event, name) for name in fields)
