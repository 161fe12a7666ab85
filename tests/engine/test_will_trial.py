"""A will that a broker refuses CONNECT for: the client finds out, says so, and is online without it."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.mqtt.message import Will
from device_sdk.mqtt.packets import Connack
from tests.engine.rig import Rig

WILL = Will("site/status", b"offline", qos=1, retain=True)
HOUR = 3600


class Place(Rig):
    """A broker with an opinion of wills. ``answer``: the code of its CONNACK; ``None``: it closes."""

    def __init__(self, answer: int | None, **options: Any) -> None:
        super().__init__(**{"will": WILL, "draw": 0.5, **options})
        self.answers_pings = True
        self.answer = answer
        self.minds: Any = lambda connect: connect.will is not None
        self.connects: list[Any] = []

    def attempt(self) -> None:
        """One attempt of the shell, up to the broker's answer."""
        attempt = self.engine.attempt()
        attempt.open(0.0)
        [connect] = self.open()
        self.connects.append(connect)
        if not self.minds(connect):
            self.feed(Connack(False, 0))
        elif self.answer is None:
            self.lose()
        else:
            self.feed(Connack(False, self.answer))

    def stay(self, seconds: int) -> None:
        """Let time pass on a connection on which PINGREQ is answered."""
        for _ in range(seconds // 30):
            self.advance(30)
        assert self.engine.life.state == "connected"

    def live(self, attempts: int) -> list[bool]:
        """Let time pass for so many attempts; return of each whether its CONNECT had the will."""
        before = len(self.connects)
        while len(self.connects) < before + attempts:
            if self.engine.life.state == "waiting":
                self.advance(self.retry_delay())
            assert self.engine.wants_open
            self.attempt()
        return [connect.will is not None for connect in self.connects[before:]]


@pytest.mark.parametrize("version", ["5.0", "3.1.1"])
def test_a_will_that_is_not_authorized_is_left_out_at_once_and_named(version: str) -> None:
    place = Place(0x87 if version == "5.0" else 5, version=version)
    assert place.live(2) == [True, False]
    assert place.engine.life.state == "connected"
    [failed, connected, refused] = place.event_objects()
    assert (failed.kind, connected.kind, refused.kind) == ("connect_failed", "connected", "will_refused")
    assert failed.text.endswith("; next attempt at once, without the will")
    assert refused.text.startswith("site/status: the broker refuses CONNECT with a will on this topic")
    assert "ot authorized" in refused.text
    assert refused.value == "site/status"


@pytest.mark.parametrize("code", [0x90, 0x95, 0x99, 0x9A, 0x9B])
def test_a_reason_that_can_only_be_the_will_is_enough(code: int) -> None:
    place = Place(code)
    assert place.live(2) == [True, False]
    assert place.engine.life.state == "connected"


def test_a_broker_that_closes_without_a_word_is_asked_without_after_three_ends() -> None:
    place = Place(None)
    assert place.live(4) == [True, True, True, False]
    assert place.engine.life.state == "connected"
    assert place.events()[-2:] == ["connected", "will_refused"]


@pytest.mark.parametrize("answer", [0x87, None])
def test_the_will_is_tried_again_after_an_hour_and_one_end_is_enough(answer: int | None) -> None:
    place = Place(answer)
    while place.engine.life.state != "connected":
        place.live(1)
    place.lose()
    assert place.live(1) == [False]
    place.events()
    place.stay(HOUR)
    place.lose()
    assert place.live(2) == [True, False]
    assert "will_refused" in place.events()
    place.minds = lambda connect: False
    place.stay(HOUR)
    place.lose()
    assert place.live(1) == [True]
    place.lose()
    assert place.live(1) == [True]


@pytest.mark.parametrize("answer", [0x87, 0x86, 0x88, None])
def test_a_broker_that_refuses_everybody_is_asked_without_the_will_once_an_hour_at_most(
    answer: int | None,
) -> None:
    place = Place(answer)
    place.minds = lambda connect: True
    wills = []
    while place.clock() < 3.5 * HOUR:
        wills += place.live(1)
    assert wills.count(False) <= 4
    assert "will_refused" not in place.events()


@pytest.mark.parametrize("code", [0x84, 0x85, 0x86, 0x88, 0x89, 0x8A, 0x8C, 0x97, 0x9C, 0x9D, 0x9F])
def test_other_reasons_say_nothing_about_the_will(code: int) -> None:
    place = Place(code)
    assert place.live(5) == [True] * 5


def test_a_client_without_a_will_is_not_asked_twice() -> None:
    place = Place(0x87, will=None)
    place.minds = lambda connect: True
    place.live(1)
    assert place.engine.life.state == "waiting"


def test_keep_sends_the_will_for_ever() -> None:
    place = Place(0x87, on_poison="keep")
    assert place.live(6) == [True] * 6


def test_a_trial_that_does_not_reach_the_broker_is_none() -> None:
    """The broker shuts down, closes three connections before CONNACK, and is away for a while."""
    place = Place(None)
    place.minds = lambda connect: True
    place.live(3)
    place.engine.attempt()
    place.refuse()
    place.minds = lambda connect: False
    assert place.live(1) == [True]
    assert "will_refused" not in place.events()


@pytest.mark.parametrize("how", ["busy", "link"])
def test_a_trial_that_ends_for_another_reason_acquits_nobody(how: str) -> None:
    place = Place(0x87)
    place.live(1)
    place.minds = lambda connect: True
    if how == "busy":
        place.answer = 0x89
        assert place.live(1) == [False]
    else:
        place.engine.attempt().open(0.0)
        place.open()
        place.transport.broken = True
        place.engine.on_readable(place.clock())
    place.answer, place.minds = 0x87, lambda connect: connect.will is not None
    assert place.live(2) == [True, False]
    assert place.engine.life.state == "connected"


def test_a_trial_has_the_credentials_of_the_refused_attempt() -> None:
    tokens = iter(("old", "new", "newer"))
    place = Place(0x87, ask=lambda: (next(tokens), b"x"))
    place.minds = lambda connect: connect.user_name == "old"
    assert place.live(3) == [True, False, True]
    assert [connect.user_name for connect in place.connects] == ["old", "old", "newer"]
    assert "will_refused" not in place.events()


def test_a_will_that_has_changed_is_tried_at_once() -> None:
    wills = [WILL]
    place = Place(0x87, ask_will=lambda: wills[0])
    place.minds = lambda connect: connect.will is not None and connect.will.topic == WILL.topic
    assert place.live(2) == [True, False]
    wills[0] = Will("allowed", b"offline")
    place.lose()
    assert place.live(1) == [True]
    assert place.engine.life.state == "connected"
