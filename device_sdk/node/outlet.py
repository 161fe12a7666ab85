"""The way of a sensor's readings out of its worker: numbered, and past the gate into the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_sdk._clock import boot_id
from device_sdk._folding import Folding
from device_sdk._log import Log
from device_sdk.errors import DeviceSdkError
from device_sdk.node.sample import Sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.drivers import Reading
    from device_sdk.node.availability import Availability
    from device_sdk.node.clock.gate import Gate
    from device_sdk.node.tables import SensorTable

__all__ = ["Outlet"]

log = Log("device_sdk.node")


class Outlet:
    """Numbers the samples of one sensor and hands them on. Called by its worker."""

    def __init__(
        self, table: SensorTable, gate: Gate, availability: Availability, clock: Callable[[], float]
    ) -> None:
        self._table = table
        self._gate = gate
        self._availability = availability
        self._seq = 0
        self._losing = False
        self._lost = 0  # samples of which the log does not know
        self._told = False  # by the log that samples are lost, and not yet how many
        self._folding = Folding(log, clock)

    def __call__(self, readings: tuple[Reading, ...], uptime: float) -> None:
        """Hand on the readings of one read, which began at a moment of ``CLOCK_BOOTTIME``."""
        table = self._table
        sample = Sample(table.topic, table.qos, table.retain, self._seq, boot_id(), uptime, readings)
        self._seq += 1
        try:
            self._gate.put(sample)
        except DeviceSdkError as error:
            self.lose(error)
            return
        if self._losing:
            self._losing = False
            if self._told:
                self._tell_lost(", now they are taken again")
        self._availability.pay()

    def lose(self, error: DeviceSdkError) -> None:
        """Count a sample that the queue did not take."""
        self._lost += 1
        if not self._losing:
            self._losing = True
            text = "sensor %s: samples are lost from now on: %s"
            self._told |= self._folding.warning("lost", "", text, self._table.name, error)

    def end(self) -> None:
        """Log the samples that were lost since the log said so."""
        if self._lost:
            self._tell_lost("")

    def _tell_lost(self, rest: str) -> None:
        log.warning("sensor %s: %d samples were lost%s", self._table.name, self._lost, rest)
        self._lost, self._told = 0, False
