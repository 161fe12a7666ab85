"""Expiry of stored messages, with clocks that a device cannot trust.

A board without a battery-backed clock starts in 1970 and jumps by decades when NTP answers. So a message is
kept with three times: its expiry by ``CLOCK_BOOTTIME``, which never steps and is right until the next boot;
the life that it had left when it was stored; and its expiry by the wall clock, if that was set.
"""

from __future__ import annotations

import time
from zlib import crc32

from device_sdk._clock import EARLIEST, boot_id, boottime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Times = tuple[float | None, float | None, float | None, int | None]

__all__ = ["NO_EXPIRY", "ExpiryClock"]

#: The times of a message that does not expire.
NO_EXPIRY: Times = (None, None, None, None)


class ExpiryClock:
    """Translates between ``expires_at`` of the contract and the columns of a message's row.

    Args: steady, wall: the two clocks, in seconds; ``boot``: identifier of this boot of the machine.
    """

    __slots__ = ("_boot", "_steady", "_wall")

    def __init__(
        self,
        steady: Callable[[], float] = boottime,
        wall: Callable[[], float] = time.time,
        boot: str | None = None,
    ) -> None:
        self._steady = steady
        self._wall = wall
        self._boot = crc32((boot_id() if boot is None else boot).encode())

    def time_of_day(self) -> float:
        """Return the wall-clock time, whether it was set or not."""
        return self._wall()

    def to_row(self, expires_at: float | None) -> Times:
        """Return (expires_at, life left in seconds, wall-clock expiry or ``None``, boot)."""
        if expires_at is None:
            return NO_EXPIRY
        life = expires_at - self._steady()
        wall = self._wall()
        return expires_at, life, wall + life if wall >= EARLIEST else None, self._boot

    def from_row(
        self, expires_at: float | None, life: float | None, wall_expiry: float | None, boot: int | None
    ) -> float | None:
        """Return the expiry of the message, in seconds of this boot.

        After a reboot a trusted clock can shorten the remaining life, never lengthen it; without one the time
        without power does not count.
        """
        if expires_at is None or life is None:
            return None
        if boot == self._boot:
            return expires_at
        wall = self._wall()
        if wall_expiry is not None and wall >= EARLIEST:
            life = min(life, wall_expiry - wall)
        return self._steady() + life
