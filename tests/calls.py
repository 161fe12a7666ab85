"""Counts calls, the measure of work that repeats exactly where time does not."""

from __future__ import annotations

import gc
import sys
from types import FrameType

__all__ = ["Calls"]


class Calls:
    """A block whose calls are counted, in the thread that runs it: ``total``.

    ``events``: those of :func:`sys.setprofile` that count. The garbage collector rests meanwhile: it would
    call the finalizers of other tests.
    """

    def __init__(self, *events: str) -> None:
        self.total = 0
        self._events = events

    def __enter__(self) -> Calls:
        gc.disable()
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        gc.enable()
        self.total -= len(self._events)  # the end of the block: a call of this, and of C to stop

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        self.total += event in self._events
