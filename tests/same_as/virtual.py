"""Time and chance of a process that is to do the same thing each time. Imported before ``device_sdk``."""

from __future__ import annotations

import os
import time
from random import Random

__all__ = ["CHANCE", "CLOCK", "install"]


class _Clock:
    """Shows what it was set to; ``show`` may be replaced by the clock of a run."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.show = self._now

    def reset(self) -> None:
        """Begin anew."""
        self.now, self.show = 1000.0, self._now

    def _now(self) -> float:
        return self.now


class _Chance:
    def __init__(self) -> None:
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin anew."""
        self._dice = Random(seed)

    def urandom(self, size: int) -> bytes:
        """Stand in for :func:`os.urandom`."""
        return self._dice.randbytes(size)


CLOCK, CHANCE = _Clock(), _Chance()


def install() -> None:
    """Let everything that is imported later take time and chance from here."""
    time.monotonic = lambda: CLOCK.show()
    time.clock_gettime = lambda _: CLOCK.show()
    os.urandom = CHANCE.urandom
