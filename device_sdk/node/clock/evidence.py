"""What shows that the kernel's wall clock is right.

That it shows a credible time does not: fake-hwclock restores the time of the last shutdown.

Source: adjtimex(2); systemd-timesyncd.service(8); Linux ``Documentation/ABI/testing/rtc-cdev`` and
``drivers/rtc/class.c`` for ``hctosys``.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from typing import TYPE_CHECKING

from device_sdk.node.clock import chrony

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EVIDENCE", "RTC", "Evidence"]

_TIME_ERROR = 5  # adjtimex(): not synchronised
_STA_UNSYNC = 0x0040
_TIMESYNCD = "/run/systemd/timesync/synchronized"
_RTCS = "/sys/class/rtc"


class _Timex(ctypes.Structure):
    """The beginning of ``struct timex``; the kernel writes 208 bytes at most."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    ]


@cache
def _adjtimex() -> Callable[[object], int] | None:
    """The system call; ``None`` where there is none, as outside Linux."""
    call: Callable[[object], int] | None = getattr(ctypes.CDLL(None), "adjtimex", None)
    return call


def kernel_is_synchronised() -> bool:
    """Whether an NTP daemon keeps the kernel's clock in step: STA_UNSYNC is cleared.

    A machine that does not tell, because it is no Linux or forbids the call, counts as synchronised: it has
    an operating system that looks after its clock.
    """
    call = _adjtimex()
    if call is None:
        return True
    state = _Timex()
    result = call(ctypes.byref(state))
    return result == -1 or (result != _TIME_ERROR and not state.status & _STA_UNSYNC)


def timesyncd_has_synchronised(path: str = _TIMESYNCD) -> bool:
    """Whether systemd-timesyncd has set the clock since the machine has started; /run is empty at a start."""
    return os.path.exists(path)


def rtc_has_set_the_clock(folder: str = _RTCS) -> bool:
    """Whether the kernel took the time from a clock with a battery when it started."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(_reads_one(os.path.join(folder, name, "hctosys")) for name in names)


def _reads_one(path: str) -> bool:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(2).strip() == "1"
    except (OSError, ValueError):
        return False


Evidence = tuple[str, "Callable[[], bool]"]
"""What it is, for the log, and whether it is there. May take 0.4 s; never raises."""

EVIDENCE: tuple[Evidence, ...] = (
    ("the kernel, by NTP or PTP", kernel_is_synchronised),
    ("systemd-timesyncd", timesyncd_has_synchronised),
    ("chronyd", chrony.is_synchronised),
)
"""What always counts, in the order in which it is looked for."""

RTC: Evidence = ("the board's RTC", rtc_has_set_the_clock)
"""Counts only for who trusts the battery: ``clock.rtc``."""
