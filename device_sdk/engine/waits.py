"""Waiting for what becomes of a delivery, or for room in the queue; what a closed store has made of it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from device_sdk.errors import DroppedError, QueueFullError, StoreError
from device_sdk.mqtt.session import DROPPED, STORED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.delivery import Delivery
    from device_sdk.engine.waiting import Waiting
    from device_sdk.store.base import Store

__all__ = ["Waits"]


class Waits(ABC):
    """Lets threads wait until a delivery is done or durable, or the queue has room.

    ``wait_done()`` and ``wait_stored()`` take the engine's lock, for the others it is held.
    """

    def __init__(self, lock: threading.Lock, store: Store | None, waiting: Waiting) -> None:
        self._lock = lock
        self._store = store
        self._waiting = waiting
        self.blocked = 0  # threads that wait for room
        self._room = threading.Condition(lock)
        self._durable_wait = threading.Condition(lock)
        self._durable_waiters = 0  # threads in wait_stored()
        self._left_behind: list[Delivery] = []  # by a client that ended, until the store is closed

    def wait_done(self, delivery: Delivery, timeout: float | None) -> bool:
        """Block until the delivery is done; False after ``timeout`` seconds."""
        with self._lock:
            if delivery.done:
                return True
            if delivery._waiter is None:
                delivery._waiter = threading.Event()
            waiter = delivery._waiter
        with self._waiting:
            return waiter.wait(timeout)

    def wait_stored(self, delivery: Delivery, timeout: float | None) -> bool:
        """Block until the delivery is durable or done; False after ``timeout`` seconds."""
        with self._lock:
            self.hurry(delivery)
            self._durable_waiters += 1
            try:
                return self._durable_wait.wait_for(lambda: self.is_stored(delivery), timeout)
            finally:
                self._durable_waiters -= 1

    def hurry(self, delivery: Delivery) -> None:
        """Have a delivery made durable soon. Raises: StoreError: there is no store. Holds the lock."""
        if self._store is None:
            raise StoreError("this client keeps its queue in memory; give it store=... to survive a restart")
        self._store.expedite(delivery.change)

    def is_stored(self, delivery: Delivery) -> bool:
        """Whether a delivery is durable or done. Raises: StoreError: the store failed. Holds the lock."""
        return delivery.done or self._checked_durable(delivery.change)

    def is_durable(self, change: int) -> bool:
        """Whether the change with this number would survive a restart; without a store nothing does."""
        store = self._store
        return store is not None and store.durable_through >= change

    def _checked_durable(self, change: int) -> bool:
        if self.is_durable(change):
            return True
        if self._store is not None and self._store.failure is not None:
            raise self._store.failure
        return False

    def wake(self, delivery: Delivery) -> None:
        """Wake the threads in :meth:`Delivery.wait`."""
        if delivery._waiter is not None:
            delivery._waiter.set()

    def stored(self) -> None:
        """The store moved on, or deliveries ended: wake who waits for either."""
        if self._durable_waiters:
            self._durable_wait.notify_all()

    def wait_room(self, timeout: float) -> None:
        """Block, with the lock released meanwhile, until a message has left the queue.

        Raises: QueueFullError: none did within ``timeout`` seconds. The caller holds the lock.
        """
        self.blocked += 1
        try:
            with self._waiting:
                if not self._room.wait(timeout):
                    raise QueueFullError(self._bounds("no room in time"))
        finally:
            self.blocked -= 1

    def made_room(self) -> None:
        """Wake the threads that wait for room."""
        self._room.notify_all()

    @abstractmethod
    def _bounds(self, hint: str) -> str:
        """Say how full the queue is."""

    # The end

    def settle(self) -> list[Delivery]:
        """The store is closed: return the deliveries of which it kept nothing after all."""
        left, self._left_behind = self._left_behind, []
        lost = [one for one in left if one.status == STORED and not self.is_durable(one.change)]
        for delivery in lost:
            self._drop_at_end(delivery)
        return lost

    def _may_keep(self, delivery: Delivery) -> bool:
        store = self._store
        return store is not None and (store.failure is None or self.is_durable(delivery.change))

    def _drop_at_end(self, delivery: Delivery) -> None:
        store = self._store
        why = "before the message was acknowledged"
        if store is not None:
            why = f"and the store could not keep the message: {store.failure}"
        delivery.status = DROPPED
        delivery.error = DroppedError(f"the client was closed {why}")
