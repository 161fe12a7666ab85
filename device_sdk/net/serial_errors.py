"""Advice for a serial port that cannot be opened, in words for its user."""

from __future__ import annotations

import errno
import glob
import grp
import os
import pwd
import stat
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["GONE", "explain"]

# Names of ports that were plugged in; /dev/ttyS* exist even without hardware.
_PORTS = ("/dev/serial/by-id/*", "/dev/ttyUSB*", "/dev/ttyACM*", "/dev/ttyAMA*", "/dev/serial[0-9]*")

# Errors of the kernel for a device that has gone.
GONE = {errno.EIO, errno.ENXIO, errno.ENODEV}


def explain(path: str, settings: dict[str, Any], error: Exception) -> str:
    """Return why a port cannot be opened with these settings of pyserial, and advice."""
    number = _error_number(error)
    if number in (errno.EACCES, errno.EPERM):
        what = _explain_permission(path)
    elif number in (errno.EAGAIN, errno.EBUSY):
        what = _explain_busy(path)
    elif number == errno.ENOENT:
        what = f"there is no such device. {_explain_ports()}"
    elif number in GONE:
        what = f"no hardware answers behind it. {_explain_ports()}"
    elif number in (errno.ENOTTY, errno.EISDIR):
        what = f"it is not a serial port. {_explain_ports()}"
    else:
        frame = f"{settings['baudrate']} baud, 8{settings['parity']}{settings['stopbits']}"
        what = f"it refuses {frame} ({error})"
    return f"cannot open serial {path}: {what}"


def _error_number(error: BaseException | None) -> int | None:
    """Return the errno of an error or of its cause: pyserial does not always keep it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if isinstance(error, termios.error):
            return int(error.args[0])
        error = error.__context__
    return None


def _explain_permission(path: str) -> str:
    status = os.stat(path)
    if not status.st_gid or not status.st_mode & stat.S_IWGRP:
        return "permission denied, and no group may use it; a udev rule can give it one (GROUP, MODE=0660)"
    try:
        group, user = grp.getgrgid(status.st_gid).gr_name, pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # numbers without names, as in some containers
        group, user = str(status.st_gid), str(os.geteuid())
    return (
        f"permission denied. The device belongs to the group {group}: "
        f"sudo usermod -aG {group} {user}, then log in again"
    )


def _explain_busy(path: str) -> str:
    holders = ", ".join(_holders(path)) or "another program"
    return (
        f"{holders} has it open. exclusive=1, the default, gives a port one user: "
        "two would each lose what the other one reads"
    )


def _holders(path: str) -> list[str]:
    """Name the processes that have the device open, as far as our rights allow."""
    device = os.stat(path).st_rdev
    found = []
    for folder in glob.glob("/proc/[0-9]*"):
        try:
            if any(_leads_to(path, device) for path in glob.glob(f"{folder}/fd/*")):
                with open(f"{folder}/comm", encoding="utf-8", errors="replace") as comm:
                    found.append(f"{comm.read().strip()} (process {os.path.basename(folder)})")
        except OSError:  # it ended, or we may not look into it
            continue
    return found


def _leads_to(path: str, device: int) -> bool:
    status = os.stat(path)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == device


def _explain_ports() -> str:
    ports = [path for pattern in _PORTS for path in sorted(glob.glob(pattern))]
    if not ports:
        return "This machine has no serial ports now; plug the adapter in, or look at dmesg"
    return f"There are: {', '.join(ports)}. A name from /dev/serial/by-id stays the same after replugging"
