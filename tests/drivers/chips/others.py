"""A particle counter, a barometer, a hygrometer.

Sources: Plantower PMSA003I data manual 2.6, appendix I; ST LPS22HB data sheet DocID027083, sections 8 and 9;
Aosong AHT20 data sheet A0, section 5.
"""

from __future__ import annotations

import struct

from device_sdk.testing.fake_i2c import FakeI2CDevice, FakeRegisterDevice, NoAcknowledge


class FakePMSA003I(FakeI2CDevice):
    """Concentrations and counts of particles: ``words``, in the order of the frame of 32 bytes."""

    def __init__(self, *words: int) -> None:
        self.words = words
        self.damaged = 0

    def power_on(self) -> None:
        """Nothing is kept."""

    def write(self, data: bytes) -> None:
        """Take the probe of the address."""

    def read(self, count: int) -> bytes:
        frame = b"BM" + struct.pack(">H", 28) + struct.pack(">12H", *self.words) + bytes([0x97, 0x00])
        total = sum(frame) + (1 if self.damaged else 0)
        self.damaged = max(self.damaged - 1, 0)
        return (frame + struct.pack(">H", total)).ljust(count, b"\xff")[:count]


class FakeLPS22HB(FakeRegisterDevice):
    """Pressure and temperature: ``pressure_raw`` in 1/4096 hPa, ``temperature_raw`` in 1/100 degree Celsius.

    The default is the example of the data sheet, 0x3FF58D for 1023.3 hPa.
    """

    def __init__(self, pressure_raw: int = 0x3FF58D, temperature_raw: int = 2150) -> None:
        self.pressure_raw = pressure_raw
        self.temperature_raw = temperature_raw
        super().__init__()

    def power_on(self) -> None:
        self.registers[:] = bytes(256)
        self.registers[0x0F] = 0xB1
        self.registers[0x11] = 0x10

    def write(self, data: bytes) -> None:
        super().write(bytes([data[0] & 0x7F, *data[1:]]) if data else data)

    def register_written(self, register: int, value: int) -> None:
        if register == 0x11 and value & 0x04:  # software reset
            self.power_on()
        elif register in (0x10, 0x11):
            self.registers[register] = value

    def register_read(self, register: int) -> int:
        if self.registers[0x10] & 0x70:  # it measures
            data = self.pressure_raw.to_bytes(3, "little") + struct.pack("<h", self.temperature_raw)
            self.registers[0x28:0x2D] = data
        return self.registers[register]


class FakeAHT20(FakeI2CDevice):
    """Temperature and humidity: ``raw``, two numbers of 20 bits. It is busy until it is asked for once."""

    BUSY, CALIBRATED = 0x80, 0x08

    def __init__(self, humidity_raw: int, temperature_raw: int) -> None:
        self.raw = (humidity_raw, temperature_raw)
        self.power_on()

    def power_on(self) -> None:
        self._status = 0x10
        self._data = bytes(5)

    def write(self, data: bytes) -> None:
        match data:
            case b"":
                pass
            case b"\xba":
                self.power_on()
            case b"\xbe\x08\x00":
                self._status |= self.CALIBRATED
            case b"\xac\x33\x00":
                self._status |= self.BUSY
                humidity, temperature = self.raw
                self._data = (humidity << 20 | temperature).to_bytes(5)
            case _:
                raise NoAcknowledge

    def read(self, count: int) -> bytes:
        status, self._status = self._status, self._status & ~self.BUSY
        return (bytes([status]) + self._data).ljust(count, b"\xff")[:count]
