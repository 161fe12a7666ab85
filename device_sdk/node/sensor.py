"""One sensor: its driver object, its schedule and its state.

Every call into a driver goes through a *guard*, because it may never return: then the thread that made it is
left behind with the driver object, and another thread goes on with the sensor. So what such a thread touches
in the call is a :class:`Device`, and nothing of the :class:`Sensor`.
"""

from __future__ import annotations

import errno
import termios
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from device_sdk._clock import boottime
from device_sdk._folding import Folding, without_numbers
from device_sdk._log import Log
from device_sdk.errors import DeviceNotFoundError, DeviceSdkError, DriverError
from device_sdk.node.life_cycle import CLOSE, HOLD, HOLD_S, ONLINE, RENEW, LifeCycle, State
from device_sdk.node.readings import Taken, checked

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.drivers import Driver, Reading
    from device_sdk.node.schedule import Schedule

    Result = TypeVar("Result")

    class Guard(Protocol):
        """Makes a call to a device that may take so many seconds, and returns what the call returned."""

        def __call__(self, device: Device, seconds: float, call: Callable[[], Result]) -> Result:
            """Raises: what ends the thread, if it was left behind meanwhile."""


__all__ = ["OPEN_TIMEOUT_S", "READ_TIMEOUT_S", "Device", "Failure", "Sensor", "unguarded"]

READ_TIMEOUT_S = 30.0
OPEN_TIMEOUT_S = 30.0
"""Opening and closing a device may take so long at least: the first opening imports its driver."""

# An error with one of these means that the device, or the adapter in front of it, was pulled out: the open
# file keeps its name from whoever is plugged in next, ttyUSB0 would come back as ttyUSB1.
_GONE = {errno.ENODEV: "vanish", errno.ENXIO: "vanish", errno.EIO: "give_up"}
_MAX_CAUSES = 10  # an exception may be its own cause
_DAY_S = 86_400.0
_AGAIN = {
    State.BACKOFF: f"it is tried again when that returns, or in {HOLD_S / 60:g} minutes",
    State.FAILED: "one before still hangs, so it is tried again when both have returned",
}

log = Log("device_sdk.node")


class Failure(NamedTuple):
    """Why a call to a driver gave nothing: the event of the life cycle, and the reason in one line."""

    event: str
    why: str


def unguarded(device: Device, seconds: float, call: Callable[[], Result]) -> Result:
    """Make a call to a device that has all the time of the world: a guard."""
    return call()


class Device:
    """A driver object: to be made, opened, read and closed, in this order. One thread at a time.

    Its methods never raise: a driver may raise anything, ``SystemExit`` too.
    """

    __slots__ = ("_driver", "_make", "_name", "is_open")

    def __init__(self, name: str, make: Callable[[], Driver]) -> None:
        self.is_open = False
        self._name = name
        self._make = make
        self._driver: Driver | None = None

    @property
    def is_made(self) -> bool:
        """Whether there is a driver object."""
        return self._driver is not None

    def make(self) -> Failure | None:
        """Make the driver, if there is none."""
        try:
            if self._driver is None:
                self._driver = self._make()
        except BaseException as error:
            return self._failure(error)
        return None

    def open(self) -> Failure | None:
        """Open the driver."""
        try:
            self._made().open()
        except BaseException as error:
            return self._failure(error)
        self.is_open = True
        return None

    def read(self, uptime: Callable[[], float]) -> Taken | Failure:
        """Read the open driver once."""
        try:
            now = uptime()
            return Taken(checked(self._made().read()), now)
        except BaseException as error:
            return self._failure(error)

    def close(self) -> Failure | None:
        """Close the driver, open or not."""
        self.is_open = False
        try:
            if self._driver is not None:
                self._driver.close()
        except BaseException as error:
            return self._failure(error)
        return None

    def _made(self) -> Driver:
        if self._driver is None:
            raise DriverError("there is no driver")
        return self._driver

    def _failure(self, error: BaseException) -> Failure:
        # In here, because its text and its cause are the driver's code as well.
        try:
            log.debug("sensor %s", self._name, error=error)
            return Failure(_event(error), _words(error))
        except BaseException:
            return Failure("miss", "an exception that cannot be shown")


class Sensor:
    """One sensor: its schedule and its state. One thread at a time, that of its bus.

    The first successful read after opening is a sample like any other.

    Args:
        name: for the log.
        make_driver: makes the driver object; may raise like the rest. Called again after a call that never
            returned.
        schedule: when to read it.
        on_readings: called with each sample, at least one reading, and with the ``CLOCK_BOOTTIME`` in
            seconds just before it was read.
        on_online: called with whether the sensor is online, when that changes.
        place: driver, bus and address, for the log.
        read_timeout: seconds that one read may take; opening may take 30 s if that is more.
        clock, uptime: seconds, monotonic; the second goes on in suspend.
    """

    def __init__(
        self,
        name: str,
        make_driver: Callable[[], Driver],
        schedule: Schedule,
        *,
        on_readings: Callable[[tuple[Reading, ...], float], object],
        on_online: Callable[[bool], object],
        place: str = "",
        read_timeout: float = READ_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
        uptime: Callable[[], float] = boottime,
    ) -> None:
        self.name = name
        self.schedule = schedule
        self._make_driver = make_driver
        self._on_readings = on_readings
        self._on_online = on_online
        self._place = place and f" ({place})"
        self._read_timeout = read_timeout
        self._clock = clock
        self._uptime = uptime
        self._life = LifeCycle(clock())
        self._device = Device(name, make_driver)
        self._moved: list[Device] = []  # to be closed: the bus under them was left behind
        self._told: tuple[State, str] | None = None
        # Failed reads of a sensor that is online; attempts at one that is not, which is told within an hour.
        self._glitches = Folding(log, clock, growth=10, again=_DAY_S, quiet=_DAY_S)
        self._outages = Folding(log, clock, quiet=_DAY_S)

    @property
    def state(self) -> State:
        """The state of the sensor."""
        return self._life.state

    @property
    def due(self) -> float:
        """When to call :meth:`run`: the next tick, or the next attempt to open the device."""
        return self.schedule.next if self.state in ONLINE else self._life.retry_at

    def run(self, guard: Guard = unguarded) -> None:
        """Read the sensor, after opening it if it is closed. Errors are logged, never raised."""
        self.schedule.advance(self._clock())
        self._close_moved(guard)
        self._enter("open")
        device = self._device
        opening = max(self._read_timeout, OPEN_TIMEOUT_S)
        calls: list[tuple[float, Callable[[], Taken | Failure | None]]] = []
        if not device.is_open:
            calls = [(opening, device.make), (opening, device.open)]
        calls.append((self._read_timeout, partial(device.read, self._uptime)))
        for seconds, call in calls:
            outcome = guard(device, seconds, call)
            if outcome is not None:
                break
        if isinstance(outcome, Taken):
            outcome = self._hand_over(outcome)
        if outcome is None:
            self._enter("measure")
        elif CLOSE in self._enter(*outcome):
            self._close(device, guard)

    def hang(self, why: str) -> None:
        """Leave the driver to the thread that hangs in it; it is made and opened anew after a while.

        With the second thread that hangs the sensor has failed, until both return.
        """
        if RENEW in self._enter("hang", why):
            self._device = Device(self.name, self._make_driver)

    def come_back(self) -> None:
        """Note that a call has returned that :meth:`hang` was about."""
        self._enter("return", "its call has returned")

    def move(self) -> None:
        """Make the driver object anew: a call of another sensor hangs on the bus that it has open."""
        step = self._life.enter("move", self._clock())
        if step is not None and RENEW in step.actions and self._device.is_made:
            self._moved.append(self._device)
            self._device = Device(self.name, self._make_driver)

    def fail(self) -> None:
        """Give the sensor up: its bus has failed. The worker says why."""
        was_online = self.state in ONLINE
        self._life.enter("fail", self._clock())
        if was_online:
            self._on_online(False)

    def close(self, guard: Guard = unguarded) -> None:
        """Close the driver. Never raises."""
        self._close_moved(guard)
        self._close(self._device, guard)

    def end(self, guard: Guard = unguarded) -> None:
        """Close the driver for good, and log the sums of what the log left out."""
        self.close(guard)
        self._glitches.sum_up()
        self._outages.sum_up()

    def _close_moved(self, guard: Guard) -> None:
        while self._moved:
            self._close(self._moved.pop(), guard)

    def _close(self, device: Device, guard: Guard) -> None:
        failure = guard(device, OPEN_TIMEOUT_S, device.close)
        if failure is not None:
            text = "sensor %s: closing it failed: %s"
            self._glitches.warning("closing", without_numbers(failure.why), text, self.name, failure.why)

    def _hand_over(self, taken: Taken) -> Failure | None:
        """Hand a sample over; one in which every channel is bad is a failed read all the same."""
        try:
            self._on_readings(*taken)
        except Exception as error:
            log.debug("sensor %s", self.name, error=error)
            return Failure("miss", _words(error))
        if all(reading.quality == "bad" for reading in taken.readings):
            reason = taken.readings[0].reason
            return Failure("miss", "no channel could be measured" + (f": {reason}" if reason else ""))
        return None

    def _enter(self, event: str, why: str = "") -> tuple[str, ...]:
        """Make a transition, and log a change of state once: not for each attempt that fails in the same way.

        One that comes and goes is logged as a fault that repeats.
        """
        was_online = self.state in ONLINE
        step = self._life.enter(event, self._clock())
        if step is None:
            return ()
        state = step.state
        if (state in ONLINE) != was_online:
            self._on_online(state in ONLINE)
        self._tell(state, f"{why}; {_AGAIN[state]}" if HOLD in step.actions else why)
        return step.actions

    def _tell(self, state: State, why: str) -> None:
        news = (state, why)
        fault = (state, without_numbers(why))
        text, values = "sensor %s: %s: %s%s", (self.name, state, why, self._place)
        if state is State.OPENING:
            log.debug("sensor %s: %s", self.name, state)
        elif state is State.OK:
            if news != self._told:
                log.info("sensor %s: %s", self.name, state)
                self._told = news
        elif state is State.DEGRADED:
            if self._glitches.warning(*fault, text, *values):
                self._told = news
        elif news == self._told:
            self._outages.count(*fault)
        elif self._outages.warning(*fault, text, *values):
            self._told = news


def _event(error: BaseException) -> str:
    """Return the event that an exception of a driver is."""
    if isinstance(error, DeviceNotFoundError):
        return "vanish"
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            break
        code = cause.args[0] if isinstance(cause, termios.error) and cause.args else None
        code = cause.errno if isinstance(cause, OSError) else code
        if isinstance(code, int) and code in _GONE:
            return _GONE[code]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "miss"


def _words(error: BaseException) -> str:
    """Return an error in one line; an unexpected one with its type, and with what to do."""
    text = " ".join(str(error).split())
    if isinstance(error, DeviceSdkError) and text:
        return text
    return f"{type(error).__name__}: {text}; --log-level debug shows where"
