"""Request and response: a publish that waits for the answer to it. Source: MQTT 5.0 §4.10.

All requests of a client share one response topic and one subscription to it; the correlation data tells the
answers apart. They are handed over where packets are read, before the queue for handlers: so a handler may
make a request although no other handler can run meanwhile.
"""

from __future__ import annotations

import os
from time import monotonic

from device_sdk.engine.arguments import made_up_client_id
from device_sdk.errors import ArgumentError, DeliveryExpiredError, NotConnectedError, SubscribeRefused
from device_sdk.mqtt.message import Message, Subscription

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.engine.router import Request
    from device_sdk.engine.subscriber import Subscriber
    from device_sdk.errors import DeviceSdkError

__all__ = ["Requests", "response_topic"]

_OURS = ("response_topic", "correlation_data")
_NOT_IN_TOPIC_NAMES = str.maketrans("+#\0", "___")


def response_topic(client_id: str, response_information: str | None) -> str:
    """Return where this client wants its answers.

    The server's response information is the beginning, if it gave one. Source: MQTT 5.0 §3.2.2.3.14.
    """
    if response_information:
        return response_information.rstrip("/") + "/response"
    return "response/" + client_id.translate(_NOT_IN_TOPIC_NAMES)


class _Pending:
    """One request that waits. ``woken`` is set for the response and for the end of the delivery."""

    __slots__ = ("correlation", "error", "response", "woken")

    def __init__(self, woken: Any) -> None:
        self.woken = woken
        self.correlation = os.urandom(16)
        self.response: Message | None = None
        self.error: DeviceSdkError | None = None

    def answer(self, topic: str, timeout: float) -> Message:
        """Return the response, or raise that there was none in time."""
        if self.response is None:
            raise TimeoutError(f"no response to the request on {topic} within {timeout:g} s")
        return self.response


class Requests:
    """The requests of one client that wait for their answers."""

    def __init__(
        self, engine: Subscriber, publish: Callable[..., Delivery], wake: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._publish = publish
        self._wake = wake
        self._name = ""
        self._subscriptions: dict[str, Request] = {}
        self._pending: dict[bytes, _Pending] = {}

    def take(self, events: list[Any]) -> tuple[list[Any], int]:
        """Hand responses over; return the other events, and how many responses there were.

        The caller holds the lock and sends the acknowledgements.
        """
        others = []
        for event in events:
            if type(event) is not Message or event.topic not in self._subscriptions:
                others.append(event)
                continue
            event.handled = True
            pending = self._pending.pop(event.correlation_data or b"", None)
            if pending is None:
                text = f"{event!r} answers no request that waits: it came too late, or twice"
                self._engine.notify("unexpected_response", text)
            else:
                pending.response = event
                pending.woken.set()
        return others, len(events) - len(others)

    def close(self, error: DeviceSdkError) -> None:
        """End every request. The caller holds the lock."""
        for pending in self._pending.values():
            pending.error = error
            pending.woken.set()
        self._pending.clear()

    def call(
        self, topic: str, payload: object, timeout: float, qos: int, properties: Mapping[str, Any] | None
    ) -> Message:
        """Publish a request and wait for its answer; see :meth:`Client.request`. Takes the lock itself."""
        deadline = monotonic() + timeout
        given = self.checked(properties)
        where, subscription = self.ask()
        try:
            subscription.wait(timeout)
        except (SubscribeRefused, TimeoutError) as error:
            raise self.not_asked(error, topic, where, timeout) from None
        pending = self.begin(given, where)
        try:
            left = max(0.001, deadline - monotonic())
            delivery = self._publish(topic, payload, qos=qos, expiry=left, properties=given)
            self.watch(pending, delivery)
            with self._engine.waiting:
                while not self.is_over(pending, delivery):
                    left = deadline - monotonic()
                    if left <= 0 or not pending.woken.wait(left):
                        break
                    pending.woken.clear()
        finally:
            self.end(pending)
        return pending.answer(topic, timeout)

    # The steps of a request; each takes the lock itself

    def checked(self, properties: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return a copy of the application's properties. Raises: ArgumentError: one of them is ours."""
        given = dict(properties or {})
        for name in _OURS:
            if name in given:
                raise ArgumentError("properties", f"{name} cannot be given here; request() chooses it")
        return given

    def ask(self) -> tuple[str, Request]:
        """Return the response topic, and the subscription that has to be answered before it is used."""
        engine = self._engine
        with engine.lock:
            # Of the server's making, the name comes with the first connection: too late for this topic.
            self._name = self._name or engine.options.client_id or made_up_client_id()
            where = response_topic(self._name, self._response_information())
            subscription = self._subscriptions.get(where)
            wake = False
            if subscription is None or where not in engine.router.wanted:  # refused later, or unsubscribed
                subscription = engine.subscribe([Subscription(where, 1)], None)
                self._subscriptions[where] = subscription
                wake = engine.unpark()
        if wake:
            self._wake()
        return where, subscription

    def not_asked(self, error: Exception, topic: str, where: str, timeout: float) -> Exception:
        """Return what to raise when the subscription of :meth:`ask` failed with ``error``."""
        if isinstance(error, SubscribeRefused):
            with self._engine.lock:
                self._subscriptions.pop(where, None)  # a later request asks again
            return error
        problem = f"{where} was not subscribed to within {timeout:g} s"
        return TimeoutError(f"the request on {topic} was not sent: {problem}")

    def begin(self, given: dict[str, Any], where: str) -> _Pending:
        """Expect a response; ``given`` becomes the properties of the request."""
        pending = _Pending(self._engine.waiting.event())
        given.update(response_topic=where, correlation_data=pending.correlation)
        with self._engine.lock:
            self._pending[pending.correlation] = pending
        return pending

    def end(self, pending: _Pending) -> None:
        """Expect it no more."""
        with self._engine.lock:
            self._pending.pop(pending.correlation, None)

    def watch(self, pending: _Pending, delivery: Delivery) -> None:
        """Let the end of the delivery wake who waits for the response."""
        with self._engine.lock:
            if not delivery.done:
                delivery.on_done = pending.woken

    def is_over(self, pending: _Pending, delivery: Delivery) -> bool:
        """Whether there is nothing to wait for any more. Raises: what ended the delivery, or the client."""
        if pending.response is not None:
            return True
        error = pending.error or delivery.error
        if error is None or isinstance(error, DeliveryExpiredError):
            return error is not None
        raise error

    def _response_information(self) -> str | None:
        if not self._engine.options.properties.get("request_response_information"):
            return None
        connection = self._engine.connection()
        if connection is None:
            raise NotConnectedError("request() needs a connection: the server chooses the response topic")
        information: str | None = connection.server.get("response_information")
        return information
