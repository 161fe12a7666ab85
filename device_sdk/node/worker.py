"""One thread per bus, and the life of a sensor on it.

Sensors on one bus are read one after another, because all buses and most drivers require that; a slow or
dead sensor delays only those that share its bus.
"""

from __future__ import annotations

import time
from enum import StrEnum
from threading import Event, Thread
from typing import TYPE_CHECKING

from device_sdk._folding import Folding, without_numbers
from device_sdk._log import Log
from device_sdk.errors import DeviceNotFoundError, DeviceSdkError, DriverError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_sdk.drivers import Driver, Reading
    from device_sdk.node.schedule import Schedule

__all__ = ["FIRST_RETRY_S", "LONGEST_RETRY_S", "REOPEN_AFTER", "Sensor", "State", "Worker"]

REOPEN_AFTER = 3
"""Reads in a row that may fail before the sensor is closed and opened again."""

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
"""The wait before a sensor is opened again doubles from the first to the longest."""

log = Log("device_sdk.node")


class State(StrEnum):
    """The state of a sensor. ``ok`` and ``degraded`` are published as ``online``."""

    ABSENT = "absent"
    OPENING = "opening"
    OK = "ok"
    DEGRADED = "degraded"
    BACKOFF = "backoff"


ONLINE = frozenset({State.OK, State.DEGRADED})


class Sensor:
    """One sensor: its schedule and its state. One thread at a time, that of its bus.

    ::

        absent ──> opening ──> ok <──> degraded        ok: the last read gave values
                      ^         └─────────┤            degraded: the last one or two reads failed
                      │                   v
                      └──────── absent or backoff      closed; opened again after 1, 2, 4 ... 30 s

    ``absent``: no device at the address; ``backoff``: a device that does not work. The first successful read
    after opening is a sample like any other.

    Args:
        name: for the log.
        make_driver: called when it is opened for the first time; may raise like the rest.
        schedule: when to read it.
        on_readings: called with each sample, at least one reading.
        on_online: called with whether the sensor is online, when that changes.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        make_driver: Callable[[], Driver],
        schedule: Schedule,
        *,
        on_readings: Callable[[tuple[Reading, ...]], object],
        on_online: Callable[[bool], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.state = State.ABSENT
        self.schedule = schedule
        self._make_driver = make_driver
        self._on_readings = on_readings
        self._on_online = on_online
        self._clock = clock
        self._driver: Driver | None = None
        self._is_open = False
        self._failures = 0  # reads in a row
        self._attempts = 0  # to open it, in a row
        self._retry_at = clock()
        self._told: tuple[State, str] | None = None
        self._folding = Folding(log, clock)

    @property
    def due(self) -> float:
        """When to call :meth:`run`: the next tick, or the next attempt to open the device."""
        return self.schedule.next if self._is_open else self._retry_at

    def run(self) -> None:
        """Read the sensor, after opening it if it is closed. Errors are logged, never raised."""
        self.schedule.advance(self._clock())
        try:
            readings = self._read()
            self._on_readings(readings)
            _check_any_measured(readings)
        except Exception as error:
            self._failed(error)
        else:
            self._failures = self._attempts = 0
            self._enter(State.OK)

    def close(self) -> None:
        """Close the driver. Never raises."""
        self._is_open = False
        if self._driver is not None:
            try:
                self._driver.close()
            except Exception as error:
                why = _words(error)
                self._warn("closing", why, "sensor %s: closing it failed: %s", why)

    def end(self) -> None:
        """Close the driver for good, and log the sums of what the log left out."""
        self.close()
        self._folding.sum_up()

    def _read(self) -> tuple[Reading, ...]:
        if self._driver is None:
            self._driver = self._make_driver()
        if not self._is_open:
            self._enter(State.OPENING)
            self._driver.open()
            self._is_open = True
        readings = self._driver.read()
        if not readings:
            raise DriverError("it gave no readings")
        return readings

    def _failed(self, error: Exception) -> None:
        log.debug("sensor %s", self.name, error=error)
        self._failures += 1
        absent = isinstance(error, DeviceNotFoundError)
        if self.state in ONLINE and not absent and self._failures < REOPEN_AFTER:
            self._enter(State.DEGRADED, _words(error))
            return
        self.close()
        wait = min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._attempts, 16))
        self._attempts += 1
        self._failures = 0
        self._retry_at = self._clock() + wait
        self._enter(State.ABSENT if absent else State.BACKOFF, _words(error))

    def _enter(self, state: State, why: str = "") -> None:
        """Change the state and log it once, not again for each attempt that fails in the same way.

        One that comes and goes is logged as a fault that repeats.
        """
        was_online, self.state = self.state in ONLINE, state
        if (state in ONLINE) != was_online:
            self._on_online(state in ONLINE)
        news = (state, why)
        if state is State.OPENING or news == self._told:
            log.debug("sensor %s: %s%s", self.name, state, why and f": {why}")
            return
        if state is State.OK:
            log.info("sensor %s: %s", self.name, state)
            self._told = news
        elif self._warn(state, why, "sensor %s: %s%s", state, why and f": {why}"):
            self._told = news

    def _warn(self, kind: str, why: str, text: str, *values: object) -> bool:
        """Log a fault that can repeat. Returns: whether the line was written."""
        return self._folding.warning(kind, without_numbers(why), text, self.name, *values)


class Worker:
    """Reads the sensors of one bus, each when it is due, in a thread of its own."""

    def __init__(
        self, name: str, sensors: Sequence[Sensor], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.sensors = tuple(sensors)
        self._clock = clock
        self._stopping = Event()
        self._thread = Thread(target=self._run, name=f"device-sdk {name}", daemon=True)

    def step(self) -> float:
        """Run every sensor that is due, the longest overdue first; return the seconds until the next."""
        for sensor in sorted(self.sensors, key=lambda sensor: sensor.due):
            if sensor.due > self._clock() or self._stopping.is_set():
                break
            sensor.run()
        return max(0.0, min(sensor.due for sensor in self.sensors) - self._clock())

    def start(self) -> None:
        """Start the thread; it opens the sensors at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the read in progress, and close its sensors. Any thread."""
        self._stopping.set()

    def join(self, timeout: float) -> bool:
        """Wait for the end; False if a driver hangs. The thread is a daemon and ends with the process."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._stopping.wait(self.step())
        finally:
            for sensor in self.sensors:
                sensor.end()


def _check_any_measured(readings: tuple[Reading, ...]) -> None:
    """Raise DriverError for a sample in which every channel is bad; it was published like any other."""
    if all(reading.quality == "bad" for reading in readings):
        reason = readings[0].reason
        raise DriverError("no channel could be measured" + (f": {reason}" if reason else ""))


def _words(error: Exception) -> str:
    """Return an error in one line; an unexpected one with its type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, DeviceSdkError) and text else f"{type(error).__name__}: {text}"
