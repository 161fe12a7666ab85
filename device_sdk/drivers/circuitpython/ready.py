"""Chips that measure by themselves and say when there is something new."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from device_sdk.drivers.base import Reading
from device_sdk.errors import ArgumentError, ReadTimeoutError

__all__ = ["Ready"]

_LOOK_S = 0.05


class Ready:
    """Waits for the first measurement of a chip, and keeps the last one until there is a new one.

    Args:
        name: the property or method that tells whether there is a new measurement.
        within: seconds from one to the next at most.

    Raises: ArgumentError: no such time.
    """

    def __init__(self, name: str, within: float) -> None:
        if not (math.isfinite(within) and 0 < within <= 3600):
            raise ArgumentError("ready_within", f"expected seconds, above 0 to 3600, found {within!r}")
        self.name = name
        self._within = within
        self._since = 0.0
        self._last: tuple[Reading, ...] = ()

    def begin(self) -> None:
        """Forget the last measurement: the chip has been started."""
        self._last = ()
        self._since = time.monotonic()

    def wait(self, place: str, is_ready: Callable[[], bool]) -> tuple[Reading, ...]:
        """Return the last readings while there is nothing new, or nothing when there is.

        Only for the first measurement it waits.

        Raises: ReadTimeoutError: nothing new for too long.
        """
        while not is_ready():
            age = time.monotonic() - self._since
            if age >= self._within:
                raise ReadTimeoutError(
                    f"{place}: no new measurement for {age:.1f} s, {self.name} is false: did the chip stop"
                    " (start = [...]), or is ready_within too short for it?"
                )
            if self._last:
                return self._last
            time.sleep(_LOOK_S)
        return ()

    def keep(self, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
        """Note the readings of a new measurement and return them."""
        self._since = time.monotonic()
        self._last = readings
        return readings
