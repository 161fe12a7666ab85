"""A fake bus within reach of another process, and what a test can do to its chips."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk.drivers import open_driver
from device_sdk.drivers.bus import close_bus, open_bus
from device_sdk.errors import ArgumentError, BusError, ChecksumError, DeviceNotFoundError
from device_sdk_hil.dut import Dut
from device_sdk_hil.rig import FakeBusTable, Rig
from device_sdk_hil.sensor_bus import SensorBus
from device_sdk_hil.timeline import Timeline


@pytest.fixture
def bus(rig: Rig, events: Timeline) -> Iterator[SensorBus]:
    assert isinstance(rig.sensor_bus, FakeBusTable)
    bus = SensorBus(rig, events, rig.sensor_bus)
    yield bus
    bus.stop()


def value(bus: SensorBus, chip: str, channel: str) -> float:
    with open_driver(chip, bus=bus.name, address=bus.address(chip)) as sensor:
        return next(float(r.value or 0) for r in sensor.read() if r.channel == channel)


def test_the_drivers_read_the_chips_by_the_name_of_the_bus(bus: SensorBus) -> None:
    bus.set_values("bme280", temperature=31.5)
    bus.set_values("sht4x", humidity=12.0)
    assert value(bus, "bme280", "temperature") == pytest.approx(31.5, abs=0.02)
    assert value(bus, "sht4x", "humidity") == pytest.approx(12.0, abs=0.02)


def test_another_process_reads_them_as_well(bus: SensorBus, tmp_path: Path, events: Timeline) -> None:
    dut = Dut(tmp_path, events)
    scan = f"from device_sdk.drivers.bus import open_bus; print(open_bus({bus.name!r}).scan())"
    dut.run(sys.executable, "-c", scan)
    assert dut.wait_for_log(r"\[") == str([0x44, 0x76])
    dut.kill()


def test_a_value_that_a_chip_does_not_measure_is_an_error(bus: SensorBus) -> None:
    with pytest.raises(AttributeError, match="pressure"):
        bus.set_values("sht4x", pressure=1.0)


def test_an_unplugged_chip_does_not_answer_until_it_is_back(bus: SensorBus) -> None:
    with bus.unplugged("bme280") as fault:
        with pytest.raises(DeviceNotFoundError):
            value(bus, "bme280", "temperature")
        assert value(bus, "sht4x", "temperature") == pytest.approx(20, abs=0.02)
    assert value(bus, "bme280", "temperature") == pytest.approx(20, abs=0.02)
    assert fault.conclude()


def test_a_blocked_bus_times_out_for_everybody(bus: SensorBus) -> None:
    remote = open_bus(bus.name)
    fault = bus.stuck()
    for address in (0x44, 0x76):
        with pytest.raises(BusError) as caught:
            remote.transfer(address, b"", None)
        assert caught.value.errno == errno.ETIMEDOUT
    bus.release()
    remote.transfer(0x76, b"", None)
    close_bus(remote)
    assert fault.conclude()


def test_a_wrong_checksum_arrives(bus: SensorBus) -> None:
    with open_driver("sht4x", bus=bus.name, address=bus.address("sht4x")) as sensor:
        fault = bus.corrupt_crc()
        with pytest.raises(ChecksumError):
            sensor.read()
        sensor.read()
    assert fault.conclude()


@pytest.mark.parametrize("fault", ["unplug", "nack", "stuck", "corrupt_crc"])
def test_a_fault_without_a_transaction_has_no_effect(bus: SensorBus, events: Timeline, fault: str) -> None:
    value(bus, "sht4x", "humidity")
    arguments = {"unplug": ["bme280"], "nack": ["bme280"]}.get(fault, [])
    getattr(bus, fault)(*arguments)
    assert [found.event.kind for found in events.without_effect()] == [fault.removeprefix("corrupt_")]


def test_a_rig_that_has_ended_is_an_adapter_that_was_pulled_out(bus: SensorBus) -> None:
    remote = open_bus(bus.name)
    remote.transfer(0x76, b"", None)
    bus.stop()
    for _ in range(2):  # on the old connection, and on the attempt to make a new one
        with pytest.raises(BusError) as caught:
            remote.transfer(0x76, b"", None)
        assert caught.value.errno == errno.ENODEV
    close_bus(remote)


def test_a_bus_that_nobody_has_made_is_none() -> None:
    with pytest.raises(ArgumentError):
        open_bus("fake:device_sdk_hil.remote_bus:bus_of_mine")
