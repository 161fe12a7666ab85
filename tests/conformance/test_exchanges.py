"""Statements about one connection or one session, shown by the packets that a server sends and sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from device_sdk.errors import (
    ArgumentError,
    ConnectRefused,
    LocalProtocolError,
    RefusedError,
    RemoteProtocolError,
)
from device_sdk.mqtt import (
    Auth,
    Connack,
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
    Subscription,
    Unsuback,
    decode_packet,
)
from device_sdk.mqtt.events import AuthReceived, ConnectAcknowledged
from device_sdk.mqtt.protocol import CLOSED
from device_sdk.mqtt.session import Session
from tests.mqtt.peer import Peer, connected, end_of, every_version, messages_in

METHOD = {"authentication_method": "SCRAM"}
OTHER_METHOD = {"authentication_method": "other"}

since_3_1_1 = pytest.mark.parametrize("version", ["3.1.1", "5.0"])


def publish(packet_id: int, qos: int, **fields: Any) -> Publish:
    return Publish("t", b"x", qos=qos, packet_id=packet_id, **fields)


# CONNECT and CONNACK


@pytest.mark.conformance("5.0", "MQTT-3.1.2-4")
@pytest.mark.conformance("3.1.1", "MQTT-3.1.2-6")
@since_3_1_1
def test_a_clean_start_drops_the_old_session_on_our_side(version: str) -> None:
    peer = connected(version)
    unfinished = [peer.publish(b"1", 1), peer.publish(b"2", 2)]
    peer.publish(b"3", 2)
    peer.receive(Pubrec(3), publish(9, 2))
    peer.cut()
    again = Peer(version, session=peer.session)
    again.connect(clean_start=True)
    event = again.receive(Connack())[0]
    assert isinstance(event, ConnectAcknowledged)
    assert again.sent() == [], "neither PUBLISH nor PUBREL of the old session"
    assert event.republish == unfinished, "they may only be published as new messages"
    assert [message.packet for message in unfinished] == [None, None]
    assert len(messages_in(again.receive(publish(9, 2)))) == 1, "identifiers of the old session are new"


@pytest.mark.conformance("5.0", "MQTT-3.2.2-6")
@pytest.mark.conformance("3.1.1", "MQTT-3.2.2-4")
@pytest.mark.parametrize(("version", "packet"), [("5.0", "20 03 01 87 00"), ("3.1.1", "20 02 01 05")])
def test_a_refusal_that_says_session_present_is_a_protocol_error(version: str, packet: str) -> None:
    peer = Peer(version)
    peer.connect(clean_start=False)
    assert end_of(peer.receive_bytes(bytes.fromhex(packet))).reason_code == 0x82
    assert peer.protocol.state == CLOSED


@pytest.mark.conformance("3.1", "MQTT-3.1/SESSION-PRESENT")
@pytest.mark.parametrize("reserved", [0x00, 0x01, 0xFF])
def test_the_first_byte_of_connack_means_nothing_in_mqtt_3_1(reserved: int) -> None:
    peer = connected("3.1")
    peer.publish(b"x", 1)
    peer.sent()
    peer.cut()
    again = Peer("3.1", session=peer.session)
    again.connect(clean_start=False)
    again.receive_bytes(bytes((0x20, 2, reserved, 0)))
    assert again.sent() == [publish(1, 1, dup=True)]


@pytest.mark.conformance("5.0", "MQTT-4.9.0-1")
def test_a_receive_maximum_of_zero_is_a_protocol_error_and_a_window_is_never_empty() -> None:
    peer = Peer()
    peer.connect()
    assert end_of(peer.receive_bytes(bytes.fromhex("20 06 00 00 03 21 0000"))).reason_code == 0x82
    for offered in (1, 2, 65_535):
        window = connected(server={"receive_maximum": offered}, inflight=20).protocol.outbound.window
        assert 0 < window <= offered


@pytest.mark.conformance("5.0", "MQTT-3.1.2-29")
def test_a_reason_string_that_we_did_not_ask_for_does_no_harm() -> None:
    """The standard lets a client close here; this one reads it, and the message ends as the code says."""
    peer = connected(properties={"request_problem_information": 0})
    message = peer.publish(b"x", 1)
    assert peer.receive(Puback(1, 0x97, {"reason_string": "quota"})) == [message]
    assert (message.status, str(message.error)) == ("refused", str(message.error))
    assert message.error is not None
    assert "quota" in str(message.error)


# Enhanced authentication


@pytest.mark.conformance("5.0", "MQTT-4.12.0-5", "MQTT-4.12.0-6")
@pytest.mark.parametrize(
    ("ours", "server"),
    [(METHOD, OTHER_METHOD), (METHOD, {}), ({}, METHOD)],
    ids=["another", "none", "we have none"],
)
def test_a_connack_with_another_authentication_method_than_ours_is_an_error(
    ours: dict[str, str], server: dict[str, str]
) -> None:
    peer = Peer(properties=ours)
    peer.connect()
    assert end_of(peer.receive(Connack(False, 0, server))).reason_code == 0x82
    assert peer.sent() == [Disconnect(0x82)]


@pytest.mark.conformance("5.0", "MQTT-4.12.0-4")
@pytest.mark.parametrize("reason_code", [0x87, 0x8C])
def test_the_server_may_refuse_in_the_middle_of_an_authentication(reason_code: int) -> None:
    peer = Peer(properties=METHOD)
    peer.connect()
    peer.receive(Auth(0x18, METHOD))
    peer.protocol.auth(0x18, METHOD)
    assert peer.sent() == [Auth(0x18, METHOD)]
    error = end_of(peer.receive(Connack(False, reason_code)))
    assert isinstance(error, ConnectRefused)
    assert error.reason_code == reason_code
    assert peer.bytes_sent() == b""


@pytest.mark.conformance("5.0", "MQTT-4.12.1-1", "MQTT-4.12.0-3")
def test_a_re_authentication_begins_with_the_original_method() -> None:
    peer = connected(properties=METHOD, server=METHOD)
    peer.protocol.auth(0x19, {**METHOD, "authentication_data": b"1"})
    assert peer.sent() == [Auth(0x19, {**METHOD, "authentication_data": b"1"})]
    (event,) = peer.receive(Auth(0x18, METHOD))
    assert isinstance(event, AuthReceived)
    peer.protocol.auth(0x18, METHOD)
    assert peer.sent() == [Auth(0x18, METHOD)]
    (event,) = peer.receive(Auth(0x00, METHOD))
    assert (event.reason_code, peer.sent()) == (0, [])


@pytest.mark.conformance("5.0", "MQTT-4.12.1-1", "MQTT-4.12.0-5")
@pytest.mark.parametrize("reason_code", [0x18, 0x19])
@pytest.mark.parametrize("properties", [OTHER_METHOD, {}])
def test_we_never_send_auth_with_another_method_than_that_of_connect(
    reason_code: int, properties: dict[str, str]
) -> None:
    peer = connected(properties=METHOD, server=METHOD)
    with pytest.raises(LocalProtocolError, match="authentication_method"):
        peer.protocol.auth(reason_code, properties)
    assert peer.bytes_sent() == b""


@pytest.mark.conformance("5.0", "MQTT-3.15.2-1")
@pytest.mark.parametrize("reason_code", [0x00, 0x01, 0x87])
def test_we_never_send_auth_with_a_reason_code_that_is_not_ours(reason_code: int) -> None:
    peer = connected(properties=METHOD, server=METHOD)
    with pytest.raises(ArgumentError) as caught:
        peer.protocol.auth(reason_code, METHOD)
    assert caught.value.argument == "reason_code"
    assert peer.bytes_sent() == b""


@pytest.mark.conformance("5.0", "MQTT-4.12.1-2")
def test_a_failed_re_authentication_ends_the_connection_from_either_side() -> None:
    peer = connected(properties=METHOD, server=METHOD)
    peer.protocol.auth(0x19, METHOD)
    peer.sent()
    error = end_of(peer.receive(Disconnect(0x87)))
    assert isinstance(error, RefusedError)
    assert (error.reason_code, peer.protocol.state, peer.bytes_sent()) == (0x87, CLOSED, b"")

    peer = connected(properties=METHOD, server=METHOD)
    peer.receive(Auth(0x18, METHOD))
    peer.protocol.disconnect(0x80)
    assert peer.sent() == [Disconnect(0x80)]
    peer.protocol.publish_qos0(b"\0\x01t", b"late", 0, b"\0")
    assert peer.bytes_sent() == b""


@pytest.mark.conformance("5.0", "MQTT-3.15.2-2", "MQTT-3.15.2-3")
@pytest.mark.parametrize("extra", [{"reason_string": "x" * 40}, {"user_property": [("n", "v" * 40)]}])
def test_an_auth_that_explanations_make_too_large_is_not_sent(extra: dict[str, Any]) -> None:
    peer = connected(properties=METHOD, server={**METHOD, "maximum_packet_size": 30})
    with pytest.raises(LocalProtocolError, match="Maximum Packet Size"):
        peer.protocol.auth(0x19, {**METHOD, **extra})
    assert peer.bytes_sent() == b""
    peer.protocol.auth(0x19, METHOD)
    assert peer.sent() == [Auth(0x19, METHOD)]


# Acknowledgements


@pytest.mark.conformance(
    "5.0", "MQTT-3.4.2-2", "MQTT-3.4.2-3", "MQTT-3.5.2-2", "MQTT-3.5.2-3", "MQTT-3.6.2-2", "MQTT-3.6.2-3",
    "MQTT-3.7.2-2", "MQTT-3.7.2-3",
)  # fmt: skip
def test_our_acknowledgements_never_carry_explanations_so_they_always_fit() -> None:
    peer = connected(server={"maximum_packet_size": 12})
    explained = {"reason_string": "why", "user_property": [["n", "v"]]}
    answers = peer.handle(*messages_in(peer.receive(publish(1, 1), publish(2, 2))))
    peer.receive(Pubrel(2, 0, explained), Pubrel(77, 0x92, explained), Pubrec(78, 0, explained))
    peer.publish(b"x", 2)
    peer.receive(Pubrec(1, 0, explained))
    answers += [packet for packet in peer.sent() if packet.type != "publish"]
    assert answers == [Puback(1), Pubrec(2), Pubcomp(2), Pubcomp(77, 0x92), Pubrel(78, 0x92), Pubrel(1)]


@pytest.mark.conformance("5.0", "MQTT-3.3.4-1")
@pytest.mark.conformance("3.1.1", "MQTT-3.3.4-1")
@every_version
def test_qos_0_is_delivered_and_never_answered(version: str) -> None:
    peer = connected(version)
    messages = messages_in(peer.receive(Publish("t", b"x")))
    assert [message.payload for message in messages] == [b"x"]
    assert peer.handle(*messages) == []


@pytest.mark.conformance("5.0", "MQTT-4.3.2-5", "MQTT-4.3.2-4")
@pytest.mark.conformance("3.1.1", "MQTT-4.3.2-2", "MQTT-2.3.1-6")
@every_version
@pytest.mark.parametrize("dup", [False, True])
def test_after_puback_the_same_identifier_is_a_new_message_whatever_dup_says(version: str, dup: bool) -> None:
    peer = connected(version)
    for _ in range(3):
        (message,) = messages_in(peer.receive(publish(5, 1, dup=dup)))
        assert peer.handle(message) == [Puback(5)]


@pytest.mark.conformance("5.0", "MQTT-3.3.1-3")
@pytest.mark.conformance("3.1.1", "MQTT-3.3.1-3")
@pytest.mark.parametrize("qos", [1, 2])
@every_version
def test_a_forwarded_message_has_dup_only_when_it_is_repeated_itself(version: str, qos: int) -> None:
    peer = connected(version)
    (message,) = messages_in(peer.receive(publish(5, qos, dup=True)))
    assert message.dup
    peer.publish(message.payload, message.qos, topic=message.topic, retain=message.retain)
    assert peer.sent() == [publish(1, qos)]
    peer.cut()
    assert connected(version, session=peer.session).sent() == [publish(1, qos, dup=True)]


@pytest.mark.conformance("5.0", "MQTT-4.4.0-1")
@pytest.mark.conformance("3.1.1", "MQTT-4.4.0-1")
@pytest.mark.conformance("3.1", "MQTT-3.1/RESEND-TIMER")
@every_version
def test_an_hour_without_acknowledgements_is_an_hour_of_pingreq_and_nothing_else(version: str) -> None:
    peer = connected(version, keep_alive=60)
    peer.publish(b"1", 1)
    peer.publish(b"2", 2)
    peer.publish(b"3", 2)
    peer.receive(Pubrec(3))
    peer.sent()
    an_hour(peer)
    assert len(peer.session) == 3


def an_hour(peer: Peer) -> None:
    """An hour passes, in which the client says nothing but PINGREQ."""
    for _ in range(60):
        assert peer.advance(60.0) == []
        assert peer.sent() == [Pingreq()]
        peer.receive(Pingresp())


@pytest.mark.conformance("3.1.1", "MQTT-4.1.0-2")
@pytest.mark.conformance("5.0", "MQTT-4.1.0-1")
@pytest.mark.parametrize("clean_start", [True, False])
@since_3_1_1
def test_a_session_lasts_as_long_as_its_connection_even_a_clean_one(version: str, clean_start: bool) -> None:
    peer = connected(version, session=Session(), clean_start=clean_start, present=False, keep_alive=60)
    message = peer.publish(b"x", 2)
    peer.handle(*messages_in(peer.receive(publish(9, 2))))
    an_hour(peer)
    assert messages_in(peer.receive(publish(9, 2, dup=True))) == []
    peer.receive(Pubrec(1))
    assert peer.sent() == [Pubrec(9), Pubrel(1)]
    an_hour(peer)
    assert peer.receive(Pubcomp(1)) == [message]
    assert message.status == "acknowledged"


@pytest.mark.conformance("3.1", "MQTT-3.1/PUBREL-DUP")
def test_a_repeated_pubrel_of_mqtt_3_1_is_answered() -> None:
    peer = connected("3.1")
    peer.handle(*messages_in(peer.receive(publish(5, 2))))
    assert peer.receive_bytes(bytes.fromhex("6a 02 0005")) == []
    assert peer.sent() == [Pubcomp(5)]


# SUBSCRIBE and UNSUBSCRIBE


@pytest.mark.conformance(
    "3.1.1", "MQTT-2.3.1-7", "MQTT-3.8.4-2", "MQTT-3.8.4-5", "MQTT-3.10.4-4"
)  # fmt: skip
@pytest.mark.parametrize(
    "answer",
    [Suback(7, [0, 0]), Suback(1, [0]), Suback(1, [0, 0, 0]), Unsuback(1), Suback(2, [0, 0]), Unsuback(7)],
    ids=["foreign SUBACK", "too few codes", "too many codes", "UNSUBACK for SUBSCRIBE",
         "SUBACK for UNSUBSCRIBE", "foreign UNSUBACK"],
)  # fmt: skip
def test_a_wrong_answer_completes_no_request_in_mqtt_3(answer: Packet) -> None:
    peer = connected("3.1.1")
    assert peer.protocol.subscribe([Subscription("a"), Subscription("b")]) == 1
    assert peer.protocol.unsubscribe(["c", "d"]) == 2
    (event,) = peer.receive(answer)
    assert isinstance(event.error, RemoteProtocolError)


@pytest.mark.conformance("5.0", "MQTT-2.2.1-6", "MQTT-3.10.4-5", "MQTT-3.11.3-1")
@pytest.mark.parametrize(
    "answer", [Unsuback(7, [0, 0]), Unsuback(1, [0]), Unsuback(1, [0, 0, 0]), Suback(1, [0, 0])]
)
def test_a_wrong_answer_to_unsubscribe_is_an_error(answer: Packet) -> None:
    peer = connected()
    peer.protocol.unsubscribe(["a", "b"])
    assert end_of(peer.receive(answer)).reason_code == 0x82


@pytest.mark.conformance("5.0", "MQTT-3.10.4-3")
@pytest.mark.conformance("3.1.1", "MQTT-3.10.4-3")
@every_version
def test_messages_that_were_on_their_way_are_completed_after_unsubscribe(version: str) -> None:
    peer = connected(version)
    peer.protocol.unsubscribe(["t"])
    peer.sent()
    messages = messages_in(peer.receive(publish(5, 2), publish(6, 1)))
    peer.receive(Unsuback(1, [0] if version == "5.0" else []))
    assert peer.handle(*messages) == [Pubrec(5), Puback(6)]
    peer.receive(Pubrel(5))
    assert peer.sent() == [Pubcomp(5)]


@pytest.mark.conformance("3.1", "MQTT-3.1/SUBACK-FAILURE")
def test_suback_with_a_failure_code_ends_a_connection_of_mqtt_3_1() -> None:
    peer = connected("3.1")
    peer.protocol.subscribe([Subscription("a")])
    assert isinstance(end_of(peer.receive_bytes(bytes.fromhex("90 03 0001 80"))), RemoteProtocolError)


# The end


@pytest.mark.conformance("5.0", "MQTT-3.14.2-2")
def test_a_server_must_not_say_session_expiry_interval_in_disconnect() -> None:
    peer = connected()
    error = end_of(peer.receive_bytes(bytes.fromhex("e0 07 00 05 11 0000000a")))
    assert (type(error), error.reason_code) == (RemoteProtocolError, 0x82)
    assert peer.sent() == [Disconnect(0x82)]


VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "mqtt" / "vectors.json").read_text(encoding="utf-8")
)["vectors"]
BAD = [vector for vector in VECTORS if vector["outcome"] != "ok" and vector["direction"] != "c2s"]


@pytest.mark.conformance("5.0", "MQTT-4.13.1-1", "MQTT-2.1.3-1")
@pytest.mark.conformance("3.1.1", "MQTT-4.8.0-1", "MQTT-2.2.2-2")
@pytest.mark.parametrize("vector", BAD, ids=lambda vector: f"{vector['id']} {vector['name']}")
def test_every_bad_packet_ends_a_live_connection_with_its_reason(vector: dict[str, Any]) -> None:
    """Scenario X03."""
    version, data = vector["version"], bytes.fromhex(vector["hex"])
    peer = connecting(version) if data[0] >> 4 == 2 else connected(version, topic_alias_maximum=5)
    error = end_of(peer.receive_bytes(data))
    if version != "5.0":
        assert peer.bytes_sent() == b""
        return
    assert error.reason_code == int(vector["reason_code"], 16)
    assert peer.sent() == [Disconnect(error.reason_code)]


def connecting(version: str) -> Peer:
    """A peer that waits for CONNACK, where a bad CONNACK belongs."""
    peer = Peer(version)
    peer.connect()
    return peer


def test_the_bad_packets_are_whole_and_many() -> None:
    assert len(BAD) > 70
    for vector in BAD:
        with pytest.raises(RemoteProtocolError):
            decode_packet(bytes.fromhex(vector["hex"]), vector["version"])
