"""Lets samples through to the queue: in order, and with their time if anything can give it.

While the time is not known, samples wait. They go on when it becomes known; without a time when the patience
is over, when the waiting room is full, or when they are of an earlier start of the machine: nothing will ever
tell when that was.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from device_sdk._clock import boot_id, boottime
from device_sdk._log import Log
from device_sdk.errors import DeviceSdkError, QueueFullError
from device_sdk.node.encode import encode_json
from device_sdk.node.sample import pack

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk import Delivery
    from device_sdk.node.clock.waiting_room import WaitingRoom
    from device_sdk.node.clock.wall_clock import WallClock
    from device_sdk.node.sample import Sample

    Publish = Callable[[Sample, bytes], Delivery]

__all__ = ["Gate", "Hooks"]

# How often the clock is looked at while samples wait, and after the patience is over.
_SOON_S, _LATER_S = 1.0, 10.0
# The gate's thread may take this long to end.
_JOIN_S = 2.0

log = Log("device_sdk.node")


class Hooks(NamedTuple):
    """What the gate calls. ``publish``: with a sample and its payload, may raise DeviceSdkError; ``on_lost``:
    with a sample that waited and cannot be published; ``on_time``: once, when the time becomes known after
    the start, with whether samples went on without it. ``is_durable``: whether the queue has a file.
    """

    publish: Publish
    on_lost: Callable[[Sample, DeviceSdkError], object]
    on_time: Callable[[bool], object]
    is_durable: bool


class Gate:
    """Between the sensors and the queue. :meth:`put`, :meth:`offer` and :meth:`stop`: any thread.

    It has a thread while samples wait or the time is not known, and none afterwards.

    Args:
        wait: seconds after the start that samples wait for the time; ``math.inf``: for ever.
        uptime, boot: of this machine.
    """

    def __init__(
        self,
        clock: WallClock,
        room: WaitingRoom,
        hooks: Hooks,
        wait: float,
        *,
        uptime: Callable[[], float] = boottime,
        boot: str | None = None,
    ) -> None:
        self._clock = clock
        self._room = room
        self._hooks = hooks
        self._wait = wait
        self._uptime = uptime
        self._boot = boot_id() if boot is None else boot
        self._patient_until = math.inf
        self._without_time = 0
        self._arrived: deque[tuple[Sample, bytes]] = deque()
        self._lock = threading.Lock()  # over the two that follow
        self._is_open = False
        self._stopping = False
        self._gave_up = False
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Let samples through from now on."""
        if not self.begin():
            self._thread = threading.Thread(target=self._run, name="device-sdk clock", daemon=True)
            self._thread.start()

    def begin(self) -> bool:
        """Count the patience from now on, and return whether nothing has to wait. For :meth:`start`.

        With a file something may wait in it, and only the thread looks: the disk may hang.
        """
        known = self._clock.look()
        self._patient_until = self._uptime() + self._wait
        self._is_open = not self._hooks.is_durable and (known or not self._wait)
        if not known and not self._wait:
            log.info("the clock is not known to be right: samples have no time until it is")
        elif not known:
            wait = "for as long as it takes" if self._wait == math.inf else f"up to {self._wait:g} s"
            advice = "'timedatectl' shows who sets it; wait = 0 in [clock] waits for nobody"
            log.warning("the clock is not known to be right: samples wait %s for the time; %s", wait, advice)
        return known and self._is_open

    def put(self, sample: Sample) -> None:
        """Take a sample.

        Raises: DeviceSdkError: the queue did not take it, or no more can wait. ValueError, TypeError: a value
        cannot be encoded.
        """
        if not self._is_open:
            body = pack(sample)
            with self._lock:
                if not self._is_open:
                    self._arrived.append((sample, body))
                    self._wake.set()
                    return
        self._publish(sample)

    def offer(self, utc: float, uptime: float, source: str) -> bool:
        """As :meth:`WallClock.offer`, and let go on what waits."""
        self._clock.look()  # the kernel's clock may be right by now
        taken = self._clock.offer(utc, uptime, source)
        if taken and self._thread is not None:
            self._wake.set()
        return taken

    def step(self) -> float | None:
        """Move the samples that may go on. For the thread, and tests.

        Returns: seconds to the next step, sooner after a :meth:`put`; ``None``: it was the last.
        """
        known = self._clock.look()
        self._take_in()
        self._release(known)
        self._room.settle()
        if not self._open_if_empty(known):
            return _SOON_S
        if not known:
            self._tell_patience()
            return _LATER_S
        return None if self._room.is_settled else _SOON_S

    def stop(self) -> None:
        """End the thread. What still waits stays in its file; without one it goes on without a time."""
        self._stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        self._room.open(wanted=not self._clock.look())
        wait: float | None = 0.0
        known = self._clock.source
        while wait is not None and not self._stopping:
            self._wake.clear()
            wait = self.step()
            if self._clock.source != known and not known:
                known = self._clock.source
                self._tell_time()
            if wait is not None:
                self._wake.wait(wait)
        self._end()

    def _end(self) -> None:
        self._take_in()
        if not self._room.keeps:
            self._patient_until = -math.inf
        self._release(self._clock.look())
        if len(self._room):
            waits = "%d samples wait in their file for the time, or for room in the queue"
            text = waits if self._room.keeps else "%d samples are lost: the queue is full"
            log.warning(text, len(self._room))
        with self._lock:
            self._is_open = True
        self._room.close()

    def _take_in(self) -> None:
        while self._arrived:
            sample, body = self._arrived.popleft()
            self._room.add(sample, body)

    def _release(self, known: bool) -> None:
        while len(self._room) and (known or self._may_go_without_time()):
            sample = self._room.head
            try:
                delivery = self._publish(sample)
            except QueueFullError:
                return  # it keeps its place, and the queue is asked again
            except DeviceSdkError as error:
                self._hooks.on_lost(sample, error)
                self._room.leave(None)
            else:
                self._room.leave(delivery if self._hooks.is_durable and sample.qos else None)

    def _may_go_without_time(self) -> bool:
        is_old = self._room.head.boot != self._boot
        return is_old or self._room.is_over or self._uptime() >= self._patient_until

    def _open_if_empty(self, known: bool) -> bool:
        """Open the gate for good if nothing waits and nothing has to."""
        with self._lock:
            if not self._is_open and not len(self._room) and not self._arrived:
                self._is_open = known or self._uptime() >= self._patient_until
            return self._is_open

    def _publish(self, sample: Sample) -> Delivery:
        utc = self._clock.utc(sample.uptime) if sample.boot == self._boot else None
        delivery = self._hooks.publish(sample, encode_json(sample, utc))
        if utc is None and sample.boot == self._boot:
            self._without_time += 1
        return delivery

    def _tell_patience(self) -> None:
        if self._wait and not self._gave_up:
            self._gave_up = True
            log.warning("%g s have passed: samples go without a time until it is known", self._wait)

    def _tell_time(self) -> None:
        text = "the time is known now, from %s; %d samples went without it"
        log.info(text, self._clock.source, self._without_time)
        self._hooks.on_time(self._without_time > 0)
