"""The place of an open store: are its files still the ones that their names lead to?

``rm queue.db*`` takes the names, not the files: what is open goes on working, and everything that is written
ends with the process. The same holds for a log alone, which SQLite never looks for again.
"""

from __future__ import annotations

import os

from device_sdk.errors import StoreError
from device_sdk.store.files import identity, sync_directory
from device_sdk.store.voucher import HOLDS, MAKING, name_of, promises, vouch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import sqlite3

__all__ = ["Place"]

_BESIDE = ("-wal", "-shm")


class Place:
    """The files that a store has open, by device and number."""

    __slots__ = ("_beside", "_name", "_path", "file")

    def __init__(self, path: str) -> None:
        self._path = path
        self.file: tuple[int, int] | None = None  # the database that was opened
        self._name = b""  # by which the lock vouches for it
        self._beside: dict[str, tuple[int, int] | None] = {}

    @property
    def is_taken(self) -> bool:
        """Whether the file was taken."""
        return bool(self._name)

    def note(self) -> None:
        """Note the file that the path leads to now, which can only be read."""
        self.file = identity(self._path)

    def take(self) -> None:
        """Note the file that the path leads to now, which is ours to fill. No connection is open."""
        self.file = identity(self._path)
        self._name = name_of(self._path)
        if promises(self._path) != (HOLDS, self._name):
            vouch(self._path, MAKING, self._name)

    def filled(self) -> None:
        """Vouch for the file: it is a database now."""
        vouch(self._path, HOLDS, self._name)

    def take_beside(self) -> None:
        """Note the log of a connection that has just been made."""
        self._beside = {suffix: identity(self._path + suffix) for suffix in _BESIDE}

    def is_lost(self) -> bool:
        """Whether the path leads to another database than the one that was opened, or to none."""
        return self.file is not None and identity(self._path) != self.file

    def log_is_lost(self) -> bool:
        """Whether that is so of its log."""
        return any(
            file is not None and identity(self._path + suffix) != file
            for suffix, file in self._beside.items()
        )

    def check_free(self) -> None:
        """Raises: StoreError: another file is where the database was, which is left alone."""
        if identity(self._path) is not None:
            raise StoreError(
                f"{self._path}: another file was put in its place, and was left alone; move that one away"
            )

    def copy_back(self, connection: sqlite3.Connection) -> None:
        """Write everything that the open database holds into a new file at its path.

        Raises: StoreError: another file is there. sqlite3.Error, OSError: there is no room for it.
        """
        self.check_free()
        for suffix, file in self._beside.items():  # the log of the old file would be taken for the new one's
            if file is not None and identity(self._path + suffix) == file:
                os.unlink(self._path + suffix)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            made = os.fstat(fd)
            try:
                connection.execute("VACUUM INTO ?", (self._path,))
                os.fsync(fd)
                sync_directory(self._path)
            except BaseException:
                if identity(self._path) == (made.st_dev, made.st_ino):
                    os.unlink(self._path)
                raise
        finally:
            os.close(fd)
        self._beside = {}
        self.take()
        self.filled()
