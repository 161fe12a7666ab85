"""The client for programs with threads: publish and subscribe from anywhere, handlers in one thread."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from time import monotonic

from device_sdk.engine.arguments import (
    LARGEST_PAYLOAD,
    check_hooks,
    check_payload,
    check_subscriptions,
    check_topic_filters,
    check_types,
    disconnect_fields,
    made_up_client_id,
    publish_properties,
    random_fraction,
    seconds,
    transport_for,
)
from device_sdk.engine.authentication import authentication_for
from device_sdk.engine.engine import CONNECTED, Engine
from device_sdk.engine.reconnect import ReconnectPolicy
from device_sdk.engine.requests import Requests
from device_sdk.engine.router import Inbox
from device_sdk.errors import ArgumentError, ClosedError
from device_sdk.mqtt.message import Message, Subscription
from device_sdk.mqtt.options import ConnectOptions, check_range
from device_sdk.mqtt.topics import validate_topic
from device_sdk.store.base import StorePolicy
from device_sdk.threads import CallbackThread, NetworkThread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any

    from device_sdk.engine.authentication import Authenticator
    from device_sdk.engine.outbox import Delivery
    from device_sdk.engine.report import ClientEvent, Stats
    from device_sdk.engine.router import Request
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.events import ConnectAcknowledged
    from device_sdk.mqtt.message import Will
    from device_sdk.net.base import Transport
    from device_sdk.store.base import Store

    Handler = Callable[[Message], object]

__all__ = ["Client"]

_TOPIC_CACHE_SIZE = 1_000
_JOIN_SECONDS = 2.0
_EXIT_DRAIN_SECONDS = 1.0


class Client:
    """An MQTT client with a bounded queue, automatic reconnection and one callback thread.

    All methods may be called from any thread, also inside handlers; not from a signal handler (set a flag
    there). After ``fork()`` the child's copy raises :class:`ClosedError`; make a new client in the child.

    Args:
        url: ``mqtt://[user:password@]host[:port]``, or a ready :class:`~device_sdk.net.base.Transport`.
        client_id: name of the session; ``None`` makes one up (kept in the store, if there is one).
        version: ``"5.0"``, ``"3.1.1"`` or ``"3.1"``.
        clean_start: ``None`` resumes with a store, and without one begins clean once per process; ``True``
            begins every connection clean; ``False`` always resumes.
        session_expiry: seconds that the broker keeps the session after the connection (MQTT 5.0).
        keep_alive: seconds of silence after which PINGREQ is sent, 0 to 65,535, 0 is off.
        inflight: QoS 1 and 2 messages sent and not yet acknowledged, 1 to 65,535.
        store: where session and queue live; ``None`` is the memory of this object.
        policy: bounds of the queue, see :class:`~device_sdk.store.base.StorePolicy`.
        will: the message that the broker publishes when this client disappears.
        user_name, password: credentials; those in the URL are the fallback.
        receive_maximum: QoS 1 and 2 messages the broker may send ahead of our acknowledgement (MQTT 5.0).
        maximum_packet_size: bytes of the largest packet that is accepted from the broker.
        topic_alias_maximum: topic aliases that the broker may use (MQTT 5.0).
        use_topic_aliases: send a topic name once per connection, if the broker allows aliases (MQTT 5.0).
        use_identifiers: route by subscription identifiers, if the broker has them (MQTT 5.0).
        properties: further CONNECT properties by snake_case name (MQTT 5.0).
        auth: enhanced authentication, an :class:`~device_sdk.engine.authentication.Authenticator` (MQTT 5.0).
        connect_timeout: seconds for opening the stream, and again for CONNACK.
        reconnect: bounds of the back-off, see :class:`~device_sdk.engine.reconnect.ReconnectPolicy`.
        inbox_limit: received messages in hand before reading from the network pauses.
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
    _network: NetworkThread | None = None
    _callbacks: CallbackThread | None = None

    def __init__(
        self,
        url: str | Transport,
        *,
        client_id: str | None = None,
        version: str = "5.0",
        clean_start: bool | None = None,
        session_expiry: int = 86_400,
        keep_alive: int = 60,
        inflight: int = 20,
        store: Store | None = None,
        policy: StorePolicy | None = None,
        will: Will | None = None,
        user_name: str | None = None,
        password: bytes | str | None = None,
        receive_maximum: int = 65_535,
        maximum_packet_size: int = 256 * 1024,
        topic_alias_maximum: int = 0,
        use_topic_aliases: bool = False,
        use_identifiers: bool = False,
        properties: Mapping[str, Any] | None = None,
        auth: Authenticator | None = None,
        connect_timeout: float = 10.0,
        reconnect: ReconnectPolicy | None = None,
        inbox_limit: int = 1_000,
        manual_ack: bool = False,
        buffer_qos0: bool = False,
        on_session_lost: str = "republish",
        on_connect: Callable[[ConnectAcknowledged], object] | None = None,
        on_disconnect: Callable[[DeviceSdkError], object] | None = None,
        on_message: Handler | None = None,
        on_event: Callable[[ClientEvent], object] | None = None,
    ) -> None:
        check_types(store=store, policy=policy, reconnect=reconnect, client_id=client_id)
        check_hooks(on_connect=on_connect, on_disconnect=on_disconnect)
        check_hooks(on_message=on_message, on_event=on_event)
        transport, url_user, url_password = transport_for(url)
        authentication, properties = authentication_for(auth, version, properties)
        self._options = ConnectOptions(
            client_id or made_up_client_id(), version=version, keep_alive=keep_alive, will=will,
            session_expiry=session_expiry, receive_maximum=receive_maximum, properties=properties,
            maximum_packet_size=maximum_packet_size, topic_alias_maximum=topic_alias_maximum,
            user_name=url_user if user_name is None else user_name,
            password=url_password if password is None else password,
            connect_timeout=seconds("connect_timeout", connect_timeout),
        )  # fmt: skip
        self.on_message, self._topics, self._policy = on_message, {}, policy or StorePolicy()
        self._lock, self._life = threading.Lock(), threading.Lock()  # _life: one start() or close() at a time
        engine = self._engine = Engine(
            self._lock, transport, self._options, policy=self._policy, store=store, draw=random_fraction,
            reconnect=reconnect or ReconnectPolicy(), inflight=inflight, inbox_limit=inbox_limit,
            clean_start=clean_start, buffer_qos0=buffer_qos0, on_session_lost=on_session_lost,
            acknowledge=self._acknowledge if manual_ack else None, authentication=authentication,
            use_topic_aliases=use_topic_aliases, use_identifiers=use_identifiers,
        )  # fmt: skip
        engine.on_connect, engine.on_disconnect, engine.on_event = on_connect, on_disconnect, on_event
        self._no_properties = b"\0" if version == "5.0" else b""
        engine.waiting.wake = self._wake
        if store is not None:
            self._open_store(store, made_up=not client_id)

    # Life

    def start(self) -> None:
        """Begin to connect and return at once; the client keeps trying for ever. Again: nothing happens.

        Raises: ClosedError: after :meth:`close`, or in a forked child.
        """
        with self._life:
            self._check_open()
            if self._network is not None:
                return
            callbacks = CallbackThread(self._engine, lambda: self.on_message, self._wake)
            network = NetworkThread(self._engine, callbacks, self._options.connect_timeout)
            callbacks.start()
            self._callbacks, self._network = callbacks, network  # before it can park: publishers wake it
            with self._lock:
                self._engine.start(monotonic())
            try:
                network.start()
            except RuntimeError:  # no more threads
                self._callbacks = self._network = None
                callbacks.stop(_JOIN_SECONDS)
                self._engine.drop_connection()
                raise
            _clients.add(self)

    def connect(self, timeout: float = 10.0) -> None:
        """Start, and wait until the broker has accepted the connection.

        Raises: ConnectFailedError, ConnectRefused, RemoteProtocolError, TransportClosedError: the first
        attempt failed. TimeoutError: no outcome within ``timeout`` seconds. After an error the client has
        stopped trying; what was queued is still there, and connect() or start() may be called again.
        """
        seconds("timeout", timeout)
        with self._lock:
            if self._engine.state == CONNECTED:
                return
            outcome = self._engine.attempt_over = self._engine.attempt_over or threading.Event()
        self.start()
        with self._engine.waiting:
            decided = outcome.wait(timeout)
        with self._lock:
            self._engine.attempt_over = None
            error = self._engine.last_error
            if self._engine.state == CONNECTED:
                return
        with self._life:
            self._check_open()
            self._stop_network(monotonic() + _JOIN_SECONDS)
            self._stop_callbacks()
        if decided and error is not None:
            raise error
        raise TimeoutError(f"no connection to {self._engine.transport.description} within {timeout:g} s")

    def close(self, drain: float = 5.0, *, reason_code: int = 0, session_expiry: int | None = None) -> None:
        """Finish what is queued for at most ``drain`` seconds, disconnect, and end the threads.

        Without a store, what the broker has not acknowledged by then is dropped, and its deliveries raise.
        Returns within ``drain`` and about four more seconds. Idempotent. Inside a handler: the callback
        thread ends after the handler has returned.

        ``reason_code`` of DISCONNECT: 0x04 has the broker publish the will. ``session_expiry``: seconds that
        it keeps the session from now, instead of the constructor's. Both: MQTT 5.0, with a connection.
        Raises: ArgumentError, ArgumentTypeError: by name, nothing happened. Source: MQTT 5.0 §3.14.2.
        """
        seconds("drain", drain, zero=True)
        goodbye = disconnect_fields(self._options, reason_code, session_expiry)
        callbacks = self._callbacks
        if self._closed and callbacks is not None and callbacks.is_current():
            return  # somebody else closes and waits for this very handler
        with self._life:
            if self._closed:
                return
            self._closed = True
            self._engine.goodbye = goodbye
            deadline = monotonic() + drain
            try:
                self._drain(deadline)
            finally:  # also when Ctrl-C ends the wait
                self._stop_network(deadline + _JOIN_SECONDS)
                self._engine.finish()
                self._stop_callbacks()
                _clients.discard(self)

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def reconnect_now(self) -> None:
        """End a wait between two attempts at once, for example when the link came up."""
        with self._lock:
            self._engine.reconnect_now(monotonic())
            wake = self._engine.unpark()
        if wake:
            self._wake()

    def reauthenticate(self, timeout: float = 10.0) -> None:
        """Prove again who we are, on the connection as it is, and wait for the server's answer (MQTT 5.0).

        Raises: ArgumentError: the client has no ``auth``. NotConnectedError: there is no connection.
        LocalProtocolError: another one is going on. AuthenticationError: the authenticator raised.
        RefusedError, TransportClosedError, ...: the connection ended, a new one authenticates anew.
        TimeoutError: no outcome within ``timeout`` seconds; it goes on. ClosedError.
        Source: MQTT 5.0 §4.12.1.
        """
        self._check_open()
        seconds("timeout", timeout)
        authentication = self._engine.authentication
        if authentication is None:
            raise ArgumentError("auth", "reauthenticate() needs a Client that was made with auth=")
        authentication.again(self._engine, self._wake, timeout)

    # Publish and subscribe

    def publish(
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
            qos: 0, 1 or 2.
            retain: whether the broker keeps it for later subscribers.
            expiry: seconds after which it is worthless; not sent any more then, and at a 5.0 broker the
                message expiry interval.
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
        engine, lock = self._engine, self._lock
        flags = qos << 1 | 1 if retain else qos << 1
        if self._closed:
            raise ClosedError("publish() on a client that is closed")
        lock.acquire()  # not "with": in Python 3.11 that is 0.1 us more, a tenth of a QoS 0 publish
        try:
            delivery = engine.publish(topic_field, payload, flags, block, expires_at, now)
            if delivery is None:
                delivery = self._publish_blocking(topic_field, payload, flags, block, expires_at)
            wake = engine.parked and (expires_at is not None or engine.wants_attention())
            if wake:
                engine.parked = False
        finally:
            lock.release()
        if wake:
            self._wake()
        return delivery

    def subscribe(
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

    def unsubscribe(self, topic: str | list[str]) -> Request:
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

    def request(
        self,
        topic: str,
        payload: bytes | bytearray | memoryview | str | None = b"",
        timeout: float = 10.0,
        *,
        qos: int = 1,
        properties: Mapping[str, Any] | None = None,
    ) -> Message:
        """Publish a request and wait for the response to it (MQTT 5.0); from any thread, also in handlers.

        The responder publishes to the request's response topic, with its correlation data. The first request
        subscribes to the response topic. Responses reach only the request that they answer.

        Args: ``timeout`` seconds, which is also the expiry of the request; the others as :meth:`publish`.

        Raises: TimeoutError: no response in time. PublishRefused, DroppedError, SessionLostError: the request
        did not get through. SubscribeRefused: the response topic is not allowed. NotConnectedError: the
        server was asked for response information and there is no connection. ClosedError. ArgumentError,
        ArgumentTypeError: by name; ``version``: MQTT 3.x has neither response topic nor correlation data.
        Source: MQTT 5.0 §4.10.
        """
        if self._options.version != "5.0":
            raise ArgumentError(
                "version", f"request() needs MQTT 5.0, this client speaks {self._options.version}"
            )
        seconds("timeout", timeout)
        with self._lock:
            self._check_open()
            requests = self._engine.requests
            if requests is None:
                requests = self._engine.requests = Requests(self._engine, self.publish, self._wake)
        return requests.call(topic, payload, timeout, qos, properties)

    def messages(self) -> Inbox:
        """Return the inbox: every message that no handler takes waits there, from this call on.

        Call it before subscribing if nothing may be missed. Iterating ends when the client is closed;
        ``get(timeout)`` takes one message.

        Raises: ClosedError: after close().
        """
        with self._lock:
            self._check_open()
            router = self._engine.router
            if router.inbox is None:
                router.inbox = Inbox(self._finished, self._engine.waiting)
            return router.inbox

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
        return f"<Client {self.client_id!r} {self._engine.transport.description} {self.state}>"

    # Helpers

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r} cannot be used any more; make a new Client")

    def _wake(self) -> None:
        network = self._network
        if network is not None:
            network.wake()

    def _finished(self, message: Message) -> None:
        """The program is through with a message from the inbox."""
        if message.token is None:
            message.handled = True
        self._settle(1)

    def _acknowledge(self, message: Message) -> None:
        """The program acknowledges a message that waited for it."""
        message.handled = True
        self._settle(0)

    def _settle(self, finished: int) -> None:
        callbacks = self._callbacks
        if callbacks is not None:
            callbacks.settle(finished)

    def _topic_field(self, topic: str) -> bytes:
        encoded = validate_topic(topic)
        if len(self._topics) >= _TOPIC_CACHE_SIZE:
            self._topics.clear()
        field = self._topics[topic] = len(encoded).to_bytes(2, "big") + encoded
        return field

    def _publish_blocking(
        self, topic_field: bytes, payload: bytes, flags: int, block: bytes, expires_at: float | None
    ) -> Delivery:
        """Wait for room in the queue; the lock is held, and released while waiting."""
        engine = self._engine
        deadline = monotonic() + self._policy.block_timeout
        while True:
            engine.outbox.wait_room(deadline - monotonic())
            self._check_open()
            delivery = engine.publish(topic_field, payload, flags, block, expires_at, monotonic())
            if delivery is not None:
                return delivery

    def _open_store(self, store: Store, *, made_up: bool) -> None:
        """Go on with what the store kept; last in the constructor, so that no mistake leaves it open."""
        saved = store.open()
        if made_up and "client_id" in saved.facts:
            self._options.client_id = saved.facts["client_id"]
        self._engine.adopt(saved, store, monotonic(), self._wake)

    def _drain(self, deadline: float) -> None:
        network, callbacks = self._network, self._callbacks
        if network is None or callbacks is None:
            return
        with self._lock:
            self._engine.draining = True
            self._engine.await_handlers = not callbacks.is_current()
            self._engine.parked = False
        network.wake()
        with self._engine.waiting:
            network.drained.wait(max(0.0, deadline - monotonic()))

    def _stop_network(self, deadline: float) -> None:
        network = self._network
        if network is None:
            return
        with self._lock:
            self._engine.close_connection()
        network.wake()
        if not network.join(max(0.1, deadline - monotonic())):
            self._engine.transport.abort()
            network.join(_JOIN_SECONDS)
        self._network = None

    def _stop_callbacks(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            callbacks.stop(_JOIN_SECONDS)

    def _after_fork(self) -> None:
        """In a forked child: unusable, and the connection stays the parent's."""
        for lock in (self._lock, self._life):  # a thread of the parent may hold them for ever here
            lock._at_fork_reinit()  # type: ignore[attr-defined]
        self._closed = True
        network, self._network, self._callbacks = self._network, None, None
        if network is not None:
            network.disown()
        with self._lock:
            self._engine.disown()


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _close_all() -> None:
    """At exit: a short chance for what is queued; the threads are daemons and end with the process."""
    for client in list(_clients):
        client.close(_EXIT_DRAIN_SECONDS)


def _disown_all() -> None:
    for client in list(_clients):
        client._after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_disown_all)
