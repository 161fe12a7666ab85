"""Situations that users of other clients have reported (docs/field-reports.md), without threads."""

from __future__ import annotations

import pytest

from device_sdk.errors import DroppedError
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.packets import Pingresp, Puback, Pubcomp, Publish, Pubrec, Pubrel, Suback
from device_sdk.store.base import StorePolicy
from tests.engine.rig import Rig, types

LARGE = 200 << 10


def test_a_message_that_takes_ten_keep_alives_is_received_and_pings_go_on() -> None:
    rig = Rig(keep_alive=10)
    rig.connect()
    # The PINGRESP stands in line behind the large message.
    data = encode_packet(Publish("t", b"x" * LARGE), "5.0") + encode_packet(Pingresp(), "5.0")
    pings = 0
    for start in range(0, len(data), LARGE // 100):
        pings += types(rig.advance(1) + rig.feed(data[start : start + LARGE // 100])).count("pingreq")
    assert rig.engine.life.state == "connected"
    assert rig.engine.events.stats.received == 1
    assert pings >= 9


def test_a_pingresp_behind_a_long_row_of_messages_is_waited_for() -> None:
    rig = Rig(keep_alive=10)
    rig.connect()
    for _ in range(100):
        rig.advance(1)
        rig.feed(Publish("t", b"x"))
        rig.handle()
    assert rig.engine.life.state == "connected"
    assert rig.engine.events.stats.received == 100


def test_what_waits_outlives_a_connection_that_keep_alive_has_ended() -> None:
    rig = Rig(keep_alive=10)
    rig.connect(receive_maximum=2)
    deliveries = [rig.publish(b"%d" % number) for number in range(5)]
    rig.sent()
    rig.advance(60)
    assert "disconnected" in rig.events()
    rig.transport.sent.clear()
    sent = rig.connect(session_present=True)
    while sent:
        sent = rig.feed(*(Puback(packet.packet_id) for packet in sent))
    assert [delivery.state for delivery in deliveries] == ["acknowledged"] * 5


def test_a_connection_follows_qos_2_that_was_cut_with_its_subscriptions() -> None:
    rig = Rig()
    rig.engine.incoming.subscribe([Subscription("commands", 1)], None)
    [asked] = rig.connect()
    rig.feed(Suback(asked.packet_id, [1]))
    delivery = rig.publish(b"x", 2)
    [first] = rig.sent()
    rig.feed(Pubrec(first.packet_id))
    rig.lose()
    rig.advance(1)
    sent = rig.connect(session_present=False)
    assert sorted(types(sent)) == ["subscribe"]  # past PUBREC the broker had the message
    assert rig.engine.life.state == "connected"
    assert delivery.state == "acknowledged"


def test_finished_exchanges_leave_no_packet_identifier_behind() -> None:
    rig = Rig()
    rig.connect()
    session = rig.engine.session
    for number in range(1, 2_001):
        rig.feed(Publish("t", b"", qos=2, packet_id=number))
        rig.handle()
        rig.feed(Pubrel(number))
        delivery = rig.publish(b"", 2)
        [sent] = rig.sent()
        rig.feed(Pubrec(sent.packet_id))
        rig.feed(Pubcomp(sent.packet_id))
        assert delivery.state == "acknowledged"
    assert (len(session.in_flight), len(session.released), len(session.received)) == (0, 0, 0)


def test_a_message_that_makes_room_for_another_ends_its_delivery() -> None:
    rig = Rig(policy=StorePolicy(max_messages=10, overflow="drop_oldest"))
    deliveries = [rig.publish(b"%d" % number) for number in range(1_000)]
    assert [delivery.state for delivery in deliveries] == ["dropped"] * 990 + ["queued"] * 10
    with pytest.raises(DroppedError):
        deliveries[0].wait(0)
