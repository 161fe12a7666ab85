"""Sensirion's sensors: a command is two bytes, every word of two bytes has a CRC behind it.

Sources: Sensirion SCD4x data sheet 1.5, sections 3.4 to 3.7; SGP40 data sheet 1.2, section 4; SHT3x-DIS data
sheet 7, section 4.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

from device_sdk.testing.fake_i2c import FakeI2CDevice, NoAcknowledge
from device_sdk.testing.fake_sht4x import crc8


class SensirionDevice(FakeI2CDevice):
    """Takes commands with their words, and sends words. ``corrupt_crc``: answers that come damaged."""

    def __init__(self) -> None:
        self.corrupt_crc = 0
        self._answer = b""
        self.power_on()

    def power_on(self) -> None:
        """Forget an answer that was not read."""
        self._answer = b""

    @abstractmethod
    def command(self, code: int, words: list[int]) -> Sequence[int]:
        """Carry out a command and return the words of its answer. Raises: NoAcknowledge: not this one."""

    def write(self, data: bytes) -> None:
        if not data:
            return
        words = [data[at : at + 3] for at in range(2, len(data), 3)]
        if len(data) < 2 or any(len(word) != 3 or crc8(word[:2]) != word[2] for word in words):
            raise NoAcknowledge
        answer = self.command(int.from_bytes(data[:2]), [int.from_bytes(word[:2]) for word in words])
        self._answer = b"".join(with_crc(word) for word in answer)

    def read(self, count: int) -> bytes:
        if not self._answer:
            raise NoAcknowledge
        answer = bytearray(self._answer[:count].ljust(count, b"\xff"))
        self._answer = b""
        if self.corrupt_crc:
            self.corrupt_crc -= 1
            answer[2] ^= 0xFF
        return bytes(answer)


def with_crc(word: int) -> bytes:
    data = word.to_bytes(2)
    return data + bytes([crc8(data)])


class FakeSCD41(SensirionDevice):
    """CO2, temperature, humidity every 5 s once it is started; ``words`` are those of read_measurement.

    The default is the example of the data sheet: 500 ppm, 25 degrees Celsius, 37 %RH.
    """

    PERIOD_S = 5.0
    WHILE_MEASURING = frozenset({0xEC05, 0xE4B8, 0x3F86, 0xE000})

    def __init__(self, clock: Callable[[], float]) -> None:
        self.words = [0x01F4, 0x6667, 0x5EB9]
        self._clock = clock
        super().__init__()

    def power_on(self) -> None:
        super().power_on()
        self.next: float | None = None  # the end of the measurement that is going on

    def command(self, code: int, words: list[int]) -> Sequence[int]:
        if self.next is not None and code not in self.WHILE_MEASURING:
            raise NoAcknowledge
        match code:
            case 0x21B1:  # start_periodic_measurement
                self.next = self._clock() + self.PERIOD_S
            case 0x3F86:  # stop_periodic_measurement
                self.next = None
            case 0xE4B8:  # get_data_ready_status: not ready if the lower 11 bits are 0
                return [0x8006 if self._is_ready() else 0x8000]
            case 0xEC05:  # read_measurement: no acknowledge of the read without data
                if not self._is_ready():
                    return []
                self.next = self._clock() + self.PERIOD_S
                return self.words
            case 0x3682:  # get_serial_number
                return [0xF896, 0x9F07, 0x3BBE]
            case _:
                raise NoAcknowledge
        return []

    def _is_ready(self) -> bool:
        return self.next is not None and self._clock() >= self.next


class FakeSGP40(SensirionDevice):
    """Raw signal of volatile organic compounds. ``compensation``: the words of the last command."""

    def __init__(self, raw: int = 30_000) -> None:
        self.raw = raw
        self.compensation: tuple[int, ...] = ()
        super().__init__()

    def command(self, code: int, words: list[int]) -> Sequence[int]:
        match code:
            case 0x3682:
                return [0x0000, 0x0123, 0x4567]
            case 0x202F:  # feature set: product type 0x32
                return [0x3220]
            case 0x280E:  # sgp40_execute_self_test: all tests passed
                return [0xD400]
            case 0x260F:  # sgp40_measure_raw_signal
                self.compensation = tuple(words)
                return [self.raw]
        raise NoAcknowledge


class FakeSHT31(SensirionDevice):
    """Temperature and humidity by a single shot with high repeatability, without clock stretching."""

    def __init__(self, temperature_word: int, humidity_word: int) -> None:
        self.words = [temperature_word, humidity_word]
        super().__init__()

    def command(self, code: int, words: list[int]) -> Sequence[int]:
        match code:
            case 0x3093 | 0x30A2:  # break, soft reset
                return []
            case 0x2400:
                return self.words
        raise NoAcknowledge
