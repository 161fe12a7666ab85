"""The life of an engine in random histories: brokers that come and go, attempts that hang, any moment."""

from __future__ import annotations

import random

import pytest

from device_sdk.engine.life_cycle import CONNECTED
from tests.engine.life_world import LifeWorld

STEPS = (
    *["publish", "time_passes", "open_ends"] * 4,
    *[
        "want_outcome",
        "reconnect_now",
        "replace",
        "open_hangs",
        "credentials_hang",
        "credentials_raise",
        "ghost_returns",
    ],
    *[
        "stream_has_a_bug",
        "link_goes_dead",
        "place_changes",
        "cut",
        "broker_says_goodbye",
        "sessions_are_lost",
        "stream_is_full",
    ],
)
HISTORIES = 60
LENGTH = 60


def live(seed: int, length: int = LENGTH) -> LifeWorld:
    """Live one life; the error of a broken promise begins with what led to it."""
    dice = random.Random(seed)
    world = LifeWorld(seed)
    told = []
    try:
        for _ in range(length):
            step = "restart" if dice.random() < 0.02 else dice.choice(STEPS)
            told.append(step)
            getattr(world, step)()
            world.turn()
        told.append("settle")
        world.settle()
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}\n{world.options}\n{' '.join(told[-12:])}") from error
    return world


@pytest.mark.parametrize("first", range(0, HISTORIES, 10))
def test_no_history_breaks_a_promise(first: int) -> None:
    for seed in range(first, first + 10):
        live(seed)


# What a broker does to whoever comes: nothing, say no, or end every connection after a while.
REFUSALS = {"never": 0x87, "later": 0x97, "elsewhere": 0x9C}
ENDS = {"cut": (0.0, 0x80), "taken over": (0.0, 0x8E), "busy": (1.0, 0x89), "short": (31.0, 0x8D)}
MANNERS = ("good", "down", "deaf", *REFUSALS, *ENDS)


@pytest.mark.parametrize("second", MANNERS)
@pytest.mark.parametrize("first", MANNERS)
def test_an_hour_with_two_bad_brokers_is_no_storm(first: str, second: str) -> None:
    world = LifeWorld(1, 2, return_to_first=60.0)
    manners = dict(zip(world.places, (first, second), strict=True))
    for place, manner in manners.items():
        place.is_down, place.is_deaf = manner == "down", manner == "deaf"
        place.refusal = REFUSALS.get(manner, 0)
    end = world.clock() + 3600
    while world.clock() < end and sum(place.attempts for place in world.places) <= 400:
        world.turn()
        here = next(
            place for place in world.places if place.name == world.engine.connector.brokers.current.address
        )
        if world.opening is not None:
            world.open_ends()
        elif world.engine.life.state == CONNECTED and manners[here] in ENDS:
            seconds, reason_code = ENDS[manners[here]]
            world.wait(seconds)
            here.broker.disconnect_all(world.clock(), reason_code)
        else:
            deadline = world.deadline()
            world.wait(10.0 if deadline is None else deadline - world.clock())
    attempts = [place.attempts for place in world.places]
    assert max(attempts) <= 130, attempts
