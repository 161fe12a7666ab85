"""Waiting in an event loop: for the end of a delivery, the answer to a request, or any event of the engine.

Whatever is awaited here may be cancelled at any time. A cancelled wait changes nothing: the message is still
delivered, the subscription still asked for, and both may be waited for again.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from threading import get_ident

from device_sdk.engine.waiting import Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

    from device_sdk.aio.client import AsyncClient
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.engine.router import Request
    from device_sdk.errors import DeviceSdkError

__all__ = ["AsyncDelivery", "AsyncRequest", "LoopEvent", "LoopWaiting"]

# Of which clients the code that runs handles messages. A variable of the context and not a set of tasks:
# gather() and, before Python 3.12, wait_for() do the waiting in tasks of their own.
_consuming: ContextVar[frozenset[int]] = ContextVar("device_sdk_consuming", default=frozenset())


class LoopWaiting(Waiting):
    """As its base class for threads, but a consumer is a task, with the tasks that it starts."""

    __slots__ = ("loop", "thread")

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = 0

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to this loop, which runs in the calling thread."""
        self.loop = loop
        self.thread = get_ident()

    def event(self) -> LoopEvent:
        """Return an event for tasks of the loop."""
        return LoopEvent(self)

    def consume(self) -> None:
        """The calling task handles received messages from now on."""
        _consuming.set(_consuming.get() | {id(self)})

    def __enter__(self) -> None:
        if id(self) in _consuming.get():
            self._inside.add(id(asyncio.current_task()))
            if self.wake is not None:
                self.wake()

    def __exit__(self, *_: object) -> None:
        self._inside.discard(id(asyncio.current_task()))

    async def until(self, event: LoopEvent, timeout: float | None) -> None:
        """Return when the event is set, or after ``timeout`` seconds: the caller looks which it was."""
        with self:
            try:
                async with asyncio.timeout(timeout):
                    await event.wait()
            except TimeoutError:
                pass


class LoopEvent(asyncio.Event):
    """An event that also other threads may set: that of a store, or one that forked."""

    def __init__(self, waiting: LoopWaiting) -> None:
        super().__init__()
        self._owner = waiting

    def set(self) -> None:
        """Wake who waits; from any thread."""
        if self._owner.loop is None or self._owner.thread == get_ident():
            super().set()
            return
        try:
            self._owner.loop.call_soon_threadsafe(super().set)
        except RuntimeError:  # the loop is closed, so nobody waits any more
            pass


class AsyncDelivery:
    """What became of one published message: :class:`~device_sdk.Delivery` with ``await``.

    For tasks of the client's loop.
    """

    __slots__ = ("_client", "_delivery")

    def __init__(self, client: AsyncClient, delivery: Delivery) -> None:
        self._client = client
        self._delivery = delivery

    @property
    def state(self) -> str:
        """``queued``, ``stored``, ``sent``, then ``acknowledged`` or one of ``refused``, ``expired``,
        ``dropped``, ``invalidated``. QoS 0 ends at ``sent``: nobody acknowledges it.
        """
        return self._delivery.state

    @property
    def done(self) -> bool:
        """Whether :meth:`wait` would return or raise at once."""
        return self._delivery.done

    @property
    def error(self) -> DeviceSdkError | None:
        """Why the message will not be acknowledged, or ``None``."""
        return self._delivery.error

    @property
    def topic(self) -> str:
        """The topic name."""
        return self._delivery.topic

    @property
    def payload(self) -> bytes:
        """The payload."""
        return self._delivery.payload

    @property
    def qos(self) -> int:
        """0, 1 or 2."""
        return self._delivery.qos

    @property
    def retain(self) -> bool:
        """Whether the server keeps the message for later subscribers."""
        return self._delivery.retain

    @property
    def packet_id(self) -> int:
        """Packet identifier, 1 to 65,535, or 0 before the message is in the window and at QoS 0."""
        return self._delivery.packet_id

    async def wait(self, timeout: float | None = None) -> None:
        """Wait until the broker has acknowledged the message (QoS 0: until it was handed to the connection).

        Raises: TimeoutError: not within ``timeout`` seconds (``None``: no limit). PublishRefused,
        DeliveryExpiredError, DroppedError, SessionLostError: it never will be.
        """
        if not self._delivery.done:
            await self._client._until_done(self._delivery, timeout)
        self._outcome("acknowledged", timeout)

    async def wait_stored(self, timeout: float | None = None) -> None:
        """Wait until the message survives a restart, or was acknowledged, which is better still.

        Raises: TimeoutError: not within ``timeout`` seconds. StoreError: the client has no store, or the
        store failed. Else as :meth:`wait`.
        """
        if self._delivery.done or not await self._client._until_stored(self._delivery, timeout):
            self._outcome("stored", timeout)

    def _outcome(self, what: str, timeout: float | None) -> None:
        delivery = self._delivery
        if not delivery.done:
            raise TimeoutError(f"{self!r} was not {what} within {timeout:g} s")
        if delivery.error is not None:
            raise delivery.error

    def __repr__(self) -> str:
        return f"<AsyncDelivery {self.topic!r} qos={self.qos} {self.state}>"


class AsyncRequest:
    """A SUBSCRIBE or UNSUBSCRIBE and its answer; it is sent as soon as there is a connection.

    Await the object itself, or :meth:`wait` for a limited time, or neither: the client goes on asking.
    """

    __slots__ = ("_request", "_waiting")

    def __init__(self, request: Request, waiting: LoopWaiting) -> None:
        self._request = request
        self._waiting = waiting

    @property
    def done(self) -> bool:
        """Whether the broker has answered, or never will."""
        return self._request.done

    @property
    def error(self) -> DeviceSdkError | None:
        """What :meth:`wait` would raise, or ``None``."""
        return self._request.error

    @property
    def reason_codes(self) -> list[int]:
        """Once done, one code per topic filter: the granted QoS, or 0x80 and above."""
        return self._request.reason_codes

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
            await self._waiting.until(self._request._done, timeout)
        return self._request.answer(timeout)

    def __await__(self) -> Generator[Any, None, list[int]]:
        return self.wait().__await__()

    def __repr__(self) -> str:
        return f"<AsyncRequest {', '.join(self.topic_filters)} {'done' if self.done else 'waits'}>"
