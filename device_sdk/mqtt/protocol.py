"""One network connection, sans-IO: bytes and time go in, events and bytes come out.

A :class:`Protocol` lives as long as its connection; the :class:`~device_sdk.mqtt.session.Session` behind it
outlives it. Nothing here opens a socket, reads a clock or starts a thread, and :meth:`Protocol.receive_data`
never raises for a fault of the peer: the events decoded before it are returned, and the last one reports it.

The table of handlers is here, by packet type; so is everything that begins, keeps and ends a connection. The
exchanges of messages are in :mod:`~device_sdk.mqtt.inbound` and :mod:`~device_sdk.mqtt.outbound`.

Threads: the caller serialises all calls.
"""

from __future__ import annotations

from device_sdk.errors import ArgumentError, LocalProtocolError, RemoteProtocolError, TransportClosedError
from device_sdk.mqtt.aliasing import OutgoingAliases
from device_sdk.mqtt.codes import VERSIONS
from device_sdk.mqtt.decode import decode_body
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.events import (
    AuthReceived,
    ConnectAcknowledged,
    ConnectionEnded,
    MessageSkipped,
    PayloadNotText,
    PingAnswered,
    PublishPostponed,
    SessionCleared,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from device_sdk.mqtt.framing import Framing, no_packet, too_early, unexpected
from device_sdk.mqtt.handshake import Handshake
from device_sdk.mqtt.inbound import Inbound
from device_sdk.mqtt.keep_alive import DEAD, MISSED, KeepAlive
from device_sdk.mqtt.outbound import Outbound
from device_sdk.mqtt.output import Output
from device_sdk.mqtt.packets import Auth, Connack, Disconnect, Subscribe, Unsubscribe
from device_sdk.mqtt.refusals import accepted_in_3, disconnected
from device_sdk.mqtt.rules import STANDARD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any

    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.framing import Handler, OnPacket
    from device_sdk.mqtt.message import AckToken, Message, Subscription
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.packets import Packet, Pingresp, Suback, Unsuback
    from device_sdk.mqtt.rules import ProtocolRules
    from device_sdk.mqtt.session import Outgoing, Session

    Event = (
        Message
        | Outgoing
        | ConnectAcknowledged
        | SubscribeAcknowledged
        | UnsubscribeAcknowledged
        | AuthReceived
        | MessageSkipped
        | PayloadNotText
        | PublishPostponed
        | PingAnswered
        | ConnectionEnded
    )

__all__ = ["CLOSED", "CONNECTED", "CONNECTING", "DISCONNECTING", "IDLE", "MOST_ANSWERS", "Protocol"]

#: The states of a network connection.
IDLE, CONNECTING, CONNECTED, DISCONNECTING, CLOSED = range(5)

#: Acknowledgements that may wait to be sent. A packet identifier cannot be used again before its answer was
#: read, and each side has 65,535 of them: with more answers unread, the server has stopped reading.
MOST_ANSWERS = 2 * 65_535

_PINGREQ = b"\xc0\x00"
_SILENCES = {
    DEAD: "no answer to PINGREQ within {0:g} s",
    MISSED: "no packet either way for one and a half keep alives of {1:g} s: this machine was suspended, or "
    "this process stopped, and by now the server has ended the connection",
}
_UNSPECIFIED_ERROR = 0x80
_EXPLANATIONS = ("reason_string", "user_property")
_ALL_PACKETS = range(16)


class Protocol:
    """The client's end of one network connection.

    ``inflight`` bounds the unacknowledged QoS 1 and 2 messages together with the server's receive maximum;
    ``vouched``: the application says that it shares a session with the server, even if this client has no
    record of one; ``use_aliases``: give topics an alias where the server allows it; ``rules``: departures
    from the standard. Not thread-safe: the engine's lock guards it.

    After CONNACK the server's limits are in ``outbound.window`` (messages in flight), ``server`` (the
    properties of CONNACK) and ``keep_alive.interval`` (seconds, 0 is off). Packets to send are in ``output``;
    the methods for single messages are those of the parts, so that none of them costs a second call:
    :meth:`Outbound.publish`, :meth:`Output.publish_qos0`, :meth:`Output.data_to_send`,
    :meth:`Output.can_send`, :meth:`Inbound.acknowledge_handled`.
    """

    def __init__(
        self,
        session: Session,
        options: ConnectOptions,
        *,
        inflight: int = 20,
        vouched: bool = False,
        use_aliases: bool = False,
        rules: ProtocolRules = STANDARD,
    ) -> None:
        self.session = session
        self.version = options.version
        self.state = IDLE
        self.keep_alive = KeepAlive(options.keep_alive)
        aliases = OutgoingAliases() if use_aliases else None
        self.output = output = Output(aliases, options.version if options.negotiates else "")
        self.handshake = Handshake(session, options, rules, inflight=inflight, vouched=vouched)
        self.inbound = Inbound(session, output, options, rules)
        send = output.publish_short if use_aliases else output.publish
        self.outbound = Outbound(session, output, options.version, rules, send)
        self.framing = Framing(
            options.maximum_packet_size, _handlers_before_connack(options.version, rules.mqtt_3_refusals)
        )
        # Bound methods of parts, none of our own: a cycle would keep this object until a collection.
        self.publish = self.outbound.publish
        self.publish_qos0 = output.publish_qos0_short if use_aliases else output.publish_qos0
        self.data_to_send: Callable[[int, float], list[bytes]] = output.data_to_send
        self.can_send = output.can_send
        self.acknowledge_handled = self.inbound.acknowledge_handled

    @property
    def server(self) -> dict[str, Any]:
        """The properties of CONNACK."""
        return self.handshake.server

    @property
    def is_open(self) -> bool:
        """Whether packets may be added: nothing has ended the connection, and no DISCONNECT is on its way."""
        return self.state <= CONNECTED

    def watch(
        self,
        on_packet: OnPacket,
        *,
        received: Collection[int] = _ALL_PACKETS,
        sent: Collection[int] = _ALL_PACKETS,
    ) -> None:
        """Call ``on_packet`` for packets from now on, instead of the previous one.

        ``received``, ``sent``: the packet types, 1 to 15, to report. The arguments are ``"received"`` (before
        the packet is handled) or ``"sent"`` (when it leaves :meth:`data_to_send`), the first byte of the
        packet, data, and where in the data the body starts and stops. It must not raise. An unwatched
        connection pays nothing for this, nor do received packets of other types.
        """
        self.framing.watch(on_packet, received)
        self.data_to_send = self.output.watched(on_packet, sent) if sent else self.output.data_to_send

    # What goes out, beside messages

    def connect(self, now: float, *, clean_start: bool, clears: bool = False) -> None:
        """Queue CONNECT. Source: MQTT 5.0 §3.1.

        ``clears``: without the will, and DISCONNECT follows CONNACK at once, which is the event
        :class:`SessionCleared`. In MQTT 3.x that leaves no session with the server, and the next connection,
        without a clean start, begins one that outlives it.
        """
        self.state = CONNECTING
        self.output.add(self.handshake.connect(now, clean_start=clean_start, clears=clears))
        self.outbound.allow(self.handshake.window)

    def check(self, flags: int, size: int) -> None:
        """As :meth:`Output.check`: check that the server accepts such a PUBLISH."""
        self.output.check(flags, size)

    def unavailable(self, topic_filter: str) -> int:
        """Return the reason code with which the server would refuse this kind of filter, 0 if it supports it.

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
        return self._request(Subscribe(0, subscriptions, properties), "suback", len(subscriptions))

    def unsubscribe(self, topic_filters: list[str], properties: dict[str, Any] | None = None) -> int:
        """Queue UNSUBSCRIBE and return its packet identifier. Raises: as :meth:`subscribe`."""
        return self._request(Unsubscribe(0, topic_filters, properties), "unsuback", len(topic_filters))

    def auth(self, reason_code: int, properties: dict[str, Any]) -> None:
        """Queue AUTH: 0x18 continues, 0x19 begins a re-authentication.

        Raises: LocalProtocolError: CONNECT had no authentication method, or another one than ``properties``;
        larger than the server accepts. ArgumentError: another reason code; not encodable.
        Source: MQTT 5.0 §4.12 [MQTT-4.12.0-5], §3.15.2.1.
        """
        if reason_code not in (0x18, 0x19):
            raise ArgumentError("reason_code", f"of a client's AUTH is 0x18 or 0x19, not 0x{reason_code:02x}")
        self.handshake.check_auth(properties)
        packet = encode_packet(Auth(reason_code, properties), self.version)
        largest = self.output.largest_packet
        if len(packet) > largest:
            raise LocalProtocolError(
                f"properties: the AUTH would be larger than the {largest} bytes that the server "
                "accepts (Maximum Packet Size)"
            )
        self.output.add(packet)

    def disconnect(self, reason_code: int = 0, properties: dict[str, Any] | None = None) -> None:
        """Queue DISCONNECT as the last packet; those still waiting for the store are not sent.

        Reason string and user properties are left out where the server's Maximum Packet Size forbids them.
        Source: MQTT 5.0 §3.14 [MQTT-3.14.2-3] [MQTT-3.14.2-4] [MQTT-3.14.4-1].
        """
        if self.state not in (CONNECTING, CONNECTED):
            return
        packet = Disconnect(reason_code, properties) if self.version == "5.0" else Disconnect()
        encoded = encode_packet(packet, self.version)
        if len(encoded) > self.output.largest_packet:
            kept = {name: value for name, value in packet.properties.items() if name not in _EXPLANATIONS}
            encoded = encode_packet(Disconnect(reason_code, kept), self.version)
        if self.state == CONNECTING:
            self.framing.use([_ignored] * 16)  # a CONNACK that arrives now has no effect
        self.output.finish(encoded)
        self.state = DISCONNECTING

    @property
    def buffered(self) -> int:
        """Bytes waiting for :meth:`data_to_send`, as ``output.buffered``."""
        return self.output.buffered

    @property
    def has_output(self) -> bool:
        """Whether any packet is waiting to be sent, even if only for the store."""
        return not self.output.is_empty

    @property
    def gate(self) -> int:
        """The change that the last held packet waits for; 0 if none is held."""
        return self.output.gate

    @property
    def held_acknowledgements(self) -> int:
        """Received QoS 1 and 2 messages that wait for their handler or for an earlier message."""
        return len(self.inbound.unacknowledged)

    def unacknowledged(self) -> list[Message | AckToken]:
        """Return the received QoS 1 and 2 messages whose PUBACK or PUBREC was never queued, in order."""
        return list(self.inbound.unacknowledged)

    def forget_repeats(self) -> None:
        """Repeat nothing more on this connection."""
        self.outbound.forget_repeats()

    # What comes in: bytes, their end, and time

    def receive_data(self, data: bytes, now: float) -> list[Event]:
        """Take bytes from the stream and return the events in them.

        Never raises for a fault of the peer; after :class:`ConnectionEnded` further data is ignored.
        """
        events: list[Event] = []
        if self.state == CLOSED:
            return events
        if self.state == CONNECTING:
            self.handshake.note(data)
        try:
            answers = self.output.answers
            if answers > MOST_ANSWERS:
                raise RemoteProtocolError(f"{answers} of our answers wait and are not read", 0x97)
            self.framing.feed(data, now, events, self._accept)
            if self.outbound.repeats:
                self.outbound.repeat(now, events)
        except (RemoteProtocolError, LocalProtocolError) as error:
            # Its traceback would refer to us, and keep us until a collection.
            events.extend(self._fail(error.with_traceback(None)))
        return events

    def receive_eof(self, now: float) -> list[Event]:
        """React to the end of the stream. Returns at most one :class:`ConnectionEnded`."""
        if self.state == CLOSED:
            return []
        during = " before answering CONNECT" if self.state == CONNECTING else ""
        return self._fail(TransportClosedError.ended(f"the server closed the connection{during}", "closed"))

    @property
    def reading_paused(self) -> bool:
        """Whether our side has stopped reading: then silence proves nothing. PINGREQ goes on."""
        return self.keep_alive.paused

    @reading_paused.setter
    def reading_paused(self, paused: bool) -> None:
        if paused is not self.keep_alive.paused:
            self.framing.pause(paused)
            self.keep_alive.pause(paused)

    def next_deadline(self) -> float | None:
        """When to call :meth:`handle_deadline`, in seconds of the caller's clock."""
        if self.state == CONNECTING:
            return self.handshake.deadline
        if self.state != CONNECTED:
            return None
        framing = self.framing
        due = self.keep_alive.deadline(self.output.last_sent, framing.last_received)
        late = framing.deadline()
        return late if due is None else due if late is None else min(due, late)

    def handle_deadline(self, now: float) -> list[Event]:
        """Send PINGREQ if a direction was silent for too long; detect a dead peer.

        Source: MQTT 5.0 §3.1.2.10 [MQTT-3.1.2-20].
        """
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return []
        keep_alive, framing = self.keep_alive, self.framing
        late = framing.deadline()
        if self.state == CONNECTING:
            problem = f"no answer to CONNECT within {self.handshake.options.connect_timeout:g} s"
        elif late is not None and now >= late:
            problem = f"a packet of {framing.needed} bytes came too slowly"
        else:
            answer = keep_alive.act(now, self.output.last_sent, framing.last_received)
            problem = _SILENCES.get(answer, "").format(keep_alive.patience, keep_alive.interval)
        if not problem:
            if self.output.urge(_PINGREQ, now):
                keep_alive.pinged(asked=False)
            return []
        return self._fail(TransportClosedError(problem), silent=True)

    # The packets that concern the connection as a whole

    def _accept(self, packet: Packet, events: list[Event]) -> bool:
        """React to a packet; return whether those behind it are to be read."""
        _REACTIONS[packet.type](self, packet, events)
        return self.state != CLOSED

    def _accept_connack(self, connack: Connack, events: list[Event]) -> None:
        handshake, session = self.handshake, self.session
        end = handshake.accept(connack)
        if end is not None:
            if type(end) is SessionCleared:
                self.disconnect()
            else:
                self._fail(end.error)
            events.append(end)
            return
        server, present = handshake.server, handshake.session_present
        self.outbound.allow(handshake.window)
        self.keep_alive.agree(server.get("server_keep_alive", self.keep_alive.interval))
        self.output.limit(server)
        self.state = CONNECTED
        self.framing.use(_handlers(self.version, self.inbound, self.outbound))
        if not handshake.options.announces_size:  # else what is larger is the server's own fault
            self.framing.let_pass(self.inbound.on_oversized, self.inbound.skip_oversized)
        sent, held = handshake.sent_already(), self.inbound.held()
        handshake.forget_what_is_lost()
        if present or handshake.assumes_session:
            events.append(ConnectAcknowledged(present, server, []))
            self.outbound.resume(sent)
            self.inbound.deliver_forgotten(held, events)
            return
        stale = bool(session.received)
        republish, finished = session.lose(sent)
        if stale and session.journal:
            # A restart that remembered these packet identifiers would take the new session's messages for
            # repetitions. The server has nothing to send before it has read our SUBSCRIBE.
            self.output.hold_next(session.change_number)
        events.append(ConnectAcknowledged(False, server, republish))
        events.extend(finished)
        self.inbound.deliver_forgotten(held, events)

    def _accept_suback(self, packet: Suback | Unsuback, events: list[Event]) -> None:
        codes = packet.reason_codes
        expected = self.session.requests.pop(packet.packet_id, None)
        if expected is None and self.handshake.rules.accepts_unasked_suback:
            expected = (packet.type, len(codes))
        name = packet.type.upper()
        if expected is None or expected[0] != packet.type:
            raise RemoteProtocolError(f"{name} for packet identifier {packet.packet_id}, which we never sent")
        if packet.type == "unsuback" and self.version != "5.0":
            codes = [0] * expected[1]
        if len(codes) != expected[1]:
            raise RemoteProtocolError(f"{name} has {len(codes)} reason codes for {expected[1]} topic filters")
        kind = SubscribeAcknowledged if packet.type == "suback" else UnsubscribeAcknowledged
        events.append(kind(packet.packet_id, codes, packet.properties))

    def _accept_pingresp(self, packet: Pingresp, events: list[Event]) -> None:
        if self.keep_alive.answered():
            events.append(PingAnswered())

    def _accept_disconnect(self, packet: Disconnect, events: list[Event]) -> None:
        if "session_expiry_interval" in packet.properties:  # [MQTT-3.14.2-2]
            raise RemoteProtocolError("DISCONNECT of a server with a session expiry interval")
        name = self.handshake.options.client_id
        error = disconnected(packet.reason_code, packet.properties, self.version, name)
        self._fail(error)
        events.append(ConnectionEnded(error, packet.reason_code, packet.properties))

    def _accept_auth(self, packet: Auth, events: list[Event]) -> None:
        self.handshake.check_their_auth(packet.properties)
        events.append(AuthReceived(packet.reason_code, packet.properties))

    # Helpers

    def _request(self, packet: Subscribe | Unsubscribe, answer: str, count: int) -> int:
        packet.packet_id = packet_id = self.session.allocate()
        encoded = encode_packet(packet, self.version)
        largest = self.output.largest_packet
        if len(encoded) > largest:
            raise LocalProtocolError(
                f"topic filters: the {packet.type.upper()} would be larger than the {largest} "
                "bytes that the server accepts (Maximum Packet Size); use several calls"
            )
        self.session.requests[packet_id] = (answer, count)
        self.output.add(encoded)
        return packet_id

    def _fail(self, error: DeviceSdkError, *, silent: bool = False) -> list[Event]:
        """End the connection and discard the output; in MQTT 5.0 a DISCONNECT reports the fault."""
        # A peer that speaks first may be no MQTT server; DISCONNECT must not come before CONNECT.
        introduced = self.state == CONNECTED or (
            self.state == CONNECTING and self.output.is_empty and self.handshake.rules.explains_early_end
        )
        last_words = None
        if introduced and self.version == "5.0" and isinstance(error, RemoteProtocolError):
            last_words = encode_packet(Disconnect(error.reason_code), self.version)
        self.output.close(last_words)
        self.state = CLOSED
        return [ConnectionEnded(error, silent=silent)]


#: The reactions to packets that handlers return.
_REACTIONS: dict[str, Callable[[Protocol, Any, list[Event]], None]] = {
    "connack": Protocol._accept_connack,
    "suback": Protocol._accept_suback,
    "unsuback": Protocol._accept_suback,
    "pingresp": Protocol._accept_pingresp,
    "disconnect": Protocol._accept_disconnect,
    "auth": Protocol._accept_auth,
}


# The handlers, one for each packet type: first byte, data, where the body starts and stops, events to extend


def _reader(version: str) -> Handler:
    """The handler of a packet that is decoded and returned."""

    def read(first: int, data: bytes, start: int, stop: int, events: list[Any]) -> Packet:
        return decode_body(first, data, start, stop, version)

    return read


_READERS = {version: _reader(version) for version in VERSIONS}


def _connack_reader(refusals: Mapping[int, int]) -> Handler:
    """As :func:`_reader` for MQTT 5.0, except that a server of MQTT 3.x may refuse in its own format."""

    def read(first: int, data: bytes, start: int, stop: int, events: list[Any]) -> Packet:
        if stop - start == 2:
            if data[stop - 1] == 0:
                raise accepted_in_3()
            return Connack(False, refusals.get(data[stop - 1], _UNSPECIFIED_ERROR))
        return decode_body(first, data, start, stop, "5.0")

    return read


def _ignored(first: int, data: bytes, start: int, stop: int, events: list[Any]) -> None:
    """The handler after a DISCONNECT that was sent before CONNACK."""


def _handlers_before_connack(version: str, refusals: Mapping[int, int]) -> list[Handler]:
    read = _READERS[version]
    handlers: list[Handler] = [no_packet, *[too_early] * 15]
    handlers[2] = _connack_reader(refusals) if refusals and version == "5.0" else read
    if version == "5.0":
        handlers[14] = handlers[15] = read
    else:
        handlers[15] = no_packet
    return handlers


def _handlers(version: str, inbound: Inbound, outbound: Outbound) -> list[Handler]:
    """The handlers after CONNACK: the server's other packets are legal, a second CONNACK is not."""
    read = _READERS[version]
    handlers: list[Handler] = [no_packet, *[unexpected] * 15]
    handlers[3] = inbound.on_publish
    handlers[4] = outbound.on_puback
    handlers[5] = outbound.on_pubrec
    handlers[6] = inbound.on_pubrel
    handlers[7] = outbound.on_pubcomp
    handlers[9] = handlers[11] = handlers[13] = read
    if version == "5.0":
        handlers[14] = handlers[15] = read
    else:
        handlers[15] = no_packet
    return handlers
