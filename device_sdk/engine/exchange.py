"""One open connection of an engine: bytes in, bytes out, and what the packets mean."""

from __future__ import annotations

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.report import CLOSED, CLOSING
from device_sdk.engine.stream import LAST_READS, Stream
from device_sdk.engine.subscriber import Subscriber
from device_sdk.errors import AuthenticationError, TransportError
from device_sdk.mqtt.events import (
    AuthReceived,
    ConnectAcknowledged,
    ConnectionEnded,
    PayloadNotText,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.protocol import DISCONNECTING
from device_sdk.mqtt.session import ACKNOWLEDGED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any, ClassVar

    from device_sdk.engine.authentication import Authentication
    from device_sdk.engine.report import Stats
    from device_sdk.engine.waiting import Waiting
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.net.base import Transport
    from device_sdk.store.base import Store, StorePolicy

__all__ = ["Exchange"]

_UNSPECIFIED_ERROR = 0x80
_SENDS_PER_FLUSH = 16  # then the shell reads and keeps time, however fast the application publishes


class Exchange(Subscriber):
    """Moves bytes between the transport and the protocol, and reacts to what the protocol says.

    The rule for threads is that of :class:`~device_sdk.engine.engine.Engine`, which decides when a connection
    begins, and what follows its end.
    """

    #: What to do about an event that is neither a message nor a delivery.
    reactions: ClassVar[dict[type, Callable[[Any, Any, float], None]]]

    def __init__(
        self,
        lock: threading.Lock,
        transport: Transport,
        options: ConnectOptions,
        policy: StorePolicy,
        store: Store | None,
        *,
        authentication: Authentication | None,
        buffer_qos0: bool,
        inbox_limit: int,
        inbox_bytes: int,
        acknowledge: Callable[[Message], None] | None,
        waiting: Waiting | None,
    ) -> None:
        super().__init__(
            lock, policy, store, buffer_qos0=buffer_qos0, inbox_limit=inbox_limit, inbox_bytes=inbox_bytes,
            acknowledge=acknowledge, waiting=waiting, largest_packet=options.maximum_packet_size,
        )  # fmt: skip
        self.transport = transport
        self.stream = Stream(transport)
        self.options = options
        self.authentication = authentication
        self.draining = False  # the shell waits for is_drained()
        self.await_handlers = True
        self._protocol: Protocol | None = None  # of the open transport
        self._retired: Protocol | None = None  # ended; its transport is to be closed

    def has_output(self) -> bool:
        """Whether :meth:`flush` has something to do. The caller holds the lock."""
        protocol = self._protocol
        if protocol is None or self.stream.blocked:
            return False
        return self.stream.pending or protocol.can_send(self._durable_through())

    def wants_attention(self) -> bool:
        """Whether a shell that waits has to be woken after a publish. The caller holds the lock."""
        return bool(self._callbacks) or self.has_output()

    def interest(self) -> tuple[int, bool, bool] | None:
        """Return file descriptor, want to read, want to write; ``None`` without an open transport."""
        protocol = self._protocol
        if protocol is None:
            return None
        paused = protocol.reading_paused = self._is_full() and not self.waiting
        return self.transport.fileno(), not paused, self.transport.wants_write()

    def has_connection(self) -> bool:
        """Whether the transport is open. The caller holds the lock."""
        return self._protocol is not None

    def is_drained(self) -> bool:
        """Whether network, broker and handlers have nothing more to do. The caller holds the lock."""
        protocol = self._protocol
        unsent = protocol is not None and (self.stream.pending or protocol.has_output)
        unfinished = self.await_handlers and self._in_hand and self.router.inbox is None
        return not (self.outbox.queued or len(self.session) or unsent or unfinished)

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
            self._take_in(protocol, data, now)
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

    def flush(self, now: float) -> None:
        """Hand output to the transport until it takes no more; close the transport of an ended connection."""
        protocol, stream = self._protocol, self.stream
        try:
            for _ in range(_SENDS_PER_FLUSH):
                if protocol is None or stream.blocked:
                    break
                lagged = stream.pending
                if not lagged:
                    chunks = self._take_output(protocol, now)
                    if not chunks:
                        if protocol.state == DISCONNECTING:
                            self._retired, self._protocol = protocol, None  # DISCONNECT has left
                        break
                    stream.load(chunks)
                sent = stream.send()
                self._stats.bytes_sent += sent
                if sent and lagged:
                    protocol.keep_alive.output_drains(now)
        except TransportError as error:
            self._fail(error, now)
        if self._retired is not None:
            self._bury(now)

    def handled(self, count: int) -> bool:
        """So many messages have been finished with; their acknowledgements may leave.

        The caller holds the lock. Returns: whether the shell has to be woken, to send or to read on.
        """
        was_paused = self._is_full()
        if count:
            self._in_hand -= count
            self._weight.finished(count)
        if self._online is not None:
            self._online.acknowledge_handled()
            if self._store is not None and self._online.gate:
                self._hand_to_store(self._store)
                self._store.expedite(self._online.gate)  # the network thread sleeps until the gate opens
        elif self.session.received:
            self._note_handled()
        reads_on = was_paused and not self._is_full()
        return reads_on or self.draining or self.has_output()

    def stats(self) -> Stats:
        """Return a copy of the counters. The caller holds the lock."""
        copy = self._stats.copy()
        copy.queued = self.outbox.queued
        copy.queued_bytes = self.outbox.queued_bytes
        copy.in_flight = len(self.session)
        copy.acks_held = 0 if self._online is None else self._online.held_acknowledgements
        return copy

    # Helpers. Whether the caller holds the lock is what it needs: those with I/O take it themselves.

    def _note_handled(self) -> None:
        """Nobody can be told now which messages were handled, but the store can: a restart must know it."""
        self.session.note_handled()
        if self._store is not None:
            self._hand_to_store(self._store)

    def _take_in(self, protocol: Protocol, data: bytes, now: float) -> None:
        """React to what was read; ``b""`` is the end of the stream."""
        with self.lock:
            if self.state == CLOSED:
                return  # by a shell that could not wait for this thread
            self._stats.bytes_received += len(data)
            self._weight.came += len(data)
            events = protocol.receive_data(data, now) if data else protocol.receive_eof(now)
            if self._sorts_received or self._in_hand >= self._inbox_limit or self._weight.full:
                events = self._sort_received(protocol, events)
            if self.authentication is None:
                self._react(events, now)
        if self.authentication is not None:
            self._authenticate(self.authentication, protocol, events, now)

    def _hear_last_words(self, protocol: Protocol, now: float) -> None:
        """Read what the peer sent before its stream broke: a DISCONNECT says why, acknowledgements count."""
        try:
            for _ in range(LAST_READS):
                data = self.transport.recv()
                if not data:
                    break
                self._take_in(protocol, data, now)
                if self._protocol is not protocol:
                    break
        except TransportError:
            pass

    def _fail(self, error: TransportError, now: float) -> None:
        protocol = self._protocol
        if protocol is not None:
            self._hear_last_words(protocol, now)
        with self.lock:
            if self._protocol is not None:
                self._react([ConnectionEnded(error)], now)
        if self._retired is not None:
            self._bury(now)

    def _bury(self, now: float) -> None:
        """Let a DISCONNECT with a reason leave, and close the transport."""
        protocol, self._retired = self._retired, None
        assert protocol is not None
        self.stream.close(protocol.data_to_send(0, now))

    def _take_output(self, protocol: Protocol, now: float) -> list[bytes]:
        """Return what may leave now."""
        with self.lock:
            if self._store is not None:
                self._hand_to_store(self._store)
                self._read_on(self._store, now)
            chunks = protocol.data_to_send(self._durable_through(), now)
            if self.outbox.wants_fill:
                self._fill(now)  # so that has_output() knows of it
            if self._store is not None and protocol.gate:
                self._store.expedite(protocol.gate)
            if self.outbox.waits.blocked:
                self.outbox.waits.made_room()
        return chunks

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
            if self.state == CLOSED:
                return
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
                if event.on_done is not None:
                    event.on_done.set()
            else:
                self.reactions[kind](self, event, now)
        stats = self._stats
        if received:
            self._in_hand += received
            self._weight.arrived(received)
            stats.received += received
        stats.acknowledged += acknowledged
        if self.outbox.backlog.messages:
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

    def _on_payload_not_text(self, event: PayloadNotText, now: float) -> None:
        text = f"{event.topic}: the payload is declared as UTF-8 and is not from byte {event.position} on"
        self.notify("invalid_payload", text)

    def _on_auth(self, event: AuthReceived, now: float) -> None:
        self.notify("auth", f"the server sent AUTH with reason code 0x{event.reason_code:02x}")


Exchange.reactions = {
    SubscribeAcknowledged: Exchange._on_subscribe_answer,
    UnsubscribeAcknowledged: Exchange._on_subscribe_answer,
    AuthReceived: Exchange._on_auth,
    PayloadNotText: Exchange._on_payload_not_text,
}
