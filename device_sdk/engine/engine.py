"""The life cycle of a client: connect, exchange, lose the connection, wait, connect again, close.

No thread, no event loop and no clock live here. A shell (the thread client, the asyncio client, the paho
façade) calls the ``on_...`` methods when something happened to the transport or when
:meth:`Engine.next_deadline` has come, and asks :meth:`Engine.interest` what to wait for. One lock guards all
state; it is never held while user code runs, nor during ``open()``, ``recv()``, ``send()`` or a commit.
"""

from __future__ import annotations

from device_sdk._load import load
from device_sdk._log import is_debugged
from device_sdk.engine.ack_watch import AckWatch
from device_sdk.engine.attempt import Attempt, Personals
from device_sdk.engine.brokers import Broker, Brokers
from device_sdk.engine.exchange import Exchange
from device_sdk.engine.identifiers import Identifiers
from device_sdk.engine.reconnect import ReconnectPolicy, classify
from device_sdk.engine.report import (
    CLOSED,
    CLOSING,
    CONNECTED,
    CONNECTING,
    IDLE,
    WAITING,
)
from device_sdk.errors import (
    ArgumentError,
    AuthenticationError,
    ClosedError,
    DeviceSdkError,
    TransportClosedError,
    TransportError,
)
from device_sdk.mqtt.events import ConnectAcknowledged, ConnectionEnded, SessionUnknown
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.options import check_range
from device_sdk.mqtt.protocol import Protocol
from device_sdk.net.base import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from typing import Any

    from device_sdk.engine.authentication import Authentication
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.engine.waiting import Waiting
    from device_sdk.mqtt.options import ConnectOptions
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

# Shows the packets of a connection; imported only when its logger is switched on.
_PACKET_LOG = "device_sdk.engine.packet_log:PacketLog"
_PACKET_LOGGER = "device_sdk.packets"


class Engine(Exchange):
    """Everything a client does, except waiting.

    Methods that begin with ``on_``, and :meth:`flush`, belong to the one thread that owns the transport and
    take the lock themselves. The others say whether the caller holds it.
    """

    _was_connected = False
    _begins_anew = False  # the server has a session that we know nothing of
    _is_clean = False  # the last CONNECT asked for a clean start
    _unanswered = False  # a CONNECT may have begun a new session that we never heard of
    _wants_return = False  # it is time to look whether the first broker is back

    def __init__(
        self,
        lock: threading.Lock,
        transport: Transport | Sequence[Broker],
        options: ConnectOptions,
        *,
        policy: StorePolicy,
        store: Store | None,
        reconnect: ReconnectPolicy,
        draw: Callable[[], float],
        inflight: int = 20,
        inbox_limit: int = 1_000,
        inbox_bytes: int = 1 << 24,
        clean_start: bool | None = None,
        buffer_qos0: bool = False,
        on_session_lost: str = "republish",
        acknowledge: Callable[[Message], None] | None = None,
        authentication: Authentication | None = None,
        use_topic_aliases: bool = False,
        use_identifiers: bool = False,
        waiting: Waiting | None = None,
        personals: Personals | None = None,
        return_to_first: float | None = None,
        shared_session: bool = False,
        ack_timeout: float | None = None,
    ) -> None:
        if on_session_lost not in ("republish", "fail"):
            raise ArgumentError("on_session_lost", f'must be "republish" or "fail", not {on_session_lost!r}')
        if use_topic_aliases and options.version != "5.0":
            raise ArgumentError("use_topic_aliases", f"MQTT {options.version} has no topic aliases")
        if use_identifiers and options.version != "5.0":
            raise ArgumentError("use_identifiers", f"MQTT {options.version} has no subscription identifiers")
        if isinstance(transport, Transport):
            transport = [Broker(transport, transport.description)]
        super().__init__(
            lock, transport[0].transport, options, policy, store, authentication=authentication,
            buffer_qos0=buffer_qos0, inbox_limit=inbox_limit, inbox_bytes=inbox_bytes,
            acknowledge=acknowledge, waiting=waiting,
        )  # fmt: skip
        self.brokers = Brokers(
            transport, reconnect, draw, return_to_first=return_to_first, shared_session=shared_session
        )
        self.last_error: DeviceSdkError | None = None
        self.goodbye: tuple[int, dict[str, Any]] = (0, {})  # reason code and properties of our DISCONNECT
        self.on_connect: Callable[[ConnectAcknowledged], object] | None = None
        self.on_disconnect: Callable[[DeviceSdkError], object] | None = None
        if use_identifiers:
            self.router.identifiers = Identifiers()
        self._use_aliases = use_topic_aliases
        self._personals = personals or Personals(options)
        self._attempt: Attempt | None = None  # whose stream is being opened
        self._acks = None if ack_timeout is None else AckWatch(ack_timeout)
        self._draw = draw
        self._inflight = check_range("inflight", inflight, 1, 65_535)
        self._clean_start = clean_start
        self._republish = on_session_lost == "republish"
        self.attempt_over: threading.Event | None = None  # set when a connection is accepted or failed
        self._connected_at = 0.0
        self._retry_at: float | None = None

    # The shell's questions. The caller holds the lock.

    @property
    def wants_open(self) -> bool:
        """Whether the shell should open what :meth:`attempt` returns now. The caller holds the lock."""
        if self.state == CONNECTING:
            return self._protocol is None
        return self._wants_return and self.state == CONNECTED

    def adopt(self, saved: SavedSession, store: Store, now: float, wake: Callable[[], None]) -> None:
        """Go on with the session that the store kept; once, before the shell starts. Takes the lock."""
        with self.lock:
            self.outbox.restore(saved, now, self.options.version)
            self.session.received.update(dict.fromkeys(saved.received))
            self.router.restore(saved.subscriptions)
            self.brokers.restore(saved.facts.get("broker"))
            session_of = saved.facts.get("session")
            self.session.known = session_of == self.options.client_id
            if session_of is not None and not self.session.known:  # another client identifier
                self.outbox.put_back(self.session.lose()[0])
                self._unanswered = True  # ask for every subscription, whatever that session has
            self.session.record(("fact", "client_id", self.options.client_id))
            self._hand_to_store(store)
            self._report_store(store)

        def progressed() -> None:
            with self.lock:
                parked = self.on_store_progress()
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

    def reconnect_now(self, now: float) -> None:
        """End a wait between attempts at once: the link came up. The caller holds the lock."""
        if self.state == WAITING:
            self.brokers.start_over()
            self.start(now)

    def attempt(self) -> Attempt:
        """Return what to open now; then comes :meth:`on_open` or :meth:`on_open_failed`.

        For the owner of the transport. ``open()`` of the attempt is the only part that may run elsewhere.
        """
        with self.lock:
            is_return, self._wants_return = self._wants_return, False
            is_return = is_return and self.state == CONNECTED
            broker = self.brokers.first if is_return else self.brokers.current
            self._attempt = attempt = Attempt(broker, self._personals, is_return=is_return)
            if not is_return:
                self._use(broker.transport)
        return attempt

    def on_open(self, now: float) -> None:
        """The stream of the last attempt is open: say CONNECT."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None and not self._takes_over(attempt, now):
            return
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
            clean = self._begins_clean()
            if not (clean or self.session.known):
                # The server may remember identifiers of an earlier life: it would swallow a QoS 2 message
                # under one of them as a repetition.
                self.session.last_packet_id = int(self._draw() * 65_535)
            vouched = self._clean_start is False
            protocol = self._protocol = Protocol(
                self.session,
                self.options,
                inflight=self._inflight,
                vouched=vouched,
                use_aliases=self._use_aliases,
            )
            if is_debugged(_PACKET_LOGGER):
                packet_log = load(_PACKET_LOG)(self.transport.description, self.options.version)
                protocol.watch(packet_log.on_packet)
            self.stream.reset()
            protocol.connect(now, clean_start=clean)
            self._is_clean = clean
        self.flush(now)

    def _begins_clean(self) -> bool:
        """Whether the server is to forget an earlier session, if it has one."""
        if self._begins_anew or self.brokers.session_is_elsewhere(self.options.client_id):
            return True
        if self._clean_start is None:
            return self._store is None and not self._was_connected
        return self._clean_start

    def _takes_over(self, attempt: Attempt, now: float) -> bool:
        """Whether the stream of this attempt is to be the connection; another one is ended for it."""
        if attempt.is_return:
            with self.lock:
                leaves = self.state in (CONNECTED, CONNECTING, WAITING)
                if leaves and self._protocol is not None:
                    self._protocol.disconnect()
                    error = TransportClosedError(f"left to return to {attempt.transport.description}")
                    self._detach(error)
                    self._tell_end(error, "")
            if self._retired is not None:
                self._bury(now)
            if not leaves:
                attempt.close()
                return False
            with self.lock:
                self.brokers.return_to_first()
                self._use(attempt.transport)
                self.state, self._retry_at = CONNECTING, None
        self._personals.tell(attempt.fields)
        return True

    def _use(self, transport: Transport) -> None:
        self.transport = self.stream.transport = transport

    def on_open_failed(self, error: DeviceSdkError, now: float) -> None:
        """The stream of the last attempt could not be opened."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            # Nothing is open, unless an open() that was left behind got hold of it: the next one needs it.
            attempt.transport.close()
        with self.lock:
            if attempt is not None and attempt.is_return:
                self.brokers.return_failed(now)
                goes_on = "; the present connection goes on" if self.state == CONNECTED else ""
                self._tell_failure(attempt.transport, error, goes_on)
                return
            self.last_error = self.outbox.waits.failure = error
            self._attempt_failed(error, None, now)

    def on_deadline(self, now: float) -> None:
        """Do what is due: keep alive, the end of a wait, an expiry in the queue."""
        with self.lock:
            if self._retry_at is not None and now >= self._retry_at:
                self.start(now)
            self._report_ended(self.outbox.expire(now))
            if self.outbox.next_replay is not None and now >= self.outbox.next_replay:
                self._fill(now)
            protocol = self._protocol
            if protocol is not None:
                self._react(protocol.handle_deadline(now), now)
            if self._online is not None:
                self._look_after(self._online, now)
            elif self._store is not None:
                self._hand_to_store(self._store)
        if self._protocol is not None:
            try:
                self.transport.handle_deadline(now)
            except TransportError as error:
                self._fail(error, now)
        self.flush(now)

    def _look_after(self, protocol: Protocol, now: float) -> None:
        """End a connection on which nothing is acknowledged; note that the first broker could be back."""
        # What is not sent cannot be answered, and what is not read may have been.
        busy = self.stream.pending or protocol.has_output or protocol.reading_paused
        if self._acks is not None and self._acks.is_stuck(self.session, now, excused=busy):
            protocol.disconnect()
            text = (
                f"ack_timeout: no acknowledgement for {self._acks.seconds:g} s; {len(self.session)} in flight"
            )
            self._react([ConnectionEnded(TransportClosedError(text))], now)
        elif self.brokers.return_at is not None and now >= self.brokers.return_at:
            self.brokers.return_at = None
            self._wants_return = True

    def next_deadline(self) -> float | None:
        """When :meth:`on_deadline` wants to be called. The caller holds the lock."""
        due = [self._retry_at, self.outbox.next_expiry, self.outbox.next_replay]
        if self._protocol is not None:
            due += (self._protocol.next_deadline(), self.transport.next_deadline())
        if self._online is not None:
            due.append(self.brokers.return_at)
            if self._acks is not None:
                due.append(self._acks.deadline(self.session))
        return min((deadline for deadline in due if deadline is not None), default=None)

    def close_connection(self) -> None:
        """Queue DISCONNECT as the last packet and do not connect again. The caller holds the lock."""
        self.state = CLOSING
        self._retry_at = None
        if self._protocol is not None:
            self._unanswered |= self._online is None
            self._protocol.disconnect(*self.goodbye)
        self._online = None

    def drop_connection(self) -> None:
        """Close the transport as it is; the queue and the session stay. For the owner of the transport."""
        with self.lock:
            self.session.requests.clear()
            self.router.disconnected()
            self.outbox.disconnected()
            self._protocol = self._online = None
            if self.state != CLOSED:  # by a shell that could not wait for the owner of the transport
                self.state = IDLE
        self.transport.close()

    def finish(self) -> None:
        """End everything that waits, for good. The caller is the last user and does not hold the lock."""
        self.end()
        self.close_store()

    def end(self) -> None:
        """The part of :meth:`finish` that does not block."""
        with self.lock:
            closed = ClosedError("the client was closed")
            self._end_requests(closed)
            if self.authentication is not None:
                self.authentication.ended(closed)
            if self._store is not None:
                self.session.note_handled()
                self.session.record(("reserved", self.session.last_packet_id))  # the next one goes on there
                self._hand_to_store(self._store)
            self._tell_dropped(self.outbox.end_all())
            self.state = CLOSED
            self._decided()

    def close_store(self) -> None:
        """The part of :meth:`finish` that may block."""
        if self._store is not None:
            self._store.close()
            with self.lock:
                self._tell_dropped(self.outbox.settle())

    def _tell_dropped(self, left: list[Delivery]) -> None:
        if left:
            self._stats.dropped += len(left)
            self.notify("dropped", f"closed with {len(left)} messages that were not acknowledged")

    def disown(self) -> None:
        """In a forked child: the connection is the parent's, and nothing here will ever happen."""
        self.state = CLOSED
        self._protocol = self._online = None
        error = ClosedError("this process is a fork; the message is its parent's")
        self._end_requests(error)
        self.outbox.end_all(error)

    # Reactions to the protocol's events

    def _on_connected(self, event: ConnectAcknowledged, now: float) -> None:
        protocol = self._protocol
        assert protocol is not None
        elsewhere = self.brokers.session_is_elsewhere(self.options.client_id)
        identity = self.brokers.session_begins(self.options.client_id)
        if identity is not None:
            self.session.record(("fact", "broker", identity))
        self.brokers.accepted(now)
        if self._acks is not None:
            self._acks.begin(now)
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
        self._begins_anew = False
        self.session.outlives_connection = not self._is_clean  # Source: MQTT 3.1 §3.1
        self.last_error = self.outbox.waits.failure = None
        self._decided()
        self.outbox.connected()
        present = "present" if event.session_present else "new"
        where = self.transport.description
        self.notify("connected", f"connected to {where}, session {present}", value=where)
        if self._republish:
            self.outbox.put_back(event.republish)
        else:
            self.outbox.invalidate(event.republish)
        if lost:
            count = len(event.republish)
            fate = "published again" if self._republish else "invalidated"
            why = "another broker has the session" if elsewhere else "the broker no longer has the session"
            self.notify("session_lost", f"{why}; messages {fate}: {count}")
        self.router.connected(event.session_present and not self._unanswered)
        self._unanswered = False
        self.send_requests()
        if self.on_connect is not None:
            self._callbacks.append((self.on_connect, event))

    def _on_ended(self, event: ConnectionEnded, now: float) -> None:
        """The connection is over; what it leaves behind is closed outside the lock, in :meth:`flush`."""
        was_online = self._online is not None
        self._detach(event.error)
        if self.state == CLOSING:
            return  # that was the aim
        if was_online:
            retry = classify(event.error, event.reason_code)
            lasted = now - self._connected_at
            delay = self.brokers.connection_lost(retry, event.reason_code, lasted, now)
            self._tell_end(event.error, self._schedule(delay, now))
        else:
            self._unanswered = True
            self._attempt_failed(event.error, event.reason_code, now)
        reference = event.properties.get("server_reference")
        if reference is not None:
            text = f"the server asks to use {reference} instead; this client stays with its URL"
            self.notify("server_reference", text, event.error, reference)

    def _detach(self, error: DeviceSdkError) -> None:
        """Nothing is sent or expected on this connection any more; its transport is still to be closed."""
        self._retired = self._protocol
        self._protocol = self._online = None
        self._wants_return = False
        self.session.requests.clear()
        self.router.disconnected()
        self.outbox.disconnected()
        if self.authentication is not None:
            self.authentication.ended(error)
        self.last_error = self.outbox.waits.failure = error

    def _tell_end(self, error: DeviceSdkError, consequence: str) -> None:
        self.notify("disconnected", f"{self.transport.description}: {error}{consequence}", error)
        if self.on_disconnect is not None:
            self._callbacks.append((self.on_disconnect, error))

    def _on_session_unknown(self, event: SessionUnknown, now: float) -> None:
        """Connect again at once, with a clean start. Source: MQTT 5.0 §3.2.2.1.1 [MQTT-3.2.2-4]."""
        self._begins_anew = True
        self._retired, self._protocol = self._protocol, None
        if self.authentication is not None:
            self.authentication.ended(event.error)
        if self.state != CLOSING:
            self.state = CONNECTING
            text = "the broker's session is not known here and is replaced; clean_start=False would resume it"
            self.notify("session_lost", text, event.error)

    def _attempt_failed(self, error: DeviceSdkError, reason_code: int | None, now: float) -> None:
        """The current broker's turn is over; the attempt is only when each of them has had its turn."""
        error.retry = classify(error, reason_code)
        delay = self.brokers.attempt_failed(error.retry, now)
        self._tell_failure(self.transport, error, self._schedule(delay or 0.0, now))
        if delay is not None:
            self.attempts += 1
            self._decided()

    def _tell_failure(self, transport: Transport, error: DeviceSdkError, consequence: str) -> None:
        where = transport.description
        named = "" if where in str(error) else f"{where}: "
        self.notify("connect_failed", f"{named}{error}{consequence}", error)

    def _decided(self) -> None:
        """Wake who waits for the outcome of an attempt."""
        if self.attempt_over is not None:
            self.attempt_over.set()

    def on_fault(self, error: Exception, now: float) -> None:
        """Something failed that never should: report it, and begin anew with the next connection."""
        failure = TransportClosedError(f"internal error: {type(error).__name__}: {error}")
        with self.lock:
            self.notify("internal_error", str(failure), error)
            if self._protocol is not None or self.state == CONNECTING:
                self._on_ended(ConnectionEnded(failure), now)
            self._retired = None
        self.stream.reset()
        self.transport.close()

    def _schedule(self, delay: float, now: float) -> str:
        """Fix the time of the next attempt; return the words for it."""
        if self.state in (CLOSING, CLOSED):
            return ""
        self.state = WAITING
        self._retry_at = now + delay
        following = self.brokers.current.transport
        where = "" if len(self.brokers.all) == 1 else f" at {following.description}"
        when = f"in {delay:.1f} s" if delay else "at once"
        return f"; next attempt{where} {when}"


Engine.reactions = {
    **Exchange.reactions,
    ConnectAcknowledged: Engine._on_connected,
    ConnectionEnded: Engine._on_ended,
    SessionUnknown: Engine._on_session_unknown,
}
