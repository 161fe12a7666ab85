"""A disk that hangs or fails: a FUSE file system that shows a folder, and waits while somebody holds a lock.

    python -m tests.store.hanging_disk FOLDER GATE MOUNTPOINT

Each request takes a shared lock on GATE first: whoever holds an exclusive one makes the disk hang. What GATE
says, ``all`` or ``writes``, fails.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mfusepy import FUSE, Operations

_ATTRIBUTES = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid", "st_ino", "st_blocks")
_WRITES = {"create", "write", "truncate", "fsync", "unlink", "rename", "mkdir", "chmod"}
_TIMES = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")


def _gated(request: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(request)
    def wait_first(disk: Disk, *args: Any) -> Any:
        fcntl.flock(disk.gate, fcntl.LOCK_SH)
        fcntl.flock(disk.gate, fcntl.LOCK_UN)
        failing = os.pread(disk.gate.fileno(), 8, 0)
        if failing == b"all" or (failing == b"writes" and request.__name__ in _WRITES):
            raise OSError(errno.EIO, "a bad disk")
        return request(disk, *args)

    return wait_first


class Disk(Operations):  # type: ignore[misc]
    """The folder, behind the gate."""

    use_ns = True

    def __init__(self, folder: str, gate: str) -> None:
        self.folder = folder
        self.gate = Path(gate).open("rb")  # noqa: SIM115 (for the life of the file system)

    def _at(self, path: str) -> str:
        return self.folder + path

    @_gated
    def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
        status = os.lstat(self._at(path))
        found = {name: getattr(status, name) for name in _ATTRIBUTES}
        return found | {name.removesuffix("_ns"): getattr(status, name) for name in _TIMES}

    @_gated
    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    @_gated
    def statfs(self, path: str) -> dict[str, int]:
        system = os.statvfs(self._at(path))
        names = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize", "f_files", "f_ffree", "f_namemax")
        return {name: getattr(system, name) for name in names}

    @_gated
    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags & ~os.O_NOFOLLOW)

    @_gated
    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT, mode)

    @_gated
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    @_gated
    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    @_gated
    def truncate(self, path: str, length: int, fh: Any = None) -> int:
        os.truncate(self._at(path), length)
        return 0

    @_gated
    def fsync(self, path: str, datasync: int, fh: int) -> int:
        return 0

    @_gated
    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    @_gated
    def unlink(self, path: str) -> int:
        os.unlink(self._at(path))
        return 0

    @_gated
    def rename(self, old: str, new: str) -> int:
        os.rename(self._at(old), self._at(new))
        return 0

    @_gated
    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        return 0

    @_gated
    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0


if __name__ == "__main__":
    FUSE(Disk(sys.argv[1], sys.argv[2]), sys.argv[3], foreground=True, nothreads=True, attr_timeout=0)
