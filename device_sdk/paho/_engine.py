"""The engine of the façade: the façade begins and ends connections, nothing is automatic.

Callbacks wait in the engine's list in the order of their events; the façade runs them in its loops.
"""

from __future__ import annotations

from device_sdk._weak import weakly
from device_sdk.engine.connection import Connection
from device_sdk.engine.consumers import Consumers
from device_sdk.engine.events import Events
from device_sdk.engine.incoming.in_hand import InHand
from device_sdk.engine.incoming.subscriber import Subscriber
from device_sdk.engine.outgoing.publisher import Publisher
from device_sdk.errors import DroppedError
from device_sdk.mqtt.events import (
    AuthReceived,
    ConnectAcknowledged,
    ConnectionEnded,
    MessageSkipped,
    PayloadNotText,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from device_sdk.mqtt.protocol import CONNECTED, CONNECTING, Protocol
from device_sdk.mqtt.session import Session
from device_sdk.paho._protocol import DISCONNECT, LOGGED, RULES, PacketNotes
from device_sdk.paho.enums import MQTTErrorCode
from device_sdk.store.base import StorePolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any

    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.net.base import Transport
    from device_sdk.paho._message import MQTTMessageInfo
    from device_sdk.store.base import SavedSession, Store

__all__ = ["PahoEngine"]

_UNLIMITED = 1 << 61
_HIGHEST_MID = 65_535
_LARGEST_PACKET = 256 * 1024


class Reactions:
    """Reports events of a connection to the program. Knows the parts, not the engine that has them.

    ``tell``: called under the lock with an event for the program; it returns the pair (function, argument)
    that the façade shall run, or ``None``. ``unsent``: QoS 0 messages in the output of the protocol.
    """

    def __init__(
        self, outgoing: Publisher, incoming: Subscriber, events: Events, tell: Callable[[Any], Any]
    ) -> None:
        self.unsent: list[MQTTMessageInfo] = []
        self._leaving: list[MQTTMessageInfo] = []  # QoS 0, handed to the stream
        self._outgoing = outgoing
        self._incoming = incoming
        self._events = events
        self._tell = tell

    def tell(self, event: Any) -> bool:
        """Queue the callback for an event; return whether the program has one. The lock is held."""
        told = self._tell(event)
        if told is not None:
            self._events.append(told)
        return told is not None

    def react(self, connection: Connection, event: Any, now: float) -> None:
        """React to an event that is neither a message nor a delivery. The lock is held."""
        _REACTIONS[type(event)](self, connection, event)

    def output_left(self) -> None:
        """Count QoS 0 messages as published: the stream has taken all output. The lock is held."""
        left, self._leaving, self.unsent = self._leaving, self.unsent, []
        for info in left:
            info.set()

    def lose_unsent(self) -> None:
        """Fail the QoS 0 messages that have not left: they never will. The lock is held."""
        for info in (*self._leaving, *self.unsent):
            info.lose(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        self._leaving, self.unsent = [], []

    def _on_accepted(self, connection: Connection, event: ConnectAcknowledged) -> None:
        self._outgoing.connected(connection.protocol)
        self._outgoing.outbox.put_back(event.republish)
        self.tell(event)

    def _on_ended(self, connection: Connection, event: ConnectionEnded) -> None:
        self.lose_unsent()
        connection.retire()
        self._incoming.disconnected()
        self._outgoing.disconnected(event.error)
        reference = event.properties.get("server_reference")
        if reference is not None:
            text = f"the server asks to use {reference} instead; this client stays with its host"
            self._events.notify("server_reference", text, event.error, reference)
        self.tell(event)

    def _on_answer(self, connection: Connection, event: Any) -> None:
        self.tell(event)

    def _on_payload_not_text(self, connection: Connection, event: PayloadNotText) -> None:
        text = f"{event.topic}: the payload is declared as UTF-8 and is not from byte {event.position} on"
        self._events.notify("invalid_payload", text)

    def _on_skipped(self, connection: Connection, event: MessageSkipped) -> None:
        self._incoming.on_skipped(event)

    def _on_auth(self, connection: Connection, event: AuthReceived) -> None:
        """Ignore AUTH: paho-mqtt has no callback for it."""


_REACTIONS: dict[type, Callable[[Reactions, Connection, Any], None]] = {
    ConnectAcknowledged: Reactions._on_accepted,
    ConnectionEnded: Reactions._on_ended,
    SubscribeAcknowledged: Reactions._on_answer,
    UnsubscribeAcknowledged: Reactions._on_answer,
    PayloadNotText: Reactions._on_payload_not_text,
    MessageSkipped: Reactions._on_skipped,
    AuthReceived: Reactions._on_auth,
}


class PahoEngine:
    """The parts of one client; its connections come from :meth:`begin` and end with :meth:`leave` or by
    themselves.

    ``tell``: see :class:`Reactions`; its argument is an event, the :class:`MQTTMessageInfo` of a published
    message, or a text for the log. ``wants_log``: whether the log has a reader. ``parked``: a loop waits and
    has to be woken after output was added. ``answers_due``: the broker had not answered everything when
    DISCONNECT was queued.

    Methods that begin with ``on_``, :meth:`begin`, :meth:`leave`, :meth:`take_retired` and :meth:`flush` take
    the lock themselves; the caller of the others holds it.
    """

    def __init__(
        self,
        lock: threading.RLock,
        store: Store | None,
        tell: Callable[[Any], Any],
        wants_log: Callable[[], bool],
    ) -> None:
        policy = StorePolicy(max_messages=_UNLIMITED, max_bytes=_UNLIMITED, unsendable="drop")
        self.lock = lock
        self.consumers = Consumers()
        self.session = session = Session(journal=store is not None)
        self.events = events = Events()
        self.outgoing = Publisher(lock, session, policy, store, events, self.consumers, buffer_qos0=False)
        self.incoming = Subscriber(
            lock, session, events, self.consumers, InHand(1_000_000, 1 << 24, _LARGEST_PACKET)
        )
        self.reactions = Reactions(self.outgoing, self.incoming, events, tell)
        self.connection: Connection | None = None
        self.parked = False
        self.answers_due = False
        self._wants_log = wants_log
        self._notes = PacketNotes(weakly(self.reactions.tell))
        self._logs_packets = False

    # Connections

    def begin(
        self, transport: Transport, options: ConnectOptions, *, clean_start: bool, inflight: int, now: float
    ) -> None:
        """Begin a connection on an open stream; CONNECT is the first packet on it."""
        with self.lock:
            protocol = Protocol(
                self.session, options, inflight=inflight or _HIGHEST_MID, vouched=True, rules=RULES
            )
            self._notes = PacketNotes(weakly(self.reactions.tell))
            self._watch(protocol)
            protocol.connect(now, clean_start=clean_start)
            reactions = self.reactions
            self.connection = Connection(
                self.lock, protocol, transport, self.outgoing, self.incoming, self.events, reactions.react,
                on_output=reactions.output_left,
            )  # fmt: skip

    def _watch(self, protocol: Protocol) -> None:
        """Watch the packets of a connection: those for the log, if it has a reader, and DISCONNECT."""
        self._logs_packets = self._wants_log()
        if self._logs_packets:
            protocol.watch(self._notes.on_packet, received=LOGGED, sent=LOGGED)
        else:
            protocol.watch(self._notes.on_packet, received=(DISCONNECT,), sent=())

    @property
    def goodbye_size(self) -> int:
        """Bytes of the body of the DISCONNECT with which the broker ended the last connection, or 0."""
        return self._notes.goodbye_size

    def leave(self) -> None:
        """Drop the connection at once, without DISCONNECT and without a callback."""
        with self.lock:
            if self.connection is not None:
                self.connection.retire()
            self.outgoing.disconnecting()

    def take_retired(self) -> Connection | None:
        """Return the connection that has ended and whose stream is still open; the caller closes it."""
        with self.lock:
            connection = self.connection
            if connection is None or not connection.retired:
                return None
            self.connection = None
            self.reactions.lose_unsent()
            self.incoming.disconnected()
            self.outgoing.disconnected(None)
            return connection

    def close_stream(self) -> None:
        """Close the stream at once: this object is not used any more."""
        if self.connection is not None:
            self.connection.stream.transport.close()

    def close_connection(self, reason_code: int, properties: dict[str, Any], now: float) -> None:
        """Queue DISCONNECT as the last packet, behind what waited for CONNACK."""
        if self.connection is not None and not self.connection.retired:
            protocol = self.connection.protocol
            if protocol.state == CONNECTING:
                self.outgoing.send_ahead(protocol, now)
            self.answers_due = protocol.state == CONNECTING or len(self.session) > 0
            protocol.disconnect(reason_code, properties)
        self.outgoing.disconnecting()

    def has_connection(self) -> bool:
        """Whether the stream is open and the connection not over."""
        return self.connection is not None and not self.connection.retired

    @property
    def open_connection(self) -> Protocol | None:
        """The protocol of the open stream, unless DISCONNECT is on its way."""
        connection = self.connection
        if connection is None or connection.retired:
            return None
        protocol = connection.protocol
        return protocol if protocol.state <= CONNECTED else None  # is_open, written out

    # Messages

    def next_mid(self) -> int:
        """Return a message identifier for a message without a packet identifier."""
        session = self.session
        session.last_packet_id = mid = session.last_packet_id % _HIGHEST_MID + 1
        return mid

    @property
    def outstanding(self) -> int:
        """Messages of QoS 1 and 2 that the broker has not acknowledged."""
        return len(self.session) + self.outgoing.outbox.queued

    @property
    def idle(self) -> bool:
        """Whether no message waits to be sent or acknowledged."""
        connection = self.connection
        return connection is None or connection.retired or not (self.outstanding or connection.is_unsent)

    def drop_outgoing(self) -> list[Delivery]:
        """Drop and return the messages that the broker has not acknowledged."""
        connection = self.connection
        if connection is not None:
            connection.protocol.forget_repeats()
        dropped = self.outgoing.outbox.end_all(DroppedError("drop_out_messages() was called"))
        for delivery in dropped:
            self.session.record(("done", delivery.sequence, "dropped"))
        return dropped

    def handled(self, count: int) -> None:
        """Note that ``count`` messages were handled; their acknowledgements may leave."""
        if count:
            self.incoming.in_hand.finished(count)
        self.outgoing.acknowledge_handled()

    # For the loops

    def has_output(self) -> bool:
        """Whether :meth:`flush` has output to write."""
        connection = self.connection
        return connection is not None and connection.has_output()

    def wants_write(self) -> bool:
        """Whether output waits for the network."""
        connection = self.connection
        if connection is None or connection.retired:
            return False
        return connection.stream.pending or connection.has_output()

    def wants_attention(self) -> bool:
        """Whether a waiting loop has to be woken after a publish."""
        return bool(self.events.queue) or self.has_output()

    def interest(self) -> tuple[int, bool, bool] | None:
        """Return file descriptor, want to read, want to write; ``None`` without an open stream."""
        connection = self.connection
        if connection is None or connection.retired:
            return None
        return connection.interest(paused=self.incoming.in_hand.full and not self.consumers.blocked)

    def next_deadline(self) -> float | None:
        """When to call :meth:`on_deadline`."""
        connection, outbox = self.connection, self.outgoing.outbox
        due = [outbox.next_expiry, outbox.next_replay]
        if connection is not None and not connection.retired:
            due += connection.deadlines()
        return min((deadline for deadline in due if deadline is not None), default=None)

    def on_readable(self, now: float) -> None:
        """Read once and react to the packets."""
        connection = self.connection
        if connection is not None and not connection.retired:
            connection.read(now)
            self.flush(now)

    def on_writable(self, now: float) -> None:
        """Write to the stream, which takes bytes again."""
        connection = self.connection
        if connection is not None and not connection.retired:
            connection.write(now)
            self.flush(now)

    def on_deadline(self, now: float) -> None:
        """Do the work that is due: PINGREQ, the end of a silent connection, an expiry in the queue."""
        outgoing, connection = self.outgoing, self.connection
        with self.lock:
            outgoing.on_deadline(now)
            if connection is not None:
                connection.on_deadline(now)
            if outgoing.online is None and outgoing.journal is not None:
                outgoing.journal.hand_over()
        if connection is not None:
            connection.keep_time(now)
        self.flush(now)

    def flush(self, now: float) -> None:
        """Hand output to the stream until it takes no more."""
        connection = self.connection
        if connection is None:
            return
        if not (self._logs_packets or connection.protocol.output.is_empty) and self._wants_log():
            self._watch(connection.protocol)
        connection.flush(now)

    # The store

    def adopt(self, saved: SavedSession, client_id: str, version: str, now: float) -> None:
        """Resume the session of the store; once, before the first connection."""
        outgoing, journal = self.outgoing, self.outgoing.journal
        assert journal is not None
        with self.lock:
            outgoing.outbox.restore(saved, now, version)
            name = saved.facts.get("session")
            self.session.restore_received(saved.received, known=name == client_id)
            if name is not None and not self.session.known:  # the session of another client
                outgoing.outbox.put_back(self.session.lose()[0])
            self.session.record(("fact", "client_id", client_id))
            journal.hand_over()
            journal.report()
