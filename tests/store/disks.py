"""Small file systems of our own, for disks that are full, take no writes, or hang. They need root."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.torture.crash_disk import mounted, what_is_missing

__all__ = ["HangingDisk", "fill", "hanging", "read_only", "small_ext4", "small_tmpfs"]

ROOT = Path(__file__).resolve().parent.parent.parent
_DEADLINE_S = 20.0


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_DEADLINE_S)


@contextmanager
def small_tmpfs(folder: Path) -> Iterator[Path]:
    """A tmpfs of 6 MiB."""
    where = folder / "tmpfs"
    where.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(where)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("needs mount")
    try:
        yield where
    finally:
        _run("umount", "-l", str(where))


@contextmanager
def small_ext4(folder: Path, block: int) -> Iterator[Path]:
    """An ext4 of 8 MiB with blocks of this size, none of them kept for root."""
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("needs loop devices")
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    image = folder / f"ext4-{block}.img"
    image.write_bytes(bytes(8 << 20))
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(block), "-O", "^has_journal", str(image))
    with mounted(image, folder / f"ext4-{block}") as where:
        yield where


def fill(where: Path, *, leave: int = 0) -> Path:
    """Write a file until the disk is full, but for some bytes; return it."""
    filler = where / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (65536, 1024, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass
        file.truncate(max(0, file.tell() - leave))
        os.fsync(file.fileno())
    return filler


@contextmanager
def read_only(where: Path) -> Iterator[None]:
    """Let a mounted file system take no writes for a while."""
    _run("mount", "-o", "remount,ro", str(where))
    try:
        yield
    finally:
        _run("mount", "-o", "remount,rw", str(where))


class HangingDisk:
    """A file system that answers until :meth:`hang` or :meth:`fail`, and again from :meth:`answer` on."""

    def __init__(self, where: Path, gate: IO[bytes]) -> None:
        self.where = where
        self._gate = gate

    def hang(self) -> None:
        """Let every request wait from now on."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)

    def fail(self, which: str) -> None:
        """Let requests end with an I/O error: ``all``, or those that make or change something: ``writes``."""
        self._gate.write(which.encode())
        self._gate.flush()

    def answer(self) -> None:
        """Let the requests go on."""
        self._gate.seek(0)
        self._gate.truncate()
        fcntl.flock(self._gate, fcntl.LOCK_UN)


@contextmanager
def hanging(folder: Path) -> Iterator[HangingDisk]:
    """Mount a disk that can be made to hang; at the end it answers, and is unmounted."""
    missing = what_is_missing()
    if missing is not None:
        pytest.skip(f"needs {missing}")
    content, where = folder / "content", folder / "hanging"
    content.mkdir()
    where.mkdir()
    with (folder / "gate").open("wb") as gate:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.store.hanging_disk", str(content), gate.name, str(where)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + _DEADLINE_S
            while not os.path.ismount(where):
                assert time.monotonic() < deadline, "the FUSE disk did not come up"
                assert server.poll() is None, "the FUSE disk ended"
                time.sleep(0.01)
            disk = HangingDisk(where, gate)
            try:
                yield disk
            finally:
                disk.answer()
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(where)], capture_output=True, timeout=_DEADLINE_S)
            server.terminate()
            server.wait(_DEADLINE_S)
