"""A birth on which a server ends connections: it is said late, then left out, so that the rest arrives."""

from __future__ import annotations

__all__ = ["AT_ONCE", "LATE", "NOT_AT_ALL", "BirthTrial"]

#: When birth is said on the next connection.
AT_ONCE, LATE, NOT_AT_ALL = range(3)

_ENOUGH_ENDS = 3
_SHORTEST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds of a connection before birth is said late
_HOUR = 3600.0
_HOURLY_TRIALS = 24  # then daily


class BirthTrial:
    """The judgement about birth at one server. A pure state machine, without a lock of its own.

    After three ends in a row with birth unanswered the next connection says it late, when that has lived
    longer than those. If it has ended before, it was not birth. If it ends with birth unanswered once more,
    birth is left out for an hour, and after a day of that for a day.
    """

    __slots__ = ("_ends", "_lasted", "_left_out_until", "_verdicts")

    def __init__(self) -> None:
        self.answered()

    def place(self, now: float) -> int:
        """Return when birth is said on the connection that begins."""
        if now < self._left_out_until:
            return NOT_AT_ALL
        return LATE if self._ends >= _ENOUGH_ENDS else AT_ONCE

    @property
    def wait(self) -> float:
        """Seconds of a connection before birth is said late."""
        return min(_SHORTEST_WAIT + 2 * self._lasted, _LONGEST_WAIT)

    def answered(self) -> None:
        """The server has taken birth: nothing is wrong with it."""
        self._ends = self._verdicts = 0
        self._lasted = self._left_out_until = 0.0

    def ended_before(self) -> None:
        """The server has ended the connection that was to say birth late, without it."""
        self._ends = 0

    def ended_on(self, lived: float, now: float, *, late: bool) -> bool:
        """The server has ended a connection with birth unanswered; return whether there is a verdict."""
        self._ends += 1
        self._lasted = max(self._lasted, lived)
        if not late:
            return False
        self._verdicts += 1
        self._left_out_until = now + (_HOUR if self._verdicts <= _HOURLY_TRIALS else 24 * _HOUR)
        return True
