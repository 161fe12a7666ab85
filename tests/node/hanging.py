"""Drivers that hang where a test wants it, on a bus with a worker of its own; the clock is the test's."""

from __future__ import annotations

import queue
from collections.abc import Callable
from threading import Event, Thread, current_thread
from threading import enumerate as all_threads
from typing import NamedTuple

from device_sdk.drivers import Channel, Driver, Reading
from device_sdk.node.schedule import Schedule
from device_sdk.node.sensor import Sensor
from device_sdk.node.watch import Watch
from device_sdk.node.worker import Worker
from device_sdk.testing import ManualClock
from tests.node.fakes import CHANNEL, reading

PATIENCE_S = 10.0


class Hang:
    """A step of a driver that does not end before :meth:`end`."""

    def __init__(self) -> None:
        self.begun = Event()
        self._released = Event()
        self._thread = current_thread()

    def __call__(self) -> None:
        self._thread = current_thread()
        self.begun.set()
        assert self._released.wait(60), "the test has forgotten it"

    def end(self) -> None:
        """Let it end, and wait for the thread, which has been left behind."""
        self._released.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


class Call(NamedTuple):
    """What a test's driver does, and where: the sensor, which of its driver objects, the method."""

    sensor: str
    number: int
    method: str


class Bus:
    """A bus with sensors, each of which has a driver object after the other.

    ``steps``: what happens in a call, else it works. ``samples``: sensor and number of the driver object.
    """

    def __init__(self, *names: str, name: str = "i2c-1", interval: float = 0.01) -> None:
        self.clock = ManualClock()
        self.watch = Watch(self.clock)
        self.steps: dict[Call, Callable[[], object]] = {}
        self.calls: list[Call] = []
        self.samples: queue.Queue[tuple[str, int]] = queue.Queue()
        self.online: dict[str, bool] = dict.fromkeys(names, False)
        self.abandoned = 0
        self.made = dict.fromkeys(names, 0)
        self.worker = Worker(
            name,
            [self._sensor(each, interval) for each in names],
            watch=self.watch,
            abandon_bus=self._abandon,
            clock=self.clock,
        )

    def sensor(self, name: str) -> Sensor:
        return next(each for each in self.worker.sensors if each.name == name)

    def hang(self, sensor: str, method: str, number: int = 1) -> Hang:
        """Let this call hang."""
        hang = Hang()
        self.steps[Call(sensor, number, method)] = hang
        return hang

    def overdue(self, hang: Hang, seconds: float = 31) -> None:
        """Wait until the call hangs, and let its time pass."""
        assert hang.begun.wait(PATIENCE_S)
        self.clock.advance(seconds)
        self.watch.step()

    def sample_of(self, wanted: tuple[str, int]) -> None:
        """Wait for a sample of this sensor by this driver object."""
        while self.samples.get(timeout=PATIENCE_S) != wanted:
            pass

    def drain(self) -> set[tuple[str, int]]:
        """Return what was sampled meanwhile."""
        found = set()
        while not self.samples.empty():
            found.add(self.samples.get())
        return found

    def play(self, sensor: str, number: int, method: str) -> object:
        call = Call(sensor, number, method)
        self.calls.append(call)
        return self.steps.get(call, lambda: None)()

    def stop(self) -> None:
        """Stop the worker; whatever hangs has to be released before."""
        self.worker.stop()
        assert self.worker.join(PATIENCE_S)
        for thread in self.threads():
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def threads(self) -> list[Thread]:
        return [each for each in all_threads() if each.name == f"device-sdk {self.worker.name}"]

    def _abandon(self) -> None:
        self.abandoned += 1

    def _sensor(self, name: str, interval: float) -> Sensor:
        def make() -> Driver:
            self.made[name] += 1
            number = self.made[name]
            self.play(name, number, "make")
            return _Driver(self, name, number)

        def take(readings: tuple[Reading, ...], _: float) -> None:
            self.samples.put((name, int(str(readings[0].value))))

        return Sensor(
            name,
            make,
            Schedule(interval, self.clock()),
            on_readings=take,
            on_online=lambda online: self.online.update({name: online}),
            clock=self.clock,
        )


class _Driver(Driver):
    def __init__(self, bus: Bus, sensor: str, number: int) -> None:
        self._bus, self._sensor, self._number = bus, sensor, number

    def channels(self) -> tuple[Channel, ...]:
        return (CHANNEL,)

    def open(self) -> None:
        self._bus.play(self._sensor, self._number, "open")

    def read(self) -> tuple[Reading, ...]:
        result = self._bus.play(self._sensor, self._number, "read")
        return (reading(self._number),) if result is None else result  # type: ignore[return-value]

    def close(self) -> None:
        self._bus.play(self._sensor, self._number, "close")
