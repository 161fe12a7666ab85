"""The incoming half of an engine: subscriptions, and what happens to messages before their handlers."""

from __future__ import annotations

from device_sdk.engine.manual_ack import ManualAcks
from device_sdk.engine.publisher import Publisher
from device_sdk.engine.report import CLOSED
from device_sdk.engine.router import Router
from device_sdk.engine.weight import Weight
from device_sdk.errors import ClosedError
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.options import check_range

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any

    from device_sdk.engine.requests import Requests
    from device_sdk.engine.router import Request
    from device_sdk.engine.waiting import Waiting
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.events import SubscribeAcknowledged
    from device_sdk.mqtt.message import Subscription
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.store.base import Store, StorePolicy

__all__ = ["Subscriber"]

_LARGEST_INBOX_BYTES = 1 << 40


class Subscriber(Publisher):
    """Asks for messages and sorts what comes. The caller of every method holds the lock."""

    options: ConnectOptions

    def __init__(
        self,
        lock: threading.Lock,
        policy: StorePolicy,
        store: Store | None,
        *,
        buffer_qos0: bool,
        inbox_limit: int,
        inbox_bytes: int,
        largest_packet: int,
        acknowledge: Callable[[Message], None] | None,
        waiting: Waiting | None,
    ) -> None:
        super().__init__(lock, policy, store, buffer_qos0=buffer_qos0, waiting=waiting)
        self.router = Router(lock, self.waiting)
        self._requests: Requests | None = None
        self._manual = None if acknowledge is None else ManualAcks(acknowledge)
        self._sorts_received = acknowledge is not None
        self._inbox_limit = check_range("inbox_limit", inbox_limit, 1, 1_000_000)
        self._in_hand = 0  # messages handed to handlers or the inbox and not finished
        most_bytes = check_range("inbox_bytes", inbox_bytes, 1, _LARGEST_INBOX_BYTES)
        self._weight = Weight(most_bytes, largest_packet)

    @property
    def requests(self) -> Requests | None:
        """The requests that wait for responses; ``None`` before the first one."""
        return self._requests

    @requests.setter
    def requests(self, requests: Requests) -> None:
        self._requests = requests
        self._sorts_received = True

    def connection(self) -> Protocol | None:
        """Return the connection that the server has accepted, if there is one."""
        return self._online

    def subscribe(
        self, subscriptions: list[Subscription], handler: Callable[[Message], object] | None
    ) -> Request:
        """Want these subscriptions; see :meth:`Router.subscribe`."""
        self._check_open()
        request = self.router.subscribe(subscriptions, handler)
        for wanted in subscriptions:
            options = (wanted.qos, wanted.no_local, wanted.retain_as_published, wanted.retain_handling)
            self.session.record(("subscribed", wanted.topic, *options))
        self.send_requests()
        return request

    def unsubscribe(self, topic_filters: list[str]) -> Request:
        """Stop wanting these; see :meth:`Router.unsubscribe`."""
        self._check_open()
        request = self.router.unsubscribe(topic_filters)
        for topic_filter in topic_filters:
            self.session.record(("unsubscribed", topic_filter))
        self.send_requests()
        return request

    def send_requests(self) -> None:
        """Send what the router wants to ask, if there is a connection. The caller holds the lock."""
        if self._online is not None:
            for _, error in self.router.send(self._online):
                self.notify("subscribe_refused", str(error), error)

    def _sort_received(self, protocol: Protocol, events: list[Any]) -> list[Any]:
        """Take responses out, give tokens, and keep the memory bounded; return the events that are left."""
        if self._requests is not None:
            events, responses = self._requests.take(events)
            if responses:
                self._stats.received += responses
                protocol.acknowledge_handled()
        if self._manual is not None:
            self._manual.claim(events, protocol)
        return self._without_qos0(events) if self._is_full() else events

    def _is_full(self) -> bool:
        """Whether so much is in hand that reading has to pause."""
        return self._in_hand >= self._inbox_limit or self._weight.full

    def _without_qos0(self, events: list[Any]) -> list[Any]:
        """Read although reading is paused, because a handler waits: QoS 0 must not fill the memory."""
        kept = [event for event in events if type(event) is not Message or event.qos]
        lost = len(events) - len(kept)
        if lost:
            self._stats.discarded += lost
            in_hand = f"{self._in_hand} messages of {self._weight.held} bytes"
            self.notify("dropped", f"{lost} received QoS 0 messages: {in_hand} are in hand already")
        return kept

    def _on_subscribe_answer(self, event: SubscribeAcknowledged, now: float) -> None:
        request = self.router.answered(event.packet_id, event.reason_codes, self.options.version)
        if request is not None and request.error is not None:
            self.notify("subscribe_refused", str(request.error), request.error)
            for topic_filter in request.topic_filters:
                if topic_filter not in self.router.wanted:
                    self.session.record(("unsubscribed", topic_filter))

    def _end_requests(self, error: DeviceSdkError) -> None:
        """End every SUBSCRIBE, UNSUBSCRIBE and request that waits."""
        self.router.close(error)
        if self._requests is not None:
            self._requests.close(error)

    def _check_open(self) -> None:
        if self.state == CLOSED:
            raise ClosedError("the client was closed")
