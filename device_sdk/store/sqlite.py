"""A store in an SQLite file: session and queue survive restarts, ``kill -9`` and, if flushed, power cuts.

The engine submits changes and goes on; a thread of the store writes them. It waits for ``linger`` first,
because a message that is acknowledged within that time never has to be written: a node that is online hardly
touches its card. The rows are in :mod:`device_sdk.store.schema`, the reasons in docs/decisions/0009.
"""

from __future__ import annotations

import os
import threading
import time
import weakref

from device_sdk._clock import boottime
from device_sdk._folding import Folding
from device_sdk._log import Log
from device_sdk.errors import StoreError, StoreUnavailableError
from device_sdk.store.access import is_full
from device_sdk.store.base import (
    NOTHING_LOST,
    Page,
    PageMessage,
    SavedMessage,
    SavedSession,
    Store,
    StorePolicy,
)
from device_sdk.store.clock import ExpiryClock
from device_sdk.store.database import Database
from device_sdk.store.files import StoreLock
from device_sdk.store.ownership import check_unlocked
from device_sdk.store.pending import LAZY_S, NEVER, Pending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any

    Change = tuple[Any, ...]

__all__ = ["RETRY_S", "SqliteStore"]

#: Pauses between attempts to write to a failing disk: the first, and the longest after doubling each time.
RETRY_S = (0.5, 30.0)

_CLOSE_S = 3.0  # how long close() waits for a disk that does not answer
_EXIT_S = 30.0  # how long the end of the process does
_ATTEMPTS = 3  # in a row: after making room, after beginning a new file
_OPENING, _LEFT, _OPEN, _CLOSING, _CLOSED = range(5)  # _LEFT: nobody waits for the opening any more

log = Log("device_sdk.store")
_repeating = Folding(log)  # of all stores: their paths tell them apart


class _Retry:
    """When a failing disk is tried again. The store's lock guards it."""

    __slots__ = ("_pause", "at")

    def __init__(self) -> None:
        self.at = 0.0
        self._pause = RETRY_S[0]

    def failed(self, now: float) -> None:
        """Try again after a pause that is twice the last one."""
        self.at = now + self._pause
        self._pause = min(2 * self._pause, RETRY_S[1])


class _PageRequest:
    """What :meth:`Store.request_page` asked for. The store's lock guards it."""

    __slots__ = ("_answer", "after", "due", "number")

    def __init__(self) -> None:
        self.after = 0
        self.number = 0
        self.due = NEVER  # when to read it, in monotonic seconds
        self._answer: list[SavedMessage] | None = None

    def ask(self, after: int) -> None:
        """Let the thread read; an answer to an earlier request is not wanted any more."""
        self._answer = None
        self.after = after
        self.number += 1
        self.due = 0.0

    def postpone(self, due: float) -> None:
        """Read later, if anything is to be read."""
        self.due = max(self.due, due)

    def answer(self, number: int, messages: list[SavedMessage]) -> None:
        """Give the answer to the request with this number."""
        if number == self.number:
            self._answer = messages
            self.due = NEVER

    def take(self) -> list[SavedMessage] | None:
        """Return the answer, once."""
        answer, self._answer = self._answer, None
        return answer


class SqliteStore(Store):
    """Keeps the session in the file at ``path``; :class:`StorePolicy` decides how eagerly it is written.

    ``notice`` is a warning while the store goes on working, for example that a damaged file was set aside;
    its reader sets it back to ``None``. It can appear in :meth:`open` and before any ``on_progress``.
    ``monotonic`` and ``clock`` are for tests.

    The files: ``path`` and SQLite's ``-wal`` and ``-shm``, ``path.lock``, ``path.reserve``; damaged ones are
    renamed ``path.damaged-1`` and ``-2``, copies of damaged logs are ``path.damaged-log-1`` and ``-2``.
    """

    on_disk = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        policy: StorePolicy | None = None,
        *,
        monotonic: Callable[[], float] | None = None,
        clock: ExpiryClock | None = None,
    ) -> None:
        super().__init__()
        self.path = os.path.abspath(os.fsdecode(path))
        self.policy = policy or StorePolicy()
        self._monotonic = monotonic or time.monotonic
        self._clock = clock or ExpiryClock(monotonic or boottime)
        self._linger = 0.0 if self.policy.durability == "sync" else self.policy.linger
        self._soonest = min(self._linger, LAZY_S)
        self._file_lock = StoreLock(self.path)
        self._state = _CLOSED
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()  # guards what follows; held for moments, never during I/O
        self._wake = threading.Condition(self._lock)
        self._sleeps_until = 0.0  # 0: the thread is awake and will check again by itself
        self._pending = Pending()
        self._writing: Pending | None = None
        self._submitted = 0
        self._hurry = 0  # the change number that expedite() asked for
        self._retry = _Retry()
        self._page = _PageRequest()
        self._thread: threading.Thread | None = None
        self.kept = None
        self.durable_through = 0
        self.lost_through = self._damaged_through = NOTHING_LOST  # the latter without files that were removed
        self.backlog_bytes = 0
        self.failure = None

    # The contract; any thread

    def open(self) -> SavedSession:
        """Return the saved session and start the thread.

        A file that can only be read is no error: ``failure`` says why. Nor is one that cannot be made.
        Raises: StoreError: another client has it open; the file is no store or belongs to a newer release,
        and is left alone; it is a symbolic link. StoreUnavailableError: the disk did not answer within
        ``open_timeout``, or the file cannot even be read; open() may be called again.
        """
        patience = min(self.policy.open_timeout, threading.TIMEOUT_MAX)
        if self._state == _LEFT and self._thread is not None:
            self._thread.join(patience)
        if self._state == _LEFT:
            raise _no_answer(self.path, patience)
        if self._state != _CLOSED:
            raise StoreError(
                f"{self.path}: this SqliteStore is in use by another client; close that one first"
            )
        self._reset()
        self._state = _OPENING
        outcome: list[SavedSession | BaseException] = []
        opened = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(outcome, opened), name="device-sdk store", daemon=True
        )
        self._thread = thread
        thread.start()
        try:
            opened.wait(patience)
        finally:
            with self._lock:
                if not outcome:
                    self._state = _LEFT
        if not outcome:
            raise _no_answer(self.path, patience)
        (result,) = outcome
        if isinstance(result, BaseException):
            thread.join()
            self._state = _CLOSED
            raise result
        _open_stores.add(self)
        return result

    def submit(self, changes: Sequence[Change], number: int) -> None:
        """Fold the changes into those waiting to be written, and wake the thread if it would be late."""
        now = self._monotonic()
        with self._lock:
            pending = self._pending
            self._submitted = number
            before = pending.new.waiting_bytes
            if pending.add(changes, number, now):
                self._note_progress()
            else:  # a new message makes nothing durable
                self.backlog_bytes += pending.new.waiting_bytes - before
            # Only a full batch can be due before the thread sees these changes by itself.
            if self._sleeps_until and (self._sleeps_until > now + self._soonest or pending.is_large()):
                self._wake_if_due()

    def expedite(self, number: int) -> None:
        """Write the changes up to this number at once."""
        with self._lock:
            if number > self.durable_through:
                self._hurry = max(self._hurry, number)
                self._wake_if_due()

    def backlog_messages(self) -> int:
        """Return how many waiting messages have no row yet."""
        with self._lock:
            written = 0 if self._writing is None else self._writing.new.waiting
            return self._pending.new.waiting + written

    def first_unwritten(self, after: int) -> int:
        """Return the first waiting message above this sequence number that has no row yet, else 0."""
        with self._lock:
            found = 0 if self._writing is None else self._writing.new.first_waiting(after)
            return found or self._pending.new.first_waiting(after)

    def request_page(self, after: int) -> None:
        """Make the thread read the next waiting messages."""
        with self._lock:
            self._page.ask(after)
            self._wake_if_due()

    def take_page(self) -> list[SavedMessage] | None:
        """Return the requested page, once."""
        with self._lock:
            return self._page.take()

    def close(self) -> None:
        """Write the remaining changes, with one more attempt if the disk fails, and close. Idempotent."""
        _open_stores.discard(self)
        with self._lock:
            thread = self._thread
            if self._state == _OPEN:
                self._state = _CLOSING
                self._wake.notify_all()
        if thread is None or thread is threading.current_thread():
            return
        thread.join(_CLOSE_S)
        if thread.is_alive():
            log.warning(
                "%s: the disk did not answer within %g s; the end of the process waits for it, up to %g s",
                *(self.path, _CLOSE_S, _EXIT_S),
            )
            _outlive(thread)

    def disown(self) -> None:
        """In a forked child: leave the store to the parent; only the copy of its lock is closed.

        Only the frame of a thread that does not exist in the child refers to the connection, so it is never
        finalized: that would take locks of SQLite that the fork may have copied in a locked state.
        """
        self._reset()
        self._state = _CLOSED
        self._file_lock.release()
        self.failure = StoreError(f"{self.path}: opened before fork(); open a store of its own in the child")

    # The caller of these holds the lock

    def _note_progress(self) -> None:
        pending = self._pending
        first = pending.first()
        backlog = pending.new.waiting_bytes
        if self._writing is not None:
            first = min(first, self._writing.first())
            backlog += self._writing.new.waiting_bytes
        self.durable_through = self._submitted if first == NEVER else int(first) - 1
        self.backlog_bytes = backlog

    def _commit_due(self) -> float:
        """When the thread has to write, in monotonic seconds."""
        pending = self._pending
        if self.failure is not None:
            return self._retry.at
        if pending.is_empty():
            return NEVER
        if self._hurry > self.durable_through or pending.is_large():
            return 0.0
        due = pending.lazy_first[1] + LAZY_S
        return min(due, pending.oldest() + self._linger) if pending.new else due

    def _wake_if_due(self) -> None:
        if self._sleeps_until and min(self._commit_due(), self._page.due) < self._sleeps_until:
            self._sleeps_until = 0.0
            self._wake.notify()

    # The thread

    def _run(self, outcome: list[SavedSession | BaseException], opened: threading.Event) -> None:
        # `database` stays a local variable, see disown().
        database = Database(self.path, self.policy, self._clock)
        try:
            check_unlocked(self.path)  # before a lock file is left beside another program's file
            self._file_lock.acquire()
            result: SavedSession | BaseException
            result, self.notice = database.open()
            self.reports.extend(database.take_reports())
            if database.problem is not None:
                self._settle(database.problem)
        except BaseException as error:
            result = error
        with self._lock:
            is_left = self._state == _LEFT
            if not is_left:
                self._state = _OPEN
                outcome.append(result)
        if is_left or isinstance(result, BaseException):
            database.leave()
            self._file_lock.release()
            if is_left:
                self._state = _CLOSED
            opened.set()
            return
        opened.set()
        while True:
            try:
                if not self._turn(database):
                    break
            except Exception as error:
                _repeating.warning(self.path, repr(error), "%s: unexpected", self.path, error=error)
                self._settle(f"{self.path}: {error!r}")
                self._page.postpone(self._retry.at)
        self._end(database)

    def _end(self, database: Database) -> None:
        try:
            self._commit(database)
            database.close()
        except Exception as error:
            log.warning("%s: while closing", self.path, error=error)
        # An end that could not be written: the next client sends that message again, nobody misses it.
        is_in_place = self.lost_through == self._damaged_through
        self.kept = database.kept(self._pending) if is_in_place else 0
        if not self._pending.is_empty():
            log.warning("%s: closed with changes that could not be written: %s", self.path, self.failure)
        self._file_lock.release()
        self._state = _CLOSED
        self._tell()

    def _turn(self, database: Database) -> bool:
        """Wait for something to do and do it; False when the store is closing."""
        with self._lock:
            while True:
                if self._state == _CLOSING:
                    return False
                now = self._monotonic()
                commit = self._commit_due() <= now
                page = self._page.due <= now
                if commit or page:
                    break
                due = min(self._commit_due(), self._page.due)
                self._sleeps_until = due
                self._wake.wait(None if due == NEVER else min(due - now, threading.TIMEOUT_MAX))
                self._sleeps_until = 0.0
        if commit:
            self._commit(database)
        if page:
            self._read_page(database)
        self._tell()
        return True

    def _tell(self) -> None:
        on_progress = self.on_progress
        if on_progress is not None:
            try:
                on_progress()
            except Exception as error:
                _repeating.warning(self.path, "progress", "%s: on_progress failed", self.path, error=error)

    def _commit(self, database: Database) -> None:
        """Write all waiting changes; on a full disk, those that make room or need none."""
        problem = self._stay_in_place(database)
        if problem is not None:
            self._settle(problem)
            return
        if self._pending.new or self.failure is not None:
            problem = database.shortage(self._pending.new_bytes)
        for _ in range(_ATTEMPTS):
            error = self._write(database, messages=problem is None)
            if error is None and problem is not None:
                problem = database.shortage(self._pending.new_bytes)  # deletions may have made room
                if problem is None:
                    continue
            if error is None:
                break
            problem = self._after_error(database, error)
            if problem is not None and not is_full(error):
                break
        else:
            if error is not None and problem is None:
                problem = f"{self.path}: {error}"
        self._settle(self._stay_in_place(database) or problem)

    def _stay_in_place(self, database: Database) -> str | None:
        """Put the files back if somebody has removed them; return why that is not possible, or ``None``."""
        try:
            self._file_lock.hold_on()
            told = database.stay_in_place()
        except Exception as error:
            self.lost_through = self.durable_through  # it ends with this process
            return f"{self.path}: its files were removed while they were open: {error}"
        if told is not None:
            self.notice, lost = told
            if lost:
                self._damaged_through = self.durable_through
        self.lost_through = self._damaged_through
        return None

    def _write(self, database: Database, *, messages: bool) -> Exception | None:
        """Write the waiting changes, with or without the new messages; return the error, or ``None``."""
        with self._lock:
            batch = self._pending
            self._pending = Pending() if messages else batch.take_new()
            self._writing = batch
            self._pending.new.earlier = batch.new
        error = None
        try:
            if messages or not batch.is_empty():
                database.write(batch)
        except Exception as caught:
            error = caught
        self.reports.extend(database.take_reports())
        with self._lock:
            if error is not None:
                batch.follow(self._pending)
                self._pending = batch
            self._writing = self._pending.new.earlier = None
            self._note_progress()
        return error

    def _after_error(self, database: Database, error: Exception) -> str | None:
        """Let the database recover; return the remaining problem, or ``None``."""
        try:
            notice = database.recover(error)
        except Exception as worse:
            return f"{self.path}: {worse}"
        if notice is None:
            return str(error) if isinstance(error, StoreError) else f"{self.path}: {error}"
        self.notice = notice
        # Nothing above it had been written.
        self.lost_through = self._damaged_through = self.durable_through
        return None

    def _settle(self, problem: str | None) -> None:
        """Note whether the store is failing, and when to retry."""
        with self._lock:
            if problem is not None:
                self.failure = StoreError(problem)
                self._retry.failed(self._monotonic())
                return
            self.failure = None
            self._retry = _Retry()

    def _read_page(self, database: Database) -> None:
        """Read waiting messages, as of the last submitted change."""
        with self._lock:
            request, after = self._page.number, self._page.after
            lost = self._pending.lost
        page = Page()
        try:
            self._fill(page, database.waiting(after, lost=lost), after)
            database.mend()
        except Exception as error:
            problem = self._after_error(database, error)
            if problem is not None:
                self._settle(problem)
            with self._lock:
                self._page.postpone(self._monotonic() + RETRY_S[0])
            return
        self.reports.extend(database.take_reports())
        with self._lock:
            self._page.answer(request, page.messages)

    def _fill(self, page: Page, rows: Generator[SavedMessage, None, None], after: int) -> None:
        """Fill a page with messages that wait on disk, followed by those without a row."""
        pending = self._pending  # only this thread replaces it; looking into its dictionaries needs no lock
        gone, sent, shelved = pending.gone, pending.sent, pending.shelf.put
        try:
            for message in rows:
                sequence = message.sequence
                if sequence in gone or sequence in sent or sequence in shelved:
                    continue
                if self._damaged_through != NOTHING_LOST:  # a row is of the new file
                    message = PageMessage.of(message, self._damaged_through + 1)
                if not page.add(message):
                    return
        finally:
            rows.close()
        with self._lock:
            for new in self._pending.new.values():
                if new.sequence <= after or new.packet_id or new.sequence in shelved:
                    continue
                if not page.add(new.copy()):
                    return


def _no_answer(path: str, seconds: float) -> StoreError:
    return StoreUnavailableError(f"{path}: the disk did not answer within {seconds:g} s (open_timeout)")


def _outlive(thread: threading.Thread) -> None:
    """Have the end of the process wait for a thread that still writes."""
    if threading.main_thread().is_alive():
        threading.Thread(target=thread.join, args=(_EXIT_S,), name="device-sdk store close").start()
    else:  # this is the end
        thread.join(_EXIT_S)


_open_stores: weakref.WeakSet[SqliteStore] = weakref.WeakSet()


def _disown_all() -> None:
    for store in list(_open_stores):
        store.disown()
    _open_stores.clear()


os.register_at_fork(after_in_child=_disown_all)
