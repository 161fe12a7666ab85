"""The machine itself as a sensor: load, memory, uptime, network counters, CPU, disks, supply.

The values are the kernel's own; only KiB are converted to bytes. ``host_parts.py`` has what comes from
elsewhere, and what not every machine has.

Source: Linux ``Documentation/filesystems/proc.rst``, ``man 5 proc``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from device_sdk.drivers.base import Channel, Driver, Reading
from device_sdk.drivers.host_parts import Part, check_disks, find_parts
from device_sdk.drivers.values import Measurement, reading_of
from device_sdk.errors import ArgumentError, BusError, DeviceNotFoundError, DriverError

__all__ = ["HostDriver"]

# The largest of these files is net/dev with about 130 bytes per interface.
_MAX_FILE_BYTES = 1 << 20

# The numbers are of the kernel, so of 64 bits.
_DECIMAL = r"\d{1,20}\.\d{1,20}"
_LOADAVG = re.compile(rf"({_DECIMAL}) ({_DECIMAL}) ({_DECIMAL}) \d+/\d+ \d+\n?", re.ASCII)
_UPTIME = re.compile(rf"({_DECIMAL}) {_DECIMAL}\n?", re.ASCII)
_MEMINFO_LINE = re.compile(r"(?P<name>[^:\s]+):\s+(?P<kib>\d{1,20}) kB", re.ASCII)

_LOAD = (
    Channel("load.1m", "1", "runnable and waiting tasks, mean over 1 minute", 0, None, 2),
    Channel("load.5m", "1", "runnable and waiting tasks, mean over 5 minutes", 0, None, 2),
    Channel("load.15m", "1", "runnable and waiting tasks, mean over 15 minutes", 0, None, 2),
)
_MEMORY = {
    "MemTotal": Channel("memory.total", "B", "RAM that the kernel manages"),
    "MemFree": Channel("memory.free", "B", "unused RAM"),
    "MemAvailable": Channel("memory.available", "B", "RAM that a new program could get without swapping"),
    "SwapTotal": Channel("swap.total", "B", "swap space"),
    "SwapFree": Channel("swap.free", "B", "unused swap space"),
}
_UPTIME_CHANNEL = Channel("uptime", "s", "time since the kernel started", 0, None, 2)

# Column of net/dev after the colon -> counter, unit, description. The kernel prints 16 columns.
_NETWORK_COLUMNS = 16
_NETWORK = {
    0: ("rx_bytes", "B", "bytes received"),
    1: ("rx_packets", "count", "packets received"),
    2: ("rx_errors", "count", "receive errors"),
    8: ("tx_bytes", "B", "bytes sent"),
    9: ("tx_packets", "count", "packets sent"),
    10: ("tx_errors", "count", "transmit errors"),
}


class HostDriver(Driver):
    """The machine itself: load, memory, uptime, network, CPU, disks, supply.

    Read from ``/proc/loadavg``, ``/proc/meminfo``, ``/proc/uptime``, ``/proc/net/dev`` and, where there are
    such, ``/proc/stat``, a thermal zone or monitor of the CPU, the Raspberry Pi's under-voltage flags.

    Units: load ``1`` (dimensionless), memory, swap and disks ``B``, uptime ``s`` with a resolution of 0.01 s,
    network bytes ``B``, packets and errors ``count``, CPU use ``%`` since the last read (the first: since
    ``open()``), temperature ``Cel``, flags bool. The counters grow since the interface appeared; on a
    32-bit kernel they wrap at 2**32.

    The interfaces are those that ``open()`` found. One that disappears later reads as ``bad``; one that
    appears later is seen by the next ``open()``. The loopback interface ``lo`` is left out unless
    ``loopback`` is true.

    Args:
        root: folder that holds ``proc`` and ``sys``; a test passes a tree of its own.
        loopback: read ``lo`` as well.
        disks: mount points whose space is read; no other is asked. A network file system whose server does
            not answer makes ``read()`` wait for it.

    Raises: ArgumentError: ``disks`` has something that is no absolute path.

    Duration of one ``read()``: below 1 ms on a PC, a few on a small board.
    """

    def __init__(
        self, root: str | Path = "/", *, loopback: bool = False, disks: Sequence[str] = ("/",)
    ) -> None:
        if problem := check_disks(disks):
            raise ArgumentError("disks", problem)
        self._root = Path(root)
        self._proc = self._root / "proc"
        self._loopback = loopback
        self._disks = tuple(disks)
        self._parts: list[Part] = []
        self._interfaces: tuple[str, ...] = ()
        self._channels: tuple[Channel, ...] = ()

    def channels(self) -> tuple[Channel, ...]:
        """Return load, memory, swap, uptime, six counters for each interface, and the parts found."""
        self._require_open()
        return self._channels

    def open(self) -> None:
        """Find the network interfaces and the parts, and check that every file of ``/proc`` can be read."""
        if self._channels:
            return
        interfaces = tuple(self._read_network())
        network = tuple(
            Channel(f"net.{interface}.{counter}", unit, f"{description} on {interface}")
            for interface in interfaces
            for counter, unit, description in _NETWORK.values()
        )
        always = (*_LOAD, *_MEMORY.values(), _UPTIME_CHANNEL)
        self._parts = find_parts(self._root, self._disks)
        parts = tuple(channel for part in self._parts for channel in part.channels)
        self._interfaces, self._channels = interfaces, (*always, *network, *parts)
        try:
            self._measure()
        except DriverError:
            self.close()
            raise

    def read(self) -> tuple[Reading, ...]:
        """Read each file once and return every channel. A disk or another part that fails is ``bad``.

        Raises: DeviceNotFoundError: one of the four files is missing. BusError: it cannot be read.
        DriverError: its content is not in the kernel's format; the message names the file, the expected and
        the found text.
        """
        self._require_open()
        now = time.time()
        found = self._measure()
        for part in self._parts:
            found += part.read()
        return tuple(
            reading_of(channel, got, now) for channel, got in zip(self._channels, found, strict=True)
        )

    def close(self) -> None:
        """Forget the interfaces. There is nothing to release: the files are open only while they are read."""
        self._interfaces = ()
        self._parts = []
        self._channels = ()

    def _measure(self) -> list[Measurement]:
        values = [*self._read_load(), *self._read_memory(), self._read_uptime()]
        found = [Measurement(value) for value in values]
        counters = self._read_network()
        for interface in self._interfaces:
            if interface in counters:
                found += [Measurement(value) for value in counters[interface]]
            else:
                found += [Measurement(None, "bad", f"the interface {interface} is gone")] * len(_NETWORK)
        return found

    def _require_open(self) -> None:
        if not self._channels:
            raise DriverError("the host driver is not open: call open() first, or use it in a with statement")

    def _read_load(self) -> list[float]:
        text = self._text("loadavg")
        match = _LOADAVG.fullmatch(text)
        if match is None:
            raise self._damaged("loadavg", "three decimal numbers, running/total tasks, a process id", text)
        return [float(field) for field in match.groups()]

    def _read_uptime(self) -> float:
        text = self._text("uptime")
        match = _UPTIME.fullmatch(text)
        if match is None:
            raise self._damaged("uptime", "two decimal numbers of seconds", text)
        return float(match[1])

    def _read_memory(self) -> list[int]:
        text = self._text("meminfo")
        kib = {m["name"]: int(m["kib"]) for m in map(_MEMINFO_LINE.fullmatch, text.splitlines()) if m}
        for name in _MEMORY:
            if name not in kib:
                found = next(
                    (line for line in text.splitlines() if line.startswith(f"{name}:")), "no such line"
                )
                raise self._damaged("meminfo", f"a line '{name}: <number> kB'", found)
        # The kernel writes "kB" and means 1024 bytes.
        return [kib[name] * 1024 for name in _MEMORY]

    def _read_network(self) -> dict[str, list[int]]:
        """Return the counters of ``_NETWORK`` by interface."""
        lines = self._text("net/dev").splitlines()
        if len(lines) < 2 or "|" not in lines[0] or "|" not in lines[1]:
            raise self._damaged("net/dev", "two heading lines with '|'", "\n".join(lines[:2]))
        counters: dict[str, list[int]] = {}
        for line in lines[2:]:
            # A name may hold a colon (an old alias such as eth0:1), so the last one ends it.
            name, colon, rest = line.rpartition(":")
            fields = rest.split()
            if not (colon and name.strip() and len(fields) >= _NETWORK_COLUMNS and _all_digits(fields)):
                raise self._damaged("net/dev", f"'<interface>:' and {_NETWORK_COLUMNS} counters", line)
            if name.strip() != "lo" or self._loopback:
                counters[name.strip()] = [int(fields[column]) for column in _NETWORK]
        return counters

    def _text(self, name: str) -> str:
        path = self._proc / name
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_FILE_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise DeviceNotFoundError(f"{path} is missing: is {self._proc} a Linux /proc?") from None
        except OSError as error:
            raise BusError(f"{path} cannot be read: {error.strerror or error}") from error
        if len(data) > _MAX_FILE_BYTES:
            raise DriverError(f"{path} is longer than {_MAX_FILE_BYTES} bytes: not written by the kernel")
        return data.decode("ascii", "backslashreplace")

    def _damaged(self, name: str, expected: str, found: str) -> DriverError:
        shown = found if len(found) <= 80 else f"{found[:77]}..."
        return DriverError(f"{self._proc / name}: expected {expected}, found {shown!r}")


def _all_digits(fields: list[str]) -> bool:
    return all(field.isascii() and field.isdigit() and len(field) <= 20 for field in fields)
