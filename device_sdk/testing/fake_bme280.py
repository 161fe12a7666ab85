"""A Bosch BME280 without hardware, down to the registers: drivers for the real chip read it.

The chip delivers raw values and a calibration block, and the driver computes. The fake works backwards: it
searches for the raw values for which the datasheet's formulas return the wanted ones.

Source: Bosch BST-BME280-DS001 rev. 1.23: sections 3.4 (oversampling), 4.2 (calibration and compensation), 5
(registers), 6.2 (I2C).
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_sdk.testing.fake_i2c import FakeRegisterDevice

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Calibration", "FakeBME280"]

_CALIBRATION_1 = 0x88
_CALIBRATION_H1 = 0xA1
_CHIP_ID = 0xD0
_CALIBRATION_2 = 0xE1
_CTRL_HUM = 0xF2
_STATUS = 0xF3
_CTRL_MEAS = 0xF4
_CONFIG = 0xF5
_DATA = 0xF7
_DATA_END = 0xFF

_RESET_WORD = 0xB6
_MEASURING = 0x08
_SLEEP, _NORMAL = 0, 3

# The content of the data registers of a quantity that was not measured.
_NO_DATA_20_BITS = 0x80000
_NO_DATA_16_BITS = 0x8000


@dataclass(frozen=True, slots=True)
class Calibration:
    """The coefficients that Bosch burns into each chip.

    Those for temperature and pressure are the worked example of Bosch's BMP280 datasheet (BST-BMP280-DS001,
    section 3.12), those for humidity are typical ones.
    """

    t: tuple[int, int, int] = (27504, 26435, -1000)
    p: tuple[int, ...] = (36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
    h: tuple[int, int, int, int, int, int] = (75, 362, 0, 324, 50, 30)

    def fine_temperature(self, adc: int) -> float:
        """Return the temperature that the other two formulas need: in 1/5120 degree Celsius."""
        offset = adc / 16384 - self.t[0] / 1024
        return offset * self.t[1] + (offset / 8) ** 2 * self.t[2]

    def pressure(self, adc: int, fine: float) -> float:
        """Return the pressure in pascal; it falls when ``adc`` grows."""
        p1, p2, p3, p4, p5, p6, p7, p8, p9 = self.p
        warm = fine / 2 - 64000
        sensitivity = (1 + (p3 * warm * warm / 524288 + p2 * warm) / 524288 / 32768) * p1
        offset = (warm * warm * p6 / 32768 + warm * p5 * 2) / 4 + p4 * 65536
        linear = (1048576 - adc - offset / 4096) * 6250 / sensitivity
        return linear + (p9 * linear * linear / 2147483648 + linear * p8 / 32768 + p7) / 16

    def humidity(self, adc: int, fine: float) -> float:
        """Return the relative humidity in percent, not limited to 0 to 100."""
        h1, h2, h3, h4, h5, h6 = self.h
        warm = fine - 76800
        slope = h2 / 65536 * (1 + h6 / 67108864 * warm * (1 + h3 / 67108864 * warm))
        linear = (adc - (h4 * 64 + h5 / 16384 * warm)) * slope
        return linear * (1 - h1 * linear / 524288)

    def first_block(self) -> bytes:
        """Return registers 0x88 to 0x9f."""
        return struct.pack("<Hhh", *self.t) + struct.pack("<H8h", *self.p)

    def second_block(self) -> bytes:
        """Return registers 0xe1 to 0xe7; the twelve bits of H4 and H5 share a byte."""
        _, h2, h3, h4, h5, h6 = self.h
        shared = (h5 & 0xF) << 4 | h4 & 0xF
        return struct.pack("<hBbBbb", h2, h3, h4 >> 4, shared, h5 >> 4, h6)


class FakeBME280(FakeRegisterDevice):
    """A BME280 whose measurements are set by the test.

    Sleep, forced and normal mode, oversampling with its resolution (16 to 20 bits), reset. A value beyond
    the range of the raw numbers becomes the nearest one in it. After a forced measurement the status register
    says "measuring" once.

    Units: ``temperature`` degrees Celsius, ``humidity`` %RH, ``pressure`` Pa; they may be set at any time and
    apply to the next measurement. ``chip_id`` 0x58 makes it a BMP280, which is often delivered by mistake.
    """

    write_pairs = True

    def __init__(
        self,
        temperature: float = 20.0,
        humidity: float = 50.0,
        pressure: float = 101_325.0,
        *,
        chip_id: int = 0x60,
        calibration: Calibration | None = None,
    ) -> None:
        self.temperature = temperature
        self.humidity = humidity
        self.pressure = pressure
        self.chip_id = chip_id
        self.calibration = calibration or Calibration()
        self._raw: tuple[int, int, int] | None = None
        super().__init__()

    def set_raw(self, temperature: int, pressure: int, humidity: int) -> None:
        """Deliver these raw values from now on (20, 20 and 16 bits), regardless of the attributes."""
        self._raw = (temperature, pressure, humidity)

    def power_on(self) -> None:
        """Put every register to its reset value; the chip sleeps."""
        self.registers[:] = bytes(256)
        self.registers[_CHIP_ID] = self.chip_id
        first, second = self.calibration.first_block(), self.calibration.second_block()
        self.registers[_CALIBRATION_1 : _CALIBRATION_1 + len(first)] = first
        self.registers[_CALIBRATION_H1] = self.calibration.h[0]
        self.registers[_CALIBRATION_2 : _CALIBRATION_2 + len(second)] = second
        self._humidity_oversampling = 0
        self._store(_NO_DATA_20_BITS, _NO_DATA_20_BITS, _NO_DATA_16_BITS)

    def register_written(self, register: int, value: int) -> None:
        """Act on the four registers that can be written; the others keep their value."""
        match register:
            case 0xE0 if value == _RESET_WORD:  # reset
                self.power_on()
            case 0xF2:
                self.registers[_CTRL_HUM] = value & 0x07
            case 0xF4:
                self.registers[_CTRL_MEAS] = value
                # The humidity setting counts from the next write to ctrl_meas on (section 5.4.3).
                self._humidity_oversampling = self.registers[_CTRL_HUM]
                if value & 0x03 not in (_SLEEP, _NORMAL):
                    self._measure()
                    self.registers[_CTRL_MEAS] = value & ~0x03
                    self.registers[_STATUS] = _MEASURING
            case 0xF5:
                self.registers[_CONFIG] = value

    def register_read(self, register: int) -> int:
        """Return a register; reading the status clears it."""
        value = self.registers[register]
        if register == _STATUS:
            self.registers[_STATUS] = 0
        return value

    def read(self, count: int) -> bytes:
        """Return registers; in normal mode they hold a new measurement for each transaction."""
        if self.registers[_CTRL_MEAS] & 0x03 == _NORMAL:
            self._measure()
        return super().read(count)

    def _measure(self) -> None:
        """Put the raw values of the wanted quantities into the data registers."""
        control, find = self.registers[_CTRL_MEAS], self.calibration
        raw_t, raw_p, raw_h = self._raw or (None, None, None)
        if raw_t is None:
            raw_t = _search(find.fine_temperature, self.temperature * 5120, 20)
        temperature = self._resolved(raw_t, control >> 5)
        # The driver only knows the temperature in the resolution of the chip, and so must the search.
        fine = int(find.fine_temperature(temperature))
        if raw_p is None:
            raw_p = _search(lambda adc: -find.pressure(adc, fine), -self.pressure, 20)
        if raw_h is None:
            raw_h = _search(lambda adc: find.humidity(adc, fine), self.humidity, 16)
        humidity = raw_h if self._humidity_oversampling else _NO_DATA_16_BITS
        self._store(temperature, self._resolved(raw_p, control >> 2 & 0x07), humidity)

    def _resolved(self, adc: int, oversampling: int) -> int:
        """Round a raw value as the chip does: 16 bits, one more for each doubling, 20 with the filter."""
        if oversampling == 0:
            return _NO_DATA_20_BITS
        filtered = bool(self.registers[_CONFIG] & 0x1C)
        unused_bits = 0 if filtered else max(5 - oversampling, 0)
        step = 1 << unused_bits
        return min(round(adc / step) * step, (1 << 20) - step)

    def _store(self, temperature: int, pressure: int, humidity: int) -> None:
        data = struct.pack(">I", pressure << 4)[1:] + struct.pack(">I", temperature << 4)[1:]
        self.registers[_DATA:_DATA_END] = data + struct.pack(">H", humidity)


def _search(formula: Callable[[int], float], wanted: float, bits: int) -> int:
    """Return the raw value of that many bits whose result, rising with it, is nearest to the wanted one."""
    above = bisect_left(range(1 << bits), wanted, key=formula)
    candidates = [adc for adc in (above - 1, above) if 0 <= adc < 1 << bits]
    return min(candidates, key=lambda adc: abs(formula(adc) - wanted))
