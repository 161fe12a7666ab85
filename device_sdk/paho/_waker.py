"""Wakes a loop, in its poll or between two attempts."""

from __future__ import annotations

import os
import threading

__all__ = ["Waker"]


class Waker:
    """Wakes a loop. Any thread.

    ``fd``: a descriptor for its poll, readable after :meth:`wake`. ``loops``: number of loops that run or are
    about to; they check for output by themselves before they wait.
    """

    fd = -1  # if there are no descriptors left

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.loops = 0
        self._interrupted = threading.Event()
        self._lock = threading.Lock()

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)

    def loop_begins(self) -> None:
        """Count one more running loop."""
        with self._lock:
            self.loops += 1

    def loop_ends(self) -> None:
        """Count one less."""
        with self._lock:
            self.loops -= 1

    def wake(self) -> None:
        """End a poll. The caller does not hold the engine's lock."""
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """Reset the descriptor after :meth:`wake` has ended a poll."""
        os.eventfd_read(self.fd)

    def pause(self, seconds: float) -> None:
        """Wait between two attempts."""
        self._interrupted.wait(seconds)

    def interrupt(self) -> None:
        """End the wait between two attempts, or the next one."""
        self._interrupted.set()

    def forget_interrupt(self) -> None:
        """Forget an earlier :meth:`interrupt`."""
        self._interrupted.clear()
