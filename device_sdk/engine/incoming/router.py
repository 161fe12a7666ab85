"""The wanted subscriptions of a client, and the handlers of the messages that match them."""

from __future__ import annotations

from device_sdk.engine.incoming.request_line import RequestLine
from device_sdk.engine.incoming.subscribe_request import SubscribeRequest
from device_sdk.engine.incoming.subscription_ids import SubscriptionIds
from device_sdk.errors import SubscribeRefused
from device_sdk.mqtt.codes import reason_name
from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.refusals import subscribe_refused
from device_sdk.mqtt.topics import FilterTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any
    from typing import Protocol as Contract

    from device_sdk.engine.consumers import Consumers
    from device_sdk.engine.incoming.filter_judge import FilterJudge
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.events import SubscribeAcknowledged
    from device_sdk.mqtt.message import Message
    from device_sdk.mqtt.protocol import Protocol

    Handler = Callable[[Message], object]

    class AnyInbox(Contract):
        """The part of a pull inbox that the router fills; threads and event loops have one each."""

        def put(self, message: Message) -> None: ...
        def close(self) -> None: ...


__all__ = ["Router"]

_ROUTE_CACHE_SIZE = 1_000
_DO_NOT_SEND_RETAINED = 2  # Retain Handling, MQTT 5.0 §3.8.3.1
_UNANSWERED = 1_000  # SUBSCRIBE and UNSUBSCRIBE at once: packet identifiers are left for messages
_FILTERS_PER_PACKET = 8  # in what we repeat by ourselves: AWS IoT Core ends the connection above it


class Router:
    """The wanted subscriptions of one client. Runs under the engine's lock, :meth:`route` excepted."""

    def __init__(
        self, lock: threading.RLock, consumers: Consumers, *, use_identifiers: bool = False,
        judge: FilterJudge | None = None,
    ) -> None:  # fmt: skip
        self._lock = lock
        self._judge = judge
        self._consumers = consumers
        self.wanted: dict[str, Subscription] = {}
        self._properties: dict[str, dict[str, Any]] = {}  # of the SUBSCRIBE, for filters that have some
        self.inbox: AnyInbox | None = None
        self.identifiers = SubscriptionIds() if use_identifiers else None
        self._tree = FilterTree()
        self._handlers: dict[str, list[Handler]] = {}
        self._cache: dict[str, tuple[Handler, ...]] = {}
        self.requests = RequestLine()

    def subscribe(
        self,
        subscriptions: list[Subscription],
        handler: Handler | None,
        properties: dict[str, Any] | None = None,
    ) -> SubscribeRequest:
        """Want these subscriptions from now on and route what matches to ``handler``."""
        for subscription in subscriptions:
            topic_filter = subscription.topic
            self.wanted[topic_filter] = subscription
            if self._judge is not None:
                self._judge.want(topic_filter)
            self._properties.pop(topic_filter, None)
            if properties:
                self._properties[topic_filter] = properties
            if handler is not None:
                self._handlers.setdefault(topic_filter, []).append(handler)
                self._tree.insert(topic_filter, handler)
        self._cache = {}
        topics = [subscription.topic for subscription in subscriptions]
        request = SubscribeRequest(subscriptions, topics, self._consumers, sent_properties=properties)
        self.requests.unsent.append(request)
        return request

    def has_subscriptions(self) -> bool:
        """Whether any subscription is wanted."""
        return bool(self.wanted)

    def restore(self, saved: dict[str, tuple[Any, ...]]) -> None:
        """Want what an earlier client wanted: the server has it, and if not, it is asked for again."""
        for topic_filter, options in saved.items():
            names = ("qos", "no_local", "retain_as_published", "retain_handling")
            self.wanted[topic_filter] = Subscription(topic_filter, **dict(zip(names, options, strict=True)))

    def unsubscribe(
        self, topic_filters: list[str], properties: dict[str, Any] | None = None
    ) -> SubscribeRequest:
        """Stop wanting these filters; their handlers see no further message."""
        for topic_filter in topic_filters:
            self._forget(topic_filter)
        request = SubscribeRequest(None, topic_filters, self._consumers, sent_properties=properties)
        self.requests.unsent.append(request)
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

    def send(
        self, protocol: Protocol, only: SubscribeRequest | None = None
    ) -> list[tuple[SubscribeRequest, DeviceSdkError]]:
        """Send waiting requests while few are unanswered, or ``only`` this one.

        Returns: those that this server cannot take.
        """
        failed: list[tuple[SubscribeRequest, DeviceSdkError]] = []
        if only is not None:
            self.requests.unsent.remove(only)
            self._send_one(protocol, only, failed)
            return failed
        while self.requests.unsent and len(self.requests.sent) < _UNANSWERED:
            self._send_one(protocol, self.requests.unsent.pop(0), failed)
        return failed

    def _send_one(
        self,
        protocol: Protocol,
        request: SubscribeRequest,
        failed: list[tuple[SubscribeRequest, DeviceSdkError]],
    ) -> None:
        lacking = self._lacking(protocol, request)
        if lacking is not None:
            failed.append((request, lacking))
            return
        try:
            if request.subscriptions is None:
                packet_id = protocol.unsubscribe(request.topic_filters, request.sent_properties)
            else:
                packet_id = self._send_subscribe(protocol, request, request.subscriptions)
        except ValueError as error:  # larger than the server's Maximum Packet Size
            if request.is_repeat and len(request.topic_filters) > 1:
                self.requests.unsent[:0] = self._halves(request)
                return
            refusal = SubscribeRefused(str(error), 0x95)
            self._refuse(request, request.topic_filters, refusal)
            failed.append((request, refusal))
        else:
            self.requests.sent[packet_id] = request

    # One by one

    def ask_witness(self, judge: FilterJudge, version: str) -> SubscribeRequest | None:
        """Ask again for a filter that the server has, in MQTT 5.0 without its retained messages.

        Returns: the request, if there is such a filter.
        """
        for topic_filter, known in self.wanted.items():
            if judge.leaves_out(topic_filter) or judge.is_refused(topic_filter):
                continue
            wanted = Subscription(
                known.topic,
                known.qos,
                no_local=known.no_local,
                retain_as_published=known.retain_as_published,
                retain_handling=_DO_NOT_SEND_RETAINED if version == "5.0" else 0,
            )
            properties = self._properties.get(topic_filter, {})
            witness = SubscribeRequest(
                [wanted], [topic_filter], self._consumers, sent_properties=properties, is_repeat=True
            )
            self.requests.add_witness(witness)
            return witness
        return None

    def refuse(self, topic_filter: str, error: SubscribeRefused) -> list[SubscribeRequest]:
        """End the requests for a filter that has ended connections; return them."""
        refused = self.requests.take_out(topic_filter)
        for request in refused:
            self._refuse(request, [topic_filter], error)
        return refused

    def _lacking(self, protocol: Protocol, request: SubscribeRequest) -> SubscribeRefused | None:
        """Refuse the filters of a kind that this server does not have; the others are asked for alone."""
        identified = "subscription_identifier" in request.sent_properties
        lacks = 0xA1 if identified and not _has_identifiers(protocol) else 0
        subscriptions = request.subscriptions or []
        kinds = {each.topic: lacks or protocol.unavailable(each.topic) for each in subscriptions}
        if not any(kinds.values()):
            return None
        refused = [topic for topic, code in kinds.items() if code]
        code = kinds[refused[0]]
        error = SubscribeRefused(f"{', '.join(refused)}: {reason_name(code, '5.0')} by this server", code)
        self._refuse(request, refused, error)
        rest = [each for each in subscriptions if not kinds[each.topic]]
        if rest:
            self.requests.unsent.insert(0, self._part(request, rest))
        return error

    def _refuse(self, request: SubscribeRequest, refused: list[str], error: SubscribeRefused) -> None:
        """End a request that this server cannot take, and forget the filters.

        What a server has granted before stays wanted: the next server, or this one with another
        configuration, takes it again.
        """
        if request.subscriptions is not None and not request.is_repeat:
            for topic_filter in refused:
                self._forget(topic_filter)
        has_all = len(refused) == len(request.topic_filters)
        request.finish([error.reason_code] * len(refused) if has_all else [], error)

    def _send_subscribe(
        self, protocol: Protocol, request: SubscribeRequest, subscriptions: list[Subscription]
    ) -> int:
        identifiers = self.identifiers
        if identifiers is None or not _has_identifiers(protocol):
            return protocol.subscribe(subscriptions, request.sent_properties)
        identifier = identifiers.new()
        properties = {**request.sent_properties, "subscription_identifier": identifier}
        packet_id = protocol.subscribe(subscriptions, properties)
        identifiers.assign(identifier, request.topic_filters)
        return packet_id

    def connected(self, session_present: bool) -> None:
        """A connection begins: everything wanted is asked for again unless the server still has it."""
        if session_present:
            return
        judge = self._judge
        asked = self.requests.asked
        again = [
            wanted
            for topic, wanted in self.wanted.items()
            if topic not in asked and not (judge is not None and judge.is_refused(topic))
        ]
        repeats: list[SubscribeRequest] = []  # of nobody
        for wanted in again:
            properties = self._properties.get(wanted.topic, {})
            last = repeats[-1] if repeats else None
            if (
                last is None
                or len(last.topic_filters) == _FILTERS_PER_PACKET
                or last.sent_properties != properties
            ):
                last = SubscribeRequest([], [], self._consumers, sent_properties=properties, is_repeat=True)
                repeats.append(last)
            last.add(wanted)
        self.requests.unsent[:0] = repeats

    def _part(self, request: SubscribeRequest, subscriptions: list[Subscription]) -> SubscribeRequest:
        """Return a request for some of the subscriptions of another one; nobody waits for it."""
        topics = [each.topic for each in subscriptions]
        properties, is_repeat = request.sent_properties, request.is_repeat
        return SubscribeRequest(
            subscriptions, topics, self._consumers, sent_properties=properties, is_repeat=is_repeat
        )

    def _halves(self, request: SubscribeRequest) -> list[SubscribeRequest]:
        subscriptions = request.subscriptions or []
        middle = len(subscriptions) // 2
        return [self._part(request, subscriptions[:middle]), self._part(request, subscriptions[middle:])]

    def disconnected(self) -> None:
        """A connection ended: what was not answered is asked again on the next one."""
        self.requests.disconnected()

    def answered(self, answer: SubscribeAcknowledged, version: str) -> SubscribeRequest | None:
        """A SUBACK or UNSUBACK came: finish its request, forget the filters that were refused."""
        request = self.requests.sent.pop(answer.packet_id, None)
        if request is None:
            return None
        if self._judge is not None and request.subscriptions is not None:
            self._judge.answered(request.topic_filters)
        codes = zip(request.topic_filters, answer.reason_codes, strict=True)
        refused = [(topic, code) for topic, code in codes if code >= 0x80]
        error = subscribe_refused(refused, answer.properties, version) if refused else None
        if request.subscriptions is not None:
            for topic, _ in refused:
                self._forget(topic)
        request.finish(answer.reason_codes, error, answer.properties)
        return request

    def close(self, error: DeviceSdkError) -> None:
        """End everything that waits."""
        for request in (*self.requests.unsent, *self.requests.sent.values()):
            request.finish([], error)
        self.requests.clear()
        if self.inbox is not None:
            self.inbox.close()

    def open_inbox(self, inbox: AnyInbox) -> None:
        """Let messages that no handler takes wait in this inbox from now on."""
        self.inbox = inbox

    def _forget(self, topic_filter: str) -> None:
        self.wanted.pop(topic_filter, None)
        self._properties.pop(topic_filter, None)
        if self.identifiers is not None:
            self.identifiers.forget(topic_filter)
        for handler in self._handlers.pop(topic_filter, []):
            self._tree.remove(topic_filter, handler)
        self._cache = {}


def _has_identifiers(protocol: Protocol) -> bool:
    """Whether the server takes subscription identifiers. Source: MQTT 5.0 §3.2.2.3.12."""
    return bool(protocol.server.get("subscription_identifiers_available", 1))
