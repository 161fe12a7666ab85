"""The beginning and the end of a network connection."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from device_sdk.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConnectRefused,
    LocalProtocolError,
    MalformedPacketError,
    RefusedError,
    RemoteProtocolError,
    TransportClosedError,
)
from device_sdk.mqtt import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
    encode_packet,
)
from device_sdk.mqtt.codes import REASON_CODES, VERSIONS
from device_sdk.mqtt.decode import decode_packet
from device_sdk.mqtt.events import (
    AuthReceived,
    ConnectAcknowledged,
    ConnectionEnded,
    MessageSkipped,
    SessionUnknown,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from device_sdk.mqtt.handshake import LONGEST_CLIENT_ID
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.protocol import CLOSED, CONNECTED, CONNECTING, IDLE, Protocol
from device_sdk.mqtt.session import Outgoing, Session
from tests.calls import Calls
from tests.mqtt.peer import (
    EVERYTHING,
    Peer,
    connected,
    decode_all,
    end_of,
    every_version,
    messages_in,
    outgoing,
    summary,
    versions_3,
)

WITH_AUTH = {"authentication_method": "SCRAM"}
LONGEST_TOPIC = 65_535

# CONNECT


@pytest.mark.conformance("5.0", "MQTT-3.1.0-1")
@pytest.mark.conformance("3.1.1", "MQTT-3.1.0-1")
@every_version
def test_connect_is_the_first_packet_and_carries_every_field(version: str) -> None:
    will = Will("gone", b"offline", qos=1, retain=True)
    peer = Peer(version, keep_alive=7, user_name="ü", password="pass:word", will=will)
    assert peer.protocol.state == IDLE
    connect = peer.connect(clean_start=False)
    assert (connect.client_id, connect.keep_alive, connect.clean_start) == ("c", 7, False)
    assert (connect.user_name, connect.password, connect.will) == ("ü", b"pass:word", will)
    assert peer.protocol.state == CONNECTING


@versions_3
def test_connect_of_mqtt_3_has_no_properties(version: str) -> None:
    assert Peer(version, session_expiry=60, topic_alias_maximum=5).connect().properties == {}


def test_connect_of_mqtt_5_announces_our_limits() -> None:
    peer = Peer(session_expiry=60, receive_maximum=7, maximum_packet_size=5000, topic_alias_maximum=3)
    assert peer.connect().properties == {
        "session_expiry_interval": 60,
        "receive_maximum": 7,
        "maximum_packet_size": 5000,
        "topic_alias_maximum": 3,
    }


def test_further_connect_properties_go_out() -> None:
    assert Peer(properties=WITH_AUTH).connect().properties["authentication_method"] == "SCRAM"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", "4.0"),
        ("keep_alive", -1),
        ("keep_alive", 65_536),
        ("session_expiry", 1 << 32),
        ("receive_maximum", 0),
        ("maximum_packet_size", 63),
        ("topic_alias_maximum", 65_536),
    ],
)
def test_an_option_out_of_range_is_an_error_of_the_constructor(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        ConnectOptions("c", **{field: value})
    assert caught.value.argument == field


@pytest.mark.parametrize(("field", "value"), [("keep_alive", 1.5), ("keep_alive", True), ("will", b"no")])
def test_an_option_of_the_wrong_type_is_an_error_of_the_constructor(field: str, value: Any) -> None:
    with pytest.raises(ArgumentTypeError) as caught:
        ConnectOptions("c", **{field: value})
    assert caught.value.argument == field


def test_options_never_show_the_password() -> None:
    assert "secret" not in repr(ConnectOptions("c", user_name="me", password="secret"))


def test_limits_that_are_not_announced_are_not_in_connect() -> None:
    options = ConnectOptions(
        "c",
        announces_limits=False,
        receive_maximum=5,
        topic_alias_maximum=3,
        properties={"receive_maximum": 7},
    )
    (packet,) = decode_all(options.encode(clean_start=True), "5.0")
    assert packet.properties == {"receive_maximum": 7}  # type: ignore[attr-defined]


@every_version
def test_a_bridge_says_so_in_its_protocol_level(version: str) -> None:
    plain, bridge = (
        ConnectOptions("c", version=version, bridge=on).encode(clean_start=True) for on in (False, True)
    )
    changed = [(old, new) for old, new in zip(plain, bridge, strict=True) if old != new]
    level = VERSIONS[version][1]
    assert changed == [(level, level | 0x80)]


# CONNACK


@every_version
def test_connack_opens_the_connection(version: str) -> None:
    peer = Peer(version)
    peer.connect()
    (event,) = peer.receive(Connack())
    assert isinstance(event, ConnectAcknowledged)
    assert (event.session_present, event.republish) == (False, [])
    assert peer.protocol.state == CONNECTED
    assert peer.sent() == []


def test_connack_tells_what_the_server_allows() -> None:
    answer = {"receive_maximum": 3, "server_keep_alive": 5, "assigned_client_identifier": "auto-1"}
    peer = connected(server=answer, keep_alive=60, inflight=20)
    assert (peer.protocol.outbound.window, peer.protocol.keep_alive.interval) == (3, 5)
    assert peer.protocol.server["assigned_client_identifier"] == "auto-1"


def test_our_own_limit_counts_when_the_server_allows_more() -> None:
    assert connected(server={"receive_maximum": 100}, inflight=20).protocol.outbound.window == 20


@pytest.mark.conformance("3.1.1", "MQTT-3.1.2-2", "MQTT-3.1.3-8", "MQTT-3.1.3-9", "MQTT-3.2.2-5")
@versions_3
@pytest.mark.parametrize(
    ("return_code", "words"),
    [
        (1, "unacceptable protocol version"),
        (2, "identifier rejected"),
        (3, "server unavailable"),
        (4, "bad user name or password"),
        (5, "not authorized"),
    ],
)
def test_a_return_code_refuses_the_connection(version: str, return_code: int, words: str) -> None:
    peer = Peer(version)
    peer.connect()
    (event,) = peer.receive(Connack(False, return_code))
    assert (type(event.error), event.error.reason_code) == (ConnectRefused, return_code)
    assert words in str(event.error)
    assert event.reason_code == return_code
    assert peer.protocol.state == CLOSED


@pytest.mark.conformance(
    "5.0",
    "MQTT-3.1.2-2",
    "MQTT-3.1.3-8",
    "MQTT-3.1.4-6",
    "MQTT-3.2.2-7",
    "MQTT-3.2.2-12",
    "MQTT-3.2.2-13",
    "MQTT-4.12.0-1",
    "MQTT-4.13.2-1",
)
@pytest.mark.parametrize("reason_code", sorted(REASON_CODES["connack"] - {0}))
def test_a_reason_code_refuses_the_connection(reason_code: int) -> None:
    peer = Peer()
    peer.connect()
    properties = {"reason_string": "because", "user_property": [("a", "1"), ("a", "2")]}
    events = peer.receive(Connack(False, reason_code, properties))
    error = end_of(events)
    assert isinstance(error, ConnectRefused)
    assert (error.reason_code, error.reason_string) == (reason_code, "because")
    assert error.user_properties == (("a", "1"), ("a", "2"))
    assert "because" in str(error)
    assert events[0].properties["reason_string"] == "because"
    assert peer.protocol.state == CLOSED
    assert peer.sent() == []


@pytest.mark.conformance("5.0", "MQTT-3.2.2-2")
@pytest.mark.conformance("3.1.1", "MQTT-3.2.2-1")
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_session_present_after_a_clean_start_is_an_error(version: str) -> None:
    peer = Peer(version)
    peer.connect(clean_start=True)
    error = end_of(peer.receive(Connack(True)))
    assert (type(error), error.reason_code) == (RemoteProtocolError, 0x82)
    assert peer.sent() == ([Disconnect(0x82)] if version == "5.0" else [])


@pytest.mark.conformance("5.0", "MQTT-3.2.2-4")
def test_a_session_that_we_know_nothing_of_is_not_resumed() -> None:
    peer = Peer()
    peer.connect(clean_start=False)
    events = peer.receive(Connack(True))
    assert isinstance(end_of(events), RemoteProtocolError)
    assert [type(event) for event in events] == [SessionUnknown]
    assert peer.sent() == [Disconnect(0x82)]
    assert not peer.session.known


@pytest.mark.conformance("5.0", "MQTT-3.2.2-4")
def test_a_session_without_messages_is_a_session_too() -> None:
    first = connected()
    first.cut()
    again = connected(peer=Peer(session=first.session), clean_start=False, present=True)
    assert again.protocol.state == CONNECTED


def test_a_session_that_the_application_vouches_for_is_resumed() -> None:
    peer = Peer()
    peer.protocol = Protocol(peer.session, peer.options, vouched=True)
    connected(peer=peer, clean_start=False, present=True)
    assert peer.session.known


@versions_3
def test_mqtt_3_leaves_it_to_the_client_what_it_resumes(version: str) -> None:
    connected(version, clean_start=False, present=True)


def test_a_session_is_known_to_the_store_from_its_first_connack_on() -> None:
    session = Session(journal=True)
    for facts in ([("fact", "session", "c")], []):
        peer = connected(peer=Peer(session=session))
        assert [change for change in session.take_changes() if change[0] == "fact"] == facts
        peer.cut()


# The client identifier that the server assigns


@pytest.mark.conformance("5.0", "MQTT-3.1.3-7", "MQTT-3.2.2-16")
def test_an_assigned_client_identifier_names_the_session_from_then_on() -> None:
    session = Session(journal=True)
    options = ConnectOptions("")
    for sent, assigned in (("", "auto-1"), ("auto-1", None)):
        peer = Peer(session=session)
        peer.options = options
        peer.protocol = Protocol(session, options)
        assert peer.connect(clean_start=not sent).client_id == sent
        peer.receive(Connack(bool(sent), 0, {"assigned_client_identifier": assigned} if assigned else {}))
        assert options.client_id == "auto-1"
        peer.cut()
    facts = [change for change in session.take_changes() if change[0] == "fact"]
    assert facts == [("fact", "client_id", "auto-1"), ("fact", "session", "auto-1")]


def test_a_client_with_a_name_keeps_it() -> None:
    peer = connected(server={"assigned_client_identifier": "other"})
    assert peer.options.client_id == "c"


@pytest.mark.parametrize(("size", "fault"), [(LONGEST_CLIENT_ID, False), (LONGEST_CLIENT_ID + 1, True)])
def test_an_assigned_client_identifier_has_a_limit(size: int, fault: bool) -> None:
    peer = Peer()
    peer.connect()
    events = peer.receive(Connack(False, 0, {"assigned_client_identifier": "x" * size}))
    assert peer.sent() == ([Disconnect(0x83)] if fault else [])
    assert isinstance(events[-1], ConnectionEnded) is fault


@pytest.mark.conformance("3.1", "MQTT-3.1/SESSION-PRESENT")
@pytest.mark.parametrize("clean_start", [True, False])
def test_mqtt_3_1_has_no_session_present_and_assumes_what_was_asked_for(clean_start: bool) -> None:
    peer = Peer("3.1")
    peer.connect(clean_start=clean_start)
    (event,) = peer.receive(Connack())
    assert event.session_present is not clean_start


@pytest.mark.conformance("5.0", "MQTT-3.2.0-2")
@every_version
def test_a_second_connack_is_an_error(version: str) -> None:
    assert "CONNACK" in str(end_of(connected(version).receive(Connack())))


BEFORE_CONNACK: list[Packet] = [
    Publish("t", b"x"),
    Puback(1),
    Pubrec(1),
    Pubrel(1),
    Pubcomp(1),
    Suback(1, [0]),
    Unsuback(1, [0]),
    Pingresp(),
]


@pytest.mark.conformance("5.0", "MQTT-3.2.0-1")
@pytest.mark.conformance("3.1.1", "MQTT-3.2.0-1")
@every_version
@pytest.mark.parametrize("packet", BEFORE_CONNACK, ids=lambda packet: str(packet.type))
def test_a_packet_before_connack_is_an_error_by_its_header(version: str, packet: Packet) -> None:
    peer = Peer(version)
    peer.connect()
    # The body does not matter, and MQTT 3 and 5 disagree on that of UNSUBACK.
    error = end_of(peer.receive_bytes(encode_packet(packet, "5.0")[:2]))
    assert isinstance(error, RemoteProtocolError)
    assert f"{packet.type.upper()} before CONNACK" in str(error)


FOR_SERVERS_ONLY: list[Packet] = [
    Connect("c"),
    Subscribe(1, [Subscription("t")]),
    Unsubscribe(1, ["t"]),
    Pingreq(),
]


@every_version
@pytest.mark.parametrize("packet", FOR_SERVERS_ONLY, ids=lambda packet: str(packet.type))
def test_a_packet_that_only_clients_send_is_an_error(version: str, packet: Packet) -> None:
    peer = connected(version)
    error = end_of(peer.receive(packet))
    assert (type(error), error.reason_code) == (RemoteProtocolError, 0x82)
    assert packet.type.upper() in str(error)


def test_an_impossible_packet_is_refused_by_its_header_not_after_its_body() -> None:
    peer = connected()
    assert "SUBSCRIBE" in str(end_of(peer.receive_bytes(b"\x82\xff\x7f")))


# The server that is none, or goes away


@every_version
@pytest.mark.parametrize(
    "data", [b"\x00\x00", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b"\xff" * 9]
)
def test_a_stream_that_is_not_mqtt_ends_the_connection(version: str, data: bytes) -> None:
    peer = Peer(version)
    peer.connect()
    assert isinstance(end_of(peer.receive_bytes(data)), RemoteProtocolError)
    assert peer.protocol.state == CLOSED


def test_disconnect_does_not_come_before_connect_when_the_server_speaks_first() -> None:
    peer = Peer()
    peer.protocol.connect(0.0, clean_start=True)
    end_of(peer.receive_bytes(b"220 smtp ready\r\n"))
    assert peer.bytes_sent() == b""


@pytest.mark.conformance("3.1.1", "MQTT-3.2.2-6")
@every_version
def test_the_stream_ends_before_connack(version: str) -> None:
    peer = Peer(version)
    peer.connect()
    error = end_of(list(peer.protocol.receive_eof(0.0)))
    assert isinstance(error, TransportClosedError)
    assert "before answering CONNECT" in str(error)


@every_version
def test_the_stream_may_end_after_every_byte(version: str) -> None:
    data = encode_packet(Connack(), version) + encode_packet(Publish("t", b"x"), version)
    for size in range(len(data) + 1):
        peer = Peer(version)
        peer.connect()
        events = peer.receive_bytes(data[:size]) + list(peer.protocol.receive_eof(0.0))
        assert isinstance(end_of(events), TransportClosedError)
        assert peer.protocol.receive_eof(0.0) == []


@every_version
def test_garbage_after_every_byte_ends_the_connection_and_raises_nothing(version: str) -> None:
    data = b"".join(
        encode_packet(packet, version)
        for packet in (Connack(), Publish("t", b"x", qos=1, packet_id=1), Pubrel(9), Pingresp())
    )
    for size in range(len(data) + 1):
        peer = Peer(version)
        peer.connect()
        events = peer.receive_bytes(data[:size] + b"\x00\x00\xff\xff\xff\xff\xff" * 60_000)
        assert isinstance(end_of(events), RemoteProtocolError)


def test_nothing_is_read_after_the_end() -> None:
    peer = connected()
    peer.cut()
    assert peer.receive(Publish("t", b"x")) == []


def test_no_connack_within_the_connect_timeout_ends_the_connection() -> None:
    peer = Peer(connect_timeout=5.0, now=100.0)
    peer.connect()
    assert peer.protocol.next_deadline() == 105.0
    assert peer.protocol.handle_deadline(104.9) == []
    error = end_of(list(peer.protocol.handle_deadline(105.0)))
    assert isinstance(error, TransportClosedError)
    assert "CONNECT within 5 s" in str(error)
    assert peer.protocol.next_deadline() is None


# Size


@pytest.mark.conformance("5.0", "MQTT-3.1.2-24")
@pytest.mark.parametrize(("version", "first"), [("5.0", 0x30), ("5.0", 0x90), ("3.1.1", 0x90), ("3.1", 0x90)])
def test_a_packet_above_our_maximum_is_refused_by_its_header(version: str, first: int) -> None:
    """But for a message in MQTT 3.x, which cannot say what we take: see test_messages_of_others.py."""
    peer = connected(version, maximum_packet_size=200)
    error = end_of(peer.receive_bytes(bytes((first, 0xFF, 0x7F))))
    assert (type(error), error.reason_code) == (MalformedPacketError, 0x95)
    assert "maximum_packet_size" in str(error)
    assert peer.sent() == ([Disconnect(0x95)] if version == "5.0" else [])


@pytest.mark.conformance("5.0", "MQTT-3.1.2-24")
@every_version
@pytest.mark.parametrize("excess", [0, 1, 2, 3])
@pytest.mark.parametrize("step", [1, 1000])
def test_our_maximum_packet_size_is_exact_however_the_packet_arrives(
    version: str, excess: int, step: int
) -> None:
    payload = bytes(200 - len(encode_packet(Publish("t", bytes(150)), version)) + 150 + excess)
    data = encode_packet(Publish("t", payload), version)
    assert len(data) == 200 + excess
    peer = connected(version, maximum_packet_size=200)
    events: list[Any] = []
    for start in range(0, len(data), step):
        events += peer.receive_bytes(data[start : start + step])
    if excess and version == "5.0":
        assert end_of(events).reason_code == 0x95
    elif excess:
        assert [type(event) for event in events] == [MessageSkipped]
    else:
        assert messages_in(events)[0].payload == payload


class CountingBytes(bytes):
    """Counts the bytes that slicing copies."""

    copied = 0

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(part, bytes):
            CountingBytes.copied += len(part)
        return part


def test_a_payload_of_a_mebibyte_in_small_reads_is_joined_once() -> None:
    payload = bytes(1 << 20)
    data = encode_packet(Publish("t", payload), "5.0")
    peer = connected(maximum_packet_size=2 << 20)
    pieces = [data[start : start + 1000] for start in range(0, len(data), 1000)]
    events: list[Any] = []
    with Calls("call") as calls:
        for piece in pieces:
            events += peer.protocol.receive_data(piece, 0.0)
    assert messages_in(events)[0].payload == payload
    assert calls.total < 2 * len(pieces) + 20  # the fixed header is read for the first piece and the last


def test_many_packets_in_one_read_copy_only_their_payloads() -> None:
    CountingBytes.copied = 0
    peer = connected()
    data = encode_packet(Publish("t", b"12345"), "5.0") * 5_000
    assert len(peer.receive_bytes(CountingBytes(data))) == 5_000
    assert CountingBytes.copied <= len(data)


def test_long_topic_names_are_not_kept_for_the_life_of_the_connection() -> None:
    peer = connected(maximum_packet_size=100_000)
    for number in range(20):
        topic = f"{number:05}" + "x" * (LONGEST_TOPIC - 5)
        assert messages_in(peer.receive(Publish(topic)))[0].topic == topic
    assert peer.protocol.inbound.topics == {}
    for number in range(5_000):
        peer.receive(Publish(f"t/{number}"))
    assert 0 < len(peer.protocol.inbound.topics) <= 1_000


# Whatever arrives: events, in any pieces the same


SCRIPT_PACKETS: list[Packet] = [
    Connack(),
    Publish("t", b"zero"),
    Publish("t", b"one", qos=1, packet_id=1),
    Publish("t", b"two", qos=2, packet_id=2),
    Publish("t", bytes(300), qos=1, packet_id=3),
    Pubrel(77),
    Puback(78),
    Pubrec(79),
    Pubcomp(80),
    Pingresp(),
    Suback(1, [0]),
]


def script(version: str) -> bytes:
    return b"".join(encode_packet(packet, version) for packet in SCRIPT_PACKETS)


def events_of(version: str, pieces: list[bytes]) -> tuple[list[Any], bytes]:
    peer = Peer(version, maximum_packet_size=1000)
    peer.connect()
    events: list[Any] = []
    for piece in pieces:
        events += peer.receive_bytes(piece)
    return summary(events), peer.bytes_sent()


@every_version
def test_every_split_in_two_gives_the_events_of_one_piece(version: str) -> None:
    data = script(version)
    whole = events_of(version, [data])
    assert len(whole[0]) > 4
    for size in range(len(data) + 1):
        assert events_of(version, [data[:size], data[size:]]) == whole
    assert events_of(version, [data[at : at + 1] for at in range(len(data))]) == whole


ALL_EVENTS = (
    Message,
    Outgoing,
    ConnectAcknowledged,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
    AuthReceived,
    ConnectionEnded,
)


@st.composite
def hostile_streams(draw: st.DrawFn) -> tuple[str, bytes, list[int]]:
    version = draw(st.sampled_from(["3.1", "3.1.1", "5.0"]))
    data = bytearray(encode_packet(Connack(), version)) if draw(st.booleans()) else bytearray()
    for packet in draw(st.lists(st.sampled_from(SCRIPT_PACKETS), max_size=6)):
        data += encode_packet(packet, version)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=4))
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=5))
    return version, bytes(data), cuts


@given(hostile_streams())
@example(("5.0", b"\x20\x03\0\0\0\x30\x02\0\0", []))
def test_nothing_but_events_comes_out_of_any_bytes_and_splitting_changes_nothing(
    stream: tuple[str, bytes, list[int]],
) -> None:
    version, data, cuts = stream
    peer = Peer(version, maximum_packet_size=1000)
    peer.connect()
    events = peer.receive_bytes(data)
    assert all(isinstance(event, ALL_EVENTS) for event in events)
    if any(isinstance(event, ConnectionEnded) for event in events):
        end_of(events)
        assert peer.protocol.state == CLOSED
    peer.sent()
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[start:stop] for start, stop in pairwise(edges)]
    assert events_of(version, pieces)[0] == summary(events)


# DISCONNECT and AUTH


@pytest.mark.conformance("5.0", "MQTT-3.14.4-1")
@pytest.mark.conformance("3.1.1", "MQTT-3.14.4-2")
@every_version
def test_disconnect_leaves_after_what_waits_and_nothing_leaves_after_it(version: str) -> None:
    peer = connected(version)
    arrived = messages_in(peer.receive(Publish("t", qos=1, packet_id=9)))
    peer.publish(b"last", 1)
    peer.protocol.disconnect()
    assert output_state(peer) == (True, True)
    assert [packet.type for packet in peer.sent()] == ["publish", "disconnect"]
    assert peer.handle(*arrived) == []
    peer.receive(Pubrel(5), Pubrec(6))
    assert peer.bytes_sent() == b""
    assert output_state(peer) == (False, False)
    assert peer.protocol.next_deadline() is None


def output_state(peer: Peer) -> tuple[bool, bool]:
    return peer.protocol.has_output, peer.protocol.can_send(EVERYTHING)


def test_a_second_disconnect_says_nothing_more() -> None:
    peer = connected()
    peer.protocol.disconnect(4)
    peer.protocol.disconnect()
    assert peer.sent() == [Disconnect(4)]


def test_what_the_server_said_before_it_read_disconnect_still_counts() -> None:
    peer = connected()
    message = peer.publish(b"x", 1)
    peer.protocol.disconnect()
    peer.sent()
    assert peer.receive(Puback(1)) == [message]
    assert isinstance(end_of(list(peer.protocol.receive_eof(0.0))), TransportClosedError)


@every_version
def test_a_connack_after_our_disconnect_opens_nothing(version: str) -> None:
    session = Session()
    connected(version, session=session, present=False).publish(b"x", 1)
    peer = Peer(version, session=session)
    peer.protocol.connect(0.0, clean_start=False)
    peer.protocol.disconnect()
    assert [packet.type for packet in peer.sent()] == ["connect", "disconnect"]
    assert peer.receive(Connack(version != "3.1"), Publish("t", b"x")) == []
    assert peer.bytes_sent() == b""


def test_disconnect_before_connect_is_nothing() -> None:
    peer = Peer()
    peer.protocol.disconnect()
    assert peer.bytes_sent() == b""


@pytest.mark.conformance("5.0", "MQTT-3.14.2-3", "MQTT-3.14.2-4")
def test_disconnect_leaves_explanations_out_when_the_server_takes_only_small_packets() -> None:
    peer = connected(server={"maximum_packet_size": 12})
    properties = {"reason_string": "long", "user_property": [("a", "b")], "session_expiry_interval": 0}
    peer.protocol.disconnect(0x04, properties)
    assert peer.sent() == [Disconnect(0x04, {"session_expiry_interval": 0})]


@pytest.mark.conformance("5.0", "MQTT-3.1.4-3", "MQTT-4.13.2-1")
def test_a_disconnect_of_the_server_ends_the_connection() -> None:
    peer = connected()
    peer.publish(b"held", 1)
    properties = {"reason_string": "moving", "server_reference": "other.example"}
    events = peer.receive(Disconnect(0x8E, properties), Publish("t", b"too late"))
    error = end_of(events)
    assert isinstance(error, RefusedError)
    assert (error.reason_code, error.reason_string) == (0x8E, "moving")
    assert events[0].reason_code == 0x8E
    assert events[0].properties["server_reference"] == "other.example"
    assert len(events) == 1
    assert peer.bytes_sent() == b""


@pytest.mark.conformance("5.0", "MQTT-3.14.0-1")
def test_a_disconnect_before_connack_ends_the_connection() -> None:
    peer = Peer()
    peer.connect()
    assert isinstance(end_of(peer.receive(Disconnect(0x89))), RefusedError)


@versions_3
def test_a_server_of_mqtt_3_must_not_send_disconnect(version: str) -> None:
    error = end_of(connected(version).receive_bytes(b"\xe0\x00"))
    assert isinstance(error, RemoteProtocolError)


@pytest.mark.conformance("5.0", "MQTT-3.14.4-1")
def test_our_fault_report_is_the_last_packet() -> None:
    peer = connected()
    peer.publish(b"never leaves", 1)
    end_of(peer.receive_bytes(b"\x36\x03\0\x01t"))
    assert peer.sent() == [Disconnect(0x81)]
    assert peer.bytes_sent() == b""


def test_an_acknowledgement_after_the_end_goes_nowhere() -> None:
    peer = connected()
    arrived = messages_in(peer.receive(Publish("t", qos=1, packet_id=9)))
    peer.cut()
    assert peer.handle(*arrived) == []
    assert output_state(peer) == (False, False)


@pytest.mark.conformance("5.0", "MQTT-4.12.0-2", "MQTT-4.12.0-3")
def test_auth_continues_an_authentication_before_connack() -> None:
    peer = Peer(properties=WITH_AUTH)
    peer.connect()
    data = {**WITH_AUTH, "authentication_data": b"challenge"}
    (event,) = peer.receive(Auth(0x18, data))
    assert isinstance(event, AuthReceived)
    assert (event.reason_code, event.properties["authentication_data"]) == (0x18, b"challenge")
    answer = {**WITH_AUTH, "authentication_data": b"answer"}
    peer.protocol.auth(0x18, answer)
    assert peer.sent() == [Auth(0x18, answer)]
    assert isinstance(peer.receive(Connack(False, 0, WITH_AUTH))[0], ConnectAcknowledged)


@pytest.mark.conformance("5.0", "MQTT-4.12.0-5", "MQTT-4.12.0-6")
@pytest.mark.parametrize(
    ("ours", "answer"),
    [
        ({}, Auth(0x18, WITH_AUTH)),
        (WITH_AUTH, Auth(0)),
        (WITH_AUTH, Auth(0x18, {"authentication_method": "other"})),
    ],
    ids=["we have none", "the server has none", "another one"],
)
def test_auth_with_another_method_than_ours_is_an_error(ours: dict[str, Any], answer: Auth) -> None:
    peer = connected(properties=ours, server=ours)
    error = end_of(peer.receive(answer))
    assert (type(error), error.reason_code) == (RemoteProtocolError, 0x82)


@pytest.mark.conformance("5.0", "MQTT-4.12.0-7")
def test_auth_without_a_method_in_connect_is_refused_locally() -> None:
    peer = connected()
    with pytest.raises(LocalProtocolError, match="authentication method"):
        peer.protocol.auth(0x19, WITH_AUTH)
    assert peer.bytes_sent() == b""


def test_auth_above_the_server_s_maximum_packet_size_is_refused_locally() -> None:
    peer = connected(properties=WITH_AUTH, server={**WITH_AUTH, "maximum_packet_size": 30})
    with pytest.raises(LocalProtocolError, match="AUTH"):
        peer.protocol.auth(0x19, {**WITH_AUTH, "authentication_data": bytes(30)})
    assert peer.bytes_sent() == b""


# SUBSCRIBE and UNSUBSCRIBE


@every_version
def test_subscribe_is_answered_by_suback(version: str) -> None:
    peer = connected(version)
    packet_id = peer.protocol.subscribe([Subscription("a", 2), Subscription("b", 1)])
    assert peer.sent() == [Subscribe(packet_id, [Subscription("a", 2), Subscription("b", 1)])]
    (event,) = peer.receive(Suback(packet_id, [2, 0]))
    assert type(event) is SubscribeAcknowledged
    assert (event.packet_id, event.reason_codes) == (packet_id, [2, 0])
    assert peer.session.requests == {}


@pytest.mark.conformance("5.0", "MQTT-3.10.4-5", "MQTT-3.11.3-1")
@every_version
def test_unsubscribe_is_answered_by_unsuback(version: str) -> None:
    peer = connected(version)
    packet_id = peer.protocol.unsubscribe(["a", "b"])
    assert peer.sent() == [Unsubscribe(packet_id, ["a", "b"])]
    codes = [0, 0x11] if version == "5.0" else []
    (event,) = peer.receive(Unsuback(packet_id, codes))
    assert type(event) is UnsubscribeAcknowledged
    assert event.reason_codes == (codes or [0, 0])


@pytest.mark.conformance("5.0", "MQTT-3.8.4-7", "MQTT-3.9.3-1")
def test_suback_properties_and_refusals_reach_the_caller_by_position() -> None:
    peer = connected()
    peer.protocol.subscribe([Subscription("a"), Subscription("b")], {"subscription_identifier": 5})
    assert peer.sent() == [
        Subscribe(1, [Subscription("a"), Subscription("b")], {"subscription_identifier": 5})
    ]
    (event,) = peer.receive(Suback(1, [0x87, 0], {"reason_string": "no"}))
    assert event.reason_codes == [0x87, 0]
    assert event.properties == {"reason_string": "no"}


@pytest.mark.conformance("5.0", "MQTT-2.2.1-6", "MQTT-3.8.4-2", "MQTT-3.8.4-6")
@pytest.mark.parametrize(
    "answer",
    [
        Suback(1, [0]),
        Suback(1, [0, 0, 0]),
        Suback(2, [0, 0]),
        Unsuback(1, [0, 0]),
    ],
    ids=["too few codes", "too many codes", "unknown identifier", "wrong packet"],
)
def test_a_wrong_answer_to_subscribe_is_an_error(answer: Packet) -> None:
    peer = connected()
    peer.protocol.subscribe([Subscription("a"), Subscription("b")])
    peer.sent()
    assert end_of(peer.receive(answer)).reason_code == 0x82


@every_version
def test_an_unsolicited_suback_is_an_error(version: str) -> None:
    assert isinstance(end_of(connected(version).receive(Suback(1, [0]))), RemoteProtocolError)


def test_an_answered_request_cannot_be_answered_again() -> None:
    peer = connected()
    peer.protocol.unsubscribe(["a"])
    assert len(peer.receive(Unsuback(1, [0]))) == 1
    end_of(peer.receive(Unsuback(1, [0])))


@pytest.mark.conformance("5.0", "MQTT-3.2.2-15")
def test_a_request_above_the_server_s_maximum_packet_size_is_refused_locally() -> None:
    peer = connected(server={"maximum_packet_size": 20})
    with pytest.raises(LocalProtocolError, match="SUBSCRIBE"):
        peer.protocol.subscribe([Subscription("a" * 20)])
    with pytest.raises(LocalProtocolError, match="UNSUBSCRIBE"):
        peer.protocol.unsubscribe(["a" * 20])
    assert peer.bytes_sent() == b""
    assert peer.session.requests == {}
    peer.protocol.subscribe([Subscription("a")])
    assert [packet.type for packet in peer.sent()] == ["subscribe"]


def test_a_request_that_cannot_be_encoded_leaves_nothing_behind() -> None:
    peer = connected()
    with pytest.raises(ArgumentError):
        peer.protocol.subscribe([])
    assert (peer.session.requests, peer.bytes_sent()) == ({}, b"")


def test_a_publish_of_the_engine_s_making_needs_no_peer() -> None:
    """The helper of these tests encodes as the engine does: here against plain bytes."""
    protocol = Protocol(Session(), ConnectOptions("c"))
    protocol.publish(outgoing(b"x", 1))
    assert protocol.data_to_send(EVERYTHING, 0.0) == [b"\x32\x07\0\x01t\0\x01\0x"]


LEFT_OUT = {"session_expiry_interval": None, "maximum_packet_size": None}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, {"session_expiry_interval": 60, "maximum_packet_size": 1000}),
        ({"maximum_packet_size": None}, {"session_expiry_interval": 60}),
        ({"session_expiry_interval": None}, {"maximum_packet_size": 1000}),
        (LEFT_OUT, {}),
        ({**LEFT_OUT, "request_problem_information": 0}, {"request_problem_information": 0}),
    ],
)
def test_the_properties_that_we_send_by_ourselves_may_be_left_out(given: Any, sent: Any) -> None:
    options = ConnectOptions("c", session_expiry=60, maximum_packet_size=1000, properties=given)
    decoded = decode_packet(options.encode(clean_start=True), "5.0")
    assert decoded is not None
    packet: Any = decoded[0]
    assert packet.properties == sent
    assert options.announces_size is ("maximum_packet_size" in sent)
