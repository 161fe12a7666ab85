"""Messages that no handler takes and handlers that fail: the same for every kind of client."""

from __future__ import annotations

from device_sdk.engine.events import failure_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from device_sdk.engine.events import Events
    from device_sdk.engine.incoming.router import Router
    from device_sdk.mqtt.message import Message

    Handler = Callable[[Message], object]

__all__ = ["Dispatch"]


class Dispatch:
    """Helps whoever runs the handlers. ``default_handler`` returns the client's ``on_message`` or ``None``.

    Its methods belong to the thread or task that runs the handlers, and take the lock themselves.
    """

    __slots__ = ("_default_handler", "_events", "_lock", "_reported", "_router")

    def __init__(
        self,
        lock: threading.RLock,
        router: Router,
        events: Events,
        default_handler: Callable[[], Handler | None],
    ) -> None:
        self._lock = lock
        self._router = router
        self._events = events
        self._default_handler = default_handler
        self._reported = False  # that a message had no handler; said once

    def unrouted(self, message: Message) -> tuple[Handler, ...] | None:
        """Return the handlers of a message that no subscription has one for; ``None``: it is in the inbox."""
        handler = self._default_handler()
        if handler is not None:
            return (handler,)
        inbox = self._router.inbox
        if inbox is not None:
            inbox.put(message)
            return None
        if not self._reported:
            self._reported = True
            text = f"nothing handles {message.topic}: pass on_message to subscribe() or call messages() first"
            with self._lock:
                self._events.notify("no_handler", text)
        message.acknowledge()  # with manual_ack: nobody else could
        return ()

    def failed(self, function: object, error: BaseException) -> None:
        """Report what a handler or hook raised."""
        text = failure_text(function, error)  # not under the lock: it runs code of the application
        with self._lock:
            self._events.notify("handler_failed", text, error)
