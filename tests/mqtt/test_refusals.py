"""A refusal says what to look at: the words by reason code, version and the presence of a user name."""

from __future__ import annotations

import pytest

from device_sdk.engine.connecting.back_off import NEVER, classify
from device_sdk.errors import ConnectRefused, MalformedPacketError
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.packets import Connack
from device_sdk.mqtt.refusals import connect_refused, disconnected, publish_refused, subscribe_refused
from tests.mqtt.peer import Peer

CODES_3 = {0x84: 1, 0x85: 2, 0x86: 4, 0x87: 5}


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (0x84, "the broker does not speak MQTT {version}: give another version="),
        (0x85, "give another client_id="),
        (0x86, "; look at user name and password"),
        (0x87, "; look at user name and password, and at the broker's rules for this client"),
    ],
)
@pytest.mark.parametrize("version", ["3.1", "3.1.1", "5.0"])
def test_a_refused_connection_says_what_to_look_at(version: str, code: int, advice: str) -> None:
    number = code if version == "5.0" else CODES_3[code]
    text = str(connect_refused(number, {}, version))
    assert advice.format(version=version) in text
    assert text.startswith("the server refused the connection: ")


@pytest.mark.parametrize(("version", "code"), [("5.0", 0x86), ("5.0", 0x87), ("3.1.1", 4), ("3.1.1", 5)])
def test_a_client_without_a_user_name_is_told_to_give_one(version: str, code: int) -> None:
    assert "no user name was sent: give user_name=" in str(connect_refused(code, {}, version, anonymous=True))


@pytest.mark.parametrize(
    ("user_name", "words"), [(None, "no user name was sent"), ("me", "look at user name")]
)
def test_the_protocol_knows_whether_a_user_name_was_sent(user_name: str | None, words: str) -> None:
    peer = Peer("5.0", user_name=user_name)
    peer.connect()
    (event,) = peer.receive(Connack(False, 0x87))
    assert words in str(event.error)


def test_the_words_of_the_server_come_before_the_advice() -> None:
    text = str(connect_refused(0x87, {"reason_string": "no such device"}, "5.0"))
    assert "not authorized (0x87): no such device; look at user name" in text


def test_a_code_without_advice_ends_with_the_code() -> None:
    assert str(connect_refused(0x97, {}, "5.0")).endswith("quota exceeded (0x97)")


def test_a_topic_that_is_not_allowed_sends_the_user_to_the_rules_of_the_broker() -> None:
    rules = "; look at the broker's rules (ACL) for this client and this topic"
    assert str(publish_refused(0x87, {}, "5.0")).endswith(f"not authorized (0x87){rules}")
    assert str(disconnected(0x87, {}, "5.0")).endswith(rules)
    assert str(subscribe_refused([("a", 0x87)], {}, "5.0")) == f"the server refused a (not authorized){rules}"
    assert str(subscribe_refused([("a", 0x80)], {}, "3.1.1")) == f"the server refused a (failure){rules}"
    assert str(subscribe_refused([("a", 0xA2)], {}, "5.0")).endswith("(wildcard subscription not supported)")


def test_no_password_is_in_a_refusal() -> None:
    options = ConnectOptions("c", user_name="me", password="s3cret")
    peer = Peer("5.0", user_name=options.user_name, password=options.password)
    peer.connect()
    (event,) = peer.receive(Connack(False, 0x86))
    assert "s3cret" not in str(event.error)


# A server of MQTT 3.x that is sent a CONNECT of MQTT 5.0


@pytest.mark.parametrize(
    ("return_code", "reason_code", "words"),
    [
        (1, 0x84, "unsupported protocol version (0x84); the broker answers in MQTT 3.1.1"),
        (2, 0x85, "give another client_id=, mostly of letters and digits; the broker answers in MQTT 3.1.1"),
        (3, 0x88, "server unavailable (0x88); the broker answers in MQTT 3.1.1"),
        (4, 0x86, "bad user name or password (0x86); look at user name and password; the broker answers"),
        (5, 0x87, "the broker's rules for this client; the broker answers in MQTT 3.1.1"),
        (77, 0x80, "unspecified error (0x80); the broker answers in MQTT 3.1.1"),
    ],
)
def test_a_refusal_of_mqtt_3_is_understood_and_names_the_version(
    return_code: int, reason_code: int, words: str
) -> None:
    peer = Peer("5.0", user_name="me")
    peer.connect()
    (event,) = peer.receive_bytes(bytes((0x20, 2, 0, return_code)))
    assert isinstance(event.error, ConnectRefused)
    assert event.reason_code == event.error.reason_code == reason_code
    assert words in str(event.error)
    assert str(event.error).endswith("give version='3.1.1'")


def test_an_acceptance_of_mqtt_3_names_the_version_and_waits_for_a_person() -> None:
    peer = Peer("5.0")
    peer.connect()
    (event,) = peer.receive_bytes(bytes.fromhex("20 02 00 00"))
    assert isinstance(event.error, MalformedPacketError)
    assert str(event.error).endswith("the broker answers in MQTT 3.1.1: give version='3.1.1'")
    assert classify(event.error, event.reason_code) == NEVER


def test_a_refusal_of_mqtt_5_says_nothing_of_mqtt_3() -> None:
    peer = Peer("5.0")
    peer.connect()
    (event,) = peer.receive(Connack(False, 0x84))
    assert "the broker does not speak MQTT 5.0: give another version=" in str(event.error)
    assert "3.1.1" not in str(event.error)


def test_a_refusal_in_two_bytes_to_a_client_of_mqtt_3_is_its_own() -> None:
    peer = Peer("3.1.1")
    peer.connect()
    (event,) = peer.receive_bytes(bytes.fromhex("20 02 00 01"))
    assert event.reason_code == 1
    assert "the broker does not speak MQTT 3.1.1: give another version=" in str(event.error)


def test_a_session_taken_over_names_the_client_identifier() -> None:
    text = str(disconnected(0x8E, {}, "5.0", "node-17"))
    assert text.endswith(
        "session taken over (0x8e); another client has connected with the client identifier 'node-17': "
        "give each its own"
    )


def test_a_refused_bridge_learns_that_it_may_be_the_mark() -> None:
    assert str(connect_refused(1, {}, "3.1.1", bridge=True)).endswith(
        "the broker does not know the mark of a bridge, which is not of the standard: leave out bridge="
    )
    assert "bridge" not in str(connect_refused(5, {}, "3.1.1", bridge=True))
