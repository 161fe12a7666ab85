"""One network connection, from CONNECT to the close of its stream: bytes in, bytes out, and what they mean.

A :class:`Connection` is made when a stream is open and dropped whole when it has ended: after a loss nothing
is reset by hand.
"""

from __future__ import annotations

from device_sdk._clock import ahead
from device_sdk._weak import unframed
from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.greetings import Greeting
from device_sdk.engine.outgoing.write_ahead import OPEN_GATES
from device_sdk.engine.stream import LAST_READS, Stream
from device_sdk.errors import AuthenticationError, TransportClosedError, TransportError
from device_sdk.mqtt.events import AuthReceived, ConnectAcknowledged, ConnectionEnded, PublishPostponed
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.protocol import DISCONNECTING
from device_sdk.mqtt.session import ACKNOWLEDGED

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any

    from device_sdk.engine.connecting.authentication import Authentication
    from device_sdk.engine.events import Events
    from device_sdk.engine.incoming.subscriber import Subscriber
    from device_sdk.engine.outgoing.ack_watch import AckWatch
    from device_sdk.engine.outgoing.publisher import Publisher
    from device_sdk.engine.packet_log import PacketLog
    from device_sdk.mqtt.protocol import Event, Protocol
    from device_sdk.net.base import Transport

__all__ = ["Connection"]

_UNSPECIFIED_ERROR = 0x80
_SENDS_PER_FLUSH = 16  # then the shell reads and keeps time, however fast the application publishes


class Connection:
    """Moves bytes between a stream and a protocol, and hands on what the protocol says.

    Called under the lock: ``on_event(connection, event, now)`` with every event that is neither a message nor
    a delivery that has ended; ``on_output()``, for the drop-in, when the stream has taken all output and the
    protocol is about to be asked for more.
    ``retired``: the connection is over, and :meth:`close` is all that is left to do. ``leave_by``: it is
    given up, and only DISCONNECT is still to be heard, until then at the latest. ``is_left``: the client goes
    on without it already.

    :meth:`read`, :meth:`write`, :meth:`flush`, :meth:`keep_time` and :meth:`close` belong to the one thread
    that owns the transport and take the lock themselves; for the other methods the caller holds it.
    """

    __slots__ = (
        "_acks", "_authentication", "_events", "_incoming", "_lock", "_on_event", "_on_output", "_outgoing",
        "_packet_log",
        "accepted_at", "is_left", "leave_by", "protocol", "retired", "stream",
    )  # fmt: skip

    def __init__(
        self, lock: threading.RLock, protocol: Protocol, transport: Transport, outgoing: Publisher,
        incoming: Subscriber, events: Events, on_event: Callable[[Connection, Any, float], None],
        *, authentication: Authentication | None = None, acks: AckWatch | None = None,
        on_output: Callable[[], None] | None = None, packet_log: PacketLog | None = None,
    ) -> None:  # fmt: skip
        self.protocol = protocol
        self.stream = Stream(transport)
        self.retired = False
        self.leave_by: float | None = None
        self.is_left = False
        self.accepted_at: float | None = None  # when the server accepted it
        self._lock = lock
        self._outgoing = outgoing
        self._incoming = incoming
        self._events = events
        self._on_event = on_event
        self._authentication = authentication
        self._acks = acks
        self._on_output = on_output
        self._packet_log = packet_log
        if packet_log is not None:
            protocol.watch(packet_log.on_packet)

    # Its life. The caller holds the lock.

    def accepted(self, now: float) -> None:
        """Note that the server has accepted the connection."""
        self.accepted_at = now
        if self._acks is not None:
            self._acks.begin(now)

    def retire(self) -> None:
        """Send and expect nothing any more; the owner of the transport has to :meth:`close` it."""
        self.retired = True

    def leave(self, leave_by: float) -> None:
        """Queue DISCONNECT behind the output, and retire when the server has closed, or at that time.

        What still arrives is read and means nothing: closed before, the stream would answer it with a reset,
        for which a server forgets to read DISCONNECT.
        """
        if self.leave_by is None:
            self.leave_by = leave_by
        self.protocol.disconnect()

    def left(self) -> None:
        """Note that the client goes on without it."""
        self.is_left = True

    # Questions. The caller holds the lock.

    def has_output(self) -> bool:
        """Whether :meth:`flush` would send something now: neither the stream nor a gate holds it back."""
        stream = self.stream
        if self.retired or stream.blocked:
            return False
        journal = self._outgoing.journal
        through = OPEN_GATES if journal is None else journal.durable_through()
        if stream.pending or self.protocol.can_send(through):
            return True
        outbox = self._outgoing.outbox
        return outbox.max_buffered < 0 and outbox.wants_fill

    @property
    def is_unsent(self) -> bool:
        """Whether any output waits, be it held back by the stream or by the store."""
        return not self.retired and (self.stream.pending or self.protocol.has_output)

    def deadlines(self) -> tuple[float | None, float | None, float | None]:
        """When :meth:`on_deadline` and :meth:`keep_time` want to be called."""
        acks, protocol = self._acks, self.protocol
        due = self.stream.transport.next_deadline()
        if due is not None:
            due += ahead()
        if self.leave_by is not None:
            return self.leave_by, due, None
        watch = None if acks is None or self.accepted_at is None else acks.deadline(protocol.session)
        return protocol.next_deadline(), due, watch

    def interest(self, *, paused: bool) -> tuple[int, bool, bool]:
        """Return file descriptor, want to read, want to write. ``paused``: too much is in hand to read on."""
        transport = self.stream.transport
        paused = paused and self.leave_by is None
        self.protocol.reading_paused = paused
        return transport.fileno(), not paused, transport.wants_write()

    # What the owner of the transport does

    def read(self, now: float) -> None:
        """Read once and react to what came."""
        stream = self.stream
        try:
            data = stream.transport.recv()
        except TransportError as error:
            self.fail(error, now)
            return
        if data is not None:
            self._take_in(data, now)
        stream.unblock()  # some streams tell of room by being readable

    def write(self, now: float) -> None:
        """Let the transport, which takes bytes again, send what it holds back itself."""
        try:
            self.stream.transport.flush()
        except TransportError as error:
            self.fail(error, now)
            return
        self.stream.unblock()

    def flush(self, now: float) -> None:
        """Hand output to the transport until it takes no more; retire once DISCONNECT has left.

        With ``leave_by`` the peer's end of the stream is waited for.
        """
        protocol, stream = self.protocol, self.stream
        try:
            for _ in range(_SENDS_PER_FLUSH):
                if self.retired or stream.blocked:
                    break
                lagged = stream.pending
                chunks = [] if lagged else self._take_output(now)
                if not (lagged or chunks):
                    if protocol.state == DISCONNECTING:
                        self.retired = self.leave_by is None
                    break
                sent = stream.send(chunks)
                self._events.stats.bytes_sent += sent
                if sent and lagged:
                    protocol.keep_alive.output_drains(now)
        except TransportError as error:
            self.fail(error, now)

    def keep_time(self, now: float) -> None:
        """Do what the transport has due."""
        if not self.retired:
            try:
                self.stream.transport.handle_deadline(now - ahead())
            except TransportError as error:
                self.fail(error, now)

    def fail(self, error: TransportError, now: float) -> None:
        """End the connection because its stream has failed."""
        error = unframed(error)
        if self.leave_by is not None:
            self.retired = True
        if not self.retired:
            self._hear_last_words(now)
        with self._lock:
            if not self.retired:
                self.react([ConnectionEnded(error)], now)

    def close(self, now: float) -> None:
        """Let a DISCONNECT with a reason leave, and close the transport."""
        goodbye = self.protocol.data_to_send(0, now)
        if self._packet_log is not None:
            self._packet_log.write()
        self.stream.close(goodbye)

    # Reactions. The caller holds the lock.

    def on_deadline(self, now: float) -> None:
        """Do what is due in the protocol: PINGREQ, the end of a peer that does not answer."""
        if self.leave_by is not None:
            self.retired = self.retired or now >= self.leave_by
        elif not self.retired:
            self.react(self.protocol.handle_deadline(now), now)

    def is_stuck(self, now: float) -> bool:
        """Whether the server acknowledges nothing any more: then the connection is ended here."""
        protocol, acks = self.protocol, self._acks
        if acks is None:
            return False
        # What is not sent cannot be answered, and what is not read may have been.
        busy = self.stream.pending or protocol.has_output or protocol.reading_paused
        if not acks.is_stuck(protocol.session, protocol.outbound.left_out, now, excused=busy):
            return False
        protocol.disconnect()
        in_flight = f"{len(protocol.session)} in flight"
        text = f"ack_timeout: no acknowledgement for {acks.seconds:g} s; {in_flight}"
        self.react([ConnectionEnded(TransportClosedError(text))], now)
        return True

    def react(self, events: list[Event], now: float) -> None:
        """Put messages where handlers find them, end deliveries, and tell ``on_event`` of the rest."""
        append, outgoing = self._events.append, self._outgoing
        postponed = outgoing.postponed.topics
        received = acknowledged = 0
        event: Any
        for event in events:
            kind = type(event)
            if kind is Message:
                append(event)
                received += 1
            elif kind is Delivery:
                if event.status == ACKNOWLEDGED:
                    acknowledged += 1
                else:
                    outgoing.report_ended((event,))
                if event.on_done is not None:
                    event.on_done.set()
                if postponed:
                    outgoing.postponed.ended(event, now)
            elif kind is Greeting:
                outgoing.presence.answered(event)
            elif kind is PublishPostponed and type(event.message) is Greeting:
                self.protocol.outbound.take_back(event.message)
                outgoing.presence.refused(event.message, event.error)
            elif kind is PublishPostponed:
                outgoing.postponed.add(event, now)
            else:
                self._on_event(self, event, now)
        stats = self._events.stats
        if received:
            self._incoming.in_hand.arrived(received)
            stats.received += received
        stats.acknowledged += acknowledged
        outbox = outgoing.outbox
        if outbox.backlog.messages or outbox.max_buffered < 0 or postponed:
            outgoing.fill(now)
        if outgoing.journal is not None:
            outgoing.journal.hand_over()

    # Helpers; those that do I/O take the lock themselves

    def _take_in(self, data: bytes, now: float) -> None:
        """React to the bytes of one read; ``b""`` is the end of the stream."""
        protocol, incoming = self.protocol, self._incoming
        with self._lock:
            if self.retired:
                return  # by a shell that could not wait for this thread
            if self.leave_by is not None:
                self.retired = not data
                return
            self._events.stats.bytes_received += len(data)
            incoming.in_hand.came(len(data))
            events = protocol.receive_data(data, now) if data else protocol.receive_eof(now)
            if protocol.inbound.unpacked:
                incoming.in_hand.unpacked(protocol.inbound.take_unpacked())
            if incoming.sorts or incoming.in_hand.full:
                events = incoming.sort(protocol, events)
            if self._authentication is None:
                self.react(events, now)
        if self._packet_log is not None:
            self._packet_log.write()
        if self._authentication is not None:
            self._authenticate(self._authentication, events, now)

    def _hear_last_words(self, now: float) -> None:
        """Read what the peer sent before its stream broke: a DISCONNECT says why, acknowledgements count."""
        try:
            for _ in range(LAST_READS):
                data = self.stream.transport.recv()
                if not data:
                    break
                self._take_in(data, now)
                if self.retired:
                    break
        except TransportError:
            pass

    def _take_output(self, now: float) -> list[bytes]:
        """Return what may leave now."""
        protocol, outgoing = self.protocol, self._outgoing
        outbox, journal = outgoing.outbox, outgoing.journal
        with self._lock:
            if self._on_output is not None:
                self._on_output()
            if outbox.max_buffered < 0 and outbox.wants_fill:
                outgoing.fill(now)
            if journal is None:
                chunks = protocol.data_to_send(OPEN_GATES, now)
            else:
                journal.hand_over()
                outgoing.read_on(now)
                chunks = protocol.data_to_send(journal.durable_through(), now)
            if outbox.wants_fill:
                outgoing.fill(now)  # so that has_output() knows of it
            if journal is not None and protocol.gate:
                journal.expedite(protocol.gate)
            if outbox.waits.blocked:
                outbox.waits.made_room()
        if self._packet_log is not None:
            self._packet_log.write()
        return chunks

    def _authenticate(self, authentication: Authentication, events: list[Any], now: float) -> None:
        """Let the authenticator speak, without the lock, before anything reacts to the events."""
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
        protocol = self.protocol
        with self._lock:
            if self.retired:
                return
            if failure is not None or protocol.state == DISCONNECTING:  # while the authenticator was busy
                events = self._without_connack(events)
            self.react(events, now)
            if not self.retired and failure is None:
                try:
                    authentication.send(protocol, answers)
                except AuthenticationError as error:
                    failure = error
            if failure is not None and not self.retired:
                protocol.disconnect(_UNSPECIFIED_ERROR)
                authentication.ended(failure)
                self.react([ConnectionEnded(failure)], now)

    def _without_connack(self, events: list[Any]) -> list[Any]:
        """Do not begin a connection, although the server may have accepted it and lost the session."""
        kept = []
        for event in events:
            if type(event) is ConnectAcknowledged:
                self._outgoing.outbox.put_back(event.republish)
            elif type(event) is not AuthReceived:
                kept.append(event)
        return kept
