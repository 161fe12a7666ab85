"""The way of the session's changes into the store: written before the packets that depend on them leave.

Source: docs/store.md on what "stored" means, and decision 0016. While a store fails nothing is held back.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.events import Events
    from device_sdk.engine.outgoing.outbox import Outbox
    from device_sdk.errors import StoreError
    from device_sdk.mqtt.session import Session
    from device_sdk.store.base import Store

__all__ = ["OPEN_GATES", "WriteAhead"]

#: Above every change number: a failed or absent store holds nothing back.
OPEN_GATES = 1 << 62


class WriteAhead:
    """Hands the changes of one session to its store, which writes them in its own time.

    The caller of every method but :meth:`close` holds the engine's lock; none of them waits for the disk.
    """

    __slots__ = ("_events", "_failing", "_outbox", "_session", "_store")

    def __init__(self, store: Store, session: Session, outbox: Outbox, events: Events) -> None:
        self._store = store
        self._session = session
        self._outbox = outbox
        self._events = events
        self._failing = False  # as far as it has been reported

    def durable_through(self) -> int:
        """Return the number of the last change that bytes need not wait for any more."""
        store = self._store
        return OPEN_GATES if store.failure is not None else store.durable_through

    def hand_over(self) -> None:
        """Give the store the changes since the last call, and ask it for more of a queue that runs low."""
        session, store = self._session, self._store
        changes = session.take_changes()
        if changes:
            store.submit(changes, session.change_number)
            self._outbox.waits.stored()
        self._outbox.request_page()
        if (store.failure is not None) is not self._failing or store.reports:
            self.report()

    @property
    def failure(self) -> StoreError | None:
        """Why the store cannot write, or ``None``: it can."""
        return self._store.failure

    def expedite(self, change: int) -> None:
        """Have the store write through this change without waiting for its batch: somebody waits for it."""
        self._store.expedite(change)

    def progressed(self) -> None:
        """Wake those who wait for what the store has written, and report how it is."""
        self._outbox.waits.stored()
        self.report()

    def report(self) -> None:
        """Report what became of the store: it fails, works again, has a new file or something to say."""
        store = self._store
        if store.notice is not None:
            text, store.notice = store.notice, None
            self._events.notify("store_replaced", text)
        while store.reports:
            kind, text, value = store.reports.popleft()
            self._events.notify(kind, text, value=value)
        if (store.failure is not None) is self._failing:
            return
        self._failing = store.failure is not None
        if store.failure is not None:
            text = f"{store.failure}; messages are kept in memory until it can write again"
            self._events.notify("store_failed", text, store.failure)
        else:
            text = "the store can write again; nothing that was kept is missing"
            self._events.notify("store_recovered", text)

    def close(self) -> None:
        """Write what is left and close the store. Blocks; without the lock."""
        self._store.close()
        self._store.on_progress = None  # it would keep the engine alive
