"""Virtual time: a clock that jumps from one thing to do to the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from heapq import heappop, heappush

from device_sdk.testing import ManualClock

__all__ = ["Timeline"]

Action = Callable[[], None]


class Timeline:
    """What is to be done, and when, in seconds. What is due at the same time is done as it was planned."""

    def __init__(self) -> None:
        self._clock = ManualClock()
        self._planned: list[tuple[float, int, Action]] = []
        self._count = 0
        self.leapt = 0.0  # seconds, of all leaps

    @property
    def now(self) -> float:
        """The time."""
        return self._clock()

    def after(self, seconds: float, action: Action) -> None:
        """Plan something."""
        self._count += 1
        heappush(self._planned, (self.now + seconds, self._count, action))

    def next_due(self) -> float:
        """When the next planned thing is due; infinity: nothing is planned."""
        return self._planned[0][0] if self._planned else math.inf

    def leap(self, seconds: float) -> None:
        """Let time pass while nothing can happen: what was due meanwhile is late."""
        self._clock.advance(seconds)
        self.leapt += seconds

    def go_to(self, moment: float) -> None:
        """Move on to ``moment``, or stay where we are if it has passed, and do what is due."""
        if moment > self.now:
            self._clock.advance_to(moment)
        while self._planned and self._planned[0][0] <= self.now:
            heappop(self._planned)[2]()
