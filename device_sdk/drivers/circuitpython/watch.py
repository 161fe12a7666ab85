"""Notices that a chip has restarted: its settings are gone, and it measures nothing, or something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from device_sdk.drivers.bus import I2CBus
from device_sdk.drivers.circuitpython.channels import Source
from device_sdk.drivers.circuitpython.sources import question
from device_sdk.errors import ArgumentError, DriverError

__all__ = ["Watch", "parse_watch"]


def parse_watch(entries: object) -> tuple[str | int, ...]:
    """Return what a user wants to be watched: properties, and registers of one byte.

    Raises: ArgumentError: the list is wrong.
    """
    found = tuple(entries) if isinstance(entries, Sequence) and not isinstance(entries, str) else (None,)
    for entry in found:
        is_register = isinstance(entry, int) and not isinstance(entry, bool) and 0 <= entry <= 0xFF
        if not (is_register or (isinstance(entry, str) and entry)):
            raise ArgumentError(
                "watch", f"expected a list of properties and registers (0x00 to 0xff), found {entries!r:.80}"
            )
    return found


class Watch:
    """The values that a chip has after it was set up, and keeps until it restarts.

    Raises: ArgumentError: the chip's object has no such property, or its address is not known.
    """

    def __init__(
        self, chip: Any, bus: I2CBus, address: int | None, entries: tuple[str | int, ...], path: str
    ) -> None:
        self._asked: list[tuple[str, Callable[[], object]]] = [
            (f"0x{entry:02x}", _register(bus, address, entry))
            if isinstance(entry, int)
            else (entry, question(chip, Source(entry, ()), path))
            for entry in entries
        ]
        self._were = [ask() for _, ask in self._asked]

    def check(self, place: str) -> None:
        """Raise DriverError if the chip has restarted."""
        for (name, ask), was in zip(self._asked, self._were, strict=True):
            if (now := ask()) != was:
                raise DriverError(
                    f"{place}: the chip has restarted, {name} was {was!r:.40} and is {now!r:.40}: the next"
                    " read sets it up again; check its supply"
                )


def _register(bus: I2CBus, address: int | None, register: int) -> Callable[[], object]:
    if address is None:
        raise ArgumentError("watch", "a register needs an address: say which")
    return lambda: bus.transfer(address, bytes([register]), 1)[0]
