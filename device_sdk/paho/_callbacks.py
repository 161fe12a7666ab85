"""The callbacks of a client: attributes, decorators and methods of a subclass, and who runs them.

They are looked up when they are called, as ``self.on_...``, so that a subclass may define them as methods.
One thread at a time runs them, without any lock held that another thread could wait for.
"""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections import deque
from time import monotonic

from device_sdk.mqtt.message import Message
from device_sdk.mqtt.topics import FilterTree
from device_sdk.paho._callback_attributes import CallbackAttribute, Callbacks
from device_sdk.paho._message import Runner, message_from
from device_sdk.paho._settings import Settings
from device_sdk.paho.enums import LogLevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.paho._callback_attributes import Callback, Decorator
    from device_sdk.paho._engine import PahoEngine
    from device_sdk.paho.enums import CallbackAPIVersion

__all__ = ["CallbackRunner"]

_ROUTE_CACHE_SIZE = 1_000
_FLUSH_SECONDS = 0.005  # acknowledgements and pings of a long batch leave at least this often


class CallbackRunner(Settings):
    """The part of a client that calls the program."""

    _engine: PahoEngine
    _lock: threading.Lock
    _callback_api_version: CallbackAPIVersion

    def __init__(self, protocol: int, transport: str, userdata: Any) -> None:
        super().__init__(protocol, transport, userdata)
        self._callbacks = Callbacks()
        self._filters: dict[str, Callback] = {}
        self._tree = FilterTree()
        self._routes: dict[str, tuple[Callback, ...]] = {}
        self._todo: deque[Any] = deque()  # what is to be called, in order
        self._gate = threading.Lock()  # whoever holds it runs callbacks; nobody ever waits for it
        self._runner = Runner()
        self._acknowledges = False  # messages of QoS 1 or 2 were handled

    @property
    def callback_api_version(self) -> CallbackAPIVersion:
        """Which arguments the callbacks get."""
        return self._callback_api_version

    # Messages by topic filter

    def message_callback_add(self, sub: str, callback: Callback) -> None:
        """Call ``callback`` for messages whose topic matches, ``on_message`` only for those that match none.

        One callback for each filter; all that match are called. Raises: ValueError: one is None.
        """
        if callback is None or sub is None:
            raise ValueError("sub and callback must both be defined.")
        with self._lock:
            self._forget_filter(sub)
            self._filters[sub] = callback
            self._tree.insert(sub, callback)
            self._routes = {}

    def message_callback_remove(self, sub: str) -> None:
        """Undo :meth:`message_callback_add`. Raises: ValueError: ``sub`` is None."""
        if sub is None:
            raise ValueError("sub must defined.")
        with self._lock:
            self._forget_filter(sub)
            self._routes = {}

    def topic_callback(self, sub: str) -> Decorator:
        """As a decorator: :meth:`message_callback_add`."""

        def decorator(func: Callback) -> Callback:
            self.message_callback_add(sub, func)
            return func

        return decorator

    def _forget_filter(self, sub: str) -> None:
        callback = self._filters.pop(sub, None)
        if callback is not None:
            self._tree.remove(sub, callback)

    def _route(self, topic: str) -> tuple[Callback, ...]:
        with self._lock:
            found = tuple(self._tree.match(topic))
            if len(self._routes) >= _ROUTE_CACHE_SIZE:
                self._routes.clear()
            self._routes[topic] = found
        return found

    # Running

    def _run_callbacks(self) -> None:
        """Call what waits to be called, unless somebody does already: then they go on with it."""
        engine, gate = self._engine, self._gate
        while (self._todo or engine.callbacks_waiting()) and gate.acquire(False):
            self._runner.thread = threading.get_ident()
            try:
                while True:
                    with self._lock:
                        self._todo.extend(engine.take_callbacks())
                    if not self._todo:
                        break
                    self._run_batch()
            finally:
                self._runner.thread = 0
                gate.release()

    def _run_batch(self) -> None:
        """Call what is in the queue. What a callback raises ends this; the rest stays in the queue."""
        todo, logs = self._todo, self._wants_log()
        handled = 0
        flush_at = monotonic() + _FLUSH_SECONDS
        try:
            while todo:
                item = todo.popleft()
                if type(item) is not Message:
                    function, argument = item
                    function(argument)
                    continue
                handled += 1
                if item.token is None:
                    item.handled = True  # whatever its callback does: later ones must not wait for it
                else:
                    self._keep(item)
                if logs:
                    self._log_received(item)
                self._deliver(item)
                if item.qos:
                    self._acknowledges = True
                if handled >= 64 or item.qos:
                    now = monotonic()
                    if now >= flush_at:
                        count, handled = handled, 0
                        self._settle(count)
                        flush_at = monotonic() + _FLUSH_SECONDS
        finally:
            if handled:
                with self._lock:
                    self._engine.handled(handled)

    @abstractmethod
    def _settle(self, handled: int) -> None:
        """So many messages are handled: let acknowledgements, and what else is due, leave."""

    @abstractmethod
    def _keep(self, received: Message) -> None:
        """Keep a message that the program is to acknowledge."""

    def _deliver(self, received: Message) -> None:
        """Call whoever wants a message."""
        if self._filters:
            callbacks = self._routes.get(received.topic)
            if callbacks is None:
                callbacks = self._route(received.topic)
            if callbacks:
                message = message_from(received, self._protocol == 5)
                for callback in callbacks:
                    self._guarded(getattr(callback, "__name__", "a topic callback"), callback, message)
                return
        on_message = self.on_message
        if on_message is None:
            return
        try:
            on_message(self, self._userdata, message_from(received, self._protocol == 5))
        except Exception as error:
            self._caught("on_message", error)

    def _log_received(self, received: Message) -> None:
        self._log(
            LogLevel.MQTT_LOG_DEBUG,
            "Received PUBLISH (d%d, q%d, r%d, m%d), '%s'%s, ...  (%d bytes)",
            received.dup,
            received.qos,
            received.retain,
            received.packet_id,
            received.topic.encode("utf-8", "backslashreplace").decode(),
            f", properties={message_from(received, True).properties}" if self._protocol == 5 else "",
            len(received.payload),
        )

    def _call(self, name: str, *arguments: object) -> None:
        """Call a callback by name, if there is one."""
        callback = getattr(self, name)
        if callback is not None:
            self._guarded(name, callback, *arguments)

    def _guarded(self, name: str, callback: Callback, *arguments: object) -> None:
        try:
            callback(self, self._userdata, *arguments)
        except Exception as error:
            self._caught(name, error)

    def _caught(self, name: str, error: Exception) -> None:
        """Log what a callback raised, and raise it again if the program did not want it suppressed."""
        self._log(LogLevel.MQTT_LOG_ERR, "Caught exception in %s: %s", name, error)
        if not self.suppress_exceptions:
            raise error

    # The callbacks themselves, as attributes and as decorators

    on_log = CallbackAttribute(
        "_callbacks.on_log",
        "client, userdata, level, text: a copy of every log message.",
    )
    log_callback = on_log.decorator()
    on_pre_connect = CallbackAttribute(
        "_callbacks.on_pre_connect",
        "client, userdata: immediately before each attempt to connect; it may set a new will.",
    )
    pre_connect_callback = on_pre_connect.decorator()
    on_connect = CallbackAttribute(
        "_callbacks.on_connect",
        "client, userdata, flags, reason code, properties: the broker has accepted or refused us.",
    )
    connect_callback = on_connect.decorator()
    on_connect_fail = CallbackAttribute(
        "_callbacks.on_connect_fail",
        "client, userdata: a loop could not open the stream.",
    )
    connect_fail_callback = on_connect_fail.decorator()
    on_subscribe = CallbackAttribute(
        "_callbacks.on_subscribe",
        "client, userdata, mid, reason codes, properties: the broker has answered SUBSCRIBE.",
    )
    subscribe_callback = on_subscribe.decorator()
    on_message = CallbackAttribute(
        "_callbacks.on_message",
        "client, userdata, message: a message that no filter of message_callback_add() matches.",
    )
    message_callback = on_message.decorator()
    on_publish = CallbackAttribute(
        "_callbacks.on_publish",
        "client, userdata, mid, reason code, properties: a message is published.",
    )
    publish_callback = on_publish.decorator()
    on_unsubscribe = CallbackAttribute(
        "_callbacks.on_unsubscribe",
        "client, userdata, mid, reason codes, properties: the broker has answered UNSUBSCRIBE.",
    )
    unsubscribe_callback = on_unsubscribe.decorator()
    on_disconnect = CallbackAttribute(
        "_callbacks.on_disconnect",
        "client, userdata, flags, reason code, properties: the stream has ended.",
    )
    disconnect_callback = on_disconnect.decorator()
    on_socket_open = CallbackAttribute(
        "_callbacks.on_socket_open",
        "client, userdata, socket: the socket is open.",
    )
    socket_open_callback = on_socket_open.decorator()
    on_socket_close = CallbackAttribute(
        "_callbacks.on_socket_close",
        "client, userdata, socket: the socket is about to be closed.",
    )
    socket_close_callback = on_socket_close.decorator()
    on_socket_register_write = CallbackAttribute(
        "_callbacks.on_socket_register_write",
        "client, userdata, socket: call loop_write() when the socket is writable.",
    )
    socket_register_write_callback = on_socket_register_write.decorator()
    on_socket_unregister_write = CallbackAttribute(
        "_callbacks.on_socket_unregister_write",
        "client, userdata, socket: no more.",
    )
    socket_unregister_write_callback = on_socket_unregister_write.decorator()
