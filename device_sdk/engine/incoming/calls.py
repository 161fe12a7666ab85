"""Request and response: a publish that waits for the answer to it. Source: MQTT 5.0 §4.10.

All calls of a client share one response topic and one subscription to it; the correlation data tells the
responses apart. They are handed over where packets are read, before the queue for handlers: so a handler may
make a call although no other handler can run meanwhile.
"""

from __future__ import annotations

import os
from time import monotonic

from device_sdk._printable import printable
from device_sdk._weak import fresh
from device_sdk.engine.arguments import made_up_client_id
from device_sdk.errors import ArgumentError, DeliveryExpiredError, NotConnectedError, SubscribeRefused
from device_sdk.mqtt.message import Message, Subscription

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Container, Mapping
    from typing import Any

    from device_sdk.engine.consumers import Consumers
    from device_sdk.engine.events import Events
    from device_sdk.engine.incoming.subscribe_request import SubscribeRequest
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.protocol import Protocol

__all__ = ["Call", "Calls", "checked_properties", "response_topic"]

_OURS = ("response_topic", "correlation_data")
_NOT_IN_TOPIC_NAMES = str.maketrans("+#\0", "___")


def response_topic(client_id: str, response_information: str | None) -> str:
    """Return where this client wants its answers.

    The server's response information is the beginning, if it gave one. Source: MQTT 5.0 §3.2.2.3.14.
    """
    if response_information:
        return response_information.rstrip("/") + "/response"
    return "response/" + client_id.translate(_NOT_IN_TOPIC_NAMES)


class Call:
    """One request that waits, first for its subscription, then for its response. Made by :meth:`Calls.new`.

    ``woken`` is set for the response and for the end of the delivery. Methods take the lock themselves.
    """

    __slots__ = (
        "_calls", "_deadline", "_lock", "_timeout", "_topic",
        "correlation", "error", "properties", "response", "subscription", "where", "woken",
    )  # fmt: skip

    def __init__(
        self,
        lock: threading.RLock,
        calls: Calls,
        woken: Any,
        topic: str,
        timeout: float,
        properties: dict[str, Any],
        where: str,
        subscription: SubscribeRequest,
    ) -> None:
        self.woken = woken
        self.properties = properties
        self.where = where
        self.subscription = subscription
        self.correlation = b""
        self.response: Message | None = None
        self.error: DeviceSdkError | None = None
        self._lock = lock
        self._calls = calls
        self._topic = topic
        self._timeout = timeout
        self._deadline = monotonic() + timeout

    @property
    def left(self) -> float:
        """Seconds that are left to wait."""
        return self._deadline - monotonic()

    def not_asked(self, error: Exception) -> Exception:
        """Return what to raise when the subscription ended with ``error``."""
        if isinstance(error, SubscribeRefused):
            with self._lock:
                self._calls.forget_topic(self.where)  # a later call asks again
            return error
        problem = f"{self.where} was not subscribed to within {self._timeout:g} s{self.subscription.why}"
        return TimeoutError(printable(f"the request on {self._topic} was not sent: {problem}"))

    def begin(self) -> float:
        """Expect the response; return the expiry of the request, whose properties are complete now."""
        self.correlation = os.urandom(16)
        self.properties.update(response_topic=self.where, correlation_data=self.correlation)
        with self._lock:
            self._calls.expect(self)
        return max(0.001, self.left)

    def watch(self, delivery: Delivery) -> None:
        """Let the end of the delivery wake who waits for the response."""
        with self._lock:
            if not delivery.done:
                delivery.on_done = self.woken

    def is_over(self, delivery: Delivery) -> bool:
        """Whether there is nothing to wait for any more. Raises: what ended the delivery, or the client."""
        if self.response is not None:
            return True
        error = self.error or delivery.error
        if error is None or isinstance(error, DeliveryExpiredError):
            return error is not None
        raise fresh(error)

    def finish(self, response: Message | None, error: DeviceSdkError | None = None) -> None:
        """Hand over the response, or the end of the client. The caller holds the lock."""
        self.response = response
        self.error = error
        self.woken.set()

    def end(self) -> None:
        """Expect no response any more."""
        with self._lock:
            self._calls.no_longer_expect(self)

    def answer(self) -> Message:
        """Return the response. Raises: TimeoutError: there was none in time."""
        if self.response is None:
            raise TimeoutError(
                printable(f"no response to the request on {self._topic} within {self._timeout:g} s")
            )
        return self.response


class Calls:
    """The requests of one client that wait for their responses. The engine's lock guards every method."""

    __slots__ = ("_consumers", "_events", "_lock", "_name", "_pending", "_subscriptions")

    def __init__(self, lock: threading.RLock, consumers: Consumers, events: Events) -> None:
        self._lock = lock
        self._consumers = consumers
        self._events = events
        self._name = ""
        self._subscriptions: dict[str, SubscribeRequest] = {}
        self._pending: dict[bytes, Call] = {}

    def new(
        self,
        topic: str,
        timeout: float,
        properties: dict[str, Any],
        options: ConnectOptions,
        online: Protocol | None,
        wanted: Container[str],
        subscribe: Callable[[list[Subscription], None], SubscribeRequest],
    ) -> Call:
        """Return a call on ``topic``; ``subscribe`` to its response topic unless that is ``wanted`` already.

        Raises: NotConnectedError: the server was asked to choose the response topic, and ``online`` is none.
        """
        # Of the server's making, the client identifier comes with the first connection: too late for this.
        self._name = self._name or options.client_id or made_up_client_id()
        information = None
        if options.properties.get("request_response_information"):
            if online is None:
                raise NotConnectedError("request() needs a connection: the server chooses the response topic")
            information = online.server.get("response_information")
        where = response_topic(self._name, information)
        subscription = self._subscriptions.get(where)
        if subscription is None or where not in wanted:  # refused later, or unsubscribed
            subscription = self._subscriptions[where] = subscribe([Subscription(where, 1)], None)
        woken = self._consumers.event()
        return Call(self._lock, self, woken, topic, timeout, properties, where, subscription)

    @property
    def waiting(self) -> bool:
        """Whether a call waits for its response."""
        return bool(self._pending)

    def forget_topic(self, where: str) -> None:
        """Subscribe to this response topic again for the next call."""
        self._subscriptions.pop(where, None)

    def expect(self, call: Call) -> None:
        """Hand the response with this call's correlation data to it."""
        self._pending[call.correlation] = call

    def no_longer_expect(self, call: Call) -> None:
        """Report a response that comes from now on as unexpected."""
        self._pending.pop(call.correlation, None)

    def take(self, events: list[Any]) -> tuple[list[Any], int]:
        """Hand responses over; return the other events, and how many responses there were.

        The caller sends the acknowledgements.
        """
        others = []
        for event in events:
            if type(event) is not Message or event.topic not in self._subscriptions:
                others.append(event)
                continue
            event.handled = True
            call = self._pending.pop(event.correlation_data or b"", None)
            if call is None:
                text = f"{event!r} answers no request that waits: it came too late, or twice"
                self._events.notify("unexpected_response", text)
            else:
                call.finish(event)
        return others, len(events) - len(others)

    def close(self, error: DeviceSdkError) -> None:
        """End every call."""
        for call in self._pending.values():
            call.finish(None, error)
        self._pending.clear()


def checked_properties(properties: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the application's properties. Raises: ArgumentError: one of them is ours."""
    given = dict(properties or {})
    for name in _OURS:
        if name in given:
            raise ArgumentError("properties", f"{name} cannot be given here; request() chooses it")
    return given
