"""The serial line: when its faults count, and a real port whose adapter commands can cut off."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_sdk import Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk_hil.rig import PortTable, Rig
from device_sdk_hil.serial_line import RealSerialLine, VirtualSerialLine
from device_sdk_hil.timeline import Timeline

PATIENCE_S = 20.0


@pytest.fixture
def server() -> Iterator[BrokerServer[ModelBroker]]:
    with BrokerServer(ModelBroker()) as server:
        yield server


@pytest.fixture
def line(rig: Rig, events: Timeline, server: BrokerServer[ModelBroker]) -> Iterator[VirtualSerialLine]:
    line = VirtualSerialLine(rig, events, server.url)
    yield line
    line.stop()


@pytest.fixture
def client(line: VirtualSerialLine) -> Iterator[Client]:
    with Client(line.url, reconnect=ReconnectPolicy(first=0.02, longest=0.1)) as client:
        client.publish("x", qos=1).wait(PATIENCE_S)
        yield client


def test_unplugging_a_connected_device_that_comes_back_counts(
    line: VirtualSerialLine, client: Client
) -> None:
    with line.unplugged() as fault:
        assert not os.path.exists(line.url.removeprefix("serial://").partition("?")[0])
    client.publish("x", qos=1).wait(PATIENCE_S)
    assert fault.conclude()


def test_unplugging_a_line_that_nobody_uses_does_not_count(line: VirtualSerialLine, events: Timeline) -> None:
    with line.unplugged() as fault:
        pass
    assert events.without_effect() == [fault]


@pytest.mark.parametrize(
    "disturb",
    [lambda line, on: line.throttle(50_000 if on else None), lambda line, on: line.noise(0.01 * on)],
    ids=["throttle", "noise"],
)
@pytest.mark.parametrize("used", [True, False])
def test_a_disturbance_counts_if_the_line_was_used_while_it_lasted(
    line: VirtualSerialLine, server: BrokerServer[ModelBroker], client: Client, events: Timeline,
    disturb: Callable[[VirtualSerialLine, bool], None], used: bool,
) -> None:  # fmt: skip
    before = line.bytes_carried
    disturb(line, True)
    if used:
        client.publish("x", bytes(100), qos=1)
        server.wait_for(lambda: line.bytes_carried >= before + 100, PATIENCE_S)
    disturb(line, False)
    client.publish("x", bytes(100), qos=1)
    server.wait_for(lambda: line.bytes_carried >= before + 100, PATIENCE_S)
    assert len(events.without_effect()) == (not used)


@pytest.fixture
def port(tmp_path: Path) -> PortTable:
    """A "port" that is unplugged by giving it another name."""
    path, away = tmp_path / "ttyX", tmp_path / "away"
    path.touch()
    return PortTable(
        driver="port",
        url=f"serial://{path}",
        unplug=["mv", str(path), str(away)],
        plug=["mv", str(away), str(path)],
    )


def test_a_real_port_is_unplugged_by_the_commands_of_the_rig(
    rig: Rig, events: Timeline, port: PortTable
) -> None:
    rig.serial_line = port
    line = RealSerialLine(rig, events, port)
    with line.unplugged() as fault:
        assert not os.path.exists(port.path)
    assert os.path.exists(port.path)
    assert fault.conclude()


def test_a_real_port_left_unplugged_is_put_back_at_the_end(
    rig: Rig, events: Timeline, port: PortTable
) -> None:
    rig.serial_line = port
    line = RealSerialLine(rig, events, port)
    line.unplug()
    line.stop()
    assert os.path.exists(port.path)


def test_a_command_that_unplugs_nothing_is_a_fault_without_effect(
    rig: Rig, events: Timeline, port: PortTable
) -> None:
    rig.patience = 0.1
    rig.serial_line = PortTable(driver="port", url=port.url, unplug=["true"], plug=["true"])
    line = RealSerialLine(rig, events, rig.serial_line)
    with line.unplugged() as fault:
        pass
    assert events.without_effect() == [fault]


def test_a_command_that_fails_is_shown(rig: Rig, events: Timeline, port: PortTable) -> None:
    rig.serial_line = PortTable(driver="port", url=port.url, unplug=["ls", "/nowhere"], plug=["true"])
    line = RealSerialLine(rig, events, rig.serial_line)
    with pytest.raises(RuntimeError, match=r"(?s)failed with status 2: .*/nowhere"):
        line.unplug()
