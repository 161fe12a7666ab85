"""Messages of the application on their way out: into the window of a connection, or into the queue."""

from __future__ import annotations

from device_sdk._weak import weakly
from device_sdk.engine.outgoing.cancelling import Cancelling
from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.outbox import Outbox
from device_sdk.engine.outgoing.postponed import Postponed
from device_sdk.engine.outgoing.presence import Presence
from device_sdk.engine.outgoing.suspicion import suspicion_for
from device_sdk.engine.outgoing.write_ahead import WriteAhead
from device_sdk.errors import ClosedError, DroppedError, LocalProtocolError, QueueFullError
from device_sdk.mqtt.session import DROPPED, EXPIRED, SENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from device_sdk.engine.consumers import Consumers
    from device_sdk.engine.events import Events
    from device_sdk.engine.outgoing.greetings import Greetings
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.output import Output
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Session
    from device_sdk.store.base import Store, StorePolicy

__all__ = ["Publisher"]

_AT_FIRST, _ALWAYS = 1, 2  # QoS 0 waits for a connection: for the first one only, or for each
_LONGEST_HEADER = 14  # of a PUBLISH beside topic, properties and payload: the rest of it, and an expiry
_UNHELD = {
    DROPPED: "messages that waited in the store made room for newer ones",
    EXPIRED: "messages that this broker cannot take have expired in the store",
}


class Publisher:
    """Takes messages from the application. The caller of every method holds the engine's lock.

    ``online``: the protocol of the connection that the server has accepted, ``None`` without one.
    ``journal``: the way into the store, ``None`` without a store. ``alone``: there is no other server that
    could take what the connected one cannot.
    """

    __slots__ = (
        "_alone", "_cancelling", "_closed", "_events", "_obstacle", "_policy", "_qos0_waits", "_session",
        "_waits", "journal", "online", "outbox", "postponed", "presence", "suspicion",
    )  # fmt: skip

    def __init__(
        self, lock: threading.RLock, session: Session, policy: StorePolicy, store: Store | None,
        events: Events, consumers: Consumers,
        *, buffer_qos0: bool, alone: bool = True, on_poison: str = "keep", greetings: Greetings | None = None,
    ) -> None:  # fmt: skip
        self.outbox = Outbox(lock, session, policy, store, consumers)
        self.journal = None if store is None else WriteAhead(store, session, self.outbox, events)
        self.postponed = Postponed(session, self.outbox, events)
        self.suspicion = suspicion_for(on_poison, session, self.outbox, events)
        self.presence = Presence(session, self.outbox, events, greetings)
        self.online: Protocol | None = None
        self._session = session
        self._policy = policy
        self._events = events
        self._waits = self.outbox.waits
        self._cancelling = Cancelling(self.outbox, self.journal, events)
        self._waits.let_cancel(weakly(self._cancelling.cancel))
        self._alone = alone
        self._qos0_waits = _ALWAYS if buffer_qos0 else _AT_FIRST
        self._closed = False
        self._obstacle: DeviceSdkError | None = None  # as far as it has been reported

    # The life of the client

    def prepare(self, protocol: Protocol, server: str) -> None:
        """A connection to this server is about to begin."""
        if protocol.output.negotiated:
            for packet_id, message in self._session.in_flight.items():
                message.properties = protocol.output.fitted(message.properties)
                message.packet = message.encode(packet_id, 0.0)  # one that expires is encoded again
        if self.suspicion is not None:
            self.suspicion.prepare(protocol, server)

    def connected(self, protocol: Protocol, now: float = 0.0) -> None:
        """Send on this connection from now on."""
        self.online = protocol
        self._waits.explain(None)
        if protocol.output.negotiated:
            self.outbox.replay.speak(protocol.version)
        self.outbox.connected((protocol.output.largest_packet, protocol.output.refused_flags))
        self.presence.connected(protocol, now)
        if self.suspicion is not None:
            self.suspicion.connected(protocol, now)

    def disconnecting(self) -> None:
        """Send nothing any more on this connection, which has its DISCONNECT."""
        self.online = None
        if self.suspicion is not None:
            self.suspicion.relax()

    def disconnected(self, error: DeviceSdkError | None) -> None:
        """Queue from now on. ``error``: why there is no connection, if that is known."""
        self.online = None
        if self.suspicion is not None:
            self.suspicion.relax()
        if error is not None:
            self._waits.explain(error)
        self.presence.disconnected()
        self.postponed.clear()
        self.outbox.disconnected()

    def attempt_failed(self, error: DeviceSdkError) -> None:
        """Note why there is no connection."""
        self._waits.explain(error)

    def attempt_over(self) -> None:
        """Note that an attempt has its outcome: from now on QoS 0 waits only with ``buffer_qos0``."""
        self._qos0_waits &= _ALWAYS

    def end(self, error: DeviceSdkError | None = None) -> None:
        """Take no message any more, and end what is left: with ``error``, else as the store can keep it."""
        self._closed = True
        self._waits.let_cancel(None)
        self.presence.disconnected()
        if error is not None:
            self.outbox.end_all(error)
            return
        if self.journal is not None:
            self._session.note_handled()
            self._session.record(("reserved", self._session.last_packet_id))  # the next client goes on there
            self.journal.hand_over()
        self._report_lost(len(self.outbox.end_all()), "that were not acknowledged")

    def settle(self) -> None:
        """The store is closed: end and report the messages that it could not keep."""
        lost = self.outbox.settle()
        why = None if self.journal is None else self.journal.failure
        self._report_lost(lost, f"that the store could not keep: {why or 'its file was replaced'}")

    def _report_lost(self, count: int, which: str) -> None:
        if count > 0:
            self._events.stats.dropped += count
            self._events.notify("dropped", f"closed with {count} messages {which}")

    # Messages

    def publish(
        self, topic_field: bytes, payload: bytes, flags: int, properties: bytes, expires_at: float | None,
        now: float | None,
    ) -> Delivery | None:  # fmt: skip
        """Send a message now if the window has room, else queue it.

        Returns: its delivery, or ``None`` if the policy is to block and the caller has to wait for room.
        Raises: QueueFullError, ClosedError, LocalProtocolError (the connected server does not take it).
        """
        protocol = self.online
        if protocol is None:
            return self._publish_offline(
                Delivery(self._waits, topic_field, payload, flags, properties, expires_at), now
            )
        properties = protocol.output.fitted(properties) if protocol.output.negotiated else properties
        outbox = self.outbox
        if flags < 2 and expires_at is None:
            if protocol.output.buffered <= outbox.max_buffered:
                protocol.publish_qos0(topic_field, payload, flags, properties)
                self._events.stats.published += 1
                return outbox.sent_qos0
            qos0 = Delivery(self._waits, topic_field, payload, flags, properties)
            if outbox.max_buffered < 0:
                outbox.want_fill(True)
                return self._enqueue(qos0, now)
            return self._output_full(qos0, protocol.output.buffered)
        delivery = Delivery(self._waits, topic_field, payload, flags, properties, expires_at)
        output, session = protocol.output, self._session
        size = len(topic_field) + len(properties) + len(payload) + _LONGEST_HEADER
        if (
            flags >= 2
            and (size > output.largest_packet or flags in output.refused_flags)
            and not self._fits(delivery, output, now or 0.0)
        ):
            return self._beyond_limits(delivery, protocol, now)
        if (
            flags >= 2
            and not outbox.ahead
            and len(session.in_flight) + len(session.released) < protocol.outbound.window
        ):
            if self.journal is None:
                protocol.publish(delivery, now or 0.0)
            else:
                self._publish_stored(protocol, delivery, now or 0.0, self.journal)
            self._events.stats.published += 1
            return delivery
        if flags < 2:
            output.check(flags, size)
        queued = self._enqueue(delivery, now)
        if outbox.max_buffered < 0:
            outbox.want_fill(True)
        elif flags < 2 or self.postponed:
            self.fill(now or 0.0)
        return queued

    def _fits(self, delivery: Delivery, output: Output, now: float) -> bool:
        """Whether the server takes a message with QoS 1 or 2; the policy may allow to lower it."""
        if self._policy.unsendable == "lower_qos":
            delivery.flags = output.lowered(delivery.flags)
        return delivery.flags >= 2 and output.takes(delivery.flags, len(delivery.encode(1, now)))

    def _beyond_limits(self, delivery: Delivery, protocol: Protocol, now: float | None) -> Delivery | None:
        """Do as the policy says with a message that the connected server does not take.

        Raises: LocalProtocolError: there is no other server that could, and the QoS cannot be lowered.
        """
        output, unsendable = protocol.output, self._policy.unsendable
        if delivery.flags < 2:
            properties = delivery.current_properties(now or 0.0)
            protocol.publish_qos0(delivery.topic_field, delivery.payload, delivery.flags, properties)
            delivery.status = SENT
            self._events.stats.published += 1
            return delivery
        if self._alone or unsendable == "drop":
            output.check(delivery.flags, len(delivery.encode(1, now or 0.0)))
        queued = self._enqueue(delivery, now)
        if queued is not None:
            self.fill(now or 0.0)
        return queued

    def _publish_offline(self, delivery: Delivery, now: float | None) -> Delivery | None:
        if self._closed:
            raise ClosedError("publish() on a client that is closed")
        if delivery.flags < 2 and not self._qos0_waits:
            why = "there is no connection, and QoS 0 is not buffered (buffer_qos0)"
            self.outbox.end(delivery, DROPPED, DroppedError(why))
            self._events.stats.dropped += 1
            return delivery
        return self._enqueue(delivery, now)

    def _publish_stored(
        self, protocol: Protocol, delivery: Delivery, now: float, journal: WriteAhead
    ) -> None:
        self.outbox.number(delivery)
        try:
            protocol.publish(delivery, now)
        except LocalProtocolError as error:
            self.outbox.end(delivery, DROPPED, error)  # the caller is told: the next client must not send it
            raise
        finally:
            journal.hand_over()
        if delivery.flags >= 4 and protocol.gate:
            journal.expedite(protocol.gate)  # the network thread sleeps until the gate opens

    def _output_full(self, delivery: Delivery, buffered: int) -> Delivery | None:
        """QoS 0 comes faster than the network takes it: do as the policy says."""
        overflow = self._policy.overflow
        if overflow == "block":
            return None
        problem = f"{buffered} bytes wait for the network, which takes them too slowly"
        if overflow == "reject":
            raise QueueFullError(problem)
        self.outbox.end(delivery, DROPPED, DroppedError(problem))
        self.report_ended((delivery,))
        return delivery

    def _enqueue(self, delivery: Delivery, now: float | None) -> Delivery | None:
        dropped = self.outbox.add(delivery, now)
        if dropped is None:
            return None
        self._events.stats.published += 1
        if dropped:
            self.report_ended(dropped)
        if self.outbox.overflow.unheld:
            self._report_unheld()
        if self.journal is not None:
            self.journal.hand_over()
        return delivery

    def _report_unheld(self) -> None:
        for kind, count in self.outbox.overflow.take_unheld().items():
            setattr(self._events.stats, kind, getattr(self._events.stats, kind) + count)
            self._events.notify(kind, f"{count} {_UNHELD[kind]}", value=str(count))

    # The queue behind the window

    def fill(self, now: float) -> None:
        """Move messages from the queue into the window, if there is a connection."""
        if self.online is None:
            return
        outbox, suspicion = self.outbox, self.suspicion
        if outbox.max_buffered < 0:
            outbox.want_fill(False)
            if suspicion is None:
                self.presence.begin(self.online, now, alone=False)
            else:
                ended = suspicion.step(self.online, self.presence, now)
                self.report_ended(self.postponed.pass_over(ended, now))
        if self.postponed:  # after the step, which may have come to the end of a message that was alone
            may_send = suspicion is None or not suspicion.is_judging
            self.report_ended(self.postponed.publish(self.online, now, may_send=may_send))
        if outbox.max_buffered >= 0:
            self.report_ended(outbox.fill(self.online, now))
        if outbox.obstacle is not self._obstacle:
            self._obstacle = error = outbox.obstacle
            if error is not None:
                text = f"this broker cannot take some messages, which wait for another: {error}"
                self._events.notify("held", text, error)

    def send_ahead(self, protocol: Protocol, now: float) -> None:
        """Move messages into the window of a connection that the server has not accepted yet."""
        self.report_ended(self.outbox.fill(protocol, now))
        if self.journal is not None:
            self.journal.hand_over()

    def read_on(self, now: float) -> None:
        """Go on with the queue where the store has read more of it."""
        outbox, journal = self.outbox, self.journal
        if journal is None:
            return
        while outbox.take_page(now):
            self.fill(now)
            journal.hand_over()
        if outbox.wants_fill:  # add() took a page, to drop the oldest: more may be ready to be sent
            self.fill(now)
            journal.hand_over()
        if outbox.lost:
            lost = outbox.take_lost()
            self._events.stats.dropped += lost
            text = f"{lost} messages that waited in the store are not there any more"
            self._events.notify("dropped", text)

    def on_deadline(self, now: float) -> None:
        """End messages that have expired; go on with a replay that has a rate."""
        outbox = self.outbox
        self.presence.on_deadline(now)
        self.report_ended(outbox.expire(now))
        if outbox.overflow.unheld:
            self._report_unheld()
        due = None if self.suspicion is None else self.suspicion.deadline
        detour = now if outbox.max_buffered < 0 else None
        for moment in (outbox.next_replay, self.postponed.due, due, detour):
            if moment is not None and now >= moment:
                self.fill(now)

    def report_ended(self, deliveries: Iterable[Delivery]) -> None:
        """Count and report the deliveries that were dropped, have expired or were refused."""
        for delivery in deliveries:
            if delivery.error is None:
                continue
            kind = delivery.status
            if kind in ("dropped", "expired", "refused"):
                setattr(self._events.stats, kind, getattr(self._events.stats, kind) + 1)
                self._events.notify(kind, f"{delivery.topic}: {delivery.error}", delivery.error)

    def acknowledge_handled(self) -> None:
        """Let the acknowledgements of handled messages leave; without a connection the store notes them."""
        online, journal = self.online, self.journal
        if online is not None:
            online.acknowledge_handled()
            if journal is not None and online.gate:
                journal.hand_over()
                journal.expedite(online.gate)  # the network thread sleeps until the gate opens
        elif self._session.received:
            self._session.note_handled()
            if journal is not None:
                journal.hand_over()

    def store_progressed(self) -> None:
        """The store moved on: wake those who wait for it or for room."""
        if self.journal is not None:
            self.journal.progressed()
        if self._waits.blocked:
            self._waits.made_room()
