"""A message that comes to a full queue, or makes an older one useless: what has to go for it."""

from __future__ import annotations

from device_sdk.errors import DroppedError, QueueFullError
from device_sdk.mqtt.session import DROPPED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.engine.outgoing.backlog import Backlog
    from device_sdk.engine.outgoing.bounds import Bounds
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.engine.outgoing.endings import Endings
    from device_sdk.errors import DeliveryError
    from device_sdk.mqtt.session import Session

__all__ = ["Overflow"]

_NO_ROOM = "wait for acknowledgements or choose another overflow"
_STORE_LATE = "the store is too slow or cannot write"
_OUTDATED = "a newer message on its topic replaced it (keep_last)"


class Overflow:
    """Ends messages for a new one, as the policy says. The engine's lock guards it.

    ``unheld``: how many messages ended without a delivery that anybody holds, by their last state, until they
    are reported. Of a message that only the store holds the topic is not known either.
    """

    __slots__ = ("_backlog", "_bounds", "_endings", "_policy", "_session", "unheld")

    def __init__(
        self, policy: str, session: Session, backlog: Backlog, bounds: Bounds, endings: Endings
    ) -> None:
        self.unheld: dict[str, int] = {}
        self._policy = policy
        self._session = session
        self._backlog = backlog
        self._bounds = bounds
        self._endings = endings

    def make_room(
        self,
        delivery: Delivery,
        size: int,
        take_page: Callable[[float], bool],
        now: float,
        dropped: list[Delivery],
    ) -> bool:
        """End the oldest messages for this one of ``size`` bytes, or this one; False: the latter.

        ``take_page`` continues the queue with what the store has read; ``dropped`` gets the deliveries.
        Raises: QueueFullError: the policy is to reject; larger than the whole queue.
        """
        bounds, policy = self._bounds, self._policy
        if size > bounds.max_bytes:
            raise QueueFullError(
                f"payload: a message of {size} bytes does not fit into a queue of {bounds.max_bytes} bytes"
            )
        behind = bounds.store_is_behind(size, delivery.topic_field)
        if policy == "reject":
            raise QueueFullError(bounds.text(_STORE_LATE if behind else _NO_ROOM))
        if policy == "drop_newest" or (behind and not self._drop_unwritten(size, dropped)):
            return self._drop_newest(delivery, dropped)
        before = self._backlog.messages, self._backlog.bytes
        while bounds.is_full(size, delivery.topic_field, in_memory=False):
            while self._backlog.oldest_is_unread() and take_page(now):
                pass
            why = bounds.text("the oldest message was dropped")  # while it is there still
            oldest = self._backlog.pop_oldest()
            if oldest is None:
                return self._is_smaller(size, before) or self._drop_newest(delivery, dropped)
            self.end(oldest, DROPPED, DroppedError(why), dropped)
        return True

    def outdate(self, topic_field: bytes, dropped: list[Delivery]) -> None:
        """End the message that waits on a topic of ``keep_last`` for a newer one."""
        backlog = self._backlog
        found = None if backlog.keep_last is None else backlog.keep_last.pop(topic_field)
        if found is not None:
            sequence, size = found
            older = backlog.pages.find(sequence)
            error = DroppedError(_OUTDATED)
            backlog.withdraw(sequence, size, older, DROPPED, error)
            self.end((sequence, older), DROPPED, error, dropped)
            backlog.tidy()

    def take_unheld(self) -> dict[str, int]:
        """Return how many messages without a delivery have ended that were not reported yet."""
        unheld, self.unheld = self.unheld, {}
        return unheld

    def _is_smaller(self, size: int, before: tuple[int, int]) -> bool:
        """Whether the queue is not larger than before, with a message of this size.

        An earlier process may have left more than fits, and the store has not read what it left.
        """
        return self._backlog.messages < before[0] and self._backlog.bytes + size <= before[1]

    def _drop_unwritten(self, size: int, dropped: list[Delivery]) -> bool:
        """Drop the oldest messages that are only in memory, for so many bytes; False: one is not known."""
        backlog, bounds, sequence = self._backlog, self._bounds, 0
        while size > 0 and (sequence := bounds.first_unwritten(sequence)):
            before = backlog.bytes
            why = bounds.text(f"{_STORE_LATE}: the oldest message in memory was dropped")
            found = backlog.pop(sequence)
            if found is None:
                return False
            size -= before - backlog.bytes
            self.end(found, DROPPED, DroppedError(why), dropped)
        return True

    def _drop_newest(self, delivery: Delivery, dropped: list[Delivery]) -> bool:
        why = self._bounds.text("the new message was dropped")
        self._endings.end(delivery, DROPPED, DroppedError(why))
        dropped.append(delivery)
        return False

    def end(
        self,
        found: tuple[int, Delivery | None],
        status: str,
        error: DeliveryError,
        ended: list[Delivery],
    ) -> None:
        """End a message that was taken from the backlog; ``ended`` gets its delivery if anybody holds it."""
        sequence, delivery = found
        if delivery is not None:
            self._endings.end(delivery, status, error)
            ended.append(delivery)
            return
        self._session.record(("done", sequence, status))
        self._backlog.pages.forget(sequence)
        self.unheld[status] = self.unheld.get(status, 0) + 1
