"""Messages that the program takes back while they wait."""

from __future__ import annotations

from device_sdk.engine.outgoing.backlog import size_of
from device_sdk.errors import DeliveryCancelledError
from device_sdk.mqtt.session import CANCELLED, QUEUED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.events import Events
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.engine.outgoing.outbox import Outbox
    from device_sdk.engine.outgoing.write_ahead import WriteAhead

__all__ = ["Cancelling"]


class Cancelling:
    """Ends messages for the program. The caller of every method holds the engine's lock."""

    __slots__ = ("__weakref__", "_events", "_journal", "_outbox")

    def __init__(self, outbox: Outbox, journal: WriteAhead | None, events: Events) -> None:
        self._outbox = outbox
        self._journal = journal
        self._events = events

    def cancel(self, delivery: Delivery) -> bool:
        """End a message if it waits; return whether it did."""
        if delivery.status != QUEUED or delivery.done:
            return False
        error = DeliveryCancelledError("the program took it back before it was sent")
        size = size_of(delivery)
        try:
            self._outbox.backlog.unmark(delivery)
            self._outbox.backlog.withdraw(delivery.sequence, size, delivery, CANCELLED, error)
            self._end(delivery, error)
        except BaseException:  # of the handler of a signal
            if delivery.error is error:
                self._end(delivery, error)
            raise
        finally:
            if delivery.error is error:
                self._events.stats.cancelled += 1
        return True

    def _end(self, delivery: Delivery, error: DeliveryCancelledError) -> None:
        """Tell who is concerned that a message is out of the backlog. Twice is as good as once."""
        self._outbox.cancelled(delivery, error)
        if self._journal is not None:
            self._journal.hand_over()
        self._events.notify("cancelled", f"{delivery.topic}: {error}", error)
