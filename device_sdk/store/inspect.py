"""Reads the file of a :class:`~device_sdk.store.sqlite.SqliteStore`, even while a node is using it.

Reading takes no lock that affects the node, and is done in short steps, so that an export of a long queue
does not keep the node's log from being reused. Messages that the node has not written yet are not seen.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from pathlib import Path

from device_sdk.errors import StoreError
from device_sdk.store import shelf
from device_sdk.store.access import (
    BUSY_S,
    has_room_for_index,
    open_to_read,
    takes_no_writes,
    work_alone,
)
from device_sdk.store.base import KEEP_LAST, MESSAGE_FLAGS, SHELVED, SavedMessage
from device_sdk.store.checksum import of_message
from device_sdk.store.clock import ExpiryClock
from device_sdk.store.database import INSERT_EXPIRING
from device_sdk.store.files import Reserve, StoreLock, is_locked
from device_sdk.store.ownership import check_unlocked
from device_sdk.store.reading import Damage, Reader, is_damage, session_row
from device_sdk.store.schema import (
    APPLICATION_ID,
    COUNTERS,
    MESSAGE_COLUMNS,
    MIGRATIONS,
    SEALED,
    SESSION_COLUMNS,
    SIZE,
    define,
    migrate,
    version_of,
)
from device_sdk.store.wal import examine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

__all__ = ["QueueReader", "StoredMessage", "check", "purge", "purge_shelf", "retry"]

_STEP = 200  # rows that are read at once
_SELECT = f"SELECT {MESSAGE_COLUMNS}, packet_id, released FROM message LEFT JOIN in_flight USING (sequence)"
_SHELF_VERSION = 2  # the first schema with a shelf
_CHECKED_VERSION = 3  # the first with checksums


class StoredMessage(SavedMessage):
    """A message in the file. ``expires_at`` is in seconds of ``CLOCK_BOOTTIME``.

    On the shelf ``status`` is ``refused`` or ``damaged``, with a ``reason`` and ``at``, Unix time; else it is
    ``None``. What a damaged one holds is not what was published.
    """

    __slots__ = ("at", "reason", "status")

    status: str | None
    reason: str
    at: float

    @property
    def topic(self) -> str:
        """The topic name; bytes that are not UTF-8 are replaced."""
        return self.topic_field[2:].decode("utf-8", "replace")

    @property
    def qos(self) -> int:
        """0, 1 or 2."""
        return (self.flags & MESSAGE_FLAGS) >> 1 & 3

    @property
    def retain(self) -> bool:
        """Whether the broker shall keep it for later subscribers."""
        return bool(self.flags & 1)

    @property
    def keep_last(self) -> bool:
        """Whether a newer message on the topic replaces it."""
        return bool(self.flags & KEEP_LAST)

    @property
    def state(self) -> str:
        """``waiting``, ``sent`` (with a packet identifier), ``released`` (after PUBREC), or ``status``."""
        if self.status is not None:
            return self.status
        if self.released:
            return "released"
        return "sent" if self.packet_id else "waiting"


class QueueReader:
    """Reads one file; a context manager. Not thread-safe.

    Raises: StoreError: there is no such file, it is not ours, or it is damaged; from every method.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: ExpiryClock | None = None) -> None:
        self.path = os.path.abspath(os.fsdecode(path))
        self._clock = clock or ExpiryClock()
        self._connection = _open(self.path, "ro")
        version = self._rows("PRAGMA user_version")[0][0]
        self._has_shelf = version >= _SHELF_VERSION
        self._is_checked = version >= _CHECKED_VERSION

    def stat(self) -> dict[str, Any]:
        """Return figures about the queue and the session; bytes are topics, properties and payloads.

        ``accepted`` is the sum of the messages that are there and of all that have ended; those on the shelf
        are in ``refused`` or ``damaged``, and not in ``messages``. The cost does not depend on the length of
        the queue.
        """
        row = self._session()
        rows = self._rows
        in_flight = rows("SELECT count(*), coalesce(sum(released), 0) FROM in_flight")[0]
        ends = rows("SELECT min(sequence) FROM message")[0] + rows("SELECT max(sequence) FROM message")[0]
        entries = rows(shelf.ENTRIES) if self._has_shelf else []
        shelved = Counter(status for _, _, status, _ in entries)
        shelf_bytes = sum(size for *_, size in entries)
        messages = row["written"] - row["removed"] - len(entries)
        ended = {name: row[name] + shelved[name] for name in COUNTERS}
        return {
            "path": self.path,
            "schema": rows("PRAGMA user_version")[0][0],
            "in_use": is_locked(self.path),
            "messages": messages,
            "waiting": messages - in_flight[0],
            "in_flight": in_flight[0] - in_flight[1],
            "released": in_flight[1],
            "bytes": row["written_bytes"] - row["removed_bytes"] - shelf_bytes,
            "first_sequence": ends[0],
            "last_sequence": ends[1],
            "file_bytes": sum(_file_size(self.path + suffix) for suffix in ("", "-wal", "-shm", ".reserve")),
            "free_bytes": rows("PRAGMA freelist_count")[0][0] * rows("PRAGMA page_size")[0][0],
            "received": rows("SELECT count(*) FROM received")[0][0],
            "subscriptions": [name for (name,) in rows("SELECT topic_filter FROM subscription")],
            "facts": dict(rows("SELECT name, value FROM fact")),
            "accepted": messages + sum(ended.values()),
            **ended,
            "shelf": {
                **{name: shelved[name] for name in SHELVED},
                "bytes": shelf_bytes,
                "pushed_off": row["pushed_off"],
                "withheld": rows("SELECT count(*) FROM withheld")[0][0] if self._has_shelf else 0,
            },
        }

    def peek(self, count: int) -> list[StoredMessage]:
        """Return the first ``count`` messages, in the order in which they were published."""
        return self._messages(0, count)

    def export(self) -> Iterator[StoredMessage]:
        """Go through all messages, in the order in which they were published."""
        after = 0
        while messages := self._messages(after, _STEP):
            yield from messages
            after = messages[-1].sequence

    def shelf(self) -> Iterator[StoredMessage]:
        """Go through the messages that are not sent any more, the oldest first."""
        if not self._has_shelf:
            return
        for _, sequence, status, reason, at in sorted(
            self._rows("SELECT place, sequence, status, reason, at FROM shelf")
        ):
            message = self._message(self._content(sequence))
            message.status, message.reason, message.at = status, reason, at
            yield message

    def check(self) -> list[str]:
        """Read the whole file and return its faults, empty for a sound file. Slow for a long queue."""
        try:
            problems = [text for (text,) in self._connection.execute("PRAGMA integrity_check")]
            if problems != ["ok"]:
                return problems
            return self._check_totals() + (self._check_rows() if self._is_checked else [])
        except (sqlite3.Error, OSError) as error:
            return [str(error)]

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._connection.close()

    def __enter__(self) -> QueueReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_totals(self) -> list[str]:
        problems = []
        self._connection.execute("BEGIN")  # one state of the file for all of it
        row = self._session()
        counted = self._rows(f"SELECT count(*), coalesce(sum({SIZE}), 0) FROM message")[0]
        orphans = self._rows(
            "SELECT count(*) FROM in_flight WHERE sequence NOT IN (SELECT sequence FROM message) "
            f"AND sequence >= {row['checked_from']}"  # the others were in a file that was lost
        )[0][0]
        self._connection.execute("COMMIT")
        kept = row["written"] - row["removed"], row["written_bytes"] - row["removed_bytes"]
        if kept != counted:
            problems.append(
                f"{counted[0]} messages of {counted[1]} bytes are there, "
                f"the totals say {kept[0]} of {kept[1]}"
            )
        if orphans:
            problems.append(f"{orphans} packet identifiers belong to no message")
        return problems

    def _check_rows(self) -> list[str]:
        """Compare every row with its checksum."""
        problems = []
        found = Damage()
        left_out = None if is_locked(self.path) else examine(self.path)
        if left_out is not None:
            problems.append(str(left_out))
        row, sound = session_row(self._connection)
        if not sound:
            problems.append("the row of the table session is not what was stored")
        reader = Reader(self._connection, self._clock, row["checked_from"], found)
        for table in SEALED.keys() - {"in_flight"}:
            reader.sealed(table)
        reader.in_flight()
        for _ in reader.waiting(0):
            pass
        problems += [f"rows of the table {table} are not what was stored" for table in sorted(found.state)]
        return problems + [f"not what was stored: {what}" for what in found.messages.values()]

    def _session(self) -> dict[str, int]:
        row = dict.fromkeys(SESSION_COLUMNS, 0)  # an older schema has fewer of them
        row.update(zip(SESSION_COLUMNS, self._rows("SELECT * FROM session")[0], strict=False))
        last = self._rows("SELECT written, written_bytes FROM message ORDER BY sequence DESC LIMIT 1")
        if last:
            row["written"] = max(row["written"], last[0][0])
            row["written_bytes"] = max(row["written_bytes"], last[0][1])
        return row

    def _messages(self, after: int, count: int) -> list[StoredMessage]:
        found = []
        where = (
            f"message.sequence > ? AND {shelf.NOT_ON_SHELF}" if self._has_shelf else "message.sequence > ?"
        )
        for *fields, packet_id, released in self._rows(
            f"{_SELECT} WHERE {where} ORDER BY message.sequence LIMIT ?", (after, count)
        ):
            message = self._message(fields)
            message.packet_id = packet_id or 0
            message.released = bool(released)
            found.append(message)
        return found

    def _content(self, sequence: int) -> Sequence[Any]:
        """Return the columns of a message that may be damaged."""
        statement = f"SELECT {MESSAGE_COLUMNS} FROM message WHERE sequence = ?"
        try:
            row = self._connection.execute(statement, (sequence,)).fetchone()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise StoreError(f"{self.path}: {error}") from error
            row = None
        return row or (sequence, b"", b"", 0, b"", None, None, None, None)

    def _message(self, fields: Sequence[Any]) -> StoredMessage:
        sequence, topic, payload, flags, properties, *times = fields
        message = StoredMessage(
            sequence,
            _bytes(topic),
            _bytes(payload),
            flags if type(flags) is int else 0,
            _bytes(properties),
            self._clock.from_row(*map(_number, times)),
        )
        message.status = None
        return message

    def _rows(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self.path}: {error}; `device-sdk queue check` says more") from error


def _number(content: Any) -> Any:
    return content if isinstance(content, (int, float)) else None


def _bytes(content: Any) -> bytes:
    return content if type(content) is bytes else repr(content).encode()  # damaged: it is something else


def check(path: str | os.PathLike[str]) -> list[str]:
    """Return the faults of a file, empty for a sound one. Raises: StoreError: it is no store."""
    with QueueReader(path) as reader:
        return reader.check()


def purge(path: str | os.PathLike[str]) -> int:
    """Delete the waiting messages, count them as dropped, and return their number.

    Messages that were sent and not acknowledged, the shelf, and the rest of the session stay. Raises:
    StoreError: a node has the file open; it is no store, or cannot be written.
    """
    return _change(path, _purge, shrink=True)


def purge_shelf(path: str | os.PathLike[str]) -> int:
    """Delete the messages on the shelf and return their number. Raises: StoreError, as :func:`purge`."""
    return _change(path, _purge_shelf, shrink=True)


def retry(path: str | os.PathLike[str]) -> int:
    """Put the refused messages of the shelf into the queue, at its end, and return their number.

    Each becomes a new message. Damaged ones stay: what they hold is not what was published. Raises:
    StoreError, as :func:`purge`.
    """
    return _change(path, _retry, shrink=False)


def _change(
    path: str | os.PathLike[str], action: Callable[[sqlite3.Connection], int], *, shrink: bool
) -> int:
    """Lock the file, bring it up to date, and run ``action`` in a transaction; return what that returns."""
    path = os.path.abspath(os.fsdecode(path))
    if os.path.islink(path):  # its lock would not be that of the file
        raise StoreError(f"{path}: this is a symbolic link; name the file that it leads to")
    _open(path, "ro").close()  # before a lock file is left beside another program's file
    lock = StoreLock(path)
    try:
        lock.acquire()
        if examine(path) is not None:
            raise _damaged(path)
        reserve = Reserve(path, 0)
        reserve.check()
        reserve.release()  # deleting needs some room, and this may be why it was called
        connection = _open(path, "rw")
        try:
            migrate(connection, version_of(connection, path))
            if not session_row(connection)[1]:
                raise _damaged(path)
            connection.execute("PRAGMA secure_delete = OFF")
            connection.execute("BEGIN IMMEDIATE")
            changed = action(connection)
            connection.execute(f"UPDATE session SET checksum = row_checksum({', '.join(SESSION_COLUMNS)})")
            connection.execute("COMMIT")
            if shrink:
                _shrink(connection)
            return changed
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path}: {error}") from error
    finally:
        lock.release()


def _damaged(path: str) -> StoreError:
    return StoreError(f"{path}: it is damaged; a client that opens it tells what is lost and goes on without")


def _shrink(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("VACUUM")
    except sqlite3.Error:
        pass  # on a full disk the file stays as large as it is, its pages are used again


def _purge(connection: sqlite3.Connection) -> int:
    waiting = f"FROM message WHERE sequence NOT IN (SELECT sequence FROM in_flight) AND {shelf.NOT_ON_SHELF}"
    _settle_totals(connection)
    count, total = connection.execute(f"SELECT count(*), coalesce(sum({SIZE}), 0) {waiting}").fetchone()
    connection.execute(
        "UPDATE session SET removed = removed + ?, removed_bytes = removed_bytes + ?, dropped = dropped + ?",
        (count, total, count),
    )
    connection.execute(f"DELETE {waiting}")
    return int(count)


def _purge_shelf(connection: sqlite3.Connection) -> int:
    _settle_totals(connection)
    return _clear_shelf(connection, SHELVED)


def _retry(connection: sqlite3.Connection) -> int:
    """Make new messages of the refused ones, but for those that turn out to be damaged."""
    found, clock = Damage(), ExpiryClock()
    reader = Reader(connection, clock, session_row(connection)[0]["checked_from"], found)
    refused = connection.execute(
        "SELECT sequence FROM shelf WHERE status = 'refused' ORDER BY place"
    ).fetchall()
    for (sequence,) in refused:
        if reader.message(sequence) is not None:
            _settle_totals(connection)
            _append_copy(connection, sequence)
    _settle_totals(connection)
    shelf.put(connection, found.entries(clock.time_of_day()))
    return _clear_shelf(connection, ("refused",))


def _append_copy(connection: sqlite3.Connection, sequence: int) -> None:
    """Add a message with the content of another one."""
    _, flags, topic, properties, payload, *times, number, written, written_bytes = connection.execute(
        "SELECT message.sequence, flags, topic, properties, payload, expires_at, life, wall_expiry, boot, "
        f"next_sequence, session.written + 1, session.written_bytes + {SIZE} "
        "FROM session, message WHERE message.sequence = ?",
        (sequence,),
    ).fetchone()
    content = topic, properties, payload
    checksum = of_message(number, flags, written, written_bytes, *content, (*times,))
    connection.execute(INSERT_EXPIRING, (number, flags, written, written_bytes, *content, checksum, *times))


def _clear_shelf(connection: sqlite3.Connection, statuses: tuple[str, ...]) -> int:
    """Delete the messages on the shelf with these statuses and return their number."""
    total = 0
    for status in statuses:
        sequences = "SELECT sequence FROM shelf WHERE status = ?"
        count, size = connection.execute(
            f"SELECT count(*), coalesce(sum({SIZE}), 0) FROM message WHERE sequence IN ({sequences})",
            (status,),
        ).fetchone()
        connection.execute(
            "UPDATE session SET removed = removed + ?, removed_bytes = removed_bytes + ?, "
            f"{status} = {status} + ?",
            (count, size, count),
        )
        connection.execute(f"DELETE FROM message WHERE sequence IN ({sequences})", (status,))
        connection.execute("DELETE FROM shelf WHERE status = ?", (status,))
        total += count
    return total


def _settle_totals(connection: sqlite3.Connection) -> None:
    """Write the running totals, which the last row may hold, into the session's row."""
    last = "(SELECT {} FROM message ORDER BY message.sequence DESC LIMIT 1)"
    connection.execute(
        f"UPDATE session SET written = max(written, coalesce({last.format('message.written')}, 0)), "
        f"written_bytes = max(written_bytes, coalesce({last.format('message.written_bytes')}, 0)), "
        f"next_sequence = max(next_sequence, coalesce({last.format('message.sequence')} + 1, 0))"
    )


def _open(path: str, mode: str) -> sqlite3.Connection:
    if not os.path.isfile(path):
        raise StoreError(f"{path}: there is no such file")
    check_unlocked(os.path.realpath(path))
    try:
        connection = _connect(path, mode)
        try:
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}; is it a store, and may this user read it?") from error
    if application != APPLICATION_ID or not 1 <= version <= len(MIGRATIONS):
        connection.close()
        raise StoreError(
            f"{path}: this is not a store of this release (application {application:#x}, schema {version})"
        )
    return connection


def _connect(path: str, mode: str) -> sqlite3.Connection:
    has_room = has_room_for_index(path)
    if mode == "ro" and not has_room and (takes_no_writes(path) or not is_locked(path)):
        return open_to_read(path)
    connection = sqlite3.connect(
        f"{Path(path).as_uri()}?mode={mode}", uri=True, timeout=BUSY_S, isolation_level=None
    )
    define(connection)
    if not has_room and mode == "rw":
        work_alone(connection)  # we have the lock
    return connection


def _file_size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
