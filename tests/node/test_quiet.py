"""A sensor that fails now and then for months: few lines, and the sums in them are right."""

from __future__ import annotations

import errno
import logging
import re
from functools import partial

import pytest

from device_sdk.drivers import Driver, Reading
from device_sdk.drivers.bus.i2c import transfer_error
from device_sdk.errors import BusError, ChecksumError, DeviceNotFoundError
from device_sdk.node.life_cycle import State
from device_sdk.node.schedule import Schedule
from device_sdk.node.sensor import Sensor
from device_sdk.testing import ManualClock
from tests.node.fakes import GOOD, FakeDriver

DAY = 86_400.0
NACK = transfer_error("/dev/i2c-1", 0x76, errno.EREMOTEIO)


class Intermittent(FakeDriver):
    """Fails in ``failing`` of ``reads`` reads, the last ones."""

    def __init__(self, reads: int, failing: int, error: Exception) -> None:
        super().__init__()
        self.reads_done = self.failures = 0
        self._round, self._failing, self._error = reads, failing, error

    def read(self) -> tuple[Reading, ...]:
        self.reads_done += 1
        if self.reads_done % self._round < self._round - self._failing:
            return GOOD
        self.failures += 1
        raise self._error


def sensor_of(driver: Driver, clock: ManualClock, interval: float) -> Sensor:
    return Sensor(
        "climate",
        lambda: driver,
        Schedule(interval, clock()),
        on_readings=lambda *_: None,
        on_online=lambda _: None,
        clock=clock,
    )


def run(sensor: Sensor, clock: ManualClock, until: float) -> None:
    while sensor.due < until:
        clock.advance_to(max(clock(), sensor.due))
        sensor.run()


def counted(line: str) -> int:
    found = re.search(r"\(([\d,]+) times in ", line)
    return int(found[1].replace(",", "")) if found else 1


@pytest.mark.parametrize("interval", [60.0, 90.0, 100.0, 3600.0], ids="every {:g} s".format)
@pytest.mark.parametrize("failing", [1, 2], ids=["one", "two in a row"])
def test_a_month_of_errno_121_in_each_seventh_read_is_a_handful_of_lines_a_day(
    interval: float, failing: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "device_sdk.node")
    clock = ManualClock()
    driver = Intermittent(7, failing, NACK)
    sensor = sensor_of(driver, clock, interval)
    begin = clock()
    for day in range(30):
        before = len(caplog.messages)
        run(sensor, clock, begin + (day + 1) * DAY)
        assert len(caplog.messages) - before <= (10 if day == 0 else 4)
    assert driver.failures >= 30 * DAY / interval // 7
    lines = [line for line in caplog.messages if "degraded" in line]
    recoveries = [line for line in caplog.messages if line == "sensor climate: ok"]
    assert len(lines) + len(recoveries) == len(caplog.messages)
    assert len(recoveries) == len(lines) + 1, "one at the start, and one behind each failure that was told"
    assert "nothing answers at 0x76 on /dev/i2c-1: check the wiring and the address (EREMOTEIO)" in lines[0]
    before = len(caplog.messages)
    clock.advance(1)
    sensor.end()
    assert len(caplog.messages) <= before + 1
    told = [line for line in caplog.messages if "degraded" in line]
    assert counted(told[-1]) == driver.failures, "the sum of the month"


def test_a_sensor_that_was_told_to_be_well_and_is_away_for_good_is_told_within_the_hour(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "device_sdk.node")
    clock = ManualClock()
    gone = DeviceNotFoundError("nothing is there")
    driver = Intermittent(20, 10, gone)
    sensor = sensor_of(driver, clock, 10.0)
    run(sensor, clock, clock() + 0.7 * DAY)
    flaps = len(caplog.messages)
    assert flaps < 100
    driver.read = partial(_raise, gone)  # type: ignore[method-assign]
    run(sensor, clock, clock() + 3_601)
    assert caplog.messages[-1].startswith("sensor climate: absent: nothing is there")
    assert sensor.state == State.ABSENT


def test_the_attempts_of_a_sensor_that_stays_away_are_in_the_sum_at_the_end_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "device_sdk.node")
    clock = ManualClock()
    driver = FakeDriver(opens=[BusError("no permission")] * 10_000)
    sensor = sensor_of(driver, clock, 10.0)
    run(sensor, clock, clock() + DAY)
    assert caplog.messages == ["sensor climate: backoff: no permission"]
    attempts = driver.calls.count("open")
    sensor.end()
    assert counted(caplog.messages[-1]) == attempts > 2_000


def test_different_faults_of_one_sensor_are_counted_apart(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    crc = ChecksumError("the CRC is wrong")
    driver = FakeDriver(reads=[GOOD, NACK, GOOD, crc, GOOD, crc] * 100)
    sensor = sensor_of(driver, clock, 10.0)
    run(sensor, clock, clock() + 5_991)
    sensor.end()
    sums = {("CRC" in line): counted(line) for line in caplog.messages}
    assert sums == {True: 200, False: 100}


def _raise(error: Exception) -> tuple[Reading, ...]:
    raise error
