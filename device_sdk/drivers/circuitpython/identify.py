"""Finds out which chip is at an address where the expected one is not.

Only a chip whose driver has failed is asked, and only where one of the registers below may be.

Sources: the data sheets of the chips, their registers of identifiers.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from device_sdk.drivers.bus import I2CBus
from device_sdk.drivers.kinds import what_to_write
from device_sdk.errors import DriverError

__all__ = ["answers", "found_instead"]


class _Register(NamedTuple):
    """A register that identifies chips: where, how many bytes, and chip by content."""

    addresses: range
    register: int
    size: int
    chips: dict[int, str]


_BOSCH = range(0x76, 0x78)
_REGISTERS = (
    _Register(_BOSCH, 0xD0, 1, {0x55: "BMP180", 0x58: "BMP280", 0x60: "BME280", 0x61: "BME680"}),
    _Register(_BOSCH, 0x00, 1, {0x50: "BMP388", 0x60: "BMP390"}),
    _Register(range(0x18, 0x20), 0x07, 2, {0x0400: "MCP9808"}),
    _Register(range(0x29, 0x2A), 0xC0, 1, {0xEE: "VL53L0X"}),
    _Register(range(0x29, 0x2A), 0xB2, 1, {0x50: "TSL2591"}),
    _Register(range(0x48, 0x4C), 0x0F, 2, {0x0117: "TMP117", 0x2117: "TMP119"}),
    _Register(range(0x5C, 0x5E), 0x0F, 1, {0xB1: "LPS22HB", 0xB3: "LPS22HH", 0xBD: "LPS25HB"}),
    _Register(range(0x5F, 0x60), 0x0F, 1, {0xBC: "HTS221"}),
)


def found_instead(bus: I2CBus, address: int | None, others: tuple[int, ...]) -> str:
    """Return what to do about a chip that is not at an address, for people.

    Args:
        bus: locked by this thread.
        address: ``None``: not known.
        others: the addresses that the chip can have.
    """
    which = f", which is {_listed(others)} for this chip" if others else ""
    if address is None:
        return f"check the wiring and the address{which}"
    if not answers(bus, address):
        there = [other for other in others if answers(bus, other)]
        else_ = f"; {_chip(bus, there[0])} answers at 0x{there[0]:02x}" if there else ""
        return f"nothing answers at 0x{address:02x}: check the wiring and the address{which}{else_}"
    chip = _chip(bus, address)
    advice = what_to_write(chip.removeprefix("a "))
    if advice:
        return f"{chip} is at 0x{address:02x}, not the chip of this driver; {advice}"
    return f"{chip} is at 0x{address:02x}; is it the chip of this driver, and is its supply right{which}?"


def _chip(bus: I2CBus, address: int) -> str:
    for each in _REGISTERS:
        if address in each.addresses:
            try:
                answer = bus.transfer(address, bytes([each.register]), each.size)
            except DriverError:
                continue
            if name := each.chips.get(int.from_bytes(answer)):
                return f"a {name}"
    return "a chip"


def answers(bus: I2CBus, address: int) -> bool:
    """Return whether an address acknowledges; probed as CircuitPython drivers do."""
    try:
        bus.transfer(address, b"", None)
    except DriverError as error:
        if getattr(error, "errno", None) != errno.EOPNOTSUPP:
            return False
        try:
            bus.transfer(address, None, 1)
        except DriverError:
            return False
    return True


def _listed(addresses: tuple[int, ...]) -> str:
    return " or ".join(f"0x{address:02x}" for address in addresses)
