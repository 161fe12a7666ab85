"""The life cycle of a client: connect, exchange, lose the connection, wait, connect again, close.

No thread, no event loop and no clock live here. A shell (the thread client, the asyncio client, the paho
façade) calls the ``on_...`` methods when something happened to the transport or when
:meth:`Engine.next_deadline` has come, and asks :meth:`Engine.interest` what to wait for. One lock guards all
state; it is never held while user code runs, nor during ``open()``, ``recv()``, ``send()`` or a commit.
"""

from __future__ import annotations

from device_sdk._log import Log
from device_sdk.engine.outbox import Delivery, Outbox
from device_sdk.engine.reconnect import ReconnectPolicy
from device_sdk.engine.report import ClientEvent, Stats
from device_sdk.engine.router import Router
from device_sdk.errors import ClosedError, DeviceSdkError, DroppedError, QueueFullError, TransportError
from device_sdk.mqtt.events import (
    AuthReceived,
    ConnectAcknowledged,
    ConnectionEnded,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.protocol import DISCONNECTING, Protocol
from device_sdk.mqtt.session import ACKNOWLEDGED, DROPPED, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable
    from typing import Any

    from device_sdk.engine.router import Request
    from device_sdk.mqtt.message import Subscription
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
    "ClientEvent",
    "Engine",
    "Stats",
]

IDLE, CONNECTING, CONNECTED = "idle", "connecting", "connected"
WAITING, CLOSING, CLOSED = "waiting", "closing", "closed"

_SEND_SIZE = 256 * 1024
_OPEN_GATES = 1 << 62  # above every change number: a failed or absent store holds nothing back

_EXPECTED = frozenset({"connected", "disconnected", "connect_failed", "auth"})
_BUGS = frozenset({"handler_failed"})  # a traceback helps only with these

log = Log("device_sdk.engine")


class Engine:
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
    ) -> None:
        self.lock = lock
        self.transport = transport
        self.options = options
        self.session = Session(journal=store is not None)
        self.outbox = Outbox(lock, self.session, policy, store)
        self.router = Router(lock)
        self.state = IDLE
        self.parked = False  # the shell waits for the network: whoever adds output has to wake it
        self.last_error: DeviceSdkError | None = None
        self.attempts = 0
        self.draining = False  # the shell waits for is_drained()
        self.await_handlers = True
        self.on_event: Callable[[ClientEvent], object] | None = None
        self.on_connect: Callable[[ConnectAcknowledged], object] | None = None
        self.on_disconnect: Callable[[DeviceSdkError], object] | None = None
        self._policy = policy
        self._store = store
        self._reconnect = reconnect
        self._draw = draw
        self._inflight = inflight
        self._inbox_limit = inbox_limit
        self._clean_start = clean_start
        self._buffer_qos0 = buffer_qos0
        self._republish = on_session_lost == "republish"
        self.attempt_over: threading.Event | None = None  # set when a connection is accepted or failed
        self._protocol: Protocol | None = None  # of the open transport
        self._online: Protocol | None = None  # the same, once CONNACK has accepted
        self._retired: Protocol | None = None  # ended; its transport is to be closed
        self._was_connected = False
        self._failures = 0
        self._connected_at = 0.0
        self._retry_at: float | None = None
        self._chunks: list[bytes] = []
        self._buffer: bytes | memoryview = b""
        self._send_blocked = False
        self._callbacks: list[Any] = []
        self._in_hand = 0  # messages handed to handlers or the inbox and not finished
        self._stats = Stats()

    # Publishing and subscribing. The caller holds the lock; the result says whether to wake the shell.

    def publish(
        self,
        topic_field: bytes,
        payload: bytes,
        flags: int,
        properties: bytes,
        expires_at: float | None,
        now: float | None,
    ) -> Delivery | None:
        """Send a message now if the window has room, else queue it.

        Returns: its delivery, or ``None`` if the policy is to block and the caller has to wait for room.
        Raises: QueueFullError, LocalProtocolError (the connected server does not take it).
        """
        protocol = self._online
        outbox = self.outbox
        if flags < 2:
            if protocol is not None and expires_at is None:
                if protocol.buffered > self._policy.max_bytes:
                    raise QueueFullError(
                        f"{protocol.buffered} bytes wait for the network, which takes them too slowly"
                    )
                protocol.publish_qos0(topic_field, payload, flags, properties)
                self._stats.published += 1
                return outbox.sent_qos0
            if protocol is None and not self._holds_qos0():
                delivery = Delivery(outbox, topic_field, payload, flags, properties, expires_at)
                self._drop(delivery, "there is no connection, and QoS 0 is not buffered (buffer_qos0)")
                return delivery
        delivery = Delivery(outbox, topic_field, payload, flags, properties, expires_at)
        if protocol is None:
            return self._enqueue(delivery)
        if flags >= 2 and not outbox.queue and len(self.session) < protocol.window:
            outbox.journal(delivery)
            protocol.publish(delivery, now or 0.0)
            self._stats.published += 1
            if self._store is not None:
                self._hand_to_store(self._store)
            return delivery
        protocol.check(flags, len(topic_field) + len(properties) + len(payload) + 7)
        queued = self._enqueue(delivery)
        if flags < 2:
            self._fill(now or 0.0)
        return queued

    def _enqueue(self, delivery: Delivery) -> Delivery | None:
        dropped = self.outbox.add(delivery)
        if dropped is None:
            return None
        self._stats.published += 1
        self._report_ended(dropped)
        if self._store is not None:
            self._hand_to_store(self._store)
        return delivery

    def subscribe(
        self, subscriptions: list[Subscription], handler: Callable[[Message], object] | None
    ) -> Request:
        """Want these subscriptions; see :meth:`Router.subscribe`."""
        request = self.router.subscribe(subscriptions, handler)
        for wanted in subscriptions:
            options = (wanted.qos, wanted.no_local, wanted.retain_as_published, wanted.retain_handling)
            self.session.record(("subscribed", wanted.topic, *options))
        self.send_requests()
        return request

    def unsubscribe(self, topic_filters: list[str]) -> Request:
        """Stop wanting these; see :meth:`Router.unsubscribe`."""
        request = self.router.unsubscribe(topic_filters)
        for topic_filter in topic_filters:
            self.session.record(("unsubscribed", topic_filter))
        self.send_requests()
        return request

    def send_requests(self) -> None:
        """Send what the router wants to ask, if there is a connection. The caller holds the lock."""
        if self._online is not None:
            for _, error in self.router.send(self._online):
                self.notify("subscribe_refused", str(error), error)

    def has_output(self) -> bool:
        """Whether :meth:`flush` has something to do. The caller holds the lock."""
        protocol = self._protocol
        if protocol is None or self._send_blocked:
            return False
        return bool(self._buffer or self._chunks) or protocol.can_send(self._durable_through())

    def unpark(self) -> bool:
        """Whether the shell waits and has to be woken; it counts as woken then. The caller holds the lock."""
        parked, self.parked = self.parked, False
        return parked

    @property
    def wants_open(self) -> bool:
        """Whether the shell should open the transport now. The caller holds the lock."""
        return self.state == CONNECTING and self._protocol is None

    def adopt(self, saved: SavedSession, store: Store, now: float, wake: Callable[[], None]) -> None:
        """Go on with the session that the store kept; called once, before the shell starts."""
        self.outbox.restore(saved, now)
        self.session.received.update(dict.fromkeys(saved.received))
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
        with self.lock:
            clean = self._clean_start
            if clean is None:
                clean = self._store is None and not self._was_connected
            protocol = Protocol(self.session, self.options, inflight=self._inflight)
            self._protocol = protocol
            self._chunks, self._buffer, self._send_blocked = [], b"", False
            self.attempts += 1
            protocol.connect(now, clean_start=clean)
        self.flush(now)

    def on_open_failed(self, error: DeviceSdkError, now: float) -> None:
        """The transport could not be opened."""
        with self.lock:
            self.attempts += 1
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
        if data is None:
            self._send_blocked = False  # some streams tell of room by being readable
            self.flush(now)
            return
        with self.lock:
            self._stats.bytes_received += len(data)
            self._react(protocol.receive_data(data, now) if data else protocol.receive_eof(now), now)
        self._send_blocked = False
        self.flush(now)

    def on_writable(self, now: float) -> None:
        """The transport takes bytes again."""
        try:
            self.transport.flush()
        except TransportError as error:
            self._fail(error, now)
            return
        self._send_blocked = False
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
        if protocol is not None:
            self.transport.handle_deadline(now)
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
        paused = protocol.reading_paused = self._in_hand >= self._inbox_limit
        return self.transport.fileno(), not paused, self._send_blocked or self.transport.wants_write()

    def flush(self, now: float) -> None:
        """Hand output to the transport until it takes no more; close the transport of an ended connection."""
        protocol = self._protocol
        try:
            while protocol is not None and not self._send_blocked:
                if not self._buffer and not self._next_buffer(protocol, now):
                    if protocol.state == DISCONNECTING:
                        self._retired, self._protocol = protocol, None  # DISCONNECT has left
                    break
                sent = self.transport.send(self._buffer)
                self._stats.bytes_sent += sent
                if sent:
                    protocol.output_progressed(now)
                self._send_blocked = sent < len(self._buffer)
                self._buffer = memoryview(self._buffer)[sent:] if self._send_blocked else b""
        except TransportError as error:
            self._fail(error, now)
        if self._retired is not None:
            self._bury()

    def close_connection(self) -> None:
        """Queue DISCONNECT as the last packet and do not connect again. The caller holds the lock."""
        self.state = CLOSING
        self._retry_at = None
        self._online = None
        if self._protocol is not None:
            self._protocol.disconnect()

    def has_connection(self) -> bool:
        """Whether the transport is open. The caller holds the lock."""
        return self._protocol is not None

    def drop_connection(self) -> None:
        """Close the transport as it is; the queue and the session stay. For the owner of the transport."""
        with self.lock:
            if self._protocol is not None:
                self.session.requests.clear()
                self.router.disconnected()
            self._protocol = self._online = None
            self.state = IDLE
        self.transport.close()

    def finish(self) -> None:
        """End everything that waits, for good. The caller is the last user and does not hold the lock."""
        with self.lock:
            self.router.close(ClosedError("the client was closed"))
            if self._store is not None:
                self._hand_to_store(self._store)
            left = self.outbox.end_all()
            if left and self._store is None:
                self._stats.dropped += len(left)
                self.notify("dropped", f"closed with {len(left)} messages that were not acknowledged")
            self.state = CLOSED
        if self._store is not None:
            self._store.close()

    def is_drained(self) -> bool:
        """Whether network, broker and handlers have nothing more to do. The caller holds the lock."""
        protocol = self._protocol
        unsent = bool(self._buffer or self._chunks) or (protocol is not None and protocol.has_output)
        unfinished = self.await_handlers and self._in_hand and self.router.inbox is None
        return not (self.outbox.queue or len(self.session) or unsent or unfinished)

    # Messages for the application

    def take_callbacks(self) -> list[Any]:
        """Return what is to be run: messages, and (callable, argument) pairs. The caller holds the lock."""
        callbacks, self._callbacks = self._callbacks, []
        return callbacks

    def callbacks_waiting(self) -> bool:
        """Whether :meth:`take_callbacks` would return something. The caller holds the lock."""
        return bool(self._callbacks)

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

    def notify(self, kind: str, text: str, error: BaseException | None = None) -> None:
        """Queue an event for the log and ``on_event``, which must not run here: the caller holds the lock."""
        self._callbacks.append((self._publish_event, ClientEvent(kind, text, error)))

    def _publish_event(self, event: ClientEvent) -> None:
        if event.kind in _EXPECTED:
            log.info("%s: %s", event.kind, event.text)
        else:
            log.warning("%s: %s", event.kind, event.text, error=event.error if event.kind in _BUGS else None)
        if self.on_event is not None:
            self.on_event(event)

    # Reactions to the protocol's events

    def _react(self, events: list[Any], now: float) -> None:
        callbacks = self._callbacks
        for event in events:
            if type(event) is Message:
                callbacks.append(event)
                self._in_hand += 1
                self._stats.received += 1
            elif type(event) is Delivery:
                if event.status == ACKNOWLEDGED:
                    self._stats.acknowledged += 1
                else:
                    self._report_ended((event,))
                if event._waiter is not None:
                    event._waiter.set()
            else:
                _REACTIONS[type(event)](self, event, now)
        if self.outbox.queue:
            self._fill(now)
        if self._store is not None:
            self._hand_to_store(self._store)

    def _on_connected(self, event: ConnectAcknowledged, now: float) -> None:
        protocol = self._protocol
        assert protocol is not None
        lost = self._was_connected and not event.session_present and not self._clean_start
        self._online = protocol
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
            what = (
                f"{count} messages are published again"
                if self._republish
                else f"{count} messages invalidated"
            )
            self.notify("session_lost", f"the broker no longer has the session: {what}")
        self.router.connected(event.session_present)
        self.send_requests()
        if self.on_connect is not None:
            self._callbacks.append((self.on_connect, event))

    def _on_subscribe_answer(self, event: SubscribeAcknowledged, now: float) -> None:
        request = self.router.answered(event.packet_id, event.reason_codes, self.options.version)
        if request is not None and request.error is not None:
            self.notify("subscribe_refused", str(request.error), request.error)

    def _on_auth(self, event: AuthReceived, now: float) -> None:
        self.notify("auth", f"the server sent AUTH with reason code 0x{event.reason_code:02x}")

    def _on_ended(self, event: ConnectionEnded, now: float) -> None:
        """The connection is over; what it leaves behind is closed outside the lock, in :meth:`flush`."""
        was_online = self._online is not None
        self._retired = self._protocol
        self._protocol = self._online = None
        self.session.requests.clear()
        self.router.disconnected()
        self.last_error = event.error
        if was_online:
            if now - self._connected_at >= self._reconnect.stable:
                self._failures = 0
            delay = self._schedule(event.reason_code, now)
            self.notify("disconnected", f"{self.transport.description}: {event.error}{delay}", event.error)
            if self.on_disconnect is not None:
                self._callbacks.append((self.on_disconnect, event.error))
        else:
            self._attempt_failed(event.error, event.reason_code, now)

    def _attempt_failed(self, error: DeviceSdkError, reason_code: int | None, now: float) -> None:
        delay = self._schedule(reason_code, now)
        self.notify("connect_failed", f"{self.transport.description}: {error}{delay}", error)
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
            self._bury()

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

    def _bury(self) -> None:
        """Give a DISCONNECT with a reason one chance to leave, then close the transport."""
        protocol, self._retired = self._retired, None
        assert protocol is not None
        try:
            if not self._buffer:
                for chunk in protocol.data_to_send(_OPEN_GATES, 0.0):
                    self.transport.send(chunk)
        except TransportError:
            pass
        self._chunks, self._buffer, self._send_blocked = [], b"", False
        self.transport.close()

    # Helpers; the caller holds the lock, _next_buffer excepted

    def _next_buffer(self, protocol: Protocol, now: float) -> bool:
        """Join what may leave into one buffer of a bounded size."""
        if not self._chunks:
            with self.lock:
                if self._store is not None:
                    self._hand_to_store(self._store)
                self._chunks = protocol.data_to_send(self._durable_through(), now)
        chunks = self._chunks
        if not chunks:
            return False
        size = 0
        for count, chunk in enumerate(chunks):  # noqa: B007 (count is what the loop is for)
            size += len(chunk)
            if size > _SEND_SIZE:
                break
        else:
            count = len(chunks)
        count = max(count, 1)
        self._buffer = chunks[0] if count == 1 else b"".join(chunks[:count])
        self._chunks = chunks[count:]
        return True

    def _durable_through(self) -> int:
        store = self._store
        return _OPEN_GATES if store is None or store.failure is not None else store.durable_through

    def _fill(self, now: float) -> None:
        if self._online is not None:
            self._report_ended(self.outbox.fill(self._online, now))

    def _hand_to_store(self, store: Store) -> None:
        changes = self.session.take_changes()
        if changes:
            store.submit(changes, self.session.change_number)
            self.outbox.progressed()
        if store.failure is not None and self.session.journal:
            self.session.journal = False
            self.notify("store_failed", f"the store failed: {store.failure}", store.failure)

    def _holds_qos0(self) -> bool:
        """QoS 0 waits for the very first connection, or always if it was asked for."""
        return self._buffer_qos0 or not self.attempts

    def _drop(self, delivery: Delivery, why: str) -> None:
        self.outbox.end(delivery, DROPPED, DroppedError(why))
        self._stats.dropped += 1

    def _report_ended(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.error is None:
                continue
            kind = delivery.status
            if kind in ("dropped", "expired", "refused"):
                setattr(self._stats, kind, getattr(self._stats, kind) + 1)
                self.notify(kind, f"{delivery.topic}: {delivery.error}", delivery.error)


_REACTIONS: dict[type, Callable[[Engine, Any, float], None]] = {
    ConnectAcknowledged: Engine._on_connected,
    SubscribeAcknowledged: Engine._on_subscribe_answer,
    UnsubscribeAcknowledged: Engine._on_subscribe_answer,
    AuthReceived: Engine._on_auth,
    ConnectionEnded: Engine._on_ended,
}
