"""The SQLite file of a store: reads a session, writes folded changes, recovers from failures of the disk.

Everything here runs in the store's own thread.
"""

from __future__ import annotations

import os
import sqlite3
from itertools import islice
from operator import attrgetter

from device_sdk.errors import StoreError, StoreUnavailableError
from device_sdk.store import shelf
from device_sdk.store.access import Access, code_of, is_full
from device_sdk.store.base import STORE_DAMAGED, Page, SavedSession, message_size, no_room_report
from device_sdk.store.checksum import of_message
from device_sdk.store.clock import NO_EXPIRY
from device_sdk.store.files import prepare, set_aside
from device_sdk.store.ownership import check_owner
from device_sdk.store.reading import Damage, Reader, is_damage, session_row
from device_sdk.store.schema import COUNTERS, PAGE_SIZE, SESSION_COLUMNS, SIZE, insert
from device_sdk.store.voucher import HOLDS, promises
from device_sdk.store.wal import examine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, ValuesView
    from typing import Any

    from device_sdk.store.base import Report, SavedMessage, StorePolicy
    from device_sdk.store.clock import ExpiryClock
    from device_sdk.store.pending import NewMessage, Pending

__all__ = ["INSERT_EXPIRING", "NAMED", "Database"]

_PUT_BACK = "a new file has everything that it held"

_INSERT = (
    "INSERT INTO message (sequence, flags, written, written_bytes, topic, properties, payload, checksum) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
#: The columns of a message; its times are the last.
INSERT_EXPIRING = (
    "INSERT INTO message (sequence, flags, written, written_bytes, topic, properties, payload, checksum, "
    "expires_at, life, wall_expiry, boot) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_EXPIRES_AT = attrgetter("expires_at")
#: Damaged messages that one report names.
NAMED = 5

# Codes that do not concern the file itself. While reading a session, any other error means damage.
_ENVIRONMENT = {
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_READONLY,
}

_UPDATE_SESSION = (
    "UPDATE session SET "
    + ", ".join(f"{name} = :{name}" for name in SESSION_COLUMNS)
    + f", checksum = row_checksum({', '.join(f':{name}' for name in SESSION_COLUMNS)})"
)


class Database:
    """One connection to one file, and the state from which to make a new file."""

    def __init__(self, path: str, policy: StorePolicy, clock: ExpiryClock) -> None:
        self._path = path
        self._policy = policy
        self._clock = clock
        self._access = Access(path, policy)
        self._row = dict.fromkeys(SESSION_COLUMNS, 0)  # the row of `session` as it should be
        self._row_written = dict(self._row)  # and as it is
        self._kept = SavedSession()  # subscriptions, facts, received and withheld ones, for a new file
        self._reports: list[Report] = []  # for the user; the store takes them
        self._shelved = 0  # messages on the shelf
        self._newest = 0  # the largest sequence number that has a row, or had one
        self._lost_through = 0  # the largest that a damaged file had
        self._damage = Damage()
        self._first_turn = 0  # added to change numbers, which begin at 1 in each process

    # Opening and closing

    def open(self) -> tuple[SavedSession, str | None]:
        """Return the session, and a notice for the user or ``None``.

        Raises: StoreError: the file belongs to another program or a newer release. StoreUnavailableError: it
        cannot be read.
        """
        access = self._access
        check_owner(self._path)
        access.reserve.check()
        notice = _emptied(self._path)
        try:
            self._damage.left_out(examine(self._path, access.reserve))
            saved = self._load()
        except (OSError, sqlite3.Error, TypeError, ValueError) as error:
            if isinstance(error, OSError) or is_full(error) or code_of(error) in _ENVIRONMENT:
                raise self._unusable(error) from error
            notice = self._set_aside(error)
            try:
                saved = self._load()
            except (sqlite3.Error, OSError) as again:
                raise self._unusable(again) from again
        access.reserve.keep()
        return saved, notice

    @property
    def problem(self) -> str | None:
        """Why nothing can be written, as far as that is known."""
        return self._access.why

    def kept(self, unwritten: Pending) -> int:
        """Return how many messages the file has for the next client, but for those that have ended since."""
        ended = unwritten.gone.keys() | unwritten.shelf.put.keys()
        again = sum(1 for sequence in ended if sequence > self._lost_through)
        return self._row["written"] - self._row["removed"] - self._shelved - again

    def close(self) -> None:
        """Write the session's row if it is not up to date, and close the file."""
        access = self._access
        try:
            if self._row != self._row_written and access.connection is not None and access.why is None:
                access.connection.execute(_UPDATE_SESSION, self._row)
        finally:
            access.disconnect()

    def leave(self) -> None:
        """Close the file as it is. Never raises."""
        self._access.disconnect()

    def _unusable(self, error: Exception) -> StoreError:
        self._access.disconnect()
        return StoreUnavailableError(
            f"{self._path}: {error}; is the disk full, failing or not ours to write?"
        )

    def take_reports(self) -> list[Report]:
        """Return what the user should know of, since the last call."""
        reports, self._reports = self._reports, []
        return reports

    # Reading

    def _load(self) -> SavedSession:
        """Read the session; the cost does not depend on the length of the queue."""
        connection = self._access.connect()
        row, sound = session_row(connection)
        self._row_written = dict(row)
        self._row = row if sound else self._counted()
        saved = SavedSession()
        reader = self._reader()
        last = reader.last_totals()
        if last is not None:
            self._newest = last[0]
            for name, least in zip(("next_sequence", "written", "written_bytes"), last, strict=True):
                self._row[name] = max(self._row[name], least + (name == "next_sequence"))
        saved.messages, withheld = reader.in_flight()
        self._load_small(saved, reader)
        saved.withheld |= withheld
        self.mend()
        in_flight_bytes = sum(map(message_size, saved.messages))
        in_flight = len(saved.messages)
        reader = self._reader()
        saved.messages += _first_page(reader)
        saved.latest = reader.latest()
        self.mend()
        saved.shelved, shelved_bytes = shelf.count(connection)
        self._shelved = saved.shelved
        row = self._row
        saved.waiting = row["written"] - row["removed"] - in_flight - saved.shelved
        saved.waiting_bytes = row["written_bytes"] - row["removed_bytes"] - in_flight_bytes - shelved_bytes
        (self._first_turn,) = connection.execute("SELECT coalesce(max(turn), 0) FROM in_flight").fetchone()
        return saved

    def _load_small(self, saved: SavedSession, reader: Reader) -> None:
        saved.next_sequence = self._row["next_sequence"]
        saved.last_packet_id = self._row["last_packet_id"]
        saved.received = {packet_id for (packet_id,) in reader.sealed("received")}
        saved.withheld = {packet_id for (packet_id,) in reader.sealed("withheld")}
        saved.facts = dict(reader.sealed("fact"))
        for topic_filter, qos, no_local, as_published, handling in reader.sealed("subscription"):
            saved.subscriptions[topic_filter] = qos, bool(no_local), bool(as_published), handling
        reader.sealed("shelf")
        if self._damage.ends_session:
            saved.facts.pop("session", None)
        self._kept.received = set(saved.received)
        self._kept.withheld = set(saved.withheld)
        self._kept.facts = dict(saved.facts)
        self._kept.subscriptions = dict(saved.subscriptions)

    def _reader(self) -> Reader:
        return Reader(self._access.connect(), self._clock, self._row["checked_from"], self._damage)

    def waiting(self, after: int, *, lost: bool = False) -> Generator[SavedMessage, None, None]:
        """Read waiting messages with a sequence number above ``after``; see :meth:`Reader.waiting`."""
        return self._reader().waiting(after, lost=lost)

    def _counted(self) -> dict[str, int]:
        """Return a row of ``session`` for one that is damaged, as far as the messages tell it."""
        connection = self._access.connect()
        row = dict.fromkeys(SESSION_COLUMNS, 0)
        row["next_sequence"] = 1
        (row["checked_from"],) = connection.execute(
            "SELECT coalesce(max(CASE WHEN checksum IS NULL THEN sequence END), 0) + 1 FROM message"
        ).fetchone()
        last = Reader(connection, self._clock, row["checked_from"], self._damage).last_totals()
        if last is not None:
            row["written"], row["written_bytes"] = last[1:]
        _recount(connection, row)
        self._damage.state["session"] = []
        return row

    def mend(self) -> None:
        """Put damaged messages on the shelf, and go on without damaged rows of the session. Reports both.

        What cannot be written now is passed over in reading. Raises: sqlite3.Error: the file is no database.
        """
        found = self._damage
        if not found:
            return
        self._damage = found.rest()
        self._reports += _damage_reports(found)
        connection = self._access.connect()
        row = dict(self._row)
        try:
            connection.execute("BEGIN IMMEDIATE")
            _write_sound(connection, found)
            pushed_off = self._shelve_damaged(connection, found, row)
            connection.execute(_UPDATE_SESSION, row)
            shelved = shelf.count(connection)[0]
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            _roll_back(connection)
            if is_damage(error):
                raise
            return
        self._shelved = shelved
        if pushed_off:
            self._reports.append(no_room_report(pushed_off))
        self._row, self._row_written = row, dict(row)

    def _shelve_damaged(self, connection: sqlite3.Connection, found: Damage, row: dict[str, int]) -> int:
        """Put damaged messages on the shelf; return for how many it had no room."""
        before = shelf.count(connection)[0]
        self._kept.withheld |= shelf.put(connection, found.entries(self._clock.time_of_day()))
        gone = before + len(found.messages) - shelf.count(connection)[0]  # they have no row
        if gone:
            row["damaged"] += gone
            _recount(connection, row)
        return _push_off(connection, self._policy, row)

    # Writing

    def shortage(self, new_bytes: int) -> str | None:
        """Return why new messages must not be written now, or ``None``: too little would stay free.

        Pages of the file that deleted messages left behind count as room.
        """
        reserve, connection = self._access.reserve, self._access.connection
        reserve.keep()
        spare = 0
        if connection is not None:
            try:
                (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
                spare = pages * PAGE_SIZE
            except sqlite3.Error:
                pass  # writing will report the error
        return reserve.shortage(new_bytes - spare) if new_bytes > spare else None

    def write(self, batch: Pending) -> None:
        """Write a batch in one transaction; an empty batch tests whether the disk accepts writes.

        Raises: sqlite3.Error, StoreError: nothing was written.
        """
        connection = self._access.connect_to_write()
        row = dict(self._row)
        connection.execute("BEGIN IMMEDIATE")
        try:
            if batch.lost:
                _lose(connection, batch, row)
            _remove(connection, batch.gone, row)
            self._insert(connection, batch.new.values(), row)
            _move(connection, batch, self._first_turn)
            withheld = self._shelve(connection, batch, row)
            moved = batch.shelf.put or batch.shelf.taken
            shelved = shelf.count(connection)[0] if moved else self._shelved
            _write_small(connection, batch, self._kept)
            for status, count in batch.ended.items():
                row[status] += count
            row["next_sequence"] = max(row["next_sequence"], batch.next_sequence)
            if batch.last_packet_id is not None:
                row["last_packet_id"] = batch.last_packet_id
            # Rows that were only added carry the totals themselves: that is one page less.
            write_row = batch.is_empty() or any(
                row[name] != self._row_written[name] for name in ("removed", "last_packet_id")
            )
            if write_row:
                connection.execute(_UPDATE_SESSION, row)
            connection.execute("COMMIT")
        except BaseException:
            _roll_back(connection)
            raise
        if row["pushed_off"] != self._row["pushed_off"]:
            self._reports.append(no_room_report(row["pushed_off"] - self._row["pushed_off"]))
        self._row = row
        self._shelved = shelved
        if batch.new:
            self._newest = next(reversed(batch.new))
        if write_row:
            self._row_written = dict(row)
        _keep_small(self._kept, batch, withheld)

    def _shelve(self, connection: sqlite3.Connection, batch: Pending, row: dict[str, int]) -> set[int]:
        """Write the changes of the shelf; return the packet identifiers that are withheld from now on."""
        changes = batch.shelf
        withheld = set(changes.withheld)
        shelf.withhold(connection, withheld)
        if changes.put or changes.taken:
            withheld |= shelf.put(connection, changes.put)
            _remove(connection, shelf.take_off(connection, changes.taken), row)
            _push_off(connection, self._policy, row)
        return withheld

    def _insert(
        self, connection: sqlite3.Connection, messages: ValuesView[NewMessage], row: dict[str, int]
    ) -> None:
        if set(map(_EXPIRES_AT, messages)) <= {None}:  # most batches: a fifth less work for SQLite
            connection.executemany(_INSERT, self._new_rows(messages, row, expiring=False))
        else:
            connection.executemany(INSERT_EXPIRING, self._new_rows(messages, row, expiring=True))
        connection.executemany(
            insert("in_flight"),
            [
                (each.sequence, each.packet_id, each.released, each.turn + self._first_turn)
                for each in messages
                if each.packet_id
            ],
        )

    def _new_rows(
        self, messages: ValuesView[NewMessage], row: dict[str, int], *, expiring: bool
    ) -> Generator[tuple[Any, ...], None, None]:
        written, written_bytes = row["written"], row["written_bytes"]
        times = NO_EXPIRY
        for each in messages:
            written += 1
            written_bytes += each.size
            sequence, flags, payload = each.sequence, each.flags, each.payload
            topic, properties = each.topic_field, each.properties
            if expiring:
                times = self._clock.to_row(each.expires_at)
            checksum = of_message(sequence, flags, written, written_bytes, topic, properties, payload, times)
            # bytearray: sqlite3 looks for an adapter of everything else but numbers and text, 0.3 us each.
            content = bytearray(topic), bytearray(properties), bytearray(payload)
            fields = (sequence, flags, written, written_bytes, *content, checksum)
            yield fields + times if expiring else fields
        row["written"], row["written_bytes"] = written, written_bytes

    # Trouble

    def recover(self, error: BaseException) -> str | None:
        """Prepare the next attempt after a failure.

        Returns: a notice for the user if a damaged file was set aside and a new one begun. Raises:
        sqlite3.Error, OSError, StoreError: no new file could be made.
        """
        if is_full(error):
            self._access.reserve.release()
        elif is_damage(error):
            return self._begin_anew(error)
        elif code_of(error) != sqlite3.SQLITE_READONLY:
            self._access.disconnect()  # after a failed flush no open file is trusted
        return None

    def _set_aside(self, error: BaseException) -> str:
        self._access.disconnect()
        try:
            if self._access.place.is_lost():  # another file was put into its place
                check_owner(self._path)
            kept = set_aside(self._path)
            prepare(self._path)
            self._access.place.take()
        except OSError as problem:
            raise StoreUnavailableError(
                f"{self._path}: {error}, and it cannot be renamed: {problem.strerror}"
            ) from problem
        return f"{self._path}: {error}; it was set aside as {kept} and a new one begun"

    def _begin_anew(self, error: BaseException) -> str:
        """Set the file aside and carry over the state in memory: everything but the queued messages."""
        notice = self._set_aside(error)
        self._carry_over()
        return notice

    def stay_in_place(self) -> tuple[str, bool] | None:
        """Put the files back if they were removed; ``None``: they are where they were.

        Returns: a notice for the user, and whether the queued messages are lost. Raises: StoreError: another
        file is in its place. sqlite3.Error, OSError: there is no room, for example.
        """
        place, connection = self._access.place, self._access.connection
        if place.is_lost():
            self._access.reserve.look_again()
            if connection is not None:
                place.copy_back(connection)
                self._access.disconnect()
                return f"{self._path}: it was removed while it was open; {_PUT_BACK}", False
            place.check_free()
            prepare(self._path)
            place.take()
            self._carry_over()
            return f"{self._path}: it was removed while the disk failed; a new one was begun", True
        if connection is not None and place.log_is_lost():
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StoreError(f"{self._path}-wal: it was removed, and another program reads the database")
            self._access.disconnect()
            self._access.connect()
            return f"{self._path}-wal: it was removed while it was open; {_PUT_BACK}", False
        return None

    def _carry_over(self) -> None:
        """Write the state in memory, which is everything but the queued messages, into a new file."""
        connection = self._access.connect()
        row = self._row
        row["dropped"] += row["written"] - row["removed"]
        row["removed"], row["removed_bytes"] = row["written"], row["written_bytes"]
        self._lost_through = self._newest
        row["checked_from"] = self._newest + 1  # those before it are known to be gone
        self._shelved = 0
        kept = self._kept
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_UPDATE_SESSION, row)
        _write_received(connection, dict.fromkeys(kept.received, True))
        shelf.withhold(connection, kept.withheld)
        _write_subscriptions(connection, dict(kept.subscriptions))
        _write_facts(connection, kept.facts)
        connection.execute("COMMIT")
        self._row_written = dict(row)


def _emptied(path: str) -> str | None:
    """Return a notice for the user if a file of ours has lost everything, not by a store."""
    if promises(path)[0] != HOLDS:
        return None
    try:
        if os.path.getsize(path):
            return None
        what = "was emptied"
    except FileNotFoundError:
        what = "was removed"
    return f"{path}: it {what} since it was used last; the messages that it held are lost, a new one is begun"


def _move(connection: sqlite3.Connection, batch: Pending, first_turn: int) -> None:
    connection.executemany(
        insert("in_flight"),
        [(sequence, packet_id, 0, turn + first_turn) for sequence, (packet_id, turn) in batch.sent.items()],
    )
    connection.executemany(
        "UPDATE in_flight SET released = 1, turn = ?1, "
        "checksum = row_checksum(sequence, packet_id, 1, ?1) "
        "WHERE sequence = ?2 AND checksum = row_checksum(sequence, packet_id, released, turn)",
        [(turn + first_turn, sequence) for sequence, turn in batch.released.items()],
    )


def _write_small(connection: sqlite3.Connection, batch: Pending, kept: SavedSession) -> None:
    """Write the rest of the session, without what is there already: a starting program repeats much."""
    _write_received(connection, batch.received)
    _write_subscriptions(
        connection,
        {
            name: options
            for name, options in batch.subscriptions.items()
            if options != kept.subscriptions.get(name)
        },
    )
    _write_facts(
        connection,
        {
            name: value
            for name, value in batch.facts.items()
            if name not in kept.facts or value != kept.facts[name]
        },
    )


def _write_sound(connection: sqlite3.Connection, found: Damage) -> None:
    """Leave only the sound rows in tables of the session."""
    for table in found.state.keys() - {"session"}:
        connection.execute(f"DELETE FROM {table}")
        connection.executemany(insert(table), found.state[table])
    if found.ends_session:
        connection.execute("DELETE FROM fact WHERE name = 'session'")


def _recount(connection: sqlite3.Connection, row: dict[str, int]) -> None:
    """Take for removed what was written and is not there."""
    count, size = connection.execute(f"SELECT count(*), coalesce(sum({SIZE}), 0) FROM message").fetchone()
    row["removed"], row["removed_bytes"] = row["written"] - count, row["written_bytes"] - size


def _first_page(reader: Reader) -> list[SavedMessage]:
    page = Page()
    rows = reader.waiting(0)
    for message in rows:
        if not page.add(message):
            break
    rows.close()
    return page.messages


def _damage_reports(found: Damage) -> Iterator[Report]:
    """Return what the user should know: of the log, of the messages, of the session."""
    messages, state = found.messages, found.state
    anew = "; the session with the broker begins anew" if found.ends_session else ""
    if found.log is not None:
        yield STORE_DAMAGED, f"{found.log}{'' if state else anew}", None
    if messages:
        some = ", ".join(islice(messages.values(), NAMED))
        more = f" and {len(messages) - NAMED} more" if len(messages) > NAMED else ""
        text = f"not what was stored, and on the shelf instead of sent: {some}{more}"
        yield STORE_DAMAGED, text, str(len(messages))
    if state:
        text = f"parts of the session are not what was stored, and are left out: {', '.join(sorted(state))}"
        yield STORE_DAMAGED, text + anew, None


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        pass  # the error that made it necessary is on its way to the caller


def _lose(connection: sqlite3.Connection, batch: Pending, row: dict[str, int]) -> None:
    released = connection.execute("SELECT sequence FROM in_flight WHERE released").fetchall()
    ended = {sequence: "acknowledged" for (sequence,) in released if sequence not in batch.shelf.put}
    _remove(connection, ended, row)
    for table in ("in_flight", "received", "withheld"):
        connection.execute(f"DELETE FROM {table}")


def _remove(connection: sqlite3.Connection, gone: dict[int, str], row: dict[str, int]) -> None:
    for status, first, last in _ranges(gone):
        between = "WHERE sequence BETWEEN ? AND ?"
        count, size = connection.execute(
            f"SELECT count(*), coalesce(sum({SIZE}), 0) FROM message {between}", (first, last)
        ).fetchone()
        # A message of a file that was lost has no row, and a packet identifier all the same.
        connection.execute(f"DELETE FROM in_flight {between}", (first, last))
        if count:
            connection.execute(f"DELETE FROM message {between}", (first, last))
            row["removed"] += count
            row["removed_bytes"] += size
            row[status if status in COUNTERS else "dropped"] += count


def _push_off(connection: sqlite3.Connection, policy: StorePolicy, row: dict[str, int]) -> int:
    pushed_off = shelf.push_off(connection, policy)
    _remove(connection, pushed_off, row)
    row["pushed_off"] += len(pushed_off)
    return len(pushed_off)


def _ranges(gone: dict[int, str]) -> Iterator[tuple[str, int, int]]:
    """Join adjacent sequence numbers that ended in the same way."""
    first = last = -1
    ended = ""
    for sequence, status in sorted(gone.items()):
        if sequence == last + 1 and status == ended:
            last = sequence
            continue
        if ended:
            yield ended, first, last
        first = last = sequence
        ended = status
    if ended:
        yield ended, first, last


def _write_received(connection: sqlite3.Connection, received: dict[int, bool]) -> None:
    connection.executemany(
        insert("received", instead="IGNORE"), [(number,) for number, held in received.items() if held]
    )
    connection.executemany(
        "DELETE FROM received WHERE packet_id = ?",
        [(number,) for number, held in received.items() if not held],
    )


def _write_subscriptions(
    connection: sqlite3.Connection, subscriptions: dict[str, tuple[Any, ...] | None]
) -> None:
    for topic_filter, options in subscriptions.items():
        if options is None:
            connection.execute("DELETE FROM subscription WHERE topic_filter = ?", (topic_filter,))
        else:
            connection.execute(insert("subscription"), (topic_filter, *options))


def _write_facts(connection: sqlite3.Connection, facts: dict[str, Any]) -> None:
    connection.executemany(insert("fact"), facts.items())


def _keep_small(kept: SavedSession, batch: Pending, withheld: set[int]) -> None:
    if batch.lost:
        kept.received.clear()
        kept.withheld.clear()
    kept.withheld |= withheld
    for packet_id, held in batch.received.items():
        (kept.received.add if held else kept.received.discard)(packet_id)
    for topic_filter, options in batch.subscriptions.items():
        if options is None:
            kept.subscriptions.pop(topic_filter, None)
        else:
            kept.subscriptions[topic_filter] = options
    kept.facts.update(batch.facts)
