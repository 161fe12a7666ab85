"""The events that tasks of a loop wait for, and the tasks that handle received messages."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from threading import get_ident

from device_sdk.engine.consumers import Consumers

__all__ = ["LoopConsumers", "LoopEvent"]

# The clients whose messages the running code handles. A context variable, not a set of tasks: gather() and,
# before Python 3.12, wait_for() wait in tasks of their own.
_consuming: ContextVar[frozenset[int]] = ContextVar("device_sdk_consuming", default=frozenset())


class LoopConsumers(Consumers):
    """As its base class for threads, but a consumer is a task, with the tasks that it starts."""

    __slots__ = ("loop", "thread")

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.thread = 0

    def bind_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Belong to this loop, which runs in the calling thread."""
        self.loop = loop
        self.thread = get_ident()

    def event(self) -> LoopEvent:
        """Return an event for tasks of the loop."""
        return LoopEvent(self)

    def register(self) -> None:
        """Note that the calling task handles received messages from now on."""
        _consuming.set(_consuming.get() | {id(self)})

    def blocking(self) -> LoopConsumers:
        """Return the context in which the calling task waits for the broker."""
        return self

    def __enter__(self) -> None:
        if id(self) in _consuming.get():
            self.block(id(asyncio.current_task()))

    def __exit__(self, *_: object) -> None:
        self.blocked.discard(id(asyncio.current_task()))

    async def until(self, event: LoopEvent, timeout: float | None) -> None:
        """Return when the event is set, or after ``timeout`` seconds; the caller checks which it was."""
        with self.blocking():
            try:
                async with asyncio.timeout(timeout):
                    await event.wait()
            except TimeoutError:
                pass


class LoopEvent(asyncio.Event):
    """An event that other threads may set as well: the store's, or a thread that forked."""

    def __init__(self, consumers: LoopConsumers) -> None:
        super().__init__()
        self._owner = consumers

    def set(self) -> None:
        """Wake the waiting tasks. Any thread."""
        if self._owner.loop is None or self._owner.thread == get_ident():
            super().set()
            return
        try:
            self._owner.loop.call_soon_threadsafe(super().set)
        except RuntimeError:  # the loop is closed, so no task waits any more
            pass
