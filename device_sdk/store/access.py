"""The connection to the database: the best one that the disk allows.

=========  ===============================================================================================
writing    the usual one: the index of the log is a file, ``-shm``, by which other programs read beside us
alone      where that index has no room: ``locking_mode=EXCLUSIVE`` keeps it in memory. Others have to wait
reading    of a disk that takes no writes: session and messages are read, and nothing is written. Where there
           is no file, nothing is there to be read, and it is made when the disk takes it
=========  ===============================================================================================

A better one is tried at each write. Everything here runs in the store's own thread.
"""

from __future__ import annotations

import os
import sqlite3
from errno import EDQUOT, EIO, ENOSPC, EROFS
from pathlib import Path

from device_sdk.errors import StoreError, StoreUnavailableError
from device_sdk.store.files import Reserve, identity, prepare, sync_directory
from device_sdk.store.place import Place
from device_sdk.store.schema import MIGRATIONS, PRAGMAS, define, migrate, version_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.store.base import StorePolicy

__all__ = [
    "BUSY_S",
    "INDEX_BYTES",
    "Access",
    "code_of",
    "has_room_for_index",
    "is_full",
    "open_to_read",
    "takes_no_writes",
    "work_alone",
]

BUSY_S = 2.0  # how long another connection may keep us from writing

#: What the index of the log may need before the first commit, and twice that: the kernel ends a process that
#: writes to a mapped file for which there is no room.
INDEX_BYTES = 64 * 1024

_NO_WRITES = {EROFS, ENOSPC, EDQUOT, EIO}
_NO_WRITES_HERE = {
    sqlite3.SQLITE_CANTOPEN,  # the log or its index could not be made
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
}
_OF_THE_INDEX = {
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
_LOG_HEADER = 32


def code_of(error: BaseException) -> int:
    """Return the primary code of an error of SQLite; 0 of any other."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_full(error: BaseException) -> bool:
    """Whether the disk has no room."""
    return code_of(error) == sqlite3.SQLITE_FULL


class Access:
    """One connection to one file at a time. ``why``: the reason for one that only reads, else ``None``."""

    __slots__ = ("_alone", "_found_nothing", "_path", "_synchronous", "connection", "place", "reserve", "why")

    def __init__(self, path: str, policy: StorePolicy) -> None:
        self.connection: sqlite3.Connection | None = None
        self.place = Place(path)
        self.reserve = Reserve(path, policy.min_free)
        self.why: str | None = None
        self._path = path
        self._synchronous = "OFF" if policy.durability == "os" else "FULL"
        self._alone = False
        self._found_nothing = False  # there was no file when one was looked for, and none could be made

    def connect(self) -> sqlite3.Connection:
        """Return the connection, a new one if there is none. It may be one that only reads.

        Raises: StoreError: the file belongs to a newer release, or appeared later. sqlite3.Error, OSError:
        it is damaged, or cannot even be read.
        """
        if self.connection is None:
            try:
                self.connection = self._to_write()
                self.why = None
            except (StoreError, sqlite3.Error, OSError) as error:
                if not (self._found_nothing or _says_no_writes(error)):
                    raise
                self.connection = self._to_read(error)
                self.why = str(error) if isinstance(error, StoreError) else f"{self._path}: {error}"
        return self.connection

    def connect_to_write(self) -> sqlite3.Connection:
        """As :meth:`connect`, and try for a better one. Raises also: StoreError: it only reads."""
        if self.why is not None or (self._alone and self._has_room()):
            self.disconnect()
        connection = self.connect()
        if self.why is not None:
            raise StoreError(self.why)
        return connection

    def disconnect(self) -> None:
        """Close the connection, if there is one. Never raises."""
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                pass  # its last checkpoint failed; the log keeps what it holds

    def _to_write(self) -> sqlite3.Connection:
        if self._found_nothing and _has_content(self._path):
            raise StoreError(
                f"{self._path}: a file has appeared there since the store was opened, and was left alone; "
                "restart the program to go on with it, or move it away"
            )
        if self.place.is_lost():
            raise StoreError(f"{self._path}: it was removed, or another file put in its place")
        prepare(self._path)
        if not self.place.is_taken:
            self.place.take()
        alone = not self._has_room()
        try:
            connection = self._open(alone)
        except (sqlite3.Error, OSError) as error:
            if not is_full(error) and getattr(error, "sqlite_errorcode", ENOSPC) not in _OF_THE_INDEX:
                raise
            self.reserve.release()
            alone = True
            connection = self._open(alone)
        self._alone = alone
        self._found_nothing = False
        self.place.take_beside()
        self.place.filled()
        return connection

    def _has_room(self) -> bool:
        """Whether the index of the log has room, if need be that of the reserve."""
        try:
            if not has_room_for_index(self._path):
                self.reserve.release()
            return has_room_for_index(self._path)
        except OSError:
            return True  # SQLite will meet the error

    def _open(self, alone: bool) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        try:
            define(connection)
            if alone:
                work_alone(connection)
            version = version_of(connection, self._path)
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            for pragma in PRAGMAS:
                connection.execute(pragma)
            migrate(connection, version)
            if not version and self._synchronous == "FULL":
                sync_directory(self._path)
            if not alone:
                _hold_index(self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _to_read(self, error: Exception) -> sqlite3.Connection:
        """Return a connection that reads what is there, after this error. Raises: that error."""
        if not _has_content(self._path):
            self._found_nothing = True
        if self._found_nothing:
            return _empty()
        try:
            connection = open_to_read(self._path)
        except sqlite3.Error:
            raise error from None
        try:
            version = version_of(connection, self._path)
        except BaseException:
            connection.close()
            raise
        if version == len(MIGRATIONS):
            self.place.note()
            return connection
        connection.close()
        if not version:  # its making was interrupted
            return _empty()
        raise StoreUnavailableError(
            f"{self._path}: it is of an older release (schema {version}) and has to be brought up to date, "
            f"and the disk takes no writes: {error}"
        )


def open_to_read(path: str) -> sqlite3.Connection:
    """Return a connection to a database that nobody writes to; no file is made or changed.

    Raises: sqlite3.Error.
    """
    # No locks: there is nobody, and an exclusive one, which saves the index of the log, needs a file that
    # can be written. A database without a log cannot be opened that way, only as one that never changes.
    how = "mode=ro&vfs=unix-none" if os.path.exists(f"{path}-wal") else "mode=ro&immutable=1"
    connection = sqlite3.connect(
        f"{Path(path).as_uri()}?{how}", uri=True, timeout=BUSY_S, isolation_level=None
    )
    try:
        define(connection)
        work_alone(connection)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def takes_no_writes(path: str) -> bool:
    """Whether the file system of this file takes no writes. Raises: OSError."""
    return bool(os.statvfs(os.path.dirname(path) or ".").f_flag & os.ST_RDONLY)


def has_room_for_index(path: str) -> bool:
    """Whether the index of the log can be made, as far as the file system says. Raises: OSError."""
    system = os.statvfs(os.path.dirname(path) or ".")
    return not system.f_flag & os.ST_RDONLY and system.f_bavail * system.f_frsize >= INDEX_BYTES


def work_alone(connection: sqlite3.Connection) -> None:
    """Keep the index of the log in memory; nobody else can use the database. Before the first read."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")


def _empty() -> sqlite3.Connection:
    """Return a database without anything in it."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    define(connection)
    migrate(connection, 0)
    return connection


def _has_content(path: str) -> bool:
    """Whether a file or its log has something that could be read. Raises: OSError."""
    for name, least in ((path, 0), (f"{path}-wal", _LOG_HEADER)):
        if identity(name) is not None and os.lstat(name).st_size > least:
            return True
    return False


def _says_no_writes(error: Exception) -> bool:
    """Whether an error says that the disk takes no writes; it may be readable all the same."""
    if isinstance(error, StoreError):
        error = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(error, OSError):
        return error.errno in _NO_WRITES
    return code_of(error) in _NO_WRITES_HERE


def _hold_index(path: str) -> None:
    """Take the room for the whole index of the log. Raises: OSError: there is none.

    SQLite writes a byte of each 4 KiB: on a file system with smaller blocks the others would be looked for
    when the index is used, in mapped memory, and a full disk would end the process. SQLite's own descriptor
    is used: closing another one would end its locks.
    """
    index = identity(f"{path}-shm")
    if index is None:
        return
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:
            continue  # that of the list itself
        if (status.st_dev, status.st_ino) == index:
            if status.st_size:
                os.posix_fallocate(int(name), 0, status.st_size)
            return
