"""Messages of others on their way in: the subscriptions, and the path of a message before its handler."""

from __future__ import annotations

from device_sdk.engine.incoming.asking import Asking
from device_sdk.engine.incoming.manual_ack import HeldBounds, ManualAcks
from device_sdk.engine.incoming.router import Router
from device_sdk.errors import ClosedError
from device_sdk.mqtt.message import AckToken, Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any

    from device_sdk.engine.consumers import Consumers
    from device_sdk.engine.events import Events
    from device_sdk.engine.incoming.calls import Calls
    from device_sdk.engine.incoming.in_hand import InHand
    from device_sdk.engine.incoming.subscribe_request import SubscribeRequest
    from device_sdk.engine.outgoing.suspicion import Suspicion
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.events import MessageSkipped, SubscribeAcknowledged, UnsubscribeAcknowledged
    from device_sdk.mqtt.message import Subscription
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Session

__all__ = ["Subscriber"]


class Subscriber:
    """Asks for messages and sorts what comes. The caller of every method holds the engine's lock.

    ``sorts``: received messages have to go through :meth:`sort`; with a full :class:`InHand` they do anyway.
    """

    __slots__ = (
        "_closed",
        "_consumers",
        "_events",
        "_pauses",
        "_session",
        "asking",
        "calls",
        "in_hand",
        "manual",
        "router",
        "sorts",
    )

    def __init__(
        self,
        lock: threading.RLock,
        session: Session,
        events: Events,
        consumers: Consumers,
        in_hand: InHand,
        *,
        use_identifiers: bool = False,
        acknowledge: Callable[[AckToken], object] | None = None,
        held: HeldBounds | None = None,
        suspicion: Suspicion | None = None,
    ) -> None:
        judge = outbox = None
        if suspicion is not None:
            judge, outbox = suspicion.filters, suspicion.outbox
        self.router = Router(lock, consumers, use_identifiers=use_identifiers, judge=judge)
        self.asking = Asking(self.router, session, events, judge, outbox)
        if suspicion is not None:
            suspicion.attend(self.asking)
        self.in_hand = in_hand
        self.calls: Calls | None = None  # the requests that wait for their responses, from the first one on
        self.sorts = False
        self._session = session
        self._events = events
        self._consumers = consumers
        self._pauses = 0
        self.manual: ManualAcks | None = None
        self._closed = False
        self.acknowledge_by_hand(acknowledge, held)

    def acknowledge_by_hand(
        self, acknowledge: Callable[[AckToken], object] | None, bounds: HeldBounds | None = None
    ) -> None:
        """Let the application acknowledge received messages through this callable; ``None``: no more."""
        self.manual = None if acknowledge is None else ManualAcks(acknowledge, bounds)
        self._consumers.look_for_hungry(bounds is not None and acknowledge is not None)
        self.sorts = acknowledge is not None or self.calls is not None

    def expect_responses(self, calls: Calls) -> None:
        """Look for responses to these calls among the received messages from now on."""
        self.calls = calls
        self.sorts = True

    # Subscriptions

    def subscribe(
        self,
        subscriptions: list[Subscription],
        handler: Callable[[Message], object] | None,
        properties: dict[str, Any] | None = None,
    ) -> SubscribeRequest:
        """Want these subscriptions, and ask for them now if there is a connection; see the router."""
        self._check_open()
        request = self.router.subscribe(subscriptions, handler, properties)
        for wanted in subscriptions:
            options = (wanted.qos, wanted.no_local, wanted.retain_as_published, wanted.retain_handling)
            self._session.record(("subscribed", wanted.topic, *options))
        self.asking.go_on()
        return request

    def unsubscribe(
        self, topic_filters: list[str], properties: dict[str, Any] | None = None
    ) -> SubscribeRequest:
        """Stop wanting these, and say so now if there is a connection; see the router."""
        self._check_open()
        request = self.router.unsubscribe(topic_filters, properties)
        for topic_filter in topic_filters:
            self._session.record(("unsubscribed", topic_filter))
        self.asking.go_on()
        return request

    def on_answer(self, event: SubscribeAcknowledged | UnsubscribeAcknowledged, version: str) -> None:
        """Finish the request that a SUBACK or UNSUBACK answers."""
        request = self.router.answered(event, version)
        self.asking.answered()
        if request is not None and request.error is not None:
            self.asking.report(request, request.error)
        self.asking.go_on()

    # Received messages

    def sort(self, protocol: Protocol, events: list[Any]) -> list[Any]:
        """Take responses out, give tokens, and keep the memory bounded; return the events that are left."""
        if self.calls is not None:
            events, responses = self.calls.take(events)
            if responses:
                self._events.stats.received += responses
                protocol.acknowledge_handled()
        if self.manual is not None:
            was_full = self.manual.full
            self.manual.claim(events, protocol)
            if self.manual.full and not was_full:
                self._tell_pause(self.manual)
        return self._without_qos0(events) if self.in_hand.full else events

    def holds_too_much(self) -> bool:
        """Whether reading is to pause because the application has too many messages without acknowledgement.

        Not while it waits for something that has to be read before: an acknowledgement, an answer, a response
        or, in the pull inbox, the next message.
        """
        manual, session, consumers = self.manual, self._session, self._consumers
        if manual is None or not manual.full or consumers.blocked or consumers.hungry:
            return False
        return not (len(session) or session.requests or (self.calls is not None and self.calls.waiting))

    def _tell_pause(self, manual: ManualAcks) -> None:
        """Tell that reading pauses, the 1st, 2nd, 4th, 8th ... time."""
        self._pauses += 1
        if not self._pauses & (self._pauses - 1):
            text = f"{manual.count} messages of {manual.held} bytes have no acknowledgement (manual_ack)"
            self._events.notify("reading_paused", f"{text}; acknowledge them, or raise inbox_bytes")

    def _without_qos0(self, events: list[Any]) -> list[Any]:
        """Read although reading is paused, because a handler waits: QoS 0 must not fill the memory."""
        kept = [event for event in events if type(event) is not Message or event.qos]
        lost = len(events) - len(kept)
        if lost:
            self._events.stats.discarded += lost
            in_hand = f"{self.in_hand.count} messages of {self.in_hand.held} bytes"
            self._events.notify("dropped", f"{lost} received QoS 0 messages: {in_hand} are in hand already")
        return kept

    def on_skipped(self, event: MessageSkipped) -> None:
        """Count a message that is not delivered; tell of the 1st, 2nd, 4th, 8th ..."""
        stats = self._events.stats
        stats.skipped += 1
        count = stats.skipped
        if count & (count - 1):
            return
        so_far = "" if count == 1 else f" ({count} messages skipped so far)"
        text = f"{event.topic!a}: skipped {event.size} bytes, QoS {event.qos}: {event.reason}{so_far}"
        self._events.notify("skipped", text, value=event.topic)

    # The life of the client

    def connected(self, protocol: Protocol, *, has_all: bool) -> None:
        """Ask on this connection from now on. ``has_all``: the server still has what was asked before."""
        self.router.connected(has_all)
        self.asking.begin(protocol)

    def disconnecting(self) -> None:
        """Ask for nothing any more on this connection, which has its DISCONNECT."""
        self.asking.stop()

    def disconnected(self) -> None:
        """Ask again on the next connection what was not answered on this one."""
        self.asking.stop()
        if self.manual is not None:
            self.manual.forget()
        self._session.requests.clear()
        self.router.disconnected()

    def end(self, error: DeviceSdkError) -> None:
        """Take no subscription any more, and end every SUBSCRIBE, UNSUBSCRIBE and call that waits."""
        self._closed = True
        self.router.close(error)
        if self.calls is not None:
            self.calls.close(error)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the client was closed")
