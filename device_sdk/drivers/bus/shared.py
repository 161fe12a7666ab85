"""Buses by name: one object and one lock for all callers that open the same bus."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from threading import Lock

from device_sdk._load import load_object
from device_sdk.drivers.bus.i2c import I2CBus, LinuxI2C
from device_sdk.errors import ArgumentError

__all__ = ["check_bus_name", "close_bus", "open_bus"]


@dataclass(slots=True)
class _Shared:
    bus: I2CBus
    users: int


_open: dict[str, _Shared] = {}
_open_lock = Lock()


def check_bus_name(name: str) -> str:
    """Return the canonical name of a bus: ``/dev/i2c-1`` for ``i2c-1``; a link is followed.

    Raises: ArgumentError: no bus is named like that.
    """
    if re.fullmatch(r"i2c-\d+", name):
        return f"/dev/{name}"
    if name.startswith("/"):
        return os.path.realpath(name)
    if re.fullmatch(r"fake:[\w.]+:\w+", name):
        return name
    raise ArgumentError(
        "bus", f"expected 'i2c-1', '/dev/i2c-1' or 'fake:package.module:name', found {name!r}"
    )


def open_bus(name: str) -> I2CBus:
    """Open a bus, or share the one that is open under this name. May be called from any thread.

    ======================== ==========================================================================
    ``i2c-1``, ``/dev/...``  a bus of the Linux kernel: :class:`~device_sdk.drivers.bus.i2c.LinuxI2C`
    ``fake:module:name``     an :class:`~device_sdk.drivers.bus.i2c.I2CBus` in a Python module, or a
                             function that makes one; for tests and rigs
    ======================== ==========================================================================

    Raises: ArgumentError: no bus is named like that. DeviceNotFoundError, BusError: as ``LinuxI2C``.
    """
    key = check_bus_name(name)
    with _open_lock:
        shared = _open.get(key)
        if shared is None:
            shared = _open[key] = _Shared(_make(key), 0)
        shared.users += 1
        return shared.bus


def close_bus(bus: I2CBus) -> None:
    """Release a bus; the last release closes it. May be called from any thread.

    Raises: ArgumentError: it did not come from ``open_bus()``, or was released too often.
    """
    with _open_lock:
        key = next((key for key, shared in _open.items() if shared.bus is bus), None)
        if key is None:
            raise ArgumentError("bus", f"{bus.name} is not open")
        shared = _open[key]
        shared.users -= 1
        if shared.users == 0:
            del _open[key]
            bus.deinit()


def _make(key: str) -> I2CBus:
    if key.startswith("/"):
        return LinuxI2C(key)
    try:
        found = load_object(key.removeprefix("fake:"), "bus")
    except ImportError as error:
        raise ArgumentError("bus", f"{key} cannot be imported: {error}") from error
    bus = found if isinstance(found, I2CBus) or not callable(found) else found()
    if not isinstance(bus, I2CBus):
        raise ArgumentError("bus", f"{key} is no I2CBus but a {type(bus).__name__}")
    return bus
