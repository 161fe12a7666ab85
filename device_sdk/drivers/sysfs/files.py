"""Reads the small files below /sys: a text, a number, a link; errors in our words."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

from device_sdk.errors import BusError, DeviceNotFoundError, DriverError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["damaged", "label", "number", "sorted_files", "text"]

# The longest file read here is w1_slave with 75 bytes; the kernel never gives more than a page.
_MAX_FILE_BYTES = 4096
_MAX_LABEL = 80
_NUMBER = re.compile(r"-?[0-9]+(?P<fraction>\.[0-9]+)?")
# Longer ones are no integers of the kernel, whose largest has 20 digits.
_MAX_INTEGER = 20


def text(path: Path) -> str:
    """Return the text of a file.

    Raises: DeviceNotFoundError: it is gone. BusError: it cannot be read, with ``errno``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise _failed(path, error) from error
    return data.decode("utf-8", "backslashreplace").strip()


def number(path: Path) -> float | int:
    """Return the number in a file.

    Raises: DriverError: it holds none; or as :func:`text`.
    """
    found = text(path)
    match = _NUMBER.fullmatch(found)
    if match is None:
        raise damaged(path, "a number", found)
    return float(found) if match["fraction"] or len(found) > _MAX_INTEGER else int(found)


def label(path: Path) -> str:
    """Return a name from a file, empty if there is none: it is missing, too long or not printable."""
    try:
        found = text(path)
    except DriverError:
        return ""
    return found if found.isprintable() and len(found) <= _MAX_LABEL else ""


def sorted_files(folder: Path) -> list[Path]:
    """Return the folder's files, ``temp2_input`` before ``temp10_input``."""

    def order(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"([0-9]+)", path.name)
        return [(int(part), "") if place % 2 else (-1, part) for place, part in enumerate(parts)]

    try:
        return sorted(folder.iterdir(), key=order)
    except OSError as error:
        raise _failed(folder, error) from error


def damaged(path: Path, expected: str, found: str) -> DriverError:
    """Make the error for a file that is not in the kernel's format."""
    return DriverError(f"{path}: expected {expected}, found {found!r:.80}")


def _failed(path: Path, error: OSError) -> DriverError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return DeviceNotFoundError(
            f"{path} is gone: was the device unplugged, or its kernel driver unloaded?"
        )
    code = error.errno or errno.EIO
    failed = BusError(f"{path} cannot be read: {os.strerror(code)} ({errno.errorcode.get(code, code)})")
    failed.errno = code
    return failed
