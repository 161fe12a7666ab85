"""The I2C bus: what LinuxI2C asks the kernel for, the lock, and opening buses by name."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from device_sdk.drivers.bus import (
    I2CBus,
    LinuxI2C,
    abandon_bus,
    check_bus_name,
    close_bus,
    list_buses,
    open_bus,
)
from device_sdk.errors import (
    ArgumentError,
    BusError,
    DeviceNotFoundError,
    DriverError,
    ReadTimeoutError,
)
from device_sdk.testing.fake_i2c import FakeI2CBus

FUNCS, RDWR = 0x0705, 0x0707
PLAIN_I2C = 0x0EFF0001

Message = tuple[int, int, bytes | int]
"""Address, flags, and the bytes written or the count to read."""


class FakeKernel:
    """The kernel's side of /dev/i2c-N: decodes the structures from memory, with layouts of its own."""

    def __init__(self, functions: int = PLAIN_I2C) -> None:
        self.functions = functions
        self.calls: list[list[Message]] = []
        self.answer = bytes(range(1, 65))
        self.errors: dict[int, int] = {}  # address -> errno
        self.no_empty_write = False
        self.opened: list[int] = []

    def open(self, path: str, flags: int) -> int:
        fd = os.open(os.devnull, flags)
        self.opened.append(fd)
        return fd

    def ioctl(self, fd: int, request: int, argument: ctypes.Structure | ctypes.c_ulong) -> int:
        os.fstat(fd)  # it is open
        where = ctypes.addressof(argument)
        if request == FUNCS:
            ctypes.memmove(where, struct.pack("L", self.functions), ctypes.sizeof(ctypes.c_ulong))
            return 0
        assert request == RDWR
        pointer_and_count = struct.unpack("PI", ctypes.string_at(where, struct.calcsize("PI")))
        messages, count = (int(number) for number in pointer_and_count)
        call = [self._message(messages + index * struct.calcsize("HHHP")) for index in range(count)]
        self.calls.append(call)
        address, _, content = call[0]
        if self.no_empty_write and content == b"":
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if address in self.errors:
            raise OSError(self.errors[address], os.strerror(self.errors[address]))
        return count

    def _message(self, where: int) -> Message:
        address, flags, size, buffer = struct.unpack("HHHP", ctypes.string_at(where, struct.calcsize("HHHP")))
        if flags & 1:
            ctypes.memmove(buffer, self.answer, size)
            return address, flags, size
        return address, flags, ctypes.string_at(buffer, size)

    def bus(self, number: int | str = 1) -> LinuxI2C:
        return LinuxI2C(number, open_device=self.open, ioctl=self.ioctl)


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def bus(kernel: FakeKernel) -> Iterator[LinuxI2C]:
    with kernel.bus() as bus:
        yield bus


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


# What reaches the kernel


def test_a_write_is_one_message_with_the_bytes_between_start_and_end(
    kernel: FakeKernel, bus: LinuxI2C
) -> None:
    bus.writeto(0x76, b"\xf4\x25\xff")
    bus.writeto(0x76, bytearray(b"\xf4\x25\xff"), start=1, end=2)
    assert kernel.calls == [[(0x76, 0, b"\xf4\x25\xff")], [(0x76, 0, b"\x25")]]


def test_a_read_fills_the_buffer_between_start_and_end(kernel: FakeKernel, bus: LinuxI2C) -> None:
    buffer = bytearray(6)
    bus.readfrom_into(0x44, buffer, start=2, end=5)
    assert buffer == b"\0\0\1\2\3\0"
    bus.readfrom_into(0x44, buffer)
    assert buffer == b"\1\2\3\4\5\6"
    assert kernel.calls == [[(0x44, 1, 3)], [(0x44, 1, 6)]]


def test_a_write_then_read_is_one_call_so_that_the_bus_has_a_repeated_start(
    kernel: FakeKernel, bus: LinuxI2C
) -> None:
    buffer = bytearray(4)
    bus.writeto_then_readfrom(0x76, b"\0\xd0", buffer, out_start=1, in_start=1, in_end=3)
    assert kernel.calls == [[(0x76, 0, b"\xd0"), (0x76, 1, 2)]]
    assert buffer == b"\0\1\2\0"


def test_an_empty_write_asks_who_is_there(kernel: FakeKernel, bus: LinuxI2C) -> None:
    bus.writeto(0x76, b"")
    assert kernel.calls == [[(0x76, 0, b"")]]


def test_more_than_the_kernel_takes_is_an_argument_error(kernel: FakeKernel, bus: LinuxI2C) -> None:
    bus.writeto(0x50, bytes(8192))
    with pytest.raises(ArgumentError, match="8193 bytes"):
        bus.writeto(0x50, bytes(8193))
    with pytest.raises(ArgumentError, match="8193 bytes"):
        bus.readfrom_into(0x50, bytearray(8193))
    assert len(kernel.calls) == 1


@pytest.mark.parametrize("address", [-1, 0x80, 0x176])
def test_an_address_of_more_than_seven_bits_is_an_argument_error(bus: LinuxI2C, address: int) -> None:
    with pytest.raises(ArgumentError, match="7 bits"):
        bus.writeto(address, b"")
    with pytest.raises(ArgumentError, match="7 bits"):
        bus.readfrom_into(address, bytearray(1))
    with pytest.raises(ArgumentError, match="7 bits"):
        bus.writeto_then_readfrom(address, b"", bytearray(1))


# Faults


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EREMOTEIO, r"nothing answers at 0x76 on /dev/i2c-1: check the wiring.*\(EREMOTEIO\)"),
        (errno.ENXIO, r"nothing answers at 0x76 on /dev/i2c-1: check the wiring and the address \(ENXIO\)"),
        (errno.ETIMEDOUT, r"0x76 on /dev/i2c-1 timed out: a device holds SCL low"),
        (errno.EBUSY, r"/dev/i2c-1 is busy.* holds SDA low"),
        (errno.EAGAIN, r"lost the arbitration"),
        (errno.EIO, r"broke off"),
        (errno.ENODEV, r"/dev/i2c-1 went away"),
        (errno.EOPNOTSUPP, r"cannot do this transfer"),
        (errno.EPROTO, r"the transfer to 0x76 on /dev/i2c-1 failed \(EPROTO\)"),
    ],
)  # fmt: skip
def test_a_fault_says_in_words_what_happened_where_and_keeps_the_errno(
    kernel: FakeKernel, bus: LinuxI2C, code: int, words: str
) -> None:
    kernel.errors[0x76] = code
    with pytest.raises(BusError, match=words) as caught:
        bus.writeto(0x76, b"\xd0")
    assert caught.value.errno == code
    assert isinstance(caught.value, OSError), "Adafruit's drivers look for OSError"


def test_an_adapter_that_was_unplugged_is_let_go_and_opened_again(kernel: FakeKernel, bus: LinuxI2C) -> None:
    kernel.errors[0x76] = errno.ENODEV
    with pytest.raises(BusError):
        bus.writeto(0x76, b"")
    assert not is_open(kernel.opened[0]), "the kernel waits for this before the adapter may come back"
    del kernel.errors[0x76]
    bus.writeto(0x76, b"")
    assert len(kernel.opened) == 2


def test_a_missing_bus_tells_how_to_enable_i2c() -> None:
    with pytest.raises(DeviceNotFoundError, match=r"no /dev/i2c-4711.*raspi-config.*i2c_arm=on.*i2c-dev"):
        LinuxI2C(4711)


def test_no_permission_names_the_group_and_the_command() -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    with pytest.raises(BusError, match=r"/dev/i2c-1.*group i2c.*sudo usermod -aG i2c \$USER") as caught:
        LinuxI2C(1, open_device=refuse)
    assert caught.value.errno == errno.EACCES


def test_another_open_error_is_a_bus_error_with_the_systems_words() -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)

    with pytest.raises(BusError, match="/dev/i2c-1 cannot be opened: Too many open files"):
        LinuxI2C(1, open_device=refuse)


def test_a_device_file_that_is_no_i2c_bus_is_refused_by_the_real_kernel() -> None:
    with pytest.raises(BusError, match="/dev/null is not an I2C bus: Inappropriate ioctl"):
        LinuxI2C("/dev/null")


def test_a_closed_bus_says_so(kernel: FakeKernel) -> None:
    bus = kernel.bus()
    bus.deinit()
    bus.deinit()
    assert not is_open(kernel.opened[0])
    with pytest.raises(DriverError, match="was closed"):
        bus.writeto(0x76, b"")


# Scan


def test_a_scan_finds_who_acknowledges_and_only_reads_where_memories_live(
    kernel: FakeKernel, bus: LinuxI2C
) -> None:
    kernel.errors = dict.fromkeys(set(range(0x80)) - {0x44, 0x50, 0x76}, errno.EREMOTEIO)
    assert bus.scan() == [0x44, 0x50, 0x76]
    probes = {call[0][0]: call[0][2] for call in kernel.calls}
    assert sorted(probes) == list(range(0x08, 0x78))
    assert {address for address, content in probes.items() if content != b""} == {
        *range(0x30, 0x38), *range(0x50, 0x60)
    }  # fmt: skip


def test_a_scan_reads_where_the_adapter_cannot_write_nothing(kernel: FakeKernel, bus: LinuxI2C) -> None:
    kernel.no_empty_write = True
    kernel.errors = dict.fromkeys(set(range(0x80)) - {0x76}, errno.EREMOTEIO)
    assert bus.scan() == [0x76]


# The lock


def in_thread(function: object) -> object:
    """Run a function in another thread and return its result, or the exception."""
    result: list[object] = []

    def run() -> None:
        assert callable(function)
        try:
            result.append(function())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    return result[0]


def test_the_lock_keeps_other_threads_out_and_lets_its_owner_in_again() -> None:
    bus = FakeI2CBus()
    assert bus.try_lock()
    assert bus.try_lock()
    assert in_thread(bus.try_lock) is False
    bus.unlock()
    assert in_thread(bus.try_lock) is False, "taken twice, given back once"
    bus.unlock()

    def lock_and_unlock() -> bool:
        locked = bus.try_lock()
        bus.unlock()
        return locked

    assert in_thread(lock_and_unlock) is True


def test_unlock_without_the_lock_is_an_error() -> None:
    bus = FakeI2CBus()
    with pytest.raises(DriverError, match="does not have the lock"):
        bus.unlock()
    with bus.locked():
        assert isinstance(in_thread(bus.unlock), DriverError)


def test_waiting_too_long_for_the_lock_names_the_bus() -> None:
    bus = FakeI2CBus("i2c-9")

    def wait() -> None:
        with bus.locked(timeout=0.01):
            pass

    with bus.locked():
        caught = in_thread(wait)
    assert isinstance(caught, ReadTimeoutError)
    assert "i2c-9 is in use" in str(caught)


def test_a_driver_that_forgets_to_unlock_does_not_keep_the_bus() -> None:
    bus = FakeI2CBus()
    with pytest.raises(OSError, match="oops"), bus.locked():
        bus.try_lock()
        raise OSError("oops")
    assert in_thread(bus.try_lock) is True


def test_a_driver_that_unlocks_too_often_does_no_harm() -> None:
    bus = FakeI2CBus()
    with bus.locked():
        bus.unlock()
    assert in_thread(bus.try_lock) is True


# Buses by name


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that holds buses, as a rig has one."""
    module = ModuleType("rig_buses")
    monkeypatch.setitem(sys.modules, "rig_buses", module)
    return module


def test_everybody_who_opens_a_bus_gets_the_same_object_until_the_last_gives_it_back(
    module: ModuleType,
) -> None:
    module.make = FakeI2CBus  # type: ignore[attr-defined]
    first = open_bus("fake:rig_buses:make")
    assert open_bus("fake:rig_buses:make") is first
    close_bus(first)
    assert open_bus("fake:rig_buses:make") is first
    close_bus(first)
    close_bus(first)
    second = open_bus("fake:rig_buses:make")
    assert second is not first
    close_bus(second)


def test_the_last_one_closes_the_bus(module: ModuleType, kernel: FakeKernel) -> None:
    module.make = kernel.bus  # type: ignore[attr-defined]
    bus = open_bus("fake:rig_buses:make")
    assert open_bus("fake:rig_buses:make") is bus
    close_bus(bus)
    assert is_open(kernel.opened[0])
    close_bus(bus)
    assert not is_open(kernel.opened[0])
    with pytest.raises(ArgumentError, match="/dev/i2c-1 is not open"):
        close_bus(bus)


def test_a_bus_object_in_a_module_is_taken_as_it_is(module: ModuleType) -> None:
    module.bus = FakeI2CBus()  # type: ignore[attr-defined]
    bus = open_bus("fake:rig_buses:bus")
    assert bus is module.bus
    close_bus(bus)


def test_a_name_in_a_module_that_is_no_bus_is_an_argument_error(module: ModuleType) -> None:
    module.bus = 17  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError, match="fake:rig_buses:bus is no I2CBus but a int"):
        open_bus("fake:rig_buses:bus")
    with pytest.raises(ArgumentError, match=r"has no 'bsu'; did you mean 'bus'\?"):
        open_bus("fake:rig_buses:bsu")
    with pytest.raises(ArgumentError, match="fake:no_such_rig:bus cannot be imported: No module named"):
        open_bus("fake:no_such_rig:bus")


def test_an_abandoned_bus_has_a_successor_with_a_descriptor_and_a_lock_of_its_own(
    module: ModuleType, kernel: FakeKernel
) -> None:
    module.make = kernel.bus  # type: ignore[attr-defined]
    hung = open_bus("fake:rig_buses:make")
    other_user = open_bus("fake:rig_buses:make")
    assert hung.try_lock()
    abandon_bus("fake:rig_buses:make")
    new = open_bus("fake:rig_buses:make")
    assert new is not hung
    assert in_thread(new.try_lock) is True
    assert [is_open(fd) for fd in kernel.opened] == [True, True], "whoever hangs in it still has it"
    hung.unlock()
    close_bus(hung)
    assert other_user is hung
    close_bus(other_user)
    assert [is_open(fd) for fd in kernel.opened] == [False, True], "the late release closes the old one alone"
    with pytest.raises(ArgumentError, match="is not open"):
        close_bus(hung)
    assert open_bus("fake:rig_buses:make") is new
    close_bus(new)
    close_bus(new)
    assert not is_open(kernel.opened[1])


def test_a_bus_that_hangs_while_it_is_opened_stops_no_other_and_can_be_abandoned(
    module: ModuleType, kernel: FakeKernel
) -> None:
    hangs, released, opened = threading.Event(), threading.Event(), []

    def make() -> LinuxI2C:
        if not hangs.is_set():
            hangs.set()
            assert released.wait(10)
        return kernel.bus()

    module.make, module.other = make, FakeI2CBus  # type: ignore[attr-defined]
    thread = threading.Thread(target=lambda: opened.append(open_bus("fake:rig_buses:make")), daemon=True)
    thread.start()
    assert hangs.wait(10)
    in_thread(lambda: close_bus(open_bus("fake:rig_buses:other")))
    abandon_bus("fake:rig_buses:make")
    new = in_thread(lambda: open_bus("fake:rig_buses:make"))
    assert isinstance(new, LinuxI2C)
    released.set()
    thread.join(10)
    (late,) = opened
    assert late is not new
    close_bus(late)
    assert [is_open(fd) for fd in kernel.opened] == [True, False], "the late one"
    close_bus(new)


def test_a_bus_that_fails_to_open_after_it_was_abandoned_leaves_nothing_behind(module: ModuleType) -> None:
    def make() -> FakeI2CBus:
        abandon_bus("fake:rig_buses:make")
        module.make = FakeI2CBus  # type: ignore[attr-defined]
        raise BusError("too late")

    module.make = make  # type: ignore[attr-defined]
    with pytest.raises(BusError):
        open_bus("fake:rig_buses:make")
    bus = open_bus("fake:rig_buses:make")
    close_bus(bus)
    with pytest.raises(ArgumentError):
        close_bus(bus)


def test_an_object_that_is_abandoned_and_opened_again_is_closed_by_the_last_of_both(
    module: ModuleType, kernel: FakeKernel
) -> None:
    module.bus = kernel.bus()  # type: ignore[attr-defined]
    bus = open_bus("fake:rig_buses:bus")
    abandon_bus("fake:rig_buses:bus")
    assert open_bus("fake:rig_buses:bus") is bus
    close_bus(bus)
    assert is_open(kernel.opened[0])
    close_bus(bus)
    assert not is_open(kernel.opened[0])


@pytest.mark.parametrize("name", ["i2c-1", "/dev/i2c-1", "host", "", "fake:rig_buses:make"])
def test_what_is_not_open_is_abandoned_without_a_word(name: str) -> None:
    abandon_bus(name)


def test_a_bus_has_one_name_however_it_is_written(tmp_path: Path) -> None:
    link = tmp_path / "sensor-bus"
    link.symlink_to("/dev/i2c-7")
    assert {check_bus_name(name) for name in ("i2c-7", "/dev/i2c-7", str(link))} == {"/dev/i2c-7"}


@pytest.mark.parametrize(
    "name", ["", "i2c", "i2c-", "i2c:1", "1", "spi0.0", "fake:", "fake:module", "fake:a b:c"]
)
def test_a_name_that_no_bus_has_is_an_argument_error(name: str) -> None:
    with pytest.raises(ArgumentError, match="expected 'i2c-1'"):
        open_bus(name)


def test_opening_a_linux_bus_by_name_looks_for_the_device_file() -> None:
    with pytest.raises(DeviceNotFoundError, match="there is no /dev/i2c-4711"):
        open_bus("i2c-4711")


def test_the_buses_of_a_machine_are_listed_by_number(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    for name in ("i2c-10", "i2c-2", "i2c-1", "i2c-stub", "i2cX"):
        (tmp_path / "dev" / name).touch()
    assert list_buses(tmp_path) == ["i2c-1", "i2c-2", "i2c-10"]
    assert list_buses(tmp_path / "nowhere") == []


def test_linux_and_fake_buses_are_one_kind() -> None:
    assert issubclass(LinuxI2C, I2CBus)
    assert issubclass(FakeI2CBus, I2CBus)
