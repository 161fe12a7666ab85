"""The handles of an event loop: the state of a delivery, and the answer to a SUBSCRIBE or UNSUBSCRIBE.

Every wait here may be cancelled at any time. That changes nothing else: the message is still delivered, the
subscription still requested, and both may be awaited again.
"""

from __future__ import annotations

from device_sdk._printable import printable
from device_sdk._weak import fresh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from device_sdk.aio.events import LoopConsumers
    from device_sdk.aio.waits import LoopWaits
    from device_sdk.engine.incoming.subscribe_request import SubscribeRequest
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.errors import DeviceSdkError

__all__ = ["AsyncDelivery", "AsyncRequest"]


class AsyncDelivery:
    """The state of one published message: :class:`~device_sdk.Delivery` with ``await``.

    For tasks of the client's loop. ``delivery`` is the handle of the same message for threads.
    """

    __slots__ = ("_waits", "delivery")

    def __init__(self, waits: LoopWaits, delivery: Delivery) -> None:
        self._waits = waits
        self.delivery = delivery

    @property
    def state(self) -> str:
        """``queued``, ``stored``, ``sent``, then ``acknowledged`` or one of ``refused``, ``expired``,
        ``dropped``, ``cancelled``, ``invalidated``. QoS 0 ends at ``sent``: it has no acknowledgement.
        """
        return self.delivery.state

    @property
    def done(self) -> bool:
        """Whether :meth:`wait` would return or raise at once."""
        return self.delivery.done

    @property
    def error(self) -> DeviceSdkError | None:
        """Why the message will not be acknowledged, or ``None``."""
        return self.delivery.error

    @property
    def topic(self) -> str:
        """The topic name."""
        return self.delivery.topic

    @property
    def payload(self) -> bytes:
        """The payload."""
        return self.delivery.payload

    @property
    def qos(self) -> int:
        """0, 1 or 2."""
        return self.delivery.qos

    @property
    def retain(self) -> bool:
        """Whether the broker keeps the message for later subscribers."""
        return self.delivery.retain

    @property
    def packet_id(self) -> int:
        """Packet identifier, 1 to 65,535, or 0 before the message is in the window and at QoS 0."""
        return self.delivery.packet_id

    @property
    def reason_code(self) -> int | None:
        """The broker's reason code, for example 0x10: nobody has subscribed; see :class:`Delivery`."""
        return self.delivery.reason_code

    @property
    def reason_string(self) -> str | None:
        """The broker's words to that, if it sent some (MQTT 5.0)."""
        return self.delivery.reason_string

    @property
    def user_properties(self) -> tuple[tuple[str, str], ...]:
        """The user properties of that answer (MQTT 5.0)."""
        return self.delivery.user_properties

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until the broker has acknowledged the message (QoS 0: until it was handed to the connection).

        Raises: TimeoutError: not within ``timeout`` seconds (``None``: no limit). PublishRefused,
        DeliveryExpiredError, DroppedError, DeliveryCancelledError, SessionLostError: it will never be
        acknowledged.
        """
        if not self.delivery.done:
            await self._waits.until_done(self.delivery, timeout)
        self._outcome("acknowledged", timeout)

    async def wait_stored(self, timeout: float | None = None) -> None:
        """Wait until the message is safe from a restart: durable in the store, or acknowledged.

        Raises: TimeoutError: not within ``timeout`` seconds. StoreError: the client has no store, or the
        store failed. Else as :meth:`wait`.
        """
        if self.delivery.done or not await self._waits.until_stored(self.delivery, timeout):
            self._outcome("stored", timeout)

    def cancel(self) -> bool:
        """Take the message back if it still waits, as :meth:`Delivery.cancel`; at once, without ``await``.

        To cancel a task that waits for a delivery is something else: the message is still sent.
        """
        return self.delivery.cancel()

    def _outcome(self, what: str, timeout: float | None) -> None:
        delivery = self.delivery
        if not delivery.done:
            why = self._waits.why if what == "acknowledged" else ""
            raise TimeoutError(printable(f"{self!r} was not {what} within {timeout:g} s{why}"))
        if delivery.error is not None:
            raise fresh(delivery.error)

    def __repr__(self) -> str:
        return f"<AsyncDelivery {self.topic!r} qos={self.qos} {self.state}>"


class AsyncRequest:
    """A SUBSCRIBE or UNSUBSCRIBE and its answer; it is sent as soon as there is a connection.

    Await the object itself, or :meth:`wait` for a limited time, or neither: it is sent in any case.
    """

    __slots__ = ("_consumers", "_request")

    def __init__(self, request: SubscribeRequest, consumers: LoopConsumers) -> None:
        self._request = request
        self._consumers = consumers

    @property
    def done(self) -> bool:
        """Whether the broker has answered, or will never answer."""
        return self._request.done

    @property
    def error(self) -> DeviceSdkError | None:
        """The exception that :meth:`wait` would raise, or ``None``."""
        return self._request.error

    @property
    def reason_codes(self) -> list[int]:
        """Once done, one code per topic filter: the granted QoS, or 0x80 and above."""
        return self._request.reason_codes

    @property
    def properties(self) -> dict[str, Any]:
        """Once done, what an MQTT 5.0 broker added: ``reason_string``, ``user_property`` as pairs."""
        return self._request.properties

    @property
    def topic_filters(self) -> list[str]:
        """The topic filters, in the order of the reason codes."""
        return self._request.topic_filters

    async def wait(self, timeout: float | None = None) -> list[int]:
        """Wait for the broker's answer and return its reason codes.

        Raises: TimeoutError: no answer within ``timeout`` seconds. SubscribeRefused: at least one topic
        filter was refused. ClosedError: the client was closed before.
        """
        if not self._request.done:
            await self._consumers.until(self._request.answered, timeout)
        return self._request.answer(timeout)

    def __await__(self) -> Generator[Any, None, list[int]]:
        return self.wait().__await__()

    def __repr__(self) -> str:
        return f"<AsyncRequest {', '.join(self.topic_filters)} {'done' if self.done else 'waits'}>"
