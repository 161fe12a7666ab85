"""The examples for boards, as they are but for addresses and intervals, on this rig."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_sdk import Client
from device_sdk_hil.dut import with_values

if TYPE_CHECKING:
    from device_sdk_hil.broker import Broker
    from device_sdk_hil.dut import Dut
    from device_sdk_hil.sensor_bus import SensorBus
    from device_sdk_hil.serial_line import SerialLine
    from device_sdk_hil.timeline import Timeline

EXAMPLES = Path(__file__).resolve().parents[2] / "firmware_examples"


@pytest.mark.rig_needs("broker", "sensor_bus.bme280")
def test_the_environment_node_publishes_its_climate_and_its_board(
    broker: Broker, sensor_bus: SensorBus, dut: Dut
) -> None:
    config = (EXAMPLES / "environment_node" / "node.toml").read_text(encoding="utf-8")
    config += "\n[clock]\nwait = 0\n"  # the machine of the rig may have no NTP
    dut.run_node(with_values(config, url=broker.url, bus=sensor_bus.name, interval="100ms"))
    for topic in ("environment-1/climate", "environment-1/board"):
        broker.wait_for_samples(topic, 5)
    climate = broker.samples("environment-1/climate")[-1]["readings"]
    assert {name: reading["unit"] for name, reading in climate.items()} == {
        "temperature": "Cel", "humidity": "%RH", "pressure": "Pa",
    }  # fmt: skip
    assert broker.last("environment-1/climate/status") == b"online"
    assert dut.stop() == 0
    broker.settle()
    assert broker.sequence("environment-1/climate").missing == []
    assert broker.last("environment-1/status") == b"offline"


@pytest.fixture
def serial_node(serial_line: SerialLine, broker: Broker, dut: Dut) -> Dut:
    """The serial node with a sample every 50 ms, an interval set over the line."""
    dut.run_python(EXAMPLES / "serial_node" / "serial_node.py", serial_line.url)
    broker.wait_until(lambda: broker.last("serial-1/status") == b"online")
    with Client(broker.url) as client:
        client.publish("serial-1/interval", b"0.05", qos=1).wait(20)
    dut.wait_for_log("a sample every 0.05 s")
    return dut


@pytest.mark.rig_needs("serial_line.unplug")
def test_the_serial_node_loses_nothing_while_its_line_is_unplugged(
    broker: Broker, serial_line: SerialLine, serial_node: Dut, timeline: Timeline
) -> None:
    broker.wait_for_samples("serial-1/board", 5)
    with serial_line.unplugged():
        broker.wait_until(lambda: broker.last("serial-1/status") == b"offline", "the will of the node")
        serial_node.wait_for_log("connect_failed")
    broker.wait_until(lambda: broker.last("serial-1/status") == b"online")
    broker.wait_for_samples("serial-1/board", 5)
    timeline.mark("the line was away and is back")
    assert serial_node.stop() == 0
    broker.settle()
    sequence = broker.sequence("serial-1/board")
    assert sequence.received > 10
    assert sequence.missing == []
    assert sequence.in_order
    assert broker.last("serial-1/status") == b"offline"


@pytest.mark.rig_needs("serial_line")
def test_the_serial_node_does_not_take_nonsense_for_an_interval(broker: Broker, serial_node: Dut) -> None:
    with Client(broker.url) as client:
        for payload in (b"fast", b"nan", b"-1", b"\xff"):
            client.publish("serial-1/interval", payload, qos=1).wait(20)
            serial_node.wait_for_log("no interval from 0.01 to 3600")
    broker.wait_for_samples("serial-1/board", 5)
    assert serial_node.stop() == 0


@pytest.mark.rig_needs("broker")
def test_the_serial_node_killed_is_offline_and_starts_again(broker: Broker, serial_node: Dut) -> None:
    serial_node.kill()
    broker.wait_until(lambda: broker.last("serial-1/status") == b"offline", "the will of the node")
    serial_node.run_again()
    broker.wait_until(lambda: broker.last("serial-1/status") == b"online")
    assert serial_node.stop() == 0


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_the_serial_node_without_a_line_explains_itself(dut: Dut, arguments: list[str]) -> None:
    dut.run_python(EXAMPLES / "serial_node" / "serial_node.py", *arguments)
    assert dut.wait() == 2
    assert dut.log[0].startswith("usage: serial_node.py [-h] url")
