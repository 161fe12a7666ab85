"""The consumers of received messages, and which of them are blocked: reading must go on for those."""

from __future__ import annotations

from threading import Event, get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.errors import DeviceSdkError

__all__ = ["Consumers"]


class Consumers:
    """The threads that handle received messages, and those among them that wait for the broker now.

    Reading from the network pauses when too many received messages are in hand. A handler that then waits for
    an acknowledgement would wait for ever: the acknowledgement stays unread, and the messages in hand stay in
    hand. So reading goes on while a consumer is inside :meth:`wait`; other threads change nothing.

    It also knows why there is no connection, for the errors of waits that end; the engine's lock guards that.

    ``hungry``: the consumers that wait for a message of the pull inbox, if ``tells_hungry``.
    """

    __slots__ = ("_all", "_failure", "_wake", "blocked", "hungry", "tells_hungry")

    def __init__(self) -> None:
        self.blocked: set[int] = set()
        self.hungry: set[int] = set()
        self.tells_hungry = False
        self._all: set[int] = set()
        self._wake: Callable[[], None] | None = None
        self._failure: DeviceSdkError | None = None

    def explain(self, failure: DeviceSdkError | None) -> None:
        """Note why there is no connection; ``None``: there is one, or nobody knows yet."""
        self._failure = failure

    @property
    def why(self) -> str:
        """What to add to the error of a wait that ends: why there is no connection, or ``""``."""
        return "" if self._failure is None else f"; no connection: {self._failure}"

    def bind(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` when a consumer is blocked: it makes the network side look again."""
        self._wake = wake

    def look_again(self) -> None:
        """Make the network side look again. Without the lock."""
        if self._wake is not None:
            self._wake()

    def event(self) -> Any:
        """Return an event for somebody to wait for; the engine sets it."""
        return Event()

    def register(self) -> None:
        """Count the calling thread among the consumers from now on."""
        self._all.add(get_ident())

    def wait(self, wait: Callable[[float | None], bool], timeout: float | None) -> bool:
        """Return ``wait(timeout)``, in which the calling thread waits for the broker.

        Not a context manager: the handler of a signal may raise before ``__exit__()`` does anything.
        """
        consumer = get_ident()
        if consumer not in self._all:
            return wait(timeout)
        try:
            self.block(consumer)
            return wait(timeout)
        finally:
            self.blocked.discard(consumer)  # the first call in here: a second signal may come after it

    def look_for_hungry(self, on: bool) -> None:
        """Have inboxes tell when somebody waits for a message, or not."""
        self.tells_hungry = on

    def starve(self, consumer: int) -> None:
        """Note that this consumer waits for a message, until it is discarded from ``hungry``."""
        self.hungry.add(consumer)
        if self._wake is not None:
            self._wake()

    def block(self, consumer: int) -> None:
        """Note that this consumer waits for the broker from now on."""
        self.blocked.add(consumer)
        if self._wake is not None:
            self._wake()
