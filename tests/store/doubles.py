"""Stores for tests: one that is slow on purpose and can lose power, and what a restart makes of the log."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from device_sdk.mqtt.session import SENT, Outgoing, Session
from device_sdk.store.base import SavedMessage, SavedSession, Store
from device_sdk.store.memory import MemoryStore

__all__ = ["SlowStore", "message_facts", "restored", "session_facts"]

Change = tuple[Any, ...]


class SlowStore(Store):
    """Makes changes durable only when the test says so, one by one, in order."""

    def __init__(self, durable: Store | None = None) -> None:
        super().__init__()
        self.durable: Store = durable or MemoryStore()
        self.reports = self.durable.reports
        self.submitted = 0
        self._pending: deque[Change] = deque()

    def open(self) -> SavedSession:
        """Return what is durable."""
        return self.durable.open()

    def submit(self, changes: Sequence[Change], number: int) -> None:
        """Take changes; they are numbered without gaps."""
        self._pending += changes
        self.submitted += len(changes)
        assert number == self.submitted, f"{self.submitted} changes were taken, the last has number {number}"

    def request_page(self, after: int) -> None:
        """Commit, so that the page reflects what was taken, and look at once."""
        self.commit()
        self.durable.request_page(after)

    def take_page(self) -> list[SavedMessage] | None:
        """Return the page, once."""
        return self.durable.take_page()

    def commit(self, count: int = 1 << 62) -> None:
        """Make this many more changes durable."""
        for _ in range(min(count, len(self._pending))):
            self.durable.submit([self._pending.popleft()], self.durable_through + 1)
            self.durable_through += 1

    def close(self) -> None:
        """Make everything durable."""
        self.commit()
        self.durable.close()

    def cut_power(self) -> Store:
        """Forget what is not durable; return the store that the next process finds."""
        self._pending.clear()
        self.durable.close()
        return self.durable


def restored(saved: SavedSession, now: float = 0.0) -> tuple[Session, list[Outgoing]]:
    """Make a session, and the queue behind it, of what a store kept, as a client does that starts."""
    session = Session(journal=True)
    waiting: list[Outgoing] = []
    for kept in saved.messages:
        message = _outgoing(kept)
        if kept.released:
            session.released[kept.packet_id] = message
        elif kept.packet_id:
            message.packet = message.encode(kept.packet_id, now)
            session.in_flight[kept.packet_id] = message
        else:
            waiting.append(message)
        session.last_packet_id = max(session.last_packet_id, kept.packet_id)
    session.received.update(dict.fromkeys(saved.received))
    return session, waiting


def _outgoing(kept: SavedMessage) -> Outgoing:
    message = Outgoing(kept.topic_field, kept.payload, kept.flags, kept.properties, kept.expires_at)
    message.sequence = kept.sequence
    message.packet_id = kept.packet_id
    if kept.packet_id:
        message.status = SENT
    return message


def message_facts(message: Outgoing | SavedMessage) -> tuple[Any, ...]:
    """Return what a message is, without the payload that nobody needs after PUBREC."""
    return message.sequence, message.packet_id, message.topic_field, message.flags, message.properties


def session_facts(session: Session) -> tuple[Any, ...]:
    """Return what two sessions must agree on to be the same one; order counts."""
    return (
        [(number, message_facts(message), message.packet) for number, message in session.in_flight.items()],
        [(number, message_facts(message)) for number, message in session.released.items()],
        {number for number, message in session.received.items() if message is None},
    )
