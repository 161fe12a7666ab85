"""What the clients of this package have in common: their arguments, publish and subscribe up to the wake-up.

A client (a *shell* around the engine) adds what differs: who waits for the network, who runs the handlers,
and what waiting means to its callers.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from time import monotonic
from types import SimpleNamespace

from device_sdk.engine.arguments import (
    LARGEST_PAYLOAD,
    check_hooks,
    check_payload,
    check_subscriptions,
    check_topic_filters,
    check_types,
    publish_properties,
    seconds,
)
from device_sdk.engine.build import build_engine, store_for
from device_sdk.engine.requests import Requests
from device_sdk.engine.waiting import Waiting
from device_sdk.errors import ArgumentError, ClosedError
from device_sdk.mqtt.message import Message, Subscription
from device_sdk.mqtt.options import check_range
from device_sdk.mqtt.topics import validate_topic
from device_sdk.store.base import StorePolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from device_sdk.engine.authentication import Authentication, Authenticator
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.engine.reconnect import ReconnectPolicy
    from device_sdk.engine.report import ClientEvent, Stats
    from device_sdk.engine.router import Request
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.events import ConnectAcknowledged
    from device_sdk.mqtt.message import Will
    from device_sdk.net.base import Transport
    from device_sdk.net.tls import TLSOptions
    from device_sdk.store.base import Store

    Handler = Callable[[Message], object]

__all__ = ["Shell"]

_TOPIC_CACHE_SIZE = 1_000


class Shell(ABC):
    """An engine and its lock, with everything that a client of any kind does before it waits.

    Args:
        url: ``mqtt://[user:password@]host[:port]``, or a ready :class:`~device_sdk.net.base.Transport`; or a
            list of these, several brokers in the order of preference.
        tls: a :class:`~device_sdk.net.tls.TLSOptions` or an :class:`ssl.SSLContext`, for each URL.
        proxy: URL of the proxy to go through; ``None``: what the variables ``mqtt_proxy`` and ``no_proxy``
            say; ``""``: none.
        network: further options of the transport by name, such as ``bind``, ``interface``, ``headers``.
        return_to_first: seconds on another broker after which the first is looked for, ``None``: never.
        shared_session: all URLs lead to one session: a cluster, or several ways to one broker.
        client_id: name of the session; ``None`` makes one up, ``""`` has the broker do so (MQTT 5.0); both
            are kept, in the store if there is one.
        version: ``"5.0"``, ``"3.1.1"`` or ``"3.1"``.
        clean_start: ``None`` resumes with a store, and without one begins clean once per process; ``True``
            begins every connection clean; ``False`` always resumes, also a session of which nothing is known
            here: the program vouches for it.
        session_expiry: seconds that the broker keeps the session after the connection (MQTT 5.0).
        keep_alive: seconds of silence after which PINGREQ is sent, 0 to 65,535, 0 is off.
        inflight: QoS 1 and 2 messages sent and not yet acknowledged, 1 to 65,535.
        store: where session and queue live: the path of a file, or a
            :class:`~device_sdk.store.base.Store`; ``None`` is the memory of this object.
        policy: bounds of the queue, see :class:`~device_sdk.store.base.StorePolicy`.
        will: the message that the broker publishes when this client disappears, or a callable that returns
            it, called like ``credentials``.
        user_name, password: credentials; those in a URL are the fallback, for that broker.
        credentials: called before each attempt to connect, in a thread of its own; returns ``(user_name,
            password)`` or an object with these attributes.
        receive_maximum: QoS 1 and 2 messages the broker may send ahead of our acknowledgement (MQTT 5.0).
        maximum_packet_size: bytes of the largest packet that is accepted from the broker.
        topic_alias_maximum: topic aliases that the broker may use (MQTT 5.0).
        use_topic_aliases: send a topic name once per connection, if the broker allows aliases (MQTT 5.0).
        use_identifiers: route by subscription identifiers, if the broker has them (MQTT 5.0).
        properties: further CONNECT properties by snake_case name (MQTT 5.0).
        auth: enhanced authentication, an :class:`~device_sdk.engine.authentication.Authenticator` (MQTT 5.0).
        connect_timeout: seconds for opening the stream, and again for CONNACK.
        ack_timeout: seconds without an acknowledgement before the connection is replaced, ``None``: never.
        reconnect: bounds of the back-off, see :class:`~device_sdk.engine.reconnect.ReconnectPolicy`.
        inbox_limit: received messages in hand before reading from the network pauses.
        inbox_bytes: bytes of received messages in hand before it pauses, about.
        manual_ack: a QoS 1 or 2 message is acknowledged by its ``acknowledge()``, not by its handler's end.
        buffer_qos0: queue QoS 0 messages too while there is no connection.
        on_session_lost: ``"republish"`` sends unacknowledged messages again as new ones, ``"fail"`` ends
            their deliveries with :class:`SessionLostError`.
        on_connect, on_disconnect, on_message, on_event: hooks, run in the callback thread with one argument:
            :class:`ConnectAcknowledged`, the error, a message that no subscription's handler matched, a
            :class:`~device_sdk.engine.report.ClientEvent`.

    Raises: ArgumentError, ArgumentTypeError: a value that cannot work, by its name. StoreError: the store
    cannot be opened.
    """

    _topics: dict[str, bytes]  # topic field by topic name, of those published last
    _closed = False
    _waiting_class: type[Waiting] = Waiting

    def __init__(
        self,
        url: str | Transport | Sequence[str | Transport],
        *,
        tls: TLSOptions | ssl.SSLContext | None = None,
        proxy: str | None = None,
        network: Mapping[str, Any] | None = None,
        return_to_first: float | None = None,
        shared_session: bool = False,
        client_id: str | None = None,
        version: str = "5.0",
        clean_start: bool | None = None,
        session_expiry: int = 86_400,
        keep_alive: int = 60,
        inflight: int = 20,
        store: Store | str | os.PathLike[str] | None = None,
        policy: StorePolicy | None = None,
        will: Will | Callable[[], Will | None] | None = None,
        user_name: str | None = None,
        password: bytes | str | None = None,
        credentials: Callable[[], object] | None = None,
        receive_maximum: int = 65_535,
        maximum_packet_size: int = 256 * 1024,
        topic_alias_maximum: int = 0,
        use_topic_aliases: bool = False,
        use_identifiers: bool = False,
        properties: Mapping[str, Any] | None = None,
        auth: Authenticator | None = None,
        connect_timeout: float = 10.0,
        ack_timeout: float | None = None,
        reconnect: ReconnectPolicy | None = None,
        inbox_limit: int = 1_000,
        inbox_bytes: int = 16 * 1024 * 1024,
        manual_ack: bool = False,
        buffer_qos0: bool = False,
        on_session_lost: str = "republish",
        on_connect: Callable[[ConnectAcknowledged], object] | None = None,
        on_disconnect: Callable[[DeviceSdkError], object] | None = None,
        on_message: Handler | None = None,
        on_event: Callable[[ClientEvent], object] | None = None,
    ) -> None:
        check_types(policy=policy, client_id=client_id, reconnect=reconnect)
        policy = policy or StorePolicy()
        store = store_for(store, policy)
        given = SimpleNamespace(**locals())  # every argument by its name
        engine = self._engine = build_engine(given, self._acknowledge, self._waiting_class())
        engine.waiting.wake = self._wake
        self._options, self._policy, self._lock = engine.options, policy, engine.lock
        self._life = threading.Lock()  # one start() or close() at a time
        self.on_message, self._topics = on_message, {}
        self._ages = policy.max_age is not None
        self._no_properties = b"\0" if version == "5.0" else b""
        if store is not None:
            self._open_store(store, made_up=not client_id)

    # Publish and subscribe. A client offers these under the names without the underscore.

    def _publish(
        self,
        topic: str,
        payload: bytes | bytearray | memoryview | str | None = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        expiry: float | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> Delivery:
        """Publish a message, now or as soon as there is a connection and room in the window.

        Never raises for the network. QoS 0 without a connection is dropped unless ``buffer_qos0``, except
        that it waits for the client's first attempt to connect.

        Args:
            topic: topic name, no wildcards.
            payload: bytes-like, str (sent as UTF-8) or ``None`` (empty).
            qos: 0, 1 or 2. retain: whether the broker keeps it for later subscribers.
            expiry: seconds after which it is not sent any more; for a 5.0 broker its message expiry interval.
            properties: further PUBLISH properties by snake_case name (MQTT 5.0).

        Returns: the delivery, to wait for or to forget.
        Raises: ArgumentError, ArgumentTypeError: an argument that cannot work, by its name; nothing was
        queued. QueueFullError: a bound of the policy. LocalProtocolError: the connected broker does not
        take it. ClosedError: after close().
        """
        topic_field = self._topics.get(topic) if type(topic) is str else None
        if topic_field is None:
            topic_field = self._topic_field(topic)
        if type(payload) is not bytes or len(payload) > LARGEST_PAYLOAD:
            payload = check_payload(payload)
        if type(qos) is not int or not 0 <= qos <= 2:
            qos = check_range("qos", qos, 0, 2)
        block = self._no_properties
        if properties is not None:
            block = publish_properties(properties, self._options.version, payload)
        now = expires_at = None
        if expiry is not None:
            now = monotonic()
            expires_at = now + seconds("expiry", expiry)
        elif self._ages:
            now = monotonic()
        engine, lock = self._engine, self._lock
        flags = qos << 1 | 1 if retain else qos << 1
        if self._closed:
            raise ClosedError("publish() on a client that is closed")
        lock.acquire()  # not "with": in Python 3.11 that is 0.1 us more, a tenth of a QoS 0 publish
        try:
            delivery = engine.publish(topic_field, payload, flags, block, expires_at, now)
            if delivery is None:
                delivery = self._publish_later(topic_field, payload, flags, block, expires_at)
            wake = engine.parked and (expires_at is not None or engine.wants_attention())
            if wake:
                engine.parked = False
        finally:
            lock.release()
        if wake:
            self._wake()
        return delivery

    def _subscribe(
        self,
        topic: str | Subscription | list[Subscription],
        qos: int = 0,
        *,
        on_message: Handler | None = None,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
    ) -> Request:
        """Want messages, from now on and after every reconnect.

        Also without a connection: it is sent on the next one. ``on_message`` runs in the callback thread; if
        several subscriptions match a message, each handler runs once. A handler that raises is reported by
        event and log, and the message counts as handled.

        Args:
            topic: a topic filter, or Subscription objects with their own options.
            qos, no_local, retain_as_published, retain_handling: see :class:`Subscription`.
            on_message: called with each :class:`Message` that matches.

        Returns: the request; ``wait(timeout)`` gives the granted QoS values or raises SubscribeRefused.

        Raises: ArgumentError, ArgumentTypeError: by name. ClosedError: after close().
        """
        self._check_open()
        check_hooks(on_message=on_message)
        if isinstance(topic, str):
            topic = Subscription(
                topic,
                qos,
                no_local=no_local,
                retain_as_published=retain_as_published,
                retain_handling=retain_handling,
            )
        wanted = check_subscriptions(topic, self._options.version)
        with self._lock:
            request = self._engine.subscribe(wanted, on_message)
            wake = self._engine.unpark()
        if wake:
            self._wake()
        return request

    def _unsubscribe(self, topic: str | list[str]) -> Request:
        """Stop wanting one or more topic filters; their handlers see nothing more.

        Raises: ArgumentError, ArgumentTypeError: by name. ClosedError: after close().
        """
        self._check_open()
        topic_filters = check_topic_filters(topic)
        with self._lock:
            request = self._engine.unsubscribe(topic_filters)
            wake = self._engine.unpark()
        if wake:
            self._wake()
        return request

    # What is going on

    @property
    def client_id(self) -> str:
        """The client identifier that names the session."""
        return self._options.client_id

    @property
    def state(self) -> str:
        """``idle``, ``connecting``, ``connected``, ``waiting`` (to try again), ``closing`` or ``closed``."""
        return self._engine.state

    @property
    def stats(self) -> Stats:
        """A copy of the counters."""
        with self._lock:
            return self._engine.stats()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.client_id!r} {self._engine.transport.description} {self.state}>"

    # What a client adds

    @abstractmethod
    def _wake(self) -> None:
        """Make whoever waits for the network look again. Any thread, without the lock."""

    @abstractmethod
    def _settle(self, finished: int) -> None:
        """So many received messages are finished with: acknowledgements may leave. Any thread, no lock."""

    @abstractmethod
    def _publish_later(
        self, topic_field: bytes, payload: bytes, flags: int, block: bytes, expires_at: float | None
    ) -> Delivery:
        """The queue is full, and the policy is to wait for room. The lock is held."""

    # Helpers

    def _requests(self, timeout: float) -> Requests:
        """Return the requests of this client, if it can make one."""
        if self._options.version != "5.0":
            raise ArgumentError(
                "version", f"request() needs MQTT 5.0, this client speaks {self._options.version}"
            )
        seconds("timeout", timeout)
        with self._lock:
            self._check_open()
            requests = self._engine.requests
            if requests is None:
                requests = self._engine.requests = Requests(self._engine, self._publish, self._wake)
        return requests

    def _authentication(self, timeout: float) -> Authentication:
        """Return the authentication of this client, if it has one."""
        self._check_open()
        seconds("timeout", timeout)
        if self._engine.authentication is None:
            raise ArgumentError("auth", "reauthenticate() needs a client that was made with auth=")
        return self._engine.authentication

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r} cannot be used any more; make a new Client")

    def _finished(self, message: Message) -> None:
        """The program is through with a message from the inbox."""
        if message.token is None:
            message.handled = True
        self._settle(1)

    def _acknowledge(self, message: Message) -> None:
        """The program acknowledges a message that waited for it."""
        message.handled = True
        self._settle(0)

    def _topic_field(self, topic: str) -> bytes:
        encoded = validate_topic(topic)
        if len(self._topics) >= _TOPIC_CACHE_SIZE:
            self._topics.clear()
        field = self._topics[topic] = len(encoded).to_bytes(2, "big") + encoded
        return field

    def _open_store(self, store: Store, *, made_up: bool) -> None:
        """Go on with what the store kept; last in the constructor, so that no mistake leaves it open."""
        saved = store.open()
        if made_up and "client_id" in saved.facts:
            self._options.client_id = saved.facts["client_id"]
        self._engine.adopt(saved, store, monotonic(), self._wake)
