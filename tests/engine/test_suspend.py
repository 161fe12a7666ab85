"""The machine was suspended: the clock has gone on, and nobody has looked at it meanwhile."""

from __future__ import annotations

import pytest

from device_sdk.mqtt.packets import Pingresp
from device_sdk.net.base import Transport
from tests.engine.rig import HandTransport, Rig, types


def suspend(rig: Rig, seconds: float) -> None:
    """Let time pass, and then do what a shell does that wakes up."""
    rig.clock.advance(seconds)
    deadline = rig.deadline()
    if deadline is not None and deadline <= rig.clock():
        rig.engine.on_deadline(rig.clock())


def test_a_connection_that_its_broker_has_ended_by_now_is_ended_at_once() -> None:
    rig = Rig()
    rig.connect()
    rig.events()
    suspend(rig, 3600)
    assert rig.transport.closes == 1
    [event] = rig.event_objects()
    assert event.text == (
        "hand made: no packet either way for one and a half keep alives of 60 s: this machine was suspended, "
        "or this process stopped, and by now the server has ended the connection; next attempt in 1.0 s"
    )
    assert rig.sent() == []
    rig.advance(1)
    assert rig.engine.wants_open


@pytest.mark.parametrize(("seconds", "ends"), [(58.9, False), (59, False), (89.9, False), (90, True)])
def test_a_shorter_sleep_is_followed_by_a_question(seconds: float, ends: bool) -> None:
    rig = Rig()
    rig.connect()
    suspend(rig, seconds)
    if ends:
        assert rig.engine.life.state == "waiting"
        return
    assert types(rig.sent()) == (["pingreq"] if seconds >= 59 else [])
    rig.advance(29.9)
    rig.feed(Pingresp())
    rig.advance(50)
    assert rig.engine.life.state == "connected"


def test_a_question_without_an_answer_before_the_sleep_is_not_repeated() -> None:
    rig = Rig()
    rig.connect()
    rig.advance(59)
    suspend(rig, 40)
    assert rig.engine.life.state == "waiting"
    assert "no answer to PINGREQ within 30 s" in rig.event_objects()[-1].text


def test_what_came_before_the_sleep_is_no_answer_but_what_is_read_after_it_is() -> None:
    rig = Rig()
    rig.connect()
    rig.clock.advance(3600)
    rig.feed(Pingresp())  # a broker that does not mind
    suspend(rig, 0)
    assert types(rig.sent()) == ["pingreq"]
    assert rig.engine.life.state == "connected"


@pytest.mark.parametrize("keep_alive", [1, 10, 65_535])
def test_a_machine_that_is_only_slow_is_not_taken_for_one_that_slept(keep_alive: int) -> None:
    rig = Rig(keep_alive=keep_alive)
    rig.answers_pings = True
    rig.connect()
    for _ in range(5):
        suspend(rig, keep_alive * 1.4)
        rig.sent()
    assert rig.engine.life.state == "connected"


def test_a_stream_that_takes_nothing_for_long_is_not_taken_for_a_sleep() -> None:
    """The deadline of the keep alive is kept meanwhile, and PINGREQ waits behind what is being sent."""
    rig = Rig()
    rig.connect()
    rig.transport.room = 10
    rig.publish(b"x" * 100_000, qos=0)
    rig.sent()
    rig.events()
    for _ in range(4):
        rig.advance(25)
        rig.transport.room = 10_000
        rig.engine.on_writable(rig.clock())
        rig.engine.flush(rig.clock())
    assert "suspended" not in "".join(event.text for event in rig.event_objects())


def test_without_keep_alive_nothing_is_judged() -> None:
    rig = Rig(keep_alive=0)
    rig.connect()
    suspend(rig, 1e6)
    assert rig.engine.life.state == "connected"


def test_a_wait_between_two_attempts_is_over() -> None:
    rig = Rig()
    for _ in range(8):
        rig.refuse()
        rig.advance(rig.retry_delay())
    rig.refuse()
    assert rig.retry_delay() == 60
    suspend(rig, 60)
    assert rig.engine.wants_open


def test_no_answer_to_connect_comes_any_more() -> None:
    rig = Rig()
    rig.open()
    suspend(rig, 3600)
    assert rig.engine.life.state == "waiting"


def test_the_life_of_a_message_goes_on() -> None:
    rig = Rig()
    rig.refuse()
    dies, lives = rig.publish(b"1", expiry=60), rig.publish(b"2", expiry=4000)
    suspend(rig, 3600)
    assert (dies.state, lives.state) == ("expired", "queued")
    [again] = [packet for packet in rig.connect() if packet.type == "publish"]
    assert (again.payload, again.properties["message_expiry_interval"]) == (b"2", 400)


class TimedTransport(HandTransport):
    """Has a timer of its own, in monotonic seconds."""

    due: float | None = None
    told: float | None = None

    def next_deadline(self) -> float | None:
        return self.due

    def handle_deadline(self, now: float) -> None:
        self.told, self.due = now, None


@pytest.mark.parametrize("ahead", [0.0, 5000.0])
def test_a_transport_with_a_timer_hears_monotonic_time(monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    monkeypatch.setattr("device_sdk.engine.connection.ahead", lambda: ahead)
    transport = TimedTransport()
    monkeypatch.setattr(Rig, "places", lambda self: transport)
    rig = Rig()
    rig.transport = transport
    rig.connect()
    transport.due = rig.clock() + 5 - ahead
    assert rig.deadline() == rig.clock() + 5
    rig.advance(5)
    assert isinstance(transport, Transport)
    assert transport.told == rig.clock() - ahead
