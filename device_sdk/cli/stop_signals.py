"""Ctrl-C, SIGTERM and SIGHUP as an event to wait for, instead of an exception at any point."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["StopSignals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGHUP only increase :attr:`count` and end a :meth:`wait`.

    Main thread only. A pipe and not a ``threading.Event``: setting an event from a signal handler can
    deadlock with the wait that the signal interrupted.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, object] = {}
        self._reader, self._writer = -1, -1

    def wait(self, timeout: float) -> None:
        """Return after ``timeout`` seconds, or at once if a signal has arrived since the last wait."""
        readable, _, _ = select.select([self._reader], [], [], max(0.0, timeout))
        if readable:
            os.read(self._reader, 4096)

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = {number: signal.signal(number, self._arrived) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        os.close(self._reader)
        os.close(self._writer)

    def _arrived(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        try:
            os.write(self._writer, b"!")
        except BlockingIOError:
            # The pipe is full of earlier signals: the next wait ends anyway.
            pass
