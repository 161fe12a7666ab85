"""An I2C bus without hardware: chips can be plugged in, faults switched on, transactions inspected.

It is an :class:`~device_sdk.drivers.bus.I2CBus`, so drivers for real buses run on it unchanged::

    bus = FakeI2CBus()
    bus.add(0x76, FakeBME280(temperature=21.5))
    with open_driver("bme280", bus=bus, address=0x76) as sensor:
        bus.nack(0x76, count=1)      # the next transaction is not acknowledged
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Literal

from device_sdk.drivers.bus.i2c import I2CBus, transfer_error

__all__ = [
    "FakeI2CBus",
    "FakeI2CDevice",
    "FakeRegisterDevice",
    "FakeWordDevice",
    "NoAcknowledge",
    "Transaction",
]


class NoAcknowledge(Exception):
    """Raised by a fake chip that does not acknowledge, as a real one does while it is busy."""


class FakeI2CDevice(ABC):
    """A chip on the fake bus."""

    @abstractmethod
    def power_on(self) -> None:
        """Start as if the supply had just come up: registers have their reset values."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Take a write; ``data`` is empty when the controller only probes the address.

        Raises: NoAcknowledge: the chip cannot take it now.
        """

    @abstractmethod
    def read(self, count: int) -> bytes:
        """Return ``count`` bytes.

        Raises: NoAcknowledge: the chip has nothing to read now.
        """


class FakeRegisterDevice(FakeI2CDevice):
    """A chip with up to 256 registers of one byte, as most sensors are.

    A write begins with the register number; a read goes on from there, one register further with each byte.
    Further bytes of a write are pairs of register and value if ``write_pairs``, else values for the registers
    that follow. Subclasses use ``registers`` and override the two hooks.
    """

    write_pairs = False

    def __init__(self) -> None:
        self.registers = bytearray(256)
        self._pointer = 0
        self.power_on()

    def register_written(self, register: int, value: int) -> None:
        """Take a value for a register. Without an override it is stored."""
        self.registers[register] = value

    def register_read(self, register: int) -> int:
        """Return a register's value. Without an override it is the stored one."""
        return self.registers[register]

    def write(self, data: bytes) -> None:
        """Set the register pointer, and the registers that the rest of the data names."""
        if not data:
            return
        self._pointer = data[0]
        if self.write_pairs:
            for register, value in zip(data[::2], data[1::2], strict=False):
                self.register_written(register, value)
        else:
            for value in data[1:]:
                self.register_written(self._pointer, value)
                self._pointer = (self._pointer + 1) % 256

    def read(self, count: int) -> bytes:
        """Return the registers from the pointer on."""
        data = bytes(self.register_read((self._pointer + offset) % 256) for offset in range(count))
        self._pointer = (self._pointer + count) % 256
        return data


class FakeWordDevice(FakeI2CDevice):
    """A chip with registers of two bytes, ``words``: a converter or a power monitor, for example.

    A write begins with the register's number, the two bytes of a value may follow; a read returns the
    register again and again. Subclasses fill ``words`` in ``power_on()`` and override the two hooks.
    """

    byte_order: Literal["big", "little"] = "big"

    def __init__(self) -> None:
        self.words: dict[int, int] = {}
        self._register = 0
        self.power_on()

    def word_written(self, register: int, value: int) -> None:
        """Take a value for a register. Without an override it is stored."""
        self.words[register] = value

    def word_read(self, register: int) -> int:
        """Return a register's value. Without an override it is the stored one."""
        return self.words[register]

    def write(self, data: bytes) -> None:
        """Set the register's number, and its value if there is one."""
        if data:
            self._register = data[0]
        if len(data) >= 3:
            self.word_written(self._register, int.from_bytes(data[1:3], self.byte_order))

    def read(self, count: int) -> bytes:
        """Return the register."""
        data = self.word_read(self._register).to_bytes(2, self.byte_order)
        return (data * (count // 2 + 1))[:count]


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction on the bus. ``written`` is ``None`` for a plain read, ``error`` an ``errno`` or 0."""

    address: int
    written: bytes | None
    read: bytes = b""
    error: int = 0


class FakeI2CBus(I2CBus):
    """An I2C bus with fake chips. May be used from any thread, as a real one.

    ``history`` holds the last 10,000 transactions, the newest at the end.
    """

    def __init__(self, name: str = "fake-i2c") -> None:
        super().__init__(name)
        self.history: deque[Transaction] = deque(maxlen=10_000)
        self._devices: dict[int, FakeI2CDevice] = {}
        self._unplugged: set[int] = set()
        self._nacks: dict[int, int] = {}
        self._cuts: dict[int, int] = {}
        self._fault = 0

    def add(self, address: int, device: FakeI2CDevice) -> None:
        """Put a chip on the bus, powered; it replaces one that has this address."""
        with self.locked():
            self._devices[address] = device
            self._unplugged.discard(address)

    def unplug(self, address: int) -> None:
        """Unplug a chip: its address no longer acknowledges.

        Raises: KeyError: no chip was ever added there.
        """
        with self.locked():
            self._devices[address]
            self._unplugged.add(address)

    def plug(self, address: int) -> None:
        """Plug a chip back in: it starts with its power-on state.

        Raises: KeyError: no chip was ever added there.
        """
        with self.locked():
            self._devices[address].power_on()
            self._unplugged.discard(address)

    def cut(self, address: int, after: int) -> None:
        """Unplug a chip in the middle of its next read of more than ``after`` bytes: those behind are 0xFF.

        Nobody pulls the wire down then, and the controller cannot know.

        Raises: KeyError: no chip was ever added there.
        """
        with self.locked():
            self._devices[address]
            self._cuts[address] = after

    def nack(self, address: int, count: int = 1) -> None:
        """Leave the next ``count`` transactions with this address without acknowledge."""
        with self.locked():
            self._nacks[address] = count

    def stuck(self, code: int = errno.ETIMEDOUT) -> None:
        """Block the bus until ``release()``: each transaction fails with this ``errno``.

        ``ETIMEDOUT`` is a device that holds the clock, ``EBUSY`` one that holds the data line, ``ENODEV`` an
        adapter that was pulled out.
        """
        with self.locked():
            self._fault = code

    def release(self) -> None:
        """End the fault of ``stuck()``."""
        with self.locked():
            self._fault = 0

    def transfer(self, address: int, write: bytes | None, read_count: int | None) -> bytes:
        """Hand the transaction to the chip, or fail with the fault that is on, and record it."""
        with self.locked():
            code, answer = self._perform(address, write, read_count)
            self.history.append(Transaction(address, write, answer, code))
        if code:
            raise transfer_error(self.name, address, code)
        return answer

    def deinit(self) -> None:
        """Keep everything: the chips are still there when the bus is opened again."""

    def _perform(self, address: int, write: bytes | None, read_count: int | None) -> tuple[int, bytes]:
        if self._fault:
            return self._fault, b""
        device = self._devices.get(address)
        if self._nacks.get(address, 0) > 0:
            self._nacks[address] -= 1
            device = None
        if device is None or address in self._unplugged:
            return errno.EREMOTEIO, b""
        try:
            if write is not None:
                device.write(write)
            if read_count is None:
                return 0, b""
            answer = device.read(read_count)
            if self._cuts.get(address, read_count) < read_count:
                self._unplugged.add(address)
                answer = answer[: self._cuts.pop(address)].ljust(read_count, b"\xff")
            return 0, answer
        except NoAcknowledge:
            return errno.EREMOTEIO, b""
