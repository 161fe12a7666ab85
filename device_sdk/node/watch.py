"""One thread that waits for the deadlines of all calls into drivers.

It sleeps until the earliest deadline that it knows, and without one for ever. A call that ends in time does
not wake it: with deadlines of 30 s it wakes twice in 30 s at most, however many calls there are.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import PurePath
from threading import Condition, Thread, get_ident
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Call", "Watch"]

_NEVER = float("inf")
_STANDARD_LIBRARY = f"{PurePath(threading.__file__).parent}/"
_PACKAGE = f"{PurePath(__file__).parents[1]}/"
_AROUND_EACH = "drivers/staleness.py"  # calls the driver
_DRIVERS, _OUTSIDE = 1, 2


class Call:
    """A call that is going on.

    ``abandoned``: it is overdue, and another thread has gone on. ``returned``: it ended after that.
    """

    __slots__ = ("_thread", "abandoned", "deadline", "on_overdue", "returned")

    def __init__(self, deadline: float, on_overdue: Callable[[Call], object]) -> None:
        self._thread = get_ident()
        self.deadline = deadline
        self.on_overdue = on_overdue
        self.abandoned = False
        self.returned = False

    @property
    def place(self) -> str:
        """Where its thread is at present, for the log: the outermost line of a driver, and what it called.

        That is code from outside this package, else one of its drivers; not the standard library.
        """
        frame = sys._current_frames().get(self._thread)
        if frame is None:
            return "a thread that has ended"
        inner, found, called, rank = None, frame, None, -1
        while frame is not None:  # from the innermost outwards
            nearness = _rank(frame.f_code.co_filename)
            if (nearness >= rank and nearness >= _DRIVERS) or rank < 0 <= nearness:
                found, called, rank = frame, inner, nearness
            inner, frame = frame, frame.f_back
        code = found.f_code
        where = f"{PurePath(code.co_filename).name}, line {found.f_lineno} ({code.co_qualname})"
        return f"{where}, which called {called.f_code.co_qualname}" if called else where


class Watch:
    """The calls that are going on, and the thread that abandons those that are overdue. Any thread.

    ``clock``: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._calls: set[Call] = set()
        self._changed = Condition()
        self._wakes_at = _NEVER
        self._stopping = False
        self._thread = Thread(target=self._run, name="device-sdk watch", daemon=True)

    def begin(self, seconds: float, on_overdue: Callable[[Call], object]) -> Call:
        """Note the beginning of a call; ``on_overdue`` is called with it if it has not ended in time."""
        call = Call(self._clock() + seconds, on_overdue)
        with self._changed:
            self._calls.add(call)
            if call.deadline < self._wakes_at:
                self._changed.notify()
        return call

    def end(self, call: Call) -> bool:
        """Note the end of a call; ``False``: it was abandoned, and another thread has gone on."""
        with self._changed:
            self._calls.discard(call)
            return not call.abandoned

    def step(self) -> None:
        """Abandon the calls that are overdue."""
        with self._changed:
            now = self._clock()
            overdue = [call for call in self._calls if call.deadline <= now]
            self._calls.difference_update(overdue)
            for call in overdue:
                call.abandoned = True
        for call in overdue:
            call.on_overdue(call)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. What is overdue later is abandoned by nobody."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the thread; return whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while self._wait():
            self.step()

    def _wait(self) -> bool:
        """Wait for the next deadline, or for one that is earlier; return whether to go on."""
        with self._changed:
            self._wakes_at = min((call.deadline for call in self._calls), default=_NEVER)
            left = self._wakes_at - self._clock()
            if left > 0 and not self._stopping:
                self._changed.wait(None if left == _NEVER else left)
            return not self._stopping


def _rank(file: str) -> int:
    """Return how likely the code is what hangs, in the eyes of the user."""
    if file.startswith("<") or (file.startswith(_STANDARD_LIBRARY) and "-packages/" not in file):
        return -1
    if not file.startswith(_PACKAGE):
        return _OUTSIDE
    name = file.removeprefix(_PACKAGE)
    return _DRIVERS if name.startswith("drivers/") and name != _AROUND_EACH else 0
