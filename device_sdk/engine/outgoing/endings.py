"""How deliveries end that no acknowledgement ends."""

from __future__ import annotations

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import ClosedError, DroppedError, SessionLostError
from device_sdk.mqtt.session import DROPPED, INVALIDATED, STORED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_sdk.engine.outgoing.pages import Pages
    from device_sdk.engine.outgoing.waits import Waits
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.session import Outgoing, Session
    from device_sdk.store.base import Store

__all__ = ["Endings"]


class Endings:
    """Gives deliveries their last state, has the store forget them, and wakes who waits for them.

    An acknowledgement is not here: the session ends those deliveries. The engine's lock guards it.
    """

    def __init__(self, session: Session, store: Store | None, pages: Pages, waits: Waits) -> None:
        self._session = session
        self._store = store
        self._pages = pages
        self._waits = waits
        self._left_behind: list[Delivery] = []  # by a client that ended, until the store is closed

    def end(self, delivery: Delivery, status: str, error: DeviceSdkError | None) -> None:
        """Give a delivery that is neither in the queue nor in the window its last state."""
        delivery.status = status
        delivery.error = error
        if self._session.journal and delivery.sequence:
            self._session.record(("done", delivery.sequence, status))
            self._pages.forget(delivery.sequence)
        if delivery.on_done is not None:  # Waits.wake() written out: this runs once a message at QoS 0
            delivery.on_done.set()

    def invalidate(self, messages: Iterable[Outgoing]) -> None:
        """End the messages of a lost session for an application that does not want them repeated."""
        for message in messages:
            assert isinstance(message, Delivery)
            self.end(message, INVALIDATED, SessionLostError("the broker lost the session"))

    def end_all(self, queued: Iterable[Delivery], error: DeviceSdkError | None) -> list[Delivery]:
        """End what a closing client leaves behind in its queue and its window; a store keeps it for the next.

        Returns: the deliveries of which nothing is kept, as far as that is known before :meth:`settle`.
        """
        kept = error or ClosedError("the client was closed; the store keeps the message")
        session = self._session
        left = [*session.in_flight.values(), *session.released.values(), *queued]
        ended = {id(one): one for one in left if isinstance(one, Delivery) and not one.done}
        for delivery in ended.values():
            if error is not None or self._may_keep(delivery):
                delivery.error = kept
                delivery.status = DROPPED if self._store is None else STORED
            else:
                self._drop(delivery)
            self._waits.wake(delivery)
        session.in_flight.clear()
        session.released.clear()
        self._left_behind = list(ended.values())
        return [delivery for delivery in self._left_behind if delivery.status == DROPPED]

    def settle(self) -> list[Delivery]:
        """The store is closed: return the deliveries of which it kept nothing after all."""
        left, self._left_behind = self._left_behind, []
        lost = [one for one in left if one.status == STORED and not self._waits.is_durable(one.change)]
        for delivery in lost:
            self._drop(delivery)
        return lost

    def _may_keep(self, delivery: Delivery) -> bool:
        store = self._store
        return store is not None and (store.failure is None or self._waits.is_durable(delivery.change))

    def _drop(self, delivery: Delivery) -> None:
        why = "before the message was acknowledged"
        if self._store is not None:
            why = f"and the store could not keep the message: {self._store.failure}"
        delivery.status = DROPPED
        delivery.error = DroppedError(f"the client was closed {why}")
