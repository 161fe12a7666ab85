"""What shows that the kernel's clock is right."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest

from device_sdk.node.clock import evidence
from device_sdk.node.clock.evidence import (
    kernel_is_synchronised,
    rtc_has_set_the_clock,
    timesyncd_has_synchronised,
)


def kernel_says(monkeypatch: pytest.MonkeyPatch, result: int, status: int) -> None:
    def adjtimex(pointer: Any) -> int:
        state = pointer._obj
        assert state.modes == 0  # it is only asked
        state.status = status
        return result

    monkeypatch.setattr(evidence, "_adjtimex", lambda: adjtimex)


# adjtimex(2): the result TIME_ERROR is 5; STA_PLL 0x0001, STA_UNSYNC 0x0040, STA_NANO 0x2000.
@pytest.mark.parametrize(
    ("result", "status", "expected"),
    [
        (0, 0x2001, True),
        (1, 0x2001, True),  # TIME_INS: a leap second is coming
        (5, 0x0040, False),
        (0, 0x2041, False),
        (5, 0x2001, False),
        (-1, 0, True),  # forbidden: who runs us looks after the clock
    ],
)
def test_the_kernels_status(
    monkeypatch: pytest.MonkeyPatch, result: int, status: int, expected: bool
) -> None:
    kernel_says(monkeypatch, result, status)
    assert kernel_is_synchronised() is expected


def test_a_system_without_the_call_looks_after_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "_adjtimex", lambda: None)
    assert kernel_is_synchronised()


def test_this_kernel_is_asked_and_answers_as_its_own_library_does() -> None:
    class NtpTimeval(ctypes.Structure):
        _fields_ = [(name, ctypes.c_long) for name in ("sec", "usec", "maxerror", "esterror", "tai", "rest")]

    result = ctypes.CDLL(None).ntp_gettime(ctypes.byref(NtpTimeval()))
    assert kernel_is_synchronised() is (result != 5)


def test_the_structure_is_larger_than_the_kernels() -> None:
    assert ctypes.sizeof(evidence._Timex) >= 208


def test_the_file_of_timesyncd(tmp_path: Path) -> None:
    assert not timesyncd_has_synchronised(str(tmp_path / "synchronized"))
    (tmp_path / "synchronized").touch()
    assert timesyncd_has_synchronised(str(tmp_path / "synchronized"))


@pytest.mark.parametrize(("content", "expected"), [("1\n", True), ("0\n", False), ("", False), ("é", False)])
def test_an_rtc_has_set_the_clock_or_only_ticks(tmp_path: Path, content: str, expected: bool) -> None:
    for name, text in (("rtc0", "0\n"), ("rtc1", content)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hctosys").write_text(text, encoding="utf-8")
    (tmp_path / "rtc2").mkdir()
    assert rtc_has_set_the_clock(str(tmp_path)) is expected


def test_a_board_without_an_rtc(tmp_path: Path) -> None:
    assert not rtc_has_set_the_clock(str(tmp_path))
    assert not rtc_has_set_the_clock(str(tmp_path / "missing"))
    assert os.listdir(tmp_path) == []
