"""What a connection does otherwise than the standard when it is asked to, one rule at a time."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.errors import ConnectRefused, RemoteProtocolError
from device_sdk.mqtt.events import ConnectAcknowledged, SubscribeAcknowledged
from device_sdk.mqtt.packets import Connack, Puback, Pubcomp, Publish, Pubrec, Pubrel, Suback
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
    strict = Peer(rules=ProtocolRules(mqtt_3_refusals={}))
    lenient = Peer(rules=ProtocolRules(mqtt_3_refusals={5: 0x87}))
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


# Before CONNACK

AHEAD = ProtocolRules(sends_before_connack=True)
ASSUMED = ProtocolRules(sends_before_connack=True, assumes_session=True)


def ahead(version: str, rules: ProtocolRules, *, session: Session | None = None) -> tuple[Peer, Outgoing]:
    """Return a connection that has sent a message of QoS 1, and whose CONNACK has not come."""
    peer = Peer(version, session=session, rules=rules)
    peer.connect(clean_start=session is None)
    message = peer.publish(b"early")
    assert types(peer) == ["publish"]
    return peer, message


@every_version
@pytest.mark.parametrize("rules", [AHEAD, ASSUMED])
def test_what_was_sent_before_connack_is_neither_repeated_nor_published_again(
    version: str, rules: ProtocolRules
) -> None:
    peer, message = ahead(version, rules)
    events = peer.receive(Connack(False))
    assert types(peer) == []
    assert events[0].republish == []
    assert peer.receive(Puback(message.packet_id)) == [message]


@every_version
def test_what_an_earlier_connection_left_is_repeated_and_what_came_before_connack_is_not(
    version: str,
) -> None:
    first = connected(version, rules=ASSUMED)
    old = first.publish(b"old")
    first.cut()
    first.session.known = True
    second, _ = ahead(version, ASSUMED, session=first.session)
    assert (
        second.protocol.outbound.window == 21
    )  # what is left over takes no place away from what is sent now
    events = second.receive(Connack(version != "3.1"))
    assert not events[0].republish
    (repeat,) = second.sent()
    assert (repeat.payload, repeat.dup) == (b"old", True)  # type: ignore[attr-defined]
    assert second.protocol.outbound.window == 20
    assert next(iter(second.session.in_flight)) == old.packet_id


def test_a_lost_session_keeps_what_the_server_was_sent_since() -> None:
    first = connected(rules=AHEAD)
    old = first.publish(b"old")
    first.cut()
    second, message = ahead("5.0", AHEAD, session=first.session)
    events = second.receive(Connack(False))
    assert events[0].republish == [old]
    assert second.session.in_flight == {message.packet_id: message}


def test_a_journal_knows_which_message_a_lost_session_still_has() -> None:
    session = Session(journal=True)
    peer = Peer(session=session, rules=AHEAD)
    peer.connect()
    message = peer.publish()
    session.take_changes()
    peer.receive(Connack(False))
    changes = session.take_changes()
    assert changes.index(("lost",)) < changes.index(("sent", message.sequence, message.packet_id))


def test_a_message_of_a_connection_that_was_never_accepted_is_repeated_on_the_next() -> None:
    first, message = ahead("3.1.1", ASSUMED)
    first.cut()
    second = Peer("3.1.1", session=first.session, rules=ASSUMED)
    second.connect(clean_start=False)
    second.receive(Connack(False))
    (repeat,) = second.sent()
    assert (repeat.packet_id, repeat.dup) == (message.packet_id, True)  # type: ignore[attr-defined]


# Delivery at PUBREL

AT_PUBREL = ProtocolRules(delivers_at_pubrel=True, assumes_session=True)
LARGEST = 32 * 1024 * 1024
FULL = bytes(16 * 1024 * 1024)  # as much as may wait for PUBREL


def arriving(packet_id: int = 7, payload: bytes = b"x", *, dup: bool = False) -> Publish:
    return Publish("t", payload, qos=2, packet_id=packet_id, dup=dup)


@every_version
def test_a_message_of_qos_2_is_answered_at_once_and_delivered_at_pubrel(version: str) -> None:
    peer = connected(version, rules=AT_PUBREL)
    assert peer.receive(arriving()) == []
    assert types(peer) == ["pubrec"]
    (message,) = messages_in(peer.receive(Pubrel(7)))
    assert (message.payload, types(peer)) == (b"x", [])
    assert [packet.type for packet in peer.handle(message)] == ["pubcomp"]
    assert not (peer.session.received or peer.session.releases)


def test_repeats_of_publish_and_pubrel_deliver_nothing_twice() -> None:
    peer = connected(rules=AT_PUBREL)
    peer.receive(arriving())
    assert peer.receive(arriving(dup=True)) == []
    assert types(peer) == ["pubrec", "pubrec"]
    (message,) = messages_in(peer.receive(Pubrel(7), Pubrel(7)))
    assert peer.receive(arriving(dup=True)) == []
    assert types(peer) == ["pubrec"]
    assert [packet.type for packet in peer.handle(message)] == ["pubcomp"]


@pytest.mark.parametrize("handled", [False, True])
def test_a_pubrel_that_is_repeated_on_the_next_connection_is_answered_once_the_message_is_handled(
    handled: bool,
) -> None:
    first = connected(rules=AT_PUBREL)
    first.receive(arriving())
    (message,) = messages_in(first.receive(Pubrel(7)))
    first.cut()
    message.handled = handled
    second = connected(session=first.session, rules=AT_PUBREL)
    assert messages_in(second.receive(Pubrel(7))) == []
    assert types(second) == (["pubcomp"] if handled else [])
    assert [packet.type for packet in second.handle(message)] == ([] if handled else ["pubcomp"])
    assert not (second.session.received or second.session.releases)


def test_a_message_waits_for_its_pubrel_beyond_the_connection() -> None:
    first = connected(rules=AT_PUBREL)
    first.receive(arriving())
    first.cut()
    second = connected(session=first.session, rules=AT_PUBREL)
    assert messages_in(second.receive(arriving(dup=True))) == []
    (message,) = messages_in(second.receive(Pubrel(7)))
    assert message.payload == b"x"


@every_version
def test_a_message_whose_pubrel_is_lost_with_the_session_is_delivered(version: str) -> None:
    first = connected(version, rules=AT_PUBREL)
    first.receive(arriving(payload=b"ours since PUBREC"))
    first.cut()
    second = Peer(version, session=first.session, rules=AT_PUBREL)
    second.connect(clean_start=True)
    events = second.receive(Connack(False))
    assert type(events[0]) is ConnectAcknowledged
    assert [message.payload for message in messages_in(events)] == [b"ours since PUBREC"]
    assert not (second.session.received or second.session.releases)


def test_what_waits_for_pubrel_is_bounded_and_the_rest_is_delivered_before_its_pubrec() -> None:
    peer = connected(rules=AT_PUBREL, maximum_packet_size=LARGEST)
    large = bytes(9 * 1024 * 1024)
    assert messages_in(peer.receive(arriving(1, large))) == []
    (second,) = messages_in(peer.receive(arriving(2, large)))
    assert [packet.packet_id for packet in peer.sent()] == [1]  # type: ignore[attr-defined]
    assert messages_in(peer.receive(arriving(2, large, dup=True))) == []
    assert [packet.type for packet in peer.handle(second)] == ["pubrec", "pubrec"]
    assert len(messages_in(peer.receive(Pubrel(1), Pubrel(2)))) == 1
    assert messages_in(peer.receive(arriving(3, large))) == []  # there is memory again


def test_a_message_that_a_handler_has_is_not_delivered_by_the_next_connection() -> None:
    first = connected(rules=AT_PUBREL, maximum_packet_size=LARGEST)
    first.receive(arriving(1, FULL))
    (given,) = messages_in(first.receive(arriving(2)))
    first.cut()
    second = connected(session=first.session, rules=AT_PUBREL)
    assert messages_in(second.receive(arriving(2, dup=True))) == []
    assert [packet.type for packet in second.handle(given)] == ["pubrec"]


def test_with_a_journal_pubrec_waits_until_the_message_is_handled() -> None:
    peer = connected(rules=AT_PUBREL, session=Session(journal=True), present=False)
    (message,) = messages_in(peer.receive(arriving()))
    assert types(peer) == []
    assert [packet.type for packet in peer.handle(message)] == ["pubrec"]


def test_a_pubrel_before_our_pubrec_ends_the_connection_still() -> None:
    peer = connected(rules=AT_PUBREL, maximum_packet_size=LARGEST)
    peer.receive(arriving(1, FULL), arriving(2))
    assert isinstance(end_of(peer.receive(Pubrel(2))), RemoteProtocolError)


def test_a_message_counts_against_the_receive_maximum_until_pubcomp() -> None:
    peer = connected(rules=AT_PUBREL, receive_maximum=1)
    peer.receive(arriving(1))
    (message,) = messages_in(peer.receive(Pubrel(1)))
    peer.handle(message)
    peer.receive(arriving(2))
    assert isinstance(end_of(peer.receive(arriving(3))), RemoteProtocolError)


def test_properties_count_too_for_what_may_wait_for_pubrel() -> None:
    peer = connected(rules=AT_PUBREL, maximum_packet_size=LARGEST)
    properties = {"user_property": [[f"name {number}", "x" * 100] for number in range(40_000)]}
    delivered = 0
    for packet_id in range(1, 9):
        heavy = Publish("t", b"x", qos=2, packet_id=packet_id, properties=properties)
        delivered += len(messages_in(peer.receive(heavy)))
    assert delivered > 4


def test_a_message_that_is_skipped_does_not_wait_for_pubrel() -> None:
    peer = connected("3.1.1", rules=AT_PUBREL, maximum_packet_size=1_000)
    events = peer.receive(arriving(payload=bytes(2_000)))
    assert [type(event).__name__ for event in events] == ["MessageSkipped"]
    assert types(peer) == ["pubrec"]
    assert peer.receive(Pubrel(7)) == []
    assert types(peer) == ["pubcomp"]
