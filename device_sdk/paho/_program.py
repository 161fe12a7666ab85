"""The program behind a client: its callbacks, its log, and exceptions in either.

A callback gets the client and is looked up there, so that a subclass may define it as a method. This is the
only part that knows the client, and its reference is weak: dropping the client ends everything at once.
"""

from __future__ import annotations

import logging
import threading
import weakref

from device_sdk._log import shown
from device_sdk.mqtt.topics import FilterTree
from device_sdk.paho._attributes import Callbacks
from device_sdk.paho._codes import LOGGING_LEVEL
from device_sdk.paho._message import MQTTMessage, message_from
from device_sdk.paho.enums import LogLevel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.mqtt.message import Message
    from device_sdk.paho._attributes import Callback
    from device_sdk.paho.enums import CallbackAPIVersion

__all__ = ["Program"]

_ROUTE_CACHE_SIZE = 1_000


class TopicCallbacks:
    """Callbacks for topic filters, one for each filter. ``routes``: those found for the last topic names."""

    def __init__(self) -> None:
        self.filters: dict[str, Callback] = {}
        self.routes: dict[str, tuple[Callback, ...]] = {}
        self._tree = FilterTree()
        self._lock = threading.Lock()

    def add(self, topic_filter: str, callback: Callback) -> None:
        """Set the callback of a filter."""
        with self._lock:
            self._forget(topic_filter)
            self.filters[topic_filter] = callback
            self._tree.insert(topic_filter, callback)
            self.routes = {}

    def remove(self, topic_filter: str) -> None:
        """Forget the callback of a filter, if it has one."""
        with self._lock:
            self._forget(topic_filter)
            self.routes = {}

    def find(self, topic: str) -> tuple[Callback, ...]:
        """Return the callbacks whose filters match, and remember them in ``routes``."""
        with self._lock:
            found = tuple(self._tree.match(topic))
            if len(self.routes) >= _ROUTE_CACHE_SIZE:
                self.routes.clear()
            self.routes[topic] = found
        return found

    def _forget(self, topic_filter: str) -> None:
        callback = self.filters.pop(topic_filter, None)
        if callback is not None:
            self._tree.remove(topic_filter, callback)


class Program:
    """Calls the program, in the thread that runs callbacks. Calls nothing once the client is gone.

    ``userdata``: second argument of every callback. ``logger``: gets log messages besides ``on_log``.
    """

    def __init__(self, client: object, callback_api_version: CallbackAPIVersion, userdata: Any) -> None:
        self.callback_api_version = callback_api_version
        self.callbacks = Callbacks()
        self.topics = TopicCallbacks()
        self.userdata = userdata
        self.logger: logging.Logger | None = None
        self._client: weakref.ref[Any] = weakref.ref(client)

    def has(self, name: str) -> bool:
        """Whether there is a callback with this name."""
        return getattr(self._client(), name, None) is not None

    def call(self, name: str, *arguments: object) -> None:
        """Call a callback by name, if there is one. Raises: its exception, unless that is suppressed."""
        client = self._client()
        callback = getattr(client, name, None)
        if callback is not None:
            try:
                callback(client, self.userdata, *arguments)
            except Exception as error:
                self._caught(name, error)

    def deliver(self, received: Message, has_properties: bool) -> None:
        """Call the callbacks for a message. Raises: their exceptions, unless those are suppressed."""
        client = self._client()
        if self.topics.filters:
            callbacks = self.topics.routes.get(received.topic)
            if callbacks is None:
                callbacks = self.topics.find(received.topic)
            if callbacks:
                message = message_from(received, has_properties)
                for callback in callbacks:
                    self._call_for_topic(client, callback, message)
                return
        on_message = getattr(client, "on_message", None)
        if on_message is None:
            return
        try:
            on_message(client, self.userdata, message_from(received, has_properties))
        except Exception as error:
            self._caught("on_message", error)

    def _call_for_topic(self, client: Any, callback: Callback, message: MQTTMessage) -> None:
        try:
            callback(client, self.userdata, message)
        except Exception as error:
            self._caught(getattr(callback, "__name__", "a topic callback"), error)

    def _caught(self, name: str, error: Exception) -> None:
        """Log the exception of a callback, and raise it again unless the program suppresses it."""
        self.log(LogLevel.MQTT_LOG_ERR, "Caught exception in %s: %s", name, error)
        if not getattr(self._client(), "suppress_exceptions", False):
            raise error

    # The log

    def wants_log(self) -> bool:
        """Whether the log has a reader."""
        return self.logger is not None or getattr(self._client(), "on_log", None) is not None

    def log(self, level: LogLevel, text: str, *values: object) -> None:
        """Pass a message to ``on_log`` and the logger; an exception in ``on_log`` is dropped."""
        client = self._client()
        values = tuple(map(shown, values))  # whoever chose them
        on_log = getattr(client, "on_log", None)
        if on_log is not None:
            try:
                on_log(client, self.userdata, level, text % values)
            except Exception:
                pass
        if self.logger is not None:
            self.logger.log(LOGGING_LEVEL[level], text, *values)

    def log_received(self, received: Message, has_properties: bool) -> None:
        """Log a received message."""
        self.log(
            LogLevel.MQTT_LOG_DEBUG,
            "Received PUBLISH (d%d, q%d, r%d, m%d), '%s'%s, ...  (%d bytes)",
            received.dup,
            received.qos,
            received.retain,
            received.packet_id,
            received.topic.encode("utf-8", "backslashreplace").decode(),
            f", properties={message_from(received, True).properties}" if has_properties else "",
            len(received.payload),
        )
