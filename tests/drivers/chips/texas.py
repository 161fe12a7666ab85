"""Texas Instruments' chips: a pointer, and registers of 16 bits, the high byte first.

Sources: ADS1115 data sheet SBAS444E, sections 7.5 and 8; INA219 data sheet SBOS448G, sections 8.5 and 8.6;
TMP117 data sheet SNOSD82D, sections 7.3 to 7.6.
"""

from __future__ import annotations

from collections.abc import Callable

from device_sdk.testing.fake_i2c import FakeWordDevice


class FakeADS1115(FakeWordDevice):
    """Four inputs, ``volts``; a conversion begins with the bit OS and ends when it is asked for once."""

    FULL_SCALE = (6.144, 4.096, 2.048, 1.024, 0.512, 0.256, 0.256, 0.256)
    PAIRS = ((0, 1), (0, 3), (1, 3), (2, 3), (0, None), (1, None), (2, None), (3, None))

    def __init__(self, *volts: float) -> None:
        self.volts = [*volts, 0.0, 0.0, 0.0, 0.0][:4]
        super().__init__()

    def power_on(self) -> None:
        self.words = {0: 0x0000, 1: 0x8583, 2: 0x8000, 3: 0x7FFF}

    def word_written(self, register: int, value: int) -> None:
        self.words[register] = value
        if register == 1 and value & 0x8000:
            positive, negative = self.PAIRS[value >> 12 & 7]
            volts = self.volts[positive or 0] - (0 if negative is None else self.volts[negative])
            code = round(volts / self.FULL_SCALE[value >> 9 & 7] * 32768)
            self.words[0] = min(max(code, -32768), 32767) & 0xFFFF
            self.words[1] = value & 0x7FFF  # it converts

    def word_read(self, register: int) -> int:
        value = self.words[register]
        if register == 1:
            self.words[1] |= 0x8000
        return value


class FakeINA219(FakeWordDevice):
    """Voltage of a bus and of a shunt resistor; power and current only with a calibration.

    The defaults are the example of the data sheet's section 8.5.2: 11.98 V, 20 mV.
    """

    def __init__(self, bus_volts: float = 11.98, shunt_volts: float = 0.020) -> None:
        self.bus_volts = bus_volts
        self.shunt_volts = shunt_volts
        super().__init__()

    def power_on(self) -> None:
        self.words = {0: 0x399F, 5: 0x0000}

    def word_written(self, register: int, value: int) -> None:
        if register == 0 and value & 0x8000:
            self.power_on()
        elif register in (0, 5):
            self.words[register] = value & (0xFFFE if register == 5 else 0xFFFF)

    def word_read(self, register: int) -> int:
        shunt = round(self.shunt_volts / 10e-6)
        bus = round(self.bus_volts / 4e-3)
        current = shunt * self.words[5] // 4096
        measured = {1: shunt, 2: bus << 3 | 0b10, 3: current * bus // 5000, 4: current}
        return ({**self.words, **measured}[register]) & 0xFFFF


class FakeTMP117(FakeWordDevice):
    """Temperature: ``word``, in steps of 7.8125 millidegrees; -256 until it has converted, for 1 s."""

    def __init__(self, clock: Callable[[], float], word: int = 0x0C80) -> None:
        self.word = word
        self._clock = clock
        super().__init__()

    def power_on(self) -> None:
        self.words = {0: 0x8000, 1: 0x0220, 2: 0x6000, 3: 0x8000, 7: 0x0000, 15: 0x0117}
        self.ready_at = self._clock() + 1.0

    def word_written(self, register: int, value: int) -> None:
        if register == 1 and value & 0x0002:  # soft reset
            self.power_on()
        elif register == 1:
            self.words[1] = value & 0x0FFC
        elif register in (2, 3, 7):
            self.words[register] = value

    def word_read(self, register: int) -> int:
        if self._clock() >= self.ready_at:
            self.words[0] = self.word
            self.words[1] |= 0x2000  # data ready
            self.ready_at = self._clock() + 1.0
        value = self.words[register]
        if register in (0, 1):
            self.words[1] &= ~0x2000  # reading either clears it
        return value
