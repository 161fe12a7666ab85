"""What a client tells about itself: events as they happen, and counters."""

from __future__ import annotations

__all__ = ["ClientEvent", "Stats"]


class ClientEvent:
    """Something an operator may want to know: ``kind`` (a word), ``text`` (a sentence), ``error`` or None.

    Kinds: ``connected``, ``disconnected``, ``connect_failed``, ``session_lost``, ``dropped``, ``expired``,
    ``refused``, ``subscribe_refused``, ``handler_failed``, ``no_handler``, ``store_failed``, ``auth``.
    """

    __slots__ = ("error", "kind", "text")

    def __init__(self, kind: str, text: str, error: BaseException | None = None) -> None:
        self.kind = kind
        self.text = text
        self.error = error

    def __repr__(self) -> str:
        return f"ClientEvent({self.kind!r}, {self.text!r})"


class Stats:
    """Counters since the client was made, and four gauges.

    Gauges: ``queued`` messages and ``queued_bytes`` that wait, ``in_flight`` messages sent and not finished,
    ``acks_held`` received messages whose acknowledgement waits for a handler.
    """

    acknowledged: int
    acks_held: int
    bytes_received: int
    bytes_sent: int
    connects: int
    dropped: int
    expired: int
    in_flight: int
    published: int
    queued: int
    queued_bytes: int
    received: int
    reconnects: int
    refused: int

    __slots__ = tuple(__annotations__)

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    def copy(self) -> Stats:
        """Return the present values as an object of their own."""
        copy = Stats()
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        return copy

    def __repr__(self) -> str:
        return f"Stats({', '.join(f'{name}={getattr(self, name)}' for name in self.__slots__)})"
