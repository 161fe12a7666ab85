"""Ambient light sensors.

Sources: Vishay VEML7700 data sheet 84286, registers, and its table of resolutions; ams TSL2591 data sheet
DS000338, registers.
"""

from __future__ import annotations

from device_sdk.testing.fake_i2c import FakeRegisterDevice, FakeWordDevice


class FakeVEML7700(FakeWordDevice):
    """Light in lux; low byte first. It is switched off until the bit SD is cleared."""

    byte_order = "little"

    # Gain and integration time, as in the register -> lux per count, from the table of the data sheet.
    RESOLUTION = {
        (0b01, 0b0011): 0.0042,
        (0b00, 0b0000): 0.0672,
        (0b11, 0b0000): 0.2688,
        (0b10, 0b0000): 0.5376,
    }

    def __init__(self, lux: float) -> None:
        self.lux = lux
        super().__init__()

    def power_on(self) -> None:
        self.words = {0: 0x0001, 1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0xC481}

    def word_read(self, register: int) -> int:
        conf = self.words[0]
        if register in (4, 5) and not conf & 1:
            resolution = self.RESOLUTION[conf >> 11 & 3, conf >> 6 & 15]
            self.words[register] = min(round(self.lux / resolution), 0xFFFF)
        return self.words[register]


class FakeTSL2591(FakeRegisterDevice):
    """Counts of two diodes. The first byte of a command has the bits 101, the others are the register."""

    def __init__(self, full: int, infrared: int, chip_id: int = 0x50) -> None:
        self.full = full
        self.infrared = infrared
        self.chip_id = chip_id
        super().__init__()

    def power_on(self) -> None:
        self.registers[:] = bytes(256)
        self.registers[0x12] = self.chip_id

    def write(self, data: bytes) -> None:
        if data and data[0] >> 5 == 0b101:
            super().write(bytes([data[0] & 0x1F, *data[1:]]))

    def register_read(self, register: int) -> int:
        counts = self.full.to_bytes(2, "little") + self.infrared.to_bytes(2, "little")
        if 0x14 <= register <= 0x17 and self.registers[0] & 0b11 == 0b11:  # powered, and measuring
            return counts[register - 0x14]
        return self.registers[register]
