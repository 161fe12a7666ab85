"""Acknowledgement by the application: order of arrival, late acknowledgements, and the redelivery key."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from device_sdk.engine.incoming.calls import Calls
from device_sdk.engine.incoming.inbox import Inbox
from device_sdk.mqtt.message import AckToken, Message, Subscription
from device_sdk.mqtt.packets import Connack, Puback, Publish, Pubrec, Pubrel, Suback
from tests.engine.rig import Packets, Rig, types


class ManualRig(Rig):
    """The application acknowledges: ``receive()`` hands messages over, ``acknowledge()`` ends them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(acknowledge=self._settle, **options)

    def _settle(self, token: AckToken) -> None:
        token.handled = True
        with self.engine.lock:
            self.engine.handled(0)

    def receive(self, *packets: Publish) -> list[Message]:
        assert [packet for packet in self.feed(*packets) if packet.type in ("puback", "pubrec")] == []
        with self.engine.lock:
            batch = self.engine.events.take()
            messages = [item for item in batch if isinstance(item, Message)]
            self.engine.handled(len(messages))  # their handlers have returned
        return messages

    def acknowledge(self, *messages: Message) -> Packets:
        for message in messages:
            message.acknowledge()
        return self.sent()

    def resume(self) -> None:
        self.lose()
        self.advance(self.retry_delay())
        self.connect(session_present=True)


def incoming(packet_id: int, qos: int = 1, *, dup: bool = False) -> Publish:
    return Publish("t", b"%d" % packet_id, qos=qos, packet_id=packet_id or None, dup=dup)


@pytest.fixture
def rig() -> ManualRig:
    rig = ManualRig()
    rig.connect()
    return rig


def test_acknowledgements_leave_in_the_order_of_arrival(rig: ManualRig) -> None:
    one, two, three = rig.receive(incoming(1), incoming(2, 2), incoming(3))
    assert rig.acknowledge(three, two) == []
    assert rig.engine.stats().acks_held == 3
    assert rig.acknowledge(one) == [Puback(1), Pubrec(2), Puback(3)]
    assert rig.engine.stats().acks_held == 0


def test_a_second_acknowledgement_and_one_at_qos_0_do_nothing(rig: ManualRig) -> None:
    one, zero = rig.receive(incoming(1), incoming(0, 0))
    assert rig.acknowledge(zero, one, one) == [Puback(1)]
    assert rig.acknowledge(zero, one) == []
    assert zero.redelivery_key is None


def test_messages_that_are_held_do_not_pause_reading() -> None:
    rig = ManualRig(inbox_limit=2)
    rig.connect()
    rig.receive(*map(incoming, range(1, 6)))
    interest = rig.engine.interest()
    assert interest is not None
    assert interest[1]


def test_a_late_acknowledgement_is_void_and_the_redelivered_message_has_the_same_key(rig: ManualRig) -> None:
    [old] = rig.receive(incoming(7))
    rig.resume()
    [again] = rig.receive(incoming(7, dup=True))
    assert rig.acknowledge(old) == []
    assert again.redelivery_key == old.redelivery_key
    assert rig.acknowledge(again) == [Puback(7)]


def test_the_key_lasts_over_several_connections_until_the_message_comes_again(rig: ManualRig) -> None:
    [old] = rig.receive(incoming(7))
    rig.resume()
    rig.receive(incoming(8))
    rig.resume()
    [again] = rig.receive(incoming(7, dup=True))
    assert again.redelivery_key == old.redelivery_key


def test_an_acknowledgement_behind_an_unfinished_message_has_not_left_so_the_key_stays(
    rig: ManualRig,
) -> None:
    _, held_back = rig.receive(incoming(1), incoming(2))
    assert rig.acknowledge(held_back) == []
    rig.resume()
    [again] = rig.receive(incoming(2, dup=True))
    assert again.redelivery_key == held_back.redelivery_key


def test_without_dup_the_packet_identifier_names_another_message(rig: ManualRig) -> None:
    [old] = rig.receive(incoming(7))
    rig.resume()
    [other] = rig.receive(incoming(7))
    rig.resume()
    [again] = rig.receive(incoming(7, dup=True))
    assert old.redelivery_key != other.redelivery_key == again.redelivery_key


def test_after_its_acknowledgement_the_identifier_may_name_another_message_despite_dup(
    rig: ManualRig,
) -> None:
    [old] = rig.receive(incoming(7))
    assert rig.acknowledge(old) == [Puback(7)]
    rig.resume()
    [unknown] = rig.receive(incoming(7, dup=True))
    assert unknown.redelivery_key != old.redelivery_key


def test_a_lost_session_begins_a_new_epoch(rig: ManualRig) -> None:
    [old] = rig.receive(incoming(7))
    rig.lose()
    rig.advance(1)
    rig.connect(session_present=False)
    [other] = rig.receive(incoming(7, dup=True))
    assert old.redelivery_key is not None
    assert other.redelivery_key is not None
    assert old.redelivery_key[0] != other.redelivery_key[0]


def test_qos_2_is_handed_over_once_and_acknowledged_on_the_connection_that_lives(rig: ManualRig) -> None:
    [message] = rig.receive(incoming(9, 2))
    rig.resume()
    assert rig.receive(incoming(9, 2, dup=True)) == []
    assert rig.acknowledge(message) == [Pubrec(9)]
    assert types(rig.feed(Pubrel(9))) == ["pubcomp"]
    [other] = rig.receive(incoming(9, 2))
    assert other.redelivery_key != message.redelivery_key


def test_a_client_that_acknowledges_by_itself_gives_no_tokens() -> None:
    rig = Rig()
    rig.connect()
    rig.feed(incoming(1))
    [message] = rig.handle()
    message.acknowledge()
    assert message.redelivery_key is None
    assert rig.sent() == [Puback(1)]


# What is kept of a message that the program has let go

KIB = 1024
every_version = pytest.mark.parametrize("version", ["3.1", "3.1.1", "5.0"])


def large(packet_id: int, qos: int = 1, **options: Any) -> Publish:
    return Publish("t", bytes(250 * KIB), qos=qos, packet_id=packet_id, **options)


def reads(rig: Rig) -> bool:
    interest = rig.engine.interest()
    assert interest is not None
    return interest[1]


@every_version
@pytest.mark.parametrize("qos", [1, 2])
def test_of_a_message_that_the_program_has_let_go_only_a_token_is_kept(version: str, qos: int) -> None:
    rig = ManualRig(version=version)
    rig.connect()
    rig.receive(large(1, qos))
    tracemalloc.start()
    try:
        for packet_id in range(2, 102):
            rig.receive(large(packet_id, qos))
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert rig.engine.stats().acks_held == 101
    assert kept < 500 * KIB  # 25 MB came


def test_nor_is_more_kept_of_a_repeated_message_or_of_a_response_behind_it() -> None:
    rig = ManualRig()
    rig.connect()
    rig.engine.options.client_id = "rig"
    with rig.engine.lock:
        incoming = rig.engine.incoming
        calls = Calls(rig.engine.lock, rig.engine.consumers, rig.engine.events)
        incoming.expect_responses(calls)
        calls.new("t", 1.0, {}, rig.engine.options, None, incoming.router.wanted, incoming.subscribe)
    rig.receive(large(1))
    rig.receive(large(2, 2))
    tracemalloc.start()
    try:
        for packet_id in range(3, 53):
            rig.receive(Publish("response/rig", bytes(250 * KIB), qos=1, packet_id=packet_id))
            rig.receive(large(2, 2, dup=True))
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert rig.engine.stats().acks_held == 102
    assert kept < 500 * KIB


def test_without_manual_ack_a_repeated_message_that_was_handled_is_kept_without_its_payload() -> None:
    rig = Rig()
    rig.connect()
    rig.feed(large(1, 2))
    rig.handle()
    rig.feed(incoming(2))  # whose handler takes its time
    tracemalloc.start()
    try:
        for _ in range(50):
            rig.feed(large(1, 2, dup=True))
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 500 * KIB


# How much the program may have without an acknowledgement


@every_version
@pytest.mark.parametrize("qos", [1, 2])
def test_reading_pauses_when_the_program_has_inbox_bytes_without_an_acknowledgement(
    version: str, qos: int
) -> None:
    rig = ManualRig(version=version, inbox_bytes=1_000 * KIB)
    rig.connect()
    messages: list[Message] = []
    while reads(rig):
        messages += rig.receive(large(len(messages) + 1, qos))
        assert len(messages) < 10
    assert len(messages) == 4
    rig.acknowledge(messages[1])  # not the first one: nothing leaves, nothing is free
    assert not reads(rig)
    messages[0].token.acknowledge = lambda token: setattr(token, "handled", True)  # type: ignore[union-attr]
    messages[0].acknowledge()
    with rig.engine.lock:
        assert rig.engine.handled(0), "the shell has to be woken, to read on"
    assert reads(rig)


@pytest.mark.parametrize(("version", "pauses"), [("3.1", True), ("3.1.1", True), ("5.0", False)])
def test_the_receive_maximum_bounds_their_number_also_where_the_broker_does_not_know_it(
    version: str, pauses: bool
) -> None:
    rig = ManualRig(version=version, receive_maximum=3)
    rig.connect()
    messages = rig.receive(*map(incoming, range(1, 4)))
    assert reads(rig) is not pauses
    assert rig.acknowledge(messages[0]) == [Puback(1)]
    assert reads(rig)


def held_back(**options: Any) -> tuple[ManualRig, list[Message]]:
    rig = ManualRig(inbox_bytes=1_000, **options)
    rig.connect()
    messages = rig.receive(large(1))
    assert not reads(rig)
    return rig, messages


def test_reading_goes_on_while_the_program_waits_for_an_acknowledgement() -> None:
    rig, _ = held_back()
    rig.publish(b"x")
    assert reads(rig)
    rig.feed(Puback(1))
    assert not reads(rig)


def test_reading_goes_on_while_the_program_waits_for_the_answer_to_a_subscription() -> None:
    rig, _ = held_back()
    with rig.engine.lock:
        rig.engine.incoming.subscribe([Subscription("a")], None)
    assert reads(rig)
    rig.feed(Suback(1, [0]))
    assert not reads(rig)


def test_reading_goes_on_while_somebody_waits_for_the_next_message_of_the_inbox() -> None:
    rig, _ = held_back()
    woken: list[bool] = []
    rig.engine.consumers.bind(lambda: woken.append(reads(rig)))
    inbox = Inbox(lambda count: None, rig.engine.consumers)
    with pytest.raises(TimeoutError):
        inbox.get(0)
    assert woken == [True]
    assert not reads(rig)


def test_a_new_connection_is_read_and_begins_to_count_anew() -> None:
    rig, [old] = held_back()
    rig.lose()
    rig.advance(rig.retry_delay())
    rig.open()
    assert reads(rig)
    rig.feed(Connack(True))
    assert reads(rig)
    rig.receive(large(1, dup=True))
    assert not reads(rig)
    rig.acknowledge(old)
    assert not reads(rig)


def test_a_pause_is_told_the_first_second_fourth_time() -> None:
    rig = ManualRig(inbox_bytes=1_000)
    rig.connect()
    rig.events()
    told: list[Any] = []
    for packet_id in range(1, 10):
        rig.feed(large(packet_id))
        with rig.engine.lock:
            batch = rig.engine.events.take()
            rig.engine.handled(1)
        told += [item[1] for item in batch if not isinstance(item, Message)]
        rig.acknowledge(*(item for item in batch if isinstance(item, Message)))
    assert [event.kind for event in told] == ["reading_paused"] * 4
    assert told[0].text.startswith("1 messages of 256001 bytes have no acknowledgement (manual_ack)")
