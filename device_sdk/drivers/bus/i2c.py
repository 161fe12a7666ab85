"""I2C buses: the interface that CircuitPython drivers expect, and Linux's ``/dev/i2c-N`` behind it.

:class:`I2CBus` has the methods of CircuitPython's ``busio.I2C`` and a lock that works between threads. A bus
needs one method of its own: :meth:`I2CBus.transfer`, one transaction with one device. ``smbus.py`` serves
adapters without plain I2C transfers.

Source: Linux ``Documentation/i2c/dev-interface.rst`` and ``fault-codes.rst``; NXP UM10204 for the bus itself.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from threading import RLock, get_ident
from typing import TYPE_CHECKING, Self

from device_sdk.drivers.bus.smbus import SMBus, can_smbus
from device_sdk.errors import ArgumentError, BusError, DeviceNotFoundError, DriverError, ReadTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_sdk.drivers.bus.smbus import Ioctl

    Buffer = bytes | bytearray | memoryview

__all__ = ["NO_ACKNOWLEDGE", "I2CBus", "LinuxI2C", "list_buses", "transfer_error"]

# <linux/i2c.h> and <linux/i2c-dev.h>
_I2C_FUNCS = 0x0705
_I2C_RDWR = 0x0707
_I2C_FUNC_I2C = 0x00000001
_I2C_M_RD = 0x0001
_MAX_MESSAGE_BYTES = 8192

NO_ACKNOWLEDGE = frozenset({errno.ENXIO, errno.EREMOTEIO})
"""Both codes mean that no device answered at the address: adapters differ."""

# The kernel's fault codes -> their meaning on the bus.
_NO_ANSWER = "nothing answers at {address} on {bus}: check the wiring and the address"
_FAULTS = {
    **dict.fromkeys(NO_ACKNOWLEDGE, _NO_ANSWER),
    errno.ENODEV: "{bus} went away while it talked to {address}: is the adapter still plugged in?",
    errno.ETIMEDOUT: "{address} on {bus} timed out: a device holds SCL low, or a pull-up resistor is missing",
    errno.EBUSY: "{bus} is busy, no transfer to {address}: a device holds SDA low, or a wire is shorted",
    errno.EAGAIN: "{bus} lost the arbitration to another controller while it talked to {address}",
    errno.EIO: "the transfer to {address} on {bus} broke off: check the wiring, try a lower bus speed",
    errno.EOPNOTSUPP: "the adapter of {bus} cannot do this transfer to {address}",
}

# i2cdetect probes these by reading: an empty write can change an EEPROM or a clock chip there.
_PROBE_BY_READING = frozenset((*range(0x30, 0x38), *range(0x50, 0x60)))


def transfer_error(bus: str, address: int, code: int) -> BusError:
    """Make the error for a transfer that failed with this ``errno``, in words and with ``errno`` set."""
    template = _FAULTS.get(code, "the transfer to {address} on {bus} failed")
    symbol = errno.errorcode.get(code, str(code))
    error = BusError(f"{template.format(address=f'0x{address:02x}', bus=bus)} ({symbol})")
    error.errno = code
    return error


class I2CBus(ABC):
    """An I2C bus: CircuitPython's ``busio.I2C`` interface over :meth:`transfer`.

    All methods may be called from any thread. Transfers that belong together are made with the lock held; a
    transfer by itself takes it for that time. The thread that has the lock may take it again.

    Args:
        name: name of the bus in messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._lock = RLock()  # so that release() by another thread than the owner is an error
        self._owner: int | None = None
        self._depth = 0
        self._holds = 0  # how often the lock was taken from nobody

    @abstractmethod
    def transfer(self, address: int, write: bytes | None, read_count: int | None) -> bytes:
        """Write, read, or write and then read after a repeated start, as one transaction.

        Args:
            address: 7 bits.
            write: bytes to write, ``None`` to only read; empty bytes test for an acknowledge.
            read_count: how many bytes to read, ``None`` to only write.

        Returns: the bytes read; empty without a ``read_count``.
        Raises: BusError: with ``errno`` set. ReadTimeoutError: another thread keeps the lock. DriverError:
        the bus was closed.
        """

    @abstractmethod
    def deinit(self) -> None:
        """Release the bus. Idempotent. No other thread may be using the bus."""

    def try_lock(self) -> bool:
        """Take the lock if no other thread has it, and return whether it was taken. Never waits."""
        return self._acquire(timeout=0)

    def unlock(self) -> None:
        """Undo one ``try_lock()``.

        Raises: DriverError: this thread does not have the lock.
        """
        if self._owner != get_ident():
            raise DriverError(f"{self.name}: unlock() by a thread that does not have the lock")
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            self._lock.release()

    @contextmanager
    def locked(self, timeout: float = 10.0) -> Iterator[None]:
        """Hold the lock in a ``with`` block, waiting for it if necessary.

        Locks that a driver took inside and did not release are released at the end: one bad read must not
        block the bus for ever.

        Raises: ReadTimeoutError: another thread kept the bus for longer than ``timeout`` seconds.
        """
        me = get_ident()
        depth = self._depth if self._owner == me else 0
        try:
            if not self._acquire(timeout):
                raise ReadTimeoutError(f"{self.name} is in use by another driver for more than {timeout:g} s")
            yield
        finally:
            if self._owner == me:
                self._depth = depth
                if not depth:
                    self._owner = None
                    self._lock.release()  # the first call in here: a signal may come after it

    def scan(self) -> list[int]:
        """Return the addresses 0x08 to 0x77 that acknowledge.

        Most are probed with an empty write; 0x30-0x37 and 0x50-0x5f, used by memories, by reading one byte.
        """
        with self.locked():
            return [address for address in range(0x08, 0x78) if self._acknowledges(address)]

    def writeto(self, address: int, buffer: Buffer, *, start: int = 0, end: int | None = None) -> None:
        """Write ``buffer[start:end]`` to the device."""
        self.transfer(_checked(address), bytes(memoryview(buffer)[start:end]), None)

    def readfrom_into(
        self, address: int, buffer: bytearray | memoryview, *, start: int = 0, end: int | None = None
    ) -> None:
        """Fill ``buffer[start:end]`` with bytes read from the device."""
        with memoryview(buffer)[start:end] as target:
            target[:] = self.transfer(_checked(address), None, len(target))

    def writeto_then_readfrom(
        self,
        address: int,
        out_buffer: Buffer,
        in_buffer: bytearray | memoryview,
        *,
        out_start: int = 0,
        out_end: int | None = None,
        in_start: int = 0,
        in_end: int | None = None,
    ) -> None:
        """Write ``out_buffer[out_start:out_end]``, then fill ``in_buffer[in_start:in_end]``.

        The device sees a repeated start between them, no stop.
        """
        output = bytes(memoryview(out_buffer)[out_start:out_end])
        with memoryview(in_buffer)[in_start:in_end] as target:
            target[:] = self.transfer(_checked(address), output, len(target))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.deinit()

    def _acquire(self, timeout: float) -> bool:
        me = get_ident()
        if self._owner != me:
            try:
                if not self._lock.acquire(timeout=timeout):
                    return False
                self._owner = me
                self._holds += 1
            except BaseException:  # of the handler of a signal, while waiting or after that
                try:
                    self._lock.release()
                except RuntimeError:
                    pass  # it was not taken
                raise
        self._depth += 1
        return True

    def _acknowledges(self, address: int) -> bool:
        probes: list[tuple[bytes | None, int | None]] = [(None, 1)]
        if address not in _PROBE_BY_READING:
            probes.insert(0, (b"", None))
        for write, read_count in probes:
            try:
                self.transfer(address, write, read_count)
            except BusError as error:
                # Some adapters cannot do an empty write: probe by reading.
                if error.errno != errno.EOPNOTSUPP:
                    return False
            else:
                return True
        return False


class LinuxI2C(I2CBus):
    """An I2C bus of the Linux kernel, ``/dev/i2c-N``, by the ``I2C_RDWR`` call, else by SMBus commands.

    Every transfer is one call: the kernel serialises it with other programs, and a write followed by a read
    has a repeated start. An adapter without ``I2C_RDWR`` does what SMBus commands can express: a write of up
    to 33 bytes, a read of one, a read of up to 32 from a register. The file is closed when the adapter is
    unplugged and opened again by the next transfer. Duration of a transfer: about 10 bits per byte at the bus
    speed (100 kbit/s by default); a device that holds the clock makes it last the adapter's time-out, usually
    1 s.

    Args:
        bus: the number, or the path of the device file.
        open_device, ioctl: functions to call instead of ``os.open`` and ``fcntl.ioctl``; for tests.
        root: folder that holds ``sys``; a test passes a tree of its own.

    Raises: DeviceNotFoundError: there is no such bus. BusError: it may not be opened, or it is no I2C bus.
    """

    def __init__(
        self,
        bus: int | str,
        *,
        open_device: Callable[[str, int], int] = os.open,
        ioctl: Ioctl = fcntl.ioctl,
        root: str | Path = "/",
    ) -> None:
        super().__init__(f"/dev/i2c-{bus}" if isinstance(bus, int) else bus)
        self._open_device = open_device
        self._ioctl = ioctl
        self._root = root
        self._closed = False
        self._smbus: SMBus | None = None
        self._fd: int | None = self._connect()

    def transfer(self, address: int, write: bytes | None, read_count: int | None) -> bytes:
        """Do one transfer: an ``I2C_RDWR`` call with one or two messages, or an SMBus command.

        Raises: ArgumentError: more than 8192 bytes in one direction. BusError: also with ``EOPNOTSUPP``: no
        SMBus command does this; ``EBUSY``: a kernel driver has the address. Else as the base class says.
        """
        for size in (len(write or b""), read_count or 0):
            if size > _MAX_MESSAGE_BYTES:
                raise ArgumentError("buffer", f"{size} bytes, the kernel takes {_MAX_MESSAGE_BYTES} at once")
        # The lock keeps the descriptor from being closed by another thread's failure meanwhile.
        with self.locked():
            fd = self._descriptor()
            try:
                if self._smbus is not None:
                    return self._smbus.transfer(fd, address, write, read_count, self._holds)
                return self._plain(fd, address, write, read_count)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    # The kernel removes an unplugged adapter only when no program has it open.
                    self._disconnect()
                if isinstance(error, BusError):
                    raise
                raise transfer_error(self.name, address, error.errno or errno.EIO) from error

    def deinit(self) -> None:
        """Close the device file."""
        self._closed = True
        self._disconnect()

    def _plain(self, fd: int, address: int, write: bytes | None, read_count: int | None) -> bytes:
        messages = []
        if write is not None:
            output = ctypes.create_string_buffer(write, len(write))
            messages.append(_Message(address, 0, len(write), ctypes.addressof(output)))
        answer = ctypes.create_string_buffer(read_count or 0)
        if read_count is not None:
            messages.append(_Message(address, _I2C_M_RD, read_count, ctypes.addressof(answer)))
        array = (_Message * len(messages))(*messages)
        self._ioctl(fd, _I2C_RDWR, _Transaction(ctypes.addressof(array), len(messages)))
        return answer.raw

    def _descriptor(self) -> int:
        if self._closed:
            raise DriverError(f"{self.name} was closed: open the bus again")
        if self._fd is None:
            self._fd = self._connect()
        return self._fd

    def _disconnect(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _connect(self) -> int:
        try:
            fd = self._open_device(self.name, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise _open_error(self.name, error) from error
        functions = ctypes.c_ulong(0)
        try:
            self._ioctl(fd, _I2C_FUNCS, functions)
        except OSError as error:
            os.close(fd)
            raise BusError(f"{self.name} is not an I2C bus: {os.strerror(error.errno or 0)}") from error
        plain = bool(functions.value & _I2C_FUNC_I2C)
        if not plain and not can_smbus(functions.value):
            os.close(fd)
            raise BusError(f"the adapter of {self.name} does neither plain I2C transfers nor SMBus commands")
        self._smbus = None if plain else SMBus(self.name, functions.value, self._ioctl, self._root)
        return fd


class _Message(ctypes.Structure):
    """``struct i2c_msg``."""

    _fields_ = [
        ("addr", ctypes.c_uint16),
        ("flags", ctypes.c_uint16),
        ("len", ctypes.c_uint16),
        ("buf", ctypes.c_void_p),
    ]


class _Transaction(ctypes.Structure):
    """``struct i2c_rdwr_ioctl_data``."""

    _fields_ = [("msgs", ctypes.c_void_p), ("nmsgs", ctypes.c_uint32)]


def list_buses(root: str | Path = "/") -> list[str]:
    """Return the names of the I2C buses of this machine, such as ``"i2c-1"``, in the order of their numbers.

    ``root`` is the folder that holds ``dev``; a test passes a tree of its own.
    """
    found = (re.fullmatch(r"i2c-(\d+)", path.name) for path in (Path(root) / "dev").glob("i2c-*"))
    return [f"i2c-{number}" for number in sorted(int(match[1]) for match in found if match)]


def _open_error(name: str, error: OSError) -> DriverError:
    match error.errno:
        case errno.ENOENT | errno.ENXIO | errno.ENODEV:
            others = ", ".join(list_buses())
            return DeviceNotFoundError(
                f"there is no {name}"
                + (f", there is: {others}" if others else "")
                + ": enable I2C (Raspberry Pi: 'sudo raspi-config nonint do_i2c 0', or dtparam=i2c_arm=on in"
                " /boot/firmware/config.txt and a reboot) and load the driver ('sudo modprobe i2c-dev')"
            )
        case errno.EACCES | errno.EPERM:
            problem = (
                f"no permission to open {name}: it belongs to the group i2c;"
                " 'sudo usermod -aG i2c $USER', then log in again"
            )
        case code:
            problem = f"{name} cannot be opened: {os.strerror(code or 0)}"
    failed = BusError(problem)
    failed.errno = error.errno
    return failed


def _checked(address: int) -> int:
    if not 0 <= address <= 0x7F:
        raise ArgumentError("address", f"expected 7 bits, 0x00 to 0x7f, found {address:#x}")
    return address
