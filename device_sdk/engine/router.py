"""What comes in: the wanted subscriptions, their handlers, and the pull inbox."""

from __future__ import annotations

import threading
from collections import deque

from device_sdk.errors import ClosedError, SubscribeRefused
from device_sdk.mqtt.codes import reason_name
from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.topics import FilterTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from device_sdk.engine.identifiers import Identifiers
    from device_sdk.engine.waiting import Waiting
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.message import Message
    from device_sdk.mqtt.protocol import Protocol

    Handler = Callable[[Message], object]

__all__ = ["Inbox", "Request", "Router"]

_ROUTE_CACHE_SIZE = 1_000
_FILTERS_PER_PACKET = 50  # keeps a SUBSCRIBE far below every broker's packet limit


class Request:
    """A SUBSCRIBE or UNSUBSCRIBE and its answer; it is sent as soon as there is a connection.

    ``reason_codes`` holds, once done, one code per topic filter: the granted QoS, or 0x80 and above.
    """

    __slots__ = ("_done", "_waiting", "error", "reason_codes", "subscriptions", "topic_filters")

    def __init__(
        self, subscriptions: list[Subscription] | None, topic_filters: list[str], waiting: Waiting
    ) -> None:
        self.subscriptions = subscriptions  # None: unsubscribe
        self.topic_filters = topic_filters
        self.reason_codes: list[int] = []
        self.error: DeviceSdkError | None = None
        self._done: Any = waiting.event()
        self._waiting = waiting

    @property
    def done(self) -> bool:
        """Whether the broker has answered, or never will."""
        return bool(self._done.is_set())

    def wait(self, timeout: float | None = None) -> list[int]:
        """Wait for the broker's answer and return its reason codes. Any thread.

        Raises: TimeoutError: no answer within ``timeout`` seconds. SubscribeRefused: at least one topic
        filter was refused. ClosedError: the client was closed before.
        """
        with self._waiting:
            self._done.wait(timeout)
        return self.answer(timeout)

    def answer(self, timeout: float | None) -> list[int]:
        """Return or raise what :meth:`wait` does, after a wait of ``timeout`` seconds."""
        if not self.done:
            raise TimeoutError(f"no answer for {', '.join(self.topic_filters)} within {timeout:g} s")
        if self.error is not None:
            raise self.error
        return self.reason_codes

    def finish(self, reason_codes: list[int], error: DeviceSdkError | None = None) -> None:
        """Store the answer and wake who waits. For the engine."""
        self.reason_codes = reason_codes
        self.error = error
        self._done.set()


class Inbox:
    """A bounded queue of messages for programs that pull; an iterator that ends when the client is closed.

    Reading from the network pauses while the program is behind, so nothing is dropped. A QoS 1 or 2 message
    counts as handled when the next one is asked for. Several threads may share it.
    """

    def __init__(self, on_handled: Callable[[Message], None], waiting: Waiting) -> None:
        self._messages: deque[Message] = deque()
        self._ready = threading.Condition(threading.Lock())
        self._on_handled = on_handled
        self._waiting = waiting
        self._taken = threading.local()
        self._closed = False

    def put(self, message: Message) -> None:
        """Append a message. For the engine."""
        with self._ready:
            self._messages.append(message)
            self._ready.notify()

    def close(self) -> None:
        """End the iteration once the messages that are there have been taken. For the engine."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def get(self, timeout: float | None = None) -> Message:
        """Return the next message.

        Raises: TimeoutError: none within ``timeout`` seconds. ClosedError: the client is closed.
        """
        self._waiting.consume()
        self._finish_last()
        with self._ready:
            if not self._ready.wait_for(lambda: self._messages or self._closed, timeout):
                raise TimeoutError(f"no message within {timeout:g} s")
            if not self._messages:
                raise ClosedError("the client is closed and its inbox is empty")
            message = self._messages.popleft()
        self._taken.message = message
        return message

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        try:
            return self.get()
        except ClosedError:
            raise StopIteration from None

    def __len__(self) -> int:
        return len(self._messages)

    def _finish_last(self) -> None:
        message = getattr(self._taken, "message", None)
        if message is not None:
            self._taken.message = None
            self._on_handled(message)


class Router:
    """The wanted subscriptions of one client. Runs under the engine's lock, :meth:`route` excepted."""

    def __init__(self, lock: threading.Lock, waiting: Waiting) -> None:
        self._lock = lock
        self._consumers = waiting
        self.wanted: dict[str, Subscription] = {}
        self.inbox: Inbox | None = None
        self.identifiers: Identifiers | None = None
        self._tree = FilterTree()
        self._handlers: dict[str, list[Handler]] = {}
        self._cache: dict[str, tuple[Handler, ...]] = {}
        self._waiting: list[Request] = []  # not sent on this connection
        self._sent: dict[int, Request] = {}

    def subscribe(self, subscriptions: list[Subscription], handler: Handler | None) -> Request:
        """Want these subscriptions from now on and route what matches to ``handler``."""
        for subscription in subscriptions:
            topic_filter = subscription.topic
            self.wanted[topic_filter] = subscription
            if handler is not None:
                self._handlers.setdefault(topic_filter, []).append(handler)
                self._tree.insert(topic_filter, handler)
        self._cache = {}
        request = Request(
            subscriptions, [subscription.topic for subscription in subscriptions], self._consumers
        )
        self._waiting.append(request)
        return request

    def restore(self, saved: dict[str, tuple[Any, ...]]) -> None:
        """Want what an earlier client wanted: the server has it, and if not, it is asked for again."""
        for topic_filter, options in saved.items():
            names = ("qos", "no_local", "retain_as_published", "retain_handling")
            self.wanted[topic_filter] = Subscription(topic_filter, **dict(zip(names, options, strict=True)))

    def unsubscribe(self, topic_filters: list[str]) -> Request:
        """Stop wanting these filters; their handlers see no further message."""
        for topic_filter in topic_filters:
            self._forget(topic_filter)
        request = Request(None, topic_filters, self._consumers)
        self._waiting.append(request)
        return request

    def route(self, topic: str) -> tuple[Handler, ...]:
        """Return the handlers whose filters match, each once. Any thread that does not hold the lock."""
        handlers = self._cache.get(topic)
        if handlers is None:
            with self._lock:
                handlers = tuple(dict.fromkeys(self._tree.match(topic)))
                if len(self._cache) >= _ROUTE_CACHE_SIZE:
                    self._cache.clear()
                self._cache[topic] = handlers
        return handlers

    def route_identified(self, message: Message) -> tuple[Handler, ...]:
        """As :meth:`route`, but only for the subscriptions for which the broker has sent this message.

        A broker may send one copy for each subscription that matches: so each handler runs once, not once a
        copy. A message without identifiers, or with one that is not ours, goes to every filter that matches.
        """
        identifiers = message.subscription_identifiers
        if identifiers and self.identifiers is not None:
            with self._lock:
                topic_filters = self.identifiers.matching(identifiers, message.topic)
                if topic_filters:
                    found = (handler for one in topic_filters for handler in self._handlers.get(one, ()))
                    return tuple(dict.fromkeys(found))
        return self.route(message.topic)

    def send(self, protocol: Protocol) -> list[tuple[Request, DeviceSdkError]]:
        """Send the waiting requests; return those that this server cannot take."""
        failed: list[tuple[Request, DeviceSdkError]] = []
        while self._waiting:
            request = self._waiting.pop(0)
            lacking = self._lacking(protocol, request)
            if lacking is not None:
                failed.append((request, lacking))
                continue
            try:
                if request.subscriptions is None:
                    packet_id = protocol.unsubscribe(request.topic_filters)
                else:
                    packet_id = self._send_subscribe(protocol, request.subscriptions, request.topic_filters)
            except ValueError as error:  # larger than the server's Maximum Packet Size
                refusal = SubscribeRefused(str(error), 0x95)
                request.finish([], refusal)
                failed.append((request, refusal))
            else:
                self._sent[packet_id] = request
        return failed

    def _lacking(self, protocol: Protocol, request: Request) -> SubscribeRefused | None:
        """Refuse the filters of a kind that this server does not have; the others are asked for alone."""
        kinds = {each.topic: protocol.unavailable(each.topic) for each in request.subscriptions or ()}
        if not any(kinds.values()):
            return None
        refused = [topic for topic, code in kinds.items() if code]
        code = kinds[refused[0]]
        error = SubscribeRefused(f"{', '.join(refused)}: {reason_name(code, '5.0')} by this server", code)
        request.finish([], error)
        rest = [each for each in request.subscriptions or () if not kinds[each.topic]]
        if rest:
            self._waiting.insert(0, Request(rest, [each.topic for each in rest], self._consumers))
        return error

    def _send_subscribe(
        self, protocol: Protocol, subscriptions: list[Subscription], topic_filters: list[str]
    ) -> int:
        identifiers = self.identifiers
        if identifiers is None or not protocol.server.get("subscription_identifiers_available", 1):
            return protocol.subscribe(subscriptions)
        identifier = identifiers.new()
        packet_id = protocol.subscribe(subscriptions, {"subscription_identifier": identifier})
        identifiers.assign(identifier, topic_filters)
        return packet_id

    def connected(self, session_present: bool) -> None:
        """A connection begins: everything wanted is asked for again unless the server still has it."""
        if session_present:
            return
        asked = {
            topic for request in self._waiting if request.subscriptions for topic in request.topic_filters
        }
        again = [wanted for topic, wanted in self.wanted.items() if topic not in asked]
        for start in range(0, len(again), _FILTERS_PER_PACKET):
            part = again[start : start + _FILTERS_PER_PACKET]
            topic_filters = [subscription.topic for subscription in part]
            self._waiting.insert(0, Request(part, topic_filters, self._consumers))

    def disconnected(self) -> None:
        """A connection ended: what was not answered is asked again on the next one."""
        self._waiting[:0] = self._sent.values()
        self._sent.clear()

    def answered(self, packet_id: int, reason_codes: list[int], version: str) -> Request | None:
        """A SUBACK or UNSUBACK came: finish its request, forget the filters that were refused."""
        request = self._sent.pop(packet_id, None)
        if request is None:
            return None
        refused = [
            (topic, code)
            for topic, code in zip(request.topic_filters, reason_codes, strict=True)
            if code >= 0x80
        ]
        error = None
        if refused:
            listed = ", ".join(f"{topic} ({_refusal(code, version)})" for topic, code in refused)
            error = SubscribeRefused(f"the server refused {listed}", refused[0][1])
        if request.subscriptions is not None:
            for topic, _ in refused:
                self._forget(topic)
        request.finish(reason_codes, error)
        return request

    def close(self, error: DeviceSdkError) -> None:
        """End everything that waits."""
        for request in (*self._waiting, *self._sent.values()):
            request.finish([], error)
        self._waiting.clear()
        self._sent.clear()
        if self.inbox is not None:
            self.inbox.close()

    def _forget(self, topic_filter: str) -> None:
        self.wanted.pop(topic_filter, None)
        if self.identifiers is not None:
            self.identifiers.forget(topic_filter)
        for handler in self._handlers.pop(topic_filter, []):
            self._tree.remove(topic_filter, handler)
        self._cache = {}


def _refusal(code: int, version: str) -> str:
    return "failure" if version != "5.0" else reason_name(code, version)
