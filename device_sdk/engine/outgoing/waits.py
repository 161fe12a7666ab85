"""Blocking until a delivery is done or durable, or until the queue has room."""

from __future__ import annotations

import threading

from device_sdk._weak import fresh
from device_sdk.engine.reentry import refuse_reentry
from device_sdk.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from device_sdk.engine.consumers import Consumers
    from device_sdk.errors import DeviceSdkError
    from device_sdk.store.base import Store

    class Settable(Protocol):
        """An event, or an object that is told like one."""

        def set(self) -> None:
            """The delivery is done. Called once, in any thread, with the engine's lock held."""

    class Awaited(Protocol):
        """The members of a delivery that count here."""

        change: int  # the number under which a store has it
        on_done: Settable | None  # told when it is done

        @property
        def done(self) -> bool:
            """Whether it has its last state."""


__all__ = ["Waits"]


class Waits:
    """What a delivery needs of its client, and where the threads that block on the queue wait.

    A delivery refers to this object and not to the outbox: an outbox holds deliveries, and a reference back
    would keep a dropped client in memory until the collector runs.

    :meth:`wait_done`, :meth:`wait_stored` and :meth:`cancel` take the engine's lock; the caller of the
    others holds it.
    """

    def __init__(self, lock: threading.RLock, store: Store | None, consumers: Consumers) -> None:
        self.blocked = 0  # threads that wait for room
        self._lock = lock
        self._store = store
        self._consumers = consumers
        self._room = threading.Condition(lock)
        self._durable = threading.Condition(lock)
        self._durable_waiters = 0  # threads in wait_stored()
        self._cancel: Callable[[Any], bool] | None = None

    # For a delivery

    def wait_done(self, delivery: Awaited, timeout: float | None) -> bool:
        """Block until the delivery is done; False after ``timeout`` seconds."""
        refuse_reentry(self._lock, "wait()")
        with self._lock:
            event = self.done_event(delivery)
        return event is None or self._consumers.wait(event.wait, timeout)

    def done_event(self, delivery: Awaited) -> Any:
        """Return the event of a delivery that is set when it is done, or ``None``: it is."""
        if delivery.done:
            return None
        if delivery.on_done is None:  # else of another thread that waits for it
            delivery.on_done = self._consumers.event()
        return delivery.on_done

    def wait_stored(self, delivery: Awaited, timeout: float | None) -> bool:
        """Block until the delivery is durable or done; False after ``timeout`` seconds."""
        refuse_reentry(self._lock, "wait_stored()")
        with self._lock:
            self.hurry(delivery)
            self._durable_waiters += 1
            try:
                return self._durable.wait_for(lambda: self.is_stored(delivery), timeout)
            finally:
                self._durable_waiters -= 1

    def let_cancel(self, cancel: Callable[[Any], bool] | None) -> None:
        """Have :meth:`cancel` call this; ``None``: it is too late for all deliveries."""
        self._cancel = cancel

    def cancel(self, delivery: Awaited) -> bool:
        """End a delivery whose message waits; return whether it did."""
        refuse_reentry(self._lock, "cancel()")
        looks_again = True
        try:
            with self._lock:
                looks_again = self._cancel is not None and bool(self._cancel(delivery))
            return looks_again
        finally:
            if looks_again:
                self._consumers.look_again()

    def hurry(self, delivery: Awaited) -> None:
        """Have a delivery made durable soon. Raises: StoreError: there is no store."""
        if self._store is None:
            raise StoreError("this client keeps its queue in memory; give it store=... to survive a restart")
        self._store.expedite(delivery.change)

    def is_stored(self, delivery: Awaited) -> bool:
        """Whether a delivery is durable or done. Raises: StoreError: the store failed."""
        if delivery.done or self.is_durable(delivery.change):
            return True
        if self._store is not None and self._store.failure is not None:
            raise fresh(self._store.failure)
        return False

    def is_durable(self, change: int) -> bool:
        """Whether the change with this number would survive a restart; without a store nothing does."""
        store = self._store
        return store is not None and store.lost_through < change <= store.durable_through

    # For a publisher that meets a full queue

    def wait_room(self, timeout: float) -> bool:
        """Block, with the lock released meanwhile, until there is room; False after ``timeout`` seconds."""
        self.blocked += 1
        try:
            return self._consumers.wait(self._room.wait, timeout)
        finally:
            self.blocked -= 1

    # Who wakes them

    def explain(self, failure: DeviceSdkError | None) -> None:
        """Note why there is no connection, for the error of a wait that ends; ``None``: there is one."""
        self._consumers.explain(failure)

    @property
    def why(self) -> str:
        """What to add to the error of a wait that ends, see :class:`Consumers`."""
        return self._consumers.why

    def wake(self, delivery: Awaited) -> None:
        """A delivery is done: tell who waits for it."""
        if delivery.on_done is not None:
            delivery.on_done.set()

    def stored(self) -> None:
        """The store moved on, or deliveries ended: wake the threads in :meth:`wait_stored`."""
        if self._durable_waiters:
            self._durable.notify_all()

    def made_room(self) -> None:
        """A message left the queue: wake the threads in :meth:`wait_room`."""
        self._room.notify_all()
