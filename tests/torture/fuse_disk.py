"""A disk that remembers: a FUSE file system with one image file that logs every write and every flush.

    python -m tests.torture.fuse_disk LOG MOUNTPOINT

Run as a program of its own, because FUSE wants a process. It needs libfuse; how the log looks is in
:mod:`tests.torture.disk_log`.
"""

from __future__ import annotations

import errno
import stat
import sys
from pathlib import Path
from typing import Any

from mfusepy import FUSE, FuseOSError, Operations

from tests.torture.disk_log import FLUSH, IMAGE, IMAGE_BYTES, RECORD, WRITE


class Disk(Operations):  # type: ignore[misc]
    """One file in memory."""

    use_ns = True

    def __init__(self, log: str) -> None:
        self.data = bytearray(IMAGE_BYTES)
        self.log = Path(log).open("wb", buffering=0)  # noqa: SIM115 (for the life of the file system)

    def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
        if path == "/":
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path == f"/{IMAGE}":
            return {"st_mode": stat.S_IFREG | 0o600, "st_nlink": 1, "st_size": len(self.data)}
        raise FuseOSError(errno.ENOENT)

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", IMAGE]

    def open(self, path: str, flags: int) -> int:
        return 1

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return bytes(self.data[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self.data[offset : offset + len(data)] = data
        self.log.write(RECORD.pack(WRITE, offset, len(data)) + data)
        return len(data)

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self.log.write(RECORD.pack(FLUSH, 0, 0))
        return 0

    def truncate(self, path: str, length: int, fh: Any = None) -> int:
        return 0


if __name__ == "__main__":
    FUSE(Disk(sys.argv[1]), sys.argv[2], foreground=True, nothreads=True)
