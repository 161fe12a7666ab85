"""A sensor that does what the test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from device_sdk.drivers import Channel, Driver, Reading
from device_sdk.testing.fake_bme280 import FakeBME280
from device_sdk.testing.fake_i2c import FakeI2CBus

CHANNEL = Channel("temperature", "Cel", "of the test")


def reading(value: float | None = 21.5, quality: str = "good", reason: str = "") -> Reading:
    return Reading("temperature", value, "Cel", 1000.25, quality, reason)  # type: ignore[arg-type]


GOOD = (reading(),)
BAD = (reading(None, "bad", "no value"),)


class FakeDriver(Driver):
    """Plays a script: each ``open()`` and ``read()`` takes the next step of its own list.

    A step is an exception to raise, a function to call, or the readings; without steps all is well.
    """

    def __init__(self, opens: Iterable[object] = (), reads: Iterable[object] = ()) -> None:
        self.opens = list(opens)
        self.reads = list(reads)
        self.calls: list[str] = []

    def channels(self) -> tuple[Channel, ...]:
        return (CHANNEL,)

    def open(self) -> None:
        self.calls.append("open")
        _play(self.opens)

    def read(self) -> tuple[Reading, ...]:
        self.calls.append("read")
        return _play(self.reads)

    def close(self) -> None:
        self.calls.append("close")


def _play(script: list[object]) -> tuple[Reading, ...]:
    step = script.pop(0) if script else GOOD
    if isinstance(step, Exception):
        raise step
    if callable(step):
        step()
        return GOOD
    assert isinstance(step, tuple)
    return step


BEHAVIOUR: dict[str, Callable[[], object]] = {}
"""What the sensors of :func:`measure` do; without an entry all is well."""


def measure(name: str) -> object:
    """For ``driver = "function"``: give a temperature, or do what the test wants instead."""
    return BEHAVIOUR.get(name, lambda: {"temperature": 21.5})()


def climate_bus() -> FakeI2CBus:
    """For ``bus = "fake:tests.node.fakes:climate_bus"``: a bus with a BME280."""
    bus = FakeI2CBus()
    bus.add(0x76, FakeBME280(temperature=21.5))
    return bus
