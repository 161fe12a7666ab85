"""The plugin: options, the mark ``rig_needs``, and the fixtures.

pytest loads it wherever device_sdk is installed. Until one of its fixtures or options is used it does nothing
and imports nothing besides pytest; that is why the imports are inside the functions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from device_sdk_hil.broker import Broker
    from device_sdk_hil.dut import Dut
    from device_sdk_hil.rig import Rig
    from device_sdk_hil.sensor_bus import SensorBus
    from device_sdk_hil.serial_line import SerialLine
    from device_sdk_hil.timeline import Timeline

__all__: list[str] = []

# The rig itself never waits for ever; this limits the rest of a test.
_TEST_TIMEOUT_S = 120
_LONGEST_NAME = 200  # of a timeline's file; Linux has room for 255 bytes

_timelines = pytest.StashKey["Timeline"]()
_passed = pytest.StashKey[bool]()
_rig = pytest.StashKey["Rig"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the rig."""
    group = parser.getgroup("hil", "hardware in the loop (device_sdk)")
    group.addoption("--rig", metavar="FILE", help="rig file in TOML; default: a virtual rig")
    group.addoption(
        "--rig-require",
        metavar="NAME,...",
        default="",
        help="capabilities that the rig must have, or 'all': a test skipped for want of one fails",
    )
    group.addoption(
        "--hil-report",
        metavar="FOLDER",
        type=Path,
        help="where the timeline of each test goes; default: .hil in pytest's temporary folder",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and check the rig file if there is one, so that its faults are reported first."""
    config.addinivalue_line(
        "markers",
        "rig_needs(capability, ...): skip the test where the rig lacks one, such as serial_line.unplug",
    )
    if config.getoption("--rig") or config.getoption("--rig-require"):
        _load_rig(config)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Name the rig if one was chosen."""
    if _rig not in config.stash:
        return None
    return f"rig: {config.stash[_rig].name} ({config.getoption('--rig') or 'built in'})"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give tests on the rig a time limit if they have none."""
    if not config.pluginmanager.hasplugin("timeout"):
        return
    if config.getoption("timeout", None) is not None or config.getini("timeout"):
        return
    for item in items:
        if "hil_rig" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TEST_TIMEOUT_S))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose mark asks for more than the rig has, before any fixture is set up."""
    for mark in item.iter_markers("rig_needs"):
        _load_rig(item.config).require(*mark.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the outcome of the test, and show the end of its timeline if it failed."""
    report = yield
    timeline = item.stash.get(_timelines, None)
    if timeline is not None:
        if report.when == "call":
            item.stash[_passed] = report.passed
        if report.failed:
            report.sections.append((f"timeline {timeline.path}", timeline.last_events()))
    return report


@pytest.fixture(scope="session")
def hil_rig(pytestconfig: pytest.Config) -> Rig:
    """The rig: its name, its tables, ``require()`` and ``missing()`` for capabilities."""
    return _load_rig(pytestconfig)


@pytest.fixture
def timeline(
    hil_rig: Rig, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Timeline]:
    """The events of this test, in a file of its own. A fault without effect makes the test an error."""
    from device_sdk_hil.timeline import Timeline

    folder = request.config.getoption("--hil-report") or tmp_path_factory.getbasetemp() / ".hil"
    name = re.sub(r"[^\w.\[\]-]+", "-", request.node.nodeid, flags=re.ASCII)[-_LONGEST_NAME:]
    timeline = Timeline(folder / f"{name}.jsonl", hil_rig.patience)
    request.node.stash[_timelines] = timeline
    timeline.record("test", "begin", test=request.node.nodeid, rig=hil_rig.name)
    yield timeline
    idle = timeline.without_effect()
    timeline.record("test", "end", passed=request.node.stash.get(_passed, False))
    timeline.close()
    if idle and request.node.stash.get(_passed, False):
        faults = "\n  ".join(map(str, idle))
        pytest.fail(f"fault not effective, so the test proves nothing:\n  {faults}", pytrace=False)


@pytest.fixture
def broker(hil_rig: Rig, timeline: Timeline) -> Iterator[Broker]:
    """A broker, and a listener that receives everything there from now on."""
    hil_rig.require("broker")
    from contextlib import ExitStack

    from device_sdk.testing.broker_process import find_broker
    from device_sdk_hil.broker import Broker
    from device_sdk_hil.rig import UrlBrokerTable

    table = hil_rig.broker
    assert table is not None
    with ExitStack() as stack:
        if isinstance(table, UrlBrokerTable):
            url = table.url
        else:
            url = stack.enter_context(find_broker(table.program)).url()
        broker = Broker(url, timeline, table.watch)
        stack.callback(broker.stop)
        broker.start()
        yield broker


@pytest.fixture
def serial_line(hil_rig: Rig, timeline: Timeline, broker: Broker) -> Iterator[SerialLine]:
    """A serial line that leads to the broker."""
    hil_rig.require("serial_line")
    from device_sdk_hil.rig import PtyTable
    from device_sdk_hil.serial_line import RealSerialLine, VirtualSerialLine

    table = hil_rig.serial_line
    assert table is not None
    line: SerialLine
    if isinstance(table, PtyTable):
        line = VirtualSerialLine(hil_rig, timeline, broker.url)
    else:
        line = RealSerialLine(hil_rig, timeline, table)
    yield line
    line.stop()


@pytest.fixture
def sensor_bus(hil_rig: Rig, timeline: Timeline) -> Iterator[SensorBus]:
    """An I2C bus with the chips of the rig."""
    hil_rig.require("sensor_bus")
    from device_sdk_hil.sensor_bus import SensorBus

    table = hil_rig.sensor_bus
    assert table is not None
    bus = SensorBus(hil_rig, timeline, table)
    yield bus
    bus.stop()


@pytest.fixture
def dut(timeline: Timeline, tmp_path: Path) -> Iterator[Dut]:
    """The device under test: a process that ends with the test."""
    from device_sdk_hil.dut import Dut

    dut = Dut(tmp_path, timeline)
    yield dut
    dut.kill()


def _load_rig(config: pytest.Config) -> Rig:
    """Return the rig of this run. Raises: pytest.UsageError: with every fault of its file."""
    if _rig not in config.stash:
        from device_sdk.errors import ConfigError, MissingDependency

        try:
            from device_sdk_hil.rig import CAPABILITIES, VIRTUAL_RIG, load_rig, unknown_capability
        except MissingDependency as error:
            raise pytest.UsageError(
                f"{error}; everything that the rig needs: pip install '.[hil,serial]' in the checkout"
            ) from None
        required = {name.strip() for name in config.getoption("--rig-require").split(",") if name.strip()}
        if required == {"all"}:
            required = set(CAPABILITIES)
        for name in sorted(required - CAPABILITIES.keys()):
            raise pytest.UsageError(f"--rig-require: {unknown_capability(name)}")
        try:
            config.stash[_rig] = load_rig(config.getoption("--rig") or VIRTUAL_RIG, required)
        except ConfigError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[_rig]
