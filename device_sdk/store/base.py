"""The store contract: one ordered log of everything that must outlive a network connection.

The engine describes what happened as *changes*, plain tuples whose first field is one of :data:`CHANGES`,
numbered 1, 2, 3 ... without gaps. It hands them over in batches and never waits: the store says through
``durable_through`` how far it has come and calls ``on_progress`` when that number has moved.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from device_sdk.errors import ArgumentError, ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from device_sdk.errors import StoreError

    Change = tuple[Any, ...]

__all__ = ["CHANGES", "SavedMessage", "SavedSession", "Store", "StorePolicy"]

#: Kind of a change -> the fields after the kind.
CHANGES: dict[str, tuple[str, ...]] = {
    "message": ("sequence", "topic_field", "payload", "flags", "properties", "expires_at"),
    "sent": ("sequence", "packet_id"),  # the PUBLISH got its packet identifier
    "released": ("sequence",),  # PUBREC arrived, PUBREL is owed
    "done": ("sequence",),  # acknowledged, refused, expired or dropped
    "received": ("packet_id",),  # an incoming QoS 2 message was handled, PUBREC is owed
    "completed": ("packet_id",),  # its PUBREL arrived
    "lost": (),  # the server lost the session: nothing is sent, nothing is received
    "subscribed": ("topic_filter", "qos", "no_local", "retain_as_published", "retain_handling"),
    "unsubscribed": ("topic_filter",),
    "fact": ("name", "value"),  # client identifier and the like
}

OVERFLOWS = ("reject", "drop_oldest", "drop_newest", "block")
DURABILITIES = ("sync", "batch", "os")


class StorePolicy:
    """Bounds of the outgoing queue and what happens at them.

    ``max_messages`` waiting messages; ``max_bytes`` of their topics, properties and payloads; ``overflow`` is
    ``reject`` (raise :class:`QueueFullError`), ``drop_oldest``, ``drop_newest`` or ``block`` (wait up to
    ``block_timeout`` seconds, then raise). ``durability`` and ``linger`` (seconds) are for stores on disk.
    """

    __slots__ = ("block_timeout", "durability", "linger", "max_bytes", "max_messages", "overflow")

    def __init__(
        self,
        *,
        max_messages: int = 10_000,
        max_bytes: int = 16 * 1024 * 1024,
        overflow: str = "reject",
        block_timeout: float = 10.0,
        durability: str = "batch",
        linger: float = 0.1,
    ) -> None:
        for name, value in (("max_messages", max_messages), ("max_bytes", max_bytes)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise ArgumentTypeError(name, f"must be a whole number, not {type(value).__name__}")
            if value < 1:
                raise ArgumentError(name, f"must be at least 1, not {value}")
        if overflow not in OVERFLOWS:
            raise ArgumentError("overflow", f"must be one of {', '.join(OVERFLOWS)}, not {overflow!r}")
        if durability not in DURABILITIES:
            raise ArgumentError("durability", f"must be one of {', '.join(DURABILITIES)}, not {durability!r}")
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.overflow = overflow
        self.block_timeout = block_timeout
        self.durability = durability
        self.linger = linger


class SavedMessage:
    """An unfinished outgoing message: ``packet_id`` 0 is before its PUBLISH, ``released`` after PUBREC."""

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


class SavedSession:
    """What :meth:`Store.open` found.

    ``messages`` in the order of sending for those with a packet identifier (the released ones in the order of
    their PUBRECs), then the waiting ones in the order of their sequence numbers; ``received`` packet
    identifiers; ``subscriptions`` by topic filter, the values are the fields of a ``subscribed`` change after
    the filter; ``facts`` by name; ``next_sequence`` is above every sequence number ever used.
    """

    __slots__ = ("facts", "messages", "next_sequence", "received", "subscriptions")

    def __init__(self) -> None:
        self.messages: list[SavedMessage] = []
        self.received: set[int] = set()
        self.subscriptions: dict[str, tuple[Any, ...]] = {}
        self.facts: dict[str, Any] = {}
        self.next_sequence = 1


class Store(ABC):
    """One client's session and queue.

    Threads: :meth:`submit` and :meth:`expedite` are called under the engine's lock and never block;
    ``durable_through`` and ``failure`` may be read by anyone. :meth:`open` and :meth:`close` may block.
    """

    def __init__(self) -> None:
        self.durable_through = 0
        self.failure: StoreError | None = None  # set when the store cannot keep changes any more
        self.on_progress: Callable[[], None] | None = None  # called without locks held, from any thread

    @abstractmethod
    def open(self) -> SavedSession:
        """Return what was kept. Raises: StoreError: another process has it open, or it cannot be read."""

    @abstractmethod
    def submit(self, changes: Sequence[Change], number: int) -> None:
        """Take changes; the last of them has this number. Never blocks and never raises for I/O."""

    def expedite(self, number: int) -> None:  # noqa: B027 (a store without batches has nothing to hurry)
        """Make the changes up to this number durable without waiting for a batch to fill."""

    @abstractmethod
    def close(self) -> None:
        """Make everything durable and let go. Idempotent."""
