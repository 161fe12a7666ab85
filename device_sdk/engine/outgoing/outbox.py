"""What goes out: the queue, the window behind it, and the deliveries that tell how it ended."""

from __future__ import annotations

from collections import deque

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.endings import Endings
from device_sdk.engine.outgoing.keep_last import KeepLast
from device_sdk.engine.outgoing.pages import Pages
from device_sdk.engine.outgoing.waits import Waits
from device_sdk.errors import (
    DeliveryExpiredError,
    DroppedError,
    LocalProtocolError,
    QueueFullError,
)
from device_sdk.mqtt.session import DROPPED, EXPIRED, QUEUED, SENT
from device_sdk.store.base import AGED, KEEP_LAST, MESSAGE_FLAGS, PAGE_BYTES, PAGE_MESSAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from device_sdk.engine.waiting import Waiting
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Outgoing, Session
    from device_sdk.store.base import SavedMessage, SavedSession, Store, StorePolicy

__all__ = ["Outbox"]

_MEMORY_MESSAGES, _MEMORY_BYTES = 10_000, 16 * 1024 * 1024
_DISK_BYTES = 64 * 1024 * 1024
_NO_BOUND = 1 << 62

PAGES_IN_MEMORY = 8  # fewer, and a publisher that is a little ahead of the network has to read back from disk
_QOS_FLAGS = 6
_PACKET_IDS = 65_535  # SUBSCRIBE takes from them as well
_KNOWN_A_SECOND = 10_000  # deliveries to look through for those that have expired
_BURST_SECONDS = 0.05  # what a replay rate may make up for after a late wake-up

_NO_ROOM = "wait for acknowledgements or choose another overflow"
_STORE_LATE = "the store is too slow or cannot write"
_OUTDATED = "a newer message on its topic replaced it (keep_last)"
_LOST = "the store lost it: its file was damaged, see the event store_replaced"
_TOO_LATE = "it expired before it could be sent"


class Outbox:
    """The queue of one client. Its methods run under the engine's lock.

    With a store only the oldest messages are in memory, see :class:`~device_sdk.engine.outgoing.pages.Pages`.
    With ``replay="live"`` there is a second lane for those published since the connection began.
    """

    def __init__(
        self,
        lock: threading.Lock,
        session: Session,
        policy: StorePolicy,
        store: Store | None,
        waiting: Waiting,
    ) -> None:
        self.waits = Waits(lock, store, waiting)
        self._store = store
        self._session = session
        self._policy = policy
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
        self.sent_qos0 = Delivery(self.waits, b"", b"", 0, b"", None)  # every QoS 0 message sent at once
        self.sent_qos0.status = SENT
        self.wants_fill = False  # there is more for fill() to send
        self.lost = 0  # messages that the store does not have any more, until they are reported
        self._live: deque[Delivery] = deque()
        self._overtaking = False  # new messages go before the queue
        self._past = 0  # sequence number of the last message before the connection
        self._replay_at = 0.0  # when the rate allows the next message of the past
        self._memory_bytes = 0  # of the messages in the queue and the live lane
        self._replaced = 0  # messages that are in there still, though newer ones took their place
        self._next_sequence = 1
        self._has_properties: bool | None = None  # what this client sends; None: all messages are its own
        self._pages = Pages(store)
        self._endings = Endings(session, store, self._pages, self.waits)
        self._keep_last = KeepLast(policy.keep_last) if policy.keep_last else None

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
        while self._is_full(size, delivery.topic_field):
            if policy.overflow == "block":
                return None
            behind = self._store_is_behind()
            if policy.overflow == "reject":
                raise QueueFullError(self.fullness(_STORE_LATE if behind else _NO_ROOM))
            if policy.overflow == "drop_newest" or behind:
                return self._drop_newest(delivery, dropped)
            oldest = self._pop_oldest(now or 0.0)
            if oldest is None:  # it is on its way from the store: the next call finds it
                over = self.queued - self.max_messages, self.queued_bytes - self.max_bytes
                if not dropped and (over[0] >= PAGE_MESSAGES or over[1] > PAGE_BYTES):
                    return self._drop_newest(delivery, dropped)
                break
            self._endings.end(oldest, DROPPED, DroppedError(self.fullness("the oldest message was dropped")))
            dropped.append(oldest)
        if self._keep_last is not None and self._keep_last.applies(delivery.topic_field):
            delivery.flags |= KEEP_LAST
            dropped += self._replace(self._keep_last, delivery.topic_field)
        if policy.max_age is not None and now is not None and delivery.expires_at is None:
            delivery.flags |= AGED
            delivery.expires_at = now + policy.max_age
        self.number(delivery)
        self._append(delivery, size)
        return dropped

    def _drop_newest(self, delivery: Delivery, dropped: list[Delivery]) -> list[Delivery]:
        self._endings.end(delivery, DROPPED, DroppedError(self.fullness("the new message was dropped")))
        return [*dropped, delivery]

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
        crowded = len(lane) >= PAGES_IN_MEMORY * PAGE_MESSAGES or (
            lane and self._memory_bytes + size > PAGES_IN_MEMORY * PAGE_BYTES
        )
        if self._store is not None and (crowded or (pages.beyond and not self._overtaking)):
            pages.put(delivery, size)
        else:
            lane.append(delivery)
            self._memory_bytes += size
            if not self._overtaking:
                pages.passed(delivery.sequence)
        if delivery.flags & KEEP_LAST and self._keep_last is not None:
            pages.remember(delivery)
            self._keep_last.put(delivery.topic_field, delivery.sequence, size)
        self.queued += 1
        self.queued_bytes += size
        self._recount()
        if delivery.expires_at is not None:
            self._note_expiry(delivery.expires_at)

    def _replace(self, keep_last: KeepLast, topic_field: bytes) -> list[Delivery]:
        """Drop the message that waits on this topic; return its delivery if anybody holds it."""
        found = keep_last.pop(topic_field)
        if found is None:
            return []
        sequence, size = found
        older = self._pages.find(sequence)
        if self._is_in_memory(sequence, older):
            self._memory_bytes -= size
            self._replaced += 1
        else:
            self._pages.beyond -= 1
        self.queued -= 1
        self.queued_bytes -= size
        self._recount()
        if older is None:
            self._session.record(("done", sequence, DROPPED))
            self._pages.forget(sequence)
            return []
        self._endings.end(older, DROPPED, DroppedError(_OUTDATED))  # fill() passes over it
        if 2 * self._replaced > len(self.queue) + len(self._live):
            self._tidy()
        return [older]

    def _tidy(self) -> None:
        """Let go of the replaced messages: offline nobody else does."""
        for lane in (self.queue, self._live):
            kept = [item for item in lane if item.status == QUEUED]
            lane.clear()
            lane.extend(kept)
        self._replaced = 0

    def _is_in_memory(self, sequence: int, delivery: Delivery | None) -> bool:
        if not self._pages.is_beyond(sequence):
            return True
        live = self._policy.replay == "live"  # then a message may have overtaken those beyond
        return live and any(item is delivery for item in (*self._live, *self.queue))

    def _is_full(self, size: int, topic_field: bytes) -> bool:
        """Whether there is no room for a message of ``size`` bytes in the place of the one it replaces."""
        messages, total = self.queued, self.queued_bytes + size
        if self._keep_last is not None and (older := self._keep_last.get(topic_field)) is not None:
            messages -= 1
            total -= older[1]
        if messages >= self.max_messages or total > self.max_bytes:
            return True
        store = self._store  # asked here first: a call more would be noticed in publish()
        suspect = store is not None and (store.failure or store.backlog_bytes > self.max_buffered)
        return bool(suspect) and self._store_is_behind()

    def _store_is_behind(self) -> bool:
        store = self._store
        if store is None:
            return False
        failing = store.failure is not None and store.backlog_messages() >= _MEMORY_MESSAGES
        return failing or store.backlog_bytes > self.max_buffered

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
        self.wants_fill = False
        if self._live:
            self._drain(self._live, protocol, now, ended, 0)
        if self.queue:
            # Half of the window stays free for what is published now.
            self._drain(self.queue, protocol, now, ended, protocol.window // 2 if self._overtaking else 0)
        self._recount()
        if self.waits.blocked and self.queued < before:
            self.waits.made_room()
        return ended

    def _drain(
        self, lane: deque[Delivery], protocol: Protocol, now: float, ended: list[Delivery], reserve: int
    ) -> None:
        session = self._session
        room = min(protocol.window, _PACKET_IDS - len(session.requests)) - len(session) - reserve
        paced = self._policy.replay_rate is not None and lane is self.queue
        pages = self._pages
        moved = moved_bytes = 0
        while lane:
            delivery = lane[0]
            if delivery.status != QUEUED:  # replaced by a newer one, and counted then
                lane.popleft()
                continue
            if delivery.flags & _QOS_FLAGS:
                if room <= 0:
                    break
            elif protocol.buffered > PAGE_BYTES:
                self.wants_fill = True  # when the network has taken that
                break
            if paced and delivery.sequence <= self._past and not self._may_replay(now):
                break
            lane.popleft()
            moved += 1
            moved_bytes += len(delivery.topic_field) + len(delivery.properties) + len(delivery.payload)
            if delivery.expires_at is not None and delivery.expires_at <= now:
                self._endings.end(delivery, EXPIRED, DeliveryExpiredError(_TOO_LATE))
                ended.append(delivery)
                continue
            if delivery.flags > MESSAGE_FLAGS:
                self._leaves_queue(delivery)
            if self._has_properties is not None and bool(delivery.properties) is not self._has_properties:
                self._translate(delivery)
            try:
                if delivery.flags >= 2:
                    protocol.publish(delivery, now)
                    room -= 1
                    if pages.asked:
                        pages.forget(delivery.sequence)
                else:
                    packet = delivery.encode(0, now)
                    protocol.send_encoded(packet, delivery.flags)
                    self._endings.end(delivery, SENT, None)
            except LocalProtocolError as error:
                self._endings.end(delivery, DROPPED, DroppedError(str(error)))
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
        if delivery.flags & KEEP_LAST and self._keep_last is not None:
            self._keep_last.discard(delivery.topic_field, delivery.sequence)
        if delivery.flags & AGED:
            delivery.expires_at = None  # the server is not told
        delivery.flags &= MESSAGE_FLAGS

    def _translate(self, delivery: Delivery) -> None:
        """A message of an earlier client that spoke another version of MQTT: one of them has properties."""
        if not self._has_properties:
            delivery.properties = b""
        elif not delivery.properties:
            delivery.properties = b"\0"

    def _pop_oldest(self, now: float) -> Delivery | None:
        """Take the oldest message out of the queue; ``None``: the store has not read it yet."""
        while True:
            delivery = self._pop(self.queue)
            if delivery is not None or not self._pages.beyond:
                return delivery or self._pop(self._live)
            if not self.take_page(now):
                return None

    def _pop(self, lane: deque[Delivery]) -> Delivery | None:
        while lane:
            delivery = lane.popleft()
            if delivery.status == QUEUED:
                self._left(delivery)
                return delivery
        return None

    def _left(self, delivery: Delivery, *, beyond: bool = False) -> None:
        """A message left the queue without being sent."""
        size = _size(delivery)
        if delivery.flags > MESSAGE_FLAGS:
            self._leaves_queue(delivery)
        self.queued -= 1
        self.queued_bytes -= size
        if beyond:
            self._pages.beyond -= 1
        else:
            self._memory_bytes -= size
        self._recount()

    def request_page(self) -> None:
        """Ask the store for more of the queue if little is left. It has every change up to now."""
        pages, waiting = self._pages, len(self.queue)
        if not pages.beyond or pages.asked or waiting >= PAGE_MESSAGES // 2:
            return
        if not waiting or self._memory_bytes < PAGE_BYTES // 2:
            pages.request()

    def take_page(self, now: float) -> bool:
        """Continue the queue with what the store has read, if it has. Returns: whether it had."""
        pages = self._pages
        counted = pages.beyond
        page = pages.take()
        if page is None:
            return False
        self.wants_fill = True
        here = self._in_memory()
        if pages.beyond < counted:
            self._lose(counted - pages.beyond, here)
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

    def _in_memory(self) -> set[int]:
        return {item.sequence for item in (*self.queue, *self._live) if item.status == QUEUED}

    def _lose(self, count: int, here: set[int]) -> None:
        """The store has so many messages less than were given to it; it says itself what happened."""
        pages = self._pages
        self.lost += count
        self.queued -= count
        self.queued_bytes = self._memory_bytes + pages.new_bytes
        self._recount()
        if self._keep_last is not None:
            self._keep_last.forget(here, pages.asked_through)
        for delivery in pages.deliveries():
            waits = delivery.status == QUEUED and delivery.sequence not in here
            if waits and delivery.sequence <= pages.asked_through:
                self._endings.end(delivery, DROPPED, DroppedError(_LOST))

    def expire(self, now: float) -> list[Delivery]:
        """End the messages in memory whose time is over, looking through them once a second at most."""
        if self.next_expiry is None or now < self.next_expiry:
            return []
        self.take_page(now)  # nobody else does without a connection
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
            self._endings.end(delivery, EXPIRED, DeliveryExpiredError(_TOO_LATE))
        known = self._known_beyond()
        for delivery, expires_at in known:
            if expires_at <= now:
                self._left(delivery, beyond=True)
                self._endings.end(delivery, EXPIRED, DeliveryExpiredError(_TOO_LATE))
                expired.append(delivery)
        if expired:
            self.waits.made_room()
        left = [item.expires_at for item in (*self.queue, *self._live) if item.expires_at is not None]
        left += [expires_at for _, expires_at in known if expires_at > now]
        pause = 1 + len(known) / _KNOWN_A_SECOND
        if self._pages.beyond and (expired or self._pages.asked):
            left.append(now)  # the next page may have expired as well
        self.next_expiry = max(min(left), now + pause) if left else None
        return expired

    def _known_beyond(self) -> list[tuple[Delivery, float]]:
        """Messages that only the store holds, as far as somebody may wait for them, and when they expire."""
        found = [(one, one.expires_at) for one in self._pages.deliveries() if one.status == QUEUED]
        here = self._in_memory() if found else ()
        return [(one, at) for one, at in found if at is not None and one.sequence not in here]

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

    def end(self, delivery: Delivery, status: str, error: DeviceSdkError | None) -> None:
        """Give a delivery that is in no window its last state, forget it in the store, wake who waits."""
        self._endings.end(delivery, status, error)

    def invalidate(self, messages: Iterable[Outgoing]) -> None:
        """End the messages of a lost session for an application that does not want them repeated."""
        self._endings.invalidate(messages)

    def end_all(self, error: DeviceSdkError | None = None) -> list[Delivery]:
        """End what a closing client leaves behind; a store keeps it for the next one.

        Returns: the deliveries of which nothing is kept, as far as that is known before :meth:`settle`.
        """
        dropped = self._endings.end_all((*self.queue, *self._live, *self._pages.deliveries()), error)
        self.queue.clear()
        self._live.clear()
        self._pages.beyond = self.queued = self.queued_bytes = self._memory_bytes = 0
        self._recount()
        self.waits.made_room()
        self.waits.stored()
        return dropped

    def settle(self) -> list[Delivery]:
        """The store is closed: return the deliveries of which it kept nothing after all."""
        return self._endings.settle()

    # What an earlier client left

    def restore(self, saved: SavedSession, now: float, version: str) -> None:
        """Take over what an earlier client left in the store; this one speaks that version of MQTT."""
        self._has_properties = version == "5.0"
        self._next_sequence = saved.next_sequence
        session = self._session
        session.last_packet_id = saved.last_packet_id
        for message in saved.messages:
            delivery = self._restored(message)
            if message.released:
                session.released[message.packet_id] = delivery
            elif message.packet_id:
                self._leaves_queue(delivery)
                self._translate(delivery)
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
        if self._keep_last is not None:
            self._keep_last.restore(saved.latest)
        self._recount()

    def _restored(self, message: SavedMessage) -> Delivery:
        delivery = Delivery(
            self.waits,
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

    def fullness(self, hint: str) -> str:
        """Say how full the queue is, and what to do about it."""
        messages = "any number of" if self.max_messages == _NO_BOUND else self.max_messages
        return (
            f"the queue holds {self.queued} of {messages} messages and "
            f"{self.queued_bytes} of {self.max_bytes} bytes; {hint}"
        )


def _size(delivery: Delivery) -> int:
    return len(delivery.topic_field) + len(delivery.properties) + len(delivery.payload)


def _sequence(delivery: Delivery) -> int:
    return delivery.sequence
