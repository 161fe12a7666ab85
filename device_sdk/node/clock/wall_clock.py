"""The time of a moment: from the kernel's clock once it is right, or from a message or a GPS receiver."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from device_sdk._clock import EARLIEST, boottime
from device_sdk._folding import Folding
from device_sdk._log import Log
from device_sdk.node.clock.evidence import EVIDENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from device_sdk.node.clock.evidence import Evidence

__all__ = ["WallClock", "parse_time"]

# What shows more is wrong as well: nobody runs this package for thirty years without an update.
_LATEST = EARLIEST + 30 * 365 * 86_400

# Seconds: a second offer that differs by more moves the time of samples for everybody to see.
_JUMP_S = 60.0

log = Log("device_sdk.node")


class WallClock:
    """UTC for moments of ``CLOCK_BOOTTIME``, as soon as something vouches for it. Any thread.

    The kernel's clock counts once there is evidence for it, and from then on: an NTP daemon that loses its
    servers leaves a clock that drifts by seconds a day. A time that was offered counts until then. A clock
    that shows a time before :data:`~device_sdk._clock.EARLIEST` never counts.

    ``source``: who vouches for the time, for people; empty while nobody does.
    """

    def __init__(
        self,
        evidence: Iterable[Evidence] = EVIDENCE,
        *,
        uptime: Callable[[], float] = boottime,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.source = ""
        self._evidence = tuple(evidence)
        self._uptime = uptime
        self._wall = wall
        self._kernel_is_right = False
        self._offset: float | None = None  # UTC less uptime, of the last offer
        self._folding = Folding(log, uptime)

    def look(self) -> bool:
        """Look for evidence, and return whether the time is known. Takes up to 0.5 s while it is not."""
        if not self._kernel_is_right and self._wall() >= EARLIEST:
            found = next((name for name, is_there in self._evidence if is_there()), "")
            if found:
                self.source, self._kernel_is_right = found, True
        return self.utc(0.0) is not None

    def offer(self, utc: float, uptime: float, source: str) -> bool:
        """Take the time of a moment from elsewhere.

        Returns: whether it is credible. The last offer counts, but the kernel's clock more, once it is right.
        """
        if not EARLIEST <= utc < _LATEST:
            return False
        if not self._kernel_is_right:
            self._note_jump(utc - uptime, source)
            self._offset = utc - uptime
            self.source = source
        return True

    def _note_jump(self, offset: float, source: str) -> None:
        moved = 0.0 if self._offset is None else offset - self._offset
        if abs(moved) > _JUMP_S:
            text = "%s moves the time of samples by %+.0f s: do all who give the time agree?"
            self._folding.warning("jump", "", text, source, moved)

    def utc(self, uptime: float) -> float | None:
        """Return the time of a moment, in seconds since 1970-01-01 UTC; ``None``: not known."""
        if self._kernel_is_right:
            now = self._wall()
            if now >= EARLIEST:
                return now - (self._uptime() - uptime)
        return None if self._offset is None else self._offset + uptime


def parse_time(value: object) -> float | None:
    """Return the time that a message or a sensor gives, in seconds since 1970-01-01 UTC, or ``None``.

    A number is in seconds, or in milliseconds if seconds would be after the year 5000; a text is such a
    number or RFC 3339 with its offset, ``2026-12-01T10:00:00Z``.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text)
        except ValueError:
            return _parse_rfc3339(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    number = float(value)
    return number / 1000 if number >= 1e11 else number


def _parse_rfc3339(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else moment.timestamp()
