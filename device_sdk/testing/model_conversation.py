"""The reactions of a :class:`ModelBroker` to the packets of one connection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from device_sdk.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from device_sdk.testing.model_book import PROTOCOL_ERROR, ClientBook, Violation
from device_sdk.testing.model_session import LAST_PACKET_ID, ClientLink, ModelSession, ModelSubscription

if TYPE_CHECKING:
    from device_sdk.testing.model_limits import Limits, Permissions

__all__ = ["Broker", "Conversation", "Wire"]

# MQTT 3.x has five reasons to refuse a connection. Source: MQTT 3.1.1 §3.2.2.3.
_RETURN_CODES = {0x84: 1, 0x85: 2, 0x88: 3, 0x86: 4, 0x87: 5}
_NOT_AUTHORIZED_V3 = 5
# MQTT 3.1 cannot refuse a subscription: SUBACK grants QoS 0 and the client gets no messages.
_REFUSED_V3 = {"3.1": 0, "3.1.1": 0x80}

_IDENTIFIER_NOT_FOUND = 0x92
_NEVER_EXPIRES = 0xFFFF_FFFF


class Wire(ClientLink, Protocol):
    """The connection itself. ``version`` is known before the first packet comes here."""

    version: str | None
    closed: bool

    def agree(self, keep_alive: float, maximum_packet_size: float) -> None:
        """Take the connection's fields of CONNECT: seconds, bytes."""

    def close(self, now: float, *, with_will: bool) -> None:
        """Close without another packet."""


class Broker(Protocol):
    """The methods of a broker that a conversation calls; see :class:`ModelBroker`."""

    limits: Limits
    permissions: Permissions
    unique_messages: bool
    violations: list[str]

    def next_serial(self) -> int:
        """Count the messages that arrived for the first time."""

    def assign_client_id(self) -> str:
        """Return a client identifier that no session has."""

    def open_session(self, client_id: str, clean_start: bool, now: float) -> tuple[ModelSession, bool]:
        """Find or make the session; return whether it was present."""

    def link_ended(
        self, link: ClientLink, session: ModelSession | None, now: float, *, with_will: bool
    ) -> None:
        """Take the end of a connection."""

    def accept(self, client_id: str, packet: Publish, now: float) -> int:
        """Take a PUBLISH from a client. Returns: the reason code."""

    def send_retained(self, session: ModelSession, subscription: ModelSubscription, now: float) -> None:
        """Send the retained messages that a new subscription matches."""


class Conversation:
    """The broker's side of one connection, packet by packet.

    ``session`` is ``None`` before CONNECT and after the end. ``has_left``: the client has sent DISCONNECT.
    """

    def __init__(self, link: Wire, broker: Broker) -> None:
        self.session: ModelSession | None = None
        self.client_id = ""
        self.receive_maximum = LAST_PACKET_ID
        self.has_left = False
        self.book = ClientBook(broker.limits, self.note, broker.next_serial)
        self._link = link
        self._broker = broker

    def handle(self, packet: Packet, now: float) -> None:
        """Act on a packet of the client."""
        handler = _HANDLERS.get(packet.type)
        try:
            if handler is None:
                raise Violation(f"{packet.type.upper()} is not for clients to send")
            handler(self, packet, now)
        except Violation as violation:
            self.violate(str(violation), now, violation.reason_code)

    def note(self, problem: str) -> None:
        """Record a fault of the client."""
        self._broker.violations.append(f"{self.client_id or 'before CONNECT'}: {problem}")

    def violate(self, problem: str, now: float, reason_code: int = PROTOCOL_ERROR) -> None:
        """Record a fault of the client and close for it."""
        self.note(problem)
        self._link.end(reason_code, now)

    def leave(self, now: float, *, with_will: bool) -> None:
        """Take the end of the connection. Safe to call twice."""
        session, self.session = self.session, None
        self._broker.link_ended(self._link, session, now, with_will=with_will)

    @property
    def _is_modern(self) -> bool:
        return self._link.version == "5.0"

    def _refuse_connect(self, reason_code: int, now: float) -> None:
        if not self._is_modern:
            reason_code = _RETURN_CODES.get(reason_code, _NOT_AUTHORIZED_V3)
        self._link.send(Connack(False, reason_code))
        self._link.close(now, with_will=False)

    def _on_connect(self, packet: Connect, now: float) -> None:
        broker, version = self._broker, self._link.version
        if self.session is not None:
            raise Violation("second CONNECT")
        answer = broker.limits.announced() if self._is_modern else {}
        self.client_id = packet.client_id
        if not packet.client_id:
            if version == "3.1" or (version == "3.1.1" and not packet.clean_start):
                return self._refuse_connect(0x85, now)
            self.client_id = broker.assign_client_id()
            if self._is_modern:
                answer["assigned_client_identifier"] = self.client_id
        reason_code = 0x8C if "authentication_method" in packet.properties else 0
        reason_code = reason_code or broker.permissions.connect(packet)
        if reason_code:
            return self._refuse_connect(reason_code, now)
        self._take_connect_properties(packet, answer)
        session, present = broker.open_session(self.client_id, packet.clean_start, now)
        self.session = session
        session.expiry_interval = self._session_expiry(packet, answer)
        session.will = packet.will
        # MQTT 3.1 cannot report whether the session is there: a client that kept its own sends it again.
        self.book.may_resend = present or (version == "3.1" and not packet.clean_start)
        self._link.send(Connack(present and version != "3.1", 0, answer))
        session.attach(self._link)
        session.send_pending(now)

    def _take_connect_properties(self, packet: Connect, answer: dict[str, Any]) -> None:
        self.receive_maximum = packet.properties.get("receive_maximum", LAST_PACKET_ID)
        keep_alive: float = packet.keep_alive
        if self._is_modern and self._broker.limits.server_keep_alive is not None:
            keep_alive = answer["server_keep_alive"] = self._broker.limits.server_keep_alive
        self._link.agree(keep_alive, packet.properties.get("maximum_packet_size", math.inf))

    def _session_expiry(self, packet: Connect, answer: dict[str, Any]) -> float:
        if not self._is_modern:
            return 0 if packet.clean_start else math.inf
        wanted = packet.properties.get("session_expiry_interval", 0)
        maximum = self._broker.limits.session_expiry_maximum
        if maximum is not None and wanted > maximum:
            wanted = answer["session_expiry_interval"] = maximum
        return math.inf if wanted == _NEVER_EXPIRES else wanted

    def _on_publish(self, packet: Publish, now: float) -> None:
        if self._is_modern:
            self.book.check_limits(packet)
        self.book.resolve_alias(packet)
        if packet.qos == 0:
            self._broker.accept(self.client_id, packet, now)
            return
        packet_id = packet.packet_id
        assert packet_id is not None, "the decoder gives every QoS 1 and 2 PUBLISH its packet identifier"
        assert self.session is not None
        again = self.book.take(self.session, packet, packet_id, unique=self._broker.unique_messages)
        reason_code = 0 if again else self._broker.accept(self.client_id, packet, now)
        if not self._is_modern:
            reason_code = 0
        if packet.qos == 1:
            self._link.send(Puback(packet_id, reason_code), frees=packet_id)
        elif reason_code >= 0x80:
            self._link.send(Pubrec(packet_id, reason_code), frees=packet_id)
        else:
            self.session.received_ids.add(packet_id)
            self._link.send(Pubrec(packet_id, reason_code))

    def _on_pubrel(self, packet: Pubrel, now: float) -> None:
        assert self.session is not None
        packet_id, reason_code = packet.packet_id, 0
        if packet_id in self.session.received_ids:
            self.session.received_ids.discard(packet_id)
            self.session.last_incoming[packet_id].released = True
        else:
            reason_code = _IDENTIFIER_NOT_FOUND if self._is_modern else 0
            if not self.book.may_resend:
                self.note(f"PUBREL {packet_id} without a QoS 2 message")
        self._link.send(Pubcomp(packet_id, reason_code), frees=packet_id)

    def _on_puback(self, packet: Puback, now: float) -> None:
        assert self.session is not None
        self._acknowledged(packet, self.session.acknowledge(packet.packet_id, qos=1), now)

    def _on_pubrec(self, packet: Pubrec, now: float) -> None:
        assert self.session is not None
        refused = packet.reason_code >= 0x80
        problem = self.session.acknowledge(packet.packet_id, qos=2, refused=refused)
        self._acknowledged(packet, problem, now)
        if not refused:
            unknown = problem is not None and self._is_modern
            self._link.send(Pubrel(packet.packet_id, _IDENTIFIER_NOT_FOUND if unknown else 0))

    def _on_pubcomp(self, packet: Pubcomp, now: float) -> None:
        assert self.session is not None
        self._acknowledged(packet, self.session.complete(packet.packet_id), now)

    def _acknowledged(self, packet: Puback | Pubrec | Pubcomp, problem: str | None, now: float) -> None:
        """Go on after an acknowledgement."""
        assert self.session is not None
        if problem == "unknown":
            # After a resume the client may answer what the broker, or the network, has forgotten.
            if not self.book.may_resend:
                self.note(f"{packet.type.upper()} {packet.packet_id} for no message in flight")
        elif problem:
            raise Violation(f"{packet.type.upper()} {packet.packet_id} {problem}")
        self.session.send_pending(now)

    def _on_subscribe(self, packet: Subscribe, now: float) -> None:
        assert self.session is not None
        self.book.take_request(self.session, packet)
        broker, identifier = self._broker, packet.properties.get("subscription_identifier")
        codes: list[int] = []
        wants_retained: list[ModelSubscription] = []
        for wanted in packet.subscriptions:
            code = broker.permissions.subscribe(self.client_id, wanted)
            if code >= 0x80:
                codes.append(code if self._is_modern else _REFUSED_V3[self._link.version or ""])
                continue
            subscription = ModelSubscription(
                wanted.topic,
                min(code, broker.limits.maximum_qos),
                wanted.no_local,
                wanted.retain_as_published,
                wanted.retain_handling,
                identifier,
            )
            handling = 2 if subscription.shared else wanted.retain_handling
            if handling == 0 or (handling == 1 and wanted.topic not in self.session.subscriptions):
                wants_retained.append(subscription)
            self.session.subscriptions[wanted.topic] = subscription
            codes.append(subscription.qos)
        self._link.send(Suback(packet.packet_id, codes), frees=packet.packet_id)
        for subscription in wants_retained:
            broker.send_retained(self.session, subscription, now)

    def _on_unsubscribe(self, packet: Unsubscribe, now: float) -> None:
        assert self.session is not None
        self.book.take_request(self.session, packet)
        subscriptions = self.session.subscriptions
        gone = [subscriptions.pop(each, None) for each in packet.unsubscriptions]
        codes = [0x11 if each is None else 0 for each in gone] if self._is_modern else []
        self._link.send(Unsuback(packet.packet_id, codes), frees=packet.packet_id)

    def _on_pingreq(self, packet: Packet, now: float) -> None:
        self._link.send(Pingresp())

    def _on_disconnect(self, packet: Disconnect, now: float) -> None:
        assert self.session is not None
        expiry = packet.properties.get("session_expiry_interval")
        if expiry and self.session.expiry_interval == 0:
            raise Violation("DISCONNECT sets a session expiry interval that CONNECT had at 0")
        if expiry is not None:
            self.session.expiry_interval = math.inf if expiry == _NEVER_EXPIRES else expiry
        self.has_left = True
        self._link.close(now, with_will=packet.reason_code != 0)


_HANDLERS: dict[str, Any] = {
    "connect": Conversation._on_connect,
    "publish": Conversation._on_publish,
    "puback": Conversation._on_puback,
    "pubrec": Conversation._on_pubrec,
    "pubrel": Conversation._on_pubrel,
    "pubcomp": Conversation._on_pubcomp,
    "subscribe": Conversation._on_subscribe,
    "unsubscribe": Conversation._on_unsubscribe,
    "pingreq": Conversation._on_pingreq,
    "disconnect": Conversation._on_disconnect,
}
