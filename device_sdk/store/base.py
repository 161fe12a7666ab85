"""The store contract: one ordered log of everything that must outlive a network connection.

The engine describes its state as *changes*, plain tuples whose first field is one of :data:`CHANGES`,
numbered 1, 2, 3 ... without gaps. It submits them in batches and never waits: the store reports its progress
in ``durable_through`` and calls ``on_progress`` when that number has moved.

Only the messages in flight and the first of the waiting ones are in memory. The engine reads the others page
by page, and asks for the next page before it runs out; see :meth:`Store.request_page`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

from device_sdk._arguments import LONGEST_SECONDS, explained
from device_sdk.errors import ArgumentError, ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from device_sdk.errors import StoreError

    Change = tuple[Any, ...]
    Report = tuple[str, str, str | None]

__all__ = [
    "AGED",
    "CHANGES",
    "KEEP_LAST",
    "MESSAGE_FLAGS",
    "PAGE_BYTES",
    "PAGE_MESSAGES",
    "REPORTS",
    "SHELF_FULL",
    "SHELVED",
    "STORE_DAMAGED",
    "Page",
    "PageMessage",
    "SavedMessage",
    "SavedSession",
    "Store",
    "StorePolicy",
    "message_size",
    "no_room_report",
    "places_pushed_off",
]

#: Kind of a change -> the fields after the kind.
CHANGES: dict[str, tuple[str, ...]] = {
    "message": ("sequence", "topic_field", "payload", "flags", "properties", "expires_at"),
    "sent": ("sequence", "packet_id"),  # the PUBLISH got its packet identifier, or another one later
    "released": ("sequence",),  # PUBREC arrived, PUBREL is owed
    "done": ("sequence", "status"),  # how it ended: a last state of its delivery (cancelled: as dropped)
    "received": ("packet_id",),  # an incoming QoS 2 message was handled, PUBREC is owed
    "completed": ("packet_id",),  # its PUBREL arrived
    "lost": (),  # the server lost the session: nothing is sent, nothing is received
    "subscribed": ("topic_filter", "qos", "no_local", "retain_as_published", "retain_handling"),
    "unsubscribed": ("topic_filter",),
    "fact": ("name", "value"),  # client identifier and the like
    "reserved": ("packet_id",),  # identifiers up to this one may be in use: a restart goes on above it
    "shelved": ("sequence", "status", "reason", "at"),  # it is not sent any more, and kept on the shelf
    "unshelved": ("sequence",),  # the program has taken it off the shelf
    "withheld": ("packet_id",),  # of a message that was given up unanswered: not used until "lost"
}

#: The bits of a message's ``flags``: MQTT's own (QoS and RETAIN), and two of the queue that a store keeps
#: unchanged: a newer message on the topic replaces it; ``expires_at`` is not sent to the server.
MESSAGE_FLAGS = 0x0F
KEEP_LAST = 0x10
AGED = 0x20

#: Why a message is on the shelf: the broker refused it, or what the store has of it is not what was written.
SHELVED = ("refused", "damaged")

#: The kinds of reports of a store, which become events.
SHELF_FULL, STORE_DAMAGED = REPORTS = ("shelf_full", "store_damaged")

#: The most that :meth:`Store.open` and one page hold of the waiting messages; one message is always allowed.
PAGE_MESSAGES = 500
PAGE_BYTES = 512 * 1024

NOTHING_LOST = -1  # below the number 0 of what an earlier client made durable

OVERFLOWS = ("reject", "drop_oldest", "drop_newest", "block")
DURABILITIES = ("sync", "batch", "os")
REPLAYS = ("history", "live")
UNSENDABLES = ("hold", "drop", "lower_qos")


class StorePolicy:
    """Bounds of the outgoing queue, the policy at a bound, and the replay after an outage.

    Args:
        max_messages: waiting messages; ``None``: 10,000 in memory, no bound of their number on disk.
        max_bytes: of their topics, properties and payloads; ``None``: 16 MiB in memory, 64 MiB on disk.
        max_age: seconds that a message may wait, ``None``: any time. Unlike ``publish(expiry=)`` it is not
            sent to the broker.
        overflow: ``reject`` (raise :class:`QueueFullError`), ``drop_oldest``, ``drop_newest`` or ``block``
            (wait up to ``block_timeout`` seconds, then raise).
        keep_last: topic filters; only the newest message of a matching topic is kept in the queue.
        replay: ``history`` sends waiting messages first, in order; ``live`` lets new messages overtake them.
        replay_rate: messages a second after an outage, for those that waited; ``None``: at full speed.
        unsendable: for waiting messages beyond a limit of the connected broker (Maximum QoS, Maximum Packet
            Size, Retain Available 0). ``hold``: they keep their place, others are sent meanwhile; ``drop``;
            ``lower_qos``: sent with the highest QoS that it takes, held if that is not the obstacle.
        durability: of a store on disk. ``sync``: flushed to the device before it counts as stored.
            ``batch``: committed and flushed after ``linger`` seconds, 100 messages or 64 KiB, whichever is
            first. ``os``: committed like that and never flushed: survives a crash but not a power cut.
        min_free: bytes to leave free on the file system of a store; below that the store counts as full.
        max_shelf_messages, max_shelf_bytes: of a store, for messages that are not sent any more, because the
            broker refused them or the disk damaged them; beyond that the oldest is deleted, and told.
        open_timeout: seconds that a store on disk may take to open, before
            :class:`~device_sdk.errors.StoreUnavailableError` is raised.

    Raises: ArgumentError, ArgumentTypeError: by name.
    """

    __slots__ = (
        "block_timeout",
        "durability",
        "keep_last",
        "linger",
        "max_age",
        "max_bytes",
        "max_messages",
        "max_shelf_bytes",
        "max_shelf_messages",
        "min_free",
        "open_timeout",
        "overflow",
        "replay",
        "replay_rate",
        "unsendable",
    )

    @explained
    def __init__(
        self,
        *,
        max_messages: int | None = None,
        max_bytes: int | None = None,
        max_age: float | None = None,
        overflow: str = "reject",
        block_timeout: float = 10.0,
        keep_last: Sequence[str] = (),
        replay: str = "history",
        replay_rate: float | None = None,
        unsendable: str = "hold",
        durability: str = "batch",
        linger: float = 0.1,
        min_free: int = 16 * 1024 * 1024,
        max_shelf_messages: int = 1_000,
        max_shelf_bytes: int = 4 * 1024 * 1024,
        open_timeout: float = 10.0,
    ) -> None:
        for name, value in (("max_messages", max_messages), ("max_bytes", max_bytes)):
            if value is not None:
                _check_number(name, value, int, 1)
        if max_age is not None:
            _check_number("max_age", max_age, (int, float), 1e-3, LONGEST_SECONDS)
        if replay_rate is not None:
            _check_number("replay_rate", replay_rate, (int, float), 1e-3)
        for name, span, least in (
            ("block_timeout", block_timeout, 0.0),
            ("linger", linger, 0.0),
            ("open_timeout", open_timeout, 1e-3),
        ):
            _check_number(name, span, (int, float), least, LONGEST_SECONDS)
        for name, amount in (
            ("min_free", min_free),
            ("max_shelf_messages", max_shelf_messages),
            ("max_shelf_bytes", max_shelf_bytes),
        ):
            _check_number(name, amount, int, 0)
        for name, word, words in (
            ("overflow", overflow, OVERFLOWS),
            ("replay", replay, REPLAYS),
            ("unsendable", unsendable, UNSENDABLES),
            ("durability", durability, DURABILITIES),
        ):
            if word not in words:
                raise ArgumentError(name, f"must be one of {', '.join(words)}, not {word!r}")
        if isinstance(keep_last, str) or not all(isinstance(one, str) for one in keep_last):
            raise ArgumentTypeError("keep_last", "must be a list of topic filters")
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.overflow = overflow
        self.block_timeout = block_timeout
        self.keep_last = tuple(keep_last)
        self.replay = replay
        self.replay_rate = replay_rate
        self.unsendable = unsendable
        self.durability = durability
        self.linger = linger
        self.min_free = min_free
        self.max_shelf_messages = max_shelf_messages
        self.max_shelf_bytes = max_shelf_bytes
        self.open_timeout = open_timeout


def _check_number(
    name: str, value: object, kind: type | tuple[type, ...], least: float, most: int = (1 << 62) - 1
) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = "whole number" if kind is int else "number"
        raise ArgumentTypeError(name, f"must be a {wanted}, not {type(value).__name__}")
    if not least <= value <= most:  # type: ignore[operator]
        raise ArgumentError(name, f"must be at least {least:g} and at most {most}, not {value!r}")


class SavedMessage:
    """An unfinished outgoing message: ``packet_id`` 0 is before its PUBLISH, ``released`` after PUBREC.

    ``expires_at`` is in seconds of ``CLOCK_BOOTTIME``, see :mod:`device_sdk._clock`. A store on disk keeps it
    as wall-clock time, but ignores a clock that was never set.
    """

    change = 0  # the number under which it counts as durable; 0: an earlier client has made it so

    __slots__ = (
        "expires_at",
        "flags",
        "packet_id",
        "payload",
        "properties",
        "released",
        "sequence",
        "topic_field",
    )

    def __init__(
        self,
        sequence: int,
        topic_field: bytes,
        payload: bytes,
        flags: int,
        properties: bytes,
        expires_at: float | None,
    ) -> None:
        self.sequence = sequence
        self.topic_field = topic_field
        self.payload = payload
        self.flags = flags
        self.properties = properties
        self.expires_at = expires_at
        self.packet_id = 0
        self.released = False


class PageMessage(SavedMessage):
    """A message of a page that does not count as durable from the beginning."""

    __slots__ = ("change",)

    @classmethod
    def of(cls, message: SavedMessage, change: int) -> PageMessage:
        """Return a copy that is durable when that change is."""
        copy = cls(
            message.sequence,
            message.topic_field,
            message.payload,
            message.flags,
            message.properties,
            message.expires_at,
        )
        copy.change = change
        return copy


class SavedSession:
    """The session that :meth:`Store.open` found.

    ``messages`` in the order of sending for those with a packet identifier (the released ones in the order
    of their PUBRECs), then the first page of the waiting ones in the order of their sequence numbers;
    ``waiting`` and ``waiting_bytes`` (topic fields, properties and payloads) of all waiting ones, also beyond
    that page; ``latest``: topic field -> (sequence, bytes) of the waiting messages with the flag
    :data:`KEEP_LAST` (a store has an index of those); ``received`` packet identifiers; ``subscriptions`` by
    topic filter, the values are the fields of a ``subscribed`` change after the filter; ``facts`` by name;
    ``next_sequence`` is above every sequence number ever used; ``last_packet_id`` is the last ``reserved``;
    ``withheld`` packet identifiers; ``shelved`` messages are on the shelf: none of them is in ``messages``.
    """

    __slots__ = (
        "facts",
        "last_packet_id",
        "latest",
        "messages",
        "next_sequence",
        "received",
        "shelved",
        "subscriptions",
        "waiting",
        "waiting_bytes",
        "withheld",
    )

    def __init__(self) -> None:
        self.messages: list[SavedMessage] = []
        self.waiting = 0
        self.waiting_bytes = 0
        self.latest: dict[bytes, tuple[int, int]] = {}
        self.received: set[int] = set()
        self.subscriptions: dict[str, tuple[Any, ...]] = {}
        self.facts: dict[str, Any] = {}
        self.next_sequence = 1
        self.last_packet_id = 0
        self.withheld: set[int] = set()
        self.shelved = 0


def message_size(message: SavedMessage) -> int:
    """Return the bytes that a message counts for in every bound: its topic, properties and payload."""
    return len(message.topic_field) + len(message.properties) + len(message.payload)


def places_pushed_off(sizes: Sequence[int], policy: StorePolicy) -> list[int]:
    """Return the places on a shelf, oldest first, of the messages that have to go; ``sizes`` in that order.

    A message that is larger than the whole shelf goes itself, and not all others for it.
    """
    fits = [place for place, size in enumerate(sizes) if size <= policy.max_shelf_bytes]
    messages, total = len(fits), sum(sizes[place] for place in fits)
    gone = [place for place, size in enumerate(sizes) if size > policy.max_shelf_bytes]
    for place in fits:
        if messages <= policy.max_shelf_messages and total <= policy.max_shelf_bytes:
            break
        gone.append(place)
        messages -= 1
        total -= sizes[place]
    return gone


def no_room_report(messages: int) -> Report:
    """Return the report that the shelf had no room for so many messages."""
    text = f"no room on the shelf: {messages} messages that are not sent any more were deleted"
    return SHELF_FULL, text, str(messages)


class Page:
    """Messages up to the bounds of a page."""

    __slots__ = ("_room", "messages")

    def __init__(self) -> None:
        self.messages: list[SavedMessage] = []
        self._room = PAGE_BYTES

    def add(self, message: SavedMessage) -> bool:
        """Append a message; False if it does not fit. The first one always fits."""
        # message_size() written out: this runs once a message.
        self._room -= len(message.topic_field) + len(message.properties) + len(message.payload)
        if self.messages and (self._room < 0 or len(self.messages) == PAGE_MESSAGES):
            return False
        self.messages.append(message)
        return True


class Store(ABC):
    """One client's session and queue.

    Threads: :meth:`submit`, :meth:`expedite`, :meth:`request_page` and :meth:`take_page` are called under the
    engine's lock and never block, as are :meth:`backlog_messages` and :meth:`first_unwritten`; any thread may
    read the attributes.
    :meth:`open` and :meth:`close` may block.

    A store that cannot write gives the reason in ``failure``, keeps submitted changes in memory, retries by
    itself, and sets ``failure`` back to ``None`` when all of them are durable. Meanwhile the engine holds no
    output back, and adds no messages beyond its bounds of the backlog, those of a queue in memory.

    The shelf keeps messages that are not sent any more, for somebody to look at: ``shelved`` takes one out of
    the queue or the window with everything but its place. Its packet identifier, if it has one, is withheld.
    The shelf is bounded (:class:`StorePolicy`).

    ``reports``: what the user should know of, oldest first: kind (:data:`REPORTS`), text, value. The store
    appends, from any thread and before it calls ``on_progress``; the engine takes them.

    A store that has begun a new file sets ``lost_through`` to the number of the last change that was in the
    old one: what had been durable up to there is so no more. ``kept``: how many unfinished messages the
    closed store has for the next client, ``None``: not known; more than that is lost, and told.
    """

    on_disk = False  # whether it may hold more messages than memory does
    lost_through = NOTHING_LOST
    kept: int | None = None

    def __init__(self) -> None:
        self.durable_through = 0
        self.backlog_bytes = 0  # of waiting messages that were handed over and are not durable yet
        self.failure: StoreError | None = None
        self.reports: deque[Report] = deque()
        self.notice: str | None = None  # a warning for the user while the store works; the engine takes it
        self.on_progress: Callable[[], None] | None = None  # called without locks held, from any thread

    @abstractmethod
    def open(self) -> SavedSession:
        """Return the saved session. Raises: StoreError: open in another process, or not readable."""

    @abstractmethod
    def submit(self, changes: Sequence[Change], number: int) -> None:
        """Take changes; the last of them has this number. Never blocks and never raises for I/O."""

    def expedite(self, number: int) -> None:  # noqa: B027 (a store without batches has nothing to hurry)
        """Make the changes up to this number durable without waiting for a batch to fill."""

    def backlog_messages(self) -> int:
        """Return how many waiting messages were submitted and are not durable yet."""
        return 0

    def first_unwritten(self, after: int) -> int:
        """Return the sequence number of the first of these that is above ``after``; 0: there is none."""
        return 0

    @abstractmethod
    def request_page(self, after: int) -> None:
        """Ask for the next waiting messages with a sequence number above ``after``.

        One request at a time. The page reflects every change submitted before; ``on_progress`` is called when
        :meth:`take_page` has it.
        """

    @abstractmethod
    def take_page(self) -> list[SavedMessage] | None:
        """Return the requested page, once, in the order of the sequence numbers; else ``None``.

        Empty: no message waits above ``after``. A store that cannot read sets ``failure`` and answers late.
        """

    @abstractmethod
    def close(self) -> None:
        """Make everything durable and release the store. Idempotent."""
