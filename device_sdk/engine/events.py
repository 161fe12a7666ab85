"""The reports of a client: events as they happen, counters, and the list from which the callbacks run."""

from __future__ import annotations

from time import monotonic

from device_sdk._folding import Folding, without_numbers
from device_sdk._log import Log
from device_sdk._printable import printable
from device_sdk.engine.connecting.back_off import NEVER, SOON

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["ClientEvent", "Events", "Reporter", "Stats", "failure_text"]

_EXPECTED = frozenset({"cancelled", "connected", "disconnected", "session_lost", "auth", "store_recovered"})
_COUNTED = frozenset({"skipped"})  # the 1st, 2nd, 4th, 8th ... is an event, with the sum
_BUGS = frozenset({"handler_failed", "internal_error"})  # a traceback helps only with these

log = Log("device_sdk.engine")


class ClientEvent:
    """Something an operator may want to know: ``kind`` (a word), ``text`` (a sentence), ``error`` or None.

    ``text`` is one line that is safe to show; ``str(error)`` is too, if it is a :class:`DeviceSdkError`.
    ``value``: machine-readable detail (the server reference, a number of messages, or the address for
    ``connected``), else None; a text is exactly what the server sent.

    Kinds: ``connected``, ``disconnected``, ``connect_failed``, ``session_lost``, ``dropped``, ``expired``,
    ``refused``, ``cancelled``,
    ``suspect`` (a message or a topic filter for which the server may end connections; the topic or the filter
    is the value),
    ``will_refused`` (the broker takes CONNECT without the will only; its topic is the value),
    ``postponed`` (a message exceeded the broker's quota, and is published again later; its topic is the
    value), ``held`` (messages are beyond a limit of this broker, and wait), ``no_birth``, ``no_farewell``
    (this connection has none, its topic is the value), ``subscribe_refused``,
    ``handler_failed``, ``no_handler``, ``store_failed``, ``store_recovered``, ``store_replaced`` (its file
    was damaged and set aside, or removed), ``store_damaged`` (parts are not what was written, and are left
    out), ``shelf_full`` (messages on its shelf were deleted, their number is the value), ``auth``,
    ``server_reference`` (MQTT 5.0 §4.11, never followed by itself), ``unexpected_response`` (to a request
    that no longer waits), ``invalid_payload`` (received as text, and is not),
    ``reading_paused`` (too many messages without the program's acknowledgement; the 1st, 2nd, 4th ...),
    ``version`` (the broker has refused MQTT 5.0, and the client goes on in the value: ``version=None``),
    ``skipped`` (a received message that is not delivered; the 1st, 2nd, 4th ...),
    ``internal_error`` (a mistake in this package: the connection was ended and a new one is tried).
    """

    __slots__ = ("error", "kind", "text", "value")

    def __init__(
        self, kind: str, text: str, error: BaseException | None = None, value: str | None = None
    ) -> None:
        self.kind = kind
        self.text = printable(text)
        self.error = error
        self.value = value

    def __repr__(self) -> str:
        return f"ClientEvent({self.kind!r}, {self.text!r})"


class Stats:
    """Counters since the client was made, and five gauges.

    Gauges: ``queued`` messages and ``queued_bytes`` that wait, ``held`` messages among these and those in
    flight that the connected broker cannot take now, ``in_flight`` messages sent and not finished,
    ``acks_held`` received messages whose acknowledgement waits for a handler. ``dropped`` counts outgoing
    messages, ``discarded`` received ones of QoS 0, ``skipped`` received ones that could not be delivered.
    """

    acknowledged: int
    acks_held: int
    bytes_received: int
    bytes_sent: int
    cancelled: int
    connects: int
    discarded: int
    dropped: int
    expired: int
    held: int
    in_flight: int
    published: int
    queued: int
    queued_bytes: int
    received: int
    reconnects: int
    refused: int
    skipped: int

    __slots__ = tuple(__annotations__)

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    def copy(self) -> Stats:
        """Return the present values as an object of their own."""
        copy = Stats()
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        return copy

    def __repr__(self) -> str:
        return f"Stats({', '.join(f'{name}={getattr(self, name)}' for name in self.__slots__)})"


class Reporter:
    """Takes events to the log and to ``on_event``. Runs where callbacks run, without the lock.

    ``on_event`` gets each event. The log gets few lines of those that repeat, see
    :class:`~device_sdk._folding.Folding`.
    """

    __slots__ = ("_folding", "_written", "on_event")

    def __init__(
        self, on_event: Callable[[ClientEvent], object] | None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.on_event = on_event
        self._folding = Folding(log, clock)
        self._written = ""  # the last line about the connection in the log

    def report(self, event: ClientEvent) -> object:
        """Log one event and return the result of ``on_event``. Never raises."""
        self._log(event)
        if self.on_event is None:
            return None
        try:
            return self.on_event(event)
        except BaseException as error:
            self.hook_failed(event, error)
            return None

    def hook_failed(self, event: ClientEvent, error: BaseException) -> None:
        """Log that ``on_event`` raised. Only that: an event about it would fail in the same way, for ever."""
        text = "on_event raised for the event %s"
        self._folding.warning("on_event", _place_of(error), text, event.kind, error=error)

    def sum_up(self, _: object = None) -> None:
        """Log the sums of what was left out."""
        self._folding.sum_up()

    def _log(self, event: ClientEvent) -> None:
        kind, error = event.kind, event.error
        if kind == "connected":
            self._log_connected(event)
            return
        if kind in _COUNTED:
            log.warning("%s: %s", kind, event.text)
            return
        bug = error if kind in _BUGS else None
        detail = _place_of(bug) if bug is not None else "" if error is None else without_numbers(str(error))
        if kind in _EXPECTED or (kind == "connect_failed" and getattr(error, "retry", SOON) != NEVER):
            written = self._folding.info(kind, detail, "%s: %s", kind, event.text)
        else:
            written = self._folding.warning(kind, detail, "%s: %s", kind, event.text, error=bug)
        if written and kind in ("disconnected", "connect_failed"):
            self._written = kind

    def _log_connected(self, event: ClientEvent) -> None:
        """Log it unless the log says so already; with the sums of the time before."""
        if self._written != event.kind:
            self._written = event.kind
            log.info("%s: %s", event.kind, event.text)
            self._folding.sum_up()


class Events:
    """The work of the callback side, in the order in which it came up, and the counters beside it.

    An item of ``queue`` is a received :class:`~device_sdk.mqtt.message.Message` or a pair (callable,
    argument), which the callback side runs without the lock; ``append`` adds one. The engine's lock guards
    everything here.
    """

    __slots__ = ("append", "queue", "reporter", "stats")

    def __init__(self, on_event: Callable[[ClientEvent], object] | None = None) -> None:
        self.stats = Stats()
        self.reporter = Reporter(on_event)
        self.queue: list[Any] = []
        self.append = self.queue.append  # not a method of ours: it runs once per received message

    def take(self) -> list[Any]:
        """Return the items and empty the queue."""
        taken = self.queue.copy()
        self.queue.clear()
        return taken

    def end(self) -> None:
        """Queue the last of the reports. The caller holds the lock."""
        self.append((self.reporter.sum_up, None))

    def notify(
        self, kind: str, text: str, error: BaseException | None = None, value: str | None = None
    ) -> None:
        """Queue an event for the log and ``on_event``, which must not run here: the caller holds the lock."""
        self.append((self.reporter.report, ClientEvent(kind, text, error, value)))


def failure_text(function: object, error: BaseException) -> str:
    """Return the sentence for a handler that raised; its ``__repr__`` and ``__str__`` may fail as well."""
    try:
        name = getattr(function, "__qualname__", None) or repr(function)
        return f"{name} raised {type(error).__name__}: {error}"
    except Exception:
        return f"a {type(function).__name__} raised {type(error).__name__}"


def _place_of(error: BaseException) -> str:
    """Return kind and place of an exception: what makes two of them the same mistake."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    place = "" if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"
    return f"{type(error).__name__} {place}"
