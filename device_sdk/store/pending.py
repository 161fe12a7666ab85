"""Changes that are not on disk yet, folded together as they are submitted.

Only the net effect is kept, not a log. A message that ends before it was written leaves nothing behind; an
identifier received and completed leaves at most one deletion. Writing all of it in one transaction brings the
database to the state after the last change, and the order inside does not matter.
"""

from __future__ import annotations

from collections import OrderedDict

from device_sdk.store.base import PageMessage, SavedMessage
from device_sdk.store.schema import COUNTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
    from typing import Any

    Change = tuple[Any, ...]

__all__ = ["BATCH_BYTES", "BATCH_MESSAGES", "LAZY_CHANGES", "LAZY_S", "NEVER", "NewMessage", "Pending"]

NEVER = float("inf")

#: A batch is written at the latest when it has this many new messages, or this many bytes of them.
BATCH_MESSAGES = 100
BATCH_BYTES = 64 * 1024

#: Acknowledgements, subscriptions and facts wait for a batch of messages, but not longer than this.
LAZY_S = 5.0
LAZY_CHANGES = 500


class NewMessage(SavedMessage):
    """A message without a row; ``number``: its change; ``since``: when it was submitted (monotonic).

    ``waits``: it was neither sent nor has it ended, not even while it is being written.
    """

    __slots__ = ("number", "since", "size", "turn", "waits")

    def __init__(self, number: int, since: float, change: Change) -> None:
        # SavedMessage.__init__ written out: this runs once a message.
        _, self.sequence, self.topic_field, self.payload, self.flags, self.properties, self.expires_at = (
            change
        )
        self.packet_id = 0
        self.released = False
        self.number = number
        self.since = since
        self.turn = 0
        self.waits = True
        # message_size() as well.
        self.size = len(self.topic_field) + len(self.properties) + len(self.payload)

    def copy(self) -> SavedMessage:
        """Return it as an entry of a page."""
        return PageMessage.of(self, self.number)


class ShelfChanges:
    """Changes of the shelf: ``put`` first, then ``taken``; ``withheld`` are packet identifiers."""

    __slots__ = ("put", "taken", "withheld")

    def __init__(self) -> None:
        self.put: dict[int, tuple[str, str, float]] = {}  # sequence -> status, reason, at
        self.taken: dict[int, None] = {}
        self.withheld: set[int] = set()

    def split(self, new: Container[int]) -> ShelfChanges:
        """Remove what concerns new messages and return it."""
        split = ShelfChanges()
        for sequence in [one for one in self.put if one in new]:
            split.put[sequence] = self.put.pop(sequence)
        return split


# Not a dict: finding the first entry of a dict that is emptied from the front gets slower and slower.
class NewMessages(OrderedDict[int, NewMessage]):
    """The messages without a row by sequence number, oldest first.

    ``waiting``, ``waiting_bytes``: how many of them wait; ``earlier``: those that are being written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.waiting_bytes = 0
        self.earlier: NewMessages | None = None

    def first_waiting(self, after: int) -> int:
        """Return the sequence number of the first message above this one that waits, else 0."""
        following = self.get(after + 1)
        if following is not None and following.waits:
            return following.sequence
        return next((each.sequence for each in self.values() if each.waits and each.sequence > after), 0)

    def arrived(self, message: NewMessage) -> None:
        """Count a message that waits from now on."""
        message.waits = True
        self.waiting += 1
        self.waiting_bytes += message.size

    def left(self, message: NewMessage) -> None:
        """Count a message that does not wait any more."""
        if message.waits:
            message.waits = False
            self.waiting -= 1
            self.waiting_bytes -= message.size

    def left_earlier(self, sequence: int) -> None:
        """The same for one that is being written, or has been."""
        if self.earlier is not None and (message := self.earlier.get(sequence)) is not None:
            self.earlier.left(message)


class Pending:
    """Folded changes. Not thread-safe.

    ``new``: messages without a row, oldest first; ``gone``, ``sent``, ``released``: changes of those with a
    row, by sequence number; ``shelf``: of both, applied after ``sent``. ``lost`` is applied first. Changes to
    anything but new messages are *lazy*: written with the next batch unless ``expedite()`` asks for them.
    """

    __slots__ = (
        "ended",
        "facts",
        "gone",
        "last_packet_id",
        "lazy",
        "lazy_first",
        "lost",
        "new",
        "new_bytes",
        "next_sequence",
        "received",
        "released",
        "sent",
        "shelf",
        "subscriptions",
    )

    def __init__(self) -> None:
        self.new = NewMessages()
        self.new_bytes = 0
        self.gone: dict[int, str] = {}  # sequence -> how it ended
        self.sent: dict[int, tuple[int, int]] = {}  # sequence -> packet identifier, turn
        self.released: dict[int, int] = {}  # sequence -> turn
        self.shelf = ShelfChanges()
        self.lost = False
        self.received: dict[int, bool] = {}  # packet identifier -> whether it is still received
        self.subscriptions: dict[str, tuple[Any, ...] | None] = {}  # None: unsubscribed
        self.facts: dict[str, Any] = {}
        self.last_packet_id: int | None = None
        self.ended = dict.fromkeys(COUNTERS, 0)  # messages that ended without ever having a row
        self.next_sequence = 0
        self.lazy = 0  # changes to anything but new messages
        self.lazy_first = (0, NEVER)  # of them: its number, and when it was submitted (monotonic)

    def add(self, changes: Sequence[Change], number: int, now: float) -> bool:
        """Fold in changes, the last of which has this number. Returns: whether any was not a new message."""
        number -= len(changes)
        only_new = True
        for change in changes:
            number += 1
            if change[0] == "message":
                message = NewMessage(number, now, change)
                self.new[message.sequence] = message
                self.new.waiting += 1  # arrived() written out
                self.new.waiting_bytes += message.size
                self.new_bytes += message.size
                self.next_sequence = message.sequence + 1
                continue
            only_new = False
            if _FOLD[change[0]](self, number, change):
                if not self.lazy:
                    self.lazy_first = number, now
                self.lazy += 1
        return not only_new

    def first(self) -> float:
        """Return the number of the first change in here, :data:`NEVER` if there is none."""
        if self.new:
            first = next(iter(self.new.values())).number
            return min(first, self.lazy_first[0]) if self.lazy else first
        return self.lazy_first[0] if self.lazy else NEVER

    def is_large(self) -> bool:
        """Whether it is large enough to be written now."""
        return len(self.new) >= BATCH_MESSAGES or self.new_bytes >= BATCH_BYTES or self.lazy >= LAZY_CHANGES

    def oldest(self) -> float:
        """Return when the first new message was submitted; there must be one."""
        return next(iter(self.new.values())).since

    def take_new(self) -> Pending:
        """Remove the new messages and return them."""
        taken = Pending()
        taken.new, self.new = self.new, taken.new
        taken.new_bytes, self.new_bytes = self.new_bytes, 0
        taken.shelf = self.shelf.split(taken.new)
        return taken

    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.new and not self.lazy

    def follow(self, later: Pending) -> None:
        """Fold in later changes, after a failed write of this batch."""
        if later.lost:
            self._lost(0, ("lost",))
        for sequence, (packet_id, turn) in later.sent.items():
            self._sent(turn, ("sent", sequence, packet_id))
        for sequence, turn in later.released.items():
            self._released(turn, ("released", sequence))
        for sequence, status in later.gone.items():
            self._done(0, ("done", sequence, status))
        for sequence, entry in later.shelf.put.items():
            self._shelved(0, ("shelved", sequence, *entry))
        for sequence in later.shelf.taken:
            self._unshelved(0, ("unshelved", sequence))
        self.shelf.withheld |= later.shelf.withheld
        self.new.update(later.new)
        self.new.waiting += later.new.waiting
        self.new.waiting_bytes += later.new.waiting_bytes
        self.new_bytes += later.new_bytes
        self.received.update(later.received)
        self.subscriptions.update(later.subscriptions)
        self.facts.update(later.facts)
        for status, count in later.ended.items():
            self.ended[status] += count
        if later.last_packet_id is not None:
            self.last_packet_id = later.last_packet_id
        self.next_sequence = max(self.next_sequence, later.next_sequence)
        if later.lazy:
            self.lazy_first = min(self.lazy_first, later.lazy_first) if self.lazy else later.lazy_first
            self.lazy += later.lazy

    def _end_new(self, message: NewMessage, status: str) -> None:
        del self.new[message.sequence]
        self.shelf.put.pop(message.sequence, None)
        self.new.left(message)
        self.new_bytes -= message.size
        self.ended[status if status in self.ended else "dropped"] += 1

    # One function per kind of change. They return whether the change has to be written; one of a new message
    # is folded into that. ``turn`` is the change's number, which orders packets.

    def _sent(self, turn: int, change: Change) -> bool:
        _, sequence, packet_id = change
        message = self.new.get(sequence)
        if message is None:
            self.sent[sequence] = packet_id, turn
            self.new.left_earlier(sequence)
            return True
        message.packet_id = packet_id
        message.turn = turn
        self.new.left(message)
        return False

    def _released(self, turn: int, change: Change) -> bool:
        _, sequence = change
        message = self.new.get(sequence)
        if message is None:
            self.released[sequence] = turn
            return True
        message.released = True
        message.turn = turn
        return False

    def _done(self, turn: int, change: Change) -> bool:
        _, sequence, status = change
        message = self.new.get(sequence)
        if message is None:
            self.gone[sequence] = status
            self.sent.pop(sequence, None)
            self.released.pop(sequence, None)
            self.new.left_earlier(sequence)
            return True
        self._end_new(message, status)
        return False

    def _received(self, turn: int, change: Change) -> bool:
        self.received[change[1]] = True
        return True

    def _completed(self, turn: int, change: Change) -> bool:
        self.received[change[1]] = False
        return True

    def _lost(self, turn: int, change: Change) -> bool:
        for message in list(self.new.values()):
            if message.released and message.sequence not in self.shelf.put:
                self._end_new(message, "acknowledged")
            elif not message.waits and message.sequence not in self.shelf.put:
                self.new.arrived(message)
            message.packet_id = 0
        self.sent.clear()
        self.released.clear()
        self.received.clear()
        self.shelf.withheld.clear()
        self.lost = True
        return True

    def _subscribed(self, turn: int, change: Change) -> bool:
        self.subscriptions[change[1]] = change[2:]
        return True

    def _unsubscribed(self, turn: int, change: Change) -> bool:
        self.subscriptions[change[1]] = None
        return True

    def _fact(self, turn: int, change: Change) -> bool:
        self.facts[change[1]] = change[2]
        return True

    def _reserved(self, turn: int, change: Change) -> bool:
        self.last_packet_id = change[1]
        return True

    def _shelved(self, turn: int, change: Change) -> bool:
        sequence = change[1]
        self.shelf.put[sequence] = change[2:]
        message = self.new.get(sequence)
        if message is None:
            self.new.left_earlier(sequence)
            return True
        self.new.left(message)
        return False

    def _unshelved(self, turn: int, change: Change) -> bool:
        message = self.new.get(change[1])
        if message is None:
            self.shelf.taken[change[1]] = None
            return True
        if message.sequence not in self.shelf.put:
            return False
        if message.packet_id:
            self.shelf.withheld.add(message.packet_id)
        self._end_new(message, self.shelf.put[message.sequence][0])
        return bool(message.packet_id)

    def _withheld(self, turn: int, change: Change) -> bool:
        self.shelf.withheld.add(change[1])
        return True


_FOLD: dict[str, Callable[[Pending, int, Change], bool]] = {
    "sent": Pending._sent,
    "released": Pending._released,
    "done": Pending._done,
    "received": Pending._received,
    "completed": Pending._completed,
    "lost": Pending._lost,
    "subscribed": Pending._subscribed,
    "unsubscribed": Pending._unsubscribed,
    "fact": Pending._fact,
    "reserved": Pending._reserved,
    "shelved": Pending._shelved,
    "unshelved": Pending._unshelved,
    "withheld": Pending._withheld,
}
