"""The engine of a client: everything a client does, except waiting for the network.

:class:`Engine` starts no thread and reads no clock: a shell drives it, and time is an argument. A shell (the
thread client, the asyncio client) calls the ``on_...`` methods when something happened to the transport or
when :meth:`Engine.next_deadline` has come, and asks :meth:`Engine.interest` what to wait for. One lock guards
all state; it is never held while user code runs, nor during ``open()``, ``recv()``, ``send()`` or a commit.
"""

from __future__ import annotations

from device_sdk._weak import weakly
from device_sdk.engine.arguments import WITH_WILL, check_version
from device_sdk.engine.connecting.brokers import Broker, Brokers
from device_sdk.engine.connecting.connector import Connector
from device_sdk.engine.connecting.credentials import Credentials
from device_sdk.engine.connecting.resumption import Resumption
from device_sdk.engine.connection import Connection
from device_sdk.engine.consumers import Consumers
from device_sdk.engine.events import Events
from device_sdk.engine.incoming.in_hand import InHand
from device_sdk.engine.incoming.manual_ack import HeldBounds
from device_sdk.engine.incoming.subscriber import Subscriber
from device_sdk.engine.life_cycle import CONNECTED, CONNECTING, WAITING, LifeCycle
from device_sdk.engine.outgoing.ack_watch import AckWatch
from device_sdk.engine.outgoing.publisher import Publisher
from device_sdk.engine.reactions import Reactions
from device_sdk.errors import ArgumentError, AuthenticationError, ClosedError, DeviceSdkError
from device_sdk.mqtt.options import check_range
from device_sdk.mqtt.protocol import Protocol
from device_sdk.mqtt.rules import ProtocolRules
from device_sdk.mqtt.session import Session
from device_sdk.net.base import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from typing import Any

    from device_sdk.engine.connecting.attempt import Attempt
    from device_sdk.engine.connecting.authentication import Authentication
    from device_sdk.engine.connecting.back_off import ReconnectPolicy
    from device_sdk.engine.events import ClientEvent, Stats
    from device_sdk.engine.outgoing.greetings import Greetings
    from device_sdk.mqtt.events import ConnectAcknowledged
    from device_sdk.mqtt.message import AckToken
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.store.base import SavedSession, Store, StorePolicy

__all__ = ["Engine"]

_RULES = ProtocolRules(postpones=frozenset({0x97}))  # quota exceeded


class Engine:
    """The parts of one client, its lock, and the present connection.

    Methods that begin with ``on_``, and :meth:`flush`, belong to the one thread that owns the transport and
    take the lock themselves. The others say whether the caller holds it.

    ``parked``: the shell waits for the network, and whoever adds output has to wake it. ``goodbye``: reason
    code and properties of our DISCONNECT. ``draining``: the shell waits for :meth:`is_drained`.
    """

    def __init__(
        self,
        lock: threading.RLock,
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
        made_up_name: bool = False,
        buffer_qos0: bool = False,
        on_session_lost: str = "republish",
        acknowledge: Callable[[AckToken], object] | None = None,
        authentication: Authentication | None = None,
        use_topic_aliases: bool = False,
        use_identifiers: bool = False,
        consumers: Consumers | None = None,
        credentials: Credentials | None = None,
        return_to_first: float | None = None,
        shared_session: bool = False,
        ack_timeout: float | None = None,
        on_poison: str = "shelve",
        greetings: Greetings | None = None,
        on_connect: Callable[[ConnectAcknowledged], object] | None = None,
        on_disconnect: Callable[[DeviceSdkError], object] | None = None,
        on_event: Callable[[ClientEvent], object] | None = None,
    ) -> None:
        if on_session_lost not in ("republish", "fail"):
            raise ArgumentError("on_session_lost", f'must be "republish" or "fail", not {on_session_lost!r}')
        check_version(options, use_topic_aliases=use_topic_aliases, use_identifiers=use_identifiers)
        if isinstance(transport, Transport):
            transport = [Broker(transport, transport.description)]
        self.lock = lock
        self.options = options
        self.authentication = authentication
        self.consumers = Consumers() if consumers is None else consumers
        self.session = session = Session(journal=store is not None)
        self.events = events = Events(on_event)
        self.outgoing = Publisher(
            lock, session, policy, store, events, self.consumers, buffer_qos0=buffer_qos0,
            alone=len(transport) == 1, on_poison=on_poison, greetings=greetings,
        )  # fmt: skip
        self.incoming = Subscriber(
            lock, session, events, self.consumers,
            InHand(inbox_limit, inbox_bytes, options.maximum_packet_size), suspicion=self.outgoing.suspicion,
            use_identifiers=use_identifiers, acknowledge=acknowledge, held=HeldBounds(inbox_bytes, options),
        )  # fmt: skip
        brokers = Brokers(transport, reconnect, draw, return_to_first=return_to_first,
                          shared_session=shared_session)  # fmt: skip
        resumption = Resumption(
            session, options, brokers, draw, clean_start=clean_start, is_durable=store is not None,
            made_up=made_up_name, wants_messages=self.incoming.router.has_subscriptions,
        )  # fmt: skip
        check_range("inflight", inflight, 1, 65_535)
        self.connector = Connector(
            brokers, options, credentials or Credentials(options), resumption, authentication,
            lambda vouched: Protocol(
                session, options, inflight=inflight, vouched=vouched,
                use_aliases=use_topic_aliases, rules=_RULES),
        )  # fmt: skip
        self.life = LifeCycle()
        self.reactions = Reactions(
            self.life, brokers, self.connector.versions, resumption, self.outgoing, self.incoming,
            events, authentication,
            republish=on_session_lost == "republish", on_connect=on_connect, on_disconnect=on_disconnect,
        )  # fmt: skip
        self.connection: Connection | None = None
        self.parked = self.draining = False
        self.goodbye: tuple[int, dict[str, Any]] = (0, {})
        self._await_handlers = True
        self._ack_timeout = ack_timeout
        self._wake: Callable[[], None] | None = None  # called when the store moved on and the shell waits

    # Questions of the shell. The caller holds the lock; the owner of the transport may ask without it.

    @property
    def transport(self) -> Transport:
        """The stream of the connection, or else of the last attempt."""
        connection = self.connection
        return self.connector.transport if connection is None else connection.stream.transport

    @property
    def wants_open(self) -> bool:
        """Whether it is time to open a stream: the shell opens what :meth:`attempt` gives it."""
        if self.life.state == CONNECTING:
            return not self.has_connection()
        return self.life.wants_return and self.life.state == CONNECTED

    def has_connection(self) -> bool:
        """Whether the transport is open and the connection not over."""
        connection = self.connection
        return connection is not None and not connection.retired

    def has_output(self) -> bool:
        """Whether :meth:`flush` has something to do."""
        connection = self.connection
        return connection is not None and connection.has_output()

    def wants_attention(self) -> bool:
        """Whether a shell that waits has to be woken after a publish."""
        connection = self.connection
        return bool(self.events.queue) or (connection is not None and connection.has_output())

    def unpark(self) -> bool:
        """Whether the shell waits and has to be woken; it counts as woken then."""
        parked, self.parked = self.parked, False
        return parked

    def interest(self) -> tuple[int, bool, bool] | None:
        """Return file descriptor, want to read, want to write; ``None`` without an open transport."""
        connection = self.connection
        if connection is None or connection.retired:
            return None
        incoming = self.incoming
        paused = incoming.in_hand.full and not self.consumers.blocked
        if incoming.manual is not None:
            paused = paused or incoming.holds_too_much()
        return connection.interest(paused=paused)

    def next_deadline(self) -> float | None:
        """When :meth:`on_deadline` wants to be called."""
        connection, outbox = self.connection, self.outgoing.outbox
        due = [self.life.retry_at, outbox.next_expiry, outbox.next_replay, self.outgoing.postponed.due]
        suspicion = self.outgoing.suspicion
        if suspicion is not None and suspicion.careful is not None:
            due.append(suspicion.careful.deadline)
        if connection is not None and not connection.retired:
            due += connection.deadlines()
            if self.outgoing.online is not None:
                due += (self.connector.brokers.return_at, self.outgoing.presence.due)
        return min((deadline for deadline in due if deadline is not None), default=None)

    def drain(self, *, await_handlers: bool) -> None:
        """Have the shell woken whenever :meth:`is_drained` may have become true."""
        self.draining = True
        self._await_handlers = await_handlers

    def is_drained(self) -> bool:
        """Whether network, broker and handlers have nothing more to do."""
        connection, incoming = self.connection, self.incoming
        unsent = connection is not None and connection.is_unsent
        unfinished = self._await_handlers and incoming.in_hand.count and incoming.router.inbox is None
        outbox, online = self.outgoing.outbox, self.outgoing.online
        waiting = outbox.queued + len(self.session)
        if not self.outgoing.postponed:  # these are waited for: a quota passes
            waiting -= outbox.backlog.held.messages + (0 if online is None else len(online.outbound.held))
        return not (waiting or unsent or unfinished)

    def stats(self) -> Stats:
        """Return a copy of the counters."""
        copy = self.events.stats.copy()
        outbox, online = self.outgoing.outbox, self.outgoing.online
        copy.queued = outbox.queued
        copy.queued_bytes = outbox.queued_bytes
        copy.held = outbox.backlog.held.total + (0 if online is None else len(online.outbound.held))
        copy.in_flight = len(self.session)
        copy.acks_held = 0 if online is None else online.held_acknowledgements
        return copy

    # Requests of the shell. The caller holds the lock.

    def handled(self, count: int) -> bool:
        """So many messages have been finished with; their acknowledgements may leave.

        Returns: whether the shell has to be woken, to send or to read on.
        """
        in_hand = self.incoming.in_hand
        was_full = in_hand.full
        if count:
            in_hand.finished(count)
        self.outgoing.acknowledge_handled()
        reads_on = was_full and not in_hand.full
        if self.incoming.manual is not None:
            reads_on = self.incoming.manual.settle() or reads_on
        connection = self.connection
        return reads_on or self.draining or (connection is not None and connection.has_output())

    def close_connection(self) -> None:
        """Queue DISCONNECT as the last packet and do not connect again."""
        connection = self.connection
        if connection is not None and not connection.retired:
            self.connector.left(answered=self.outgoing.online is not None)
            if self.goodbye[0] == WITH_WILL or self.outgoing.presence.take_leave(self.outgoing.online):
                connection.protocol.disconnect(*self.goodbye)
            elif self.options.version == "5.0":
                connection.protocol.disconnect(WITH_WILL, self.goodbye[1])
            else:
                connection.retire()  # without DISCONNECT: the server publishes the will
        self.outgoing.disconnecting()
        self.incoming.disconnecting()
        self.life.close()

    def disown(self) -> None:
        """In a forked child: the connection is the parent's, and nothing here will ever happen."""
        error = ClosedError("this process is a fork; the message is its parent's")
        self.connection = None
        self.outgoing.disconnecting()
        self.incoming.disconnecting()
        self.incoming.end(error)
        self.outgoing.end(error)
        self.life.end()

    # The owner of the transport. These methods take the lock themselves.

    def adopt(self, saved: SavedSession, store: Store, now: float, wake: Callable[[], None]) -> None:
        """Go on with the session that the store kept; once, before the shell starts."""
        outgoing, journal = self.outgoing, self.outgoing.journal
        assert journal is not None
        with self.lock:
            outgoing.outbox.restore(saved, now, self.options.version)
            self.incoming.router.restore(saved.subscriptions)
            if self.connector.restore(saved):
                outgoing.outbox.put_back(self.session.lose()[0])
            self.session.record(("fact", "client_id", self.options.client_id))
            journal.hand_over()
            journal.report()
        self._wake = wake
        store.on_progress = weakly(self._on_store_progress)

    def _on_store_progress(self) -> None:
        with self.lock:
            self.outgoing.store_progressed()
            parked = self.unpark()
        if parked and self._wake is not None:
            self._wake()

    def attempt(self) -> Attempt:
        """Return what to open now; then comes :meth:`on_open` or :meth:`on_open_failed`.

        ``open()`` of the attempt is the only part that may run elsewhere.
        """
        with self.lock:
            self.outgoing.presence.ask_now()
            return self.connector.attempt(is_return=self.life.begins_return())

    def on_open(self, now: float) -> None:
        """The stream of the last attempt is open: say CONNECT."""
        attempt = self.connector.under_way
        if attempt is not None and attempt.is_return and not self._returns(attempt, now):
            return
        try:
            self.connector.prepare(attempt, now)
        except AuthenticationError as error:
            self.connector.transport.close()
            self.on_open_failed(error, now)
            return
        with self.lock:
            self.connector.take_attempt()
            if attempt is not None and attempt.is_outdated:
                attempt.close()
                return  # the shell opens anew
            if self.life.state != CONNECTING:
                return  # closed meanwhile; the shell ends with drop_connection()
            protocol = self.connector.connect(now)
            server = self.connector.brokers.current.address
            self.outgoing.presence.prepare(None if attempt is None else attempt.birth, server)
            self.outgoing.prepare(protocol, server)
            self.connection = Connection(
                self.lock, protocol, self.connector.transport,
                self.outgoing, self.incoming, self.events, self.reactions.react,
                authentication=self.authentication,
                acks=None if self._ack_timeout is None else AckWatch(self._ack_timeout),
                packet_log=self.connector.packet_log(),
            )  # fmt: skip
        self.flush(now)

    def _returns(self, attempt: Attempt, now: float) -> bool:
        """Whether the stream to the first server is to be the connection; another one is ended for it."""
        with self.lock:
            self.connector.take_attempt()
            leaves = self.life.state in (CONNECTED, CONNECTING, WAITING)
            connection = self.connection
            if leaves and connection is not None and not connection.retired:
                self.reactions.leave(connection, f"left to return to {attempt.transport.description}")
        if connection is not None and connection.retired:
            self.flush(now)
        if not leaves:
            attempt.close()
            return False
        with self.lock:
            self.connector.use(attempt)
            self.reactions.returned()
        return True

    def on_open_failed(self, error: DeviceSdkError, now: float) -> None:
        """The stream of the last attempt could not be opened."""
        attempt = self.connector.under_way
        if attempt is not None:
            # Nothing is open, unless an open() that was left behind got hold of it: the next one needs it.
            attempt.transport.close()
        with self.lock:
            self.connector.take_attempt()
            if attempt is not None and attempt.is_outdated:
                return
            if attempt is not None and attempt.is_return:
                self.reactions.return_failed(attempt.transport, error, now)
            else:
                self.reactions.open_failed(self.connector.transport, error, now)

    def on_readable(self, now: float) -> None:
        """Read once and react to what came."""
        connection = self.connection
        if connection is not None and not connection.retired:
            connection.read(now)
            self.flush(now)

    def on_writable(self, now: float) -> None:
        """The transport takes bytes again."""
        connection = self.connection
        if connection is not None and not connection.retired:
            connection.write(now)
            self.flush(now)

    def on_deadline(self, now: float) -> None:
        """Do what is due: keep alive, the end of a wait, an expiry in the queue."""
        outgoing, connection = self.outgoing, self.connection
        with self.lock:
            self.life.on_deadline(now)
            outgoing.on_deadline(now)
            if connection is not None:
                connection.on_deadline(now)
            if connection is not None and outgoing.online is not None:
                if not connection.is_stuck(now):
                    self.reactions.look_for_first(now)
            elif outgoing.journal is not None:
                outgoing.journal.hand_over()
        if connection is not None:
            connection.keep_time(now)
        self.flush(now)

    def flush(self, now: float) -> None:
        """Hand output to the transport until it takes no more; close the transport of an ended connection."""
        connection = self.connection
        if connection is not None:
            connection.flush(now)
            if connection.retired:
                if connection.leave_by is not None:
                    with self.lock:
                        self.reactions.replace(connection, now)
                self.connection = None
                connection.close(now)

    def on_fault(self, error: Exception, now: float) -> None:
        """Something failed that never should: report it, and begin anew with the next connection."""
        with self.lock:
            connection, transport = self.connection, self.transport
            over = connection is None or connection.retired
            self.connector.take_attempt()
            self.reactions.fault(None if over else connection, transport, error, now)
            self.connection = None
        transport.close()

    def drop_connection(self) -> None:
        """Close the transport as it is; the queue and the session stay."""
        with self.lock:
            transport = self.transport
            self.connector.take_attempt()
            self.incoming.disconnected()
            self.outgoing.disconnected(None)
            self.connection = None
            self.life.enter("drop")  # not if closed, by a shell that could not wait for the owner
        transport.close()

    # The end. The caller is the last user and does not hold the lock.

    def end(self) -> None:
        """End everything that waits, for good; then comes :meth:`close_store`."""
        with self.lock:
            closed = ClosedError("the client was closed")
            if self.connection is not None:
                self.connection.retire()
            self.incoming.end(closed)
            if self.authentication is not None:
                self.authentication.ended(closed)
            self.outgoing.end()
            self.life.end()

    def close_store(self) -> None:
        """Write what is left into the store and close it. May block."""
        outgoing = self.outgoing
        if outgoing.journal is not None:
            outgoing.journal.close()
        with self.lock:
            if outgoing.journal is not None:
                outgoing.settle()
            self.events.end()
