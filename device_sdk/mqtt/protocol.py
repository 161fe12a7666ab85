"""One network connection, sans-IO: bytes and time go in, events and bytes come out.

A :class:`Protocol` lives as long as its connection; the :class:`~device_sdk.mqtt.session.Session` behind it
outlives it. Nothing here opens a socket, reads a clock or starts a thread, and :meth:`Protocol.receive_data`
never raises for what the peer does: events decoded before a fault are returned, the last one tells the fault.
"""

from __future__ import annotations

from collections import OrderedDict

from device_sdk.errors import (
    ArgumentError,
    DroppedError,
    LocalProtocolError,
    RemoteProtocolError,
    TransportClosedError,
)
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.events import (
    AuthReceived,
    ConnectAcknowledged,
    ConnectionEnded,
    PayloadNotText,
    SessionUnknown,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from device_sdk.mqtt.keep_alive import DEAD
from device_sdk.mqtt.packets import Auth, Disconnect, Pubcomp, Pubrel, Subscribe, Unsubscribe
from device_sdk.mqtt.receive import CLOSED, CONNECTED, CONNECTING, DISCONNECTING, IDLE, Receiver
from device_sdk.mqtt.refusals import connect_refused, disconnected, publish_refused
from device_sdk.mqtt.session import DROPPED, FIRST_BYTES, REFUSED, SENT, SHORT_LENGTHS
from device_sdk.mqtt.wire import encode_varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.message import Message, Subscription
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.packets import Connack, Packet
    from device_sdk.mqtt.session import Outgoing, Session

    Event = (
        Message
        | Outgoing
        | ConnectAcknowledged
        | SubscribeAcknowledged
        | UnsubscribeAcknowledged
        | AuthReceived
        | PayloadNotText
        | ConnectionEnded
    )

__all__ = ["CLOSED", "CONNECTED", "CONNECTING", "DISCONNECTING", "IDLE", "LONGEST_CLIENT_ID", "Protocol"]

#: Characters of a client identifier that a server may give us: it is kept, and repeated in every CONNECT.
LONGEST_CLIENT_ID = 1_024

_LARGEST_PACKET = 268_435_460
_DUP = 0x08
_PINGREQ = b"\xc0\x00"
_EXPLANATIONS = ("reason_string", "user_property")


class Protocol(Receiver):
    """The client's end of one network connection.

    ``inflight`` bounds the unacknowledged QoS 1 and 2 messages together with the server's receive maximum;
    ``vouched``: the application says that it shares a session with the server, whatever we know about it.
    Not thread-safe: the engine's lock guards it.

    After CONNACK these tell what the server allows: ``window`` (messages in flight), ``server`` (the
    properties of CONNACK), ``keep_alive.interval`` (seconds, 0 is off).
    """

    def __init__(
        self, session: Session, options: ConnectOptions, *, inflight: int = 20, vouched: bool = False
    ) -> None:
        super().__init__(options)
        self.session = session
        self.options = options
        self.version = options.version
        self.state = IDLE
        self.window = 0
        self.server: dict[str, Any] = {}
        self.buffered = 0  # bytes that wait in data_to_send()
        self._inflight = inflight
        self._vouched = vouched
        self._clean_start = True
        self._gates: list[tuple[int, int]] = []  # (index of a chunk in _out, change it must not overtake)
        self._urgent: list[bytes] = []
        self._last_packet: bytes | None = None
        self._resend: OrderedDict[int, Outgoing] = OrderedDict()  # to be repeated when there is room
        self._refused_flags: frozenset[int] = frozenset()
        self._largest_packet = _LARGEST_PACKET
        self._connect_deadline = 0.0

    # What goes out

    def connect(self, now: float, *, clean_start: bool) -> None:
        """Queue CONNECT. Source: MQTT 5.0 §3.1."""
        self.state = CONNECTING
        self._clean_start = clean_start
        self._connect_deadline = now + self.options.connect_timeout
        self._send(self.options.encode(clean_start=clean_start))

    def publish_qos0(self, topic_field: bytes, payload: bytes, flags: int, properties: bytes) -> None:
        """Queue a QoS 0 PUBLISH; the arguments are those of :class:`Outgoing`.

        Raises: LocalProtocolError: the server does not take it (see :meth:`check`).
        """
        size = len(topic_field) + len(properties) + len(payload)
        length = SHORT_LENGTHS[size] if size < 128 else encode_varint(size)
        packet = b"".join((FIRST_BYTES[flags], length, topic_field, properties, payload))
        size = len(packet)
        if size > self._largest_packet or flags in self._refused_flags:
            self.check(flags, size)
        self._out.append(packet)
        self.buffered += size

    def send_encoded(self, packet: bytes, flags: int) -> None:
        """Queue an encoded QoS 0 PUBLISH. Raises: as :meth:`publish_qos0`."""
        if len(packet) > self._largest_packet or flags in self._refused_flags:
            self.check(flags, len(packet))
        self._out.append(packet)
        self.buffered += len(packet)

    def publish(self, message: Outgoing, now: float = 0.0) -> int:
        """Give a QoS 1 or 2 message its packet identifier and queue its PUBLISH, encoded once and for all.

        The caller has made sure that there is room in the window. ``now`` matters only with an expiry.

        Raises: LocalProtocolError: the server does not take it; nothing has changed then.
        Source: MQTT 5.0 §4.3.2, §4.3.3.
        """
        session, flags = self.session, message.flags
        packet_id = session.allocate()
        packet = message.encode(packet_id, now)
        if len(packet) > self._largest_packet or flags in self._refused_flags:
            self.check(flags, len(packet))
        message.packet_id = packet_id
        message.packet = packet
        message.status = SENT
        session.in_flight[packet_id] = message
        if session.journal:
            number = session.record(("sent", message.sequence, packet_id))
            if flags >= 4:
                self._gates.append((len(self._out), number))
        self._out.append(packet)
        self.buffered += len(packet)
        return packet_id

    def check(self, flags: int, size: int) -> None:
        """Make sure that the server takes a PUBLISH of ``size`` bytes with these flags.

        Raises: LocalProtocolError: above Maximum QoS, RETAIN without Retain Available, above Maximum Packet
        Size. Source: MQTT 5.0 §3.2.2.3 [MQTT-3.2.2-11] [MQTT-3.2.2-14] [MQTT-3.2.2-15].
        """
        if flags in self._refused_flags:
            if flags >> 1 > self.server.get("maximum_qos", 2):
                raise LocalProtocolError(f"qos: the server's Maximum QoS is {self.server['maximum_qos']}")
            raise LocalProtocolError("retain: the server does not support retained messages")
        if size > self._largest_packet:
            raise LocalProtocolError(
                f"payload: a PUBLISH of {size} bytes is larger than the {self._largest_packet} bytes "
                "that the server accepts (Maximum Packet Size)"
            )

    def unavailable(self, topic_filter: str) -> int:
        """Return the reason code with which the server would refuse this kind of filter, 0 if it has it.

        Source: MQTT 5.0 §3.2.2.3.11, §3.2.2.3.13: to ask all the same is a protocol error.
        """
        server = self.server
        if topic_filter.startswith("$share/") and not server.get("shared_subscription_available", 1):
            return 0x9E
        if not server.get("wildcard_subscription_available", 1) and (
            "#" in topic_filter or "+" in topic_filter
        ):
            return 0xA2
        return 0

    def subscribe(self, subscriptions: list[Subscription], properties: dict[str, Any] | None = None) -> int:
        """Queue SUBSCRIBE and return its packet identifier.

        Raises: LocalProtocolError: larger than the server accepts. ArgumentError: not encodable.
        """
        return self._request(Subscribe(0, subscriptions, properties), len(subscriptions))

    def unsubscribe(self, topic_filters: list[str], properties: dict[str, Any] | None = None) -> int:
        """Queue UNSUBSCRIBE and return its packet identifier. Raises: as :meth:`subscribe`."""
        return self._request(Unsubscribe(0, topic_filters, properties), len(topic_filters))

    def auth(self, reason_code: int, properties: dict[str, Any]) -> None:
        """Queue AUTH: 0x18 continues, 0x19 begins a re-authentication.

        Raises: LocalProtocolError: CONNECT had no authentication method, or another one than ``properties``;
        larger than the server accepts. ArgumentError: another reason code; not encodable.
        Source: MQTT 5.0 §4.12 [MQTT-4.12.0-5], §3.15.2.1.
        """
        if reason_code not in (0x18, 0x19):
            raise ArgumentError("reason_code", f"of a client's AUTH is 0x18 or 0x19, not 0x{reason_code:02x}")
        if "authentication_method" not in self.options.properties:
            raise LocalProtocolError("AUTH needs an authentication method in CONNECT")
        if not self._is_our_method(properties):
            raise LocalProtocolError("authentication_method: must be the one of CONNECT, in every AUTH")
        packet = encode_packet(Auth(reason_code, properties), self.version)
        if len(packet) > self._largest_packet:
            raise LocalProtocolError(
                f"properties: the AUTH would be larger than the {self._largest_packet} bytes that the server "
                "accepts (Maximum Packet Size)"
            )
        self._send(packet)

    def disconnect(self, reason_code: int = 0, properties: dict[str, Any] | None = None) -> None:
        """Queue DISCONNECT as the last packet; what still waits for the store stays behind.

        Reason string and user properties are left out where the server's Maximum Packet Size forbids them.
        Source: MQTT 5.0 §3.14 [MQTT-3.14.2-3] [MQTT-3.14.2-4] [MQTT-3.14.4-1].
        """
        if self.state not in (CONNECTING, CONNECTED):
            return
        packet = Disconnect(reason_code, properties) if self.version == "5.0" else Disconnect()
        encoded = encode_packet(packet, self.version)
        if len(encoded) > self._largest_packet:
            kept = {name: value for name, value in packet.properties.items() if name not in _EXPLANATIONS}
            encoded = encode_packet(Disconnect(reason_code, kept), self.version)
        if self.state == CONNECTING:
            self._ignore_all_packets()  # a CONNACK that comes now opens nothing any more
        self._last_packet = encoded
        self.state = DISCONNECTING

    def acknowledge_handled(self) -> None:
        """Queue PUBACK or PUBREC for the messages marked ``handled``, as far as receive order allows.

        Source: MQTT 5.0 §4.6 [MQTT-4.6.0-2] [MQTT-4.6.0-3].
        """
        waiting, out, session = self._unacknowledged, self._out, self.session
        before = len(out)
        while waiting and waiting[0].handled:
            message = waiting.popleft()
            packet_id = message.packet_id
            if message.qos == 1:
                self._incoming -= 1
                out.append(b"\x40\x02" + packet_id.to_bytes(2, "big"))
                continue
            if packet_id in session.received:
                session.received[packet_id] = None
                if session.journal:
                    self._gates.append((len(out), session.record(("received", packet_id))))
            out.append(b"\x50\x02" + packet_id.to_bytes(2, "big"))
        self._answers += len(out) - before

    def data_to_send(self, durable_through: int, now: float) -> list[bytes]:
        """Return the chunks that may leave now, in order, each one or more whole packets.

        ``durable_through`` is the number of the last change that the store has made durable. After
        DISCONNECT, and after the end of the connection, nothing leaves any more.
        """
        if self.state > CONNECTED and self._last_packet is None:
            return []
        out = self._out
        if self._gates:
            out = self._open_chunks(durable_through)
        else:
            self._out = []
            self.buffered = self._answers = 0
        if self._urgent:
            out = self._urgent + out
            self._urgent = []
        if self._last_packet is not None:
            out.append(self._last_packet)
            self._last_packet = None
            self._out, self._gates, self.buffered = [], [], 0
        if out:
            self.keep_alive.last_sent = now
        return out

    @property
    def has_output(self) -> bool:
        """Whether anything waits in :meth:`data_to_send`, be it for the store."""
        if self.state > CONNECTED:
            return self._last_packet is not None
        return bool(self._out or self._urgent)

    def can_send(self, durable_through: int) -> bool:
        """Whether :meth:`data_to_send` would return something."""
        if self.state > CONNECTED:
            return self._last_packet is not None
        if not self._out or self._urgent:
            return bool(self._urgent)
        for index, number in self._gates:
            if index or number > durable_through:
                return index > 0  # the first chunk has passed all of its gates, or not
        return True

    @property
    def gate(self) -> int:
        """The change for which the last chunk that is held back waits; 0 if none is held back."""
        return self._gates[-1][1] if self._gates else 0

    @property
    def held_acknowledgements(self) -> int:
        """Received QoS 1 and 2 messages that wait for their handler or for an earlier message."""
        return len(self._unacknowledged)

    def unacknowledged(self) -> list[Message]:
        """Return the received QoS 1 and 2 messages whose PUBACK or PUBREC was never queued, in order."""
        return list(self._unacknowledged)

    # What comes in, beside the packets (those are in Receiver)

    def receive_eof(self, now: float) -> list[Event]:
        """The peer closed its direction. Returns at most one :class:`ConnectionEnded`."""
        if self.state == CLOSED:
            return []
        during = " before answering CONNECT" if self.state == CONNECTING else ""
        self._close()
        return [ConnectionEnded(TransportClosedError(f"the server closed the connection{during}"))]

    def next_deadline(self) -> float | None:
        """When :meth:`handle_deadline` wants to be called, in seconds of the caller's clock."""
        if self.state == CONNECTING:
            return self._connect_deadline
        if self.state != CONNECTED:
            return None
        late, due = self._packet_deadline(), self.keep_alive.deadline()
        return late if due is None else due if late is None else min(due, late)

    def handle_deadline(self, now: float) -> list[Event]:
        """Send PINGREQ when a direction was silent for too long; notice a dead peer.

        Source: MQTT 5.0 §3.1.2.10 [MQTT-3.1.2-20].
        """
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return []
        if self.state == CONNECTING:
            waited = self.options.connect_timeout
            return self._fail(TransportClosedError(f"no answer to CONNECT within {waited:g} s"))
        late = self._packet_deadline()
        if late is not None and now >= late:
            return self._fail(TransportClosedError(f"a packet of {self._needed} bytes came too slowly"))
        if self.keep_alive.act(now) == DEAD:
            waited = self.keep_alive.patience
            return self._fail(TransportClosedError(f"no answer to PINGREQ within {waited:g} s"))
        if not self._urgent:
            self._urgent.append(_PINGREQ)
        return []

    # The handlers of single packets, called by Receiver

    def _accept_connack(self, connack: Connack, events: list[Event]) -> None:
        if connack.reason_code:
            self._refused(connack, events)
            return
        present = connack.session_present
        if self.version == "3.1":
            present = self.session.outlives_connection and not self._clean_start
        if present and self._clean_start:
            raise RemoteProtocolError("CONNACK says session present although a clean start was asked for")
        if present and self.version == "5.0" and not (self.session.known or self._vouched):  # [MQTT-3.2.2-4]
            problem = RemoteProtocolError("CONNACK says session present, and this client knows of no session")
            self._fail(problem)
            events.append(SessionUnknown(problem))
            return
        if not self._is_our_method(connack.properties):
            raise RemoteProtocolError("CONNACK with another authentication method than that of our CONNECT")
        server = connack.properties
        if len(server.get("assigned_client_identifier", "")) > LONGEST_CLIENT_ID:
            raise RemoteProtocolError(
                f"CONNACK assigns a client identifier of more than {LONGEST_CLIENT_ID} characters", 0x83
            )
        self.server = server
        self.window = min(self._inflight, server.get("receive_maximum", 65_535))
        self.keep_alive.interval = server.get("server_keep_alive", self.options.keep_alive)
        self._largest_packet = min(server.get("maximum_packet_size", _LARGEST_PACKET), _LARGEST_PACKET)
        self._refused_flags = frozenset(
            flags
            for flags in range(6)
            if flags >> 1 > server.get("maximum_qos", 2)
            or (flags & 1 and not server.get("retain_available", 1))
        )
        self.state = CONNECTED
        self._accept_all_packets()
        self._keep_name()
        if present:
            events.append(ConnectAcknowledged(True, server, []))
            self._resume(events)
        else:
            session = self.session
            stale = bool(session.received)
            republish, finished = session.lose()
            if stale and session.journal:
                # A restart that remembered these packet identifiers would take the new session's messages for
                # repetitions. The server has nothing to send before it has read our SUBSCRIBE.
                self._gates.append((len(self._out), session.change_number))
            events.append(ConnectAcknowledged(False, server, republish))
            events.extend(finished)

    def _keep_name(self) -> None:
        """The session has begun: remember that, and its name if the server has made one up."""
        options, session = self.options, self.session
        assigned = self.server.get("assigned_client_identifier")
        if assigned and not options.client_id:
            options.client_id = assigned  # Source: MQTT 5.0 §3.2.2.3.7 [MQTT-3.2.2-16]
            session.record(("fact", "client_id", assigned))
            session.known = False
        if not session.known:
            session.known = True
            session.record(("fact", "session", options.client_id))

    def _refused(self, connack: Connack, events: list[Event]) -> None:
        self._close()
        reason_code, properties = connack.reason_code, connack.properties
        error = connect_refused(reason_code, properties, self.version)
        events.append(ConnectionEnded(error, reason_code, properties))

    def _resume(self, events: list[Event]) -> None:
        """Repeat what the server has not finished. Source: MQTT 5.0 §4.4 [MQTT-4.4.0-1], §4.6."""
        if self.session.journal:
            # What the last connection wrote may not be durable yet.
            self._gates.append((len(self._out), self.session.change_number))
        for packet_id in self.session.released:
            self._send(b"\x62\x02" + packet_id.to_bytes(2, "big"))
        for message in list(self.session.in_flight.values()):
            packet = message.packet
            assert packet is not None
            if len(packet) > self._largest_packet or message.flags in self._refused_flags:
                error = DroppedError("the server no longer accepts a message of this size, QoS or RETAIN")
                self._finish(message, DROPPED, events, error)
            else:
                self._resend[message.packet_id] = message
        self._resend_more()

    def _resend_more(self) -> None:
        """Repeat as many PUBLISH packets as the window of this connection holds."""
        resend = self._resend
        while resend and len(self.session) - len(resend) < self.window:
            packet = resend.popitem(last=False)[1].packet
            assert packet is not None
            self._send(bytes((packet[0] | _DUP,)) + packet[1:])

    def _accept_pubrec(
        self, packet_id: int, reason_code: int, events: list[Event], packet: Packet | None
    ) -> None:
        session = self.session
        message = session.in_flight.get(packet_id)
        if message is None:
            if reason_code < 0x80:
                # Repeated, or for an exchange that we have forgotten: let the server end it.
                known = packet_id in session.released
                code = 0 if known or self.version != "5.0" else 0x92
                self._send(encode_packet(Pubrel(packet_id, code), self.version))
                self._answers += 1
        elif message.flags < 4:
            raise RemoteProtocolError(f"PUBREC answers packet identifier {packet_id}, which is not QoS 2")
        elif reason_code >= 0x80:
            self._refuse(message, reason_code, packet, events)
        else:
            del session.in_flight[packet_id]
            self._resend.pop(packet_id, None)
            session.released[packet_id] = message
            message.packet = None
            message.payload = b""
            if session.journal:
                self._gates.append((len(self._out), session.record(("released", message.sequence))))
            self._out.append(b"\x62\x02" + packet_id.to_bytes(2, "big"))

    def _accept_pubrel(self, packet_id: int) -> None:
        session = self.session
        received = session.received
        pubcomp = b"\x70\x02" + packet_id.to_bytes(2, "big")
        if packet_id not in received:
            if self.version == "5.0":
                pubcomp = encode_packet(Pubcomp(packet_id, 0x92), self.version)
        elif received[packet_id] is not None:
            raise RemoteProtocolError(f"PUBREL for packet identifier {packet_id} came before our PUBREC")
        else:
            del received[packet_id]
            if session.journal:
                session.record(("completed", packet_id))
        if packet_id in self._incoming_qos2:
            self._incoming_qos2.remove(packet_id)
            self._incoming -= 1
        if session.journal:
            # PUBCOMP lets the server give the identifier to a new message; a restart that still knew it would
            # take that message for a repetition.
            self._gates.append((len(self._out), session.change_number))
        self._out.append(pubcomp)
        self._answers += 1

    def _refuse(
        self, message: Outgoing, reason_code: int, packet: Packet | None, events: list[Event]
    ) -> None:
        properties: dict[str, Any] = getattr(packet, "properties", {})
        error = publish_refused(reason_code, properties, self.version)
        self._finish(message, REFUSED, events, error)

    def _finish(
        self, message: Outgoing, status: str, events: list[Event], error: DeviceSdkError | None = None
    ) -> None:
        """End an exchange: free its packet identifier and its place in the window."""
        session = self.session
        if session.in_flight.pop(message.packet_id, None) is None:
            session.released.pop(message.packet_id, None)
        message.status = status
        if error is not None:
            message.error = error
        message.packet = None
        if session.journal:
            session.record(("done", message.sequence, status))
        events.append(message)
        if self._resend:
            self._resend.pop(message.packet_id, None)
            self._resend_more()

    def _accept_suback(self, packet: Any, events: list[Event]) -> None:
        expected = self.session.requests.pop(packet.packet_id, None)
        name = packet.type.upper()
        if expected is None or expected[0] != packet.type:
            raise RemoteProtocolError(f"{name} for packet identifier {packet.packet_id}, which we never sent")
        codes = packet.reason_codes
        if packet.type == "unsuback" and self.version != "5.0":
            codes = [0] * expected[1]
        if len(codes) != expected[1]:
            raise RemoteProtocolError(f"{name} has {len(codes)} reason codes for {expected[1]} topic filters")
        kind = SubscribeAcknowledged if packet.type == "suback" else UnsubscribeAcknowledged
        events.append(kind(packet.packet_id, codes, packet.properties))

    def _accept_disconnect(self, packet: Disconnect, events: list[Event]) -> None:
        if "session_expiry_interval" in packet.properties:  # [MQTT-3.14.2-2]
            raise RemoteProtocolError("DISCONNECT of a server with a session expiry interval")
        self._close()
        error = disconnected(packet.reason_code, packet.properties, self.version)
        events.append(ConnectionEnded(error, packet.reason_code, packet.properties))

    def _accept_auth(self, packet: Auth, events: list[Event]) -> None:
        known = "authentication_method" in self.options.properties
        if not (known and self._is_our_method(packet.properties)):
            raise RemoteProtocolError("AUTH with another authentication method than that of our CONNECT")
        events.append(AuthReceived(packet.reason_code, packet.properties))

    # Helpers

    def _is_our_method(self, properties: dict[str, Any]) -> bool:
        """Whether an authentication method, or its absence, is that of our CONNECT (MQTT 5.0 §4.12)."""
        method = self.options.properties.get("authentication_method")
        return bool(properties.get("authentication_method") == method)

    def _send(self, packet: bytes) -> None:
        self._out.append(packet)
        self.buffered += len(packet)

    def _request(self, packet: Subscribe | Unsubscribe, count: int) -> int:
        packet.packet_id = packet_id = self.session.allocate()
        encoded = encode_packet(packet, self.version)
        if len(encoded) > self._largest_packet:
            raise LocalProtocolError(
                f"topic filters: the {packet.type.upper()} would be larger than the {self._largest_packet} "
                "bytes that the server accepts (Maximum Packet Size); use several calls"
            )
        answer = "suback" if packet.type == "subscribe" else "unsuback"
        self.session.requests[packet_id] = (answer, count)
        self._send(encoded)
        return packet_id

    def _open_chunks(self, durable_through: int) -> list[bytes]:
        """Split the output at the first chunk whose change is not durable yet."""
        passed = 0
        while passed < len(self._gates) and self._gates[passed][1] <= durable_through:
            passed += 1
        cut = self._gates[passed][0] if passed < len(self._gates) else len(self._out)
        chunks, self._out = self._out[:cut], self._out[cut:]
        self._gates = [(index - cut, number) for index, number in self._gates[passed:]]
        self._answers = min(self._answers, len(self._out))
        self.buffered = sum(map(len, self._out))
        return chunks

    def _close(self) -> None:
        """The connection is over: nothing that still waits may leave."""
        self.state = CLOSED
        self._out, self._gates, self._urgent, self.buffered = [], [], [], 0
        self._last_packet = None

    def _fail(self, error: DeviceSdkError) -> list[Event]:
        """End the connection from our side; MQTT 5.0 tells the server why."""
        # A server that speaks first may be something else; DISCONNECT must not come before CONNECT.
        introduced = self.state == CONNECTED or (self.state == CONNECTING and not self._out)
        self._close()
        if introduced and self.version == "5.0" and isinstance(error, RemoteProtocolError):
            self._last_packet = encode_packet(Disconnect(error.reason_code), self.version)
        return [ConnectionEnded(error)]
