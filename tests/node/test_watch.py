"""The deadlines of calls: what is overdue is abandoned, and a thread wakes for nothing else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import device_sdk
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


# Where it hangs

NODE = ("device_sdk/node/worker.py", "run")
AGING = ("device_sdk/drivers/staleness.py", "read_aged")
DRIVER = ("device_sdk/drivers/bme280.py", "read")
BUS = ("device_sdk/drivers/bus/i2c.py", "transfer")


def function_of(file: str, name: str) -> Callable[[Callable[[], object]], object]:
    """A function in this file that calls what it is given in line 2."""
    folder = Path(device_sdk.__file__).parents[1] if file.startswith("device_sdk") else Path("/home/pi")
    found: dict[str, Callable[[Callable[[], object]], object]] = {}
    source = f"def {name}(call):\n    return call()\n"
    exec(compile(source, str(folder / file), "exec"), found)
    return found[name]


@pytest.mark.parametrize(
    ("files", "place"),
    [
        ([NODE, DRIVER, BUS], "bme280.py, line 2 (read), which called transfer"),
        ([NODE, AGING, DRIVER, BUS], "bme280.py, line 2 (read), which called transfer"),
        (
            [NODE, DRIVER, ("weather.py", "rain"), ("requests/api.py", "get")],
            "weather.py, line 2 (rain), which called get",
        ),
        (
            [NODE, DRIVER, ("site-packages/adafruit_sht4x.py", "temperature"), BUS],
            "adafruit_sht4x.py, line 2 (temperature), which called transfer",
        ),
    ],
    ids=["of the package", "with an age", "a function of the user", "a driver from outside"],
)
def test_the_place_of_a_call_is_the_line_of_the_driver_and_what_it_called(
    files: list[tuple[str, str]], place: str
) -> None:
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(Call, 0.0, print).result(PATIENCE_S)
        step: Callable[[], object] = partial(getattr, call, "place")
        for file, name in reversed(files):
            step = partial(function_of(file, name), step)
        assert pool.submit(step).result(PATIENCE_S) == place
    assert call.place == "a thread that has ended"
