"""The clock that goes on in suspend, and systems that have none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from device_sdk import _clock


def test_it_is_the_clock_of_the_kernel_that_counts_suspend() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= _clock.boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_without_such_a_clock_it_is_monotonic_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    assert _clock._clock() is time.monotonic


def test_a_clock_that_may_not_be_read_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: int) -> float:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(time, "clock_gettime", forbidden)
    assert _clock._clock() is time.monotonic


@pytest.mark.parametrize(("slept", "ahead"), [(0.0, 0.0), (0.0005, 0.0), (3600.0, 3600.0), (-50.0, -50.0)])
def test_how_far_it_is_ahead_is_told_without_the_noise_of_two_readings(
    monkeypatch: pytest.MonkeyPatch, slept: float, ahead: float
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(_clock, "boottime", lambda: 100.0 + slept)
    assert _clock.ahead() == ahead


def test_the_identifier_of_the_start_is_the_kernels() -> None:
    assert _clock.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_without_one_of_the_kernel_two_processes_never_share_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_clock, "_BOOT_ID", "/nowhere/boot_id")
    ours, theirs = (_clock.boot_id.__wrapped__() for _ in range(2))
    assert ours
    assert ours != theirs
