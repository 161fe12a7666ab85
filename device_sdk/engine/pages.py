"""The part of a queue that only the store holds: which part it is, and how it comes back, page by page."""

from __future__ import annotations

from weakref import WeakValueDictionary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.delivery import Delivery
    from device_sdk.store.base import SavedMessage, Store

__all__ = ["Pages"]


class Pages:
    """The waiting messages beyond those in memory, in the order of their sequence numbers.

    A message beyond has no object here. Its delivery is known as long as the application holds it, so that a
    million queued messages cost nothing. Not thread-safe: the engine's lock guards it.
    """

    __slots__ = ("_cursor", "_deliveries", "_gone", "_store", "asked", "beyond")

    def __init__(self, store: Store | None) -> None:
        self.beyond = 0  # messages that only the store holds
        self._store = store
        self._cursor = 0  # those above this sequence number have not been read
        self.asked = False  # for a page that has not been taken
        self._gone: set[int] = set()  # sent or ended since a page was asked for
        self._deliveries: WeakValueDictionary[int, Delivery] = WeakValueDictionary()

    def passed(self, sequence: int) -> None:
        """Note that this message and all before it are in memory."""
        self._cursor = sequence

    def put(self, delivery: Delivery) -> None:
        """Only the store holds this new message from now on."""
        self.beyond += 1
        self._deliveries[delivery.sequence] = delivery

    def remember(self, delivery: Delivery) -> None:
        """Let :meth:`find` know a message in memory."""
        self._deliveries[delivery.sequence] = delivery

    def find(self, sequence: int) -> Delivery | None:
        """Return the delivery of a message, if anybody holds it."""
        return self._deliveries.get(sequence)

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
            self._store.request_page(self._cursor)

    def take(self) -> list[SavedMessage] | None:
        """Return the next messages if they have arrived, without those that are gone; ``beyond`` counts them
        still. An empty list: the store has no more, whatever was counted.
        """
        if not self.asked or self._store is None:
            return None
        page = self._store.take_page()
        if page is None:
            return None
        self.asked = False
        gone, self._gone = self._gone, set()
        if page:
            self._cursor = page[-1].sequence
        else:
            self.beyond = 0
        return [message for message in page if message.sequence not in gone]

    def deliveries(self) -> list[Delivery]:
        """Return the known deliveries, those of messages in memory may be among them."""
        return list(self._deliveries.values())
