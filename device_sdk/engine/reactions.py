"""The reactions to the turns of a connection: accepted, refused, lost, and what follows from that."""

from __future__ import annotations

from device_sdk._load import load
from device_sdk.engine.connecting.back_off import classify
from device_sdk.engine.connecting.take_overs import TakeOvers
from device_sdk.engine.connecting.versions import OLDER
from device_sdk.engine.life_cycle import CLOSING, CONNECTED, CONNECTING, WAITING
from device_sdk.errors import TransportClosedError
from device_sdk.mqtt.events import (
    AuthReceived,
    ConnectAcknowledged,
    ConnectionEnded,
    MessageSkipped,
    PayloadNotText,
    PingAnswered,
    SessionCleared,
    SessionUnknown,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.engine.connecting.authentication import Authentication
    from device_sdk.engine.connecting.brokers import Brokers
    from device_sdk.engine.connecting.resumption import Resumption
    from device_sdk.engine.connecting.versions import Versions
    from device_sdk.engine.connection import Connection
    from device_sdk.engine.events import Events
    from device_sdk.engine.incoming.subscriber import Subscriber
    from device_sdk.engine.life_cycle import LifeCycle
    from device_sdk.engine.outgoing.publisher import Publisher
    from device_sdk.errors import DeviceSdkError
    from device_sdk.net.base import Transport

__all__ = ["Reactions"]

_LEAVE_SECONDS = 1.0  # how long the server may take to hear that a connection is replaced, and to close it

# Words for an attempt that the other end has not answered as a broker does; imported for the first of these.
_EXPLAIN = "device_sdk.engine.connecting.other_end:explain"


class Reactions:
    """Decides what follows from what a connection tells, and from attempts that fail.

    Knows the parts of an engine, not the engine nor its connection, which is an argument. The caller of every
    method holds the lock.
    """

    __slots__ = (
        "_authentication", "_brokers", "_events", "_incoming", "_life", "_on_connect", "_on_disconnect",
        "_outgoing", "_republish", "_resumption", "_take_overs", "_versions",
    )  # fmt: skip

    def __init__(
        self,
        life: LifeCycle,
        brokers: Brokers,
        versions: Versions,
        resumption: Resumption,
        outgoing: Publisher,
        incoming: Subscriber,
        events: Events,
        authentication: Authentication | None,
        *,
        republish: bool,
        on_connect: Callable[[ConnectAcknowledged], object] | None = None,
        on_disconnect: Callable[[DeviceSdkError], object] | None = None,
    ) -> None:
        self._life = life
        self._on_connect = on_connect
        self._on_disconnect = on_disconnect
        self._brokers = brokers
        self._versions = versions
        self._resumption = resumption
        self._take_overs = TakeOvers()
        self._outgoing = outgoing
        self._incoming = incoming
        self._events = events
        self._authentication = authentication
        self._republish = republish

    def reconnect_now(self) -> None:
        """End a wait between attempts at once: the link came up."""
        if self._life.state == WAITING:
            self._brokers.start_over()
            self._life.start()

    def replace(self, connection: Connection | None, now: float) -> None:
        """Give up a connection, however alive it looks, for a new one that follows at once.

        DISCONNECT has the server forget the will. Source: MQTT 5.0 §3.1.2.5, §3.14.4 [MQTT-3.14.4-3].
        """
        if connection is None or connection.is_left or self._life.state not in (CONNECTED, CONNECTING):
            return
        if connection.retired and connection.leave_by is None:
            return  # it has ended
        # From here on the owner of the stream comes back to this, if the handler of a signal raises.
        connection.leave(now + _LEAVE_SECONDS)
        self._life.enter("replace")
        self._brokers.start_over()
        if connection.accepted_at is None:
            self._resumption.unanswered()
        error = TransportClosedError("replaced by reconnect_now(replace=True)")
        self._detach(error)
        connection.left()
        if connection.accepted_at is not None:
            self._report_end(connection, error, "; the next attempt follows at once")

    # Looking for the first server, while a connection to another one works

    def look_for_first(self, now: float) -> None:
        """Note when it is time to look whether the first server is back."""
        due = self._brokers.return_at
        if due is not None and now >= due:
            self._brokers.looked()
            self._life.look_for_first()

    def leave(self, connection: Connection, reason: str) -> None:
        """End a connection that works for a better one."""
        self._outgoing.presence.take_leave(self._outgoing.online)
        connection.protocol.disconnect()
        connection.retire()
        if connection.leave_by is not None:
            return  # it is given up already
        error = TransportClosedError(reason)
        self._detach(error)
        self._report_end(connection, error, "")

    def returned(self) -> None:
        """The stream to the first server is open, and nothing else is."""
        self._brokers.return_to_first()
        self._life.connect_to_first()

    def return_failed(self, transport: Transport, error: DeviceSdkError, now: float) -> None:
        """The first server is still away."""
        self._brokers.return_failed(now)
        goes_on = "; the present connection goes on" if self._life.state == CONNECTED else ""
        self._events.notify("connect_failed", f"{_with_place(transport, error)}{goes_on}", error)

    # Reactions to what a connection tells

    def react(self, connection: Connection, event: Any, now: float) -> None:
        """React to an event of a connection that is neither a message nor a delivery."""
        _REACTIONS[type(event)](self, connection, event, now)

    def _on_accepted(self, connection: Connection, event: ConnectAcknowledged, now: float) -> None:
        lost = self._resumption.accepted(event)
        first = not self._events.stats.connects
        self._brokers.accepted(now)
        connection.accepted(now)
        self._life.accept()
        self._outgoing.attempt_over()
        stats = self._events.stats
        stats.connects += 1
        if not first:
            stats.reconnects += 1
        self._outgoing.connected(connection.protocol, now)
        present = "present" if event.session_present else "new"
        where = connection.stream.transport.description
        self._events.notify("connected", f"connected to {where}, session {present}", value=where)
        will_refused = self._brokers.current.will_trial.accepted(now)
        if will_refused is not None:
            self._events.notify("will_refused", will_refused[1], value=will_refused[0])
        self._bring_back(event, lost)
        self._incoming.connected(connection.protocol, has_all=self._resumption.has_subscriptions(event))
        if self._on_connect is not None:
            self._events.append((self._on_connect, event))

    def _bring_back(self, event: ConnectAcknowledged, lost: str | None) -> None:
        """Publish the messages of a lost session again, or end them."""
        outbox = self._outgoing.outbox
        if self._republish:
            outbox.put_back(event.republish)
        else:
            outbox.invalidate(event.republish)
        if lost is not None:
            fate = "published again" if self._republish else "invalidated"
            count = len(event.republish)
            self._events.notify("session_lost", f"{lost}; messages {fate}: {count}")

    def _on_ended(self, connection: Connection, event: ConnectionEnded, now: float) -> None:
        """The connection is over; the owner of the transport closes its stream."""
        if connection.leave_by is not None:
            connection.retire()
            return
        told = self._versions.refused(self._brokers.current.address, connection, event, now)
        if told is not None:
            connection.retire()
            if self._life.enter("begin_anew"):
                self._events.notify("version", told, event.error, OLDER)
            return
        if connection.accepted_at is None:
            transport, handshake = connection.stream.transport, connection.protocol.handshake
            bridge = handshake.options.bridge
            load(_EXPLAIN)(event.error, transport, handshake.first_bytes, silent=event.silent, bridge=bridge)
            judges = self._outgoing.suspicion is not None and self._life.state == CONNECTING
            if judges and self._brokers.current.will_trial.failed(event, handshake.options.will, now):
                self._resumption.unanswered()
                connection.retire()
                self._detach(event.error)
                self._life.enter("begin_anew")
                text = f"{_with_place(transport, event.error)}; next attempt at once, without the will"
                self._events.notify("connect_failed", text, event.error)
                return
        self._end(connection, event, now)

    def _end(self, connection: Connection, event: ConnectionEnded, now: float) -> None:
        """End a connection, whose error says all that is known."""
        accepted_at = connection.accepted_at
        was_online = self._outgoing.online is not None
        self._judge(connection, event, now)
        connection.retire()
        self._detach(event.error)
        if self._life.state == CLOSING:
            return  # that was the aim
        if was_online and accepted_at is not None:
            retry = classify(event.error, event.reason_code)
            delay = self._brokers.connection_lost(retry, event.reason_code, now - accepted_at, now)
            by_server = isinstance(event.error, TransportClosedError) and not event.silent
            name = connection.protocol.handshake.options.client_id
            hint = self._take_overs.ended(now - accepted_at, by_server=by_server, client_id=name)
            self._report_end(connection, event.error, f"{hint}{self._schedule(delay, now)}")
        else:
            self._resumption.unanswered()
            transport = connection.stream.transport
            self._attempt_failed(transport, event.error, event.reason_code, now)
        reference = event.properties.get("server_reference")
        if reference is not None:
            text = f"the server asks to use {reference} instead; this client stays with its URL"
            self._events.notify("server_reference", text, event.error, reference)

    def _judge(self, connection: Connection, event: ConnectionEnded, now: float) -> None:
        """Note an end for which something that we have sent may be the reason."""
        suspicion, accepted_at = self._outgoing.suspicion, connection.accepted_at
        if suspicion is not None and accepted_at is not None and self._life.state != CLOSING:
            held = connection.stream.held_at_end(event, connection.protocol.output)
            suspicion.ended(connection.protocol, self._outgoing.presence, event, accepted_at, now, held)

    def _on_session_over(self, connection: Connection, event: ConnectionEnded, now: float) -> None:
        """Connect again at once: with a clean start [MQTT-3.2.2-4], or after one. MQTT 5.0 §3.2.2.1.1."""
        is_cleared = type(event) is SessionCleared
        if is_cleared:
            self._resumption.cleared()
        else:
            self._resumption.begin_anew()
        connection.retire()
        if self._authentication is not None:
            self._authentication.ended(event.error)
        if self._life.state == CLOSING:
            return
        self._life.enter("begin_anew")
        if not is_cleared:
            text = "the broker's session is not known here and is replaced; clean_start=False would resume it"
            self._events.notify("session_lost", text, event.error)

    def _on_answer(
        self, connection: Connection, event: SubscribeAcknowledged | UnsubscribeAcknowledged, now: float
    ) -> None:
        self._incoming.on_answer(event, connection.protocol.version)

    def _on_payload_not_text(self, connection: Connection, event: PayloadNotText, now: float) -> None:
        text = f"{event.topic}: the payload is declared as UTF-8 and is not from byte {event.position} on"
        self._events.notify("invalid_payload", text)

    def _on_skipped(self, connection: Connection, event: MessageSkipped, now: float) -> None:
        self._incoming.on_skipped(event)

    def _on_ping_answered(self, connection: Connection, event: PingAnswered, now: float) -> None:
        suspicion = self._outgoing.suspicion
        if suspicion is not None and suspicion.careful is not None:
            suspicion.careful.ping_answered()

    def _on_auth(self, connection: Connection, event: AuthReceived, now: float) -> None:
        self._events.notify("auth", f"the server sent AUTH with reason code 0x{event.reason_code:02x}")

    # Ends

    def open_failed(self, transport: Transport, error: DeviceSdkError, now: float) -> None:
        """The stream of the present server could not be opened."""
        self._brokers.current.will_trial.unreached()
        self._life.note_failure(error)
        self._outgoing.attempt_failed(error)
        self._attempt_failed(transport, error, None, now)

    def _attempt_failed(
        self, transport: Transport, error: DeviceSdkError, reason_code: int | None, now: float
    ) -> None:
        """End the turn of a server. After the turn of each the round is over, and connect() learns of it."""
        error.retry = classify(error, reason_code)
        delay = self._brokers.attempt_failed(error.retry, now)
        schedule = self._schedule(delay or 0.0, now)
        self._events.notify("connect_failed", f"{_with_place(transport, error)}{schedule}", error)
        if delay is not None:
            self._outgoing.attempt_over()
            self._life.decide()

    def fault(
        self, connection: Connection | None, transport: Transport, error: Exception, now: float
    ) -> None:
        """Something failed that never should: report it, and begin anew with the next connection."""
        failure = TransportClosedError(f"internal error: {type(error).__name__}: {error}")
        self._events.notify("internal_error", str(failure), error)
        if connection is not None:
            self._end(connection, ConnectionEnded(failure), now)
        elif self._life.state == CONNECTING:
            self._resumption.unanswered()
            if self._authentication is not None:
                self._authentication.ended(failure)
            self.open_failed(transport, failure, now)

    def _detach(self, error: DeviceSdkError) -> None:
        """Nothing is sent or expected on the connection any more; its stream is still to be closed."""
        self._life.note_failure(error)
        self._incoming.disconnected()
        self._outgoing.disconnected(error)
        if self._authentication is not None:
            self._authentication.ended(error)

    def _schedule(self, delay: float, now: float) -> str:
        """Fix the time of the next attempt; return the words for it."""
        if not self._life.wait(delay, now):
            return ""
        following = self._brokers.current.transport
        where = "" if len(self._brokers.all) == 1 else f" at {following.description}"
        when = f"in {delay:.1f} s" if delay else "at once"
        return f"; next attempt{where} {when}"

    def _report_end(self, connection: Connection, error: DeviceSdkError, consequence: str) -> None:
        text = f"{_with_place(connection.stream.transport, error)}{consequence}"
        self._events.notify("disconnected", text, error)
        if self._on_disconnect is not None:
            self._events.append((self._on_disconnect, error))


def _with_place(transport: Transport, error: DeviceSdkError) -> str:
    """Return the text of an error with the place where it happened, once."""
    where = transport.description
    return str(error) if where in str(error) else f"{where}: {error}"


_REACTIONS: dict[type, Callable[[Reactions, Connection, Any, float], None]] = {
    ConnectAcknowledged: Reactions._on_accepted,
    ConnectionEnded: Reactions._on_ended,
    SessionUnknown: Reactions._on_session_over,
    SessionCleared: Reactions._on_session_over,
    SubscribeAcknowledged: Reactions._on_answer,
    UnsubscribeAcknowledged: Reactions._on_answer,
    AuthReceived: Reactions._on_auth,
    PayloadNotText: Reactions._on_payload_not_text,
    MessageSkipped: Reactions._on_skipped,
    PingAnswered: Reactions._on_ping_answered,
}
