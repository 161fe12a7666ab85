"""The deadlines of calls: what is overdue is abandoned, and a thread wakes for nothing else."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from device_sdk.node.watch import Call, Watch
from device_sdk.testing import ManualClock

PATIENCE_S = 10.0


class Counted(Watch):
    """A watch whose wake-ups are counted."""

    def __init__(self) -> None:
        self.wake_ups = 0
        super().__init__()

    def step(self) -> None:
        self.wake_ups += 1
        super().step()


def test_a_call_that_ends_in_time_is_not_abandoned_and_one_that_does_not_is() -> None:
    clock, overdue = ManualClock(), list[Call]()
    watch = Watch(clock)
    first, second = (watch.begin(seconds, overdue.append) for seconds in (30, 40))
    assert watch.end(first)
    clock.advance(39.9)
    watch.step()
    assert overdue == []
    clock.advance(0.1)
    watch.step()
    watch.step()
    assert overdue == [second], "once"
    assert not watch.end(second), "its thread has to end"


def test_a_call_that_ends_as_its_time_passes_is_either_taken_or_abandoned_and_never_both() -> None:
    for _ in range(200):
        clock, overdue = ManualClock(), list[Call]()
        watch = Watch(clock)
        call = watch.begin(30, overdue.append)
        clock.advance(30)
        together = threading.Barrier(2)

        def step(watch: Watch = watch, together: threading.Barrier = together) -> None:
            together.wait(PATIENCE_S)
            watch.step()

        thread = threading.Thread(target=step)
        thread.start()
        together.wait(PATIENCE_S)
        taken = watch.end(call)
        thread.join(PATIENCE_S)
        assert taken == (overdue == [])


def test_thousands_of_calls_that_end_in_time_do_not_wake_the_thread() -> None:
    watch = Counted()
    watch.start()
    watch.begin(30, print)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that a thread that is woken runs at once
    try:
        for _ in range(5_000):
            assert watch.end(watch.begin(30, print))
    finally:
        sys.setswitchinterval(before)
    watch.stop()
    assert watch.join(PATIENCE_S)
    assert watch.wake_ups <= 1, "for the first one, to learn of its deadline"


def test_without_a_call_it_never_wakes_and_ends_at_once() -> None:
    watch = Counted()
    watch.start()
    assert watch.is_alive
    watch.stop()
    assert watch.join(PATIENCE_S)
    assert watch.wake_ups == 0


@pytest.mark.parametrize("later", [False, True], ids=["alone", "behind a later deadline"])
def test_the_thread_abandons_what_is_overdue(later: bool) -> None:
    watch, told = Watch(), threading.Event()
    watch.start()
    if later:
        watch.begin(3600, print)
    begin = time.monotonic()
    watch.begin(0.05, lambda _: told.set())
    assert told.wait(PATIENCE_S)
    assert time.monotonic() - begin >= 0.05
    watch.stop()
    assert watch.join(PATIENCE_S)


def test_whoever_is_told_may_begin_another_call() -> None:
    watch, told = Watch(), threading.Event()
    watch.start()
    watch.begin(0.01, lambda _: watch.begin(0.01, lambda _: told.set()))
    assert told.wait(PATIENCE_S)
    watch.stop()
    assert watch.join(PATIENCE_S)
