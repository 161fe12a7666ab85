"""The pull inbox of a thread client: ``for message in client.messages()``."""

from __future__ import annotations

import sys
import threading
from collections import deque

from device_sdk.errors import ClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_sdk.engine.consumers import Consumers
    from device_sdk.mqtt.message import Message

__all__ = ["Inbox"]


class Inbox:
    """A bounded queue of messages for programs that pull; an iterator that ends when the client is closed.

    Reading from the network pauses while the program is behind, so nothing is dropped. A QoS 1 or 2 message
    counts as handled when the next one is asked for, or when the thread that took it closes the client and no
    exception is on its way. Several threads may share it.

    ``settle(count)`` is called after that, without a lock: acknowledgements may leave.
    """

    def __init__(self, settle: Callable[[int], None], consumers: Consumers) -> None:
        self._messages: deque[Message] = deque()
        self._ready = threading.Condition()
        self._settle = settle
        self._consumers = consumers
        self._taken = threading.local()
        self._closed = False

    def put(self, message: Message) -> None:
        """Append a message. For the engine."""
        with self._ready:
            self._messages.append(message)
            self._ready.notify()

    def close(self) -> None:
        """End the iteration once the messages that are there have been taken. For the engine."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def get(self, timeout: float | None = None) -> Message:
        """Return the next message.

        Raises: TimeoutError: none within ``timeout`` seconds. ClosedError: the client is closed.
        """
        self._consumers.register()
        self._finish_last()
        consumers = self._consumers
        with self._ready:
            try:
                if consumers.tells_hungry and not self._messages:
                    consumers.starve(threading.get_ident())
                if not self._ready.wait_for(lambda: self._messages or self._closed, timeout):
                    raise TimeoutError(f"no message within {timeout:g} s")
            finally:
                consumers.hungry.discard(threading.get_ident())
            if not self._messages:
                raise ClosedError("the client is closed and its inbox is empty")
            message = self._messages.popleft()
        self._taken.message = message, sys.exception()  # which has nothing to do with the message
        return message

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        try:
            return self.get()
        except ClosedError:
            raise StopIteration from None

    def __len__(self) -> int:
        return len(self._messages)

    def settle_last(self) -> None:
        """Finish the message of the thread that calls this to close the client, unless it has failed."""
        taken = getattr(self._taken, "message", None)
        if taken is not None and taken[1] is sys.exception():
            self._finish_last()

    def _finish_last(self) -> None:
        taken = getattr(self._taken, "message", None)
        if taken is not None:
            self._taken.message = None
            message = taken[0]
            if message.token is None:
                message.handled = True
            self._settle(1)
