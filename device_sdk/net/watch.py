"""A descriptor of our own for a stream that its owner must be woken for without data on the line."""

from __future__ import annotations

import os
import select

__all__ = ["Watch"]


class Watch:
    """The descriptor that the owner polls: data on ``line``, room if asked for, or a wake-up.

    Raises: OSError: the process is out of descriptors.
    """

    __slots__ = ("_epoll", "_line", "_wake", "fileno")

    def __init__(self, line: int) -> None:
        self._line = line
        self._epoll = select.epoll()
        self.fileno = self._epoll.fileno
        try:
            self._epoll.register(line, select.EPOLLIN)
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            self._epoll.close()
            raise
        self._epoll.register(self._wake, select.EPOLLIN)

    def also_room(self, wanted: bool) -> None:
        """Be readable, or no longer, while the line has room."""
        self._epoll.modify(self._line, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def wake(self) -> None:
        """Be readable until :meth:`calm`."""
        os.eventfd_write(self._wake, 1)

    def calm(self) -> None:
        """Take all wake-ups back."""
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Release the descriptors."""
        self._epoll.close()
        os.close(self._wake)
