"""A disk that counts what it is asked to do: ext4 on a loop device, its journal included.

Bytes and flushes are what wears a card out, and they do not depend on the speed of the machine. Needs root,
loop devices and Debian's ``e2fsprogs``; without them there is an ordinary directory that counts nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Disk", "Written", "counting_disk", "why_not_counted"]

_IMAGE_BYTES = 2 << 30  # sparse
_DEADLINE_S = 60.0
_SECTOR = 512

# Fields of /sys/block/*/stat. Source: Linux, Documentation/block/stat.rst.
_WRITE_SECTORS, _FLUSHES = 6, 15


class Written(NamedTuple):
    """What a disk was asked to do."""

    bytes: int
    flushes: int


class Disk:
    """A directory, and the counters of the device below it if there are any."""

    def __init__(self, path: Path, device: str | None) -> None:
        self.path = path
        self._device = device
        self._runs = 0

    def new_directory(self) -> Path:
        """Return an empty directory on this disk; the one before is deleted."""
        shutil.rmtree(self.path / f"run-{self._runs}", ignore_errors=True)
        self._runs += 1
        directory = self.path / f"run-{self._runs}"
        directory.mkdir()
        return directory

    def forget(self, directory: Path) -> None:
        """Take the files of this directory out of the page cache, as if the machine had been off."""
        for file in directory.iterdir():
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)

    def written(self) -> Written | None:
        """Return the counters, after everything that is on its way has arrived."""
        if self._device is None:
            return None
        _run("sync", "-f", str(self.path))
        fields = Path(f"/sys/block/{self._device}/stat").read_text().split()
        return Written(int(fields[_WRITE_SECTORS]) * _SECTOR, int(fields[_FLUSHES]))


def why_not_counted() -> str | None:
    """Return what this machine lacks for :func:`counting_disk`, or ``None``."""
    if os.geteuid() != 0:
        return "root"
    if not os.path.exists("/dev/loop-control"):
        return "/dev/loop-control"
    return next((tool for tool in ("mkfs.ext4", "mount", "losetup") if shutil.which(tool) is None), None)


@contextmanager
def counting_disk(directory: str | None) -> Iterator[Disk]:
    """Make a disk in this directory (``None``: the system's for temporary files) and remove it afterwards."""
    with tempfile.TemporaryDirectory(prefix="device-sdk-store-", dir=directory) as work:
        if why_not_counted() is not None:
            yield Disk(Path(work), None)
            return
        image, where = Path(work, "image"), Path(work, "disk")
        where.mkdir()
        image.touch()
        os.truncate(image, _IMAGE_BYTES)
        # Blocks as on a card: on a small image mkfs.ext4 makes smaller ones, and less is written then. And
        # without lazy_* the file system would go on writing its tables in the background.
        options = ("-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0")
        _run("mkfs.ext4", "-q", "-F", *options, str(image))
        device = _run("losetup", "--find", "--show", str(image)).strip()
        try:
            _run("mount", "-o", "noatime", device, str(where))
            try:
                yield Disk(where, Path(device).name)
            finally:
                _run("umount", str(where))
        finally:
            _run("losetup", "--detach", device)


def _run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_DEADLINE_S)
    return done.stdout
