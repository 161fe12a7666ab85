"""Waiting for processes by event, not by sleeping."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from pathlib import Path

import pytest

EndedWithin = Callable[[int, float], bool]


@pytest.fixture
def ended_within() -> EndedWithin:
    """Return a function ``(pid, seconds)`` that tells whether that process is gone within the time."""

    def ended(pid: int, seconds: float) -> bool:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([fd], [], [], seconds)[0])
        finally:
            os.close(fd)

    return ended


def processes_with(marker: str) -> list[int]:
    """Return the living processes that have ``marker`` in their environment, this one excepted."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            environment = (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if marker.encode() in environment and state != "Z":
            found.append(int(folder.name))
    return found


@pytest.fixture
def marked_processes() -> Callable[[str], list[int]]:
    """Return :func:`processes_with`."""
    return processes_with
