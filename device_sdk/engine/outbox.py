"""What goes out: the queue, the window behind it, and the deliveries that tell how it ended."""

from __future__ import annotations

import threading
from collections import deque

from device_sdk.engine.delivery import Delivery
from device_sdk.engine.latest import Latest
from device_sdk.engine.pages import Pages
from device_sdk.errors import (
    ClosedError,
    DeliveryExpiredError,
    DroppedError,
    LocalProtocolError,
    QueueFullError,
    SessionLostError,
    StoreError,
)
from device_sdk.mqtt.session import DROPPED, EXPIRED, INVALIDATED, QUEUED, SENT, STORED
from device_sdk.store.base import AGED, KEEP_LAST, MESSAGE_FLAGS, PAGE_BYTES, PAGE_MESSAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_sdk.engine.waiting import Waiting
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Outgoing, Session
    from device_sdk.store.base import SavedMessage, SavedSession, Store, StorePolicy

__all__ = ["Delivery", "Outbox"]

_MEMORY_MESSAGES, _MEMORY_BYTES = 10_000, 16 * 1024 * 1024
_DISK_BYTES = 64 * 1024 * 1024
_NO_BOUND = 1 << 62

_QOS_FLAGS = 6
_BURST_SECONDS = 0.05  # what a replay rate may make up for after a late wake-up

_OUTDATED = "a newer message on its topic replaced it (keep_last)"
_TOO_LATE = "it expired before it could be sent"


class Outbox:
    """The queue of one client. Its methods, the two waits excepted, run under the engine's lock.

    With a store only the oldest messages are in memory, see :class:`~device_sdk.engine.pages.Pages`. With
    ``replay="live"`` there is a second lane for those published since the connection began.
    """

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
        on_disk = store is not None and store.on_disk
        self.max_messages = policy.max_messages or (_NO_BOUND if on_disk else _MEMORY_MESSAGES)
        self.max_bytes = policy.max_bytes or (_DISK_BYTES if on_disk else _MEMORY_BYTES)
        self.max_buffered = min(self.max_bytes, _MEMORY_BYTES)  # bytes on their way to network or store
        self.queue: deque[Delivery] = deque()
        self.queued = 0  # waiting messages: in memory, and those that only the store holds
        self.queued_bytes = 0
        self.ahead = 0  # of them, those that a new message must not overtake
        self.next_expiry: float | None = None  # when expire() wants to be called
        self.next_replay: float | None = None  # when fill() wants to be called for a message of the past
        self.sent_qos0 = Delivery(self, b"", b"", 0, b"", None)  # every QoS 0 message sent at once
        self.sent_qos0.status = SENT
        self.blocked = 0  # threads that wait for room
        self._live: deque[Delivery] = deque()
        self._overtaking = False  # new messages go before the queue
        self._past = 0  # sequence number of the last message before the connection
        self._replay_at = 0.0  # when the rate allows the next message of the past
        self._memory_bytes = 0  # of the messages in the queue and the live lane
        self._next_sequence = 1
        self._pages = Pages(store)
        self._latest = Latest(policy.keep_last) if policy.keep_last else None
        self._durable_wait = threading.Condition(lock)
        self._room = threading.Condition(lock)

    # Into the queue

    def add(self, delivery: Delivery, now: float | None) -> list[Delivery] | None:
        """Append a message to the queue, as the policy allows. ``now`` matters only with its ``max_age``.

        Returns: the deliveries that were dropped for it, or ``None`` if the caller has to wait for room.
        Raises: QueueFullError: the policy is to reject.
        """
        size = _size(delivery)
        policy = self._policy
        if size > self.max_bytes:
            raise QueueFullError(
                f"payload: a message of {size} bytes does not fit into a queue of {self.max_bytes} bytes"
            )
        dropped: list[Delivery] = []
        if self._latest is not None and self._latest.applies(delivery.topic_field):
            delivery.flags |= KEEP_LAST
            dropped += self._replace(self._latest, delivery.topic_field)
        while self._is_full(size):
            if policy.overflow == "block":
                return None
            if policy.overflow == "drop_newest" or self._store_is_behind():
                if policy.overflow == "reject":
                    raise QueueFullError(self._bounds("the store is too slow or cannot write"))
                self.end(delivery, DROPPED, DroppedError(self._bounds("the new message was dropped")))
                return [*dropped, delivery]
            if policy.overflow == "reject":
                raise QueueFullError(self._bounds("wait for acknowledgements or choose another overflow"))
            oldest = self._pop_oldest()
            if oldest is None:
                break  # the others are on their way from the store: the next call finds them
            self.end(oldest, DROPPED, DroppedError(self._bounds("the oldest message was dropped")))
            dropped.append(oldest)
        if policy.max_age is not None and now is not None and delivery.expires_at is None:
            delivery.flags |= AGED
            delivery.expires_at = now + policy.max_age
        self.number(delivery)
        self._append(delivery, size)
        return dropped

    def number(self, delivery: Delivery) -> None:
        """Give a new message its sequence number, and write it ahead if there is a store."""
        delivery.sequence = self._next_sequence
        self._next_sequence += 1
        if self._store is None:
            return
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

    def _append(self, delivery: Delivery, size: int) -> None:
        pages = self._pages
        lane = self._live if self._overtaking else self.queue
        crowded = len(lane) >= 2 * PAGE_MESSAGES or (lane and self._memory_bytes + size > 2 * PAGE_BYTES)
        if self._store is not None and (crowded or (pages.beyond and not self._overtaking)):
            pages.put(delivery)
        else:
            lane.append(delivery)
            self._memory_bytes += size
            if not self._overtaking:
                pages.passed(delivery.sequence)
        if delivery.flags & KEEP_LAST and self._latest is not None:
            pages.remember(delivery)
            self._latest.put(delivery.topic_field, delivery.sequence, size)
        self.queued += 1
        self.queued_bytes += size
        self._recount()
        if delivery.expires_at is not None:
            self._note_expiry(delivery.expires_at)

    def _replace(self, latest: Latest, topic_field: bytes) -> list[Delivery]:
        """Drop the message that waits on this topic; return its delivery if anybody holds it."""
        found = latest.pop(topic_field)
        if found is None:
            return []
        sequence, size = found
        older = self._pages.find(sequence)
        if self._is_in_memory(sequence, older):
            self._memory_bytes -= size
        else:
            self._pages.beyond -= 1
        self.queued -= 1
        self.queued_bytes -= size
        self._recount()
        if older is None:
            self._session.record(("done", sequence, DROPPED))
            self._pages.forget(sequence)
            return []
        self.end(older, DROPPED, DroppedError(_OUTDATED))  # fill() passes over it
        return [older]

    def _is_in_memory(self, sequence: int, delivery: Delivery | None) -> bool:
        if not self._pages.is_beyond(sequence):
            return True
        live = self._policy.replay == "live"  # then a message may have overtaken those beyond
        return live and any(item is delivery for item in (*self._live, *self.queue))

    def _is_full(self, size: int) -> bool:
        return (
            self.queued >= self.max_messages
            or self.queued_bytes + size > self.max_bytes
            or self._store_is_behind()
        )

    def _store_is_behind(self) -> bool:
        return self._store is not None and self._store.backlog_bytes > self.max_buffered

    def _note_expiry(self, expires_at: float) -> None:
        if self.next_expiry is None or expires_at < self.next_expiry:
            self.next_expiry = expires_at

    # Out of the queue

    def connected(self) -> None:
        """A connection begins: what waits now is the past."""
        self._past = self._next_sequence - 1
        self._overtaking = self._policy.replay == "live"
        self._recount()

    def disconnected(self) -> None:
        """The connection is over: everything waits in one queue again."""
        if self._live:
            self.queue = deque(sorted((*self.queue, *self._live), key=_sequence))
            self._live.clear()
        self._overtaking = False
        self.next_replay = None
        self._recount()

    def fill(self, protocol: Protocol, now: float) -> list[Delivery]:
        """Move messages from the queue into the window; return those that ended instead."""
        ended: list[Delivery] = []
        before = self.queued
        self.next_replay = None
        if self._live:
            self._drain(self._live, protocol, now, ended, 0)
        if self.queue:
            # Half of the window stays free for what is published now.
            self._drain(self.queue, protocol, now, ended, protocol.window // 2 if self._overtaking else 0)
        self._recount()
        if self.blocked and self.queued < before:
            self._room.notify_all()
        return ended

    def _drain(
        self, lane: deque[Delivery], protocol: Protocol, now: float, ended: list[Delivery], reserve: int
    ) -> None:
        room = protocol.window - len(self._session) - reserve
        paced = self._policy.replay_rate is not None and lane is self.queue
        moved = moved_bytes = 0
        while lane:
            delivery = lane[0]
            if delivery.status != QUEUED:  # replaced by a newer one, and counted then
                lane.popleft()
                continue
            if delivery.flags & _QOS_FLAGS and room <= 0:
                break
            if paced and delivery.sequence <= self._past and not self._may_replay(now):
                break
            lane.popleft()
            moved += 1
            moved_bytes += len(delivery.topic_field) + len(delivery.properties) + len(delivery.payload)
            if delivery.expires_at is not None and delivery.expires_at <= now:
                self.end(delivery, EXPIRED, DeliveryExpiredError(_TOO_LATE))
                ended.append(delivery)
                continue
            if delivery.flags > MESSAGE_FLAGS:
                self._leaves_queue(delivery)
            try:
                if delivery.flags >= 2:
                    protocol.publish(delivery, now)
                    room -= 1
                    self._pages.forget(delivery.sequence)
                else:
                    packet = delivery.encode(0, now)
                    protocol.send_encoded(packet, delivery.flags)
                    self.end(delivery, SENT, None)
            except LocalProtocolError as error:
                self.end(delivery, DROPPED, DroppedError(str(error)))
                ended.append(delivery)
        self.queued -= moved
        self.queued_bytes -= moved_bytes
        self._memory_bytes -= moved_bytes

    def _may_replay(self, now: float) -> bool:
        """Whether the rate allows one more message of the past."""
        rate = self._policy.replay_rate
        if rate is None:
            return True
        if now < self._replay_at:
            self.next_replay = self._replay_at
            return False
        self._replay_at = max(self._replay_at, now - _BURST_SECONDS) + 1 / rate
        return True

    def _leaves_queue(self, delivery: Delivery) -> None:
        """Undo what was only for the time in the queue."""
        if delivery.flags & KEEP_LAST and self._latest is not None:
            self._latest.discard(delivery.topic_field, delivery.sequence)
        if delivery.flags & AGED:
            delivery.expires_at = None  # the server is not told
        delivery.flags &= MESSAGE_FLAGS

    def _pop_oldest(self) -> Delivery | None:
        """Take the oldest message in memory out of the queue."""
        for lane in (self.queue, self._live):
            while lane:
                delivery = lane.popleft()
                if delivery.status == QUEUED:
                    self._left(delivery)
                    return delivery
        return None

    def _left(self, delivery: Delivery) -> None:
        """A message in memory left the queue without being sent."""
        size = _size(delivery)
        if delivery.flags > MESSAGE_FLAGS:
            self._leaves_queue(delivery)
        self.queued -= 1
        self.queued_bytes -= size
        self._memory_bytes -= size
        self._recount()

    def take_page(self, now: float) -> bool:
        """Continue the queue with what the store has read, if it has. Returns: whether it had."""
        pages = self._pages
        counted = pages.beyond
        page = pages.take()
        if page is None:
            return False
        if not pages.beyond and counted:  # the store has no more: it lost them, and says so itself
            self.queued -= counted
            waiting = [item for item in (*self.queue, *self._live) if item.status == QUEUED]
            self.queued_bytes = sum(map(_size, waiting))
            self._recount()
        here = {item.sequence for item in (*self.queue, *self._live)} if self._policy.replay == "live" else ()
        for message in page:
            delivery = pages.find(message.sequence)
            if message.sequence in here or (delivery is not None and delivery.status != QUEUED):
                continue
            pages.beyond -= 1
            if delivery is None:
                delivery = self._restored(message)
            self.queue.append(delivery)
            self._memory_bytes += _size(delivery)
            if delivery.expires_at is not None:
                self._note_expiry(max(delivery.expires_at, now))
        return True

    def expire(self, now: float) -> list[Delivery]:
        """End the messages in memory whose time is over, looking through them once a second at most."""
        if self.next_expiry is None or now < self.next_expiry:
            return []
        expired = []
        for lane in (self.queue, self._live):
            gone = [item for item in lane if item.expires_at is not None and item.expires_at <= now]
            if gone:
                late = set(map(id, gone))
                kept = [item for item in lane if id(item) not in late]
                lane.clear()
                lane.extend(kept)
            expired += [item for item in gone if item.status == QUEUED]
        for delivery in expired:
            self._left(delivery)
            self.end(delivery, EXPIRED, DeliveryExpiredError(_TOO_LATE))
        if expired:
            self.made_room()
        left = [item.expires_at for item in (*self.queue, *self._live) if item.expires_at is not None]
        self.next_expiry = max(min(left), now + 1) if left else None
        return expired

    def put_back(self, messages: Iterable[Outgoing]) -> None:
        """Queue messages of a lost session again, before everything that waits."""
        for message in reversed(list(messages)):
            assert isinstance(message, Delivery)
            self.queue.appendleft(message)
            size = _size(message)
            self.queued += 1
            self.queued_bytes += size
            self._memory_bytes += size
            if message.expires_at is not None:
                self._note_expiry(message.expires_at)
        self._recount()

    def _recount(self) -> None:
        self.ahead = len(self._live) if self._overtaking else self.queued

    # The end of a message

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
            self._session.record(("done", delivery.sequence, status))
            self._pages.forget(delivery.sequence)
        self.wake(delivery)

    def wake(self, delivery: Delivery) -> None:
        """Wake the threads in :meth:`Delivery.wait`."""
        if delivery._waiter is not None:
            delivery._waiter.set()

    def stored(self) -> None:
        """The store moved on, or deliveries ended: wake who waits for either."""
        self._durable_wait.notify_all()

    def request_page(self) -> None:
        """Ask the store for more of the queue if little is left. It has every change up to now."""
        if self._pages.beyond and len(self.queue) < PAGE_MESSAGES // 2:
            self._pages.request()

    @property
    def awaits_page(self) -> bool:
        """Whether the store was asked for more of the queue, see :meth:`take_page`."""
        return self._pages.asked

    def end_all(self, error: DeviceSdkError | None = None) -> list[Delivery]:
        """End what a closing client leaves behind; a store keeps it for the next one."""
        if error is None and self._store is not None:
            error = ClosedError("the client was closed; the store keeps the message")
        elif error is None:
            error = DroppedError("the client was closed before the message was acknowledged")
        session = self._session
        left = [*session.in_flight.values(), *session.released.values(), *self.queue, *self._live]
        left += self._pages.deliveries()
        ended = {id(one): one for one in left if isinstance(one, Delivery) and not one.done}
        for delivery in ended.values():
            delivery.error = error
            delivery.status = DROPPED if self._store is None else STORED
            self.wake(delivery)
        self.queue.clear()
        self._live.clear()
        self._pages.beyond = self.queued = self.queued_bytes = self._memory_bytes = 0
        self._recount()
        self.made_room()
        self._durable_wait.notify_all()
        session.in_flight.clear()
        session.released.clear()
        return list(ended.values())

    # What an earlier client left

    def restore(self, saved: SavedSession, now: float) -> None:
        """Take over what an earlier client left in the store."""
        self._next_sequence = saved.next_sequence
        session = self._session
        session.last_packet_id = saved.last_packet_id
        for message in saved.messages:
            delivery = self._restored(message)
            session.last_packet_id = max(session.last_packet_id, message.packet_id)
            if message.released:
                session.released[message.packet_id] = delivery
            elif message.packet_id:
                self._leaves_queue(delivery)
                delivery.packet = delivery.encode(message.packet_id, now)
                session.in_flight[message.packet_id] = delivery
            else:
                self.queue.append(delivery)
                self._memory_bytes += _size(delivery)
                self._pages.passed(message.sequence)
                if delivery.expires_at is not None:
                    self._note_expiry(delivery.expires_at)
        self.queued, self.queued_bytes = saved.waiting, saved.waiting_bytes
        self._pages.beyond = saved.waiting - len(self.queue)
        if self._latest is not None:
            self._latest.restore(saved.latest)
        self._recount()

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
        elif delivery.flags & KEEP_LAST:
            self._pages.remember(delivery)
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
        with self._lock:
            self.hurry(delivery)
            return self._durable_wait.wait_for(lambda: self.is_stored(delivery), timeout)

    def hurry(self, delivery: Delivery) -> None:
        """Have a delivery made durable soon. Raises: StoreError: there is no store. Holds the lock."""
        if self._store is None:
            raise StoreError("this client keeps its queue in memory; give it store=... to survive a restart")
        self._store.expedite(delivery.change)

    def is_stored(self, delivery: Delivery) -> bool:
        """Whether a delivery is durable or done. Raises: StoreError: the store failed. Holds the lock."""
        return delivery.done or self._checked_durable(delivery.change)

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

    def _bounds(self, hint: str) -> str:
        messages = "any number of" if self.max_messages == _NO_BOUND else self.max_messages
        return (
            f"the queue holds {self.queued} of {messages} messages and "
            f"{self.queued_bytes} of {self.max_bytes} bytes; {hint}"
        )


def _size(delivery: Delivery) -> int:
    return len(delivery.topic_field) + len(delivery.properties) + len(delivery.payload)


def _sequence(delivery: Delivery) -> int:
    return delivery.sequence
