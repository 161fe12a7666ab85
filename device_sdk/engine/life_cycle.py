"""The life cycle of a client: its states and every transition between them, in one table.

The table is drawn in docs/architecture.md. The decisions that lead to a transition, and what it brings with
it, are in :mod:`~device_sdk.engine.reactions`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.errors import DeviceSdkError

__all__ = ["CLOSED", "CLOSING", "CONNECTED", "CONNECTING", "IDLE", "TRANSITIONS", "WAITING", "LifeCycle"]

#: The states of a client.
IDLE, CONNECTING, CONNECTED = "idle", "connecting", "connected"
WAITING, CLOSING, CLOSED = "waiting", "closing", "closed"

#: Trigger -> state before -> state after. A trigger that has no row for the present state changes nothing.
TRANSITIONS: dict[str, dict[str, str]] = {
    "start": {IDLE: CONNECTING, WAITING: CONNECTING},
    "accept": {CONNECTING: CONNECTED},
    "lose": {CONNECTING: WAITING, CONNECTED: WAITING},
    "begin_anew": {CONNECTING: CONNECTING},
    "replace": {CONNECTED: CONNECTING, CONNECTING: CONNECTING},
    "return": {CONNECTED: CONNECTING, CONNECTING: CONNECTING, WAITING: CONNECTING},
    "close": {IDLE: CLOSING, CONNECTING: CLOSING, CONNECTED: CLOSING, WAITING: CLOSING},
    "drop": {IDLE: IDLE, CONNECTING: IDLE, CONNECTED: IDLE, WAITING: IDLE, CLOSING: IDLE},
    "end": dict.fromkeys((IDLE, CONNECTING, CONNECTED, WAITING, CLOSING), CLOSED),
}


class LifeCycle:
    """The state of one client. A pure state machine: time is an argument. The engine's lock guards it.

    ``retry_at``: when a wait between two attempts ends. ``wants_return``: it is time to look whether the
    first server is back. ``last_error``: why there is no connection. ``outcome``: an event that is set when
    the present attempt has been accepted or has failed, ``None`` while nobody waits for it.
    """

    __slots__ = ("last_error", "outcome", "retry_at", "state", "wants_return")

    def __init__(self) -> None:
        self.state = IDLE
        self.retry_at: float | None = None
        self.wants_return = False
        self.last_error: DeviceSdkError | None = None
        self.outcome: Any = None

    def enter(self, trigger: str) -> bool:
        """Make a transition of the table; return whether there is one from the present state."""
        after = TRANSITIONS[trigger].get(self.state)
        if after is None:
            return False
        self.state = after
        return True

    def start(self) -> None:
        """Enter *connecting*, from *idle* or *waiting*."""
        if self.enter("start"):
            self.retry_at = None

    def on_deadline(self, now: float) -> None:
        """End a wait between attempts that is due."""
        if self.retry_at is not None and now >= self.retry_at:
            self.start()

    def accept(self) -> None:
        """Enter *connected*, forget the last error, and wake connect()."""
        self.enter("accept")
        self.last_error = None
        self.decide()

    def note_failure(self, error: DeviceSdkError) -> None:
        """Remember why there is no connection; the state changes in :meth:`wait`."""
        self.last_error = error
        self.wants_return = False

    def wait(self, delay: float, now: float) -> bool:
        """Enter *waiting* until ``delay`` seconds from now; return whether there will be another attempt."""
        if not self.enter("lose"):
            return False
        self.retry_at = now + delay
        return True

    def look_for_first(self) -> None:
        """Have the next attempt look whether the first server is back."""
        self.wants_return = True

    def begins_return(self) -> bool:
        """Whether the next attempt is that look; it is under way then."""
        wants, self.wants_return = self.wants_return, False
        return wants and self.state == CONNECTED

    def connect_to_first(self) -> None:
        """Enter *connecting* again: the stream to the first server is open."""
        self.enter("return")
        self.retry_at = None

    def close(self) -> None:
        """Enter *closing*: there is no other attempt."""
        self.enter("close")
        self.retry_at = None

    def end(self) -> None:
        """Enter *closed*, and wake connect()."""
        self.enter("end")
        self.decide()

    # The outcome of an attempt, for those who wait for it

    def want_outcome(self, new_event: Callable[[], Any]) -> Any:
        """Return what is set when the outcome of the present attempt is known."""
        if self.outcome is None:
            self.outcome = new_event()
        return self.outcome

    def forget_outcome(self) -> None:
        """Let nobody wait for the outcome of an attempt any more."""
        self.outcome = None

    def decide(self) -> None:
        """Wake those who wait for the outcome."""
        if self.outcome is not None:
            self.outcome.set()
