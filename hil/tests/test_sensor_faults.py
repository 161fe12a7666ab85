"""A chip that is pulled out, does not answer or sends nonsense: its readings stop, all others go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_sdk_hil.dut import with_values

if TYPE_CHECKING:
    from device_sdk_hil.broker import Broker
    from device_sdk_hil.dut import Dut
    from device_sdk_hil.sensor_bus import SensorBus

pytestmark = pytest.mark.rig_needs("broker", "sensor_bus.bme280", "sensor_bus.sht4x")

CONFIG = """\
[node]
id = "hil-node"

[broker]
url = "mqtt://127.0.0.1"

[clock]
wait = 0

[[sensor]]
name = "climate"
driver = "bme280"
bus = "i2c-1"
interval = "100ms"

[[sensor]]
name = "cabinet"
driver = "sht4x"
bus = "i2c-1"
interval = "100ms"
"""
CLIMATE, CABINET = "hil-node/climate", "hil-node/cabinet"


@pytest.fixture
def node(broker: Broker, sensor_bus: SensorBus, dut: Dut) -> Dut:
    """A node with both sensors, which work."""
    dut.run_node(with_values(CONFIG, url=broker.url, bus=sensor_bus.name))
    for topic in (CLIMATE, CABINET):
        broker.wait_for_samples(topic, 2)
    return dut


@pytest.mark.rig_needs("sensor_bus.set")
@pytest.mark.usefixtures("node")
def test_what_the_chip_measures_is_what_arrives(broker: Broker, sensor_bus: SensorBus) -> None:
    sensor_bus.set_values("bme280", temperature=31.25)
    broker.wait_until(
        lambda: abs(broker.samples(CLIMATE)[-1]["readings"]["temperature"]["value"] - 31.25) < 0.02
    )


@pytest.mark.rig_needs("sensor_bus.unplug")
@pytest.mark.usefixtures("node")
def test_a_chip_that_is_pulled_out_goes_offline_and_comes_back(broker: Broker, sensor_bus: SensorBus) -> None:
    said_before = len(broker.arrivals(f"{CABINET}/status"))
    with sensor_bus.unplugged("bme280"):
        broker.wait_until(lambda: broker.last(f"{CLIMATE}/status") == b"offline")
        broker.wait_for_samples(CABINET, 5)
    broker.wait_until(lambda: broker.last(f"{CLIMATE}/status") == b"online")
    broker.wait_for_samples(CLIMATE, 2)
    assert len(broker.arrivals(f"{CABINET}/status")) == said_before


@pytest.mark.rig_needs("sensor_bus.crc")
def test_a_wrong_checksum_is_no_sample_and_nothing_else_suffers(
    broker: Broker, sensor_bus: SensorBus, node: Dut
) -> None:
    sensor_bus.corrupt_crc(2)
    node.wait_for_log("sensor cabinet: degraded: .*(CRC|checksum)")
    node.wait_for_log("sensor cabinet: ok")
    broker.wait_for_samples(CABINET, 2)
    assert node.stop() == 0
    broker.settle()
    assert broker.sequence(CLIMATE).missing == []
    assert broker.sequence(CABINET).missing == []


@pytest.mark.rig_needs("sensor_bus.stuck")
def test_a_blocked_bus_takes_its_sensors_offline_until_it_is_free(
    broker: Broker, sensor_bus: SensorBus, node: Dut
) -> None:
    sensor_bus.stuck()
    broker.wait_until(
        lambda: {broker.last(f"{topic}/status") for topic in (CLIMATE, CABINET)} == {b"offline"}
    )
    sensor_bus.release()
    broker.wait_until(lambda: {broker.last(f"{topic}/status") for topic in (CLIMATE, CABINET)} == {b"online"})
    assert node.stop() == 0
