"""Buses by name: one object and one lock for all callers that open the same bus.

A call to the kernel may hang, so only those who want that very bus wait for it, and it can be left behind.
"""

from __future__ import annotations

import os
import re
from threading import Lock

from device_sdk._load import load_object
from device_sdk.drivers.bus.i2c import I2CBus, LinuxI2C
from device_sdk.errors import ArgumentError

__all__ = ["abandon_bus", "check_bus_name", "close_bus", "open_bus"]


class _Shared:
    """A bus and how many have it open; ``making`` is held while it is made."""

    def __init__(self) -> None:
        self.bus: I2CBus | None = None
        self.users = 0
        self.making = Lock()


_open: dict[str, _Shared] = {}
_abandoned: list[_Shared] = []
_open_lock = Lock()  # of both, and of the users


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
    hint = f"; did you mean 'i2c-{name}'?" if re.fullmatch(r"\d+", name) else ""
    raise ArgumentError(
        "bus", f"expected 'i2c-1', '/dev/i2c-1' or 'fake:package.module:name', found {name!r}{hint}"
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
        shared = _open.setdefault(key, _Shared())
        shared.users += 1
    try:
        with shared.making:
            if shared.bus is None:
                shared.bus = _make(key)
            return shared.bus
    except BaseException:
        with _open_lock:
            _released(shared)
        raise


def close_bus(bus: I2CBus) -> None:
    """Release a bus; the last release closes it. May be called from any thread.

    Raises: ArgumentError: it did not come from ``open_bus()``, or was released too often.
    """
    with _open_lock:
        # An object that a module gives again and again may be there twice: it is the old use that ends.
        each = (*_abandoned, *_open.values())
        shared = next((shared for shared in each if shared.bus is bus), None)
        if shared is None:
            raise ArgumentError("bus", f"{bus.name} is not open")
        is_last = _released(shared)
    if is_last:
        bus.deinit()


def abandon_bus(name: str) -> None:
    """Leave a bus behind that hangs: the next ``open_bus()`` of this name makes a new one.

    Those who have it open keep it, descriptor, lock and all, and release it as usual. Does nothing if no bus
    is open under this name. May be called from any thread, and waits for none.
    """
    try:
        key = check_bus_name(name)
    except ArgumentError:
        return
    with _open_lock:
        shared = _open.pop(key, None)
        if shared is not None:
            _abandoned.append(shared)


def _released(shared: _Shared) -> bool:
    """Count one user less; return whether nobody has its object any more. The caller has the lock."""
    shared.users -= 1
    if shared.users:
        return False
    for key, each in list(_open.items()):
        if each is shared:
            del _open[key]
    if shared in _abandoned:
        _abandoned.remove(shared)
    return not any(each.bus is shared.bus for each in (*_abandoned, *_open.values()))


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
