"""Transfers as SMBus commands: for adapters that cannot do plain I2C transfers.

Such adapters are those of PC chipsets, and ``i2c-stub``, the kernel's own test chip. A transfer becomes the
command that puts the same bits on the wire; what no command does is an error that says so.

Source: Linux ``Documentation/i2c/smbus-protocol.rst``, ``<linux/i2c.h>``, ``<linux/i2c-dev.h>``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from device_sdk.errors import BusError

if TYPE_CHECKING:
    from collections.abc import Callable

    Ioctl = Callable[..., int]

__all__ = ["MAX_BLOCK", "SMBus", "SMBusCommand", "can_smbus", "commands_for"]

MAX_BLOCK = 32
"""Bytes of an I2C block, besides the register number: ``I2C_SMBUS_BLOCK_MAX``."""

# <linux/i2c-dev.h> and <linux/i2c.h>
_I2C_SLAVE = 0x0703
_I2C_SMBUS = 0x0720
_UNION_BYTES = MAX_BLOCK + 2


class SMBusCommand(NamedTuple):
    """A command: the name that ``i2cdetect -F`` prints, its bit of ``I2C_FUNCS`` and its number."""

    name: str
    function: int
    size: int


_QUICK = SMBusCommand("SMBus Quick Command", 0x0001_0000, 0)
_RECEIVE_BYTE = SMBusCommand("SMBus Receive Byte", 0x0002_0000, 1)
_SEND_BYTE = SMBusCommand("SMBus Send Byte", 0x0004_0000, 1)
_READ_BYTE = SMBusCommand("SMBus Read Byte", 0x0008_0000, 2)
_WRITE_BYTE = SMBusCommand("SMBus Write Byte", 0x0010_0000, 2)
_READ_WORD = SMBusCommand("SMBus Read Word", 0x0020_0000, 3)
_WRITE_WORD = SMBusCommand("SMBus Write Word", 0x0040_0000, 3)
_READ_BLOCK = SMBusCommand("I2C Block Read", 0x0400_0000, 8)
_WRITE_BLOCK = SMBusCommand("I2C Block Write", 0x0800_0000, 8)

# Bytes written and read, None: not at all -> the commands that do exactly that, the preferred one first. Two
# bytes are rather a block than a word: on a wire it is the same, but i2c-stub keeps a word in one register.
_SHAPES: dict[tuple[int | None, int | None], tuple[SMBusCommand, ...]] = {
    (0, None): (_QUICK,),
    (None, 1): (_RECEIVE_BYTE,),
    (1, None): (_SEND_BYTE,),
    (2, None): (_WRITE_BYTE, _WRITE_BLOCK),
    (3, None): (_WRITE_BLOCK, _WRITE_WORD),
    **{(1 + count, None): (_WRITE_BLOCK,) for count in range(3, MAX_BLOCK + 1)},
    (1, 1): (_READ_BYTE, _READ_BLOCK),
    (1, 2): (_READ_BLOCK, _READ_WORD),
    **{(1, count): (_READ_BLOCK,) for count in range(3, MAX_BLOCK + 1)},
}
_USED = {command.function for commands in _SHAPES.values() for command in commands}


def can_smbus(functions: int) -> bool:
    """Return whether the bits of ``I2C_FUNCS`` have one of the commands that are used here."""
    return any(functions & bit for bit in _USED)


def commands_for(written: int | None, read: int | None) -> tuple[SMBusCommand, ...]:
    """Return the commands that do a transfer of so many bytes written and read, the preferred one first.

    ``None``: not at all. Empty: no command does that.
    """
    return _SHAPES.get((written, read), ())


class SMBus:
    """Transfers on one adapter as SMBus commands. The caller has the lock of the bus.

    Args:
        bus: path of the device file, for messages.
        functions: the bits that ``I2C_FUNCS`` returned.
        ioctl: the call.
        root: folder that holds ``sys``: tells which kernel driver has an address.
    """

    def __init__(self, bus: str, functions: int, ioctl: Ioctl, root: str | Path = "/") -> None:
        self._bus = bus
        self._functions = functions
        self._ioctl = ioctl
        self._root = Path(root)
        self._selected: tuple[int, int, int] | None = None  # hold of the lock, address, register

    def transfer(
        self, fd: int, address: int, write: bytes | None, read_count: int | None, hold: int
    ) -> bytes:
        """Do one transfer, see :meth:`~device_sdk.drivers.bus.i2c.I2CBus.transfer`.

        A read of 2 to 32 bytes alone has no command. Many drivers make one for a register that they have
        written just before: then it becomes a read from this register, which is sent a second time. Only the
        byte of the transfer before counts, and only if the lock was held since: ``hold`` is the same number.

        Raises: BusError: no command does this (``EOPNOTSUPP``); a kernel driver has the address (``EBUSY``).
        OSError: the kernel refuses the call.
        """
        selected, self._selected = self._selected, None
        if write is None and (read_count or 0) > 1 and selected and selected[:2] == (hold, address):
            return self._read_selected(fd, address, selected[2], read_count)
        answer = self._perform(fd, address, write, read_count)
        if write is not None and len(write) == 1 and read_count is None:
            self._selected = (hold, address, write[0])
        return answer

    def _read_selected(self, fd: int, address: int, register: int, read_count: int | None) -> bytes:
        try:
            return self._perform(fd, address, bytes([register]), read_count)
        except OSError as error:
            # A chip that takes commands, such as an SHT4x, has begun anew and does not answer.
            words = (
                f"the read of {read_count} bytes from {{address}} on {{bus}} was made one from register"
                f" 0x{register:02x}, which fits chips with registers only: {error}"
            )
            raise self._error(address, error.errno or errno.EIO, words) from error

    def _perform(self, fd: int, address: int, write: bytes | None, read_count: int | None) -> bytes:
        command = self._choose(address, write, read_count)
        self._select(fd, address)
        data = ctypes.create_string_buffer(_content(command, write, read_count), _UNION_BYTES)
        reading = read_count is not None
        without = command in (_QUICK, _SEND_BYTE)
        call = _Call(reading, (write or b"\0")[0], command.size, None if without else ctypes.addressof(data))
        try:
            self._ioctl(fd, _I2C_SMBUS, call)
        except OSError as error:
            if error.errno == errno.ENODEV:
                # i2c-stub says this of an address; other adapters say it when they are gone.
                words = "nothing answers at {address} on {bus}, or the adapter was unplugged (ENODEV)"
                raise self._error(address, errno.ENODEV, words) from error
            raise
        return self._answer(command, address, data.raw, read_count)

    def _choose(self, address: int, write: bytes | None, read_count: int | None) -> SMBusCommand:
        written = None if write is None else len(write)
        commands = commands_for(written, read_count)
        found = next((command for command in commands if command.function & self._functions), None)
        if found is not None:
            return found
        transfer = _in_words(written, read_count)
        if commands:
            missing = " or ".join(f"'{command.name}'" for command in commands)
            problem = f"for {transfer} the adapter of {{bus}} would need the command {missing} (EOPNOTSUPP)"
        else:
            problem = (
                f"no SMBus command does {transfer}, and the adapter of {{bus}} has no plain I2C transfers:"
                f" at most a register and {MAX_BLOCK} bytes (EOPNOTSUPP)"
            )
        raise self._error(address, errno.EOPNOTSUPP, problem)

    def _select(self, fd: int, address: int) -> None:
        try:
            self._ioctl(fd, _I2C_SLAVE, address)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise self._error(address, errno.EBUSY, _taken(self._bus, address, self._root)) from error

    def _answer(self, command: SMBusCommand, address: int, data: bytes, read_count: int | None) -> bytes:
        if read_count is None:
            return b""
        if command is _READ_WORD:
            # The first byte on the wire is the low one; the kernel keeps the word in its own order.
            return int.from_bytes(data[:2], sys.byteorder).to_bytes(2, "little")
        if command is not _READ_BLOCK:
            return data[:1]
        if data[0] != read_count:
            words = f"{{address}} on {{bus}} gave a block of {data[0]} bytes, expected {read_count} (EIO)"
            raise self._error(address, errno.EIO, words)
        return data[1 : 1 + read_count]

    def _error(self, address: int, code: int, words: str) -> BusError:
        error = BusError(words.replace("{address}", f"0x{address:02x}").replace("{bus}", self._bus))
        error.errno = code
        return error


class _Call(ctypes.Structure):
    """``struct i2c_smbus_ioctl_data``."""

    _fields_ = [
        ("read_write", ctypes.c_uint8),
        ("command", ctypes.c_uint8),
        ("size", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
    ]


def _content(command: SMBusCommand, write: bytes | None, read_count: int | None) -> bytes:
    """Return the begin of ``union i2c_smbus_data``."""
    values = (write or b"")[1:]
    if command is _READ_BLOCK:
        return bytes([read_count or 0])
    if command is _WRITE_BLOCK:
        return bytes([len(values)]) + values
    if command is _WRITE_WORD:
        return int.from_bytes(values, "little").to_bytes(2, sys.byteorder)
    return values


def _in_words(written: int | None, read: int | None) -> str:
    parts = {"a write": written, "a read": read}
    verbs = [
        f"{verb} of {count} byte{'' if count == 1 else 's'}"
        for verb, count in parts.items()
        if count is not None
    ]
    return f"{' and '.join(verbs)} with {{address}}"


def _taken(bus: str, address: int, root: Path) -> str:
    """Return what to do about an address that a kernel driver has."""
    number = re.search(r"(\d+)$", os.path.realpath(bus))
    device = f"{number[1] if number else 'N'}-{address:04x}"
    driver = root / "sys/bus/i2c/devices" / device / "driver"
    name = os.path.basename(os.path.realpath(driver)) if driver.exists() else ""
    return (
        f"the kernel driver{f' {name}' if name else ''} has {{address}} on {{bus}}: read it with the driver"
        " sysfs ('device-sdk sensors discover' finds it), or take it from the kernel:"
        f" echo {device} | sudo tee /sys/bus/i2c/devices/{device}/driver/unbind (EBUSY)"
    )
