"""Drives an engine from an event loop: readers, writers and one timer, and no thread but that of open().

Everything here runs in the thread of the loop, :meth:`LoopDriver.wake` and :meth:`LoopDriver.finished`
excepted. Messages published in one turn of the loop are sent together, at the beginning of the next one.
"""

from __future__ import annotations

import asyncio
import os
from threading import get_ident

from device_sdk._clock import LONGEST_WAIT, boottime
from device_sdk._folding import Folding
from device_sdk._log import Log
from device_sdk.engine.connecting.attempt import Opener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, TimerHandle
    from collections.abc import Callable

    from device_sdk.engine.engine import Engine

__all__ = ["LoopDriver"]

_FAULT_SECONDS = 0.2  # a pause after an internal error, so that it cannot become a busy loop
_TIMER_SECONDS = 0.001  # how early the timer of a loop may fire

log = Log("device_sdk.aio")


class LoopDriver:
    """Opens, reads, writes and keeps time for one engine, in ``loop``."""

    def __init__(self, engine: Engine, loop: AbstractEventLoop, open_seconds: float) -> None:
        self.turns = 0  # number of turns
        self._engine = engine
        self.loop = loop
        self._thread = get_ident()
        self._wake_callbacks: Callable[[], None] | None = None
        self._scheduled = False
        self._ended = False
        self._finished: int | None = None  # handled messages not yet reported to the engine
        self._timer: TimerHandle | None = None
        self._timer_at = 0.0
        self._watched: tuple[int, bool, bool] | None = None  # what the loop watches: Engine.interest()
        self._opener = Opener(engine, open_seconds)
        self._folding = Folding(log)
        self._watchers: dict[Future[bool], Callable[[], bool]] = {}

    # From any thread

    def wake(self) -> None:
        """Take a turn soon. Any thread, without the lock."""
        if get_ident() == self._thread:
            self.schedule()
        else:
            self._from_elsewhere(self.schedule)

    def finished(self, count: int) -> None:
        """Report that ``count`` received messages were handled and may be acknowledged. Any thread."""
        if get_ident() != self._thread:
            self._from_elsewhere(self.finished, count)
            return
        self._finished = (self._finished or 0) + count
        self.schedule()

    def _from_elsewhere(self, function: Callable[..., None], *arguments: object) -> None:
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed
            pass

    # From the loop

    def serve(self, wake_callbacks: Callable[[], None] | None) -> None:
        """Call this whenever there is work for the callback task; ``None``: it has ended."""
        self._wake_callbacks = wake_callbacks

    def schedule(self) -> None:
        """Schedule one turn."""
        if not self._scheduled and not self._ended:
            self._scheduled = True
            self.loop.call_soon(self._turn)

    async def until(self, predicate: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until the predicate is true, which is called under the lock after every turn.

        False: it was not within ``timeout`` seconds. Raises: what it raises.
        """
        with self._engine.lock:
            if predicate():
                return True
        future: Future[bool] = self.loop.create_future()
        self._watchers[future] = predicate
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            with self._engine.lock:
                return predicate()
        finally:
            self._watchers.pop(future, None)

    async def next_turn(self) -> None:
        """Wait for the next turn, for example for an acknowledgement."""
        seen = self.turns
        await self.until(lambda: self.turns != seen, None)

    def drop(self) -> None:
        """Let DISCONNECT leave if it can at once, close the transport, and forget the connection."""
        engine = self._engine
        try:
            self._opener.abandon()
            with engine.lock:
                engine.close_connection()
            engine.flush(boottime())
            self._unwatch()
            engine.drop_connection()
        except Exception as error:
            log.warning("the connection ended with an error", error=error)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Stop driving; tasks waiting in :meth:`until` check their predicate for a last time."""
        self._ended = True
        self._wake_callbacks = None
        self.turns += 1
        with self._engine.lock:
            self._tell_watchers()

    def disown(self) -> None:
        """In a forked child: release the parent's stream without disturbing its peer.

        The loop's registrations stay: removing one would remove it for the parent, too.
        """
        self._ended = True
        if self._watched is not None:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, self._watched[0], inheritable=False)
            os.close(null)

    def _turn(self) -> None:
        self._scheduled = False
        self._do(self._engine.flush)

    def _readable(self) -> None:
        self._do(self._engine.on_readable)

    def _writable(self) -> None:
        self._do(self._engine.on_writable)

    def _timer_fired(self) -> None:
        self._timer = None
        self._do(self._on_time)

    def _on_time(self, now: float) -> None:
        """The timer is never late, but the deadline may have moved."""
        with self._engine.lock:
            deadline = self._engine.next_deadline()
        if deadline is not None and now >= deadline:
            self._engine.on_deadline(now)

    def _do(self, step: Callable[[float], None]) -> None:
        """Take one step of the engine, then set up the next wait."""
        if self._ended:
            return
        engine, now = self._engine, boottime()
        try:
            if self._finished is not None:
                with engine.lock:
                    engine.handled(self._finished)
                self._finished = None
            if self._opener.give_up_at is not None:
                self._opener.look(now)
            step(now)
            self._look(now)
        except Exception as error:
            self._recover(error)

    def _look(self, now: float) -> None:
        """Do the work that is due, and watch descriptor and deadline for more."""
        engine, opener = self._engine, self._opener
        self.turns += 1
        with engine.lock:
            opens = engine.wants_open and opener.give_up_at is None
            deadline = engine.next_deadline()
            busy = engine.has_output()
            engine.parked = not busy
            callbacks = bool(engine.events.queue)
            if self._watchers:
                self._tell_watchers()
        if opens and not opener.begin(now, self.wake):
            self.schedule()
        if opener.give_up_at is not None and (deadline is None or opener.give_up_at < deadline):
            deadline = opener.give_up_at
        interest = engine.interest()
        if interest != self._watched:
            self._unwatch()
            self._watch(interest)
        if deadline is not None and (
            self._timer is None or deadline < self._timer_at or self._timer_at < now  # after a suspend
        ):
            self._set_timer(deadline, now)
        if busy:
            self.schedule()
        if callbacks and self._wake_callbacks is not None:
            self._wake_callbacks()

    def _tell_watchers(self) -> None:
        for future, predicate in self._watchers.items():
            if future.done():
                continue
            try:
                if predicate():
                    future.set_result(True)
            except Exception as error:
                future.set_exception(error)

    def _set_timer(self, deadline: float, now: float) -> None:
        """Wake up at the deadline. A later one does not move the timer: it fires early and is set again."""
        if self._timer is not None:
            self._timer.cancel()
        seconds = min(max(0.0, deadline - now), LONGEST_WAIT)
        self._timer_at = now + seconds
        self._timer = self.loop.call_later(seconds + _TIMER_SECONDS, self._timer_fired)

    def _watch(self, interest: tuple[int, bool, bool] | None) -> None:
        self._watched = interest
        if interest is not None:
            fd, reads, writes = interest
            if reads:
                self.loop.add_reader(fd, self._readable)
            if writes:
                self.loop.add_writer(fd, self._writable)

    def _unwatch(self) -> None:
        """Stop watching the descriptor. Call this first: it may already be closed and its number reused."""
        watched, self._watched = self._watched, None
        if watched is not None and not self.loop.is_closed():
            self.loop.remove_reader(watched[0])
            self.loop.remove_writer(watched[0])

    def _recover(self, error: Exception) -> None:
        """Survive an internal error: report it, drop the connection and let the engine reconnect."""
        try:
            self._opener.abandon()
            self._engine.on_fault(error, boottime())
            self._unwatch()
        except Exception as another:
            self._folding.warning("loop", "", "the client goes on after two errors", error=another)
        self._scheduled = True
        self.loop.call_later(_FAULT_SECONDS, self._turn)
