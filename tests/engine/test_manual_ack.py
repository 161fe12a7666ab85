"""Acknowledgement by the application: order of arrival, late acknowledgements, and the redelivery key."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.mqtt.message import Message
from device_sdk.mqtt.packets import Puback, Publish, Pubrec, Pubrel
from tests.engine.rig import Packets, Rig, types


class ManualRig(Rig):
    """The application acknowledges: ``receive()`` hands messages over, ``acknowledge()`` ends them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(acknowledge=self._settle, **options)

    def _settle(self, message: Message) -> None:
        message.handled = True
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
