"""The clock of whatever has to be in time for a broker or a program: it goes on in suspend.

On Linux :func:`time.monotonic` stands still while the machine is suspended, and with it the time-outs of the
kernel: a laptop that slept for an hour would go on for another minute with a connection that its broker has
given up. So the moments of a connection, of a message in the queue and of a wait between attempts are in
seconds of ``CLOCK_BOOTTIME``. Attempts to open a stream, and time-outs that a program gives to a call, are in
monotonic seconds: they bound work, not silence.
"""

from __future__ import annotations

import os
import time
from functools import cache, partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EARLIEST", "LONGEST_WAIT", "ahead", "boot_id", "boottime"]


def _clock() -> Callable[[], float]:
    try:
        clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
        clock()
    except (AttributeError, OSError):  # not Linux, or forbidden
        return time.monotonic
    return clock


#: Seconds since the machine has booted, in suspend too; :func:`time.monotonic` where there is no such clock.
boottime = _clock()

#: Seconds. A wait for a later moment ends after so many, for a look at the clock: after a suspend the kernel
#: would wait for what was left before it.
LONGEST_WAIT = 15.0

#: Seconds since 1970-01-01 UTC: this package was made then, so a wall clock that shows less is wrong.
EARLIEST = 1_796_083_200  # 2026-12-01

_TOLERANCE = 0.001
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@cache
def boot_id() -> str:
    """Return the identifier of this start of the machine.

    Where the kernel gives none, it is one of this process: moments of two starts are never taken for each
    other's.
    """
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, ValueError):
        return os.urandom(16).hex()


def ahead() -> float:
    """Return by how many seconds :data:`boottime` is ahead of :func:`time.monotonic`."""
    difference = boottime() - time.monotonic()
    return difference if abs(difference) > _TOLERANCE else 0.0
