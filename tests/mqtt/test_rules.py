"""What a connection does otherwise than the standard when it is asked to, one rule at a time."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.errors import ConnectRefused, RemoteProtocolError
from device_sdk.mqtt.events import ConnectAcknowledged, SubscribeAcknowledged
from device_sdk.mqtt.packets import Puback, Pubcomp, Publish, Pubrec, Suback
from device_sdk.mqtt.rules import ProtocolRules
from device_sdk.mqtt.session import Outgoing, Session
from tests.mqtt.peer import Peer, connected, end_of, every_version, messages_in, versions_3


def types(peer: Peer) -> list[str]:
    return [packet.type for packet in peer.sent()]


@versions_3
def test_a_session_that_is_assumed_goes_on_whatever_connack_says(version: str) -> None:
    rules = ProtocolRules(assumes_session=True)
    first = connected(version, rules=rules)
    past_pubrec, in_flight = first.publish(qos=2), first.publish(qos=1)
    first.receive(Pubrec(past_pubrec.packet_id), Publish("t", b"x", qos=2, packet_id=7))
    first.cut()
    second = Peer(version, session=first.session, rules=rules)
    second.connect(clean_start=False)
    (event,) = second.receive_bytes(b"\x20\x02\x00\x00")
    assert type(event) is ConnectAcknowledged
    assert not event.session_present
    assert types(second) == ["pubrel", "publish"]
    assert second.receive(Puback(in_flight.packet_id)) == [in_flight]
    # MQTT 3.1 cannot say that the session is gone, so that there the identifier stays in use.
    assert list(first.session.received) == ([7] if version == "3.1" else [])


@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_after_a_clean_start_a_message_past_pubrec_begins_anew_with_its_payload(version: str) -> None:
    rules = ProtocolRules(assumes_session=True, keeps_payload_until_pubcomp=True)
    first = connected(version, rules=rules)
    message = first.publish(b"kept", qos=2)
    first.receive(Pubrec(message.packet_id))
    first.cut()
    second = Peer(version, session=first.session, rules=rules)
    second.connect(clean_start=True)
    (event,) = second.receive_bytes(b"\x20\x02\x00\x00" if version == "3.1.1" else b"\x20\x03\x00\x00\x00")
    for republished in event.republish:
        second.protocol.publish(republished)
    (publish,) = second.sent()
    assert (publish.type, publish.payload) == ("publish", b"kept")  # type: ignore[attr-defined]
    assert message.status == "sent"


def test_a_suback_for_nothing_is_an_event_if_that_is_accepted() -> None:
    peer = connected(rules=ProtocolRules(accepts_unasked_suback=True))
    (event,) = peer.receive(Suback(9, [1, 2]))
    assert type(event) is SubscribeAcknowledged
    assert (event.packet_id, event.reason_codes) == (9, [1, 2])


@pytest.mark.parametrize("explains", [True, False])
def test_an_early_end_is_explained_unless_it_is_not_to_be(explains: bool) -> None:
    peer = Peer(rules=ProtocolRules(explains_early_end=explains))
    peer.connect()
    end_of(peer.receive(Publish("t")))
    assert types(peer) == (["disconnect"] if explains else [])


@pytest.mark.parametrize(("return_code", "reason_code"), [(5, 0x87), (77, 0x80)])
def test_a_refusal_in_the_format_of_mqtt_3_can_be_understood(return_code: int, reason_code: int) -> None:
    refusal = bytes((0x20, 2, 0, return_code))
    strict, lenient = Peer(), Peer(rules=ProtocolRules(mqtt_3_refusals={5: 0x87}))
    strict.connect()
    assert isinstance(end_of(strict.receive_bytes(refusal)), RemoteProtocolError)
    lenient.connect()
    error = end_of(lenient.receive_bytes(refusal))
    assert isinstance(error, ConnectRefused)
    assert error.reason_code == reason_code


def test_topic_names_are_read_as_the_rules_say() -> None:
    peer = connected(rules=ProtocolRules(read_topic=lambda field: field[2:].decode("latin-1")))
    (message,) = messages_in(peer.receive_bytes(b"\x30\x05\x00\x02t\xff\x00"))
    assert message.topic == "t\xff"


def test_a_message_gets_the_identifier_that_is_chosen_for_it_or_the_next_free_one() -> None:
    chosen = {b"first": 40, b"second": 40}
    peer = connected(rules=ProtocolRules(choose_packet_id=lambda message: chosen.get(message.payload, 0)))
    payloads = (b"x", b"first", b"second", b"y")
    assert [peer.publish(payload).packet_id for payload in payloads] == [1, 40, 41, 2]


@every_version
def test_the_answers_to_messages_are_told(version: str) -> None:
    told: list[tuple[Outgoing, int, int, Any]] = []
    peer = connected(version, rules=ProtocolRules(note_answer=lambda *answer: told.append(answer)))
    one, two = peer.publish(qos=1), peer.publish(qos=2)
    properties = {"reason_string": "nobody"} if version == "5.0" else {}
    code = 0x10 if version == "5.0" else 0
    peer.receive(Puback(one.packet_id, code, properties), Pubrec(two.packet_id), Pubcomp(two.packet_id))
    said = [(4, 0x10, properties)] if version == "5.0" else []
    assert [answer[1:] for answer in told] == [*said, (5, 0, {}), (7, 0, {})]
    assert told[-1][0] is two


def test_identifiers_that_are_chosen_do_not_move_the_search_for_others() -> None:
    session = Session()
    assert (session.allocate(), session.allocate_from(9), session.allocate()) == (1, 9, 2)
