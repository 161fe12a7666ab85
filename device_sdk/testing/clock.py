"""A clock that a test moves by hand."""

from __future__ import annotations

from device_sdk.errors import ArgumentError

__all__ = ["ManualClock"]


class ManualClock:
    """Stands in for :func:`time.monotonic`: call it for the time in seconds; only a test moves it.

    ::

        clock = ManualClock()
        protocol.connect(now=clock())
        clock.advance(60)
        protocol.handle_deadline(clock())

    One thread moves it; any thread may read it. ``start`` is any finite number of seconds.
    """

    __slots__ = ("_now",)

    def __init__(self, start: float = 1000.0) -> None:
        self._now = float(start)

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self._now

    def advance(self, seconds: float) -> float:
        """Let ``seconds`` >= 0 pass and return the new time. Raises: ArgumentError: negative, or NaN."""
        if not seconds >= 0:
            raise ArgumentError("seconds", f"must be 0 or more, a clock never goes back; not {seconds!r}")
        self._now += seconds
        return self._now

    def advance_to(self, moment: float) -> float:
        """Move to ``moment``, now or later, and return it. Raises: ArgumentError: it is in the past."""
        if not moment >= self._now:
            raise ArgumentError("moment", f"{moment!r} lies before {self._now!r}; a clock never goes back")
        self._now = float(moment)
        return self._now

    def __repr__(self) -> str:
        return f"ManualClock({self._now!r})"
