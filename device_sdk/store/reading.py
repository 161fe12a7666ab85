"""Reading the database: every row is compared with its checksum, and damaged ones are told from the rest."""

from __future__ import annotations

import sqlite3
from operator import itemgetter

from device_sdk.store.base import KEEP_LAST, SavedMessage
from device_sdk.store.checksum import is_message, of_row
from device_sdk.store.schema import (
    MESSAGE_CHECK,
    MESSAGE_COLUMNS,
    SEALED,
    SESSION_COLUMNS,
    SIZE,
)
from device_sdk.store.shelf import NOT_ON_SHELF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from device_sdk.store.clock import ExpiryClock
    from device_sdk.store.wal import LogDamage

__all__ = ["Damage", "Reader", "is_damage", "session_row"]

#: Codes that only a file can have that is not what we wrote: our statements never break a constraint.
_DAMAGE = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
)

#: The largest payload that is read for a checksum where only the topic is needed.
_SMALL = 2048

#: Tables without one of whose rows nobody knows which packet identifiers the broker has.
_NEEDED = {"in_flight", "received", "withheld", "session"}

#: Characters of a topic name that are shown.
_SHOWN = 80


def is_damage(error: BaseException) -> bool:
    """Whether the file is no longer a sound database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def _out_of_order() -> sqlite3.Error:
    error = sqlite3.DatabaseError("messages are out of order")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


class Damage:
    """Damage that was met while reading, until it has been dealt with.

    ``log``: the end of the write-ahead log that was left out; ``messages``: sequence number -> a few words;
    ``state``: tables of the session with damaged rows -> their sound rows; ``met``: every message that ever
    was in here, so that each is told once.
    """

    __slots__ = ("log", "messages", "met", "state")

    def __init__(self) -> None:
        self.log: LogDamage | None = None
        self.messages: dict[int, str] = {}
        self.met: set[int] = set()
        self.state: dict[str, list[tuple[Any, ...]]] = {}

    def left_out(self, log: LogDamage | None) -> None:
        """Note what was left out of the log."""
        self.log = log

    @property
    def ends_session(self) -> bool:
        """Whether nobody knows any more which packet identifiers the broker has."""
        return bool(_NEEDED & self.state.keys()) or (self.log is not None and self.log.is_certain)

    def __bool__(self) -> bool:
        return bool(self.messages or self.state or self.log)

    def message(self, sequence: int, what: str) -> None:
        """Note a damaged message."""
        if sequence not in self.met:
            self.met.add(sequence)
            self.messages[sequence] = what

    def rest(self) -> Damage:
        """Return what remains when this has been dealt with."""
        rest = Damage()
        rest.met = self.met
        return rest

    def entries(self, at: float) -> dict[int, tuple[str, str, float]]:
        """Return the messages as entries of the shelf; ``at``: wall-clock time."""
        return {one: ("damaged", f"not what was stored: {what}", at) for one, what in self.messages.items()}


class Reader:
    """Reads one connection. ``checked_from``: the messages of this file from this number on have a checksum.

    Those before it are of an older release, or were in a file that was lost.
    """

    def __init__(
        self, connection: sqlite3.Connection, clock: ExpiryClock, checked_from: int, found: Damage
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._checked_from = checked_from
        self._found = found

    def sealed(self, table: str) -> list[tuple[Any, ...]]:
        """Return the sound rows of a table of the session."""
        rows = self._connection.execute(f"SELECT {SEALED[table]}, checksum FROM {table}").fetchall()
        sound = [row[:-1] for row in rows if of_row(*row[:-1]) == row[-1]]
        if len(sound) < len(rows):
            self._found.state[table] = sound
        return sound

    def in_flight(self) -> tuple[list[SavedMessage], set[int]]:
        """Return the messages in flight in the order of sending, the released ones in that of their PUBRECs.

        And the packet identifiers of those that are damaged or gone. One of which the state is damaged is
        in neither: it waits again.
        """
        messages, withheld = [], set()
        for sequence, packet_id, released, _ in sorted(self.sealed("in_flight"), key=itemgetter(2, 3)):
            message = self.message(sequence)
            if message is None:
                withheld.add(packet_id)
                continue
            message.packet_id = packet_id
            message.released = bool(released)
            messages.append(message)
        return messages, withheld

    def waiting(self, after: int, *, lost: bool = False) -> Generator[SavedMessage, None, None]:
        """Read waiting messages with a sequence number above ``after``, in order, without damaged ones.

        ``lost``: as if messages that were sent, and not yet released, waited again.
        """
        try:
            for message in self._together(after, lost):
                after = message.sequence
                yield message
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
        else:
            return
        yield from self._apart(after, lost)

    def latest(self) -> dict[bytes, tuple[int, int]]:
        """Return topic field -> (sequence, bytes) of the waiting messages of topics with ``keep_last``."""
        latest: dict[bytes, tuple[int, int]] = {}
        for sequence, topic, size, small in self._connection.execute(
            f"SELECT sequence, topic, {SIZE}, length(payload) <= {_SMALL} FROM message "
            f"WHERE flags & {KEEP_LAST} AND sequence NOT IN (SELECT sequence FROM in_flight) "
            f"AND {NOT_ON_SHELF} ORDER BY sequence"
        ).fetchall():
            if not small or self.message(sequence) is not None:
                latest[topic] = sequence, size
        return latest

    def last_totals(self) -> tuple[int, int, int] | None:
        """Return (sequence, written, written_bytes) of the last message.

        Behind a damaged one the rows are counted from the last sound one on.
        """
        last = sound = None
        for (sequence,) in self._connection.execute("SELECT sequence FROM message ORDER BY sequence DESC"):
            last = sequence if last is None else last
            row = self._row(sequence)
            if row is not None and is_message(row, self._checked_from):
                sound = sequence, row[-3], row[-2]
                break
        if last is None or (sound is not None and sound[0] == last):
            return sound
        sequence, written, written_bytes = sound or (-1, 0, 0)
        count, size = self._connection.execute(
            f"SELECT count(*), coalesce(sum({SIZE}), 0) FROM message WHERE sequence > ?", (sequence,)
        ).fetchone()
        return last, written + count, written_bytes + size

    def _together(self, after: int, lost: bool) -> Generator[SavedMessage, None, None]:
        cursor = self._connection.execute(
            f"SELECT {MESSAGE_COLUMNS}, {MESSAGE_CHECK} FROM message {_waits(after, lost)}"
        )
        try:
            for row in cursor:
                if row[0] <= after:
                    raise _out_of_order()
                after = row[0]
                message = self._message(row)
                if message is not None:
                    yield message
        finally:
            cursor.close()  # an open cursor would keep the log from being reused

    def _apart(self, after: int, lost: bool) -> Generator[SavedMessage, None, None]:
        """As :meth:`_together`, but a row that cannot be read does not end it."""
        cursor = self._connection.execute(f"SELECT sequence FROM message {_waits(after, lost)}")
        try:
            for (sequence,) in cursor:
                if sequence <= after:
                    raise _out_of_order()
                after = sequence
                message = self.message(sequence)
                if message is not None:
                    yield message
        finally:
            cursor.close()

    def message(self, sequence: int) -> SavedMessage | None:
        """Return one message; ``None``: it is damaged or gone, and was noted."""
        row = self._row(sequence)
        return None if row is None else self._message(row)

    def _row(self, sequence: int) -> Any:
        """Return the columns of MESSAGE_COLUMNS and of MESSAGE_CHECK, ``None`` if they cannot be read."""
        try:
            row = self._connection.execute(
                f"SELECT {MESSAGE_COLUMNS}, {MESSAGE_CHECK} FROM message WHERE sequence = ?", (sequence,)
            ).fetchone()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self._found.message(sequence, f"message {sequence} (cannot be read: {error})")
            return None
        if row is None and sequence >= self._checked_from:  # an earlier one was told to be lost
            self._found.message(sequence, f"message {sequence} (is gone)")
        return row

    def _message(self, row: Any) -> SavedMessage | None:
        if not is_message(row, self._checked_from):
            self._found.message(row[0], _words(row))
            return None
        sequence, topic, payload, flags, properties, expires_at = row[:6]
        if expires_at is not None:
            expires_at = self._clock.from_row(*row[5:9])
        return SavedMessage(sequence, topic, payload, flags, properties, expires_at)


def _waits(after: int, lost: bool) -> str:
    return (
        f"WHERE message.sequence > {after} "
        f"AND message.sequence NOT IN (SELECT sequence FROM in_flight WHERE released >= {int(lost)}) "
        f"AND {NOT_ON_SHELF} ORDER BY message.sequence"
    )


def _words(row: Any) -> str:
    """Return a few words about a damaged message, safe to print: even its topic may be anything."""
    sequence, topic, payload = row[:3]
    name = topic[2:].decode("utf-8", "replace") if type(topic) is bytes else repr(topic)
    size = f", {len(payload)} bytes" if type(payload) is bytes else ""
    return f"message {sequence} ({name[:_SHOWN]!a}{size})"


def session_row(connection: sqlite3.Connection) -> tuple[dict[str, int], bool]:
    """Return the row of ``session``, and whether it is sound."""
    row = connection.execute(f"SELECT {', '.join(SESSION_COLUMNS)}, checksum FROM session").fetchone()
    if row is None:
        return dict.fromkeys(SESSION_COLUMNS, 0), False
    return dict(zip(SESSION_COLUMNS, row[:-1], strict=True)), of_row(*row[:-1]) == row[-1]
