"""The schedule, by a manual clock."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.node.schedule import Schedule, phase_offset
from device_sdk.testing import ManualClock

INTERVAL = 0.1  # has no exact binary form: adding it up would drift


def test_a_million_ticks_do_not_drift_whatever_the_reads_take() -> None:
    clock = ManualClock(start=12_345.678)
    schedule = Schedule(INTERVAL, clock(), phase=0.03)
    for _ in range(1_000_000):
        clock.advance_to(schedule.next)
        clock.advance(0.007)  # woken late
        schedule.advance(clock())
    assert schedule.next == 12_345.678 + 0.03 + 1_000_000 * INTERVAL
    assert schedule.missed == 0


def test_before_the_tick_nothing_moves() -> None:
    schedule = Schedule(10, start=100, phase=4)
    assert schedule.next == 104
    assert schedule.advance(103.9) == 0
    assert schedule.next == 104


def test_ticks_that_passed_are_skipped_and_counted_and_not_made_up_for() -> None:
    schedule = Schedule(10, start=0)
    schedule.advance(0)
    assert schedule.advance(35) == 2  # 10 is served late, 20 and 30 are gone
    assert (schedule.next, schedule.missed) == (40, 2)
    assert schedule.advance(40) == 0
    assert (schedule.next, schedule.missed) == (50, 2)


@given(
    interval=st.floats(0.01, 2_678_400),
    start=st.floats(0, 1e9),
    steps=st.lists(st.floats(0, 1e6), max_size=20),
)
def test_the_next_tick_lies_ahead_by_an_interval_at_most(
    interval: float, start: float, steps: list[float]
) -> None:
    schedule = Schedule(interval, start)
    now = start
    for step in steps:
        now += step
        schedule.advance(now)
        assert now < schedule.next <= now + interval + 2 * math.ulp(now + interval)


def test_the_phase_is_the_same_after_each_restart_and_differs_between_sensors_and_nodes() -> None:
    assert (
        phase_offset("node", "climate", 60)
        == phase_offset("node", "climate", 60)
        == pytest.approx(42.3, abs=0.1)
    )
    assert phase_offset("node", "climate", 120) == 2 * phase_offset("node", "climate", 60)
    phases = {phase_offset(f"node-{number}", name, 60) for number in range(50) for name in ("a", "b")}
    assert len(phases) == 100
    assert all(0 <= phase < 60 for phase in phases)
    assert {int(phase // 10) for phase in phases} == set(range(6)), "a fleet spreads over the interval"
