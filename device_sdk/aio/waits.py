"""The waits of tasks: until a delivery is done, or durable in the store."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.aio.driver import LoopDriver
    from device_sdk.aio.events import LoopConsumers
    from device_sdk.engine.engine import Engine
    from device_sdk.engine.outgoing.delivery import Delivery

__all__ = ["LoopWaits"]


class LoopWaits:
    """Lets tasks wait for deliveries: :class:`~device_sdk.engine.outgoing.waits.Waits` with ``await``."""

    __slots__ = ("_consumers", "_driver", "_lock", "_waits")

    def __init__(self, engine: Engine, driver: LoopDriver, consumers: LoopConsumers) -> None:
        self._lock = engine.lock
        self._waits = engine.outgoing.outbox.waits
        self._driver = driver
        self._consumers = consumers

    @property
    def why(self) -> str:
        """What to add to the error of a wait that ends, see :class:`Consumers`."""
        return self._consumers.why

    async def until_done(self, delivery: Delivery, timeout: float | None) -> None:
        """Return when the delivery is done, or after ``timeout`` seconds; the caller checks which it was."""
        with self._lock:
            event = self._waits.done_event(delivery)
        if event is not None:
            await self._consumers.until(event, timeout)

    async def until_stored(self, delivery: Delivery, timeout: float | None) -> bool:
        """Return whether the message became durable within this time, and was not done before."""
        with self._lock:
            self._waits.hurry(delivery)
        stored = await self._driver.until(lambda: self._waits.is_stored(delivery), timeout)
        return stored and not delivery.done
