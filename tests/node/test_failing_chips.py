"""Chips that fail beside one that works, on one bus: a message that leads on, and the other goes on."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial

import pytest

from device_sdk.drivers import Reading, make_driver
from device_sdk.node.schedule import Schedule
from device_sdk.node.sensor import Sensor
from device_sdk.node.worker import Worker
from device_sdk.testing import ManualClock
from device_sdk.testing.fake_i2c import FakeI2CBus
from tests.drivers.chips.light import FakeVEML7700
from tests.drivers.chips.others import FakeAHT20, FakeLPS22HB
from tests.pages.test_circuitpython import let_time_pass_by

AIR = {"driver": "adafruit_ahtx0:AHTx0", "channels": ["temperature"]}
LIGHT = {"driver": "adafruit_veml7700:VEML7700", "channels": ["lux"], "watch": ["light_shutdown"]}
PRESSURE = {"driver": "adafruit_lps2x:LPS22"}
FAULTS: dict[str, tuple[Callable[[FakeI2CBus], None], str]] = {
    "vanishes in the middle of a read": (
        lambda bus: bus.cut(0x38, 3),
        r"adafruit_ahtx0:AHTx0 on i2c-1 at 0x38: 0x38 stopped to answer .*: check its plug",
    ),
    "is unplugged": (
        lambda bus: bus.unplug(0x38),
        r"nothing answers at 0x38 on i2c-1: check the wiring and the address",
    ),
    "restarts": (
        lambda bus: bus.plug(0x10),  # it begins with its power-on state
        r"adafruit_veml7700:VEML7700 on i2c-1 at 0x10: the chip has restarted, .*; check its supply",
    ),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_chip_that_fails_costs_a_message_that_leads_on_and_no_other_sensor(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in ("adafruit_ahtx0", "adafruit_veml7700", "adafruit_lps2x"):
        pytest.importorskip(module, reason="needs blinka")
    clock = ManualClock()
    let_time_pass_by(ManualClock(), monkeypatch)
    bus = FakeI2CBus("i2c-1")
    bus.add(0x38, FakeAHT20(0x80000, 0x60000))
    bus.add(0x10, FakeVEML7700(100.8))
    bus.add(0x5D, FakeLPS22HB())
    samples: list[tuple[str, tuple[Reading, ...]]] = []
    sensors = [
        Sensor(
            each,
            partial(make_driver, "circuitpython", {**options, "bus": bus}),
            Schedule(10, clock()),
            on_readings=partial(lambda who, readings, _: samples.append((who, readings)), each),
            on_online=lambda online: None,
            clock=clock,
        )
        for each, options in (("air", AIR), ("light", LIGHT), ("pressure", PRESSURE))
    ]
    worker = Worker("i2c-1", sensors, clock=clock)
    worker.step()
    assert len(samples) == 3
    caplog.clear()
    caplog.set_level(logging.WARNING)
    fault, words = FAULTS[name]
    fault(bus)
    samples.clear()
    for _ in range(4):
        clock.advance(10)
        worker.step()
    assert [who for who, _ in samples].count("pressure") == 4
    assert {reading.quality for _, readings in samples for reading in readings} == {"good"}
    told = caplog.messages
    sensor = "light" if name == "restarts" else "air"
    assert told[0].startswith(f"sensor {sensor}: degraded: ")
    assert re.search(words, told[0])
    assert all(line.startswith(f"sensor {sensor}: ") for line in told)
    assert len(set(told)) == len(told) <= 4, "one for each change"
