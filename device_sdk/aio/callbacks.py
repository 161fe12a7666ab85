"""The one task that runs handlers and hooks: plain functions at once, coroutine functions to their end."""

from __future__ import annotations

import asyncio
import sys
from inspect import isawaitable
from time import monotonic

from device_sdk._log import Log
from device_sdk.engine.events import ClientEvent, failure_text
from device_sdk.engine.incoming.dispatch import Dispatch
from device_sdk.mqtt.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future, Task
    from collections.abc import Callable
    from typing import Any

    from device_sdk.engine.engine import Engine

    Handler = Callable[[Message], object]

__all__ = ["Callbacks"]

_TURN_SECONDS = 0.005  # plain handlers let the rest of the loop run, and acknowledgements leave, this often
_CANCEL_SECONDS = 0.5  # time for a handler to end after it was cancelled

log = Log("device_sdk.aio")


class Callbacks:
    """Runs handlers and hooks, one at a time, in the order of events.

    ``finished`` is called with the number of messages that were handled, ``loop_ends`` when the task was
    cancelled from outside, as :func:`asyncio.run` does at its end.
    """

    def __init__(
        self,
        engine: Engine,
        default_handler: Callable[[], Handler | None],
        finished: Callable[[int], None],
        loop_ends: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._dispatch = Dispatch(engine.lock, engine.incoming.router, engine.events, default_handler)
        self._finished = finished
        self._loop_ends = loop_ends
        self._task: Task[None] | None = None
        self._idle: Future[None] | None = None  # while there is nothing to do
        self._stopping = False
        self._current: Message | None = None  # that of the handlers which run

    def start(self) -> None:
        """Start the task in the running loop."""
        self._stopping = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="device-sdk callbacks")

    def wake(self) -> None:
        """Wake the task: there is a handler or hook to run."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def is_current(self) -> bool:
        """Whether the caller runs in this task, that is, inside a handler."""
        return self._task is not None and asyncio.current_task() is self._task

    def finish(self) -> None:
        """Let the task run the waiting hooks, and end.

        Waiting messages are not handled: they could no longer be acknowledged.
        """
        self._stopping = True
        self.wake()

    async def stop(self, seconds: float) -> None:
        """As :meth:`finish`, and wait for the end; a handler that takes longer than that is cancelled."""
        task = self._task
        self.finish()
        if task is None or self.is_current():
            return
        _, late = await asyncio.wait({task}, timeout=seconds)
        if late:
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_SECONDS)

    async def _run(self) -> None:
        self._engine.consumers.register()
        try:
            while True:
                with self._engine.lock:
                    batch = self._engine.events.take()
                if batch:
                    await self._run_batch(batch)
                elif self._stopping:
                    return
                else:
                    self._idle = asyncio.get_running_loop().create_future()
                    await self._idle
                    self._idle = None
        except BaseException:
            if not self._stopping:
                self._loop_ends()
            self._run_plain_hooks()
            raise

    async def _run_batch(self, batch: list[Any]) -> None:
        """Run one batch, and report the number of handled messages: before each wait, and at the end."""
        handled = 0
        turn_at = monotonic() + _TURN_SECONDS
        router = self._engine.incoming.router
        route, identified = router.route, router.identifiers is not None
        for item in batch:
            if type(item) is not Message:
                await self._call(*item)
                continue
            if self._stopping:
                handled += 1  # no longer in hand; without its mark it is not acknowledged
                continue
            found = router.route_identified(item) if identified else route(item.topic)
            handlers = found or self._dispatch.unrouted(item)
            if handlers is None:
                continue  # in the pull inbox: the program acknowledges it by taking the next one
            self._current = item
            for handler in handlers:
                try:
                    result = handler(item)
                    if result is not None and isawaitable(result):
                        self._finished(handled)
                        handled = 0
                        await self._finish(result)
                except (Exception, asyncio.CancelledError) as error:
                    self._report(handler, error)
            if item.token is None:
                item.handled = True
            handled += 1
            if monotonic() >= turn_at:
                self._finished(handled)
                handled = 0
                await asyncio.sleep(0)
                turn_at = monotonic() + _TURN_SECONDS
        self._current = None
        self._finished(handled)

    def settle_current(self) -> None:
        """The handler that calls this ends the client: its message is finished, unless it has failed."""
        message = self._current
        if message is not None and message.token is None and sys.exception() is None:
            message.handled = True
            self._finished(0)

    async def _call(self, function: Callable[[Any], object], argument: object) -> None:
        """Run a hook; an exception in it is reported and not raised."""
        try:
            result = function(argument)
            if result is not None and isawaitable(result):
                await self._finish(result)
        except (Exception, asyncio.CancelledError) as error:
            if type(argument) is ClientEvent and not self._is_cancelled():
                self._engine.events.reporter.hook_failed(argument, error)
            else:
                self._report(function, error)

    async def _finish(self, result: Any) -> None:
        """Await the result of a handler. Raises: CancelledError, even if the handler suppressed it."""
        await result
        if self._is_cancelled():
            raise asyncio.CancelledError

    def _report(self, function: object, error: BaseException) -> None:
        """Report an exception of a handler. Raises: CancelledError: this task itself was cancelled."""
        if self._is_cancelled():
            if not isinstance(error, asyncio.CancelledError):
                log.warning("%s while it was cancelled", failure_text(function, error), error=error)
            raise asyncio.CancelledError
        self._dispatch.failed(function, error)

    def _run_plain_hooks(self) -> None:
        """At the end of the loop, run the hooks that need no task, so that losses are still reported."""
        with self._engine.lock:
            batch = self._engine.events.take()
        for item in batch:
            if type(item) is Message:
                continue
            function, argument = item
            try:
                result = function(argument)
            except Exception as error:
                log.warning("%s", failure_text(function, error), error=error)
                continue
            if asyncio.iscoroutine(result):
                result.close()

    def _is_cancelled(self) -> bool:
        return self._task is not None and self._task.cancelling() > 0
