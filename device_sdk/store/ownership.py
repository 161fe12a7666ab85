"""The owner of a file: a store must leave alone a file that was named by mistake.

The file and those beside it are read here without SQLite, which would change another program's database by
opening it: it replays a journal, and empties a log at the end.

A power cut leaves the old or the new content in each sector of our own file, or zeros where nothing was
written yet. Other damage can hit any byte. So the first row that applies decides, and a file without our
number for which no lock vouches is not ours:

==================================================  ====================================================
it is missing, empty or all zeros                   ours to take, if our lock lies beside it or nothing
                                                    that SQLite would delete
our application id is in its header, or in its log  ours
SQLite's magic, no application id and no tables     ours to take
all of it is a text                                 a text, whatever else speaks for us
SQLite's magic                                      another program's, unless our lock vouches for it and it
                                                    has our tables
our lock vouches for it (``voucher.py``)            ours, damaged
==================================================  ====================================================
"""

from __future__ import annotations

import os
import stat
from errno import ELOOP

from device_sdk.errors import StoreError
from device_sdk.store.files import is_locked, is_our_lock, unusable
from device_sdk.store.schema import APPLICATION_ID, SESSION_COLUMNS
from device_sdk.store.voucher import vouches

__all__ = ["check_owner", "check_unlocked"]

# Source: https://www.sqlite.org/fileformat2.html, 1.3 "The Database Header", 1.6 and 4.1 "WAL File Format".
_MAGIC = b"SQLite format 3\0"
_LOG_MAGIC = (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
_LOG_HEADER, _FRAME_HEADER = 32, 24
_HEADER_BYTES = 108  # of the database, and of the tree of tables behind it
_NO_TABLES = b"\x0d\0\0\0\0"  # a leaf, no free block, no cells

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_SECTOR = 512
_TABLES_WITHIN = 64 * 1024  # the tables are made first: their text is in the first pages
_OUR_ID = APPLICATION_ID.to_bytes(4, "big")
_OUR_TABLES = (b"CREATE TABLE in_flight (", f"CREATE TABLE session ({SESSION_COLUMNS[0]} INTEGER".encode())
_TEXT_BYTES = 1 << 20
_FRAMES = 1024  # that are looked at for the first page: it is among those of the first transaction


def check_unlocked(path: str) -> None:
    """As :func:`check_owner`, unless a store has the file open: then it is a store.

    Closing a file ends the locks that SQLite has on it anywhere in this process.
    """
    if not is_locked(path):
        check_owner(path)


def check_owner(path: str) -> None:
    """Return if the file is a store, sound or damaged, or is missing; nothing is changed.

    No connection of this process may write to it.
    Raises: StoreError: it is no store, or cannot be read.
    """
    try:
        fd = _open(path)
        if fd is None:
            _check_beside(path)
            return
        try:
            _check(fd, path)
        finally:
            os.close(fd)
    except OSError as error:
        raise unusable(path, error, "; a store needs a file that can be written") from error


def _open(path: str) -> int | None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(mode):
        raise _link(path)
    if not stat.S_ISREG(mode):  # not opened: opening alone affects a terminal or a tape
        raise StoreError(f"{path}: this is not a regular file; name another one")
    try:
        return os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == ELOOP:
            raise _link(path) from None
        raise


def _link(path: str) -> StoreError:
    return StoreError(f"{path}: this is a symbolic link; name the file that it leads to")


def _check(fd: int, path: str) -> None:
    head = os.pread(fd, _SECTOR, 0)
    if not any(head) and _is_zero(fd):
        _check_beside(path)
        return
    if head.startswith(_MAGIC):
        if not (_is_our_database(head, path) or (_has_our_tables(fd) and vouches(path, fd))):
            raise _foreign(path, "the SQLite database of another program")
    elif head[68:72] == _OUR_ID or _log_says(path):
        return
    elif _is_text(fd):
        raise _foreign(path, "a PEM file" if b"-----BEGIN " in head else "a text file")
    elif not vouches(path, fd):
        raise _foreign(path, "other data")


def _foreign(path: str, what: str) -> StoreError:
    return StoreError(
        f"{path}: this is {what}, not a database of this package; it was left alone: name another file"
    )


def _is_our_database(head: bytes, path: str) -> bool:
    """Judge a file with SQLite's magic by its application id, which may still be only in the log."""
    if any(head[68:72]):
        return head[68:72] == _OUR_ID
    says = _log_says(path)
    return head[100:105] == _NO_TABLES if says is None else says


def _has_our_tables(fd: int) -> bool:
    pages = os.pread(fd, _TABLES_WITHIN, 0)
    return all(text in pages for text in _OUR_TABLES)


def _is_text(fd: int) -> bool:
    """Whether the file is a text from its beginning to its end, or for a long while."""
    text = os.pread(fd, _TEXT_BYTES, 0)
    try:
        text[: len(text) - 3].decode()  # a character may be cut off
    except UnicodeDecodeError:
        return False
    return b"\0" not in text


def _log_says(path: str) -> bool | None:
    """Whether the first page in the write-ahead log has our application id; ``None``: there is none."""
    try:
        fd = os.open(f"{path}-wal", _FLAGS)
    except FileNotFoundError:
        return None
    try:
        header = os.pread(fd, _LOG_HEADER, 0)
        if not header.startswith(_LOG_MAGIC):
            return None
        size = _FRAME_HEADER + int.from_bytes(header[8:12], "big")
        for number in range(_FRAMES):
            frame = os.pread(fd, _FRAME_HEADER + _HEADER_BYTES, _LOG_HEADER + number * size)
            if frame.startswith(b"\0\0\0\1"):
                return frame[_FRAME_HEADER + 68 : _FRAME_HEADER + 72] == _OUR_ID
            if len(frame) < _FRAME_HEADER:
                return None
    finally:
        os.close(fd)
    return None


def _check_beside(path: str) -> None:
    """Refuse a new file if SQLite would delete another one for it. Raises: StoreError, OSError.

    A power cut may leave anything in a log or journal of ours; our lock was made before them.
    """
    if is_our_lock(f"{path}.lock"):
        return
    for suffix, magics in (("-wal", _LOG_MAGIC), ("-journal", (_JOURNAL_MAGIC,))):
        beside = path + suffix
        fd = _open(beside)
        if fd is None:
            continue
        try:
            head = os.pread(fd, _LOG_HEADER, 0)
        finally:
            os.close(fd)
        if any(head) and not head.startswith(magics):
            raise _foreign(beside, "other data")
    if _log_says(path) is False:
        raise _foreign(f"{path}-wal", "the log of another program's SQLite database")


def _is_zero(fd: int) -> bool:
    at = 0
    while block := os.pread(fd, 1 << 20, at):
        if any(block):
            return False
        at += len(block)
    return True
