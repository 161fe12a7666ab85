"""Values that never change although the chip has stopped: after an age they are doubtful.

A chip that hangs, and a kernel or a gateway in front of it, give the last value again and again. A measured
number has noise in its last digits, so that exactly the same one for an hour is not credible for most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from device_sdk.drivers.base import Channel, Driver, Reading, Value

__all__ = ["Aging"]


class Aging(Driver):
    """A driver whose numbers are ``uncertain`` while they have been exactly the same for too long.

    Texts and truth values may stay as they are. A bad reading in between does not count as a change.

    Args:
        driver: the one that measures.
        after: seconds, above 0.
        clock: seconds, monotonic.
    """

    def __init__(self, driver: Driver, after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver = driver
        self._after = after
        self._clock = clock
        self._last: dict[str, tuple[Value, float]] = {}  # channel -> value, since when

    def channels(self) -> tuple[Channel, ...]:
        """Return the channels of the driver."""
        return self._driver.channels()

    def open(self) -> None:
        """Open the driver."""
        self._driver.open()

    def read(self) -> tuple[Reading, ...]:
        """Read the driver and judge the age of its values."""
        now = self._clock()
        return tuple(self._judged(reading, now) for reading in self._driver.read())

    def close(self) -> None:
        """Close the driver, and forget its values: a chip that is set up anew may be right again."""
        self._last.clear()
        self._driver.close()

    def _judged(self, reading: Reading, now: float) -> Reading:
        value = reading.value
        if value is None or isinstance(value, bool | str):
            return reading
        last, since = self._last.get(reading.channel, (None, now))
        if last != value:
            since = now
        self._last[reading.channel] = (value, since)
        if now - since < self._after or reading.quality != "good":
            return reading
        reason = f"exactly the same for {now - since:.0f} s: has the chip stopped?"
        return replace(reading, quality="uncertain", reason=reason)
