"""Messages that exceeded the server's quota (reason code 0x97): published again later, in their order."""

from __future__ import annotations

from collections import deque
from itertools import islice

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.endings import TOO_LATE
from device_sdk.errors import DeliveryExpiredError
from device_sdk.mqtt.session import EXPIRED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.engine.events import Events
    from device_sdk.engine.outgoing.outbox import Outbox
    from device_sdk.mqtt.events import PublishPostponed
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Session

__all__ = ["Postponed"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 300.0


class _Topic:
    """The refused messages of one topic, oldest first: that one is published again, ``at`` a time."""

    __slots__ = ("_pause", "at", "messages")

    def __init__(self) -> None:
        self.messages: deque[Delivery] = deque()
        self.at = 0.0
        self._pause = 0.0  # seconds; 0: nothing was refused since the last success

    def refuse(self, delivery: Delivery, now: float) -> None:
        """The server has refused this one, for the first time or again."""
        if delivery not in self.messages:
            self.messages.append(delivery)
        if delivery is self.messages[0]:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_S) or _FIRST_PAUSE_S
            self.at = now + self._pause
            if delivery.expires_at is not None:
                self.at = min(self.at, delivery.expires_at)

    def settle(self, in_flight: dict[int, Any], now: float) -> bool:
        """Go on behind what was accepted or has ended; return whether nothing is left."""
        messages = self.messages
        while messages and in_flight.get(messages[0].packet_id) is not messages[0]:
            messages.popleft()
            self.at, self._pause = now, 0.0
        return not messages

    @property
    def waits(self) -> bool:
        """Whether the first one has not been published again yet."""
        return self.messages[0].packet is None


class Postponed:
    """The topics that are not sent to on this connection before their refused message is accepted.

    A refused message stays in flight, as one that the server does not take now, until it is published again
    under another packet identifier. What comes after it on its topic is held, so that the order stays.

    ``due``: when :meth:`publish` wants to be called, if not before because of an acknowledgement. The caller
    of every method holds the engine's lock.
    """

    __slots__ = ("_events", "_outbox", "_session", "_topics", "due")

    def __init__(self, session: Session, outbox: Outbox, events: Events) -> None:
        self.due: float | None = None
        self._topics: dict[bytes, _Topic] = {}
        self._session = session
        self._outbox = outbox
        self._events = events

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._topics)

    def add(self, event: PublishPostponed, now: float) -> None:
        """The quota was exceeded."""
        delivery, error = event.message, event.error
        assert isinstance(delivery, Delivery)
        topic = self._topics.setdefault(delivery.topic_field, _Topic())
        topic.refuse(delivery, now)
        self._outbox.block(delivery.topic_field, True)
        self._note_due(now)
        when = f"published again in {max(0.0, topic.at - now):.0f} s, before others of its topic"
        self._events.notify("postponed", f"{delivery.topic}: {error}; it is {when}", error, delivery.topic)

    def publish(self, protocol: Protocol, now: float, *, may_send: bool) -> list[Delivery]:
        """Publish the messages whose time has come, as new ones; return those that have expired."""
        expired: list[Delivery] = []
        outbound = protocol.outbound
        self._settle(now)
        for topic in list(self._topics.values()):
            while topic.messages and topic.waits and topic.at <= now:
                delivery = topic.messages[0]
                if delivery.expires_at is not None and delivery.expires_at <= now:
                    outbound.take_back(delivery)
                    self._outbox.end(delivery, EXPIRED, DeliveryExpiredError(TOO_LATE))
                    expired.append(delivery)
                    topic.settle(self._session.in_flight, now)
                elif may_send and len(self._session) < outbound.window:
                    outbound.publish_anew(delivery, now, islice(topic.messages, 1, None))
                else:
                    break
        if expired:
            self._settle(now)
        self._note_due(now)
        return expired

    def _settle(self, now: float) -> None:
        """Go on with the topics whose messages were accepted, or have ended."""
        for topic_field, topic in list(self._topics.items()):
            if topic.settle(self._session.in_flight, now):
                del self._topics[topic_field]
                self._outbox.block(topic_field, False)

    def clear(self) -> None:
        """The connection is over: the next one repeats all of them."""
        for topic_field in self._topics:
            self._outbox.block(topic_field, False)
        self._topics.clear()
        self.due = None

    def _note_due(self, now: float) -> None:
        # One that is due and was not sent waits for an acknowledgement, not for a moment.
        waiting = (topic.at for topic in self._topics.values() if topic.waits and topic.at > now)
        self.due = min(waiting, default=None)
