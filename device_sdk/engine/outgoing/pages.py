"""The part of a queue that only the store holds: which part it is, and how it comes back, page by page."""

from __future__ import annotations

from weakref import ref

from device_sdk.engine.outgoing.places import Places
from device_sdk.mqtt.session import QUEUED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.store.base import SavedMessage, Store

__all__ = ["Pages"]

_SWEEP = 1_000  # references to deliveries that may have died


class Pages:
    """The waiting messages beyond those in memory, in the order of their sequence numbers.

    A message beyond has no object here. Its delivery is known as long as the application holds it, so that a
    million queued messages cost nothing. ``places``: for a queue that drops its oldest messages, where those
    are that came beyond in this process; else ``None``. Not thread-safe: the engine's lock guards it.
    """

    __slots__ = (
        "_cursor",
        "_gone",
        "_known",
        "_last",
        "_new",
        "_stale",
        "_store",
        "_sweep_at",
        "asked",
        "asked_through",
        "beyond",
        "is_rewound",
        "new_bytes",
        "places",
    )  # fmt: skip

    def __init__(self, store: Store | None, *, drops_oldest: bool = False) -> None:
        self.places = Places() if drops_oldest and store is not None else None
        self.beyond = 0  # messages that only the store holds
        self.is_rewound = False  # some that count as beyond may be in memory
        self._store = store
        self._cursor = 0  # those above this sequence number have not been read
        self.asked = False  # for a page that has not been taken
        self._stale = False  # the page that was asked for is not the next one any more
        self.asked_through = 0  # the last message that was beyond then
        self._last = 0  # the last message that is
        self._new = 0  # messages put since a page was asked for, and their bytes
        self.new_bytes = 0
        self._gone: set[int] = set()  # sent or ended since a page was asked for
        # Not a WeakValueDictionary: its callbacks cost five Python calls a message.
        self._known: dict[int, ref[Delivery]] = {}
        self._sweep_at = _SWEEP

    def passed(self, sequence: int) -> None:
        """Note that this message and all before it are in memory."""
        self._cursor = sequence

    def put(self, delivery: Delivery, size: int) -> None:
        """Only the store holds this new message of so many bytes from now on."""
        self.beyond += 1
        self._last = delivery.sequence
        self._new += 1
        self.new_bytes += size
        if self.places is not None:
            self.places.append(delivery.sequence, size)
        self.remember(delivery)

    def remember(self, delivery: Delivery) -> None:
        """Let :meth:`find` know a message for as long as the application holds it."""
        known = self._known
        known[delivery.sequence] = ref(delivery)
        if len(known) > self._sweep_at:
            self._known = {sequence: one for sequence, one in known.items() if one() is not None}
            self._sweep_at = 2 * len(self._known) + _SWEEP

    def find(self, sequence: int) -> Delivery | None:
        """Return the delivery of a message, if anybody holds it."""
        known = self._known.get(sequence)
        return None if known is None else known()

    def is_beyond(self, sequence: int) -> bool:
        """Whether a message that waits in its turn has not been read yet."""
        return sequence > self._cursor

    def forget(self, sequence: int) -> None:
        """A message was sent or has ended: a page that is on its way may still have it."""
        if self.asked:
            self._gone.add(sequence)

    def request(self) -> None:
        """Ask the store for the next page, unless that was done."""
        if self.beyond and not self.asked and self._store is not None:
            self.asked = True
            self.asked_through = self._last
            self._new = self.new_bytes = 0
            self._store.request_page(self._cursor)

    def take(self) -> list[SavedMessage] | None:
        """Return the next messages if they have arrived, without those that are gone.

        The caller subtracts them from ``beyond``. An empty page means that the store lost the rest: then
        ``beyond`` drops to the messages that were queued after the request.
        """
        if not self.asked or self._store is None:
            return None
        page = self._store.take_page()
        if page is None:
            return None
        self.asked = False
        if self._stale:
            self._stale = False
            self._gone.clear()
            return []
        gone, self._gone = self._gone, set()
        if page:
            self._cursor = page[-1].sequence
        else:
            self.beyond = min(self.beyond, self._new)
            self.new_bytes = self.new_bytes if self.beyond else 0
        if self.places is not None:
            self.places.passed(self._cursor if page else self.asked_through)
        return [message for message in page if message.sequence not in gone]

    def left(self, messages: int) -> None:
        """So many messages of a page are not beyond any more."""
        self.beyond -= messages

    def left_early(self, sequence: int, size: int) -> None:
        """A message of so many bytes has left before it was read."""
        self.beyond -= 1
        if self.places is not None:
            self.places.take(sequence)
        if self.asked and sequence > self.asked_through:
            self._new -= 1
            self.new_bytes -= size

    @property
    def unplaced(self) -> int:
        """How many messages beyond are from an earlier process: their places are not known."""
        return self.beyond - (0 if self.places is None else len(self.places))

    def reset(self, beyond: int, last: int) -> None:
        """So many messages are beyond, whatever was counted, up to ``last``; their places are not known."""
        self.beyond = beyond
        self.is_rewound = False
        self._last = last
        if self.places is not None:
            self.places = Places()

    def rewind(self, beyond: int, last: int) -> None:
        """All messages up to ``last``, so many, are beyond from now on: read the queue from its beginning."""
        self.reset(beyond, last)
        self._cursor = 0
        self.is_rewound = True
        self._stale = self.asked

    def expiring(self, here: Container[int]) -> list[tuple[Delivery, float]]:
        """Return the deliveries that wait, expire and are not ``here``, and when they do."""
        found = [one for one in self.deliveries() if one.status == QUEUED and one.sequence not in here]
        return [(one, one.expires_at) for one in found if one.expires_at is not None]

    def deliveries(self) -> list[Delivery]:
        """Return every delivery that is still referenced, including those of messages in memory."""
        return [delivery for one in self._known.values() if (delivery := one()) is not None]
