"""How deliveries end that no acknowledgement ends."""

from __future__ import annotations

from time import time

from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import ClosedError, DroppedError, SessionLostError
from device_sdk.mqtt.session import DROPPED, INVALIDATED, REFUSED, STORED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_sdk.engine.outgoing.pages import Pages
    from device_sdk.engine.outgoing.waits import Waits
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.session import Outgoing, Session
    from device_sdk.store.base import Store

__all__ = ["TOO_LATE", "Endings"]

TOO_LATE = "it expired before it could be sent"

_UNACKNOWLEDGED = "the client was closed before the message was acknowledged"


class Endings:
    """Gives deliveries their last state, has the store forget them, and wakes who waits for them.

    An acknowledgement is not here: the session ends those deliveries. The engine's lock guards it.
    """

    def __init__(self, session: Session, store: Store | None, pages: Pages, waits: Waits) -> None:
        self._session = session
        self._store = store
        self._pages = pages
        self._waits = waits
        self._left = 0  # messages that a client left when it ended
        self._undecided: list[Delivery] = []  # of these the store has not said yet whether it keeps them

    def end(self, delivery: Delivery, status: str, error: DeviceSdkError | None) -> None:
        """Give a delivery that is neither in the queue nor in the window its last state."""
        delivery.status = status
        delivery.error = error
        if self._session.journal and delivery.sequence:
            self._session.record(("done", delivery.sequence, status))
            self._pages.forget(delivery.sequence)
        if delivery.on_done is not None:  # Waits.wake() written out: this runs once a message at QoS 0
            delivery.on_done.set()

    def shelve(self, delivery: Delivery, error: DeviceSdkError) -> None:
        """Refuse a message that is neither in the queue nor in the window; a store keeps it on its shelf."""
        if self._session.journal and delivery.sequence:
            # The time of the wall, for people: nothing is decided by it.
            self._session.record(("shelved", delivery.sequence, REFUSED, str(error), time()))
            self._pages.forget(delivery.sequence)
        delivery.status = REFUSED
        delivery.error = error
        self._waits.wake(delivery)

    def invalidate(self, messages: Iterable[Outgoing]) -> None:
        """End the messages of a lost session for an application that does not want them repeated."""
        for message in messages:
            assert isinstance(message, Delivery)
            self.end(message, INVALIDATED, SessionLostError("the broker lost the session"))

    def end_all(
        self, queued: Iterable[Delivery], waiting: int, error: DeviceSdkError | None
    ) -> list[Delivery]:
        """End what a closing client leaves behind in its queue and its window; a store keeps it for the next.

        ``waiting``: messages in the queue, most of which may have no delivery. With a store everything is
        undecided until :meth:`settle`. Returns: the deliveries that were dropped.
        """
        session = self._session
        self._left = waiting + len(session)
        left = [*session.in_flight.values(), *session.released.values(), *queued]
        ended = {id(one): one for one in left if isinstance(one, Delivery) and not one.done}
        dropped: list[Delivery] = []
        for delivery in ended.values():
            if error is None and self._store is not None:
                self._undecided.append(delivery)
                continue
            delivery.error = error or DroppedError(_UNACKNOWLEDGED)
            delivery.status = DROPPED if self._store is None else STORED
            self._waits.wake(delivery)
            dropped.append(delivery)
        session.in_flight.clear()
        session.released.clear()
        return [delivery for delivery in dropped if delivery.status == DROPPED]

    def settle(self) -> int:
        """The store is closed: end what waited for that. Returns: how many messages it could not keep."""
        undecided, self._undecided = self._undecided, []
        store = self._store
        if store is None:
            return 0
        kept = ClosedError("the client was closed; the store keeps the message")
        lost = 0
        for delivery in undecided:
            if self._waits.is_durable(delivery.change):
                delivery.status, delivery.error = STORED, kept
            else:
                lost += 1
                delivery.status = DROPPED
                delivery.error = DroppedError(
                    f"the client was closed and the store could not keep the message: {store.failure}"
                )
            self._waits.wake(delivery)
        # Most messages have no delivery that anybody holds: the store knows what it keeps.
        kept_there = store.kept
        return max(lost, store.backlog_messages() if kept_there is None else self._left - kept_there)
