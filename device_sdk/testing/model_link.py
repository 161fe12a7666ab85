"""One network connection of :class:`ModelBroker`: bytes in, bytes out, and the rules between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from device_sdk.errors import RemoteProtocolError
from device_sdk.mqtt.codes import REASON_CODES
from device_sdk.mqtt.decode import decode_packet
from device_sdk.mqtt.encode import encode_packet
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
from device_sdk.testing.model_session import LAST_PACKET_ID, Incoming, ModelSession, ModelSubscription

if TYPE_CHECKING:
    from device_sdk.testing.model_broker import ModelBroker

__all__ = ["BrokerLink", "connect_version"]

CONNECT = 0x10
UNSUPPORTED = ""
_VERSIONS = {(b"MQIsdp", 3): "3.1", (b"MQTT", 4): "3.1.1", (b"MQTT", 5): "5.0"}

# MQTT 3.x has five reasons to refuse a connection. Source: MQTT 3.1.1 §3.2.2.3.
_RETURN_CODES = {0x84: 1, 0x85: 2, 0x88: 3, 0x86: 4, 0x87: 5}
_NOT_AUTHORIZED_V3 = 5
# MQTT 3.1 cannot refuse a subscription: the client is told QoS 0 and gets nothing.
_REFUSED_V3 = {"3.1": 0, "3.1.1": 0x80}

_PROTOCOL_ERROR = 0x82
_IDENTIFIER_NOT_FOUND = 0x92
_NEVER_EXPIRES = 0xFFFF_FFFF


def connect_version(data: bytes) -> str | None:
    """Read the protocol version from the first bytes of a CONNECT packet.

    Returns: ``"3.1"``, ``"3.1.1"``, ``"5.0"``, ``""`` for any other protocol, ``None`` while incomplete.
    Source: MQTT 5.0 §3.1.2.1, §3.1.2.2.
    """
    start = next((index for index in range(1, min(len(data), 5)) if data[index] < 0x80), None)
    if start is None:
        return UNSUPPORTED if len(data) >= 5 else None
    name_at = start + 3
    if len(data) < name_at:
        return None
    name_length = int.from_bytes(data[start + 1 : name_at])
    if name_length not in (4, 6):
        return UNSUPPORTED
    if len(data) <= name_at + name_length:
        return None
    name, level = bytes(data[name_at : name_at + name_length]), data[name_at + name_length]
    return _VERSIONS.get((name, level), UNSUPPORTED)


class BrokerLink:
    """The broker's end of one network connection. Made by :meth:`ModelBroker.connect`.

    ``closed``: the broker wants the stream closed once its output is delivered. ``reset`` and ``reading`` are
    for :class:`BrokerServer`: this broker never resets and always reads. ``version`` and ``session`` are
    ``None`` until CONNECT. ``in_flight_peak``: the most QoS 1 and 2 messages that the client had
    unacknowledged at once, as far as the broker can see.
    """

    reset = False
    reading = True

    def __init__(self, broker: ModelBroker) -> None:
        self.broker = broker
        self.version: str | None = None
        self.session: ModelSession | None = None
        self.client_id = ""
        self.closed = False
        self.receive_maximum = LAST_PACKET_ID
        self.keep_alive: float = 0
        self.in_flight_peak = 0
        self._buffer = bytearray()
        # Chunks of output, each with the packet identifier that the client may use again after reading it.
        self._output: list[tuple[bytes, int | None]] = []
        self._in_use: dict[int, str] = {}
        self._aliases: dict[int, str] = {}
        self._maximum_packet_size: float = math.inf
        self._may_resend = False
        self._last_resent = 0
        self._last_heard = 0.0
        self._client_left = False

    # Bytes

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the client and act on every whole packet. ``now`` in seconds, on any clock."""
        self._buffer += data
        if not self.closed:
            self._last_heard = now
            self._handle_packets(now)
        if self._client_left and self._buffer:
            self._note(f"{len(self._buffer)} bytes after DISCONNECT: {self._buffer[:16].hex(' ')}")
        if self.closed:
            self._buffer.clear()

    def data_to_send(self) -> bytes:
        """Return and forget the output so far. The client is taken to have read it."""
        output = b"".join(chunk for chunk, _ in self._output)
        for _, freed in self._output:
            if freed is not None:
                self._in_use.pop(freed, None)
        self._output.clear()
        return output

    def connection_lost(self, now: float) -> None:
        """Say that the stream ended: the will is due, the session waits or ends. Safe to call twice."""
        self.closed = True
        self._leave(now, with_will=True)

    def send(self, packet: Packet, *, frees: int | None = None) -> None:
        """Queue a packet. ``frees``: the packet identifier that it gives back to the client."""
        self._output.append((encode_packet(packet, self.version or "5.0"), frees))

    def send_if_it_fits(self, publish: Publish) -> bool:
        """Queue a PUBLISH unless it exceeds the client's maximum packet size.

        Source: MQTT 5.0 §3.1.2.11.4: the server then behaves as if it had been delivered.
        """
        if self.version != "5.0":
            publish.properties = {}
        data = encode_packet(publish, self.version or "5.0")
        if len(data) > self._maximum_packet_size:
            return False
        self._output.append((data, None))
        return True

    # Time and ends

    def next_deadline(self) -> float | None:
        """Return when silence becomes fatal: one and a half keep alives. Source: MQTT 5.0 §3.1.2.10."""
        if self.closed or not self.keep_alive:
            return None
        return self._last_heard + 1.5 * self.keep_alive

    def handle_deadline(self, now: float) -> None:
        """End the connection when the keep alive has run out."""
        deadline = self.next_deadline()
        if deadline is not None and now >= deadline:
            self.end(0x8D, now)

    def end(self, reason_code: int, now: float, *, with_will: bool = True) -> None:
        """Close from the broker's side, with DISCONNECT in MQTT 5.0. Safe to call twice."""
        if self.closed:
            return
        if self.version == "5.0" and self.session is not None:
            self.send(Disconnect(reason_code))
        elif self.version == "5.0" and reason_code in REASON_CODES["connack"]:
            self.send(Connack(False, reason_code))
        self.closed = True
        self._leave(now, with_will=with_will)

    def _leave(self, now: float, *, with_will: bool) -> None:
        session, self.session = self.session, None
        self.broker.link_ended(self, session, now, with_will=with_will)

    def _note(self, problem: str) -> None:
        """Record a fault of the client."""
        self.broker.violations.append(f"{self.client_id or 'before CONNECT'}: {problem}")

    def _violate(self, problem: str, now: float, reason_code: int = _PROTOCOL_ERROR) -> None:
        """Record a fault of the client and close for it."""
        self._note(problem)
        self.end(reason_code, now)

    # Packets

    def _handle_packets(self, now: float) -> None:
        while self._buffer and not self.closed:
            packet = self._next_packet(now)
            if packet is None:
                return
            self._handle(packet, now)

    def _next_packet(self, now: float) -> Packet | None:
        data = bytes(self._buffer)
        if self.version is None:
            if data[0] != CONNECT:
                self._violate(f"the first packet is not CONNECT: {data[:16].hex(' ')}", now)
                return None
            version = connect_version(data)
            if version is None:
                return None
            if version not in self.broker.versions:
                self._refuse_version(now)
                return None
            self.version = version
        try:
            decoded = decode_packet(data, self.version)
        except RemoteProtocolError as error:
            self._violate(f"{error} in {data[:32].hex(' ')}", now, error.reason_code)
            return None
        if decoded is None:
            return None
        packet, used = decoded
        del self._buffer[:used]
        maximum = self.broker.maximum_packet_size
        if maximum is not None and used > maximum:
            self._violate(f"{packet.type} of {used} bytes, the maximum packet size is {maximum}", now, 0x95)
            return None
        return packet

    def _handle(self, packet: Packet, now: float) -> None:
        handler = _HANDLERS.get(packet.type)
        if handler is None:
            self._violate(f"{packet.type.upper()} is not for clients to send", now)
        else:
            handler(self, packet, now)

    def _refuse_version(self, now: float) -> None:
        # A client of an unknown version can at least read the oldest form of the answer.
        self._note("asks for a protocol version that this broker does not speak")
        modern = "3.1.1" not in self.broker.versions
        self.version = "5.0" if modern else "3.1.1"
        self.send(Connack(False, 0x84 if modern else 1))
        self.closed = True
        self._leave(now, with_will=False)

    def _refuse_connect(self, reason_code: int, now: float) -> None:
        if self.version != "5.0":
            reason_code = _RETURN_CODES.get(reason_code, _NOT_AUTHORIZED_V3)
        self.send(Connack(False, reason_code))
        self.closed = True
        self._leave(now, with_will=False)

    def _on_connect(self, packet: Connect, now: float) -> None:
        broker, answer = self.broker, broker_limits(self.broker) if self.version == "5.0" else {}
        if self.session is not None:
            return self._violate("second CONNECT", now)
        self.client_id = packet.client_id
        if not packet.client_id:
            if self.version == "3.1" or (self.version == "3.1.1" and not packet.clean_start):
                return self._refuse_connect(0x85, now)
            self.client_id = broker.assign_client_id()
            if self.version == "5.0":
                answer["assigned_client_identifier"] = self.client_id
        reason_code = 0x8C if "authentication_method" in packet.properties else 0
        reason_code = reason_code or broker.authorize_connect(packet)
        if reason_code:
            return self._refuse_connect(reason_code, now)
        self._take_connect_properties(packet, answer)
        session, present = broker.open_session(self.client_id, packet.clean_start, now)
        self.session = session
        session.expiry_interval = self._session_expiry(packet, answer)
        session.will = packet.will
        # MQTT 3.1 cannot say whether the session is there: a client that kept its own sends it again.
        self._may_resend = present or (self.version == "3.1" and not packet.clean_start)
        self.send(Connack(present and self.version != "3.1", 0, answer))
        session.attach(self)
        session.send_pending(now)

    def _take_connect_properties(self, packet: Connect, answer: dict[str, Any]) -> None:
        self.receive_maximum = packet.properties.get("receive_maximum", LAST_PACKET_ID)
        self._maximum_packet_size = packet.properties.get("maximum_packet_size", math.inf)
        self.keep_alive = packet.keep_alive
        if self.version == "5.0" and self.broker.server_keep_alive is not None:
            self.keep_alive = answer["server_keep_alive"] = self.broker.server_keep_alive

    def _session_expiry(self, packet: Connect, answer: dict[str, Any]) -> float:
        if self.version != "5.0":
            return 0 if packet.clean_start else math.inf
        wanted = packet.properties.get("session_expiry_interval", 0)
        maximum = self.broker.session_expiry_maximum
        if maximum is not None and wanted > maximum:
            wanted = answer["session_expiry_interval"] = maximum
        return math.inf if wanted == _NEVER_EXPIRES else wanted

    def _on_publish(self, packet: Publish, now: float) -> None:
        self._check_limits(packet, now)
        self._resolve_alias(packet, now)
        if self.closed:
            return
        if packet.qos == 0:
            self.broker.accept(self.client_id, packet, now)
            return
        packet_id = packet.packet_id
        assert packet_id is not None, "the decoder gives every QoS 1 and 2 PUBLISH its packet identifier"
        again = self._check_exchange(packet, packet_id, now)
        if again is None:
            return
        reason_code = 0 if again else self.broker.accept(self.client_id, packet, now)
        if self.version != "5.0":
            reason_code = 0
        assert self.session is not None
        if packet.qos == 1:
            self.send(Puback(packet_id, reason_code), frees=packet_id)
        elif reason_code >= 0x80:
            self.send(Pubrec(packet_id, reason_code), frees=packet_id)
        else:
            self.session.received_ids.add(packet_id)
            self.send(Pubrec(packet_id, reason_code))

    def _check_limits(self, packet: Publish, now: float) -> None:
        """Close for a PUBLISH that ignores what CONNACK announced."""
        broker = self.broker
        if self.version != "5.0":
            return
        in_flight = self._in_flight() + (packet.qos > 0 and packet.packet_id not in self._in_use)
        if packet.qos > broker.maximum_qos:
            self._violate(f"PUBLISH with QoS {packet.qos}, the maximum is {broker.maximum_qos}", now, 0x9B)
        elif packet.retain and not broker.retain_available:
            self._violate("PUBLISH with retain, which is not available", now, 0x9A)
        elif in_flight > broker.receive_maximum:
            problem = f"{in_flight} PUBLISH in flight, the receive maximum is {broker.receive_maximum}"
            self._violate(problem, now, 0x93)

    def _in_flight(self) -> int:
        return sum(kind == "PUBLISH" for kind in self._in_use.values())

    def _resolve_alias(self, packet: Publish, now: float) -> None:
        """Give the packet its topic name. Source: MQTT 5.0 §3.3.2.3.4."""
        alias = packet.properties.get("topic_alias")
        if alias is None:
            return
        if not 0 < alias <= self.broker.topic_alias_maximum:
            self._violate(f"topic alias {alias}, the maximum is {self.broker.topic_alias_maximum}", now, 0x94)
        elif packet.topic:
            self._aliases[alias] = packet.topic
        elif alias in self._aliases:
            packet.topic = self._aliases[alias]
        else:
            self._violate(f"topic alias {alias} was never set on this connection", now)

    def _check_exchange(self, packet: Publish, packet_id: int, now: float) -> bool | None:
        """Check packet identifier and DUP of a QoS 1 or 2 PUBLISH.

        Returns: whether the broker has the message already (QoS 2 before PUBREL); ``None`` if it closed.
        Source: MQTT 5.0 §2.2.1 [MQTT-2.2.1-4], §3.3.1.1, §4.3.3, §4.4 [MQTT-4.4.0-1], §4.6 [MQTT-4.6.0-1].
        """
        assert self.session is not None
        what = f"PUBLISH {packet_id} ({packet.topic})"
        if packet_id in self._in_use:
            self._violate(f"{what}: its packet identifier is in use by {self._in_use[packet_id]}", now)
            return None
        last = self.session.last_incoming.get(packet_id)
        same = last is not None and last.same_message(packet)
        again = packet_id in self.session.received_ids
        if again and not same:
            self._violate(f"{what}: its packet identifier is in use by a QoS 2 message before PUBREL", now)
            return None
        if packet.dup and not self._may_resend:
            self._note(f"{what}: DUP on a first send")
        if last is not None and same and (again or self.broker.unique_messages):
            self._check_repetition(last, packet, what)
        else:
            last = Incoming(packet.topic, packet.payload, packet.qos, self.broker.next_serial())
            self.session.last_incoming[packet_id] = last
        last.link = self
        self._use(packet_id, "PUBLISH")
        return again

    def _check_repetition(self, last: Incoming, packet: Publish, what: str) -> None:
        """Check a message that this session has sent before. Source: MQTT 5.0 §4.4, §4.6."""
        if not packet.dup:
            self._note(f"{what}: sent again without DUP")
        if last.link is self:
            self._note(f"{what}: sent again on a live connection")
        if last.released:
            self._note(f"{what}: sent again after its PUBREL")
        if last.serial < self._last_resent:
            self._note(f"{what}: sent again out of order")
        self._last_resent = last.serial

    def _use(self, packet_id: int, kind: str) -> None:
        self._in_use[packet_id] = kind
        self.in_flight_peak = max(self.in_flight_peak, self._in_flight())

    def _on_pubrel(self, packet: Pubrel, now: float) -> None:
        assert self.session is not None
        packet_id, reason_code = packet.packet_id, 0
        if packet_id in self.session.received_ids:
            self.session.received_ids.discard(packet_id)
            self.session.last_incoming[packet_id].released = True
        else:
            reason_code = _IDENTIFIER_NOT_FOUND if self.version == "5.0" else 0
            if not self._may_resend:
                self._note(f"PUBREL {packet_id} without a QoS 2 message")
        self.send(Pubcomp(packet_id, reason_code), frees=packet_id)

    def _on_puback(self, packet: Puback, now: float) -> None:
        assert self.session is not None
        self._acknowledged(packet, self.session.acknowledge(packet.packet_id, qos=1), now)

    def _on_pubrec(self, packet: Pubrec, now: float) -> None:
        assert self.session is not None
        refused = packet.reason_code >= 0x80
        problem = self.session.acknowledge(packet.packet_id, qos=2, refused=refused)
        if not self._acknowledged(packet, problem, now) or refused:
            return
        unknown = problem is not None and self.version == "5.0"
        self.send(Pubrel(packet.packet_id, _IDENTIFIER_NOT_FOUND if unknown else 0))

    def _on_pubcomp(self, packet: Pubcomp, now: float) -> None:
        assert self.session is not None
        self._acknowledged(packet, self.session.complete(packet.packet_id), now)

    def _acknowledged(self, packet: Puback | Pubrec | Pubcomp, problem: str | None, now: float) -> bool:
        """Go on after an acknowledgement. Returns: the connection is still good."""
        assert self.session is not None
        if problem == "unknown":
            # After a resume the client may answer what the broker, or the network, has forgotten.
            if not self._may_resend:
                self._note(f"{packet.type.upper()} {packet.packet_id} for no message in flight")
        elif problem:
            self._violate(f"{packet.type.upper()} {packet.packet_id} {problem}", now)
            return False
        self.session.send_pending(now)
        return True

    def _on_subscribe(self, packet: Subscribe, now: float) -> None:
        assert self.session is not None
        if not self._start_request(packet, now):
            return
        broker, identifier = self.broker, packet.properties.get("subscription_identifier")
        codes: list[int] = []
        wants_retained: list[ModelSubscription] = []
        for wanted in packet.subscriptions:
            code = broker.authorize_subscribe(self.client_id, wanted)
            if code >= 0x80:
                codes.append(code if self.version == "5.0" else _REFUSED_V3[self.version or ""])
                continue
            subscription = ModelSubscription(
                wanted.topic,
                min(code, broker.maximum_qos),
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
        self.send(Suback(packet.packet_id, codes), frees=packet.packet_id)
        for subscription in wants_retained:
            broker.send_retained(self.session, subscription, now)

    def _on_unsubscribe(self, packet: Unsubscribe, now: float) -> None:
        assert self.session is not None
        if not self._start_request(packet, now):
            return
        subscriptions = self.session.subscriptions
        gone = [subscriptions.pop(each, None) for each in packet.unsubscriptions]
        codes = [0x11 if each is None else 0 for each in gone] if self.version == "5.0" else []
        self.send(Unsuback(packet.packet_id, codes), frees=packet.packet_id)

    def _start_request(self, packet: Subscribe | Unsubscribe, now: float) -> bool:
        assert self.session is not None
        what = f"{packet.type.upper()} {packet.packet_id}"
        if packet.packet_id in self._in_use or packet.packet_id in self.session.received_ids:
            user = self._in_use.get(packet.packet_id, "PUBLISH")
            self._violate(f"{what}: its packet identifier is in use by {user}", now)
            return False
        self._use(packet.packet_id, packet.type.upper())
        return True

    def _on_pingreq(self, packet: Packet, now: float) -> None:
        self.send(Pingresp())

    def _on_disconnect(self, packet: Disconnect, now: float) -> None:
        assert self.session is not None
        expiry = packet.properties.get("session_expiry_interval")
        if expiry and self.session.expiry_interval == 0:
            return self._violate("DISCONNECT sets a session expiry interval that CONNECT had at 0", now)
        if expiry is not None:
            self.session.expiry_interval = math.inf if expiry == _NEVER_EXPIRES else expiry
        self._client_left = True
        self.closed = True
        self._leave(now, with_will=packet.reason_code != 0)


def broker_limits(broker: ModelBroker) -> dict[str, Any]:
    """Return the CONNACK properties that differ from the standard's defaults. Source: MQTT 5.0 §3.2.2.3."""
    table = [
        ("receive_maximum", broker.receive_maximum, LAST_PACKET_ID),
        ("maximum_qos", broker.maximum_qos, 2),
        ("retain_available", int(broker.retain_available), 1),
        ("maximum_packet_size", broker.maximum_packet_size, None),
        ("topic_alias_maximum", broker.topic_alias_maximum, 0),
    ]
    return {name: value for name, value, default in table if value != default}


_HANDLERS: dict[str, Any] = {
    "connect": BrokerLink._on_connect,
    "publish": BrokerLink._on_publish,
    "puback": BrokerLink._on_puback,
    "pubrec": BrokerLink._on_pubrec,
    "pubrel": BrokerLink._on_pubrel,
    "pubcomp": BrokerLink._on_pubcomp,
    "subscribe": BrokerLink._on_subscribe,
    "unsubscribe": BrokerLink._on_unsubscribe,
    "pingreq": BrokerLink._on_pingreq,
    "disconnect": BrokerLink._on_disconnect,
}
