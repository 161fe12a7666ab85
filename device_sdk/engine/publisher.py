"""The outgoing half of an engine: messages into the window or the queue, changes into the store."""

from __future__ import annotations

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.outbox import Outbox
from device_sdk.engine.report import CLOSED, IDLE, Reporter, Stats
from device_sdk.engine.waiting import Waiting
from device_sdk.errors import ClosedError, DroppedError, LocalProtocolError, QueueFullError
from device_sdk.mqtt.session import DROPPED, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.store.base import Store, StorePolicy

__all__ = ["Publisher"]

_OPEN_GATES = 1 << 62  # above every change number: a failed or absent store holds nothing back


class Publisher(Reporter):
    """Takes messages from the application. The caller of every method holds the lock."""

    def __init__(
        self,
        lock: threading.Lock,
        policy: StorePolicy,
        store: Store | None,
        *,
        buffer_qos0: bool,
        waiting: Waiting | None = None,
    ) -> None:
        super().__init__()
        self.lock = lock
        self.session = Session(journal=store is not None)
        self.waiting = Waiting() if waiting is None else waiting
        self.outbox = Outbox(lock, self.session, policy, store, self.waiting)
        self.state = IDLE
        self.attempts = 0  # of which the outcome is known
        self.parked = False  # the shell waits for the network: whoever adds output has to wake it
        self._policy = policy
        self._store = store
        self._store_failing = False
        self._buffer_qos0 = buffer_qos0
        self._online: Protocol | None = None  # once CONNACK has accepted
        self._stats = Stats()

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
        Raises: QueueFullError, ClosedError, LocalProtocolError (the connected server does not take it).
        """
        protocol = self._online
        outbox = self.outbox
        if protocol is None:
            return self._publish_offline(
                Delivery(outbox.waits, topic_field, payload, flags, properties, expires_at), now
            )
        if flags < 2 and expires_at is None:
            if protocol.output.buffered <= outbox.max_buffered:
                protocol.publish_qos0(topic_field, payload, flags, properties)
                self._stats.published += 1
                return outbox.sent_qos0
            return self._output_full(
                Delivery(outbox.waits, topic_field, payload, flags, properties), protocol.output.buffered
            )
        delivery = Delivery(outbox.waits, topic_field, payload, flags, properties, expires_at)
        session = self.session
        if (
            flags >= 2
            and not outbox.ahead
            and len(session.in_flight) + len(session.released) < protocol.window
        ):
            if self._store is None:
                protocol.publish(delivery, now or 0.0)
            else:
                self._publish_stored(protocol, delivery, now or 0.0, self._store)
            self._stats.published += 1
            return delivery
        protocol.check(flags, len(topic_field) + len(properties) + len(payload) + 7)
        queued = self._enqueue(delivery, now)
        if flags < 2:
            self._fill(now or 0.0)
        return queued

    def unpark(self) -> bool:
        """Whether the shell waits and has to be woken; it counts as woken then."""
        parked, self.parked = self.parked, False
        return parked

    def _publish_offline(self, delivery: Delivery, now: float | None) -> Delivery | None:
        if self.state == CLOSED:
            raise ClosedError("publish() on a client that is closed")
        if delivery.flags < 2 and not self._holds_qos0():
            self._drop(delivery, "there is no connection, and QoS 0 is not buffered (buffer_qos0)")
            return delivery
        return self._enqueue(delivery, now)

    def _publish_stored(self, protocol: Protocol, delivery: Delivery, now: float, store: Store) -> None:
        self.outbox.number(delivery)
        try:
            protocol.publish(delivery, now)
        except LocalProtocolError as error:
            self.outbox.end(delivery, DROPPED, error)  # the caller is told: the next client must not send it
            raise
        finally:
            self._hand_to_store(store)
        if delivery.flags >= 4 and protocol.gate:
            store.expedite(protocol.gate)  # the network thread sleeps until the gate opens

    def _output_full(self, delivery: Delivery, buffered: int) -> Delivery | None:
        """QoS 0 comes faster than the network takes it: do as the policy says."""
        overflow = self._policy.overflow
        if overflow == "block":
            return None
        problem = f"{buffered} bytes wait for the network, which takes them too slowly"
        if overflow == "reject":
            raise QueueFullError(problem)
        self.outbox.end(delivery, DROPPED, DroppedError(problem))
        self._report_ended((delivery,))
        return delivery

    def _enqueue(self, delivery: Delivery, now: float | None) -> Delivery | None:
        dropped = self.outbox.add(delivery, now)
        if dropped is None:
            return None
        self._stats.published += 1
        if dropped:
            self._report_ended(dropped)
        if self._store is not None:
            self._hand_to_store(self._store)
        return delivery

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
            self.outbox.waits.stored()
        self.outbox.request_page()
        if (store.failure is not None) is not self._store_failing:
            self._report_store(store)

    def _read_on(self, store: Store, now: float) -> None:
        """Go on with the queue where the store has read more of it."""
        outbox = self.outbox
        while outbox.take_page(now):
            self._fill(now)
            self._hand_to_store(store)
        if outbox.wants_fill:  # a publisher has taken a page
            self._fill(now)
            self._hand_to_store(store)
        if outbox.lost:
            self._stats.dropped += outbox.lost
            self.notify("dropped", f"{outbox.lost} messages that waited in the store are not there any more")
            outbox.lost = 0

    def _report_store(self, store: Store) -> None:
        """Tell that the store cannot write any more, or can again, or has begun a new file."""
        if store.notice is not None:
            text, store.notice = store.notice, None
            self.notify("store_replaced", text)
        if (store.failure is not None) is self._store_failing:
            return
        self._store_failing = store.failure is not None
        if store.failure is not None:
            text = f"{store.failure}; messages are kept in memory until it can write again"
            self.notify("store_failed", text, store.failure)
        else:
            self.notify("store_recovered", "the store can write again; nothing that was kept is missing")

    def on_store_progress(self) -> bool:
        """The store moved on. Returns: whether the shell has to be woken. The caller holds the lock."""
        self.outbox.waits.stored()
        if self._store is not None:
            self._report_store(self._store)
        if self.outbox.waits.blocked:
            self.outbox.waits.made_room()
        return self.unpark()

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
