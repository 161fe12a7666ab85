"""What goes out: the queue, the window behind it, and the deliveries that tell how it ended."""

from __future__ import annotations

import threading
from collections import deque

from device_sdk.errors import (
    ClosedError,
    DeliveryExpiredError,
    DroppedError,
    LocalProtocolError,
    QueueFullError,
    SessionLostError,
    StoreError,
)
from device_sdk.mqtt.session import (
    DROPPED,
    EXPIRED,
    INVALIDATED,
    PENDING_STATES,
    QUEUED,
    SENT,
    STORED,
    Outgoing,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_sdk.engine.waiting import Waiting
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Session
    from device_sdk.store.base import SavedMessage, SavedSession, Store, StorePolicy

__all__ = ["Delivery", "Outbox"]


class Delivery(Outgoing):
    """What became of one published message.

    Every method may be called from any thread, also inside a message handler.
    """

    __slots__ = ("_outbox", "_waiter", "change")

    def __init__(
        self,
        outbox: Outbox,
        topic_field: bytes,
        payload: bytes,
        flags: int,
        properties: bytes,
        expires_at: float | None = None,
    ) -> None:
        # Outgoing.__init__ written out: this runs once a message, a call more is 3 % of publish().
        self.topic_field = topic_field
        self.payload = payload
        self.flags = flags
        self.properties = properties
        self.expires_at = expires_at
        self.sequence = 0
        self.status = QUEUED
        self.packet_id = 0
        self.packet = None
        self.error = None
        self.change = 0
        self._outbox = outbox
        self._waiter: threading.Event | None = None

    @property
    def state(self) -> str:
        """``queued``, ``stored``, ``sent``, then ``acknowledged`` or one of ``refused``, ``expired``,
        ``dropped``, ``invalidated``. QoS 0 ends at ``sent``: nobody acknowledges it.
        """
        if self.status == QUEUED and self._outbox.is_durable(self.change):
            return STORED
        return self.status

    @property
    def topic(self) -> str:
        """The topic name."""
        return self.topic_field[2:].decode()

    @property
    def done(self) -> bool:
        """Whether :meth:`wait` would return or raise at once."""
        if self.error is not None or self.status not in PENDING_STATES:
            return True
        return self.status == SENT and self.flags < 2

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the broker has acknowledged the message (QoS 0: until it was handed to the connection).

        Raises: TimeoutError: not within ``timeout`` seconds (``None``: no limit). PublishRefused,
        DeliveryExpiredError, DroppedError, SessionLostError: it never will be.
        """
        if not self.done and not self._outbox.wait_done(self, timeout):
            raise TimeoutError(f"{self!r} was not acknowledged within {timeout:g} s")
        if self.error is not None:
            raise self.error

    def wait_stored(self, timeout: float | None = None) -> None:
        """Wait until the message survives a restart, or was acknowledged, which is better still.

        Raises: TimeoutError: not within ``timeout`` seconds. StoreError: the client has no store, or the
        store failed. Else as :meth:`wait`.
        """
        if not self.done and not self._outbox.wait_stored(self, timeout):
            raise TimeoutError(f"{self!r} was not stored within {timeout:g} s")
        if self.error is not None:
            raise self.error

    def __repr__(self) -> str:
        return f"<Delivery {self.topic!r} qos={self.qos} {self.state}>"


class Outbox:
    """The queue of one client. Its methods, the two waits excepted, run under the engine's lock."""

    def __init__(
        self,
        lock: threading.Lock,
        session: Session,
        policy: StorePolicy,
        store: Store | None,
        waiting: Waiting,
    ) -> None:
        self._lock = lock
        self._session = session
        self._policy = policy
        self._store = store
        self._waiting = waiting
        self._next_sequence = 1
        self._durable_wait = threading.Condition(lock)
        self.next_expiry: float | None = None  # when expire() wants to be called
        self.queue: deque[Delivery] = deque()
        self.queued_bytes = 0
        self._room = threading.Condition(lock)
        self.blocked = 0  # threads that wait for room
        self.sent_qos0 = Delivery(self, b"", b"", 0, b"", None)  # every QoS 0 message sent at once
        self.sent_qos0.status = SENT

    def add(self, delivery: Delivery) -> list[Delivery] | None:
        """Append a message to the queue, as the policy allows.

        Returns: the deliveries that were dropped for it, or ``None`` if the caller has to wait for room.
        Raises: QueueFullError: the policy is to reject.
        """
        size = len(delivery.topic_field) + len(delivery.properties) + len(delivery.payload)
        policy = self._policy
        if size > policy.max_bytes:
            raise QueueFullError(
                f"payload: a message of {size} bytes does not fit into a queue of {policy.max_bytes} bytes"
            )
        dropped: list[Delivery] = []
        while len(self.queue) >= policy.max_messages or self.queued_bytes + size > policy.max_bytes:
            if policy.overflow == "block":
                return None
            if policy.overflow == "drop_newest":
                self.end(delivery, DROPPED, DroppedError(self._bounds("the new message was dropped")))
                return [delivery]
            if policy.overflow == "reject":
                raise QueueFullError(self._bounds("wait for acknowledgements or choose another overflow"))
            oldest = self._pop()
            self.end(oldest, DROPPED, DroppedError(self._bounds("the oldest message was dropped")))
            dropped.append(oldest)
        if self._store is not None:
            self.journal(delivery)
        self.queue.append(delivery)
        self.queued_bytes += size
        if delivery.expires_at is not None:
            self._note_expiry(delivery.expires_at)
        return dropped

    def _note_expiry(self, expires_at: float) -> None:
        if self.next_expiry is None or expires_at < self.next_expiry:
            self.next_expiry = expires_at

    def journal(self, delivery: Delivery) -> None:
        """Write a new message ahead, if there is a store."""
        if self._store is None:
            return
        delivery.sequence = self._next_sequence
        self._next_sequence += 1
        delivery.change = self._session.record(
            (
                "message",
                delivery.sequence,
                delivery.topic_field,
                delivery.payload,
                delivery.flags,
                delivery.properties,
                delivery.expires_at,
            )
        )

    def fill(self, protocol: Protocol, now: float) -> list[Delivery]:
        """Move messages from the queue into the window; return those that ended instead."""
        session, queue = self._session, self.queue
        ended: list[Delivery] = []
        room = protocol.window - len(session)
        moved_bytes = 0
        while queue:
            delivery = queue[0]
            if delivery.flags >= 2 and room <= 0:
                break
            queue.popleft()
            moved_bytes += len(delivery.topic_field) + len(delivery.properties) + len(delivery.payload)
            if delivery.expires_at is not None and delivery.expires_at <= now:
                self.end(delivery, EXPIRED, DeliveryExpiredError("it expired before it could be sent"))
                ended.append(delivery)
                continue
            try:
                if delivery.flags >= 2:
                    protocol.publish(delivery, now)
                    room -= 1
                else:
                    packet = delivery.encode(0, now)
                    protocol.send_encoded(packet, delivery.flags)
                    self.end(delivery, SENT, None)
            except LocalProtocolError as error:
                self.end(delivery, DROPPED, DroppedError(str(error)))
                ended.append(delivery)
        if moved_bytes:
            self.queued_bytes -= moved_bytes
            if self.blocked:
                self._room.notify_all()
        return ended

    def expire(self, now: float) -> list[Delivery]:
        """End the queued messages whose time is over, looking through the queue once a second at most."""
        if self.next_expiry is None or now < self.next_expiry:
            return []
        expired = [item for item in self.queue if item.expires_at is not None and item.expires_at <= now]
        if expired:
            gone = set(map(id, expired))
            self.queue = deque(item for item in self.queue if id(item) not in gone)
            self.made_room()
        for delivery in expired:
            self.queued_bytes -= _size(delivery)
            self.end(delivery, EXPIRED, DeliveryExpiredError("it expired before it could be sent"))
        left = [item.expires_at for item in self.queue if item.expires_at is not None]
        self.next_expiry = max(min(left), now + 1) if left else None
        return expired

    def put_back(self, messages: Iterable[Outgoing]) -> None:
        """Queue messages of a lost session again, before everything that waits."""
        for message in reversed(list(messages)):
            assert isinstance(message, Delivery)
            self.queue.appendleft(message)
            self.queued_bytes += _size(message)
            if message.expires_at is not None:
                self._note_expiry(message.expires_at)

    def invalidate(self, messages: Iterable[Outgoing]) -> None:
        """End the messages of a lost session for an application that does not want them repeated."""
        for message in messages:
            assert isinstance(message, Delivery)
            self.end(message, INVALIDATED, SessionLostError("the broker lost the session"))

    def end(self, delivery: Delivery, status: str, error: DeviceSdkError | None) -> None:
        """Give a delivery that is in no window its last state, forget it in the store, wake who waits."""
        delivery.status = status
        delivery.error = error
        if self._session.journal and delivery.sequence:
            self._session.record(("done", delivery.sequence))
        self.wake(delivery)

    def wake(self, delivery: Delivery) -> None:
        """Wake the threads in :meth:`Delivery.wait`."""
        if delivery._waiter is not None:
            delivery._waiter.set()

    def progressed(self) -> None:
        """The store moved on, or deliveries ended: wake who waits for either."""
        self._durable_wait.notify_all()

    def end_all(self, error: DeviceSdkError | None = None) -> list[Delivery]:
        """End what a closing client leaves behind; a store keeps it for the next one."""
        if error is None and self._store is not None:
            error = ClosedError("the client was closed; the store keeps the message")
        elif error is None:
            error = DroppedError("the client was closed before the message was acknowledged")
        session = self._session
        left = [*session.in_flight.values(), *session.released.values(), *self.queue]
        ended = [delivery for delivery in left if isinstance(delivery, Delivery)]
        for delivery in ended:
            delivery.error = error
            delivery.status = DROPPED if self._store is None else STORED
            self.wake(delivery)
        self.queue.clear()
        self.queued_bytes = 0
        self.made_room()
        self.progressed()
        session.in_flight.clear()
        session.released.clear()
        return ended

    def restore(self, saved: SavedSession, now: float) -> None:
        """Take over what an earlier client left in the store."""
        self._next_sequence = saved.next_sequence
        session = self._session
        for message in saved.messages:
            delivery = self._restored(message)
            if message.released:
                session.released[message.packet_id] = delivery
            elif message.packet_id:
                delivery.packet = delivery.encode(message.packet_id, now)
                session.in_flight[message.packet_id] = delivery
            else:
                self.queue.append(delivery)
                self.queued_bytes += _size(delivery)
                if delivery.expires_at is not None:
                    self._note_expiry(delivery.expires_at)
            session.last_packet_id = max(session.last_packet_id, message.packet_id)

    def _restored(self, message: SavedMessage) -> Delivery:
        delivery = Delivery(
            self,
            message.topic_field,
            message.payload,
            message.flags,
            message.properties,
            message.expires_at,
        )
        delivery.sequence = message.sequence
        delivery.packet_id = message.packet_id
        if message.packet_id:
            delivery.status = SENT
        return delivery

    # Waiting; these take the lock themselves

    def wait_done(self, delivery: Delivery, timeout: float | None) -> bool:
        """Block until the delivery is done; False after ``timeout`` seconds."""
        with self._lock:
            if delivery.done:
                return True
            if delivery._waiter is None:
                delivery._waiter = threading.Event()
            waiter = delivery._waiter
        with self._waiting:
            return waiter.wait(timeout)

    def wait_stored(self, delivery: Delivery, timeout: float | None) -> bool:
        """Block until the delivery is durable or done; False after ``timeout`` seconds."""
        store = self._store
        if store is None:
            raise StoreError("this client keeps its queue in memory; give it store=... to survive a restart")
        with self._lock:
            store.expedite(delivery.change)
            return self._durable_wait.wait_for(
                lambda: delivery.done or self._checked_durable(delivery.change), timeout
            )

    def wait_room(self, timeout: float) -> None:
        """Block, with the lock released meanwhile, until a message has left the queue.

        Raises: QueueFullError: none did within ``timeout`` seconds. The caller holds the lock.
        """
        self.blocked += 1
        try:
            with self._waiting:
                if not self._room.wait(timeout):
                    raise QueueFullError(self._bounds("no room in time"))
        finally:
            self.blocked -= 1

    def made_room(self) -> None:
        """Wake the threads that wait for room."""
        self._room.notify_all()

    def is_durable(self, change: int) -> bool:
        """Whether the change with this number would survive a restart; without a store nothing does."""
        store = self._store
        return store is not None and store.failure is None and store.durable_through >= change

    def _checked_durable(self, change: int) -> bool:
        store = self._store
        if store is not None and store.failure is not None:
            raise store.failure
        return self.is_durable(change)

    def _pop(self) -> Delivery:
        delivery = self.queue.popleft()
        self.queued_bytes -= _size(delivery)
        if self.blocked:
            self._room.notify_all()
        return delivery

    def _bounds(self, hint: str) -> str:
        return (
            f"the queue holds {len(self.queue)} of {self._policy.max_messages} messages and "
            f"{self.queued_bytes} of {self._policy.max_bytes} bytes; {hint}"
        )


def _size(delivery: Delivery) -> int:
    return len(delivery.topic_field) + len(delivery.properties) + len(delivery.payload)
