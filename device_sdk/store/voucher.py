"""The voucher in a store's lock file: which file the store has made.

A damaged file may have nothing left that tells whose it was. The lock file was made with it, and says by
what the file system knows it: the number of its inode, and that inode's generation where there is one (a
number may be given again). So it speaks for a file that was overwritten, not for one that was put there.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from re import compile as pattern

__all__ = [
    "HOLDS",
    "LOCK_BYTES",
    "MAKING",
    "first_line",
    "is_lock",
    "name_of",
    "promises",
    "vouch",
    "vouches",
]

#: The file is being made, and nothing is stored yet; something may be.
MAKING, HOLDS = b"making", b"stored"  # of one length

LOCK_BYTES = 64  # of a lock file, at most
_LOCK = pattern(rb"\d*\n?(?:(making|stored) ([0-9a-f]{16} [0-9a-f]{8})\n)?\Z")
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# Source: linux/fs.h, FS_IOC_GETVERSION = _IOR('v', 1, long).
_GET_GENERATION = 2 << 30 | struct.calcsize("l") << 16 | ord("v") << 8 | 1


def first_line(pid: int) -> bytes:
    """Return the line of a lock with the process that holds it, of one length for every process."""
    return b"%010d\n" % pid


def is_lock(fd: int) -> bool:
    """Whether an open file is a lock: a process, perhaps a voucher, or zeros that a power cut has left."""
    return _match(fd) is not None


def _match(fd: int) -> tuple[bytes | None, bytes | None] | None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > LOCK_BYTES:
        return None
    found = _LOCK.match(os.pread(fd, LOCK_BYTES, 0).strip(b"\0"))
    return None if found is None else (found[1], found[2])


def promises(path: str) -> tuple[bytes | None, bytes | None]:
    """Return what the lock of a store at ``path`` says, :data:`MAKING` or :data:`HOLDS`, of which file."""
    try:
        fd = os.open(f"{path}.lock", _READ_FLAGS)
    except OSError:
        return None, None
    try:
        return _match(fd) or (None, None)
    finally:
        os.close(fd)


def vouches(path: str, fd: int) -> bool:
    """Whether the lock of a store at ``path`` says that this open file is the store's."""
    return promises(path)[1] == _name_of(fd)


def name_of(path: str) -> bytes:
    """Return the name of a file in a lock. This ends the locks that SQLite has on it in this process."""
    fd = os.open(path, _READ_FLAGS)
    try:
        return _name_of(fd)
    finally:
        os.close(fd)


def _name_of(fd: int) -> bytes:
    try:
        answer = fcntl.ioctl(fd, _GET_GENERATION, bytes(8))
    except OSError:
        answer = bytes(4)  # a file system that gives no number twice, or none that says so
    generation = struct.unpack_from("I", answer)[0]
    return b"%016x %08x" % (os.fstat(fd).st_ino, generation)


def vouch(path: str, word: bytes, name: bytes) -> None:
    """Write into the lock, which this process holds, that the file of this name is the store's. Durable."""
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # it can be vouched for next time
    try:
        if _match(lock) not in ((word, name), None):
            os.pwrite(lock, first_line(os.getpid()) + word + b" " + name + b"\n", 0)
            os.fsync(lock)
    except OSError:
        pass
    finally:
        os.close(lock)
