"""A whole MQTT broker without a socket, a thread or a clock: the model of a broker for tests.

It speaks MQTT 3.1, 3.1.1 and 5.0 at once, is deterministic, and checks its clients strictly: their messages
are in ``journal``, their faults in ``violations``::

    broker = ModelBroker(receive_maximum=5)
    link = broker.connect()
    link.receive_data(bytes_from_client, now=0.0)
    bytes_to_client = link.data_to_send()

Unlike a production broker it has no bounds: queue, retained messages and journal grow without limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.packets import Connect, Publish
from device_sdk.mqtt.topics import topic_matches
from device_sdk.testing.model_limits import Limits, Permissions
from device_sdk.testing.model_link import BrokerLink
from device_sdk.testing.model_session import (
    LAST_PACKET_ID,
    ClientLink,
    ModelMessage,
    ModelSession,
    ModelSubscription,
    merged,
)

__all__ = ["JournalEntry", "ModelBroker"]

# Properties that a broker forwards from publisher to subscriber. Source: MQTT 5.0 §3.3.2.3.
_FORWARDED = (
    "payload_format_indicator",
    "content_type",
    "response_topic",
    "correlation_data",
    "user_property",
)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One PUBLISH that the broker accepted from a client; at QoS 2 exactly one for each exchange."""

    client_id: str
    topic: str
    payload: bytes
    qos: int
    packet_id: int | None
    dup: bool
    retain: bool = False
    properties: dict[str, Any] = field(default_factory=dict)


def _accept(*_: object) -> int:
    return 0


def _grant(_: str, wanted: Subscription) -> int:
    return wanted.qos


class ModelBroker:
    """The model of an MQTT broker. Not thread-safe; :class:`BrokerServer` serialises for you.

    Limits (MQTT 5.0 announces them in CONNACK and a client that breaks one is a violation):
    ``receive_maximum``, ``maximum_qos``, ``retain_available``, ``maximum_packet_size`` in bytes,
    ``topic_alias_maximum``, ``server_keep_alive`` and ``session_expiry_maximum`` in seconds.

    ``versions``: the protocol versions it speaks. The limits are in ``limits``; a test may change them for
    later connections.

    ``authorize_connect(connect)``, ``authorize_publish(client_id, publish)`` return an MQTT 5.0 reason code,
    0 to accept; MQTT 3.x clients get the nearest return code, and for a refused PUBLISH a plain
    acknowledgement, as there is no other. ``authorize_subscribe(client_id, subscription)`` returns the
    granted QoS, or a reason code of 0x80 and above.

    ``unique_messages``: the test never publishes the same topic and payload twice with one client, so that
    repetitions can be recognised and checked: DUP set, in the first order, not after PUBREL.

    Read-only for tests: ``journal`` (:class:`JournalEntry`, in order of acceptance), ``violations`` (str),
    ``sessions`` by client identifier, ``retained`` by topic name, ``links`` now open, in order.
    """

    def __init__(
        self,
        *,
        versions: Sequence[str] = ("3.1", "3.1.1", "5.0"),
        receive_maximum: int = LAST_PACKET_ID,
        maximum_qos: int = 2,
        retain_available: bool = True,
        maximum_packet_size: int | None = None,
        topic_alias_maximum: int = 10,
        server_keep_alive: int | None = None,
        session_expiry_maximum: int | None = None,
        authorize_connect: Callable[[Connect], int] = _accept,
        authorize_publish: Callable[[str, Publish], int] = _accept,
        authorize_subscribe: Callable[[str, Subscription], int] = _grant,
        unique_messages: bool = False,
    ) -> None:
        self.versions = tuple(versions)
        self.limits = Limits(
            receive_maximum,
            maximum_qos,
            retain_available,
            maximum_packet_size,
            topic_alias_maximum,
            server_keep_alive,
            session_expiry_maximum,
        )
        self.permissions = Permissions(authorize_connect, authorize_publish, authorize_subscribe)
        self.unique_messages = unique_messages
        self.journal: list[JournalEntry] = []
        self.violations: list[str] = []
        self.sessions: dict[str, ModelSession] = {}
        self.retained: dict[str, ModelMessage] = {}
        self.links: list[BrokerLink] = []
        self._last_served: dict[str, str] = {}
        self._serial = 0
        self._assigned = 0

    # For the test

    @property
    def receive_maximum(self) -> int:
        """Receive Maximum for the next connection; may be set."""
        return self.limits.receive_maximum

    @receive_maximum.setter
    def receive_maximum(self, receive_maximum: int) -> None:
        self.limits.receive_maximum = receive_maximum

    @property
    def server_keep_alive(self) -> int | None:
        """Server Keep Alive for the next connection, in seconds; may be set."""
        return self.limits.server_keep_alive

    @server_keep_alive.setter
    def server_keep_alive(self, seconds: int | None) -> None:
        self.limits.server_keep_alive = seconds

    def connect(self) -> BrokerLink:
        """Accept a new network connection."""
        link = BrokerLink(self, self.versions)
        self.links.append(link)
        return link

    def publish(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        properties: dict[str, Any] | None = None,
        now: float = 0.0,
    ) -> None:
        """Publish to the subscribers as another client would. ``properties`` as in :class:`Publish`."""
        self._route(Publish(topic, payload, qos=qos, retain=retain, properties=properties), "", now)

    def disconnect_all(self, now: float, reason_code: int = 0x8B) -> None:
        """Close every connection from the broker's side (0x8B: server shutting down). Sessions stay."""
        for link in list(self.links):
            link.end(reason_code, now)

    def forget_sessions(self, now: float) -> None:
        """Lose every session, as a broker without persistence does when it restarts. Retained stay."""
        for link in list(self.links):
            link.end(0x8B, now, with_will=False)
        self.sessions.clear()

    def payloads(self, topic: str | None = None) -> list[bytes]:
        """Return the journal's payloads in order, of all topics or of one."""
        return [entry.payload for entry in self.journal if topic is None or entry.topic == topic]

    # Time

    def next_deadline(self) -> float | None:
        """Return when :meth:`handle_deadline` is due next: keep alive, will delay, session expiry."""
        deadlines: list[float | None] = [link.next_deadline() for link in self.links]
        for session in self.sessions.values():
            deadlines += (session.will_at, session.ends_at)
        return min((each for each in deadlines if each is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """Do the work that is due at ``now``."""
        for link in list(self.links):
            link.handle_deadline(now)
        for session in list(self.sessions.values()):
            if session.will_at is not None and now >= session.will_at:
                self._publish_will(session, now)
            if session.ends_at is not None and now >= session.ends_at:
                self._end_session(session, now)

    # For the links

    def next_serial(self) -> int:
        """Count the messages that arrived for the first time."""
        self._serial += 1
        return self._serial

    def assign_client_id(self) -> str:
        """Return a client identifier that no session has. Source: MQTT 5.0 §3.1.3.1."""
        self._assigned += 1
        return f"assigned-{self._assigned}"

    def open_session(self, client_id: str, clean_start: bool, now: float) -> tuple[ModelSession, bool]:
        """Find or make the session, taking it over from an open connection.

        Returns: the session, and whether it was present. Source: MQTT 5.0 §3.1.2.4, §3.1.4 [MQTT-3.1.4-3].
        """
        self.handle_deadline(now)
        session = self.sessions.get(client_id)
        if session is not None and session.link is not None:
            session.link.end(0x8E, now)
        session = self.sessions.get(client_id)
        if session is not None and clean_start:
            self._end_session(session, now)
            session = None
        if session is not None:
            return session, True
        self.sessions[client_id] = session = ModelSession(client_id)
        return session, False

    def link_ended(
        self, link: ClientLink, session: ModelSession | None, now: float, *, with_will: bool
    ) -> None:
        """Take the end of a connection: will and session wait for their time, or end now.

        Source: MQTT 5.0 §3.1.2.5 [MQTT-3.1.2-8], §3.1.2.11.2, §3.1.3.2.2.
        """
        self.links[:] = [each for each in self.links if each is not link]
        if session is None:
            return
        session.link = None
        if not with_will:
            session.will = None
        delay = session.will.properties.get("will_delay_interval", 0) if session.will else 0
        if session.will:
            session.will_at = now + min(delay, session.expiry_interval)
        if session.expiry_interval < math.inf:
            session.ends_at = now + session.expiry_interval
        if session.will and session.will_at == now:
            self._publish_will(session, now)
        if session.expiry_interval == 0:
            self._end_session(session, now)

    def accept(self, client_id: str, packet: Publish, now: float) -> int:
        """Take a PUBLISH from a client into the journal and to the subscribers. Returns: the reason code."""
        reason_code = self.permissions.publish(client_id, packet)
        if reason_code >= 0x80:
            return reason_code
        self.journal.append(
            JournalEntry(
                client_id,
                packet.topic,
                packet.payload,
                packet.qos,
                packet.packet_id,
                packet.dup,
                packet.retain,
                packet.properties,
            )
        )
        self._route(packet, client_id, now)
        return reason_code

    def _route(self, packet: Publish, publisher: str, now: float) -> None:
        """Keep a retained message and hand a copy to every session that subscribed."""
        message = _message_of(packet, publisher, now)
        if message.retain and message.payload:
            self.retained[message.topic] = message
        elif message.retain:
            self.retained.pop(message.topic, None)
        for session in list(self.sessions.values()):
            copy = session.matching(message)
            if copy is not None:
                session.offer(copy, now)
        for shared in self._shared_filters(message.topic):
            session = self._next_member(shared)
            copy = merged(message, [session.subscriptions[shared]])
            if copy is not None:
                session.offer(copy, now)

    def send_retained(self, session: ModelSession, subscription: ModelSubscription, now: float) -> None:
        """Send the retained messages that a new subscription matches. Source: MQTT 5.0 §3.3.1.3."""
        for topic, message in list(self.retained.items()):
            if message.expired(now):
                del self.retained[topic]
            elif topic_matches(subscription.topic, topic):
                copy = merged(message, [replace(subscription, retain_as_published=True)])
                if copy is not None:
                    session.offer(copy, now)

    def _shared_filters(self, topic: str) -> Iterable[str]:
        """Return the shared subscriptions that match, each once."""
        found: dict[str, None] = {}
        for session in self.sessions.values():
            for subscription in session.subscriptions.values():
                if subscription.shared and topic_matches(subscription.topic, topic):
                    found[subscription.topic] = None
        return found

    def _next_member(self, shared: str) -> ModelSession:
        """Return the member whose turn it is, connected ones first. Source: MQTT 5.0 §4.8.2."""
        members = [session for session in self.sessions.values() if shared in session.subscriptions]
        ids = [session.client_id for session in members]
        last = self._last_served.get(shared)
        turn = ids.index(last) + 1 if last in ids else 0
        members = members[turn:] + members[:turn]
        chosen = next((session for session in members if session.link is not None), members[0])
        self._last_served[shared] = chosen.client_id
        return chosen

    def _publish_will(self, session: ModelSession, now: float) -> None:
        will, session.will, session.will_at = session.will, None, None
        if will is None:
            return
        publish = Publish(
            will.topic, will.payload, qos=will.qos, retain=will.retain, properties=dict(will.properties)
        )
        if self.permissions.publish(session.client_id, publish) < 0x80:
            self._route(publish, session.client_id, now)

    def _end_session(self, session: ModelSession, now: float) -> None:
        """Discard a session; a will that still waits is published now. Source: MQTT 5.0 §3.1.3.2.2."""
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        self._publish_will(session, now)


def _message_of(packet: Publish, publisher: str, now: float) -> ModelMessage:
    """Return the broker's form of a PUBLISH or a will: no alias, and an absolute time of expiry."""
    expiry = packet.properties.get("message_expiry_interval")
    return ModelMessage(
        packet.topic,
        packet.payload,
        packet.qos,
        packet.retain,
        {name: packet.properties[name] for name in _FORWARDED if name in packet.properties},
        None if expiry is None else now + expiry,
        publisher,
    )
