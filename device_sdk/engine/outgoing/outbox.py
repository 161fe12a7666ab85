"""The queue of one client: what may come in, what leaves for the window, and what ends on the way."""

from __future__ import annotations

from device_sdk.engine.outgoing.backlog import Backlog, size_of
from device_sdk.engine.outgoing.bounds import Bounds
from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.endings import TOO_LATE, Endings
from device_sdk.engine.outgoing.overflow import Overflow
from device_sdk.engine.outgoing.replay import Replay
from device_sdk.engine.outgoing.waits import Waits
from device_sdk.errors import DeliveryExpiredError, DroppedError
from device_sdk.mqtt.session import CANCELLED, DROPPED, EXPIRED, REFUSED, SENT
from device_sdk.store.base import AGED, KEEP_LAST, PAGE_BYTES, PAGE_MESSAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable

    from device_sdk.engine.consumers import Consumers
    from device_sdk.engine.outgoing.held import Limits
    from device_sdk.errors import DeliveryError, DeviceSdkError, LocalProtocolError
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Outgoing, Session
    from device_sdk.store.base import SavedSession, Store, StorePolicy

__all__ = ["BIRTH", "CAREFUL", "Outbox", "detours"]

_ALL = 1 << 62
#: Why no message is sent at once and all of them go through the queue: it is decided about each of them, or
#: the connection has not said its birth yet.
CAREFUL, BIRTH = 1, 2
_LOST = "the store lost it: its file was damaged, see the events store_replaced and store_damaged"


class Outbox:
    """What the engine knows of the queue. Every method runs under the engine's lock, and so do the parts."""

    def __init__(
        self,
        lock: threading.RLock,
        session: Session,
        policy: StorePolicy,
        store: Store | None,
        consumers: Consumers,
    ) -> None:
        self.waits = Waits(lock, store, consumers)
        self.backlog = Backlog(policy, store, self.waits)
        self.bounds = Bounds(policy, store, self.backlog)
        self._endings = Endings(session, store, self.backlog.pages, self.waits)
        self.overflow = Overflow(policy.overflow, session, self.backlog, self.bounds, self._endings)
        self.replay = Replay(session, policy.replay_rate, policy.unsendable, self.backlog, self._endings)
        # Bytes that may wait for the network; negative: a detour, and its reasons.
        self.max_buffered = self.bounds.max_buffered
        self.sent_qos0 = Delivery(self.waits, b"", b"", 0, b"", None)  # every QoS 0 message sent at once
        self.sent_qos0.status = SENT
        self.ahead = 0  # waiting messages that a new one must not overtake
        self.wants_fill = False  # there is more for fill() to send
        self.next_replay: float | None = None  # when fill() wants to be called for a message of the past
        self.lost = 0  # messages that the store does not have any more, until they are reported
        self.next_sequence = 1
        self._session = session
        self._policy = policy

    @property
    def queued(self) -> int:
        """How many messages wait, those that only the store holds included."""
        return self.backlog.messages

    @property
    def queued_bytes(self) -> int:
        """Bytes of their topics, properties and payloads."""
        return self.backlog.bytes

    @property
    def obstacle(self) -> LocalProtocolError | None:
        """Why the first message that is held on this connection is beyond a limit of the server."""
        return self.replay.obstacle

    @property
    def next_expiry(self) -> float | None:
        """When :meth:`expire` wants to be called."""
        return self.backlog.next_expiry

    def take_lost(self) -> int:
        """Return how many messages the store has lost that were not reported yet."""
        lost, self.lost = self.lost, 0
        return lost

    # Into the queue

    def add(self, delivery: Delivery, now: float | None) -> list[Delivery] | None:
        """Append a message to the queue, as the policy allows. ``now`` matters only with its ``max_age``.

        Returns: the deliveries that were dropped for it, or ``None`` if the caller has to wait for room.
        Raises: QueueFullError: there is no room and the policy is to reject; larger than the whole queue.
        """
        policy, backlog = self._policy, self.backlog
        size = size_of(delivery)
        dropped: list[Delivery] = []
        if self.bounds.is_full(size, delivery.topic_field):
            if policy.overflow == "block" and size <= self.bounds.max_bytes:
                return None
            if not self.overflow.make_room(delivery, size, self.take_page, now or 0.0, dropped):
                return dropped
        if backlog.keep_last is not None and backlog.keep_last.applies(delivery.topic_field):
            delivery.flags |= KEEP_LAST
            self.overflow.outdate(delivery.topic_field, dropped)
        if policy.max_age is not None and now is not None and delivery.expires_at is None:
            delivery.flags |= AGED
            delivery.expires_at = now + policy.max_age
        self.number(delivery)
        backlog.append(delivery, size)
        self._recount()
        return dropped

    def number(self, delivery: Delivery) -> None:
        """Give a new message its sequence number, and write it ahead if there is a store."""
        delivery.sequence = self.next_sequence
        self.next_sequence += 1
        if not self._session.journal:
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

    def put_back(self, messages: Iterable[Outgoing]) -> None:
        """Queue messages of a lost session again, before everything that waits."""
        self.backlog.put_back(messages)
        self._recount()

    # Out of the queue

    def connected(self, limits: Limits) -> None:
        """A connection to a server with these limits begins: what waits now is the past."""
        self.replay.connected(self.next_sequence - 1)
        self.backlog.connected(limits, self.next_sequence - 1)
        self._recount()

    def disconnected(self) -> None:
        """The connection is over: everything waits in one queue again."""
        self.next_replay = None
        self.backlog.disconnected()
        self._recount()

    def fill(self, protocol: Protocol, now: float, most: int = _ALL) -> list[Delivery]:
        """Move messages from the queue into the window, or ``most`` of them; return those that ended."""
        backlog, replay = self.backlog, self.replay
        before = backlog.messages
        ended = replay.fill(protocol, now, most)
        self.wants_fill, self.next_replay = replay.wants_more, replay.held_until
        # _recount() written out: this runs once an acknowledgement.
        self.ahead = (
            len(backlog.live) if backlog.overtaking else backlog.messages - backlog.held.messages
        ) or self.max_buffered < 0
        self.ahead += len(backlog.held.topics)
        if self.waits.blocked and backlog.messages < before:
            self.waits.made_room()
        return ended

    def block(self, topic_field: bytes, blocked: bool) -> None:
        """Hold what comes on this topic, or send what is held, in its place."""
        if blocked:
            self.backlog.held.topics.add(topic_field)
        else:
            self.backlog.held.topics.discard(topic_field)
            self.backlog.held.rejoin(self.backlog.queue, self.backlog.live)
            self.wants_fill = True
        self._recount()

    def detour(self, reason: int, through_queue: bool) -> None:
        """For this reason have every message go through the queue from now on, or not any more."""
        reasons = detours(self) & ~reason | (reason if through_queue else 0)
        self.max_buffered = -reasons or self.bounds.max_buffered
        self.wants_fill = True
        self._recount()

    def want_fill(self, wanted: bool) -> None:
        """Note that there is more to send, or that this has been seen to."""
        self.wants_fill = wanted

    def request_page(self) -> None:
        """Ask the store for more of the queue if little is left. It has every change up to now."""
        backlog = self.backlog
        pages, waiting = backlog.pages, len(backlog.queue)
        if not pages.beyond or pages.asked or waiting >= PAGE_MESSAGES // 2:
            return
        if not waiting or backlog.memory_bytes < PAGE_BYTES // 2:
            pages.request()

    def take_page(self, now: float) -> bool:
        """Continue the queue with what the store has read, if it has. Returns: whether it had."""
        if not self.backlog.pages.asked:
            return False
        taken = self.backlog.take_page(now)
        if taken is None:
            return False
        lost, orphans = taken
        self.lost += lost
        for delivery in orphans:
            self._endings.end(delivery, DROPPED, DroppedError(_LOST))
        self.wants_fill = True
        self._recount()
        return True

    def expire(self, now: float) -> list[Delivery]:
        """End the messages in memory whose time is over, looking through them once a second at most."""
        due = self.backlog.next_expiry
        if due is None or now < due:
            return []
        self.take_page(now)  # nobody else does without a connection
        expired: list[Delivery] = []
        for found in self.backlog.take_expired(now):
            self.overflow.end(found, EXPIRED, DeliveryExpiredError(TOO_LATE), expired)
        if expired:
            self._recount()
            self.waits.made_room()
        return expired

    def _recount(self) -> None:
        backlog = self.backlog
        self.ahead = (
            len(backlog.live) if backlog.overtaking else backlog.messages - backlog.held.messages
        ) or self.max_buffered < 0
        self.ahead += len(backlog.held.topics)  # a new message may have to wait behind one of these

    # The end of a message

    def end(self, delivery: Delivery, status: str, error: DeviceSdkError | None) -> None:
        """Give a delivery that is in no window its last state, forget it in the store, wake who waits.

        The store keeps one that is refused on its shelf.
        """
        if status == REFUSED and error is not None:
            self._endings.shelve(delivery, error)
        else:
            self._endings.end(delivery, status, error)

    def cancelled(self, delivery: Delivery, error: DeliveryError) -> None:
        """The program has withdrawn a message from the backlog: end it, and let others use its room."""
        self._endings.end(delivery, CANCELLED, error)
        self.backlog.tidy()
        self._recount()
        self.waits.made_room()
        self.waits.stored()

    def invalidate(self, messages: Iterable[Outgoing]) -> None:
        """End the messages of a lost session for an application that does not want them repeated."""
        self._endings.invalidate(messages)

    def end_all(self, error: DeviceSdkError | None = None) -> list[Delivery]:
        """End what a closing client leaves behind; a store keeps it for the next one.

        Returns: the deliveries that were dropped; those that a store may keep are decided by :meth:`settle`.
        """
        dropped = self._endings.end_all(self.backlog.deliveries(), self.backlog.messages, error)
        self.backlog.clear()
        self._recount()
        self.waits.made_room()
        self.waits.stored()
        return dropped

    def settle(self) -> int:
        """The store is closed: return how many messages it could not keep."""
        return self._endings.settle()

    # What an earlier client left

    def restore(self, saved: SavedSession, now: float, version: str) -> None:
        """Take over what an earlier client left in the store; this one speaks that version of MQTT."""
        replay, session = self.replay, self._session
        replay.speak(version)
        self.next_sequence = saved.next_sequence
        session.skip_to(saved.last_packet_id)
        session.restore_withheld(saved.withheld)
        for message in saved.messages:
            if message.released:
                session.released[message.packet_id] = self.backlog.delivery_for(message)
            elif message.packet_id:
                delivery = self.backlog.delivery_for(message)
                self.backlog.unmark(delivery)
                replay.translate(delivery)
                delivery.packet = delivery.encode(message.packet_id, now)
                session.in_flight[message.packet_id] = delivery
        self.backlog.restore(saved)
        self._recount()


def detours(outbox: Outbox) -> int:
    """Return why no message is sent at once: ``CAREFUL``, ``BIRTH``, both or 0."""
    return max(0, -outbox.max_buffered)
