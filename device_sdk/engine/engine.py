"""The life cycle of a client: connect, exchange, lose the connection, wait, connect again, close.

No thread, no event loop and no clock live here. A shell (the thread client, the asyncio client, the paho
façade) calls the ``on_...`` methods when something happened to the transport or when
:meth:`Engine.next_deadline` has come, and asks :meth:`Engine.interest` what to wait for. One lock guards all
state; it is never held while user code runs, nor during ``open()``, ``recv()``, ``send()`` or a commit.
"""

from __future__ import annotations

from device_sdk.engine.identifiers import Identifiers
from device_sdk.engine.outbox import Delivery
from device_sdk.engine.reconnect import ReconnectPolicy
from device_sdk.engine.report import (
    CLOSED,
    CLOSING,
    CONNECTED,
    CONNECTING,
    IDLE,
    WAITING,
)
from device_sdk.engine.stream import Stream
from device_sdk.engine.subscriber import Subscriber
from device_sdk.errors import (
    ArgumentError,
    AuthenticationError,
    ClosedError,
    DeviceSdkError,
    TransportClosedError,
    TransportError,
)
from device_sdk.mqtt.aliasing import AliasingProtocol
from device_sdk.mqtt.events import (
    AuthReceived,
    ConnectAcknowledged,
    ConnectionEnded,
    PayloadNotText,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.options import check_range
from device_sdk.mqtt.protocol import DISCONNECTING, Protocol
from device_sdk.mqtt.session import ACKNOWLEDGED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any

    from device_sdk.engine.authentication import Authentication
    from device_sdk.engine.report import Stats
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.net.base import Transport
    from device_sdk.store.base import SavedSession, Store, StorePolicy

__all__ = [
    "CLOSED",
    "CLOSING",
    "CONNECTED",
    "CONNECTING",
    "IDLE",
    "WAITING",
    "Engine",
]

_UNSPECIFIED_ERROR = 0x80
_SENDS_PER_FLUSH = 16  # then the shell reads and keeps time, however fast the application publishes


class Engine(Subscriber):
    """Everything a client does, except waiting.

    Methods that begin with ``on_``, and :meth:`flush`, belong to the one thread that owns the transport and
    take the lock themselves. The others say whether the caller holds it.
    """

    def __init__(
        self,
        lock: threading.Lock,
        transport: Transport,
        options: ConnectOptions,
        *,
        policy: StorePolicy,
        store: Store | None,
        reconnect: ReconnectPolicy,
        draw: Callable[[], float],
        inflight: int = 20,
        inbox_limit: int = 1_000,
        clean_start: bool | None = None,
        buffer_qos0: bool = False,
        on_session_lost: str = "republish",
        acknowledge: Callable[[Message], None] | None = None,
        authentication: Authentication | None = None,
        use_topic_aliases: bool = False,
        use_identifiers: bool = False,
    ) -> None:
        if on_session_lost not in ("republish", "fail"):
            raise ArgumentError("on_session_lost", f'must be "republish" or "fail", not {on_session_lost!r}')
        if use_topic_aliases and options.version != "5.0":
            raise ArgumentError("use_topic_aliases", f"MQTT {options.version} has no topic aliases")
        if use_identifiers and options.version != "5.0":
            raise ArgumentError("use_identifiers", f"MQTT {options.version} has no subscription identifiers")
        super().__init__(
            lock, policy, store, buffer_qos0=buffer_qos0, inbox_limit=inbox_limit, acknowledge=acknowledge
        )
        self.transport = transport
        self.stream = Stream(transport)
        self.options = options
        self.last_error: DeviceSdkError | None = None
        self.draining = False  # the shell waits for is_drained()
        self.await_handlers = True
        self.goodbye: tuple[int, dict[str, Any]] = (0, {})  # reason code and properties of our DISCONNECT
        self.on_connect: Callable[[ConnectAcknowledged], object] | None = None
        self.on_disconnect: Callable[[DeviceSdkError], object] | None = None
        if use_identifiers:
            self.router.identifiers = Identifiers()
        self.authentication = authentication
        self._protocol_class = AliasingProtocol if use_topic_aliases else Protocol
        self._reconnect = reconnect
        self._draw = draw
        self._inflight = check_range("inflight", inflight, 1, 65_535)
        self._clean_start = clean_start
        self._republish = on_session_lost == "republish"
        self.attempt_over: threading.Event | None = None  # set when a connection is accepted or failed
        self._protocol: Protocol | None = None  # of the open transport
        self._retired: Protocol | None = None  # ended; its transport is to be closed
        self._was_connected = False
        self._unanswered = False  # a CONNECT may have begun a new session that we never heard of
        self._failures = 0
        self._connected_at = 0.0
        self._retry_at: float | None = None

    # The shell's questions. The caller holds the lock.

    def has_output(self) -> bool:
        """Whether :meth:`flush` has something to do. The caller holds the lock."""
        protocol = self._protocol
        if protocol is None or self.stream.blocked:
            return False
        return self.stream.pending or protocol.can_send(self._durable_through())

    def wants_attention(self) -> bool:
        """Whether a shell that waits has to be woken after a publish. The caller holds the lock."""
        return bool(self._callbacks) or self.has_output()

    @property
    def wants_open(self) -> bool:
        """Whether the shell should open the transport now. The caller holds the lock."""
        return self.state == CONNECTING and self._protocol is None

    def adopt(self, saved: SavedSession, store: Store, now: float, wake: Callable[[], None]) -> None:
        """Go on with the session that the store kept; once, before the shell starts. Takes the lock."""
        with self.lock:
            self.outbox.restore(saved, now)
            self.session.received.update(dict.fromkeys(saved.received))
            self.router.restore(saved.subscriptions)
            self.session.record(("fact", "client_id", self.options.client_id))
            self._hand_to_store(store)

        def progressed() -> None:
            with self.lock:
                self.outbox.progressed()
                parked = self.unpark()
            if parked:
                wake()

        store.on_progress = progressed

    # The life of a connection

    def start(self, now: float) -> None:
        """Begin to connect. The caller holds the lock."""
        if self.state not in (IDLE, WAITING):
            return
        self.state = CONNECTING
        self._retry_at = None

    def on_open(self, now: float) -> None:
        """The transport is open: say CONNECT."""
        if self.authentication is not None:
            try:
                self.authentication.begin(self.options)
            except AuthenticationError as error:
                self.transport.close()
                self.on_open_failed(error, now)
                return
        with self.lock:
            if self.state != CONNECTING:
                return  # closed meanwhile; the shell ends with drop_connection()
            clean = self._clean_start
            if clean is None:
                clean = self._store is None and not self._was_connected
            protocol = self._protocol_class(self.session, self.options, inflight=self._inflight)
            self._protocol = protocol
            self.stream.reset()
            protocol.connect(now, clean_start=clean)
        self.flush(now)

    def on_open_failed(self, error: DeviceSdkError, now: float) -> None:
        """The transport could not be opened."""
        with self.lock:
            self.last_error = error
            self._attempt_failed(error, None, now)

    def on_readable(self, now: float) -> None:
        """Read once and react to what came."""
        protocol = self._protocol
        if protocol is None:
            return
        try:
            data = self.transport.recv()
        except TransportError as error:
            self._fail(error, now)
            return
        if data is not None:
            with self.lock:
                self._stats.bytes_received += len(data)
                events = protocol.receive_data(data, now) if data else protocol.receive_eof(now)
                if self._sorts_received or self._in_hand >= self._inbox_limit:
                    events = self._sort_received(protocol, events)
                if self.authentication is None:
                    self._react(events, now)
            if self.authentication is not None:
                self._authenticate(self.authentication, protocol, events, now)
        self.stream.blocked = False  # some streams tell of room by being readable
        self.flush(now)

    def on_writable(self, now: float) -> None:
        """The transport takes bytes again."""
        if self._protocol is None:
            return
        try:
            self.transport.flush()
        except TransportError as error:
            self._fail(error, now)
            return
        self.stream.blocked = False
        self.flush(now)

    def on_deadline(self, now: float) -> None:
        """Do what is due: keep alive, the end of a wait, an expiry in the queue."""
        with self.lock:
            if self._retry_at is not None and now >= self._retry_at:
                self.start(now)
            self._report_ended(self.outbox.expire(now))
            protocol = self._protocol
            if protocol is not None:
                self._react(protocol.handle_deadline(now), now)
            elif self._store is not None:
                self._hand_to_store(self._store)
        if self._protocol is not None:
            try:
                self.transport.handle_deadline(now)
            except TransportError as error:
                self._fail(error, now)
        self.flush(now)

    def next_deadline(self) -> float | None:
        """When :meth:`on_deadline` wants to be called. The caller holds the lock."""
        due = [self._retry_at, self.outbox.next_expiry]
        if self._protocol is not None:
            due += (self._protocol.next_deadline(), self.transport.next_deadline())
        return min((deadline for deadline in due if deadline is not None), default=None)

    def interest(self) -> tuple[int, bool, bool] | None:
        """Return file descriptor, want to read, want to write; ``None`` without an open transport."""
        protocol = self._protocol
        if protocol is None:
            return None
        paused = protocol.reading_paused = self._in_hand >= self._inbox_limit and not self.waiting
        return self.transport.fileno(), not paused, self.transport.wants_write()

    def flush(self, now: float) -> None:
        """Hand output to the transport until it takes no more; close the transport of an ended connection."""
        protocol, stream = self._protocol, self.stream
        try:
            for _ in range(_SENDS_PER_FLUSH):
                if protocol is None or stream.blocked:
                    break
                if not stream.pending:
                    chunks = self._take_output(protocol, now)
                    if not chunks:
                        if protocol.state == DISCONNECTING:
                            self._retired, self._protocol = protocol, None  # DISCONNECT has left
                        break
                    stream.load(chunks)
                sent = stream.send()
                self._stats.bytes_sent += sent
                if sent:
                    protocol.output_progressed(now)
        except TransportError as error:
            self._fail(error, now)
        if self._retired is not None:
            self._bury(now)

    def close_connection(self) -> None:
        """Queue DISCONNECT as the last packet and do not connect again. The caller holds the lock."""
        self.state = CLOSING
        self._retry_at = None
        self._online = None
        if self._protocol is not None:
            self._protocol.disconnect(*self.goodbye)

    def has_connection(self) -> bool:
        """Whether the transport is open. The caller holds the lock."""
        return self._protocol is not None

    def drop_connection(self) -> None:
        """Close the transport as it is; the queue and the session stay. For the owner of the transport."""
        with self.lock:
            self.session.requests.clear()
            self.router.disconnected()
            self._protocol = self._online = None
            self.state = IDLE
        self.transport.close()

    def finish(self) -> None:
        """End everything that waits, for good. The caller is the last user and does not hold the lock."""
        with self.lock:
            closed = ClosedError("the client was closed")
            self._end_requests(closed)
            if self.authentication is not None:
                self.authentication.ended(closed)
            if self._store is not None:
                self._hand_to_store(self._store)
            left = self.outbox.end_all()
            if left and self._store is None:
                self._stats.dropped += len(left)
                self.notify("dropped", f"closed with {len(left)} messages that were not acknowledged")
            self.state = CLOSED
            self._decided()
        if self._store is not None:
            self._store.close()

    def disown(self) -> None:
        """In a forked child: the connection is the parent's, and nothing here will ever happen."""
        self.state = CLOSED
        self._protocol = self._online = None
        error = ClosedError("this process is a fork; the message is its parent's")
        self._end_requests(error)
        self.outbox.end_all(error)

    def is_drained(self) -> bool:
        """Whether network, broker and handlers have nothing more to do. The caller holds the lock."""
        protocol = self._protocol
        unsent = protocol is not None and (self.stream.pending or protocol.has_output)
        unfinished = self.await_handlers and self._in_hand and self.router.inbox is None
        return not (self.outbox.queue or len(self.session) or unsent or unfinished)

    # Messages for the application

    def handled(self, count: int) -> bool:
        """So many messages have been finished with; their acknowledgements may leave.

        The caller holds the lock. Returns: whether the shell has to be woken, to send or to read on.
        """
        was_paused = self._in_hand >= self._inbox_limit
        self._in_hand -= count
        if self._online is not None:
            self._online.acknowledge_handled()
        reads_on = was_paused and self._in_hand < self._inbox_limit
        return reads_on or self.draining or self.has_output()

    def stats(self) -> Stats:
        """Return a copy of the counters. The caller holds the lock."""
        copy = self._stats.copy()
        copy.queued = len(self.outbox.queue)
        copy.queued_bytes = self.outbox.queued_bytes
        copy.in_flight = len(self.session)
        copy.acks_held = 0 if self._online is None else self._online.held_acknowledgements
        return copy

    # Reactions to the protocol's events

    def _authenticate(
        self, authentication: Authentication, protocol: Protocol, events: list[Any], now: float
    ) -> None:
        """Let the authenticator speak, without the lock, before the engine reacts to anything."""
        answers = []
        failure: AuthenticationError | None = None
        for index, event in enumerate(events):
            try:
                answer = authentication.answer(event)
            except AuthenticationError as error:
                failure = error
                events = events[:index] + [e for e in events[index:] if type(e) is not Message]
                break
            if answer is not None:
                answers.append(answer)
        with self.lock:
            if failure is not None or self.state == CLOSING:  # closing: while the authenticator was busy
                events = self._without_connack(events)
            self._react(events, now)
            if self._protocol is protocol and failure is None:
                try:
                    authentication.send(protocol, answers)
                except AuthenticationError as error:
                    failure = error
            if failure is not None:
                protocol.disconnect(_UNSPECIFIED_ERROR)
                authentication.ended(failure)
                self._react([ConnectionEnded(failure)], now)

    def _react(self, events: list[Any], now: float) -> None:
        callbacks = self._callbacks
        received = acknowledged = 0
        for event in events:
            kind = type(event)
            if kind is Message:
                callbacks.append(event)
                received += 1
            elif kind is Delivery:
                if event.status == ACKNOWLEDGED:
                    acknowledged += 1
                else:
                    self._report_ended((event,))
                if event._waiter is not None:
                    event._waiter.set()
            else:
                _REACTIONS[kind](self, event, now)
        stats = self._stats
        self._in_hand += received
        stats.received += received
        stats.acknowledged += acknowledged
        if self.outbox.queue:
            self._fill(now)
        if self._store is not None:
            self._hand_to_store(self._store)

    def _without_connack(self, events: list[Any]) -> list[Any]:
        """Do not begin a connection, although the server may have accepted it and lost the session."""
        kept = []
        for event in events:
            if type(event) is ConnectAcknowledged:
                self.outbox.put_back(event.republish)
            elif type(event) is not AuthReceived:
                kept.append(event)
        return kept

    def _on_connected(self, event: ConnectAcknowledged, now: float) -> None:
        protocol = self._protocol
        assert protocol is not None
        known = self._was_connected or event.republish
        lost = known and not event.session_present and not self._clean_start
        self._online = protocol
        self.attempts += 1
        self._connected_at = now
        self.state = CONNECTED
        self._stats.connects += 1
        if self._was_connected:
            self._stats.reconnects += 1
        self._was_connected = True
        self.last_error = None
        self._decided()
        present = "present" if event.session_present else "new"
        self.notify("connected", f"connected to {self.transport.description}, session {present}")
        if self._republish:
            self.outbox.put_back(event.republish)
        else:
            self.outbox.invalidate(event.republish)
        if lost:
            count = len(event.republish)
            fate = "published again" if self._republish else "invalidated"
            self.notify("session_lost", f"the broker no longer has the session; messages {fate}: {count}")
        self.router.connected(event.session_present and not self._unanswered)
        self._unanswered = False
        self.send_requests()
        if self.on_connect is not None:
            self._callbacks.append((self.on_connect, event))

    def _on_payload_not_text(self, event: PayloadNotText, now: float) -> None:
        text = f"{event.topic}: the payload is declared as UTF-8 and is not from byte {event.position} on"
        self.notify("invalid_payload", text)

    def _on_auth(self, event: AuthReceived, now: float) -> None:
        self.notify("auth", f"the server sent AUTH with reason code 0x{event.reason_code:02x}")

    def _on_ended(self, event: ConnectionEnded, now: float) -> None:
        """The connection is over; what it leaves behind is closed outside the lock, in :meth:`flush`."""
        was_online = self._online is not None
        self._retired = self._protocol
        self._protocol = self._online = None
        self.session.requests.clear()
        self.router.disconnected()
        if self.authentication is not None:
            self.authentication.ended(event.error)
        self.last_error = event.error
        if self.state == CLOSING:
            return  # that was the aim
        if was_online:
            if now - self._connected_at >= self._reconnect.stable:
                self._failures = 0
            delay = self._schedule(event.reason_code, now)
            self.notify("disconnected", f"{self.transport.description}: {event.error}{delay}", event.error)
            if self.on_disconnect is not None:
                self._callbacks.append((self.on_disconnect, event.error))
        else:
            self._unanswered = True
            self._attempt_failed(event.error, event.reason_code, now)
        reference = event.properties.get("server_reference")
        if reference is not None:
            text = f"the server asks to use {reference} instead; this client stays with its URL"
            self.notify("server_reference", text, event.error, reference)

    def _attempt_failed(self, error: DeviceSdkError, reason_code: int | None, now: float) -> None:
        self.attempts += 1
        delay = self._schedule(reason_code, now)
        where = self.transport.description
        named = "" if where in str(error) else f"{where}: "
        self.notify("connect_failed", f"{named}{error}{delay}", error)
        self._decided()

    def _decided(self) -> None:
        """Wake who waits for the outcome of an attempt."""
        if self.attempt_over is not None:
            self.attempt_over.set()

    def _fail(self, error: TransportError, now: float) -> None:
        with self.lock:
            if self._protocol is not None:
                self._react([ConnectionEnded(error)], now)
        if self._retired is not None:
            self._bury(now)

    def on_fault(self, error: Exception, now: float) -> None:
        """Something failed that never should: report it, and begin anew with the next connection."""
        failure = TransportClosedError(f"internal error: {type(error).__name__}: {error}")
        with self.lock:
            self.notify("internal_error", str(failure), error)
            if self._protocol is not None or self.state == CONNECTING:
                self._on_ended(ConnectionEnded(failure), now)
            self._retired = None
        self.stream.close([])

    def _schedule(self, reason_code: int | None, now: float) -> str:
        """Fix the time of the next attempt; return the words for it."""
        if self.state in (CLOSING, CLOSED):
            return ""
        delay = self._reconnect.delay(self._failures, reason_code, self._draw())
        self._failures += 1
        self.state = WAITING
        self._retry_at = now + delay
        return f"; next attempt in {delay:.1f} s"

    def reconnect_now(self, now: float) -> None:
        """End a wait between attempts at once, for example when the link came up. Holds the lock."""
        if self.state == WAITING:
            self._failures = 0
            self.start(now)

    def _bury(self, now: float) -> None:
        """Let a DISCONNECT with a reason leave, and close the transport."""
        protocol, self._retired = self._retired, None
        assert protocol is not None
        self.stream.close(protocol.data_to_send(0, now))

    # Helpers; the caller holds the lock, _take_output excepted

    def _take_output(self, protocol: Protocol, now: float) -> list[bytes]:
        """Return what may leave now."""
        with self.lock:
            if self._store is not None:
                self._hand_to_store(self._store)
            chunks = protocol.data_to_send(self._durable_through(), now)
            if self.outbox.blocked:
                self.outbox.made_room()
        return chunks


_REACTIONS: dict[type, Callable[[Engine, Any, float], None]] = {
    ConnectAcknowledged: Engine._on_connected,
    SubscribeAcknowledged: Engine._on_subscribe_answer,
    UnsubscribeAcknowledged: Engine._on_subscribe_answer,
    AuthReceived: Engine._on_auth,
    PayloadNotText: Engine._on_payload_not_text,
    ConnectionEnded: Engine._on_ended,
}
