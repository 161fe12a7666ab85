"""The events of one test, in one file: faults, the log of the DUT, messages at the broker.

Each line is a JSON object::

    {"time":1.204113,"source":"serial_line","kind":"unplug","data":{}}

``time`` is in seconds since the timeline began, monotonic. Every event that the rig waits for is recorded
here, so there is one way to wait: :meth:`Timeline.wait_until`.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass
from threading import Condition
from typing import TYPE_CHECKING, Any

from device_sdk._printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Event", "Fault", "Timeline"]

# Number of events in the report of a failed test; the file has all of them.
_LAST_EVENTS = 40


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``time`` in seconds since the timeline began."""

    time: float
    source: str
    kind: str
    data: dict[str, Any]

    def __str__(self) -> str:
        data = " ".join(f"{name}={value}" for name, value in self.data.items())
        return printable(f"{self.time:9.3f}  {self.source:<12} {self.kind:<10} {data}".rstrip())


class Fault:
    """A fault that the rig injected. A test in which it had no effect proves nothing, and ends as an error.

    The rig looks for the effect by itself if it can; a test that observes it calls :meth:`seen`.
    """

    def __init__(self, timeline: Timeline, event: Event, effect: Callable[[], bool], expected: str) -> None:
        self.event = event
        self.expected = expected
        self._timeline = timeline
        self._effect = effect
        self._is_effective: bool | None = None

    def seen(self, what: str) -> None:
        """Note that the fault had this effect: the rig need not find one."""
        self._conclude(True, seen=what)

    def conclude(self) -> bool:
        """Look for the effect now, unless it is known already; return whether there was one."""
        if self._is_effective is None:
            self._conclude(self._effect())
        return bool(self._is_effective)

    def __str__(self) -> str:
        return f"{self.event.source}.{self.event.kind} at {self.event.time:.3f} s: expected {self.expected}"

    def _conclude(self, is_effective: bool, **data: object) -> None:
        self._is_effective = is_effective
        kind = "effect" if is_effective else "no effect"
        self._timeline.record(self.event.source, kind, of=self.event.kind, at=self.event.time, **data)


class Timeline:
    """Records events in a file as they happen. All methods may be called from any thread.

    Args:
        path: the file; it is written at once, line by line, so that nothing is lost with a crash.
        patience: seconds that :meth:`wait_until` waits by default.
    """

    def __init__(self, path: Path, patience: float = 20.0) -> None:
        self.path = path
        self.patience = patience
        self.faults: list[Fault] = []
        self._last: deque[Event] = deque(maxlen=_LAST_EVENTS)
        self._changed = Condition()
        self._start = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8", buffering=1)

    def record(self, source: str, kind: str, **data: Any) -> Event:
        """Record an event, and wake the threads in :meth:`wait_until`."""
        with self._changed:
            event = Event(round(time.monotonic() - self._start, 6), source, kind, data)
            self._last.append(event)
            if not self._file.closed:
                fields = {"time": event.time, "source": source, "kind": kind, "data": data}
                self._file.write(json.dumps(fields, default=str) + "\n")
            self._changed.notify_all()
        return event

    def mark(self, text: str) -> Event:
        """Record a remark of the test."""
        return self.record("test", "mark", text=text)

    def fault(
        self, source: str, kind: str, *, effect: Callable[[], bool], expected: str, **data: Any
    ) -> Fault:
        """Record a fault that the rig injects now.

        Args:
            effect: called later, at the end of the test at the latest; returns whether there was an effect.
            expected: that effect in words, for the error if there was none.
        """
        fault = Fault(self, self.record(source, kind, **data), effect, expected)
        self.faults.append(fault)
        return fault

    def wait_until(
        self, predicate: Callable[[], object], what: str = "", timeout: float | None = None
    ) -> None:
        """Wait until a predicate holds; it is called after each event.

        It runs with the timeline locked: it must not wait for another thread.

        Args:
            what: in words, for the error.
            timeout: seconds; ``None``: the rig's patience.

        Raises: TimeoutError: it does not hold in time.
        """
        timeout = self.patience if timeout is None else timeout
        with self._changed:
            if not self._changed.wait_for(predicate, timeout):
                raise TimeoutError(
                    printable(f"waited {timeout:g} s in vain for {what or 'a condition of the test'}")
                )

    def last_events(self) -> str:
        """Return the latest events as a text for people."""
        with self._changed:
            return "\n".join(map(str, self._last))

    def without_effect(self) -> list[Fault]:
        """Return the faults without a visible effect. Call it at the end of the test."""
        return [fault for fault in self.faults if not fault.conclude()]

    def close(self) -> None:
        """Close the file; later events are not written to it."""
        with self._changed:
            self._file.close()
