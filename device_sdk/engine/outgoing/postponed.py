"""Messages that exceeded the server's quota (reason code 0x97): published again later, in their order."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count, islice

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
    """The refused messages of one topic, oldest first: that one is published again, ``at`` a time.

    ``is_due``: it stands in the line of those whose time has come.
    """

    __slots__ = ("_pause", "at", "field", "is_due", "messages")

    def __init__(self, field: bytes) -> None:
        self.field = field
        self.messages: deque[Delivery] = deque()
        self.at = 0.0
        self.is_due = False
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

    def turn(self, is_due: bool) -> None:
        """It is in the line, or is not any more."""
        self.is_due = is_due

    def waits(self, now: float) -> bool:
        """Whether the first one is to be published again now. It is in flight."""
        return self.at <= now and self.messages[0].packet is None


class Postponed:
    """The topics that are not sent to on this connection before their refused message is accepted.

    A refused message stays in flight, as one that the server does not take now, until it is published again
    under another packet identifier. What comes after it on its topic is held, so that the order stays.

    ``topics``: these, by their field. ``due``: when :meth:`publish` wants to be called, if not before because
    of an acknowledgement. No call looks through all topics: there may be thousands. The caller of every
    method holds the engine's lock.
    """

    __slots__ = ("_events", "_line", "_numbers", "_outbox", "_session", "_times", "due", "topics")

    def __init__(self, session: Session, outbox: Outbox, events: Events) -> None:
        self.due: float | None = None
        self.topics: dict[bytes, _Topic] = {}
        # When a topic is due, or the message that it waits for expires; one that came to nothing stays here.
        self._times: list[tuple[float, int, _Topic]] = []
        self._line: deque[_Topic] = deque()  # whose time has come
        self._numbers = count()
        self._session = session
        self._outbox = outbox
        self._events = events

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.topics)

    def add(self, event: PublishPostponed, now: float) -> None:
        """The quota was exceeded."""
        delivery, error = event.message, event.error
        assert isinstance(delivery, Delivery)
        topic = self.topics.get(delivery.topic_field)
        if topic is None:
            topic = self.topics[delivery.topic_field] = _Topic(delivery.topic_field)
        topic.refuse(delivery, now)
        self._outbox.block(delivery.topic_field, True)
        if delivery is topic.messages[0]:
            self._schedule(topic, topic.at)
        when = f"published again in {max(0.0, topic.at - now):.0f} s, before others of its topic"
        self._events.notify("postponed", f"{delivery.topic}: {error}; it is {when}", error, delivery.topic)

    def ended(self, delivery: Delivery, now: float) -> None:
        """A message was acknowledged, or has ended otherwise: go on with its topic."""
        topic = self.topics.get(delivery.topic_field)
        if topic is not None and topic.messages[0] is delivery and self._goes_on(topic, now):
            self._line_up(topic, now)
        if not self.topics:
            self.clear()

    def pass_over(self, ended: list[Delivery], now: float) -> list[Delivery]:
        """Return these, which have ended without an answer of the server."""
        for delivery in ended if self.topics else ():
            self.ended(delivery, now)
        return ended

    def publish(self, protocol: Protocol, now: float, *, may_send: bool) -> list[Delivery]:
        """Publish the messages whose time has come, as new ones; return those that have expired."""
        expired: list[Delivery] = []
        outbound, times, line = protocol.outbound, self._times, self._line
        while times and times[0][0] <= now:
            topic = heappop(times)[2]
            if self._goes_on(topic, now) and not self._expire(topic, protocol, now, expired):
                self._line_up(topic, now)
        while line:
            topic = line[0]
            if self._goes_on(topic, now) and not self._expire(topic, protocol, now, expired):
                if not (may_send and outbound.has_room):
                    break
                outbound.publish_anew(topic.messages[0], now, islice(topic.messages, 1, None))
            line.popleft()
            topic.turn(False)
            if topic.messages and topic.waits(now):
                self._line_up(topic, now)  # the next one, behind one that has expired
        self.due = times[0][0] if times else None
        if not self.topics:
            self.clear()
        return expired

    def _goes_on(self, topic: _Topic, now: float) -> bool:
        """Pass what has ended; return whether the next message of the topic is to be published now."""
        if not topic.messages:
            return False
        if topic.settle(self._session.in_flight, now):
            del self.topics[topic.field]
            self._outbox.block(topic.field, False)
            return False
        return topic.waits(now)

    def _line_up(self, topic: _Topic, now: float) -> None:
        if topic.is_due:
            return
        topic.turn(True)
        self._line.append(topic)
        expires_at = topic.messages[0].expires_at
        if expires_at is not None and expires_at > now:
            self._schedule(topic, expires_at)  # it may have to wait for room until then

    def _schedule(self, topic: _Topic, at: float) -> None:
        heappush(self._times, (at, next(self._numbers), topic))
        self.due = self._times[0][0]

    def _expire(self, topic: _Topic, protocol: Protocol, now: float, expired: list[Delivery]) -> bool:
        delivery = topic.messages[0]
        if delivery.expires_at is None or delivery.expires_at > now:
            return False
        protocol.outbound.take_back(delivery)
        self._outbox.end(delivery, EXPIRED, DeliveryExpiredError(TOO_LATE))
        expired.append(delivery)
        if self._goes_on(topic, now):
            self._line_up(topic, now)
        return True

    def clear(self) -> None:
        """The connection is over: the next one repeats all of them."""
        for topic_field in self.topics:
            self._outbox.block(topic_field, False)
        self.topics.clear()
        self._times.clear()
        self._line.clear()
        self.due = None
