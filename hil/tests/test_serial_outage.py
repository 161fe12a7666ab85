"""A node on a line that goes away and comes back: nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_sdk_hil.dut import with_values

if TYPE_CHECKING:
    from device_sdk_hil.broker import Broker
    from device_sdk_hil.dut import Dut
    from device_sdk_hil.sensor_bus import SensorBus
    from device_sdk_hil.serial_line import SerialLine

pytestmark = pytest.mark.rig_needs("sensor_bus.bme280")

CONFIG = """\
[node]
id = "hil-node"

[broker]
url = "mqtt://127.0.0.1"
reconnect_longest = "1s"

[clock]
wait = 0

[[sensor]]
name = "climate"
driver = "bme280"
bus = "i2c-1"
interval = "200ms"

[[sensor]]
name = "machine"
driver = "host"
interval = "50ms"
"""
SENSORS = ("hil-node/climate", "hil-node/machine")


def assert_nothing_is_lost(broker: Broker, dut: Dut) -> None:
    """Stop the node, which then has delivered everything, and look for gaps. Duplicates are QoS 1's right."""
    assert dut.stop() == 0
    broker.settle()
    for topic in SENSORS:
        sequence = broker.sequence(topic)
        assert sequence.received > 5
        assert sequence.missing == []
        assert sequence.in_order
    assert broker.last("hil-node/status") == b"offline"


@pytest.mark.rig_needs("serial_line.unplug")
def test_a_serial_line_that_is_unplugged_twice_loses_nothing(
    broker: Broker, serial_line: SerialLine, sensor_bus: SensorBus, dut: Dut
) -> None:
    dut.run_node(with_values(CONFIG, url=serial_line.url, bus=sensor_bus.name))
    for _ in range(2):
        for topic in SENSORS:
            broker.wait_for_samples(topic, 5)
        with serial_line.unplugged():
            dut.wait_for_log("disconnected")
            dut.wait_for_log("connect_failed")
        broker.wait_for_samples("hil-node/machine", 5)
    assert_nothing_is_lost(broker, dut)


@pytest.mark.rig_needs("serial_line.throttle")
def test_a_line_slower_than_the_sensors_for_a_while_loses_nothing(
    broker: Broker, serial_line: SerialLine, sensor_bus: SensorBus, dut: Dut
) -> None:
    dut.run_node(with_values(CONFIG, url=serial_line.url, bus=sensor_bus.name))
    broker.wait_for_samples("hil-node/machine", 5)
    serial_line.throttle(2_000)
    broker.wait_for_samples("hil-node/machine", 5)
    serial_line.throttle(None)
    broker.wait_for_samples("hil-node/machine", 20)
    assert_nothing_is_lost(broker, dut)


@pytest.mark.rig_needs("broker")
def test_the_same_node_runs_over_tcp_with_one_line_changed(
    broker: Broker, sensor_bus: SensorBus, dut: Dut
) -> None:
    dut.run_node(with_values(CONFIG, url=broker.url, bus=sensor_bus.name))
    for topic in SENSORS:
        broker.wait_for_samples(topic, 8)
    assert_nothing_is_lost(broker, dut)
