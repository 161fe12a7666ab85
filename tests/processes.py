"""Waiting for processes by event, not by sleeping."""

from __future__ import annotations

import os
import select
from pathlib import Path

__all__ = ["ended_within", "processes_with"]


def ended_within(pid: int, seconds: float) -> bool:
    """Tell whether that process is gone within the time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)


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
