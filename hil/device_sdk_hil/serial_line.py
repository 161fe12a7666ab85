"""The serial line from the DUT to the broker: a pseudo-terminal, or a real port with fewer faults."""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

from device_sdk._printable import printable
from device_sdk.net.base import parse_url
from device_sdk.testing.pty_line import PtyLine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_sdk_hil.rig import PortTable, Rig
    from device_sdk_hil.timeline import Fault, Timeline

__all__ = ["RealSerialLine", "SerialLine", "VirtualSerialLine"]

_LOOK_S = 0.05
_SOURCE = "serial_line"


class SerialLine(ABC):
    """A line with faults. ``url`` is the URL for the DUT. One thread owns the object.

    A verb that this rig's line does not have skips the test (or fails it, with ``--rig-require``).
    """

    url: str

    def __init__(self, rig: Rig, timeline: Timeline) -> None:
        self._rig = rig
        self._timeline = timeline

    @abstractmethod
    def unplug(self) -> Fault:
        """Pull the adapter out: the port disappears, data under way is lost."""

    @abstractmethod
    def plug(self) -> None:
        """Put the adapter back; the port has its old name."""

    @contextmanager
    def unplugged(self) -> Iterator[Fault]:
        """Unplug it for the time of a ``with`` block."""
        fault = self.unplug()
        try:
            yield fault
        finally:
            self.plug()

    def throttle(self, bytes_per_second: float | None) -> None:
        """Limit the bytes per second each way; ``None``: no limit. 115200 baud carry 11,520."""
        self._rig.require(f"{_SOURCE}.throttle")

    def noise(self, probability: float, seed: int = 0) -> None:
        """Flip one bit of a byte with this probability, in both directions; 0 ends it."""
        self._rig.require(f"{_SOURCE}.noise")

    @abstractmethod
    def stop(self) -> None:
        """End all faults."""


class VirtualSerialLine(SerialLine):
    """A pseudo-terminal with a gateway to the broker behind it; see :class:`device_sdk.testing.PtyLine`."""

    def __init__(self, rig: Rig, timeline: Timeline, broker_url: str) -> None:
        super().__init__(rig, timeline)
        target = parse_url(broker_url)
        self._line = PtyLine(target.host, target.port)
        self._line.start()
        self._lasting: dict[str, Fault] = {}
        self.url = self._line.url

    def unplug(self) -> Fault:
        """Pull the adapter; the effect is a DUT that was connected over the line and reconnects."""
        before = self._line.connections
        self._line.unplug()
        return self._timeline.fault(
            _SOURCE, "unplug",
            effect=lambda: 0 < before < self._line.connections,
            expected="a connection over the line before it, and another one after plug()",
        )  # fmt: skip

    def plug(self) -> None:
        """Put the adapter back."""
        self._line.plug()
        self._timeline.record(_SOURCE, "plug")

    def throttle(self, bytes_per_second: float | None) -> None:
        """Slow the line down; the effect is that the DUT used it meanwhile."""
        super().throttle(bytes_per_second)
        self._line.throttle(bytes_per_second)
        self._begin("throttle", bool(bytes_per_second), 1, bytes_per_second=bytes_per_second)

    def noise(self, probability: float, seed: int = 0) -> None:
        """Disturb the line; the effect: enough bytes crossed it for one to be corrupted on average."""
        super().noise(probability, seed)
        self._line.noise(probability, seed)
        enough = 1 / probability if probability else 0
        self._begin("noise", bool(probability), enough, probability=probability, seed=seed)

    def stop(self) -> None:
        """Unplug for good, and end the thread of the line."""
        self._line.stop()

    def _begin(self, kind: str, is_on: bool, enough: float, **data: object) -> None:
        """Note a lasting fault: it has an effect if ``enough`` bytes cross the line before it ends."""
        if kind in self._lasting:
            self._lasting.pop(kind).conclude()
        if not is_on:
            self._timeline.record(_SOURCE, f"{kind} off")
            return
        before = self.bytes_carried
        self._lasting[kind] = self._timeline.fault(
            _SOURCE, kind,
            effect=lambda: self.bytes_carried - before >= enough,
            expected=f"{enough:.0f} or more bytes over the line while it lasted",
            **data,
        )  # fmt: skip

    @property
    def bytes_carried(self) -> int:
        """Bytes that have crossed the line so far, in both directions."""
        return self._line.bytes_up + self._line.bytes_down


class RealSerialLine(SerialLine):
    """A port of this machine. It is unplugged by commands of the rig file, for example by ``uhubctl``."""

    def __init__(self, rig: Rig, timeline: Timeline, table: PortTable) -> None:
        super().__init__(rig, timeline)
        self._table = table
        self._is_out = False
        self.url = table.url

    def unplug(self) -> Fault:
        """Run the rig's command; the effect is that the port is gone within the rig's patience."""
        self._rig.require(f"{_SOURCE}.unplug")
        self._is_out = True
        self._run(self._table.unplug)
        is_gone = self._wait_for_port(False)
        return self._timeline.fault(
            _SOURCE, "unplug", effect=lambda: is_gone, expected=f"{self._table.path} to disappear"
        )

    def plug(self) -> None:
        """Run the rig's command and wait for the port. Raises: TimeoutError: it does not come back."""
        self._run(self._table.plug)
        if not self._wait_for_port(True):
            raise TimeoutError(
                printable(
                    f"{self._table.path} is not back {self._rig.patience:g} s after the rig's command 'plug'"
                )
            )
        self._is_out = False
        self._timeline.record(_SOURCE, "plug")

    def stop(self) -> None:
        """Put the adapter back if it is out."""
        if self._is_out:
            self.plug()

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, timeout=self._rig.patience, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(
                printable(f"the rig's command {command} failed with status {done.returncode}: {done.stderr}")
            )

    def _wait_for_port(self, wanted: bool) -> bool:
        """Poll until the port is there, or gone. A hub of unknown make sends no event."""
        pause = Event()
        for _ in range(int(self._rig.patience / _LOOK_S)):
            if os.path.exists(self._table.path) == wanted:
                return True
            pause.wait(_LOOK_S)
        return False
