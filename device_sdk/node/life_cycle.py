"""The life cycle of a sensor: its states and every transition between them, in one table.

The table is drawn in docs/node.md. :mod:`~device_sdk.node.sensor` does what a transition asks for.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

__all__ = [
    "CLOSE",
    "FIRST_RETRY_S",
    "FORGET",
    "FREE",
    "HOLD",
    "HOLD_S",
    "LONGEST_RETRY_S",
    "MAX_STUCK",
    "ONLINE",
    "RENEW",
    "REOPEN_AFTER",
    "TRANSITIONS",
    "WAIT",
    "LifeCycle",
    "State",
    "Step",
]

REOPEN_AFTER = 3
"""Reads in a row that may fail before the sensor is closed and opened again."""

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 30.0
"""The wait before a sensor is opened again doubles from the first to the longest."""

MAX_STUCK = 2
"""So many calls of one sensor may hang at a time; with the last of them the sensor has failed."""

HOLD_S = 600.0
"""Seconds until a sensor is opened again whose call hangs, if the call does not return before."""


class State(StrEnum):
    """The state of a sensor. ``ok`` and ``degraded`` are published as ``online``."""

    ABSENT = "absent"
    OPENING = "opening"
    OK = "ok"
    DEGRADED = "degraded"
    BACKOFF = "backoff"
    FAILED = "failed"


class Step(NamedTuple):
    """A state, and what is to be done on the way to it."""

    state: State
    actions: tuple[str, ...] = ()


#: What a transition asks for: to close the driver; to wait before the next attempt to open it; to leave the
#: driver object to whom it belongs, and make another one; to forget the failures before; to try nothing
#: while a call hangs; to end that.
CLOSE, WAIT, RENEW, FORGET, HOLD, FREE = "close", "wait", "renew", "forget", "hold", "free"

_ALIVE = (State.ABSENT, State.OPENING, State.OK, State.DEGRADED, State.BACKOFF)
_IN_USE = (State.OPENING, State.OK, State.DEGRADED)

ONLINE = frozenset({State.OK, State.DEGRADED})

#: Event -> state before -> step. An event that has no row for the present state changes nothing.
TRANSITIONS: dict[str, dict[State, Step]] = {
    "open": dict.fromkeys((State.ABSENT, State.BACKOFF), Step(State.OPENING)),
    "measure": dict.fromkeys(_IN_USE, Step(State.OK, (FORGET,))),
    "miss": {
        State.OPENING: Step(State.BACKOFF, (CLOSE, WAIT)),
        State.OK: Step(State.DEGRADED),
        State.DEGRADED: Step(State.DEGRADED),
    },
    "give_up": dict.fromkeys(_IN_USE, Step(State.BACKOFF, (CLOSE, WAIT))),
    "vanish": dict.fromkeys(_IN_USE, Step(State.ABSENT, (CLOSE, WAIT))),
    "hang": dict.fromkeys(_ALIVE, Step(State.BACKOFF, (RENEW, WAIT, HOLD))),
    "stick": dict.fromkeys(_ALIVE, Step(State.FAILED, (RENEW, WAIT, HOLD))),
    "return": dict.fromkeys((State.BACKOFF, State.FAILED), Step(State.BACKOFF, (FREE,))),
    "move": {state: Step(state, (RENEW,)) for state in _ALIVE},
    "fail": dict.fromkeys(_ALIVE, Step(State.FAILED, (RENEW, HOLD))),
}


class LifeCycle:
    """The state of one sensor. A pure state machine: time is an argument; one thread at a time."""

    __slots__ = ("_attempts", "_failures", "_held_until", "_hung", "_retry_at", "state")

    def __init__(self, now: float) -> None:
        self.state = State.ABSENT
        self._retry_at = now
        self._held_until = now
        self._failures = 0  # reads in a row
        self._attempts = 0  # to open it, in a row
        self._hung = 0  # calls that hang at present

    @property
    def retry_at(self) -> float:
        """When a sensor that is not in use is opened again; infinite: not before a ``return``."""
        return max(self._retry_at, self._held_until)

    def enter(self, event: str, now: float) -> Step | None:
        """Make a transition of the table and return it, ``None`` if there is none from the present state.

        The third ``miss`` in a row is ``give_up``; a second ``hang`` before the ``return`` of the first is
        ``stick``. A ``return`` counts when it is that of the last call that hangs.
        """
        if event == "miss":
            self._failures += 1
            event = "give_up" if self._failures >= REOPEN_AFTER else event
        elif event == "hang" and self.state in _ALIVE:
            self._hung += 1
            event = "stick" if self._hung >= MAX_STUCK else event
        elif event == "return":
            was, self._hung = self._hung, max(0, self._hung - 1)
            if was != 1:
                return None
        step = TRANSITIONS[event].get(self.state)
        if step is None:
            return None
        self.state = step.state
        if WAIT in step.actions:
            self._retry_at = now + min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(self._attempts, 16))
            self._attempts += 1
        if HOLD in step.actions:
            self._held_until = math.inf if step.state is State.FAILED else now + HOLD_S
        if FREE in step.actions:
            self._held_until = now
        if FORGET in step.actions:
            self._failures = self._attempts = 0
        return step
