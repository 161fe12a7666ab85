"""The fake I2C bus and its chips, checked against the datasheets' own numbers."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.errors import BusError
from device_sdk.testing.fake_bme280 import Calibration, FakeBME280
from device_sdk.testing.fake_i2c import FakeI2CBus, FakeRegisterDevice, Transaction
from device_sdk.testing.fake_sht4x import FakeSHT4x, crc8


def answers(bus: FakeI2CBus, address: int) -> bool:
    try:
        bus.writeto(address, b"")
    except BusError as error:
        assert error.errno == errno.EREMOTEIO
        return False
    return True


def registers(bus: FakeI2CBus, register: int, count: int, address: int = 0x76) -> bytes:
    buffer = bytearray(count)
    bus.writeto_then_readfrom(address, bytes([register]), buffer)
    return bytes(buffer)


class Memory(FakeRegisterDevice):
    """A chip of plain registers."""

    def power_on(self) -> None:
        self.registers[:] = bytes(256)


@pytest.fixture
def bus() -> FakeI2CBus:
    return FakeI2CBus()


# The bus


def test_nobody_answers_where_no_chip_is(bus: FakeI2CBus) -> None:
    bus.add(0x50, Memory())
    assert bus.scan() == [0x50]
    with pytest.raises(BusError, match="nothing answers at 0x51 on fake-i2c"):
        bus.writeto(0x51, b"\0")


def test_a_chip_can_be_unplugged_and_starts_afresh_when_plugged_in(bus: FakeI2CBus) -> None:
    bus.add(0x50, Memory())
    bus.writeto(0x50, b"\x10\x99")
    bus.unplug(0x50)
    assert not answers(bus, 0x50)
    bus.plug(0x50)
    assert registers(bus, 0x10, 1, 0x50) == b"\0"


def test_a_chip_that_was_never_there_cannot_be_unplugged(bus: FakeI2CBus) -> None:
    with pytest.raises(KeyError):
        bus.unplug(0x50)


def test_nack_counts_transactions_with_one_address(bus: FakeI2CBus) -> None:
    bus.add(0x50, Memory())
    bus.add(0x51, Memory())
    bus.nack(0x50, count=2)
    assert [answers(bus, address) for address in (0x50, 0x51, 0x50, 0x50)] == [False, True, False, True]


def test_a_stuck_bus_fails_for_every_chip_until_it_is_released(bus: FakeI2CBus) -> None:
    bus.add(0x50, Memory())
    bus.stuck()
    with pytest.raises(BusError, match="holds SCL low"):
        bus.writeto(0x50, b"")
    bus.stuck(errno.EBUSY)
    with pytest.raises(BusError, match="holds SDA low"):
        bus.writeto(0x50, b"")
    bus.release()
    assert answers(bus, 0x50)


def test_the_history_holds_every_transaction_and_its_end(bus: FakeI2CBus) -> None:
    bus.add(0x50, Memory())
    bus.writeto(0x50, b"\x10\x99")
    registers(bus, 0x10, 2, 0x50)
    bus.nack(0x50)
    answers(bus, 0x50)
    bus.readfrom_into(0x50, bytearray(1))
    assert list(bus.history) == [
        Transaction(0x50, b"\x10\x99"),
        Transaction(0x50, b"\x10", b"\x99\0"),
        Transaction(0x50, b"", error=errno.EREMOTEIO),
        Transaction(0x50, None, b"\0"),
    ]


def test_registers_are_written_and_read_in_a_row_and_wrap_at_256(bus: FakeI2CBus) -> None:
    bus.add(0x50, Memory())
    bus.writeto(0x50, b"\xfe\1\2\3")
    assert registers(bus, 0xFE, 4, 0x50) == b"\1\2\3\0"


# BME280


def measure(bus: FakeI2CBus, oversampling: int = 5) -> tuple[int, int, int]:
    """Do a forced measurement; raw temperature, pressure, humidity."""
    bus.writeto(0x76, bytes([0xF2, 1, 0xF4, oversampling << 5 | oversampling << 2 | 1]))
    data = registers(bus, 0xF7, 8)
    pressure, temperature = (int.from_bytes(part, "big") >> 4 for part in (data[:3], data[3:6]))
    return temperature, pressure, struct.unpack(">H", data[6:])[0]


def test_the_formulas_give_the_worked_example_of_the_datasheet() -> None:
    calibration = Calibration()
    fine = calibration.fine_temperature(519888)
    assert int(fine) == 128422
    assert fine / 5120 == pytest.approx(25.08, abs=0.005)
    assert calibration.pressure(415148, 128422) == pytest.approx(100653.27, abs=0.05)


@given(
    temperature=st.floats(-40, 85), pressure=st.floats(30_000, 110_000), humidity=st.floats(0, 100)
)  # fmt: skip
def test_the_raw_values_lead_back_to_what_was_wanted(
    temperature: float, pressure: float, humidity: float
) -> None:
    bus = FakeI2CBus()
    chip = FakeBME280(temperature, humidity, pressure)
    bus.add(0x76, chip)
    raw_t, raw_p, raw_h = measure(bus)
    fine = chip.calibration.fine_temperature(raw_t)
    assert fine / 5120 == pytest.approx(temperature, abs=0.0005)
    assert chip.calibration.pressure(raw_p, fine) == pytest.approx(pressure, abs=0.2)
    assert chip.calibration.humidity(raw_h, fine) == pytest.approx(humidity, abs=0.01)


def test_the_chip_has_its_id_and_sleeps_after_power_on(bus: FakeI2CBus) -> None:
    bus.add(0x76, FakeBME280())
    assert registers(bus, 0xD0, 1) == b"\x60"
    assert registers(bus, 0xF2, 4) == b"\0\0\0\0"
    assert registers(bus, 0xF7, 8) == bytes.fromhex("800000 800000 8000")


def test_the_calibration_block_is_where_the_datasheet_says(bus: FakeI2CBus) -> None:
    bus.add(0x76, FakeBME280(calibration=Calibration(h=(75, 362, 1, 0x145, 0x7AB, -30))))
    first = struct.unpack("<HhhH8h", registers(bus, 0x88, 24))
    assert first[:4] == (27504, 26435, -1000, 36477)
    assert registers(bus, 0xA1, 1) == bytes([75])
    assert registers(bus, 0xE1, 7) == bytes([362 & 0xFF, 362 >> 8, 1, 0x14, 0xB5, 0x7A, 256 - 30])


def test_a_forced_measurement_ends_in_sleep_and_shows_that_it_measured(bus: FakeI2CBus) -> None:
    bus.add(0x76, FakeBME280())
    bus.writeto(0x76, b"\xf4\x25")
    assert registers(bus, 0xF3, 1) == b"\x08"
    assert registers(bus, 0xF3, 1) == b"\0"
    assert registers(bus, 0xF4, 1) == b"\x24"


def test_sleep_keeps_the_last_measurement_and_normal_mode_goes_on(bus: FakeI2CBus) -> None:
    chip = FakeBME280(temperature=10)
    bus.add(0x76, chip)
    first = measure(bus)
    chip.temperature = 30
    asleep = registers(bus, 0xFA, 3)
    assert int.from_bytes(asleep, "big") >> 4 == first[0]
    bus.writeto(0x76, b"\xf4\xb7")
    assert registers(bus, 0xFA, 3) > asleep


def test_what_is_not_sampled_has_no_data(bus: FakeI2CBus) -> None:
    bus.add(0x76, FakeBME280())
    assert measure(bus, oversampling=0)[:2] == (0x80000, 0x80000)


def test_the_humidity_setting_counts_from_the_next_write_to_ctrl_meas(bus: FakeI2CBus) -> None:
    bus.add(0x76, FakeBME280())
    bus.writeto(0x76, b"\xf4\x27")  # normal mode, humidity still skipped
    bus.writeto(0x76, b"\xf2\x01")
    assert registers(bus, 0xFD, 2) == b"\x80\0"
    bus.writeto(0x76, b"\xf4\x27")
    assert registers(bus, 0xFD, 2) != b"\x80\0"


@pytest.mark.parametrize(("oversampling", "bits"), [(1, 16), (2, 17), (3, 18), (4, 19), (5, 20)])
def test_oversampling_sets_the_resolution(bus: FakeI2CBus, oversampling: int, bits: int) -> None:
    chip = FakeBME280()
    chip.set_raw(0x7FFFF, 0x7FFFF, 0x7FFF)
    bus.add(0x76, chip)
    temperature, pressure, _ = measure(bus, oversampling)
    assert temperature == pressure
    assert temperature % (1 << (20 - bits)) == 0
    bus.writeto(0x76, b"\xf5\x04")  # the filter computes with 20 bits
    assert measure(bus, oversampling)[0] == 0x7FFFF


def test_a_reset_forgets_the_settings_and_other_registers_cannot_be_written(bus: FakeI2CBus) -> None:
    bus.add(0x76, FakeBME280())
    bus.writeto(0x76, b"\xd0\x00\x88\x00")
    assert registers(bus, 0xD0, 1) == b"\x60"
    assert registers(bus, 0x88, 1) != b"\0"
    bus.writeto(0x76, b"\xf5\xa0")
    bus.writeto(0x76, b"\xe0\x00")
    assert registers(bus, 0xF5, 1) == b"\xa0", "only 0xb6 resets"
    bus.writeto(0x76, b"\xe0\xb6")
    assert registers(bus, 0xF5, 1) == b"\0"


def test_a_value_beyond_the_raw_numbers_becomes_the_nearest() -> None:
    bus = FakeI2CBus()
    bus.add(0x76, FakeBME280(temperature=-400, humidity=-100, pressure=1e9))
    assert measure(bus) == (0, 0, 0)


# SHT4x


def test_the_checksum_is_the_datasheets() -> None:
    assert crc8(b"\xbe\xef") == 0x92


def test_a_measurement_is_two_words_with_checksums_read_once(bus: FakeI2CBus) -> None:
    bus.add(0x44, FakeSHT4x(temperature=-45 + 175 * 0x6666 / 0xFFFF, humidity=-6 + 125 * 0x8000 / 0xFFFF))
    bus.writeto(0x44, b"\xfd")
    buffer = bytearray(6)
    bus.readfrom_into(0x44, buffer)
    assert buffer == b"\x66\x66" + bytes([crc8(b"\x66\x66")]) + b"\x80\0" + bytes([crc8(b"\x80\0")])
    with pytest.raises(BusError):
        bus.readfrom_into(0x44, buffer)


def test_a_read_before_a_command_and_an_unknown_command_are_not_acknowledged(bus: FakeI2CBus) -> None:
    bus.add(0x44, FakeSHT4x())
    assert answers(bus, 0x44)
    with pytest.raises(BusError):
        bus.readfrom_into(0x44, bytearray(6))
    with pytest.raises(BusError):
        bus.writeto(0x44, b"\x00")


def test_the_serial_number_is_two_words(bus: FakeI2CBus) -> None:
    bus.add(0x44, FakeSHT4x(serial_number=0xCAFE1234))
    buffer = bytearray(6)
    bus.writeto(0x44, b"\x89")
    bus.readfrom_into(0x44, buffer)
    assert buffer[:2] + buffer[3:5] == b"\xca\xfe\x12\x34"


def test_corrupt_crc_damages_as_many_answers_as_asked_for(bus: FakeI2CBus) -> None:
    chip = FakeSHT4x()
    bus.add(0x44, chip)
    chip.corrupt_crc(2)
    good = []
    for _ in range(3):
        buffer = bytearray(6)
        bus.writeto(0x44, b"\xfd")
        bus.readfrom_into(0x44, buffer)
        good.append(crc8(bytes(buffer[:2])) == buffer[2])
    assert good == [False, False, True]


def test_a_soft_reset_drops_the_measurement(bus: FakeI2CBus) -> None:
    bus.add(0x44, FakeSHT4x())
    bus.writeto(0x44, b"\xfd")
    bus.writeto(0x44, b"\x94")
    with pytest.raises(BusError):
        bus.readfrom_into(0x44, bytearray(6))
