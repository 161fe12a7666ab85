"""One thread per bus, and another one when it hangs.

Sensors on one bus are read one after another, because all buses and most drivers require that; a slow or
dead sensor delays only those that share its bus. A call into a driver that is overdue is left behind with its
thread, with the driver object and with the bus, whose lock and descriptor it may have: a new thread opens the
bus again and goes on with new driver objects. What the old thread brings later is dropped.
"""

from __future__ import annotations

import math
import time
from functools import partial
from threading import Event, Thread
from typing import TYPE_CHECKING

from device_sdk._log import Log
from device_sdk.node.life_cycle import State
from device_sdk.node.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    from device_sdk.node.sensor import Device, Sensor
    from device_sdk.node.watch import Call

    Result = TypeVar("Result")

__all__ = ["MAX_HUNG", "Worker"]

MAX_HUNG = 3
"""So many threads of one bus may hang; with the last of them the bus has failed.

One sensor cannot use them up: see ``MAX_STUCK`` in :mod:`~device_sdk.node.life_cycle`.
"""

_ADVICE = "check supply and wires of the device, or give it a longer read_timeout"

log = Log("device_sdk.node")


class _LeftBehind(BaseException):
    """Ends a thread that was left behind in a call: another one has its sensors."""

    def __init__(self, call: Call, device: Device) -> None:
        super().__init__()
        self.call = call
        self.device = device


class Worker:
    """Reads the sensors of one bus, each when it is due, in a thread of its own.

    Args:
        name: of the bus, for the log and the thread.
        sensors: at least one.
        watch: tells of calls that are overdue; started and stopped by its owner.
        advice: by the name of a sensor, what to do if its calls hang; for the log.
        abandon_bus: called when a call hangs: what is opened on the bus from then on must be new.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        sensors: Sequence[Sensor],
        *,
        watch: Watch | None = None,
        advice: Mapping[str, str] | None = None,
        abandon_bus: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.sensors = tuple(sensors)
        self._watch = watch or Watch(clock)
        self._advice = advice or {}
        self._abandon_bus = abandon_bus
        self._clock = clock
        self._wake = Event()  # to stop, or because a call that hung has returned
        self._stopping = False
        self._over = False  # the bus has failed, and has no thread any more
        self._ended = False
        self._hung: list[tuple[Sensor, Call]] = []
        self._thread = self._new_thread()

    def step(self) -> float:
        """Run every sensor that is due, the longest overdue first; return the seconds until the next."""
        self._take_back()
        for sensor in sorted(self.sensors, key=lambda sensor: sensor.due):
            if sensor.due > self._clock() or self._stopping:
                break
            sensor.run(partial(self._call, sensor))
        return max(0.0, min(sensor.due for sensor in self.sensors) - self._clock())

    def start(self) -> None:
        """Start the thread; it opens the sensors at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the call in progress, and close its sensors. Any thread."""
        self._stopping = True
        self._wake.set()

    def join(self, timeout: float) -> bool:
        """Wait for the end; False if a driver hangs. The thread is a daemon and ends with the process.

        The threads that were left behind before are not waited for.
        """
        if not self._over:
            self._thread.join(timeout)
        return self._over or not self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether all its sensors have failed, and nothing on it is read. Any thread."""
        return all(sensor.state is State.FAILED for sensor in self.sensors)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended: a bus that has failed has not, its threads hang."""
        return not self._ended

    @property
    def hung(self) -> int:
        """How many threads hang in a driver at present."""
        return sum(not call.returned for _, call in self._hung)

    def _new_thread(self) -> Thread:
        return Thread(target=self._run, name=f"device-sdk {self.name}", daemon=True)

    def _run(self) -> None:
        try:
            while not self._stopping:
                left = self.step()
                self._wake.wait(None if left == math.inf else left)
                self._wake.clear()
            for sensor in self.sensors:
                sensor.end(partial(self._call, sensor))
        except _LeftBehind as left:
            left.device.close()
            left.call.returned = True
            self._wake.set()
        except BaseException:
            self._ended = True
            raise
        else:
            self._ended = True

    def _call(self, sensor: Sensor, device: Device, seconds: float, call: Callable[[], Result]) -> Result:
        """Make a call into a driver: a guard."""
        watched = self._watch.begin(seconds, partial(self._on_overdue, sensor, seconds))
        result = call()
        if not self._watch.end(watched):
            raise _LeftBehind(watched, device)
        return result

    def _take_back(self) -> None:
        """Tell the sensors whose calls have returned. The thread that has the sensors."""
        hung, self._hung = self._hung, []
        for sensor, call in hung:
            if call.returned:
                sensor.come_back()
            else:
                self._hung.append((sensor, call))

    def _on_overdue(self, sensor: Sensor, seconds: float, call: Call) -> None:
        """Go on without the thread that makes this call. The watch's thread; it has the sensors meanwhile."""
        self._take_back()
        self._hung.append((sensor, call))
        if self._stopping:
            return
        count = len(self._hung)
        if count >= MAX_HUNG:
            last = f"the last of sensor {sensor.name} in {call.place}"
            self._fail(f"{count} calls into drivers never returned, {last}", sensor)
            return
        self._abandon_bus()
        why = f"a call to its driver did not return within {seconds:g} s and hangs in {call.place}"
        going_on = f"another thread goes on with {self.name}, {count} of {MAX_HUNG} hang"
        sensor.hang(f"{why}; {going_on}; {self._advice_for(sensor)}")
        for other in self.sensors:
            if other is not sensor:
                other.move()
        thread = self._new_thread()
        try:
            thread.start()
            self._thread = thread
        except RuntimeError as error:
            self._fail(f"the system gives no thread for it ({error})", sensor)

    def _advice_for(self, sensor: Sensor) -> str:
        return self._advice.get(sensor.name, _ADVICE)

    def _fail(self, why: str, last: Sensor) -> None:
        self._over = True
        for sensor in self.sensors:
            sensor.fail()
        names = ", ".join(sensor.name for sensor in self.sensors)
        text = "%s has failed: %s. Offline until the node is restarted: %s. For %s: %s"
        log.warning(text, self.name, why, names, last.name, self._advice_for(last))
