"""Adapters without plain I2C transfers: which SMBus command a transfer becomes, and what has none.

The kernel's side is written from ``Documentation/i2c/smbus-protocol.rst`` (bits on the wire),
``<linux/i2c-dev.h>`` (layout of the calls) and ``Documentation/i2c/i2c-stub.rst`` (its chips).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from pathlib import Path

import pytest

from device_sdk.drivers import open_driver
from device_sdk.drivers.bus import LinuxI2C
from device_sdk.drivers.bus.smbus import commands_for
from device_sdk.errors import BusError, ChecksumError, DeviceNotFoundError
from device_sdk.testing.fake_bme280 import FakeBME280

SLAVE, FUNCS, RDWR, SMBUS = 0x0703, 0x0705, 0x0707, 0x0720
QUICK, BYTE, BYTE_DATA, WORD_DATA, I2C_BLOCK = 0, 1, 2, 3, 8
STUB = 0x0C7F_0000  # quick, byte, byte data, word data, I2C block: what i2c-stub has by default
BLOCKS = 0x0C00_0000


class StubKernel:
    """/dev/i2c-N of i2c-stub: registers of 16 bits, of which byte commands use the low half, and a pointer.

    ``wire`` has the bits of each command in the notation of smbus-protocol.rst.
    """

    def __init__(self, *addresses: int, functions: int = STUB) -> None:
        self.functions = functions
        self.chips = {address: [0] * 256 for address in addresses or (0x76,)}
        self.bound: set[int] = set()  # addresses that a kernel driver has
        self.wire: list[str] = []
        self.opened: list[int] = []
        self.fail = 0
        self.cut = 0  # bytes that a block is too short
        self._pointer = 0
        self._slave = -1

    def open(self, path: str, flags: int) -> int:
        self.opened.append(os.open(os.devnull, flags))
        return self.opened[-1]

    def ioctl(self, fd: int, request: int, argument: ctypes.Structure | ctypes.c_ulong | int) -> int:
        os.fstat(fd)  # it is open
        if request == SLAVE:
            assert isinstance(argument, int)
            if argument in self.bound:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            self._slave = argument
            return 0
        assert not isinstance(argument, int)
        where = ctypes.addressof(argument)
        if request == FUNCS:
            ctypes.memmove(where, struct.pack("L", self.functions), ctypes.sizeof(ctypes.c_ulong))
            return 0
        assert request == SMBUS, "this adapter has no I2C_RDWR"
        read, command, size, data = struct.unpack("BBIP", ctypes.string_at(where, struct.calcsize("BBIP")))
        if self.fail:
            raise OSError(self.fail, os.strerror(self.fail))
        if self._slave not in self.chips:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))  # as i2c-stub
        self._perform(bool(read), command, size, data)
        return 0

    def _perform(self, read: bool, command: int, size: int, data: int) -> None:
        words = self.chips[self._slave]
        to, sr = f"S {self._slave:02x} ", f"Sr {self._slave:02x} "
        got = ctypes.string_at(data, 34) if data else b""
        back = b""
        match size, read:
            case 0, False:
                wire = f"{to}Wr P"
            case 1, True:
                wire, back = f"{to}Rd [1] P", bytes([words[self._pointer] & 0xFF])
                self._pointer = (self._pointer + 1) % 256
            case 1, False:
                wire = f"{to}Wr {command:02x} P"
                self._pointer = command
            case 2, True:
                wire, back = f"{to}Wr {command:02x} {sr}Rd [1] P", bytes([words[command] & 0xFF])
            case 2, False:
                wire = f"{to}Wr {command:02x} {got[0]:02x} P"
                words[command] = words[command] & 0xFF00 | got[0]
            case 3, True:
                wire, back = f"{to}Wr {command:02x} {sr}Rd [2] P", struct.pack("=H", words[command])
            case 3, False:
                (word,) = struct.unpack("=H", got[:2])
                wire = f"{to}Wr {command:02x} {word & 0xFF:02x} {word >> 8:02x} P"  # DataLow, DataHigh
                words[command] = word
            case 8, True:
                block = bytes(words[(command + index) % 256] & 0xFF for index in range(got[0]))
                wire, back = (
                    f"{to}Wr {command:02x} {sr}Rd [{len(block)}] P",
                    bytes([len(block) - self.cut]) + block,
                )
            case 8, False:
                block = got[1 : 1 + got[0]]
                wire = f"{to}Wr {command:02x} {block.hex(' ')} P"
                for index, value in enumerate(block):
                    words[(command + index) % 256] = words[(command + index) % 256] & 0xFF00 | value
            case _:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.wire.append(wire)
        if back:
            ctypes.memmove(data, back, len(back))

    def bus(self, root: Path | str = "/") -> LinuxI2C:
        return LinuxI2C(7, open_device=self.open, ioctl=self.ioctl, root=root)


@pytest.fixture
def kernel() -> StubKernel:
    return StubKernel()


# The bits on the wire


@pytest.mark.parametrize(
    ("write", "read", "wire"),
    [
        (b"", None, "S 76 Wr P"),
        (b"\xd0", None, "S 76 Wr d0 P"),
        (b"\xf4\x25", None, "S 76 Wr f4 25 P"),
        (b"\xf4\x25\x01", None, "S 76 Wr f4 25 01 P"),
        (b"\x10" + bytes(range(1, 33)), None, f"S 76 Wr 10 {bytes(range(1, 33)).hex(' ')} P"),
        (None, 1, "S 76 Rd [1] P"),
        (b"\xd0", 1, "S 76 Wr d0 Sr 76 Rd [1] P"),
        (b"\xd0", 2, "S 76 Wr d0 Sr 76 Rd [2] P"),
        (b"\xf7", 8, "S 76 Wr f7 Sr 76 Rd [8] P"),
        (b"\x00", 32, "S 76 Wr 00 Sr 76 Rd [32] P"),
    ],
)
def test_a_transfer_has_the_same_bits_on_the_wire_as_plain_i2c(
    kernel: StubKernel, write: bytes | None, read: int | None, wire: str
) -> None:
    with kernel.bus() as bus:
        assert len(bus.transfer(0x76, write, read)) == (read or 0)
    assert kernel.wire == [wire]


def test_every_length_up_to_a_block_has_a_command_and_none_beyond() -> None:
    written = [count for count in range(40) if commands_for(count, None)]
    read = [count for count in range(40) if commands_for(1, count)]
    assert written == list(range(34))
    assert read == list(range(1, 33))


def test_values_go_there_and_back(kernel: StubKernel) -> None:
    buffer = bytearray(4)
    with kernel.bus() as bus:
        bus.writeto(0x76, b"\x20\x01\x02\x03\x04")
        bus.writeto_then_readfrom(0x76, b"\x20", buffer)
        assert buffer == b"\x01\x02\x03\x04"
        bus.writeto(0x76, b"\x21")
        bus.readfrom_into(0x76, buffer, end=1)
    assert buffer == b"\x02\x02\x03\x04"


def test_a_word_has_its_low_byte_first_where_the_adapter_has_no_blocks() -> None:
    kernel = StubKernel(functions=STUB & ~BLOCKS)
    with kernel.bus() as bus:
        bus.writeto(0x76, b"\x01\x34\x12")
        assert kernel.chips[0x76][1] == 0x1234
        assert bus.transfer(0x76, b"\x01", 2) == b"\x34\x12"
    assert kernel.wire == ["S 76 Wr 01 34 12 P", "S 76 Wr 01 Sr 76 Rd [2] P"]


def test_a_single_byte_goes_as_a_block_where_the_adapter_has_only_those() -> None:
    kernel = StubKernel(functions=BLOCKS)
    with kernel.bus() as bus:
        bus.writeto(0x76, b"\x01\x34")
        assert bus.transfer(0x76, b"\x01", 1) == b"\x34"
    assert kernel.wire == ["S 76 Wr 01 34 P", "S 76 Wr 01 Sr 76 Rd [1] P"]


# What has no command


@pytest.mark.parametrize(
    ("write", "read", "words"),
    [
        (
            None,
            6,
            "no SMBus command does a read of 6 bytes with 0x76, and the adapter of /dev/i2c-7 has no plain",
        ),
        (b"\x00", 33, "no SMBus command does a write of 1 byte and a read of 33 bytes"),
        (b"\x00\x10", 2, "no SMBus command does a write of 2 bytes and a read of 2 bytes"),
        (bytes(34), None, "no SMBus command does a write of 34 bytes.*at most a register and 32 bytes"),
        (b"", 1, "no SMBus command does a write of 0 bytes and a read of 1 byte with"),
    ],
)
def test_what_no_command_does_is_an_error_that_says_so(
    kernel: StubKernel, write: bytes | None, read: int | None, words: str
) -> None:
    with kernel.bus() as bus, pytest.raises(BusError, match=words) as caught:
        bus.transfer(0x76, write, read)
    assert caught.value.errno == errno.EOPNOTSUPP
    assert "0x76" in str(caught.value)
    assert kernel.wire == []


def test_a_command_that_the_adapter_lacks_is_named_and_nothing_else_is_guessed() -> None:
    kernel = StubKernel(functions=STUB & ~BLOCKS)
    with kernel.bus() as bus:
        with pytest.raises(
            BusError, match=r"a read of 6 bytes with 0x76 the adapter .* need the command 'I2C Block Read'"
        ):
            bus.transfer(0x76, b"\xf7", 6)
        with pytest.raises(BusError, match="need the command 'I2C Block Write'"):
            bus.writeto(0x76, bytes(5))
    assert kernel.wire == []


def test_an_adapter_with_neither_is_refused_and_closed() -> None:
    kernel = StubKernel(functions=0x0100_0000)  # SMBus block read only: its length is the chip's choice
    with pytest.raises(BusError, match="/dev/i2c-7 does neither plain I2C transfers nor SMBus commands"):
        kernel.bus()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(kernel.opened[0])


# A register that was written just before


def test_a_read_right_after_a_register_was_written_is_a_read_from_it(kernel: StubKernel) -> None:
    kernel.chips[0x76][0x88:0x8B] = [1, 2, 3]
    buffer = bytearray(3)
    with kernel.bus() as bus, bus.locked():
        bus.writeto(0x76, b"\x88")
        bus.readfrom_into(0x76, buffer)
    assert buffer == b"\1\2\3"
    assert kernel.wire == ["S 76 Wr 88 P", "S 76 Wr 88 Sr 76 Rd [3] P"]


def test_that_needs_the_same_address_nothing_between_and_the_lock_held() -> None:
    kernel = StubKernel(0x76, 0x77)
    with kernel.bus() as bus:
        bus.writeto(0x76, b"\x88")  # the lock is free afterwards: another thread may have read
        with pytest.raises(BusError, match="no SMBus command"):
            bus.transfer(0x76, None, 3)
        with bus.locked():
            bus.writeto(0x76, b"\x88")
            with pytest.raises(BusError, match="no SMBus command"):
                bus.transfer(0x77, None, 3)
            bus.writeto(0x76, b"\x88")
            bus.writeto(0x76, b"\x88\x01")
            with pytest.raises(BusError, match="no SMBus command"):
                bus.transfer(0x76, None, 3)
            bus.writeto(0x76, b"\x88")
            bus.transfer(0x76, None, 3)
            with pytest.raises(BusError, match="no SMBus command"):
                bus.transfer(0x76, None, 3)


def test_a_chip_that_takes_commands_instead_does_not_answer_and_the_error_says_why(
    kernel: StubKernel,
) -> None:
    with kernel.bus() as bus, bus.locked():
        bus.writeto(0x76, b"\xfd")
        kernel.fail = errno.ENXIO
        with pytest.raises(
            BusError, match=r"made one from register 0xfd, which fits chips with registers"
        ) as caught:
            bus.transfer(0x76, None, 6)
    assert caught.value.errno == errno.ENXIO


# Faults


def test_an_address_of_a_kernel_driver_names_it_and_the_way_around(
    kernel: StubKernel, tmp_path: Path
) -> None:
    device = tmp_path / "sys/bus/i2c/devices/7-0076"
    device.mkdir(parents=True)
    (tmp_path / "sys/bus/i2c/drivers/bmp280").mkdir(parents=True)
    (device / "driver").symlink_to("../../drivers/bmp280")
    kernel.bound = {0x76}
    with kernel.bus(tmp_path) as bus, pytest.raises(BusError) as caught:
        bus.writeto(0x76, b"\xd0")
    assert caught.value.errno == errno.EBUSY
    for words in ("the kernel driver bmp280 has 0x76 on /dev/i2c-7", "driver sysfs", "7-0076/driver/unbind"):
        assert words in str(caught.value)
    with kernel.bus() as bus, pytest.raises(BusError, match="the kernel driver has 0x76"):
        bus.writeto(0x76, b"\xd0")


def test_nothing_at_an_address_is_no_answer_and_the_file_is_opened_again(kernel: StubKernel) -> None:
    with kernel.bus() as bus:
        with pytest.raises(
            BusError, match=r"nothing answers at 0x44 on /dev/i2c-7, or the adapter"
        ) as caught:
            bus.writeto(0x44, b"")
        assert caught.value.errno == errno.ENODEV
        bus.writeto(0x76, b"")
    assert len(kernel.opened) == 2, "an adapter that was unplugged has to be let go"


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENXIO, "nothing answers at 0x76"), (errno.ETIMEDOUT, "timed out"), (0xFFF, "failed")],
)
def test_other_faults_have_the_words_of_plain_i2c(kernel: StubKernel, code: int, words: str) -> None:
    kernel.fail = code
    with kernel.bus() as bus, pytest.raises(BusError, match=words) as caught:
        bus.writeto(0x76, b"\xd0\x01")
    assert caught.value.errno == code


def test_a_block_that_is_too_short_is_an_error_and_no_values(kernel: StubKernel) -> None:
    kernel.cut = 2
    with kernel.bus() as bus, pytest.raises(BusError, match="gave a block of 4 bytes, expected 6"):
        bus.transfer(0x76, b"\xf7", 6)


def test_a_scan_finds_the_chips_of_the_stub() -> None:
    with StubKernel(0x44, 0x52, 0x76).bus() as bus:
        assert bus.scan() == [0x44, 0x52, 0x76]


def test_an_adapter_may_come_back_with_other_abilities(kernel: StubKernel) -> None:
    with kernel.bus() as bus:
        with pytest.raises(BusError):
            bus.writeto(0x44, b"")
        kernel.functions = STUB & ~BLOCKS
        with pytest.raises(BusError, match="need the command 'I2C Block Read'"):
            bus.transfer(0x76, b"\xf7", 6)


# Drivers


def loaded_bme280(kernel: StubKernel) -> None:
    """Put the registers of a BME280 that has measured into the stub, as i2c-stub-from-dump does."""
    chip = FakeBME280(temperature=21.5, humidity=43.2, pressure=99_000)
    for write in (b"\xf2\x01", b"\xf4\x25"):  # oversampling; a forced measurement
        chip.write(write)
    kernel.chips[0x76][:] = chip.registers
    kernel.chips[0x76][0xF3] = 0  # status: nothing goes on


def test_adafruits_bme280_reads_registers_over_smbus(kernel: StubKernel) -> None:
    pytest.importorskip("adafruit_bme280.basic", reason="needs blinka")
    loaded_bme280(kernel)
    with kernel.bus() as bus, open_driver("bme280", bus=bus, address=0x76) as sensor:
        readings = sensor.read()
    got = {reading.channel: reading.value for reading in readings}
    assert got == {
        "temperature": pytest.approx(21.5, abs=0.02),
        "humidity": pytest.approx(43.2, abs=0.1),
        "pressure": pytest.approx(99_000, abs=20),
    }
    assert {reading.quality for reading in readings} == {"good"}


def test_a_chip_that_does_not_answer_over_smbus_is_an_error(kernel: StubKernel) -> None:
    pytest.importorskip("adafruit_bme280.basic", reason="needs blinka")
    with kernel.bus() as bus, pytest.raises((BusError, DeviceNotFoundError), match="0x77"):
        open_driver("bme280", bus=bus, address=0x77)


def test_a_chip_that_takes_commands_is_refused_over_smbus_and_never_published() -> None:
    pytest.importorskip("adafruit_sht4x", reason="needs blinka")
    bus = StubKernel(0x44).bus()
    with bus, open_driver("sht4x", bus=bus, address=0x44) as sensor, pytest.raises(ChecksumError):
        sensor.read()


def test_threads_that_use_registers_do_not_mix_them_up() -> None:
    kernel = StubKernel(0x76, 0x77)
    for address in (0x76, 0x77):
        kernel.chips[address][0x10:0x14] = [address] * 4
    wrong: list[bytes] = []
    with kernel.bus() as bus:

        def use(address: int) -> None:
            for _ in range(50):
                with bus.locked():
                    bus.writeto(address, b"\x10")
                    answer = bus.transfer(address, None, 4)
                if answer != bytes([address] * 4):
                    wrong.append(answer)

        threads = [threading.Thread(target=use, args=(address,), daemon=True) for address in (0x76, 0x77)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
    assert wrong == []
