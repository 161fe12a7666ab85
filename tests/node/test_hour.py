"""An hour of a bus beside one that hangs: every tick is served in time, or counted as missed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import pytest

from device_sdk.drivers import Reading
from device_sdk.node.life_cycle import MAX_STUCK
from device_sdk.node.schedule import Schedule
from device_sdk.node.sensor import Sensor
from device_sdk.node.watch import Watch
from device_sdk.node.worker import Worker
from device_sdk.testing import ManualClock
from tests.node.fakes import GOOD, FakeDriver
from tests.node.hanging import Bus

HOUR = 3600.0
LATE_S = 0.0002  # as a thread wakes up


@dataclass
class Timed(FakeDriver):
    """Notes when it is read; a read takes so long."""

    clock: ManualClock
    takes: float = 0.0
    times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def read(self) -> tuple[Reading, ...]:
        self.times.append(self.clock())
        self.clock.advance(self.takes)
        return GOOD


def sensor(name: str, driver: Timed, interval: float, phase: float) -> Sensor:
    clock = driver.clock
    return Sensor(
        name,
        lambda: driver,
        Schedule(interval, clock(), phase),
        on_readings=lambda *_: None,
        on_online=lambda _: None,
        clock=clock,
    )


def errors(driver: Timed, begin: float, interval: float, phase: float) -> list[float]:
    """How late each read began after its tick; the first one, at the opening, is none."""
    return [(time - begin - phase) % interval for time in driver.times[1:]]


def run(worker: Worker, watch: Watch, clock: ManualClock, until: float) -> None:
    while clock() < until:
        wait = worker.step()
        clock.advance(wait + LATE_S)
        watch.step()


@pytest.mark.parametrize("interval", [0.1, 1.0, 10.0])
def test_neither_a_bus_that_hangs_nor_a_slow_neighbour_moves_a_tick_for_an_hour(
    interval: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_sdk.node.life_cycle.HOLD_S", 0.001)  # its thread waits in real time
    monkeypatch.setattr("device_sdk.node.life_cycle.FIRST_RETRY_S", 0.001)
    hung = Bus("hung", name="i2c-hung")
    hangs = [hung.hang("hung", "read", number) for number in range(1, MAX_STUCK + 1)]
    clock, watch, begin = hung.clock, hung.watch, hung.clock()
    quick, slow = Timed(clock, takes=0.001), Timed(clock, takes=interval * 0.4)
    worker = Worker(
        "i2c-1",
        [sensor("quick", quick, interval, 0.0), sensor("slow", slow, 30.0, interval / 2)],
        watch=watch,
        clock=clock,
    )
    hung.worker.start()
    try:
        for hang in hangs:
            assert hang.begun.wait(10)
            run(worker, watch, clock, clock() + 70)  # it is left behind, and opened again
        assert hung.worker.failed
        run(worker, watch, clock, begin + HOUR)
    finally:
        for hang in hangs:
            hang.end()
    late = errors(quick, begin, interval, 0.0)
    tenth = len(late) // 10
    assert statistics.mean(late) < 0.001
    assert abs(statistics.mean(late[:tenth]) - statistics.mean(late[-tenth:])) < 0.0001, "no drift"
    quick_sensor, slow_sensor = worker.sensors
    assert len(quick.times) + quick_sensor.schedule.missed == pytest.approx(HOUR / interval, abs=2)
    assert len(slow.times) + slow_sensor.schedule.missed == pytest.approx(HOUR / 30, abs=2)
    assert quick_sensor.schedule.missed <= 1, "at the start, when the slow one was opened"


def test_ticks_that_a_slow_neighbour_covers_are_missed_and_counted_and_the_next_is_in_its_place() -> None:
    clock = ManualClock()
    begin = clock()
    quick, slow = Timed(clock), Timed(clock, takes=2.5)
    worker = Worker(
        "i2c-1", [sensor("quick", quick, 1.0, 0.0), sensor("slow", slow, 60.0, 0.25)], clock=clock
    )
    run(worker, Watch(clock), clock, begin + HOUR)
    quick_sensor, slow_sensor = worker.sensors
    assert slow_sensor.schedule.missed == 0
    assert len(quick.times) + quick_sensor.schedule.missed == pytest.approx(HOUR, abs=2)
    assert quick_sensor.schedule.missed == pytest.approx(HOUR / 60, abs=4), "one of the two that it covers"
    late = errors(quick, begin, 1.0, 0.0)
    assert sum(error > 0.001 for error in late) == pytest.approx(HOUR / 60, abs=4), "the other is late"
    assert max(late[-3:]) < 0.001
