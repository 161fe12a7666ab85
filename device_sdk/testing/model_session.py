"""The state that :class:`ModelBroker` keeps for one client: subscriptions, queue, messages in flight.

A session outlives its network connections. While it has a link it sends at once, within the client's receive
maximum; without one it queues QoS 1 and 2 and forgets QoS 0. Source: MQTT 5.0 §3.1.2.4, §4.1, §4.4, §4.6.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from device_sdk.mqtt.packets import Publish, Pubrel
from device_sdk.mqtt.topics import topic_matches

if TYPE_CHECKING:
    from device_sdk.mqtt.message import Will
    from device_sdk.mqtt.packets import Packet

__all__ = ["ClientLink", "Incoming", "ModelMessage", "ModelSession", "ModelSubscription", "merged"]

LAST_PACKET_ID = 65_535


class ClientLink(Protocol):
    """The way to the client: the methods of :class:`BrokerLink` that broker and session call."""

    @property
    def receive_maximum(self) -> int:
        """Receive Maximum of the client."""

    def send(self, packet: Packet, *, frees: int | None = None) -> None:
        """Queue a packet. ``frees``: the packet identifier that it gives back to the client."""

    def send_if_it_fits(self, publish: Publish) -> bool:
        """Queue a PUBLISH unless it exceeds the client's maximum packet size."""

    def end(self, reason_code: int, now: float, *, with_will: bool = True) -> None:
        """Close from the broker's side."""


@dataclass(frozen=True, slots=True)
class ModelMessage:
    """An application message inside the broker.

    ``expires_at`` is on the broker's clock, ``None`` for never. ``publisher`` is the client identifier that
    No Local compares, empty for messages of the broker itself.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: dict[str, Any] = field(default_factory=dict)
    expires_at: float | None = None
    publisher: str = ""

    def expired(self, now: float) -> bool:
        """Return whether its message expiry interval has passed. Source: MQTT 5.0 §3.3.2.3.3."""
        return self.expires_at is not None and now >= self.expires_at


@dataclass(frozen=True, slots=True)
class ModelSubscription:
    """One subscription. ``topic`` is the whole topic filter, ``qos`` the one that was granted."""

    topic: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    identifier: int | None = None

    @property
    def shared(self) -> bool:
        """Whether the group, not the session, gets one copy. Source: MQTT 5.0 §4.8.2."""
        return self.topic.startswith("$share/")


@dataclass(slots=True)
class Incoming:
    """The last message that the client sent with a packet identifier, and its progress."""

    topic: str
    payload: bytes
    qos: int
    serial: int
    released: bool = False
    book: object = None  # of the connection on which it came last

    def same_message(self, packet: Publish) -> bool:
        """Compare with a PUBLISH whose topic alias is resolved."""
        return (self.topic, self.payload, self.qos) == (packet.topic, packet.payload, packet.qos)


@dataclass(slots=True)
class _Outgoing:
    """A message in flight to the client. ``sent``: on the present network connection."""

    message: ModelMessage
    sent: bool = True
    received: bool = False  # PUBREC has arrived: from now on PUBREL is repeated


class ModelSession:
    """The broker's state for one client identifier.

    ``expiry_interval`` is in seconds, ``math.inf`` for a session that never ends. ``ends_at`` and ``will_at``
    are set while the client is away. Not thread-safe, as everything below :class:`ModelBroker`.
    """

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.link: ClientLink | None = None
        self.expiry_interval: float = 0
        self.ends_at: float | None = None
        self.will: Will | None = None
        self.will_at: float | None = None
        self.subscriptions: dict[str, ModelSubscription] = {}
        self.queue: deque[ModelMessage] = deque()
        self.in_flight: dict[int, _Outgoing] = {}
        self.received_ids: set[int] = set()
        self.last_incoming: dict[int, Incoming] = {}
        self._last_packet_id = 0

    def attach(self, link: ClientLink) -> None:
        """Attach a network connection; :meth:`send_pending` repeats unfinished messages."""
        self.link = link
        self.ends_at = self.will_at = None
        for outgoing in self.in_flight.values():
            outgoing.sent = False

    def offer(self, message: ModelMessage, now: float) -> None:
        """Send the message, or queue it while the client is away or its receive maximum is reached."""
        if message.qos:
            self.queue.append(message)
            self.send_pending(now)
        elif self.link is not None:
            self.link.send_if_it_fits(self._publish(message, None, False, now))

    def send_pending(self, now: float) -> None:
        """Send as the window allows: unfinished messages in their first order, then the queue.

        Source: MQTT 5.0 §4.4 [MQTT-4.4.0-1], §4.6, §4.9; PUBREL is not limited by the receive maximum.
        """
        if self.link is None:
            return
        quota = self.link.receive_maximum - sum(outgoing.sent for outgoing in self.in_flight.values())
        for packet_id, outgoing in list(self.in_flight.items()):
            if outgoing.sent or (quota <= 0 and not outgoing.received):
                continue
            outgoing.sent = True
            quota -= 1
            if outgoing.received:
                self.link.send(Pubrel(packet_id))
            elif not self.link.send_if_it_fits(self._publish(outgoing.message, packet_id, True, now)):
                del self.in_flight[packet_id]
                quota += 1
        # A new message must not overtake one that still waits to be sent again.
        in_order = all(outgoing.sent for outgoing in self.in_flight.values())
        while self.queue and quota > 0 and in_order:
            message = self.queue.popleft()
            if message.expired(now):
                continue
            packet_id = self._free_packet_id()
            if self.link.send_if_it_fits(self._publish(message, packet_id, False, now)):
                self.in_flight[packet_id] = _Outgoing(message)
                quota -= 1

    def acknowledge(self, packet_id: int, *, qos: int, refused: bool = False) -> str | None:
        """Take PUBACK (``qos`` 1) or PUBREC (``qos`` 2) from the client.

        Returns: its fault, or ``None``.
        """
        outgoing = self.in_flight.get(packet_id)
        if outgoing is None:
            return "unknown"
        if outgoing.message.qos != qos:
            return f"for a QoS {outgoing.message.qos} message"
        if qos == 2 and not refused:
            outgoing.received = outgoing.sent = True
        else:
            del self.in_flight[packet_id]
        return None

    def complete(self, packet_id: int) -> str | None:
        """Take PUBCOMP from the client. Returns: its fault, or ``None``."""
        outgoing = self.in_flight.get(packet_id)
        if outgoing is None:
            return "unknown"
        if not outgoing.received:
            return "before PUBREC"
        del self.in_flight[packet_id]
        return None

    def matching(self, message: ModelMessage) -> ModelMessage | None:
        """Merge the subscriptions that match into the one copy this client gets, or ``None``.

        Maximum QoS of all, every subscription identifier. Source: MQTT 5.0 §3.3.4 [MQTT-3.3.4-2] to -5.
        """
        return merged(
            message,
            [
                subscription
                for subscription in self.subscriptions.values()
                if not subscription.shared
                and topic_matches(subscription.topic, message.topic)
                and not (subscription.no_local and message.publisher == self.client_id)
            ],
        )

    def _free_packet_id(self) -> int:
        packet_id = self._last_packet_id % LAST_PACKET_ID + 1
        while packet_id in self.in_flight:
            packet_id = packet_id % LAST_PACKET_ID + 1
        self._last_packet_id = packet_id
        return packet_id

    @staticmethod
    def _publish(message: ModelMessage, packet_id: int | None, dup: bool, now: float) -> Publish:
        properties = dict(message.properties)
        if message.expires_at is not None:
            properties["message_expiry_interval"] = max(0, math.ceil(message.expires_at - now))
        return Publish(
            message.topic,
            message.payload,
            qos=message.qos,
            retain=message.retain,
            dup=dup,
            packet_id=packet_id,
            properties=properties,
        )


def merged(message: ModelMessage, subscriptions: list[ModelSubscription]) -> ModelMessage | None:
    """Return the copy of a message that subscriptions of one client ask for, ``None`` without any."""
    if not subscriptions:
        return None
    identifiers = [each.identifier for each in subscriptions if each.identifier is not None]
    properties = message.properties
    if identifiers:
        properties = {**properties, "subscription_identifier": identifiers}
    return replace(
        message,
        qos=min(message.qos, max(each.qos for each in subscriptions)),
        retain=message.retain and any(each.retain_as_published for each in subscriptions),
        properties=properties,
    )
