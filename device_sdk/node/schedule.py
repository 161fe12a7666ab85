"""The ticks of a sensor: ``start + phase + k * interval``, computed anew for each, so no error adds up."""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["Schedule", "phase_offset"]


class Schedule:
    """The ticks of one sensor. Pure: time in seconds of a monotonic clock is an argument.

    ``next`` is the next tick. ``missed`` counts the ticks that passed unserved because a read took longer
    than the interval; they are skipped, not made up for in a burst.

    Args:
        interval: seconds between two ticks, above 0.
        start: time of the first tick, without the phase.
        phase: seconds from ``start`` to the first tick, 0 or more.
    """

    __slots__ = ("_index", "_origin", "interval", "missed", "next")

    def __init__(self, interval: float, start: float, phase: float = 0.0) -> None:
        self.interval = interval
        self.missed = 0
        self._origin = start + phase
        self._index = 0
        self.next = self._origin

    def advance(self, now: float) -> int:
        """Move ``next`` to the first tick after ``now``; return the number of ticks missed by that.

        The caller serves the tick that is due. Before it is due, nothing happens.
        """
        if now < self.next:
            return 0
        index = max(self._index + 1, int((now - self._origin) // self.interval))
        while self._origin + index * self.interval <= now:  # the division may round to the tick before
            index += 1
        missed = index - self._index - 1
        self.missed += missed
        self._index = index
        self.next = self._origin + index * self.interval
        return missed


def phase_offset(node_id: str, sensor: str, interval: float) -> float:
    """Return a sensor's place in its interval: 0 to below ``interval`` seconds, the same after each restart.

    A hash, not a random number: a fleet that was switched on together spreads out, while tests and logs have
    the same times in each run.
    """
    digest = blake2b(f"{node_id}/{sensor}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48 * interval
