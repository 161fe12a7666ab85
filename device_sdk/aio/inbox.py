"""The pull inbox of an event loop: ``async for message in client.messages()``."""

from __future__ import annotations

import asyncio
import sys
from collections import deque

from device_sdk.errors import ClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future, Task
    from collections.abc import Callable
    from typing import Any

    from device_sdk.aio.events import LoopConsumers
    from device_sdk.mqtt.message import Message

__all__ = ["AsyncInbox"]


class AsyncInbox:
    """A bounded queue of messages for tasks that pull; an iterator that ends when the client is closed.

    While the program is behind, reading from the network pauses, so nothing is dropped; PINGREQ goes on.
    Several tasks may share it: each message goes to one of them, the longest waiting first.

    A QoS 1 or 2 message is acknowledged when the task that took it asks for the next one, ends, or closes the
    client. If that task is cancelled or fails while it has the message, another consumer gets it.
    """

    def __init__(self, settle: Callable[[int], None], consumers: LoopConsumers) -> None:
        self._messages: deque[Message] = deque()
        self._getters: deque[Future[None]] = deque()
        self._taken: dict[Task[Any], Message | None] = {}  # the message that each consumer is handling
        self._during: dict[
            Task[Any], BaseException
        ] = {}  # handled when it was taken: not its message's fault
        self._settle = settle
        self._consumers = consumers
        self._closed = False

    def put(self, message: Message) -> None:
        """Append a message. For the client."""
        self._messages.append(message)
        if self._getters:
            self._wake_one()

    def close(self) -> None:
        """End the iteration once the remaining messages have been taken. For the engine."""
        self._closed = True
        while self._getters:
            self._wake_one()

    async def get(self, timeout: float | None = None) -> Message:
        """Return the next message.

        Raises: TimeoutError: none within ``timeout`` seconds. ClosedError: the client is closed.
        """
        message = await self._next(timeout)
        if message is None:
            raise ClosedError("the client is closed and its inbox is empty")
        return message

    def __aiter__(self) -> AsyncInbox:
        return self

    async def __anext__(self) -> Message:
        message = await self._next(None)
        if message is None:
            raise StopAsyncIteration
        return message

    def __len__(self) -> int:
        return len(self._messages)

    async def _next(self, timeout: float | None) -> Message | None:
        """Take the next message for this task; ``None`` at the end."""
        task = asyncio.current_task()
        assert task is not None  # a running coroutine is part of a task
        try:
            last = self._taken[task]
        except KeyError:
            self._taken[task] = None
            task.add_done_callback(self._consumer_ended)
            self._consumers.register()
        else:
            if last is not None:
                self._finish(task, last)
        messages = self._messages
        if not messages:
            await self._until_ready(timeout)
            if not messages:
                return None
        message = self._taken[task] = messages.popleft()
        error = sys.exception()
        if error is not None:
            self._during[task] = error
        return message

    def settle_last(self) -> None:
        """Finish the message of the task that calls this to close the client, unless it has failed.

        And those of tasks that have ended, and whose callbacks are only about to run.
        """
        for ended in [task for task in self._taken if task.done()]:
            self._consumer_ended(ended)
        task = asyncio.current_task()
        assert task is not None  # a running coroutine is part of a task
        message = self._taken.get(task)
        if message is not None and self._during.get(task) is sys.exception():
            self._finish(task, message)

    def _finish(self, task: Task[Any], message: Message) -> None:
        self._taken[task] = None
        self._during.pop(task, None)
        if message.token is None:
            message.handled = True
        self._settle(1)

    async def _until_ready(self, timeout: float | None) -> None:
        """Wait for a message or the end. Raises: TimeoutError."""
        consumers, task = self._consumers, id(asyncio.current_task())
        try:
            if consumers.tells_hungry:
                consumers.starve(task)
            async with asyncio.timeout(timeout):
                while not self._messages and not self._closed:
                    await self._turn()
        except TimeoutError:
            if not self._messages:
                raise TimeoutError(f"no message within {timeout:g} s") from None
        finally:
            consumers.hungry.discard(task)

    async def _turn(self) -> None:
        """Wait to be woken; a task that is cancelled after that wakes the next one."""
        getter: Future[None] = asyncio.get_running_loop().create_future()
        self._getters.append(getter)
        try:
            await getter
        except asyncio.CancelledError:
            if getter in self._getters:
                self._getters.remove(getter)
            if self._messages and not getter.cancelled():
                self._wake_one()
            raise

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _consumer_ended(self, task: Task[Any]) -> None:
        message = self._taken.pop(task, None)
        self._during.pop(task, None)
        if message is None:
            return
        # Its stack tells of an exception, as exception() does, without counting that as retrieved.
        has_failed = task.cancelled() or bool(task.get_stack(limit=1))
        if has_failed and message.token is None:
            self._messages.appendleft(message)
            if self._getters:
                self._wake_one()
        else:
            if message.token is None:
                message.handled = True
            self._settle(1)
