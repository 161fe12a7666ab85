"""A real file system whose disk can be cut off at any write: what a power cut leaves behind.

An ext4 lives on a loop device on :mod:`tests.torture.fuse_disk`. Afterwards the image is rebuilt as it may be
after a power cut at any moment: everything up to the last flush before it, and of what was written later any
part, some of it torn between two sectors of 512 bytes. This is a disk that honours flushes.

Needs root, ``/dev/fuse``, loop devices, and Debian's ``fuse3`` and ``e2fsprogs``.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.torture.disk_log import IMAGE, IMAGE_BYTES, RECORD, WRITE

__all__ = ["MEMORY", "HarnessError", "Recording", "mounted", "recorded_disk", "what_is_missing"]

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where images are best kept: to mount one on the machine's own disk waits for that disk's flushes, and the
cuts are simulated anyway. ``None``: the folder for temporary files."""

_DEADLINE_S = 20.0
_SECTOR = 512
_TRIES = 10  # another process may take the free loop device first
_ROOT = Path(__file__).resolve().parent.parent.parent


def what_is_missing() -> str | None:
    """Return what this machine lacks for the power cuts, or ``None``."""
    if os.geteuid() != 0:
        return "root"
    for device in ("/dev/fuse", "/dev/loop-control"):
        if not os.path.exists(device):
            return device
    try:
        import mfusepy  # noqa: F401 (finds the library while it is imported)
    except (ImportError, OSError):
        return "libfuse"
    return next(
        (tool for tool in ("mkfs.ext4", "fusermount3", "losetup", "mount") if shutil.which(tool) is None),
        None,
    )


class HarnessError(Exception):
    """The power cuts cannot be judged: what was read says nothing about the store."""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=_DEADLINE_S)


def _unmount(path: Path) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while subprocess.run(["umount", str(path)], capture_output=True, timeout=_DEADLINE_S).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} is busy and cannot be unmounted")
        time.sleep(0.05)


@contextmanager
def mounted(image: Path, where: Path) -> Iterator[Path]:
    """Mount an image, which replays its journal, for as long as the block lasts.

    Raises: HarnessError: the device shows another image; nothing was mounted.
    """
    where.mkdir(exist_ok=True)
    device = _attach(image)
    try:
        content = image.read_bytes()
        if _content(device, len(content)) != content:
            raise HarnessError(f"{device} shows another image than {image}")
        _run("mount", device, str(where))
        try:
            yield where
        finally:
            _unmount(where)
    finally:
        _run("losetup", "--detach", device)


def _attach(image: Path) -> str:
    """Return a loop device of the image's own.

    Not "mount -o loop": that takes a device which the file has already. Whoever looks at a device keeps it
    alive behind the unmount, with the pages of the image that the file had then.
    """
    for _ in range(_TRIES):
        found = subprocess.run(
            ["losetup", "--find", "--show", str(image)], capture_output=True, text=True, timeout=_DEADLINE_S
        )
        if not found.returncode:
            return found.stdout.strip()
    raise HarnessError(f"no loop device for {image}: {found.stderr.strip()}")


def _content(device: str, size: int) -> bytes:
    """Return what a file system on the device would read."""
    with open(device, "rb") as file:
        return file.read(size)


@contextmanager
def recorded_disk(work: Path) -> Iterator[Path]:
    """Mount a new ext4 whose disk logs to ``work/disk.log``; yield the mount point."""
    fuse, where = work / "fuse", work / "recorded"
    fuse.mkdir()
    where.mkdir()
    program = [sys.executable, "-m", "tests.torture.fuse_disk", str(work / "disk.log"), str(fuse)]
    server = subprocess.Popen(
        program, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        image = fuse / IMAGE
        deadline = time.monotonic() + _DEADLINE_S
        while not image.exists():
            if time.monotonic() > deadline or server.poll() is not None:
                raise TimeoutError("the FUSE disk did not come up")
            time.sleep(0.02)
        _run("mkfs.ext4", "-q", "-F", str(image))
        with mounted(image, where):
            _run("sync", "-f", str(where))
            yield where
    finally:
        subprocess.run(["fusermount3", "-u", str(fuse)], capture_output=True, timeout=_DEADLINE_S)
        server.terminate()
        server.wait(_DEADLINE_S)


class Recording:
    """What a disk was asked to write and flush, in order.

    ``ends`` are the sizes that the log had after each record: the moments at which the power can go.
    """

    def __init__(self, log: Path) -> None:
        data = log.read_bytes()
        self.ends: list[int] = []
        self._records: list[tuple[int, bytes] | None] = []  # None: a flush
        at = 0
        while at + RECORD.size <= len(data):
            kind, offset, length = RECORD.unpack_from(data, at)
            at += RECORD.size
            self._records.append((offset, data[at : at + length]) if kind == WRITE else None)
            at += length
            self.ends.append(at)

    def image(self, moment: int, dice: random.Random) -> bytearray:
        """Return the disk as a power cut after the record number ``moment`` may leave it."""
        flushed = max((index for index in range(moment + 1) if self._records[index] is None), default=0)
        disk = bytearray(IMAGE_BYTES)
        for index, record in enumerate(self._records[: moment + 1]):
            if record is None:
                continue
            offset, data = record
            if index < flushed or dice.random() < 0.4:
                disk[offset : offset + len(data)] = data
            elif dice.random() < 0.5:
                for start in range(0, len(data), _SECTOR):
                    if dice.random() < 0.5:
                        sector = data[start : start + _SECTOR]
                        disk[offset + start : offset + start + len(sector)] = sector
        return disk
