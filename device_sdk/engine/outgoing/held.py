"""Messages that the present server cannot take: they keep their place, and others are sent meanwhile."""

from __future__ import annotations

from bisect import insort
from collections import deque

from device_sdk.engine.outgoing.places import Places
from device_sdk.mqtt.session import QUEUED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.outgoing.delivery import Delivery

    Limits = tuple[int, frozenset[int]]

__all__ = ["Held"]

_MOST_POSTPONED = 10_000  # in each lane


class Held:
    """The messages that were stepped over, oldest first. They count in the backlog. Not thread-safe.

    ``aside``: those in memory; ``places``: where the others are in the store, which read them already.
    ``messages``: how many; ``stored_bytes``: of those in the store.

    ``postponed``: other messages out of their lanes, the queue and the live one, because one of their topic
    is to come before them; ``topics``: all of these. They are in memory.
    """

    __slots__ = (
        "_has_store",
        "_limits",
        "aside",
        "messages",
        "places",
        "postponed",
        "stored_bytes",
        "topics",
    )

    def __init__(self, *, has_store: bool) -> None:
        self.aside: deque[Delivery] = deque()
        self.places = Places(timed=True)
        self.messages = 0
        self.stored_bytes = 0
        self.topics: set[bytes] = set()
        self.postponed: tuple[deque[Delivery], deque[Delivery]] = deque(), deque()
        self._limits: Limits | None = None
        self._has_store = has_store

    def suits(self, limits: Limits) -> bool:
        """Take the limits of the present server; return whether messages are held for the same ones."""
        known, self._limits = self._limits, limits
        return known == limits

    def add(self, delivery: Delivery, size: int) -> bool:
        """Hold a message of so many bytes; return whether it is in memory still."""
        self.messages += 1
        if self._has_store and self.places.append(delivery.sequence, size, delivery.expires_at):
            self.stored_bytes += size
            return False
        insort(self.aside, delivery, key=_sequence)  # the two lanes have orders of their own
        return True

    def postpone(self, lane: deque[Delivery], is_live: bool) -> bool:
        """Take the first message out of its lane; False: there are so many that the lane has to wait."""
        aside = self.postponed[is_live]
        if len(aside) >= _MOST_POSTPONED:
            return False
        aside.append(lane.popleft())
        return True

    def rejoin(self, *lanes: deque[Delivery]) -> None:
        """Put them back into their lanes."""
        for aside, lane in zip(self.postponed, lanes, strict=True):
            while aside:
                lane.appendleft(aside.pop())

    @property
    def total(self) -> int:
        """How many messages are held, the postponed ones included."""
        return self.messages + sum(map(len, self.postponed))

    def left_aside(self) -> None:
        """A message in memory is not held any more."""
        self.messages -= 1

    def take(self, sequence: int) -> int:
        """Remove a message that only the store has; return its bytes, 0 if it is none of these."""
        size = self.places.take(sequence)
        if size:
            self.messages -= 1
            self.stored_bytes -= size
        return size

    def expired(self, now: float) -> list[tuple[int, int]]:
        """Return sequence numbers and bytes of those that only the store has and whose time is over."""
        return [(sequence, self.places.find(sequence)) for sequence in self.places.expired(now)]

    def release(self) -> list[Delivery]:
        """Hold nothing any more; return the messages that were in memory."""
        aside = [delivery for delivery in self.aside if delivery.status == QUEUED]
        self.aside.clear()
        for lane in self.postponed:
            lane.clear()
        self.places = Places(timed=True)
        self.messages = self.stored_bytes = 0
        return aside


def _sequence(delivery: Delivery) -> int:
    return delivery.sequence
