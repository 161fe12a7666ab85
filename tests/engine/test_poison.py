"""One message that a broker ends connections for stops no other, and no good message is taken for one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from device_sdk.errors import ArgumentError, PublishRefused
from device_sdk.store.memory import MemoryStore
from device_sdk.testing import ManualClock
from tests.engine.poison_world import FORBIDDEN, PoisonPlace, PoisonWorld, Reaction, ends_on
from tests.engine.rig import Rig

ENDS = [
    ("5.0", "closed"),
    ("5.0", "reset"),
    ("5.0", 0x95),
    ("5.0", 0x87),
    ("3.1.1", "closed"),
    ("3.1.1", "reset"),
]
OTHER_REASONS = [0x82, 0x89, 0x8B, 0x8D, 0x8E, 0x93, 0x96, 0x97, 0x98, 0x9C, 0x9D, 0x9F]
NAMED_REASONS = [0x90, 0x94, 0x95, 0x99, 0x9A, 0x9B]


def states(deliveries: list[Any]) -> set[str]:
    return {delivery.state for delivery in deliveries}


def is_careful(world: PoisonWorld) -> bool:
    suspicion = world.engine.outgoing.suspicion
    return suspicion is not None and suspicion.careful is not None


# The fault


@pytest.mark.parametrize(("version", "how"), ENDS)
def test_a_forbidden_topic_at_1_hz_costs_less_than_ten_connections_and_the_others_go_on(
    version: str, how: Reaction
) -> None:
    world = PoisonWorld(ends_on(FORBIDDEN, how=how), version=version)
    bad, good = [], []
    for second in range(600):
        bad.append(world.send(FORBIDDEN, b"no %d" % second))
        good += [world.send("site/a", b"a %d" % second), world.send("site/b", b"b %d" % second, qos=2)]
        world.wait(1)
        if len(world.place.connections) > 10:
            break
    assert len(world.place.connections) < 10 + (version != "5.0")  # MQTT 3.x begins with one that clears
    assert states(good) == {"acknowledged"}
    assert states(bad) == {"refused"}
    assert world.engine.life.state == "connected"


@pytest.mark.parametrize(("version", "how"), ENDS)
def test_what_waits_behind_one_bad_message_is_delivered_and_the_message_is_refused(
    version: str, how: Reaction
) -> None:
    world = PoisonWorld(ends_on(FORBIDDEN, how=how), version=version)
    bad = world.send(FORBIDDEN, b"x" * 312)
    good = [world.send("site/a", b"%d" % number, qos=1 + number % 2) for number in range(50)]
    world.until(lambda: bad.done)
    world.wait(1)
    assert states(good) == {"acknowledged"}
    assert bad.state == "refused"
    assert world.lost <= 6
    with pytest.raises(PublishRefused, match="may have been received"):
        bad.wait(0)


def test_the_events_name_topic_size_and_reason() -> None:
    world = PoisonWorld(ends_on(FORBIDDEN, how=0x95))
    world.send(FORBIDDEN, b"x" * 312)
    world.send("site/a", b"good")
    world.until(lambda: "refused" in world.events)
    [suspected], [refused] = world.texts("suspect"), world.texts("refused")
    for text in (suspected, refused):
        assert FORBIDDEN in text
        assert "312 bytes" in text
        assert "packet too large (0x95)" in text
    assert world.engine.stats().refused == 1


def test_repeats_are_one_by_one_in_the_first_order_each_after_an_answered_pingreq() -> None:
    world = PoisonWorld(ends_on("c"))
    for topic in "abcde":
        world.send(topic, topic.encode(), qos=1)
    world.until(lambda: world.lost == 3)
    first, careful = world.place.connections[0], world.place.connections[2]
    assert [one.topic for one in first if one.type == "publish"] == ["a", "b", "c"]
    assert [one.type for one in careful] == ["connect", "pingreq", "publish"]
    sent = {one.topic: one.packet_id for one in first if one.type == "publish"}
    assert [(one.topic, one.packet_id, one.dup) for one in careful if one.type == "publish"] == [
        ("c", sent["c"], True)
    ]


def test_several_repeats_wait_for_each_other() -> None:
    ends = iter(["closed", "closed"])
    world = PoisonWorld(lambda packet: next(ends, None) if packet.type == "publish" else None)
    for topic in "abc":
        world.send(topic, topic.encode(), qos=1)
    world.until(lambda: world.lost == 2)
    world.wait(10)
    careful = world.place.connections[2]
    assert [one.type for one in careful] == ["connect", *["pingreq", "publish"] * 3]
    assert [one.topic for one in careful if one.type == "publish"] == ["a", "b", "c"]


def test_the_packet_identifier_is_not_used_again_before_the_session_ends() -> None:
    world = PoisonWorld(ends_on(FORBIDDEN))
    world.wait(1)
    bad = world.send(FORBIDDEN, b"x")
    packet_id = bad.packet_id
    world.send("site/a", b"good")
    world.until(lambda: bad.done)
    session = world.engine.session
    session.skip_to(packet_id - 1)
    assert session.allocate() == packet_id + 1
    session.lose()
    session.skip_to(packet_id - 1)
    assert session.allocate() == packet_id


@pytest.mark.parametrize("code", NAMED_REASONS)
def test_a_reason_that_names_the_message_needs_two_ends(code: int) -> None:
    world = PoisonWorld(ends_on(FORBIDDEN, how=code))
    bad = world.send(FORBIDDEN, b"x")
    world.send("site/a", b"good")
    world.until(lambda: bad.done)
    with pytest.raises(PublishRefused) as caught:
        bad.wait(0)
    assert caught.value.reason_code == code
    seen = [number for number in range(len(world.place.connections)) if world.place.published(number)]
    on_it = [number for number in seen if (FORBIDDEN, b"x") in world.place.published(number)]
    assert len(on_it) == 4  # twice with another one in flight, then twice alone


def test_one_message_that_is_too_large_does_not_condemn_its_topic() -> None:
    world = PoisonWorld(
        lambda packet: "reset" if packet.type == "publish" and len(packet.payload) > 100 else None
    )
    deliveries = [world.send("data", b"x" * (500 if number == 3 else 5)) for number in range(10)]
    world.until(lambda: all(delivery.done for delivery in deliveries))
    assert [delivery.state for delivery in deliveries].count("refused") == 1
    assert deliveries[3].state == "refused"
    lost = world.lost
    more = world.send("data", b"more")
    world.wait(1)
    assert more.state == "acknowledged"
    assert world.lost == lost


def test_two_forbidden_topics_are_both_found() -> None:
    world = PoisonWorld(ends_on("p", "q"))
    bad = [world.send(topic, b"x") for topic in ("p", "q")]
    good = [world.send(topic, b"x") for topic in "abc"]
    world.until(lambda: all(delivery.done for delivery in (*bad, *good)))
    assert states(bad) == {"refused"}
    assert states(good) == {"acknowledged"}


def test_the_next_message_of_the_topic_is_suspect_at_one_end_and_after_three_verdicts_it_is_not_sent() -> (
    None
):
    world = PoisonWorld(ends_on(FORBIDDEN))
    bad = [world.send(FORBIDDEN, b"%d" % number) for number in range(5)]
    world.send("site/a", b"good")
    world.until(lambda: bad[0].done)
    for number in range(1, 5):
        lost = world.lost
        world.send("site/a", b"good too")
        world.until(lambda number=number: bad[number].done)  # type: ignore[misc]
        assert world.lost - lost <= 1
    reached = {payload for number in range(len(world.place.connections))
               for topic, payload in world.place.published(number) if topic == FORBIDDEN}  # fmt: skip
    unsent = world.send(FORBIDDEN, b"unsent")
    world.wait(1)
    assert unsent.state == "refused"
    assert b"unsent" not in reached


def test_a_topic_that_is_not_sent_is_probed_hourly_and_then_daily() -> None:
    world = PoisonWorld(ends_on(FORBIDDEN))
    attempts: list[float] = []

    def publish() -> None:
        world.send(FORBIDDEN, b"x")
        world.send("site/a", b"good")
        world.wait(300)
        found = sum(
            topic == FORBIDDEN for number in range(len(world.place.connections))
            for topic, _ in world.place.published(number)
        )  # fmt: skip
        if found > publish.found:  # type: ignore[attr-defined]
            attempts.append(world.clock())
        publish.found = found  # type: ignore[attr-defined]

    publish.found = 0  # type: ignore[attr-defined]
    for _ in range(12 * 24 * 4):
        publish()
    first_day = [after - before for before, after in pairwise(attempts)]
    assert 3600 <= min(first_day[-20:-4]) <= 4000
    assert 24 * 3600 <= first_day[-1] <= 25 * 3600
    world.place.reacts = lambda packet: None
    world.wait(25 * 3600)
    probe = world.send(FORBIDDEN, b"now it may")
    world.wait(1)
    assert probe.state == "acknowledged"
    another = world.send(FORBIDDEN, b"and so may this")
    world.wait(1)
    assert another.state == "acknowledged"


# Good messages


@pytest.mark.parametrize("code", OTHER_REASONS)
def test_an_end_for_another_reason_never_counts(code: int) -> None:
    world = PoisonWorld(ends_on("a", how=code))
    message = world.send("a", b"x")
    world.send("b", b"y")
    world.until(lambda: world.lost == 12)
    assert message.state == "sent"
    assert "suspect" not in world.events
    assert not is_careful(world)


def test_a_broken_link_never_counts() -> None:
    world = PoisonWorld(ends_on("a", how="link"))
    message = world.send("a", b"x")
    world.send("b", b"y")
    world.until(lambda: world.lost == 12)
    assert message.state == "sent"
    assert "suspect" not in world.events


def test_a_time_out_never_counts() -> None:
    world = PoisonWorld(lambda packet: "deaf" if packet.type == "publish" else None, ack_timeout=10.0)
    message = world.send("a", b"x")
    world.until(lambda: world.lost == 8)
    assert all("ack_timeout" in text for text in world.texts("disconnected"))
    assert message.state == "sent"
    assert "suspect" not in world.events


def test_an_end_while_the_kernel_holds_bytes_never_counts() -> None:
    world = PoisonWorld(ends_on("a"))
    transport: Any = world.place.transport
    transport.held_bytes = 7
    message = world.send("a", b"x")
    world.send("b", b"y")
    world.until(lambda: world.lost == 12)
    assert message.state == "sent"
    assert "suspect" not in world.events


def test_an_end_while_the_stream_has_not_taken_all_never_counts() -> None:
    def reacts(packet: Any) -> Reaction:
        transport: Any = world.place.transport
        transport.is_stuck = True
        transport.room = 4 if packet.type in ("connect", "pingreq") else 1 << 30
        return None

    world = PoisonWorld(reacts)
    message = world.send("a", b"x" * 50)
    for _ in range(8):
        world.until(lambda: world.engine.life.state == "connected")
        assert message.state == "sent"
        world.end("closed")
    assert "suspect" not in world.events
    assert not is_careful(world)


def test_an_end_before_connack_never_counts() -> None:
    world = PoisonWorld()
    world.wait(1)
    world.place.reacts = lambda packet: "closed" if packet.type in ("connect", "publish") else None
    message = world.send("a", b"x")
    world.until(lambda: len(world.place.connections) > 12)
    assert message.state == "sent"
    assert "suspect" not in world.events
    assert not is_careful(world)


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_good_messages_survive_two_clients_with_one_name(version: str) -> None:
    world = PoisonWorld(version=version)
    deliveries = []
    for second in range(300):
        deliveries.append(world.send("abc"[second % 3], b"%d" % second))
        if second % 2:  # the other one has our name, and MQTT 3.x does not say why it closes
            link = world.place.transport.link
            if link is not None and link.version is not None:
                world.end(0x8E if version == "5.0" else "closed")
        world.wait(1)
    world.until(lambda: all(delivery.done for delivery in deliveries))
    assert states(deliveries) == {"acknowledged"}


def test_good_messages_survive_two_clients_that_take_over_at_the_worst_moment() -> None:
    """MQTT 3.1.1, and the other client always comes between our PUBLISH and its PUBACK."""
    until = [40]

    def reacts(packet: Any) -> Reaction:
        if packet.type == "publish" and until[0]:
            until[0] -= 1
            return "closed"
        return None

    world = PoisonWorld(reacts, version="3.1.1")
    deliveries = [world.send("abc"[number % 3], b"%d" % number, qos=1 + number % 2) for number in range(30)]
    world.until(lambda: all(delivery.done for delivery in deliveries))
    assert states(deliveries) == {"acknowledged"}


@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize("lives", [0, 1, 2, 5])
def test_good_messages_survive_a_broker_in_a_crash_loop(how: str, lives: int) -> None:
    """The broker crashes at the so-many-th PUBLISH of each connection, whatever it is, for an hour."""
    count = [0]

    def reacts(packet: Any) -> Reaction:
        if packet.type == "connect":
            count[0] = 0
        count[0] += packet.type == "publish"
        return how if packet.type == "publish" and count[0] > lives and world.clock() < end else None

    end = 1e9
    world = PoisonWorld(reacts)
    end = world.clock() + 3600
    deliveries = []
    for number in range(120):
        deliveries.append(world.send("abcdef"[number % 6], b"%d" % number, qos=1 + number % 2))
        world.wait(30)
    world.until(lambda: all(delivery.done for delivery in deliveries), 2 * 3600.0)
    assert states(deliveries) == {"acknowledged"}


def test_good_messages_of_one_topic_survive_a_broker_in_a_crash_loop() -> None:
    end = [1e9]
    world = PoisonWorld(
        lambda packet: "reset" if packet.type == "publish" and world.clock() < end[0] else None
    )
    end[0] = world.clock() + 3600
    deliveries = []
    for number in range(60):
        deliveries.append(world.send("only", b"%d" % number))
        world.wait(60)
    world.until(lambda: all(delivery.done for delivery in deliveries))
    assert states(deliveries) == {"acknowledged"}


@pytest.mark.parametrize("packets", [1, 2, 3, 4, 7])
def test_good_messages_survive_a_proxy_that_drains(packets: int) -> None:
    """Each connection ends after a few packets, be they what they may, and some arrive beforehand."""
    seen = [0]

    def reacts(packet: Any) -> Reaction:
        seen[0] = 0 if packet.type == "connect" else seen[0] + 1
        return "closed" if seen[0] > packets and world.clock() < end else None

    end = 1e9
    world = PoisonWorld(reacts)
    end = world.clock() + 1800
    deliveries = []
    for number in range(60):
        deliveries.append(world.send("abc"[number % 3], b"%d" % number))
        world.wait(20)
    world.until(lambda: all(delivery.done for delivery in deliveries), 2 * 3600.0)
    assert states(deliveries) == {"acknowledged"}


def test_a_message_that_is_acknowledged_at_last_leaves_no_count_behind() -> None:
    ends = iter(["closed"] * 3)
    world = PoisonWorld(lambda packet: next(ends, None) if packet.type == "publish" else None)
    message = world.send("a", b"x")  # alone at three ends, and nothing else is there to acknowledge
    world.until(lambda: message.done)
    assert message.state == "acknowledged"
    assert not is_careful(world)
    again = world.send("a", b"y")
    world.wait(1)
    assert again.state == "acknowledged"


def test_the_only_message_is_refused_only_if_the_broker_names_the_fault() -> None:
    for how, state in (("closed", "sent"), (0x90, "refused")):
        world = PoisonWorld(ends_on("a", how=how))
        message = world.send("a", b"x")
        world.wait(1800)
        assert message.state == state
        assert "suspect" in world.events


def test_a_broker_that_never_answers_pingreq_holds_nothing_up() -> None:
    def reacts(packet: Any) -> Reaction:
        if packet.type == "pingreq":
            return "deaf"
        return "closed" if packet.type == "publish" and packet.topic == FORBIDDEN else None

    world = PoisonWorld(reacts)
    bad = world.send(FORBIDDEN, b"x")
    good = [world.send("site/a", b"%d" % number, qos=1 + number % 2) for number in range(5)]
    world.until(lambda: all(delivery.done for delivery in (bad, *good)))
    assert bad.state == "refused"
    assert states(good) == {"acknowledged"}
    assert "the server does not answer" not in "".join(world.texts("disconnected"))


def test_a_suspect_that_expires_needs_no_care_any_more() -> None:
    def begin(expires_at: float | None) -> tuple[PoisonWorld, Any]:
        world = PoisonWorld(ends_on(FORBIDDEN))
        bad = world.send(FORBIDDEN, b"x", expires_at=expires_at)
        world.send("site/a", b"good")
        world.until(lambda: "suspect" in world.events)
        return world, bad

    when = begin(None)[0].clock()
    world, bad = begin(when + 0.1)
    world.until(lambda: bad.done)
    assert bad.state == "expired"
    world.wait(1)
    assert world.engine.life.state == "connected"
    assert not is_careful(world)


# QoS 0


@pytest.mark.parametrize("how", ["closed", "reset", 0x90])
def test_a_forbidden_topic_at_qos_0_is_left_out_and_the_client_stays_online(how: Reaction) -> None:
    world = PoisonWorld(ends_on(FORBIDDEN, how=how))
    world.wait(1)
    good = []
    for second in range(900):
        world.send(FORBIDDEN, b"no %d" % second, qos=0)
        good.append(world.send("site/a", b"%d" % second))
        world.send("site/c", b"%d" % second, qos=0)
        world.wait(1)
    assert len(world.place.connections) < 15
    assert states(good) == {"acknowledged"}
    assert world.engine.life.state == "connected"
    assert FORBIDDEN in world.texts("refused")[0]
    lately = [
        one.payload for one in world.place.connections[-1] if one.type == "publish" and one.topic == "site/c"
    ]
    assert lately[-1] == b"899"


# Elsewhere


def test_each_broker_has_counts_of_its_own() -> None:
    world = PoisonWorld(ends_on(FORBIDDEN))
    bad = world.send(FORBIDDEN, b"x")
    world.send("site/a", b"good")
    world.until(lambda: world.lost == 2)
    suspicion = world.engine.outgoing.suspicion
    assert suspicion is not None
    world.until(lambda: bad.done)
    protocol: Any = world.engine.connection.protocol  # type: ignore[union-attr]
    suspicion.prepare(protocol, "another")
    assert not suspicion._poison.is_watchful


def test_keep_repeats_for_ever() -> None:
    world = PoisonWorld(ends_on(FORBIDDEN), on_poison="keep")
    bad = world.send(FORBIDDEN, b"x")
    good = world.send("site/a", b"good")
    world.until(lambda: world.lost == 30)
    assert (bad.state, good.state) == ("sent", "sent")
    assert "suspect" not in world.events
    with pytest.raises(ArgumentError, match="on_poison"):
        PoisonWorld(on_poison="forget")


def test_a_window_of_one_message_is_no_obstacle() -> None:
    world = PoisonWorld(ends_on(FORBIDDEN), inflight=1)
    bad = world.send(FORBIDDEN, b"x")
    good = [world.send("site/a", b"%d" % number) for number in range(5)]
    world.until(lambda: all(delivery.done for delivery in (bad, *good)))
    assert bad.state == "refused"
    assert states(good) == {"acknowledged"}


def test_what_is_left_out_does_not_count_as_a_stuck_window() -> None:
    world = PoisonWorld(ends_on("p", "q"), ack_timeout=5.0)
    bad = [world.send(topic, b"x") for topic in ("p", "q")]
    while not all(delivery.done for delivery in bad):
        world.send("a", b"x")
        world.wait(10)
        assert world.lost < 30
    assert not any("ack_timeout" in text for text in world.texts("disconnected"))


def test_a_broker_that_loses_sessions_ends_connections_for_the_same_message() -> None:
    world = PoisonWorld(ends_on(FORBIDDEN))
    bad = world.send(FORBIDDEN, b"x")
    good = [world.send("site/a", b"%d" % number) for number in range(5)]
    for _ in range(200):
        world.wait(1)
        if world.engine.life.state != "connected":
            world.place.broker.sessions.clear()
        if bad.done:
            break
    world.wait(5)
    assert bad.state == "refused"
    assert states(good) == {"acknowledged"}


def test_nothing_takes_the_long_way_while_nothing_is_suspect() -> None:
    rig = Rig()
    rig.connect()
    rig.publish(b"x")
    rig.lose()
    assert rig.engine.outgoing.outbox.max_buffered > 0
    assert rig.engine.outgoing.suspicion is not None
    assert rig.engine.outgoing.suspicion.careful is None


def test_the_world_of_these_tests_has_the_rules_of_the_model_broker() -> None:
    assert PoisonPlace("b", ManualClock(), "5.0").broker.unique_messages


# With a store


def test_a_store_keeps_a_refused_message_on_its_shelf_and_the_next_process_does_not_send_it() -> None:
    store = MemoryStore()
    world = PoisonWorld(ends_on(FORBIDDEN), store=store)
    world.wait(1)
    bad = world.send(FORBIDDEN, b"x")
    good = world.send("site/a", b"good")
    packet_id = bad.packet_id
    assert packet_id
    world.until(lambda: bad.done)
    world.wait(1)
    assert (bad.state, good.state) == ("refused", "acknowledged")
    world.restart()
    world.wait(5)
    assert world.place.published(-1) == []
    assert packet_id in world.engine.session.withheld
    assert world.engine.life.state == "connected"


def test_a_message_of_a_bad_topic_that_was_never_sent_goes_to_the_shelf_as_well() -> None:
    store = MemoryStore()
    world = PoisonWorld(ends_on(FORBIDDEN), store=store)
    for number in range(6):
        world.send(FORBIDDEN, b"%d" % number)
    while world.engine.stats().refused < 6:
        world.send("site/a", b"good")
        world.wait(10)
        assert world.lost < 12
    assert world.engine.outgoing.outbox.queued == 0
    world.engine.drop_connection()
    world.engine.end()
    world.engine.close_store()
    assert store.open().shelved == 6


def test_counts_begin_anew_with_the_next_process() -> None:
    store = MemoryStore()
    world = PoisonWorld(ends_on(FORBIDDEN), store=store)
    world.send(FORBIDDEN, b"x")
    world.send("site/a", b"good")
    world.until(lambda: world.lost == 2)
    world.restart()
    world.wait(0.5)
    assert [topic for topic, _ in world.place.published(-1)] == [FORBIDDEN]
    assert not any(one.type == "pingreq" for one in world.place.connections[-1])
