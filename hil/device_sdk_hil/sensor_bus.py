"""The I2C bus of the DUT: fake chips that the test controls, or real ones that are only read."""

from __future__ import annotations

import errno
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from device_sdk.testing.fake_bme280 import FakeBME280
from device_sdk.testing.fake_i2c import FakeI2CBus
from device_sdk.testing.fake_sht4x import FakeSHT4x
from device_sdk_hil.remote_bus import BusServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_sdk_hil.rig import FakeBusTable, I2CTable, Rig
    from device_sdk_hil.timeline import Fault, Timeline

__all__ = ["SensorBus"]

_SOURCE = "sensor_bus"
_MAKE = {"bme280": FakeBME280, "sht4x": FakeSHT4x}


class SensorBus:
    """An I2C bus with the chips of the rig. One thread owns the object.

    ``name`` is its name for the DUT: ``bus = "..."`` in the configuration of a node, ``open_driver(...,
    bus=...)`` in a program. The verbs take a chip by its name, such as ``"bme280"``. A verb or a chip that
    this rig does not have skips the test, or fails it with ``--rig-require``.
    """

    def __init__(self, rig: Rig, timeline: Timeline, table: FakeBusTable | I2CTable) -> None:
        self._rig = rig
        self._timeline = timeline
        self._addresses: dict[str, int] = {chip.chip: chip.address for chip in table.chips}
        self._transfers: Counter[int] = Counter()
        self._failures: Counter[int] = Counter()
        self._chips: dict[str, FakeBME280 | FakeSHT4x] = {}
        self._fake: FakeI2CBus | None = None
        self._server: BusServer | None = None
        self.name = table.bus
        if not table.bus:
            self._chips = {chip.chip: _MAKE[chip.chip]() for chip in table.chips}
            self._fake = FakeI2CBus()
            for chip, device in self._chips.items():
                self._fake.add(self._addresses[chip], device)
            self._server = BusServer(self._fake, self._on_transfer)
            self.name = self._server.name

    def stop(self) -> None:
        """Release the bus; a DUT that is still running finds its adapter gone."""
        if self._server is not None:
            self._server.stop()

    def address(self, chip: str) -> int:
        """Return a chip's address."""
        self._rig.require(f"{_SOURCE}.{chip}")
        return self._addresses[chip]

    def set_values(self, chip: str, **values: float) -> None:
        """Set the values that a chip measures: ``temperature`` in degrees Celsius, ``humidity`` in %RH, ...

        Raises: AttributeError: it does not measure that quantity.
        """
        self._need("set")
        device = self._chips[chip]
        for name, value in values.items():
            getattr(device, name)
            setattr(device, name, value)
        self._timeline.record(_SOURCE, "set", chip=chip, **values)

    def unplug(self, chip: str) -> Fault:
        """Take a chip off the bus; the effect is a transaction without acknowledge."""
        address = self.address(chip)
        self._need("unplug").unplug(address)
        return self._failing("unplug", address, chip=chip)

    def plug(self, chip: str) -> None:
        """Put a chip back; it starts with its power-on state."""
        self._need("unplug").plug(self.address(chip))
        self._timeline.record(_SOURCE, "plug", chip=chip)

    @contextmanager
    def unplugged(self, chip: str) -> Iterator[Fault]:
        """Take a chip off the bus for the time of a ``with`` block."""
        fault = self.unplug(chip)
        try:
            yield fault
        finally:
            self.plug(chip)

    def nack(self, chip: str, count: int = 1) -> Fault:
        """Leave the next transactions with a chip without acknowledge; the effect is one such transaction."""
        address = self.address(chip)
        self._need("nack").nack(address, count)
        return self._failing("nack", address, chip=chip, count=count)

    def stuck(self) -> Fault:
        """Let a device hold the clock line; the effect is a transaction that times out."""
        self._need("stuck").stuck(errno.ETIMEDOUT)
        return self._failing("stuck", *self._addresses.values())

    def release(self) -> None:
        """End the fault of :meth:`stuck`."""
        self._need("stuck").release()
        self._timeline.record(_SOURCE, "release")

    def corrupt_crc(self, count: int = 1) -> Fault:
        """Send the next answers of the SHT4x with a wrong checksum; the effect is that many measurements."""
        self._need("crc")
        sht4x = self._chips["sht4x"]
        assert isinstance(sht4x, FakeSHT4x)
        sht4x.corrupt_crc(count)
        address = self.address("sht4x")
        # A measurement is two transactions: the command, and the answer.
        enough = self._transfers[address] + 2 * count
        return self._timeline.fault(
            _SOURCE, "crc",
            effect=lambda: self._transfers[address] >= enough,
            expected=f"{count} measurements of the sht4x",
            count=count,
        )  # fmt: skip

    def _need(self, verb: str) -> FakeI2CBus:
        """Return the fake bus; on a rig without one the test ends here."""
        self._rig.require(f"{_SOURCE}.{verb}")
        assert self._fake is not None, "only a fake bus has verbs"
        return self._fake

    def _failing(self, kind: str, *addresses: int, **data: object) -> Fault:
        before = self._failed(addresses)
        return self._timeline.fault(
            _SOURCE, kind,
            effect=lambda: self._failed(addresses) > before,
            expected=f"a failed transaction with {' or '.join(map(hex, addresses))}",
            **data,
        )  # fmt: skip

    def _failed(self, addresses: tuple[int, ...]) -> int:
        return sum(self._failures[address] for address in addresses)

    def _on_transfer(self, address: int, code: int) -> None:
        """Count a transaction. Runs in the thread of the server."""
        self._transfers[address] += 1
        if code:
            self._failures[address] += 1
            self._timeline.record(_SOURCE, "error", address=hex(address), errno=errno.errorcode[code])
