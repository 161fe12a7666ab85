"""What a run shows to the outside, noted as it happens: ``python -m tests.same_as`` compares two of these.

A note is a word and values of built-in types, which have the same ``repr`` wherever the objects live that
they were read from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from device_sdk import Delivery, Store
from device_sdk.errors import StoreError
from device_sdk.store.base import SavedMessage, SavedSession

__all__ = ["Deliveries", "Note", "RecordedStore", "Text", "facts_of"]

Note = Callable[..., None]

#: The public attributes of what hooks, handlers and callers are given, and of what a store hands over.
_ATTRIBUTES = {
    "ClientEvent": ("kind", "text", "error", "value"),
    "ConnectAcknowledged": ("session_present", "properties"),
    "Message": ("topic", "payload", "qos", "retain", "dup", "packet_id", "properties"),
    "SavedMessage": SavedMessage.__slots__,
    "SavedSession": SavedSession.__slots__,
    "Stats": (
        "acknowledged", "acks_held", "bytes_received", "bytes_sent", "connects", "discarded", "dropped",
        "expired", "in_flight", "published", "queued", "queued_bytes", "received", "reconnects", "refused",
    ),
}  # fmt: skip


class Text(str):
    """What a person reads: the words may change where nothing else does. See ``--without-texts``."""

    __slots__ = ()
    hidden = False

    def __repr__(self) -> str:
        return "<text>" if Text.hidden else super().__repr__()


def facts_of(value: Any) -> Any:
    """Return what a value says, in built-in types; the order of mappings counts, that of sets does not."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    name = type(value).__name__
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, BaseException):
        shown = [one for one in ("reason_code", "retry") if hasattr(value, one)]
        return (name, Text(value), *((one, facts_of(getattr(value, one))) for one in shown))
    if isinstance(value, dict):
        return [(facts_of(key), facts_of(one)) for key, one in value.items()]
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return tuple(facts_of(one) for one in value)
    if name not in _ATTRIBUTES:
        raise TypeError(f"facts_of() does not know a {name}")
    facts = [facts_of(getattr(value, attribute)) for attribute in _ATTRIBUTES[name]]
    if name == "ClientEvent":
        facts[1] = Text(facts[1])
    return (name, *facts)


class Deliveries:
    """Notes what becomes of published messages."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._open: dict[int, tuple[Delivery, str]] = {}
        self._count = 0

    def published(self, delivery: Delivery) -> None:
        """Note a new one."""
        self._count += 1
        self._open[self._count] = delivery, delivery.state
        self._note("published", self._count, delivery.state)

    def look(self) -> None:
        """Note what has changed since."""
        for number, (delivery, before) in list(self._open.items()):
            state = delivery.state
            if state == before and not delivery.done:
                continue
            self._note("delivery", number, state, facts_of(delivery.error))
            if delivery.done:
                del self._open[number]
            else:
                self._open[number] = delivery, state


class RecordedStore(Store):
    """Passes everything on to another store, and notes it."""

    def __init__(self, store: Store, note: Note) -> None:
        self._store = store
        self._note = note
        self.on_disk = store.on_disk

    @property
    def durable_through(self) -> int:  # type: ignore[override]
        """The other store's."""
        return self._store.durable_through

    @property
    def lost_through(self) -> int:  # type: ignore[override]
        """The other store's."""
        return self._store.lost_through

    @property
    def kept(self) -> int | None:  # type: ignore[override]
        """The other store's."""
        return self._store.kept

    @property
    def backlog_bytes(self) -> int:  # type: ignore[override]
        """The other store's."""
        return self._store.backlog_bytes

    @property
    def failure(self) -> StoreError | None:  # type: ignore[override]
        """The other store's."""
        return self._store.failure

    @property
    def notice(self) -> str | None:
        """The other store's."""
        return self._store.notice

    @notice.setter
    def notice(self, notice: str | None) -> None:
        self._store.notice = notice

    @property
    def reports(self) -> deque[tuple[str, str, str | None]]:  # type: ignore[override]
        """The other store's."""
        return self._store.reports

    @property
    def on_progress(self) -> Callable[[], None] | None:
        """The other store's, which calls it."""
        return self._store.on_progress

    @on_progress.setter
    def on_progress(self, on_progress: Callable[[], None] | None) -> None:
        self._store.on_progress = on_progress

    def open(self) -> SavedSession:
        """Open the other one."""
        saved = self._store.open()
        self._note("store open", facts_of(saved))
        return saved

    def submit(self, changes: Sequence[tuple[Any, ...]], number: int) -> None:
        """Hand them on."""
        self._note("store", number, facts_of(changes))
        self._store.submit(changes, number)

    def expedite(self, number: int) -> None:
        """Hand it on."""
        self._note("expedite", number)
        self._store.expedite(number)

    def backlog_messages(self) -> int:
        """Return the other one's."""
        return self._store.backlog_messages()

    def first_unwritten(self, after: int) -> int:
        """Return the other one's."""
        return self._store.first_unwritten(after)

    def request_page(self, after: int) -> None:
        """Ask the other one."""
        self._note("page after", after)
        self._store.request_page(after)

    def take_page(self) -> list[SavedMessage] | None:
        """Return the other one's."""
        page = self._store.take_page()
        self._note("page", facts_of(page))
        return page

    def close(self) -> None:
        """Close the other one."""
        self._note("store close")
        self._store.close()
