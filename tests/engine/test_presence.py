"""Birth and farewell of a connection: their places among everything that is sent, and what bounds them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from device_sdk.engine.outgoing.greetings import Greeting, Greetings
from device_sdk.errors import ArgumentError, DroppedError, PublishRefused
from device_sdk.mqtt.message import Message, Will
from device_sdk.mqtt.packets import Puback, Pubcomp, Pubrec
from device_sdk.store.base import StorePolicy
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Rig, SlowStore, payloads, set_pages, types
from tests.engine.test_queue_bounds import acknowledge_all

PAGE = 4
STATE = "state"


@pytest.fixture(autouse=True)
def small_pages() -> Iterator[None]:
    """Let a page hold four messages, so that a queue of a dozen has several."""
    with pytest.MonkeyPatch.context() as patch:
        set_pages(patch, PAGE_MESSAGES=PAGE, PAGES_IN_MEMORY=2)
        yield


def online(qos: int = 1) -> Message:
    return Message(STATE, b"online", qos=qos, retain=True)


def offline(qos: int = 1) -> Message:
    return Message(STATE, b"offline", qos=qos, retain=True)


def rig_with(birth: Any = None, farewell: Any = None, version: str = "5.0", **options: Any) -> Rig:
    greetings = Greetings(version, online() if birth is None else birth, farewell)
    return Rig(version=version, greetings=greetings, **options)


def reconnect(rig: Rig, **properties: Any) -> list[Any]:
    rig.lose()
    rig.advance(60)
    return rig.connect(**properties)


def leave(rig: Rig) -> list[Any]:
    with rig.engine.lock:
        rig.engine.close_connection()
    return rig.sent()


def answer(rig: Rig, *sent: Any) -> list[Any]:
    """Acknowledge these; what leaves then."""
    return rig.feed(*(Puback(packet.packet_id) for packet in sent if packet.type == "publish" and packet.qos))


def stats(rig: Rig) -> Any:
    with rig.engine.lock:
        return rig.engine.stats()


# Order


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("store", [None, MemoryStore])
def test_birth_comes_before_everything_that_waits(version: str, qos: int, store: Any) -> None:
    rig = rig_with(online(qos), version=version, store=store and store())
    for number in range(12):
        rig.publish(b"%d" % number)
    sent = rig.connect()
    assert payloads(sent) == [b"online", *(b"%d" % number for number in range(12))]
    first = next(packet for packet in sent if packet.type == "publish")
    assert (first.topic, first.qos, first.retain, first.dup) == (STATE, qos, True, False)


@pytest.mark.parametrize("store", [None, MemoryStore])
def test_what_is_repeated_comes_before_birth_and_the_rest_behind_it(store: Any) -> None:
    rig = rig_with(inflight=3, store=store and store())
    answer(rig, *rig.connect())
    for number in range(6):
        rig.publish(b"%d" % number)
    assert payloads(rig.sent()) == [b"0", b"1", b"2"]
    sent = reconnect(rig, session_present=True)
    assert payloads(sent) == [b"0", b"1", b"2"], "the window is full: birth has to wait"
    assert payloads(answer(rig, sent[0])) == [b"online"]
    rig.publish(b"new")
    assert payloads(rig.sent()) == [], "it must not overtake birth, nor what waits"
    assert payloads(answer(rig, sent[1])) == [b"3"]
    assert acknowledge_all(rig, answer(rig, sent[2]))[-1:] == [b"new"]


def test_birth_takes_a_place_in_the_window_and_gives_it_back() -> None:
    rig = rig_with(inflight=1)
    rig.publish(b"waits")
    sent = rig.connect()
    assert payloads(sent) == [b"online"]
    assert stats(rig).in_flight == 1
    assert payloads(answer(rig, *sent)) == [b"waits"]


def test_each_connection_has_a_birth_of_its_own_and_repeats_none() -> None:
    rig = rig_with()
    first = rig.connect()
    assert payloads(first) == [b"online"]
    again = reconnect(rig, session_present=True)
    assert [(packet.payload, packet.dup) for packet in again if packet.type == "publish"] == [
        (b"online", False)
    ]
    rig.lose()
    assert stats(rig).in_flight == 0, "nothing is left of it"
    rig.advance(60)
    assert payloads(rig.connect()) == [b"online"], "in a new session too"


def test_a_message_of_qos_2_on_its_topic_is_finished_first() -> None:
    """Servers that publish at PUBREL would put the older message behind birth."""
    rig = rig_with()
    answer(rig, *rig.connect())
    rig.publish(b"older", 2, topic=STATE)
    rig.sent()
    rig.lose()
    rig.publish(b"waits")
    rig.advance(60)
    sent = rig.connect(session_present=True)
    assert payloads(sent) == [b"older"]
    pubrel = rig.feed(Pubrec(next(packet.packet_id for packet in sent if packet.type == "publish")))
    assert types(pubrel)[0] == "pubrel"
    assert payloads(pubrel) == [b"online", b"waits"]


def test_messages_of_a_lost_session_follow_birth() -> None:
    rig = rig_with()
    answer(rig, *rig.connect())
    rig.publish(b"unanswered")
    rig.sent()
    assert payloads(reconnect(rig)) == [b"online", b"unanswered"]


def test_without_birth_nothing_is_different() -> None:
    rig = Rig(greetings=Greetings("5.0"))
    rig.publish(b"waits")
    assert payloads(rig.connect()) == [b"waits"]
    assert types(leave(rig)) == ["disconnect"]


# What birth replaces


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_waits_on_its_topic_is_replaced_and_told(qos: int) -> None:
    rig = rig_with(buffer_qos0=True)
    replaced = rig.publish(b"offline", qos, topic=STATE, retain=True)
    rig.publish(b"other", topic="other")
    assert payloads(rig.connect()) == [b"online", b"other"]
    assert replaced.state == "dropped"
    with pytest.raises(
        DroppedError, match="birth of a connection, a newer message on its topic, replaced it"
    ):
        replaced.wait(0)
    assert stats(rig).dropped == 1
    assert [event.text for event in rig.event_objects() if event.kind == "dropped"] == [
        "state: the birth of a connection, a newer message on its topic, replaced it"
    ]


def test_the_last_runs_offline_is_replaced_far_back_in_the_store() -> None:
    store = MemoryStore()
    earlier = Rig(store=store)
    for number in range(10 * PAGE):
        earlier.publish(b"%d" % number)
    earlier.publish(b"offline", topic=STATE, retain=True)
    earlier.publish(b"last")
    earlier.engine.drop_connection()
    earlier.engine.end()
    earlier.engine.close_store()
    rig = rig_with(store=store)
    assert acknowledge_all(rig, rig.connect()) == [
        b"online",
        *(b"%d" % number for number in range(10 * PAGE)),
        b"last",
    ]
    assert stats(rig).dropped == 1
    assert stats(rig).queued == 0


def test_what_is_published_on_its_topic_afterwards_follows() -> None:
    rig = rig_with(inflight=1)
    sent = rig.connect()
    later = rig.publish(b"busy", topic=STATE)
    assert payloads(answer(rig, *sent)) == [b"busy"]
    assert later.state == "sent"


def test_keep_last_on_its_topic_is_replaced_as_well() -> None:
    rig = rig_with(policy=StorePolicy(keep_last=("#",)))
    for payload in (b"1", b"2"):
        rig.publish(payload, topic=STATE)
    assert payloads(rig.connect()) == [b"online"]
    assert stats(rig).dropped == 2
    rig.lose()
    rig.publish(b"3", topic=STATE)
    assert stats(rig).queued == 1


@pytest.mark.parametrize("replay", ["history", "live"])
def test_new_messages_wait_for_birth_whatever_the_replay(replay: str) -> None:
    rig = rig_with(inflight=2, policy=StorePolicy(replay=replay))
    answer(rig, *rig.connect())
    for number in range(2):
        rig.publish(b"%d" % number)
    rig.sent()
    sent = reconnect(rig, session_present=True)
    rig.publish(b"new")
    rig.publish(b"qos 0", 0)
    assert payloads(rig.sent()) == []
    after = answer(rig, *[packet for packet in sent if packet.type == "publish"])
    assert payloads(after)[0] == b"online"
    assert set(payloads(after)) == {b"online", b"new", b"qos 0"}


# A callable


class AskingRig(Rig):
    """An engine whose birth is a callable, called as a shell does: in the attempt that opens the stream."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__(greetings=Greetings("5.0", function))

    def ask(self) -> None:
        self.engine.attempt().open(0.0)

    def connect_asked(self) -> list[Any]:
        self.ask()
        return self.connect()


def test_a_callable_is_asked_for_each_connection() -> None:
    answers = iter((Message(STATE, b"one", qos=1), None, Message(STATE, b"three")))
    rig = AskingRig(lambda: next(answers))
    assert payloads(rig.connect_asked()) == [b"one"]
    for expected in ([], [b"three"]):
        rig.lose()
        rig.advance(60)
        assert payloads(rig.connect_asked()) == expected
    assert "no_birth" not in rig.events()


def test_what_is_published_after_the_question_is_newer_than_the_answer() -> None:
    rig = AskingRig(online)
    older = rig.publish(b"older", topic=STATE)
    attempt = rig.engine.attempt()
    rig.publish(b"newer", topic=STATE)
    attempt.open(0.0)
    assert payloads(rig.connect()) == [b"online", b"newer"]
    assert older.state == "dropped"


def raises() -> None:
    raise ValueError("no battery\nlevel")


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (raises, "birth: the callable raised ValueError: no battery"),
        (lambda: b"online", "birth: must be a Message, not bytes"),
        (lambda: online(2), "birth.qos: must be 0 or 1"),
        (lambda: Message("a/#", b""), "birth.topic: "),
        (lambda: 1 / 0, "birth: the callable raised ZeroDivisionError"),
    ],
)
def test_a_callable_that_fails_is_told_and_the_connection_goes_on(function: Any, text: str) -> None:
    rig = AskingRig(function)
    offline_of_last_run = rig.publish(b"offline", topic=STATE)
    assert payloads(rig.connect_asked()) == [b"offline"], "without birth nothing is replaced"
    assert offline_of_last_run.state == "sent"
    (told,) = (event for event in rig.event_objects() if event.kind == "no_birth")
    assert told.text.startswith(text)
    assert "\n" not in told.text


def test_a_callable_that_hangs_holds_up_no_later_connection() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def hangs() -> Message:
        begun.set()
        assert go_on.wait(10)
        return online()

    greetings = Greetings("5.0", hangs)
    thread = threading.Thread(target=greetings.ask)
    thread.start()
    try:
        assert begun.wait(10)
        assert "has not returned yet" in str(greetings.ask())
    finally:
        go_on.set()
        thread.join(10)
    assert isinstance(greetings.ask(), Greeting)


# Limits of the server


def test_above_the_maximum_qos_birth_and_farewell_are_lowered() -> None:
    rig = rig_with(farewell=offline())
    (birth,) = (packet for packet in rig.connect(maximum_qos=0) if packet.type == "publish")
    assert (birth.payload, birth.qos, birth.retain) == (b"online", 0, True)
    goodbye = leave(rig)
    assert [(packet.payload, packet.qos) for packet in goodbye[:-1]] == [(b"offline", 0)]


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"retain_available": 0}, "state: retain: the server does not support retained messages"),
        ({"maximum_packet_size": 16}, "state: payload: a PUBLISH of 18 bytes is larger than the 16 bytes"),
    ],
)
def test_beyond_another_limit_it_is_left_out_and_named(limits: dict[str, Any], text: str) -> None:
    rig = rig_with(farewell=offline())
    rig.publish(b"x", topic="t")
    assert payloads(rig.connect(**limits)) == [b"x"]
    (told,) = (event for event in rig.event_objects() if event.kind == "no_birth")
    assert told.text.startswith(text)
    assert told.value == STATE
    sent = leave(rig)
    assert types(sent) == ["disconnect"]
    assert sent[0].reason_code == 4, "the will has to say it"
    assert "no_farewell" in rig.events()


@pytest.mark.parametrize("reason_code", [0x87, 0x97])
def test_a_birth_that_the_broker_refuses_is_told(reason_code: int) -> None:
    rig = rig_with()
    (birth,) = (packet for packet in rig.connect() if packet.type == "publish")
    rig.feed(Puback(birth.packet_id, reason_code))
    (told,) = (event for event in rig.event_objects() if event.kind == "no_birth")
    assert isinstance(told.error, PublishRefused)
    assert stats(rig).in_flight == 0
    assert rig.engine.life.state == "connected"


# The farewell


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1])
def test_the_farewell_is_the_last_message_before_disconnect(version: str, qos: int) -> None:
    rig = rig_with(farewell=offline(qos), version=version)
    answer(rig, *rig.connect())
    sent = leave(rig)
    assert types(sent) == ["publish", "disconnect"]
    assert (sent[0].payload, sent[0].qos, sent[0].retain) == (b"offline", qos, True)


def test_with_a_full_window_the_farewell_goes_at_qos_0() -> None:
    rig = rig_with(farewell=offline(), inflight=1)
    rig.connect()
    rig.publish(b"waits")
    sent = leave(rig)
    assert [packet.type for packet in sent] == ["publish", "disconnect"]
    assert (sent[0].payload, sent[0].qos) == (b"offline", 0)


def test_a_farewell_that_was_said_is_not_said_again() -> None:
    rig = rig_with(farewell=offline())
    answer(rig, *rig.connect())
    with rig.engine.lock:
        assert rig.engine.outgoing.presence.take_leave(rig.engine.outgoing.online)
    (farewell,) = rig.sent()
    answer(rig, farewell)
    assert types(leave(rig)) == ["disconnect"]


def test_without_a_connection_nothing_is_kept_of_it() -> None:
    rig = rig_with(farewell=offline(), store=(store := SlowStore()))
    rig.connect()
    rig.lose()
    assert types(leave(rig)) == []
    rig.engine.drop_connection()
    rig.engine.end()
    rig.engine.close_store()
    assert not [change for change in store.changes if change[0] in ("message", "sent", "done", "withheld")]


def test_before_connack_there_is_no_farewell() -> None:
    rig = rig_with(farewell=offline())
    rig.open()
    assert types(leave(rig)) == ["disconnect"]


def test_disconnect_with_will_has_no_farewell() -> None:
    rig = rig_with(farewell=offline())
    answer(rig, *rig.connect())
    rig.engine.goodbye = (4, {})
    assert types(leave(rig)) == ["disconnect"]


@pytest.mark.parametrize(("version", "leaves"), [("5.0", ["disconnect"]), ("3.1.1", [])])
def test_a_farewell_that_would_wait_for_the_store_leaves_it_to_the_will(
    version: str, leaves: list[str]
) -> None:
    """DISCONNECT discards the will, and what is still behind a gate of the store."""
    store = SlowStore()
    rig = rig_with(farewell=offline(), version=version, store=store)
    store.commit()
    answer(rig, *rig.connect())
    rig.publish(b"x", 2)
    rig.sent()
    assert types(leave(rig)) == leaves
    assert "no_farewell" in rig.events()
    assert not rig.engine.has_connection() or version == "5.0"


# Counters, the store, the end


def test_nothing_of_birth_and_farewell_reaches_store_or_counters() -> None:
    store = SlowStore()
    rig = rig_with(farewell=offline(), store=store)
    store.commit()
    answer(rig, *rig.connect())
    answer(rig, *leave(rig))
    rig.engine.drop_connection()
    rig.engine.end()
    rig.engine.close_store()
    assert not [change for change in store.changes if change[0] in ("message", "sent", "done")]
    counted = stats(rig)
    assert (counted.published, counted.acknowledged, counted.dropped, counted.in_flight) == (0, 0, 0, 0)


@pytest.mark.parametrize("store", [None, MemoryStore])
def test_an_unanswered_birth_is_no_message_that_is_lost(store: Any) -> None:
    rig = rig_with(farewell=offline(), store=store and store())
    rig.connect()
    leave(rig)
    rig.engine.end()
    rig.engine.close_store()
    assert stats(rig).dropped == 0
    assert "dropped" not in rig.events()


@pytest.mark.parametrize("argument", ["birth", "farewell"])
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"topic": "a/+"}, ".topic"),
        ({"topic": ""}, ".topic"),
        ({"qos": 2}, ".qos"),
        ({"qos": 3}, ".qos"),
        ({"payload": 7}, ".payload"),
        ({"properties": {"topic_alias": 1}}, ".properties"),
        ({"payload": b"\xff", "properties": {"payload_format_indicator": 1}}, ".payload"),
        (None, ""),
    ],
)
def test_what_cannot_be_sent_is_an_error_of_the_constructor(argument: str, fields: Any, named: str) -> None:
    found = b"online" if fields is None else Message(**{"topic": "a", "payload": b"", **fields})
    with pytest.raises(ArgumentError) as caught:
        Greetings("5.0", **{argument: found})
    assert caught.value.argument == argument + named


def test_properties_need_mqtt_5_and_a_will_has_the_same_fields() -> None:
    with pytest.raises(ArgumentError, match=r"birth\.properties: MQTT 3\.1\.1 has no properties"):
        Greetings("3.1.1", Message("a", b"", properties={"content_type": "x"}))
    assert Greetings("5.0", Will("a", "on", qos=1, retain=True)).birth is not None
    found = Greetings("5.0", Message("a", b"", properties={"message_expiry_interval": 5})).birth
    assert found is not None and found.properties == b"\x05\x02\x00\x00\x00\x05"


def test_the_second_identifier_of_a_birth_may_be_anothers() -> None:
    """QoS 1 has no memory beyond its answer: the identifier of a birth that was lost is free again."""
    rig = rig_with()
    rig.connect()
    reconnect(rig, session_present=True)
    rig.publish(b"x", 2)
    (sent,) = rig.sent()
    pubrel = rig.feed(Pubrec(sent.packet_id))
    assert types(pubrel) == ["pubrel"]
    rig.feed(Pubcomp(sent.packet_id))
    assert stats(rig).acknowledged == 1
