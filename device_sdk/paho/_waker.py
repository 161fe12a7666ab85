"""What wakes a loop, in its poll or between two attempts."""

from __future__ import annotations

import os
import threading

__all__ = ["Waker"]


class Waker:
    """Wakes a loop. Any thread.

    ``fd``: a descriptor for its poll, readable after :meth:`wake`. ``loops``: how many loops run, or are
    about to; they look for output by themselves before they wait.
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
        """One loop more is running."""
        with self._lock:
            self.loops += 1

    def loop_ends(self) -> None:
        """And one less."""
        with self._lock:
            self.loops -= 1

    def wake(self) -> None:
        """End a poll. The caller does not hold the engine's lock."""
        os.eventfd_write(self.fd, 1)

    def clear(self) -> None:
        """A poll has ended by :meth:`wake`."""
        os.eventfd_read(self.fd)

    def pause(self, seconds: float) -> None:
        """Wait between two attempts."""
        self._interrupted.wait(seconds)

    def interrupt(self) -> None:
        """End such a wait, or the next one."""
        self._interrupted.set()

    def forget_interrupt(self) -> None:
        """It has been heeded."""
        self._interrupted.clear()
