"""Each program of docs/drivers.md and docs/circuitpython.md runs as it stands there, on doubles."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from device_sdk.testing import ManualClock
from device_sdk.testing.fake_i2c import FakeI2CBus
from device_sdk.testing.fake_sht4x import FakeSHT4x
from tests.drivers.chips.sensirion import FakeSCD41
from tests.pages.page import blocks
from tests.pages.test_circuitpython import let_time_pass_by

PROGRAMS = [
    pytest.param(text, id=f"{page}-{heading}-{number}")
    for page in ("drivers.md", "circuitpython.md")
    for number, (heading, language, text) in enumerate(blocks(page))
    if language == "python"
]


@pytest.fixture
def buses(monkeypatch: pytest.MonkeyPatch) -> FakeI2CBus:
    """The bus of the programs: ``buses.bus``."""
    clock = ManualClock()
    bus = FakeI2CBus("i2c-1")
    bus.add(0x44, FakeSHT4x())
    bus.add(0x62, FakeSCD41(clock))
    module = ModuleType("buses")
    module.bus = bus  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "buses", module)
    for name in ("adafruit_scd4x", "adafruit_sht4x"):
        pytest.importorskip(name, reason="needs blinka")
    let_time_pass_by(clock, monkeypatch)
    return bus


@pytest.mark.parametrize("text", PROGRAMS)
def test_a_program_of_the_page_runs(text: str, buses: FakeI2CBus, capsys: pytest.CaptureFixture[str]) -> None:
    program = text.replace('bus="i2c-1"', 'bus="fake:buses:bus"').replace("with LinuxI2C(1)", "with fake")
    names: dict[str, object] = {"__name__": "__main__", "fake": buses}
    exec(compile(program, "a program of the page", "exec"), names)
    shown = capsys.readouterr().out
    assert "print" in text
    # A machine without buses and sensors of the kernel has nothing to show for two of them.
    assert shown or "list_buses" in text or "discover" in text


def test_there_are_programs() -> None:
    assert len(PROGRAMS) >= 7
