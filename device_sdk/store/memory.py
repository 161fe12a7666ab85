"""A store in the memory of this process: the session survives its client, not its process."""

from __future__ import annotations

from device_sdk.errors import StoreError
from device_sdk.store.base import (
    KEEP_LAST,
    Page,
    SavedMessage,
    SavedSession,
    Store,
    StorePolicy,
    message_size,
    no_room_report,
    places_pushed_off,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Change = tuple[Any, ...]

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """Keeps the log in dictionaries; every change is durable as soon as it is submitted.

    A second client that gets the same object, after the first was closed, resumes the session. This class is
    also the reference for the behaviour of any other store. ``policy``: for the bounds of the shelf.
    """

    def __init__(self, policy: StorePolicy | None = None) -> None:
        super().__init__()
        self._policy = policy or StorePolicy()
        self._waiting: dict[int, SavedMessage] = {}
        self._in_flight: dict[int, SavedMessage] = {}
        self._past_pubrec: dict[int, SavedMessage] = {}
        self._shelf: dict[int, SavedMessage] = {}  # oldest first
        self._saved = SavedSession()
        self._page: list[SavedMessage] | None = None
        self.kept = 0  # None: it is open

    def open(self) -> SavedSession:
        """Return the session as it stands. Raises: StoreError: a client has it open already."""
        if self.kept is None:
            raise StoreError("this MemoryStore is in use by another client; close that one first")
        self.kept = None
        self.durable_through = 0
        saved = self._saved
        saved.shelved = len(self._shelf)
        waiting = self._waiting.values()
        saved.messages = [*self._in_flight.values(), *self._past_pubrec.values(), *self._page_after(0)]
        saved.waiting = len(waiting)
        saved.waiting_bytes = sum(map(message_size, waiting))
        saved.latest = {
            message.topic_field: (message.sequence, message_size(message))
            for _, message in sorted(self._waiting.items())
            if message.flags & KEEP_LAST
        }
        return saved

    def submit(self, changes: Sequence[Change], number: int) -> None:
        """Apply the changes at once."""
        for kind, *fields in changes:
            getattr(self, "_" + kind)(*fields)
        self.durable_through = number

    def request_page(self, after: int) -> None:
        """Read the page at once."""
        self._page = self._page_after(after)

    def take_page(self) -> list[SavedMessage] | None:
        """Return the page, once."""
        page, self._page = self._page, None
        return page

    def close(self) -> None:
        """Let another client open it."""
        self.kept = len(self._waiting) + len(self._in_flight) + len(self._past_pubrec)

    def _page_after(self, after: int) -> list[SavedMessage]:
        page = Page()
        for sequence in sorted(self._waiting):
            if sequence > after and not page.add(self._waiting[sequence]):
                break
        return page.messages

    # One method per kind of change, with the fields that CHANGES lists

    def _message(self, sequence: int, *fields: Any) -> None:
        self._waiting[sequence] = SavedMessage(sequence, *fields)
        self._saved.next_sequence = sequence + 1

    def _sent(self, sequence: int, packet_id: int) -> None:
        message = self._waiting.pop(sequence, None) or self._in_flight.pop(sequence)
        message.packet_id = packet_id
        self._in_flight[sequence] = message

    def _released(self, sequence: int) -> None:
        message = self._in_flight.pop(sequence)
        message.released = True
        self._past_pubrec[sequence] = message

    def _done(self, sequence: int, _: str) -> None:
        for messages in (self._in_flight, self._past_pubrec, self._waiting):
            messages.pop(sequence, None)

    def _received(self, packet_id: int) -> None:
        self._saved.received.add(packet_id)

    def _completed(self, packet_id: int) -> None:
        self._saved.received.discard(packet_id)

    def _lost(self) -> None:
        for message in self._in_flight.values():
            message.packet_id = 0
        self._waiting.update(self._in_flight)
        self._in_flight.clear()
        self._past_pubrec.clear()
        self._saved.received.clear()
        self._saved.withheld.clear()

    def _subscribed(self, topic_filter: str, *options: Any) -> None:
        self._saved.subscriptions[topic_filter] = options

    def _unsubscribed(self, topic_filter: str) -> None:
        self._saved.subscriptions.pop(topic_filter, None)

    def _fact(self, name: str, value: Any) -> None:
        self._saved.facts[name] = value

    def _reserved(self, packet_id: int) -> None:
        self._saved.last_packet_id = packet_id

    def _shelved(self, sequence: int, *_: Any) -> None:
        for messages in (self._in_flight, self._past_pubrec, self._waiting):
            message = messages.pop(sequence, None)
            if message is None:
                continue
            if message.packet_id:
                self._saved.withheld.add(message.packet_id)
            self._shelf[sequence] = message
        kept = list(self._shelf.values())
        gone = places_pushed_off([message_size(one) for one in kept], self._policy)
        for place in gone:
            del self._shelf[kept[place].sequence]
        if gone:
            self.reports.append(no_room_report(len(gone)))

    def _unshelved(self, sequence: int) -> None:
        self._shelf.pop(sequence, None)

    def _withheld(self, packet_id: int) -> None:
        self._saved.withheld.add(packet_id)
