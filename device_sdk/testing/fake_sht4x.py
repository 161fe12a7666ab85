"""A Sensirion SHT4x without hardware: commands, CRC, missing acknowledges as on the real chip."""

from __future__ import annotations

from device_sdk.testing.fake_i2c import FakeI2CDevice, NoAcknowledge

__all__ = ["FakeSHT4x", "crc8"]

# Without heater at high, medium, low precision; with heater at 200, 110, 20 mW for 1 s and for 0.1 s.
_MEASURE = frozenset({0xFD, 0xF6, 0xE0, 0x39, 0x32, 0x2F, 0x24, 0x1E, 0x15})
_READ_SERIAL = 0x89
_SOFT_RESET = 0x94


class FakeSHT4x(FakeI2CDevice):
    """An SHT40 whose measurements are set by the test; they take no time.

    Units: ``temperature`` degrees Celsius, -45 to 130; ``humidity`` %RH, -6 to 119: the ends of the raw
    values, as on the real chip. Both may be set at any time.

    Source: Sensirion SHT4x datasheet, sections 4.3 to 4.6.
    """

    def __init__(
        self, temperature: float = 20.0, humidity: float = 50.0, serial_number: int = 0x12345678
    ) -> None:
        self.temperature = temperature
        self.humidity = humidity
        self.serial_number = serial_number
        self._answer = b""
        self._corrupt = 0

    def corrupt_crc(self, count: int = 1) -> None:
        """Send the next ``count`` answers with a wrong checksum."""
        self._corrupt = count

    def power_on(self) -> None:
        """Forget a measurement that was not read."""
        self._answer = b""

    def write(self, data: bytes) -> None:
        """Take a command of one byte; an unknown one is not acknowledged."""
        if not data:
            return
        command = data[0]
        if command in _MEASURE:
            self._answer = _word(_raw(self.temperature, -45, 175)) + _word(_raw(self.humidity, -6, 125))
        elif command == _READ_SERIAL:
            self._answer = _word(self.serial_number >> 16) + _word(self.serial_number & 0xFFFF)
        elif command == _SOFT_RESET:
            self.power_on()
        else:
            raise NoAcknowledge

    def read(self, count: int) -> bytes:
        """Return the answer to the last command, once; without one there is no acknowledge."""
        if not self._answer:
            raise NoAcknowledge
        answer = bytearray(self._answer)
        self._answer = b""
        if self._corrupt:
            self._corrupt -= 1
            answer[2] ^= 0xFF
        return bytes(answer[:count]).ljust(count, b"\xff")


def crc8(data: bytes) -> int:
    """Return the checksum of Sensirion's sensors: polynomial 0x31, start 0xFF; 0x92 for BE EF."""
    crc = 0xFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1) ^ (0x131 if crc & 0x80 else 0)
    return crc


def _word(value: int) -> bytes:
    data = value.to_bytes(2, "big")
    return data + bytes([crc8(data)])


def _raw(value: float, low: float, span: float) -> int:
    return min(max(round((value - low) * 0xFFFF / span), 0), 0xFFFF)
