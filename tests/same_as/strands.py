"""Threads that take turns: real ones, of which one runs at a time, until it waits.

Locks, events, sleeps, selectors and event descriptors know of each other, so it is always clear who can go
on; when nobody can, the time moves on to the next thing that is due. The same program does the same thing
each time, whatever the machine is busy with. Imported, and installed, before ``device_sdk``.
"""

from __future__ import annotations

import _thread
import math
import os
import select
import selectors
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tests.same_as.virtual import CLOCK

__all__ = [
    "PORTS",
    "STRANDS",
    "Deadlock",
    "StrandLock",
    "StrandPoll",
    "StrandRLock",
    "StrandSelector",
    "StrandThread",
    "install",
]

_LONGEST_REAL_WAIT = 60.0  # seconds in which another strand has to reach its next wait


class Deadlock(Exception):
    """Nobody can go on, and nothing will happen."""


class World(Protocol):
    """What happens by itself."""

    @property
    def now(self) -> float: ...
    def next_due(self) -> float: ...
    def go_to(self, moment: float) -> None: ...


class Selecting(Protocol):
    """What waits for descriptors."""

    def ready(self) -> object: ...


class Strand:
    """One thread that takes turns. ``number``: no other one ever has it."""

    _last_number = 0

    def __init__(self) -> None:
        Strand._last_number += 1
        self.number = Strand._last_number
        self.turn = _thread.allocate_lock()
        self.turn.acquire()
        self.until = math.inf  # when it goes on at the latest, while it waits
        self.woken = False


class Strands:
    """Who runs, who can, and who waits."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.main = self.current = Strand()
        self._stuck = False
        self.on_wake: Callable[[], None] = _nothing
        self._ready: deque[Strand] = deque()
        self._waiting: dict[Strand, None] = {}
        self.selecting: dict[Strand, Selecting] = {}

    def begin(self, world: World, on_wake: Callable[[], None]) -> None:
        """Begin a run in the calling thread. ``on_wake`` is called when an event descriptor is written."""
        self.__init__()  # type: ignore[misc]
        self.world, self.on_wake = world, on_wake
        _active()[self.current.number] = threading.main_thread()

    def start(self, strand: Strand, run: Callable[[], None]) -> None:
        """Start another thread; it runs when the others wait."""

        def main() -> None:
            strand.turn.acquire()
            try:
                run()
            finally:
                self._next()

        self._ready.append(strand)
        _thread.start_new_thread(main, ())

    def wait(self, until: float = math.inf) -> bool:
        """Let others go on until somebody wakes this strand, or the time has come. Returns: which it was."""
        me = self.current
        me.until, me.woken = until, False
        self._waiting[me] = None
        self._next(me)
        return me.woken

    def wake(self, strand: Strand) -> None:
        """Let a strand that waits go on when it is its turn."""
        if strand in self._waiting:
            del self._waiting[strand]
            strand.woken = True
            self._ready.append(strand)

    def pause(self, seconds: float) -> None:
        """Stand in for :func:`time.sleep`."""
        self.wait(CLOCK.show() + seconds)

    def poke(self) -> None:
        """Something has happened that a selector may wait for."""
        for strand, selector in list(self.selecting.items()):
            if selector.ready():
                self.wake(strand)

    def _next(self, me: Strand | None = None) -> None:
        """Hand the turn on; return when it has come back. ``None``: the calling thread ends."""
        while not self._ready:
            self._let_time_pass()
        following = self.current = self._ready.popleft()
        if following is not me:
            following.turn.release()
            if me is None:
                return
            if not me.turn.acquire(timeout=_LONGEST_REAL_WAIT if me is self.main else -1):
                raise Deadlock("the other threads do not come to a wait")
        if self._stuck:
            raise Deadlock("nobody can go on")

    def _let_time_pass(self) -> None:
        assert self.world is not None
        due = min(self.world.next_due(), *(strand.until for strand in self._waiting), math.inf)
        if due == math.inf:
            self._stuck = True  # the main strand says so, the others stay where they are
            self._ready.append(self.main)
            return
        self.world.go_to(due)
        self.poke()
        for strand in [one for one in self._waiting if one.until <= self.world.now]:
            del self._waiting[strand]
            self._ready.append(strand)


def _nothing() -> None:
    pass


def _active() -> dict[int, threading.Thread]:
    """Return where current_thread() looks."""
    active: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]
    return active


STRANDS = Strands()


class StrandLock:
    """Stands in for :class:`threading.Lock`. Whoever waited first gets it first."""

    def __init__(self) -> None:
        self._locked = False
        self._waiting: deque[Strand] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it."""
        if not self._locked:
            self._locked = True
            return True
        if not blocking or timeout == 0:
            return False
        me = STRANDS.current
        self._waiting.append(me)
        if STRANDS.wait(math.inf if timeout < 0 else CLOCK.show() + timeout):
            return True  # it was handed over
        self._waiting.remove(me)
        return False

    def release(self) -> None:
        """Let go of it."""
        if not self._locked:
            raise RuntimeError("release unlocked lock")
        if self._waiting:
            STRANDS.wake(self._waiting.popleft())
        else:
            self._locked = False

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._locked

    def _at_fork_reinit(self) -> None:
        self.__init__()  # type: ignore[misc]

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class StrandRLock(StrandLock):
    """Stands in for :class:`threading.RLock`."""

    def __init__(self) -> None:
        super().__init__()
        self._owner: Strand | None = None
        self._depth = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, maybe once more."""
        me = STRANDS.current
        if self._owner is not me:
            if not super().acquire(blocking, timeout):
                return False
            self._owner = me
        self._depth += 1
        return True

    def release(self) -> None:
        """Undo one acquire()."""
        if self._owner is not STRANDS.current:
            raise RuntimeError("cannot release un-acquired lock")
        self._depth -= 1
        if not self._depth:
            self._owner = None
            super().release()

    # What threading.Condition asks for

    def _is_owned(self) -> bool:
        return self._owner is STRANDS.current

    def _release_save(self) -> int:
        depth, self._depth = self._depth, 1
        self.release()
        return depth

    def _acquire_restore(self, depth: int) -> None:
        self.acquire()
        self._depth = depth


class StrandThread(threading.Thread):
    """Stands in for :class:`threading.Thread`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._strand = Strand()
        self._begun = self._over = False
        self._joining: list[Strand] = []

    def start(self) -> None:
        """Start it."""
        assert not self._begun, "threads can only be started once"
        self._begun = True
        STRANDS.start(self._strand, self._main)

    def _main(self) -> None:
        _active()[self._strand.number] = self
        sys.setprofile(threading.getprofile())
        try:
            self.run()
        finally:
            del _active()[self._strand.number]
            self._over = True
            for strand in self._joining:
                STRANDS.wake(strand)

    def is_alive(self) -> bool:
        """Whether it has been started and has not come to its end."""
        return self._begun and not self._over

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end."""
        until = math.inf if timeout is None else CLOCK.show() + timeout
        while self.is_alive() and CLOCK.show() < until:
            self._joining.append(STRANDS.current)
            STRANDS.wait(until)


#: What has a descriptor only here -> an object with the attributes ``readable`` and ``writable``.
PORTS: dict[int, Any] = {}


class _EventDescriptor:
    writable = True

    def __init__(self) -> None:
        self.count = 0

    @property
    def readable(self) -> bool:
        return self.count > 0


class StrandSelector(selectors.BaseSelector):
    """Stands in for :class:`selectors.DefaultSelector`; knows the descriptors in :data:`PORTS`."""

    def __init__(self) -> None:
        self._keys: dict[int, selectors.SelectorKey] = {}
        self._poked = False
        self._fd = os.open(os.devnull, os.O_RDONLY)

    def fileno(self) -> int:
        """Return some descriptor: a fork replaces it."""
        return self._fd

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch something."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd in self._keys:
            raise KeyError(f"{fd} is already registered")
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Watch it no more."""
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_map(self) -> Any:
        """Return what is watched."""
        return self._keys

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        """Return how something is watched."""
        return self._keys[fileobj if isinstance(fileobj, int) else fileobj.fileno()]

    def wake(self) -> None:
        """End the wait that goes on, or the next one."""
        self._poked = True
        STRANDS.poke()

    def ready(self) -> list[tuple[selectors.SelectorKey, int]] | bool:
        """Return what select() would return, or whether it would return at all."""
        found = []
        for fd, key in self._keys.items():
            port = PORTS.get(fd)
            if port is None:
                continue
            events = (selectors.EVENT_READ if port.readable else 0) | (
                selectors.EVENT_WRITE if port.writable else 0
            )
            if events & key.events:
                found.append((key, events & key.events))
        return found or self._poked

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, and return what is ready."""
        if not self.ready() and not (timeout is not None and timeout <= 0):
            me = STRANDS.current
            STRANDS.selecting[me] = self
            STRANDS.wait(math.inf if timeout is None else CLOCK.show() + timeout)
            del STRANDS.selecting[me]
        found = self.ready()
        self._poked = False
        return found if isinstance(found, list) else []

    def close(self) -> None:
        """Let go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class StrandPoll:
    """Stands in for :func:`select.poll`; descriptors that are not in :data:`PORTS` are real ones."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}
        self._real = _REAL_POLL()

    def register(self, fileobj: Any, events: int) -> None:
        """Watch something."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._events[fd] = events
        if fd not in PORTS:
            self._real.register(fd, events)

    modify = register

    def unregister(self, fileobj: Any) -> None:
        """Watch it no more."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        del self._events[fd]
        if fd not in PORTS:
            self._real.unregister(fd)

    def ready(self) -> list[tuple[int, int]]:
        """Return what poll() would return now."""
        ports = [(fd, select.POLLIN) for fd in self._events if fd in PORTS and PORTS[fd].readable]
        return ports + self._real.poll(0)

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Wait, for milliseconds at most, and return what is ready."""
        if not self.ready() and timeout != 0:
            me = STRANDS.current
            STRANDS.selecting[me] = self
            forever = timeout is None or timeout < 0
            STRANDS.wait(math.inf if forever else CLOCK.show() + (timeout or 0) / 1000)
            del STRANDS.selecting[me]
        return self.ready()


_REAL_POLL = select.poll


def install() -> None:
    """Let everything that is imported later have these."""
    parts: Any = threading
    parts.Lock = parts._allocate_lock = StrandLock
    parts.RLock = StrandRLock
    parts.Thread = StrandThread
    parts.get_ident = lambda: STRANDS.current.number
    selectors.DefaultSelector = StrandSelector  # type: ignore[misc, assignment]
    parts = time
    parts.sleep = STRANDS.pause
    parts = select
    parts.poll = StrandPoll
    make, write, read, close = os.eventfd, os.eventfd_write, os.eventfd_read, os.close

    def eventfd(initval: int, flags: int = 0) -> int:
        fd = make(initval, flags)
        PORTS[fd] = _EventDescriptor()
        return fd

    def eventfd_write(fd: int, value: int) -> None:
        write(fd, value)
        PORTS[fd].count += value
        STRANDS.on_wake()
        STRANDS.poke()

    def eventfd_read(fd: int) -> int:
        PORTS[fd].count = 0
        return read(fd)

    def close_any(fd: int) -> None:
        PORTS.pop(fd, None)
        close(fd)

    parts = os
    parts.eventfd, parts.eventfd_write, parts.eventfd_read = eventfd, eventfd_write, eventfd_read
    parts.close = close_any
