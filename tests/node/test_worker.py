"""Sensors and their bus: states, back-off, one after another; by a manual clock, the last with threads."""

from __future__ import annotations

import errno
import logging
import os
import termios
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import pytest
from pytest_mock import MockerFixture

from device_sdk.drivers import Driver, Reading
from device_sdk.drivers.bus.i2c import transfer_error
from device_sdk.errors import ArgumentError, BusError, ChecksumError, DeviceNotFoundError, DriverError
from device_sdk.node.life_cycle import State
from device_sdk.node.schedule import Schedule
from device_sdk.node.sensor import Sensor
from device_sdk.node.worker import Worker
from device_sdk.testing import ManualClock
from tests.node.fakes import BAD, GOOD, FakeDriver

CRC = ChecksumError("the CRC is wrong")
GONE = DeviceNotFoundError("nothing answers at 0x76")
BUS = BusError("no acknowledge")


def _same(driver: Driver) -> Driver:
    return driver


@dataclass
class Bench:
    """A worker with its sensors, and what they said."""

    clock: ManualClock = field(default_factory=ManualClock)
    samples: list[tuple[str, tuple[Reading, ...]]] = field(default_factory=list)
    online: list[tuple[str, bool]] = field(default_factory=list)
    sensors: dict[str, Sensor] = field(default_factory=dict)

    def add(self, name: str, driver: Driver | Callable[[], Driver], interval: float = 10.0) -> Sensor:
        make = partial(_same, driver) if isinstance(driver, Driver) else driver
        self.sensors[name] = Sensor(
            name,
            make,
            Schedule(interval, self.clock(), phase=interval),
            on_readings=lambda readings, _: self.samples.append((name, readings)),
            on_online=lambda online: self.online.append((name, online)),
            clock=self.clock,
        )
        return self.sensors[name]

    def worker(self) -> Worker:
        return Worker("bus", list(self.sensors.values()), clock=self.clock)

    def states(self, sensor: Sensor, steps: int) -> list[str]:
        """Run the sensor each time it is due."""
        found = []
        for _ in range(steps):
            self.clock.advance_to(max(self.clock(), sensor.due))
            sensor.run()
            found.append(str(sensor.state))
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_sensor_is_opened_and_read_at_once_then_at_its_ticks(bench: Bench) -> None:
    driver = FakeDriver()
    sensor = bench.add("climate", driver)
    worker = bench.worker()
    assert sensor.state == State.ABSENT
    assert worker.step() == 10
    assert (sensor.state, driver.calls) == (State.OK, ["open", "read"])
    assert bench.samples == [("climate", GOOD)]
    bench.clock.advance(9.5)
    assert worker.step() == 0.5
    bench.clock.advance(0.5)
    assert worker.step() == 10
    assert driver.calls == ["open", "read", "read"]
    assert bench.online == [("climate", True)]


def test_one_bad_read_degrades_and_the_next_good_one_recovers(bench: Bench) -> None:
    sensor = bench.add("climate", FakeDriver(reads=[GOOD, CRC, CRC, GOOD]))
    assert bench.states(sensor, 4) == ["ok", "degraded", "degraded", "ok"]
    assert bench.online == [("climate", True)]


def test_three_bad_reads_in_a_row_close_it_and_it_is_opened_again(bench: Bench) -> None:
    driver = FakeDriver(reads=[GOOD, CRC, CRC, BUS])
    sensor = bench.add("climate", driver)
    assert bench.states(sensor, 4) == ["ok", "degraded", "degraded", "backoff"]
    assert driver.calls[-1] == "close"
    assert sensor.due == bench.clock() + 1
    assert bench.states(sensor, 1) == ["ok"]
    assert driver.calls[-2:] == ["open", "read"]
    assert bench.online == [("climate", True), ("climate", False), ("climate", True)]


def raised_from(error: Exception, cause: Exception | None) -> Exception:
    try:
        raise error from cause
    except type(error) as raised:
        return raised


def raised_in(error: Exception, context: Exception) -> Exception:
    """As pyserial raises: in the handler of what the system said."""
    try:
        try:
            raise context
        except type(context):
            raise error  # noqa: B904
    except type(error) as raised:
        return raised


def endless() -> Exception:
    error = DriverError("in a circle")
    error.__cause__ = DriverError("of causes")
    error.__cause__.__cause__ = error
    return error


EIO, ENODEV, ENXIO, NACK = (
    OSError(code, os.strerror(code)) for code in (errno.EIO, errno.ENODEV, errno.ENXIO, errno.EREMOTEIO)
)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (EIO, "backoff"),
        (ENODEV, "absent"),
        (ENXIO, "absent"),
        (transfer_error("/dev/i2c-1", 0x76, errno.ENODEV), "absent"),
        (raised_from(BusError("it broke"), EIO), "backoff"),
        (raised_in(OSError("read failed: [Errno 5] Input/output error"), EIO), "backoff"),
        (raised_from(DriverError("a"), raised_in(DriverError("b"), ENODEV)), "absent"),
        (termios.error(errno.EIO, "Input/output error"), "backoff"),
        (raised_from(CRC, NACK), "degraded"),
        (raised_from(raised_in(CRC, EIO), None), "degraded"),
        (termios.error(), "degraded"),
        (endless(), "degraded"),
        (NACK, "degraded"),
    ],
    ids=repr,
)
def test_the_first_error_that_says_that_the_port_is_gone_closes_the_driver(
    bench: Bench, error: Exception, state: str
) -> None:
    driver = FakeDriver(reads=[GOOD, error])
    sensor = bench.add("climate", driver)
    assert bench.states(sensor, 2) == ["ok", state]
    assert driver.calls == ["open", "read", "read"] + ["close"] * (state != "degraded")
    assert bench.states(sensor, 1) == ["ok"]


def test_a_sensor_that_never_gave_a_value_is_not_online(bench: Bench) -> None:
    sensor = bench.add("climate", FakeDriver(reads=[CRC, CRC, GOOD]))
    assert bench.states(sensor, 3) == ["backoff", "backoff", "ok"]
    assert bench.online == [("climate", True)]


def test_an_absent_device_is_tried_again_with_a_growing_wait_and_found_when_it_comes(bench: Bench) -> None:
    sensor = bench.add("climate", FakeDriver(opens=[GONE] * 8))
    begin = bench.clock()
    times = []
    for _ in range(8):
        bench.clock.advance_to(sensor.due)
        sensor.run()
        assert sensor.state == State.ABSENT
        times.append(sensor.due - begin)
    assert times == [1, 3, 7, 15, 31, 61, 91, 121]
    assert bench.states(sensor, 1) == ["ok"]


def test_a_device_that_disappears_is_absent_at_once_and_waits_from_the_start_again(bench: Bench) -> None:
    sensor = bench.add("climate", FakeDriver(opens=[GONE, GONE], reads=[GOOD, GONE]))
    assert bench.states(sensor, 4) == ["absent", "absent", "ok", "absent"]
    assert sensor.due == bench.clock() + 1


def test_a_slow_open_waits_from_its_end(bench: Bench) -> None:
    def hang() -> None:
        bench.clock.advance(100)
        raise BUS

    sensor = bench.add("climate", FakeDriver(opens=[hang]))
    sensor.run()
    assert sensor.due == bench.clock() + 1


def test_a_driver_that_cannot_be_made_is_one_sensor_less_and_made_later(bench: Bench) -> None:
    makers: list[Exception | Driver] = [ArgumentError("device", "two have that name"), FakeDriver()]

    def make() -> Driver:
        found = makers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    sensor = bench.add("climate", make)
    assert bench.states(sensor, 2) == ["backoff", "ok"]


@pytest.mark.parametrize("readings", [(), BAD])
def test_a_sample_without_any_value_counts_as_a_failed_read(
    bench: Bench, readings: tuple[Reading, ...]
) -> None:
    sensor = bench.add("climate", FakeDriver(reads=[GOOD, readings]))
    assert bench.states(sensor, 2) == ["ok", "degraded"]
    published = [sample for _, sample in bench.samples]
    assert published == ([GOOD, BAD] if readings else [GOOD]), "bad quality is published, nothing is not"


def test_a_defect_in_a_driver_stays_in_its_sensor(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.add("broken", FakeDriver(reads=[KeyError("x")], opens=[]))
    bench.add("fine", FakeDriver())
    bench.worker().step()
    assert bench.samples == [("fine", GOOD)]
    assert caplog.messages == ["sensor broken: backoff: KeyError: 'x'; --log-level debug shows where"]


def test_each_change_of_state_is_one_line_and_a_failure_that_repeats_is_none(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "device_sdk.node")
    sensor = bench.add("climate", FakeDriver(opens=[GONE, GONE, GONE, BUS], reads=[GOOD, CRC, GOOD]))
    bench.states(sensor, 7)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "sensor climate: absent: nothing answers at 0x76"),
        ("WARNING", "sensor climate: backoff: no acknowledge"),
        ("INFO", "sensor climate: ok"),
        ("WARNING", "sensor climate: degraded: the CRC is wrong"),
        ("INFO", "sensor climate: ok"),
    ]


def test_a_slow_sensor_misses_its_own_ticks_and_delays_its_neighbour_without_bursts(bench: Bench) -> None:
    slow_reads: Sequence[object] = [GOOD, lambda: bench.clock.advance(3.5)]
    slow = bench.add("slow", FakeDriver(reads=slow_reads), interval=1)
    quick = bench.add("quick", FakeDriver(), interval=1)
    worker = bench.worker()
    worker.step()
    bench.samples.clear()
    bench.clock.advance(1)
    assert worker.step() == 0, "the tick that came while it was read is served late"
    worker.step()
    assert [name for name, _ in bench.samples] == ["slow", "quick", "slow"]
    assert (slow.schedule.missed, quick.schedule.missed) == (2, 3)
    assert worker.step() == 0.5, "nothing is made up for"


def test_a_closing_that_fails_is_logged_and_goes_no_further(
    bench: Bench, caplog: pytest.LogCaptureFixture, mocker: MockerFixture
) -> None:
    sensor = bench.add("climate", FakeDriver())
    sensor.run()
    mocker.patch.object(FakeDriver, "close", side_effect=OSError("gone"))
    sensor.close()
    assert caplog.messages == [
        "sensor climate: closing it failed: OSError: gone; --log-level debug shows where"
    ]


def test_a_sensor_that_comes_and_goes_has_few_lines_and_the_last_is_true(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "device_sdk.node")
    sensor = bench.add("climate", FakeDriver(reads=[GOOD, CRC] * 1_100), interval=1)
    bench.states(sensor, 2_200)
    lines = caplog.messages
    assert len(lines) < 10
    assert lines[:4] == [
        "sensor climate: ok",
        "sensor climate: degraded: the CRC is wrong",
        "sensor climate: ok",
        "sensor climate: degraded: the CRC is wrong (10 times in 18 s)",
    ]
    sensor.run()
    assert caplog.messages[-1].startswith("sensor climate: ok")
    sensor.end()
    assert caplog.messages[-1].startswith("sensor climate: degraded: the CRC is wrong (1,100 times in ")


def test_a_driver_whose_error_is_new_each_time_does_not_fill_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture, mocker: MockerFixture
) -> None:
    mocker.patch.object(FakeDriver, "close", side_effect=OSError("gone"))
    failures = [BusError(f"at {chr(97 + number % 20)} after {number} bytes: broken") for number in range(500)]
    sensor = bench.add("climate", FakeDriver(opens=failures))
    bench.states(sensor, 500)
    assert len(caplog.messages) < 100


# With threads


def test_a_hanging_sensor_leaves_the_other_buses_alone_and_the_worker_ends_with_its_drivers_closed() -> None:
    hangs, released, enough = threading.Event(), threading.Event(), threading.Event()
    samples: list[object] = []

    def hang() -> None:
        hangs.set()
        assert released.wait(10)

    def take(readings: object, _: float) -> None:
        samples.append(readings)
        if len(samples) == 3:
            enough.set()

    drivers = FakeDriver(reads=[hang]), FakeDriver()
    sensors = [
        Sensor(name, partial(_same, driver), Schedule(0.01, 0.0), on_readings=take, on_online=print)
        for name, driver in zip(("slow", "quick"), drivers, strict=True)
    ]
    slow, quick = Worker("i2c-1", sensors[:1]), Worker("host", sensors[1:])
    slow.start()
    assert hangs.wait(10)
    quick.start()
    assert enough.wait(10)
    slow.stop()
    quick.stop()
    assert quick.join(10)
    assert not slow.join(0.01)
    assert slow.is_alive
    released.set()
    assert slow.join(10)
    assert [driver.calls[-1] for driver in drivers] == ["close", "close"]
