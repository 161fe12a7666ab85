"""Keeps a program that handles messages from waiting for itself."""

from __future__ import annotations

from threading import Event, get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["Waiting"]


class Waiting:
    """Who among the consumers of received messages waits for the broker at the moment. True if somebody does.

    Reading from the network pauses when too many received messages are in hand. A handler that then waits for
    an acknowledgement would wait for ever: the acknowledgement stays unread, and the messages in hand stay in
    hand. So reading goes on while a consumer is inside ``with waiting:``; other threads change nothing.
    """

    __slots__ = ("_consumers", "_inside", "wake")

    def __init__(self) -> None:
        self.wake: Callable[[], None] | None = None  # makes the shell look again
        self._consumers: set[int] = set()
        self._inside: set[int] = set()

    def event(self) -> Any:
        """Return an event that the engine sets when what somebody waits for has happened."""
        return Event()

    def consume(self) -> None:
        """The calling thread handles received messages from now on."""
        self._consumers.add(get_ident())

    def __bool__(self) -> bool:
        return bool(self._inside)

    def __enter__(self) -> None:
        if get_ident() in self._consumers:
            self._inside.add(get_ident())
            if self.wake is not None:
                self.wake()

    def __exit__(self, *_: object) -> None:
        self._inside.discard(get_ident())
