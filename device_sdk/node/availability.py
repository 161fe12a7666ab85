"""Availability of each sensor, retained at the broker on a topic of its own.

That of the node is birth, farewell and will of its client, see ``link.py``.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Protocol

from device_sdk._log import Log
from device_sdk.errors import DeviceSdkError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_sdk import Delivery

__all__ = ["OFFLINE", "ONLINE", "Availability"]

ONLINE = b"online"
OFFLINE = b"offline"

log = Log("device_sdk.node")


class Publishes(Protocol):
    """A client, or what stands for one."""

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> Delivery:
        """As :meth:`Client.publish`."""


class Availability:
    """Keeps the retained ``online`` and ``offline`` of the sensors at the broker up to date.

    Without a connection it publishes nothing: the broker has published ``offline`` for the node as its will,
    and on the next connection all present states are published. A state that a full queue rejects is owed,
    and published by :meth:`pay`. All methods may be called from any thread.
    """

    def __init__(self, client: Publishes, sensor_topics: Iterable[str]) -> None:
        self._client = client
        self._online = dict.fromkeys(sensor_topics, False)
        self._connected = False
        self._ended = False
        self._owed: set[str] = set()
        self._last: Delivery | None = None
        self._lock = Lock()

    def connected(self) -> None:
        """Publish all states on a new connection."""
        with self._lock:
            self._connected = True
            self._owed.update(self._online)
            self._pay()

    def disconnected(self) -> None:
        """Note that the connection is lost."""
        with self._lock:
            self._connected = False

    def set(self, sensor_topic: str, online: bool) -> None:
        """Note the state of a sensor, and publish it if it has changed."""
        with self._lock:
            if self._online[sensor_topic] != online and not self._ended:
                self._online[sensor_topic] = online
                if self._connected:
                    self._owed.add(sensor_topic)
                    self._pay()

    def pay(self) -> None:
        """Publish the states that the queue rejected. Cheap when none is owed."""
        if self._owed:
            with self._lock:
                self._pay()

    def end(self) -> Delivery | None:
        """Publish ``offline`` for all, and nothing after that.

        Returns: the delivery of the last one; ``None`` while there is no room for it: call it again.
        """
        with self._lock:
            if not self._ended:
                self._ended = True
                self._online = dict.fromkeys(self._online, False)
                self._owed.update(self._online)
            self._pay()
            return None if self._owed else self._last

    def _pay(self) -> None:
        """Publish the present state of each topic that is owed. The caller holds the lock."""
        for topic in [topic for topic in self._online if topic in self._owed]:
            payload = ONLINE if self._online[topic] else OFFLINE
            try:
                self._last = self._client.publish(topic, payload, qos=1, retain=True)
            except DeviceSdkError as error:
                log.debug("%s: %s is not published yet: %s", topic, payload.decode(), error)
                return
            self._owed.discard(topic)
