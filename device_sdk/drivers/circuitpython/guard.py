"""The bus as the object of a chip sees it: bounds the time of a call, and doubts answers of nobody."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from device_sdk.drivers.bus import I2CBus
from device_sdk.drivers.bus.i2c import NO_ACKNOWLEDGE
from device_sdk.drivers.circuitpython.faults import Overdue
from device_sdk.drivers.circuitpython.identify import answers
from device_sdk.errors import BusError, ReadTimeoutError

__all__ = ["LONGEST_CALL_S", "GuardedBus"]

LONGEST_CALL_S = 20.0
"""How long one read, or the construction, may take: many drivers wait for a bit of the chip for ever.

Less than the time after which a node leaves the thread behind: this way it goes on."""


class GuardedBus(I2CBus):
    """Another bus, with its lock. Calls of a chip's object are made in :meth:`call`.

    ``is_lost``: a call has failed, or ended without an acknowledge. The chip may have been without power, and
    has its settings no more, until it is set up again.
    """

    def __init__(self, bus: I2CBus) -> None:
        super().__init__(bus.name)
        self._bus = bus
        self._until = math.inf
        self._doubted: int | None = None
        self._unanswered = False
        self.is_lost = False

    @contextmanager
    def call(self, place: str) -> Iterator[None]:
        """Hold the lock while the object of a chip works, at most for LONGEST_CALL_S.

        Raises: ReadTimeoutError: it used the bus for longer. BusError: the chip was gone when the last byte
        came. A wire that nobody pulls down reads as ones, so an answer that ends with 0xFF may be no answer.
        """
        with self._bus.locked():
            self._doubted = None
            self._unanswered = False
            self._until = time.monotonic() + LONGEST_CALL_S
            try:
                yield
            except BusError:
                self.is_lost = True
                raise
            except Overdue as error:
                raise ReadTimeoutError(
                    f"{place}: its driver waits for the chip for more than {LONGEST_CALL_S:g} s: switch the"
                    " chip's supply off and on"
                ) from error
            finally:
                self._until = math.inf
                # A busy chip does not acknowledge either, but then its driver asks again until it does.
                self.is_lost = self.is_lost or self._unanswered
            self._dispel_doubt(place)

    def transfer(self, address: int, write: bytes | None, read_count: int | None) -> bytes:
        """Hand it to the bus. Raises: Overdue: the time of the call is over."""
        if time.monotonic() >= self._until:
            raise Overdue
        try:
            answer = self._bus.transfer(address, write, read_count)
        except OSError as error:
            self._unanswered = error.errno in NO_ACKNOWLEDGE
            raise
        self._unanswered = False
        if answer.endswith(b"\xff"):
            self._doubted = address
        return answer

    def try_lock(self) -> bool:
        """Take the lock of the bus."""
        return self._bus.try_lock()

    def unlock(self) -> None:
        """Undo one ``try_lock()``."""
        self._bus.unlock()

    @contextmanager
    def locked(self, timeout: float = 10.0) -> Iterator[None]:
        """Hold the lock of the bus."""
        with self._bus.locked(timeout):
            yield

    def deinit(self) -> None:
        """Leave the bus open: it belongs to others, too."""

    def _dispel_doubt(self, place: str) -> None:
        if self._doubted is not None and not answers(self._bus, self._doubted):
            self.is_lost = True
            raise BusError(
                f"{place}: 0x{self._doubted:02x} stopped to answer in the middle of a read: check its plug"
                " and its supply"
            )
