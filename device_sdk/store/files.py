"""The files beside a store's database: its lock, its reserve, and damaged ones that were set aside."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from errno import (
    EACCES,
    EDQUOT,
    EIO,
    ENODEV,
    ENOSPC,
    ENOTCONN,
    ENOTDIR,
    ENXIO,
    EPERM,
    EREMOTEIO,
    EROFS,
    ESTALE,
    ETIMEDOUT,
)

from device_sdk.errors import StoreError, StoreUnavailableError
from device_sdk.store.voucher import LOCK_BYTES, first_line, is_lock

__all__ = [
    "RESERVE_BYTES",
    "Reserve",
    "StoreLock",
    "identity",
    "is_locked",
    "is_our_lock",
    "is_our_reserve",
    "prepare",
    "set_aside",
    "sync_directory",
    "unusable",
]

#: The largest size of the write-ahead log: a checkpoint may need as much on a disk that has just filled up.
RESERVE_BYTES = 1024 * 1024

_LOCK_TRIES = 5
_LOCK_PAUSE_S = 0.05
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_OPEN_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_CANNOT_BE_MADE = (EROFS, ENOSPC, EDQUOT)
#: What a disk says, or what is left of one that was taken away, not a wrong name or a missing right.
_DISK_FAILS = (*_CANNOT_BE_MADE, EIO, ENODEV, ENXIO, ENOTCONN, ESTALE, ETIMEDOUT, EREMOTEIO)


def prepare(path: str) -> None:
    """Make the file (0600) if it is missing; else revoke other users' rights. It is known to be ours.

    Raises: StoreError: it cannot be made or written.
    """
    try:
        _make_directory(os.path.dirname(path))
        fd = os.open(path, _OPEN_FLAGS | os.O_CREAT, 0o600)
        try:
            if os.fstat(fd).st_mode & 0o077:
                os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
    except OSError as error:
        raise unusable(path, error, "; a store needs a file that can be written") from error


def unusable(name: str, error: OSError, rest: str = "") -> StoreError:
    """Return the error of a file that cannot be used, by what the disk says."""
    kind = StoreUnavailableError if error.errno in _DISK_FAILS else StoreError
    return kind(f"{name}: {error.strerror}{rest}")


def identity(path: str) -> tuple[int, int] | None:
    """Return device and number of the file that the path leads to, or ``None``: there is none."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _make_directory(directory: str) -> None:
    if not directory or os.path.isdir(directory):
        return
    _make_directory(os.path.dirname(directory))
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        if not os.path.isdir(directory):
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR)) from None


def sync_directory(path: str) -> None:
    """Flush the directory entry of a file that was made or renamed."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def set_aside(path: str) -> str:
    """Rename a damaged database, its log too, and return its new name. The last two are kept."""
    first, second = f"{path}.damaged-1", f"{path}.damaged-2"
    target = first
    if os.path.exists(first):
        target = second
        if os.path.exists(second):
            _rename(second, first)
    _rename(path, target)
    _remove(f"{path}-shm")
    sync_directory(path)
    return target


def _rename(old: str, new: str) -> None:
    os.replace(old, new)
    try:
        os.replace(f"{old}-wal", f"{new}-wal")
    except FileNotFoundError:
        _remove(f"{new}-wal")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


class StoreLock:
    """One process at a time: an ``flock`` on ``<path>.lock``, which ends with the process that holds it.

    The file stays: removing it would let two processes lock two files of one name. On a disk that takes no
    writes it may be missing: then nothing is locked until it can be made.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def acquire(self) -> None:
        """Take the lock; make the directory (0700) if it is missing.

        Raises: StoreError: another store, here or in another process, has the file open; the file with the
        lock's name is no lock. StoreUnavailableError: the disk fails.
        """
        name = f"{self._path}.lock"
        try:
            fd = self._make(name)
        except OSError as error:
            raise self._without_lock(name, error) from error
        if fd is None:
            return
        if not is_lock(fd):
            os.close(fd)
            raise StoreError(
                f"{name}: this is not the lock of a store; it was left alone: name another store"
            )
        self._wait_for(fd)
        self._fd = fd
        try:
            os.pwrite(fd, first_line(os.getpid()), 0)  # what it vouches for stays
        except OSError:
            pass  # a full disk: the lock holds, but other processes cannot read its holder

    def _make(self, name: str) -> int | None:
        try:
            _make_directory(os.path.dirname(self._path))
            return os.open(name, _OPEN_FLAGS | os.O_CREAT, 0o600)
        except OSError as error:
            if error.errno not in _CANNOT_BE_MADE:
                raise
        try:
            return os.open(name, _READ_FLAGS)
        except FileNotFoundError:
            return None

    def _without_lock(self, name: str, error: OSError) -> StoreError:
        """Return the error of a lock that cannot be made; of a wrong folder with what to do."""
        folder = os.path.dirname(self._path) or "."
        if error.errno in _DISK_FAILS:
            return unusable(name, error)
        if not os.path.isdir(folder):
            advice = "; the folder of the store cannot be made: make it, or name a file in another one"
            return unusable(folder, error, advice)
        may_not = error.errno in (EACCES, EPERM)
        advice = f"; let this user write in the folder {folder}, or name a file in another one"
        return unusable(name, error, advice if may_not else "")

    def hold_on(self) -> None:
        """Take the lock if it could not be made before, or its file was removed: nobody else would see it.

        Raises: StoreError: another store has the lock now.
        """
        if self._fd < 0:
            self.acquire()
            return
        held = os.fstat(self._fd)
        if identity(f"{self._path}.lock") == (held.st_dev, held.st_ino):
            return
        old = self._fd
        self.acquire()
        os.close(old)

    def _wait_for(self, fd: int) -> None:
        for remaining in reversed(range(_LOCK_TRIES)):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not remaining:
                    holder = (
                        os.pread(fd, LOCK_BYTES, 0).partition(b"\n")[0].strip(b"\0").lstrip(b"0").decode()
                    )
                    os.close(fd)
                    raise StoreError(
                        f"{self._path}: process {holder or '(unknown)'} has it open; only one client at a "
                        f"time can use a store"
                    ) from None
                time.sleep(_LOCK_PAUSE_S)  # is_locked() may have looked at this moment

    def release(self) -> None:
        """Release the lock. Idempotent; in a forked child only the child's copy is closed."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def is_locked(path: str) -> bool:
    """Whether a store has the file open now."""
    try:
        fd = os.open(f"{path}.lock", _READ_FLAGS)
    except OSError:  # missing, or not the lock of a store
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def is_our_lock(path: str) -> bool:
    """Whether the file is there and the lock of a store."""
    try:
        fd = os.open(path, _READ_FLAGS)
    except OSError:
        return False
    try:
        return is_lock(fd)
    finally:
        os.close(fd)


def is_our_reserve(path: str, *, whole: bool = True) -> bool:
    """Whether the file is the reserve of a store, ``whole`` or cut short by a full disk."""
    try:
        fd = os.open(path, _READ_FLAGS)
    except OSError:
        return False
    try:
        status = os.fstat(fd)
        size = status.st_size
        if not stat.S_ISREG(status.st_mode) or size > RESERVE_BYTES or (whole and size != RESERVE_BYTES):
            return False
        return not any(os.pread(fd, RESERVE_BYTES, 0))
    finally:
        os.close(fd)


class Reserve:
    """Space kept in ``<path>.reserve`` for a full disk: even deleting needs some."""

    def __init__(self, path: str, min_free: int) -> None:
        self._database = path
        self._path = f"{path}.reserve"
        self._directory = os.path.dirname(path) or "."
        self._min_free = min_free
        self._held = is_our_reserve(self._path)

    def check(self) -> None:
        """Raises: StoreError: the file with the reserve's name is not a reserve. It would be deleted."""
        if os.path.lexists(self._path) and not is_our_reserve(self._path, whole=False):
            raise StoreError(
                f"{self._path}: this is not the reserve of a store; it was left alone: name another store"
            )

    def free(self) -> int:
        """Bytes that an unprivileged user can still write on this file system. Raises: OSError."""
        system = os.statvfs(self._directory)
        return system.f_bavail * system.f_frsize

    def look_again(self) -> None:
        """Somebody has removed files of the store: the reserve may be one of them."""
        self._held = is_our_reserve(self._path)

    def shortage(self, wanted: int) -> str | None:
        """Return why ``wanted`` bytes of new messages must not be written now, or ``None``.

        They must leave ``min_free`` bytes, and room for the reserve if that was released.
        """
        try:
            free = self.free()
        except OSError as error:
            return f"{self._database}: {error.strerror}"
        must_stay = self._min_free if self._held else self._min_free + RESERVE_BYTES
        if free - wanted >= must_stay:
            return None
        return f"{self._database}: {free} bytes are free on the disk, and {must_stay} must stay (min_free)"

    def keep(self) -> None:
        """Take the space if the disk has enough."""
        if self._held:
            return
        try:
            if self.free() < self._min_free + RESERVE_BYTES:
                return
            fd = os.open(self._path, _OPEN_FLAGS | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)
            self._held = True
        except OSError:
            pass  # the disk filled up meanwhile: retried later

    def release(self) -> None:
        """Give the space to the database."""
        self._held = False
        try:
            _remove(self._path)
        except OSError:
            pass  # read-only: nothing can be written anyway
