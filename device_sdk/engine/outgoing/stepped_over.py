"""Messages that wait and are not the next to be sent, although it would be their turn."""

from __future__ import annotations

from device_sdk.mqtt.session import QUEUED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque

    from device_sdk.engine.outgoing.backlog import Backlog
    from device_sdk.engine.outgoing.delivery import Delivery

__all__ = ["SteppedOver"]


class SteppedOver:
    """Messages taken out of the lanes of a backlog, which counts them as before, until they :meth:`rejoin`.

    Not thread-safe: the engine's lock guards it.
    """

    __slots__ = ("_backlog",)

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def __len__(self) -> int:
        return len(self._backlog.stepped)

    def first(self) -> Delivery | None:
        """Return the message that is to be sent next, as far as it is in memory."""
        for lane in (self._backlog.live, self._backlog.queue):
            while lane and lane[0].status != QUEUED:
                lane.popleft()  # replaced by a newer one, and counted then
            if lane:
                return lane[0]
        return None

    def add_first(self) -> None:
        """Take the first message out of the way."""
        lane = self._lane
        self._backlog.stepped.append((lane is self._backlog.live, lane.popleft()))

    def take_out(self, delivery: Delivery) -> None:
        """Take a message out of the backlog, wherever it waits there."""
        backlog = self._backlog
        kept = [(is_live, one) for is_live, one in backlog.stepped if one is not delivery]
        lanes = (lane for lane in (backlog.live, backlog.queue) if delivery in lane)
        if len(kept) < len(backlog.stepped):
            backlog.stepped[:] = kept
        elif (lane := next(lanes, None)) is not None:
            lane.remove(delivery)
        else:
            backlog.pop(delivery.sequence)
            return
        backlog.left(delivery, backlog.queue)

    def rejoin(self) -> None:
        """Put all of them back to their places."""
        backlog = self._backlog
        while backlog.stepped:
            is_live, message = backlog.stepped.pop()
            (backlog.live if is_live else backlog.queue).appendleft(message)
            if message.expires_at is not None:
                backlog.note_expiry(message.expires_at)

    @property
    def _lane(self) -> deque[Delivery]:
        return self._backlog.live or self._backlog.queue
