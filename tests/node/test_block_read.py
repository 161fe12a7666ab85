"""A chip that disappears in the middle of a read, at each transfer of it: one line, and the rest goes on."""

from __future__ import annotations

import errno
import logging

import pytest

from device_sdk.drivers import Driver, Reading
from device_sdk.drivers.base import driver_class
from device_sdk.node.schedule import Schedule
from device_sdk.node.sensor import Sensor
from device_sdk.node.worker import Worker
from device_sdk.testing import ManualClock
from device_sdk.testing.fake_bme280 import FakeBME280
from device_sdk.testing.fake_i2c import FakeI2CBus
from device_sdk.testing.fake_sht4x import FakeSHT4x

pytest.importorskip("adafruit_bme280", reason="needs adafruit-circuitpython-bme280")
pytest.importorskip("adafruit_sht4x", reason="needs adafruit-circuitpython-sht4x")

CLIMATE, CABINET = 0x76, 0x44


class FragileBus(FakeI2CBus):
    """Its BME280 is pulled out after so many transfers, or fails with this errno in the next one."""

    def __init__(self) -> None:
        super().__init__("/dev/i2c-1")
        self.add(CLIMATE, FakeBME280(temperature=21.5))
        self.add(CABINET, FakeSHT4x())
        self.left: int | None = None
        self.code = 0

    def transfer(self, address: int, write: bytes | None, read_count: int | None) -> bytes:
        """Count a transfer of the BME280."""
        if address == CLIMATE and self.left is not None:
            if self.left == 0 and self.code:
                self.stuck(self.code)
            elif self.left == 0:
                self.unplug(CLIMATE)
            self.left -= 1
        try:
            return super().transfer(address, write, read_count)
        finally:
            self.release()


class Bench:
    def __init__(self) -> None:
        self.bus, self.clock = FragileBus(), ManualClock()
        self.samples: dict[str, int] = {"climate": 0, "cabinet": 0}
        sensors = [self._sensor("climate", "bme280"), self._sensor("cabinet", "sht4x")]
        self.climate, self.cabinet = sensors
        self.worker = Worker("i2c-1", sensors, clock=self.clock)

    def _sensor(self, name: str, kind: str) -> Sensor:
        def make() -> Driver:
            return driver_class(kind)(bus=self.bus)  # type: ignore[call-arg]

        def take(_readings: tuple[Reading, ...], _uptime: float) -> None:
            self.samples[name] += 1

        schedule = Schedule(10, self.clock(), phase=10)
        return Sensor(name, make, schedule, on_readings=take, on_online=lambda _: None, clock=self.clock)

    def tick(self) -> None:
        self.clock.advance(10)
        self.worker.step()


def transfers_of_a_read() -> int:
    bench = Bench()
    bench.worker.step()
    before = len(bench.bus.history)
    bench.tick()
    return sum(each.address == CLIMATE for each in list(bench.bus.history)[before:])


@pytest.mark.parametrize(
    ("place", "code"),
    [
        (0.0, 0),
        (0.5, 0),
        (1.0, 0),
        (0.5, errno.ETIMEDOUT),
        (0.5, errno.EIO),
        (1.0, errno.ENODEV),
    ],
    ids=lambda value: errno.errorcode.get(value, "unplugged") if isinstance(value, int) else f"{value:.0%}",
)
def test_a_chip_that_disappears_in_a_read_costs_one_line_that_says_where_and_what_to_do(
    place: float, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    count = transfers_of_a_read()
    assert count > 3
    bench = Bench()
    bench.worker.step()
    assert bench.samples == {"climate": 1, "cabinet": 1}
    bench.bus.left = round(place * (count - 1))
    bench.bus.code = code
    caplog.set_level(logging.WARNING)
    bench.tick()
    assert bench.samples == {"climate": 1, "cabinet": 2}
    (line,) = caplog.messages
    assert line.startswith("sensor climate: ")
    for words in ("0x76", "i2c-1"):
        assert words in line
    assert any(advice in line for advice in ("check the wiring", "pull-up resistor", "plugged in"))
    bench.bus.left = None
    bench.bus.plug(CLIMATE)
    for _ in range(2):
        bench.tick()
    assert bench.samples == {"climate": 3, "cabinet": 4}
