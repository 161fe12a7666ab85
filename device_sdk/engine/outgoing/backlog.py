"""The messages that wait, in their order: the first of them in memory, the rest in the store alone."""

from __future__ import annotations

from collections import deque

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.held import Held
from device_sdk.engine.outgoing.keep_last import KeepLast
from device_sdk.engine.outgoing.pages import Pages
from device_sdk.engine.outgoing.places import NEVER
from device_sdk.mqtt.session import QUEUED, SENT
from device_sdk.store.base import AGED, KEEP_LAST, MESSAGE_FLAGS, PAGE_BYTES, PAGE_MESSAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_sdk.engine.outgoing.held import Limits
    from device_sdk.engine.outgoing.waits import Waits
    from device_sdk.errors import DeliveryError
    from device_sdk.mqtt.session import Outgoing
    from device_sdk.store.base import SavedMessage, SavedSession, Store, StorePolicy

__all__ = ["Backlog", "size_of"]

PAGES_IN_MEMORY = 8  # fewer, and a publisher that is a little ahead of the network has to read back from disk
_KNOWN_A_SECOND = 10_000  # deliveries to look through for those that have expired


class Backlog:
    """The lanes of waiting messages, and how much is in them. It ends no delivery. Not thread-safe.

    ``queue`` has the messages in the order of their sequence numbers. With a store only its head is in
    memory; what follows is *beyond*, see :class:`~device_sdk.engine.outgoing.pages.Pages`. ``live`` is the
    second lane of ``replay="live"``: the messages published since the connection began, which overtake.
    """

    def __init__(self, policy: StorePolicy, store: Store | None, waits: Waits) -> None:
        self.queue: deque[Delivery] = deque()
        self.live: deque[Delivery] = deque()
        self.stepped: list[tuple[bool, Delivery]] = []  # whether live; out of their lanes, see SteppedOver
        self.overtaking = False  # new messages go into the live lane
        self.messages = 0  # that wait, those beyond included
        self.bytes = 0  # of them
        self.memory_bytes = 0  # of those in the two lanes
        self.next_expiry: float | None = None  # when take_expired() is worth a call
        drops_oldest = policy.overflow == "drop_oldest"
        self.pages = Pages(store, drops_oldest=drops_oldest)
        self.held = Held(has_store=store is not None)
        self.keep_last = KeepLast(policy.keep_last, by_sequence=drops_oldest) if policy.keep_last else None
        self._replaced = 0  # messages that are in a lane still, though they have ended
        self._has_store = store is not None
        self._has_live_lane = policy.replay == "live"
        self._waits = waits

    # Which lane

    def connected(self, limits: Limits, last: int) -> None:
        """A connection begins: new messages may overtake those up to ``last``, if the policy says so.

        ``limits``: of the server. What was held for another one is tried again, in its place.
        """
        self.overtaking = self._has_live_lane
        held = self.held
        if held.suits(limits):
            return
        if held.places:
            for delivery in self.queue:
                self.pages.remember(delivery)
            aside = held.release()
            self.queue.clear()
            self.pages.rewind(self.messages - len(aside), last)
            self.memory_bytes = sum(map(size_of, aside))
        else:
            aside = held.release()
        self.queue = deque(sorted((*aside, *self.queue), key=_sequence))

    def hold(self, delivery: Delivery, flags: int, expires_at: float | None, properties: bytes) -> None:
        """Let a message wait aside that was popped from a lane, as it was there."""
        delivery.flags, delivery.expires_at, delivery.properties = flags, expires_at, properties
        size = size_of(delivery)
        self.took(-1, -size)
        if flags & KEEP_LAST and self.keep_last is not None:
            self.keep_last.put(delivery.topic_field, delivery.sequence, size)
        if not self.held.add(delivery, size):
            self.memory_bytes -= size
            self.pages.remember(delivery)
        if expires_at is not None:
            self.note_expiry(expires_at)

    def disconnected(self) -> None:
        """The connection is over: everything waits in one queue again."""
        if self.live:
            self.queue = deque(sorted((*self.queue, *self.live), key=_sequence))
            self.live.clear()
        self.overtaking = False

    # In

    def append(self, delivery: Delivery, size: int) -> None:
        """Let a new message of so many bytes wait. Its sequence number is above all before it."""
        pages, overtaking = self.pages, self.overtaking
        lane = self.live if overtaking else self.queue
        crowded = len(lane) >= PAGES_IN_MEMORY * PAGE_MESSAGES or (
            lane and self.memory_bytes + size > PAGES_IN_MEMORY * PAGE_BYTES
        )
        if self._has_store and (crowded or (pages.beyond and not overtaking)):
            pages.put(delivery, size)
        else:
            lane.append(delivery)
            self.memory_bytes += size
            if not overtaking:
                pages.passed(delivery.sequence)
        if delivery.flags & KEEP_LAST and self.keep_last is not None:
            pages.remember(delivery)
            self.keep_last.put(delivery.topic_field, delivery.sequence, size)
        self.messages += 1
        self.bytes += size
        if delivery.expires_at is not None:
            self.note_expiry(delivery.expires_at)

    def put_back(self, messages: Iterable[Outgoing]) -> None:
        """Let messages that had left wait again, in this order, before all others."""
        for message in reversed(list(messages)):
            assert isinstance(message, Delivery)
            self.queue.appendleft(message)
            size = size_of(message)
            self.messages += 1
            self.bytes += size
            self.memory_bytes += size
            if message.expires_at is not None:
                self.note_expiry(message.expires_at)

    def restore(self, saved: SavedSession) -> None:
        """Take over what waited when an earlier client ended."""
        for message in saved.messages:
            if message.packet_id:
                continue  # in the window
            delivery = self.delivery_for(message)
            self.queue.append(delivery)
            self.memory_bytes += size_of(delivery)
            self.pages.passed(message.sequence)
            if delivery.expires_at is not None:
                self.note_expiry(delivery.expires_at)
        self.messages, self.bytes = saved.waiting, saved.waiting_bytes
        self.pages.reset(saved.waiting - len(self.queue), saved.next_sequence - 1)
        if self.keep_last is not None:
            self.keep_last.restore(saved.latest)

    def delivery_for(self, message: SavedMessage) -> Delivery:
        """Return a new delivery for a message that the store has kept."""
        delivery = Delivery(
            self._waits,
            message.topic_field,
            message.payload,
            message.flags,
            message.properties,
            message.expires_at,
        )
        delivery.sequence = message.sequence
        delivery.change = message.change
        delivery.packet_id = message.packet_id
        if message.packet_id:
            delivery.status = SENT
        elif delivery.flags & KEEP_LAST:
            self.pages.remember(delivery)
        return delivery

    # Out

    def took(self, messages: int, size: int) -> None:
        """So many messages were popped from a lane; together they have so many bytes."""
        self.messages -= messages
        self.bytes -= size
        self.memory_bytes -= size

    def unmark(self, delivery: Delivery) -> None:
        """Undo the marks that a message has only while it waits."""
        if delivery.flags & KEEP_LAST and self.keep_last is not None:
            self.keep_last.discard(delivery.topic_field, delivery.sequence)
        if delivery.flags & AGED:
            delivery.expires_at = None  # the server is not told
        delivery.flags &= MESSAGE_FLAGS

    def oldest_is_unread(self) -> bool:
        """Whether the oldest message is of an earlier process, and the store has not returned it yet."""
        if self.held.places or not self.pages.unplaced:
            return False
        lane = _older_lane(*self._lanes)
        return lane is None or self.pages.is_beyond(lane[0].sequence)

    def pop_oldest(self) -> tuple[int, Delivery | None] | None:
        """Take the oldest message that is in memory, or whose place beyond is known.

        Returns: its sequence number, and its delivery if anybody holds it; ``None``: there is none.
        """
        lane = _older_lane(*self._lanes)
        first = self.held.places.first()
        if first is None and self.pages.places is not None:  # those that are held were read before
            first = self.pages.places.first()
        if lane is not None and (first is None or lane[0].sequence < first[0]):
            delivery = lane.popleft()
            self.left(delivery, lane)
            return delivery.sequence, delivery
        return None if first is None else self._pop_beyond(*first)

    def pop(self, sequence: int) -> tuple[int, Delivery | None] | None:
        """As :meth:`pop_oldest`, with the message that has this sequence number."""
        for places in (self.held.places, self.pages.places):
            if places is not None and (size := places.find(sequence)):
                return self._pop_beyond(sequence, size)
        for lane in self._lanes:
            for delivery in lane:
                if delivery.sequence == sequence and delivery.status == QUEUED:
                    lane.remove(delivery)
                    self.left(delivery, lane)
                    return sequence, delivery
        return None

    def withdraw(
        self, sequence: int, size: int, delivery: Delivery | None, status: str, error: DeliveryError
    ) -> None:
        """Take this message of so many bytes out, wherever it waits; its delivery has ended so.

        In a lane it stays until :meth:`tidy`, which passes over it.
        """
        in_memory = 1
        if self.held.take(sequence):
            in_memory = 0  # it was read, and is in no lane
        elif delivery in self.held.aside:
            self.held.left_aside()
        elif self.pages.is_beyond(sequence) and not (
            # In the live lane, or from there, a message may have overtaken those beyond; of a queue that is
            # read again from its beginning some are in memory still.
            (self._has_live_lane or self.pages.is_rewound) and sequence in self._here()
        ):
            self.pages.left_early(sequence, size)
            in_memory = 0
        # No call from here on: a signal finds the message either waiting and counted, or neither.
        self.memory_bytes -= in_memory * size
        self._replaced += in_memory
        self.messages -= 1
        self.bytes -= size
        if delivery is not None:
            delivery.status, delivery.error = status, error

    def tidy(self) -> None:
        """Remove the withdrawn messages once they are the majority: offline nobody else does."""
        if 2 * self._replaced <= sum(map(len, self._lanes)):
            return
        for lane in self._lanes:
            kept = [item for item in lane if item.status == QUEUED]
            lane.clear()
            lane.extend(kept)
        self._replaced = 0

    def take_expired(self, now: float) -> list[tuple[int, Delivery | None]]:
        """Take the messages whose time is over, as far as they are in memory or somebody may wait for them.

        Returns: their sequence numbers, and their deliveries if anybody holds them.
        Called when ``next_expiry`` has come; that is once a second at most.
        """
        here = self._here()
        ended = [self._pop_beyond(*one) for one in self.held.expired(now)]
        here.update(sequence for sequence, _ in ended)
        known = self.pages.expiring(here)
        expired: list[Delivery] = []
        for lane in self._lanes:
            gone = [item for item in lane if item.expires_at is not None and item.expires_at <= now]
            if gone:
                late = set(map(id, gone))
                kept = [item for item in lane if id(item) not in late]
                lane.clear()
                lane.extend(kept)
            waited = [item for item in gone if item.status == QUEUED]
            for delivery in waited:
                self.left(delivery, lane)
            expired += waited
        for delivery, expires_at in known:
            if expires_at <= now:
                self.left(delivery, None)
                expired.append(delivery)
        left = [item.expires_at for lane in self._lanes for item in lane if item.expires_at is not None]
        left += [expires_at for _, expires_at in known if expires_at > now]
        if self.held.places.next_expiry < NEVER:
            left.append(self.held.places.next_expiry)
        pause = 1 + len(known) / _KNOWN_A_SECOND
        if self.pages.beyond and (expired or self.pages.asked):
            left.append(now)  # the next page may have expired as well
        self.next_expiry = max(min(left), now + pause) if left else None
        return ended + [(delivery.sequence, delivery) for delivery in expired]

    def clear(self) -> None:
        """Nothing waits any more."""
        self.queue.clear()
        self.live.clear()
        self.held.release()
        self.pages.reset(0, 0)
        self.messages = self.bytes = self.memory_bytes = 0

    def deliveries(self) -> Iterable[Delivery]:
        """Return the deliveries of all messages that wait, as far as there are any; some may come twice."""
        stepped = (delivery for _, delivery in self.stepped)
        here = (delivery for lane in self._lanes for delivery in lane)
        return (*here, *stepped, *self.pages.deliveries())

    # Pages

    def take_page(self, now: float) -> tuple[int, list[Delivery]] | None:
        """Continue the queue with the page that the store has read; ``None``: it has not read one.

        Returns: how many messages the store has lost, and their deliveries as far as there are any.
        """
        pages = self.pages
        counted = pages.beyond
        page = pages.take()
        if page is None:
            return None
        here = self._here()
        lost = counted - pages.beyond
        orphans = self._lose(lost, here) if lost else []
        read = 0
        for message in page:
            delivery = pages.find(message.sequence)
            if message.sequence in here or (delivery is not None and delivery.status != QUEUED):
                continue
            if self.held.places.find(message.sequence):
                continue  # out of the live lane
            read += 1
            if delivery is None:
                delivery = self.delivery_for(message)
            self.queue.append(delivery)
            self.memory_bytes += size_of(delivery)
            if delivery.expires_at is not None:
                self.note_expiry(max(delivery.expires_at, now))
        pages.left(read)
        return lost, orphans

    def _lose(self, count: int, here: set[int]) -> list[Delivery]:
        """The store has so many messages less than were given to it; it says itself what happened."""
        pages = self.pages
        self.messages -= count
        self.bytes = self.memory_bytes + self.held.stored_bytes + pages.new_bytes
        if self.keep_last is not None:
            self.keep_last.forget(here, pages.asked_through)
        return [
            delivery
            for delivery in pages.deliveries()
            if delivery.status == QUEUED
            and delivery.sequence not in here
            and delivery.sequence <= pages.asked_through
            and not self.held.places.find(delivery.sequence)
        ]

    # Inside

    def _pop_beyond(self, sequence: int, size: int) -> tuple[int, Delivery | None]:
        if self.keep_last is not None:
            self.keep_last.discard_sequence(sequence)
        if not self.held.take(sequence):
            self.pages.left_early(sequence, size)
        self.messages -= 1
        self.bytes -= size
        return sequence, self.pages.find(sequence)

    def left(self, delivery: Delivery, lane: deque[Delivery] | None) -> None:
        """A message left its lane without being sent; ``None``: it was beyond."""
        size = size_of(delivery)
        if delivery.flags > MESSAGE_FLAGS:
            self.unmark(delivery)
        self.messages -= 1
        self.bytes -= size
        if lane is None:
            self.pages.left_early(delivery.sequence, size)
        else:
            self.memory_bytes -= size
        if lane is self.held.aside:
            self.held.left_aside()

    def _here(self) -> set[int]:
        """Return the sequence numbers of the messages in memory."""
        lanes = (*self._lanes, [delivery for _, delivery in self.stepped])
        return {item.sequence for lane in lanes for item in lane if item.status == QUEUED}

    @property
    def _lanes(self) -> tuple[deque[Delivery], ...]:
        """The messages in memory: those that are sent in their turn, and those that are held."""
        return self.queue, self.live, self.held.aside, *self.held.postponed

    def note_expiry(self, expires_at: float) -> None:
        """A message that waits expires then."""
        if self.next_expiry is None or expires_at < self.next_expiry:
            self.next_expiry = expires_at


def size_of(delivery: Delivery) -> int:
    """Return the bytes that a message counts for: topic field, properties and payload."""
    return len(delivery.topic_field) + len(delivery.properties) + len(delivery.payload)


def _sequence(delivery: Delivery) -> int:
    return delivery.sequence


def _older_lane(*lanes: deque[Delivery]) -> deque[Delivery] | None:
    """Return the lane that has the oldest message; ``None``: all are empty."""
    for lane in lanes:
        while lane and lane[0].status != QUEUED:
            lane.popleft()  # replaced by a newer one, and counted then
    return min((lane for lane in lanes if lane), key=lambda lane: lane[0].sequence, default=None)
