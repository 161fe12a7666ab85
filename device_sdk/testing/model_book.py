"""State of a client's exchanges on one connection, and the rules for its next packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from device_sdk.testing.model_session import Incoming, ModelSession

if TYPE_CHECKING:
    from device_sdk.mqtt.packets import Publish, Subscribe, Unsubscribe
    from device_sdk.testing.model_limits import Limits

__all__ = ["PROTOCOL_ERROR", "ClientBook", "Violation"]

PROTOCOL_ERROR = 0x82


class Violation(Exception):
    """A client broke a rule; the broker closes with this reason code."""

    def __init__(self, problem: str, reason_code: int = PROTOCOL_ERROR) -> None:
        super().__init__(problem)
        self.reason_code = reason_code


class ClientBook:
    """The packet identifiers and topic aliases of a client on one connection.

    ``note`` is called with a fault that does not close the connection. ``next_serial`` counts the messages
    that arrived for the first time. ``may_resend``: the client resumes a session. ``peak``: the largest
    number of unacknowledged QoS 1 and 2 messages.
    """

    def __init__(self, limits: Limits, note: Callable[[str], None], next_serial: Callable[[], int]) -> None:
        self.may_resend = False
        self.peak = 0
        self._limits = limits
        self._note = note
        self._next_serial = next_serial
        self._in_use: dict[int, str] = {}
        self._aliases: dict[int, str] = {}
        self._last_resent = 0

    def free(self, packet_id: int) -> None:
        """Note that the client may use the packet identifier again."""
        self._in_use.pop(packet_id, None)

    def check_limits(self, packet: Publish) -> None:
        """Raise Violation for a PUBLISH beyond the limits of CONNACK."""
        limits = self._limits
        in_flight = self._in_flight() + (packet.qos > 0 and packet.packet_id not in self._in_use)
        if packet.qos > limits.maximum_qos:
            raise Violation(f"PUBLISH with QoS {packet.qos}, the maximum is {limits.maximum_qos}", 0x9B)
        if packet.retain and not limits.retain_available:
            raise Violation("PUBLISH with retain, which is not available", 0x9A)
        if in_flight > limits.receive_maximum:
            raise Violation(
                f"{in_flight} PUBLISH in flight, the receive maximum is {limits.receive_maximum}", 0x93
            )

    def resolve_alias(self, packet: Publish) -> None:
        """Give the packet its topic name. Raises: Violation. Source: MQTT 5.0 §3.3.2.3.4."""
        alias = packet.properties.get("topic_alias")
        if alias is None:
            return
        maximum = self._limits.topic_alias_maximum
        if not 0 < alias <= maximum:
            raise Violation(f"topic alias {alias}, the maximum is {maximum}", 0x94)
        if packet.topic:
            self._aliases[alias] = packet.topic
        elif alias in self._aliases:
            packet.topic = self._aliases[alias]
        else:
            raise Violation(f"topic alias {alias} was never set on this connection")

    def take(self, session: ModelSession, packet: Publish, packet_id: int, *, unique: bool) -> bool:
        """Check packet identifier and DUP of a QoS 1 or 2 PUBLISH.

        ``unique``: a message with known content is a repetition. Raises: Violation.
        Returns: whether the broker has the message already (QoS 2 before PUBREL).
        Source: MQTT 5.0 §2.2.1 [MQTT-2.2.1-4], §3.3.1.1, §4.3.3, §4.4 [MQTT-4.4.0-1], §4.6 [MQTT-4.6.0-1].
        """
        what = f"PUBLISH {packet_id} ({packet.topic})"
        if packet_id in self._in_use:
            raise Violation(f"{what}: its packet identifier is in use by {self._in_use[packet_id]}")
        last = session.last_incoming.get(packet_id)
        same = last is not None and last.same_message(packet)
        again = packet_id in session.received_ids
        if again and not same:
            raise Violation(f"{what}: its packet identifier is in use by a QoS 2 message before PUBREL")
        if packet.dup and not self.may_resend:
            self._note(f"{what}: DUP on a first send")
        if last is not None and same and (again or unique):
            self._check_repetition(last, packet, what)
        else:
            last = Incoming(packet.topic, packet.payload, packet.qos, self._next_serial())
            session.last_incoming[packet_id] = last
        last.book = self
        self._use(packet_id, "PUBLISH")
        return again

    def _check_repetition(self, last: Incoming, packet: Publish, what: str) -> None:
        """Check a message that this session has sent before. Source: MQTT 5.0 §4.4, §4.6."""
        if not packet.dup:
            self._note(f"{what}: sent again without DUP")
        if last.book is self:
            self._note(f"{what}: sent again on a live connection")
        if last.released:
            self._note(f"{what}: sent again after its PUBREL")
        if last.serial < self._last_resent:
            self._note(f"{what}: sent again out of order")
        self._last_resent = last.serial

    def take_request(self, session: ModelSession, packet: Subscribe | Unsubscribe) -> None:
        """Take the packet identifier of a SUBSCRIBE or UNSUBSCRIBE. Raises: Violation: it is in use."""
        what = f"{packet.type.upper()} {packet.packet_id}"
        if packet.packet_id in self._in_use or packet.packet_id in session.received_ids:
            user = self._in_use.get(packet.packet_id, "PUBLISH")
            raise Violation(f"{what}: its packet identifier is in use by {user}")
        self._use(packet.packet_id, packet.type.upper())

    def _use(self, packet_id: int, kind: str) -> None:
        self._in_use[packet_id] = kind
        self.peak = max(self.peak, self._in_flight())

    def _in_flight(self) -> int:
        return sum(kind == "PUBLISH" for kind in self._in_use.values())
