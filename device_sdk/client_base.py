"""The base of all clients: the constructor's arguments, and publish and subscribe up to waking the network.

A client adds what differs: who waits for the network, who runs the handlers, and what waiting means to its
callers.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from device_sdk._arguments import explained
from device_sdk._clock import boottime
from device_sdk._weak import weakly
from device_sdk.engine.arguments import (
    LARGEST_PAYLOAD,
    WITH_WILL,
    check_hooks,
    check_payload,
    check_subscriptions,
    check_topic_filters,
    check_types,
    connect_properties,
    optional_seconds,
    publish_properties,
    random_fraction,
    seconds,
    session_name,
    subscribe_properties,
)
from device_sdk.engine.build import brokers_for, store_for
from device_sdk.engine.connecting.authentication import authentication_for
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.connecting.credentials import Credentials
from device_sdk.engine.consumers import Consumers
from device_sdk.engine.engine import Engine
from device_sdk.engine.incoming.calls import Calls, checked_properties
from device_sdk.engine.outgoing.greetings import Greetings
from device_sdk.engine.reentry import reentered, refuse_reentry
from device_sdk.errors import ArgumentError, ClosedError, DeviceSdkError, NotConnectedError
from device_sdk.mqtt.message import Message, Subscription
from device_sdk.mqtt.options import ConnectOptions, check_range
from device_sdk.mqtt.topics import validate_topic
from device_sdk.store.base import StorePolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from device_sdk.engine.connecting.authentication import Authenticator, Reauthentication
    from device_sdk.engine.events import ClientEvent, Stats
    from device_sdk.engine.incoming.calls import Call
    from device_sdk.engine.incoming.subscribe_request import SubscribeRequest
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.mqtt.events import ConnectAcknowledged
    from device_sdk.mqtt.message import AckToken, Will
    from device_sdk.net.base import Transport
    from device_sdk.net.tls import TLSOptions
    from device_sdk.store.base import Store

    Handler = Callable[[Message], object]

__all__ = ["BaseClient"]

_TOPIC_CACHE_SIZE = 1_000
_NOT_STARTED = "the client is not started: call start() or connect(), or use it in a with statement"


class MessageFields:
    """The fields of messages in the form of the packet, as far as they can be known before publish().

    ``topics``: topic field by topic name, of those published last. ``no_properties``: a property block
    without properties. ``ages``: whether messages without an expiry have a longest age in the queue.
    """

    __slots__ = ("ages", "no_properties", "topics")

    def __init__(self, version: str, policy: StorePolicy) -> None:
        self.topics: dict[str, bytes] = {}
        self.no_properties = b"\0" if version == "5.0" else b""
        self.ages = policy.max_age is not None

    def encode_topic(self, topic: str) -> bytes:
        """Return the topic field of this name. Raises: ArgumentError, ArgumentTypeError: it is none."""
        encoded = validate_topic(topic)
        if len(self.topics) >= _TOPIC_CACHE_SIZE:
            self.topics.clear()
        field = self.topics[topic] = len(encoded).to_bytes(2, "big") + encoded
        return field


class BaseClient(ABC):
    """An engine and its lock, with everything that a client of any kind does before it waits."""

    _closed = False
    _consumers_class: type[Consumers] = Consumers

    @explained
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
        version: str | None = "5.0",
        clean_start: bool | None = None,
        session_expiry: int = 86_400,
        keep_alive: int = 60,
        inflight: int = 20,
        store: Store | str | os.PathLike[str] | None = None,
        policy: StorePolicy | None = None,
        will: Will | Callable[[], Will | None] | None = None,
        birth: Message | Callable[[], Message | None] | None = None,
        farewell: Message | None = None,
        user_name: str | None = None,
        password: bytes | str | None = None,
        credentials: Callable[[], object] | None = None,
        receive_maximum: int = 65_535,
        maximum_packet_size: int = 256 * 1024,
        topic_alias_maximum: int = 0,
        use_topic_aliases: bool = False,
        use_identifiers: bool = False,
        bridge: bool = False,
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
        on_poison: str = "shelve",
        on_connect: Callable[[ConnectAcknowledged], object] | None = None,
        on_disconnect: Callable[[DeviceSdkError], object] | None = None,
        on_message: Handler | None = None,
        on_event: Callable[[ClientEvent], object] | None = None,
    ) -> None:
        """Make a client, which does nothing before it is started.

        Args:
            url: ``mqtt://[user:password@]host[:port]``, or a ready :class:`~device_sdk.net.base.Transport`;
                or a list of these, several brokers in the order of preference.
            tls: a :class:`~device_sdk.net.tls.TLSOptions` or an :class:`ssl.SSLContext`, for each URL.
            proxy: URL of the proxy to go through; ``None``: what the variables ``mqtt_proxy`` and
                ``no_proxy`` say; ``""``: none.
            network: further options of the transport by name, such as ``bind``, ``interface``, ``headers``.
            return_to_first: seconds on another broker after which the first is looked for, ``None``: never.
            shared_session: all URLs lead to one session: a cluster, or several ways to one broker.
            client_id: name of the session; ``None`` makes one up, ``""`` has the broker do so (MQTT 5.0);
                both are kept, in the store if there is one.
            version: ``"5.0"``, ``"3.1.1"`` or ``"3.1"``; ``None``: 5.0, and 3.1.1 for a day with a broker
                that has refused 5.0.
            clean_start: ``None`` resumes with a store, and without one begins clean once per process;
                (in MQTT 3.x by a connection of its own, so that the session outlives its first connection);
                ``True`` begins every connection clean; ``False`` always resumes, also a session of which
                nothing is known here: the program vouches for it.
            session_expiry: seconds that the broker keeps the session after the connection (MQTT 5.0).
            keep_alive: seconds of silence after which PINGREQ is sent, 0 to 65,535, 0 is off.
            inflight: QoS 1 and 2 messages sent and not yet acknowledged, 1 to 65,535.
            store: where session and queue live: the path of a file, or a
                :class:`~device_sdk.store.base.Store`; ``None`` is the memory of this object.
            policy: bounds of the queue, see :class:`~device_sdk.store.base.StorePolicy`.
            will: the message that the broker publishes when this client disappears, or a callable that
                returns it, called like ``credentials``.
            birth: the counterpart of the will: the :class:`Message` (QoS 0 or 1) that each connection begins
                with, after what has to be repeated and before everything that waits; or a callable that
                returns it, called like ``credentials``, after which an exception means no birth.
            farewell: the :class:`Message` (QoS 0 or 1) before the DISCONNECT of :meth:`close`.
            user_name, password: credentials; those in a URL are the fallback, for that broker.
            credentials: called before each attempt to connect, in a thread of its own; returns ``(user_name,
                password)`` or an object with these attributes.
            receive_maximum: QoS 1 and 2 messages the broker may send ahead of our acknowledgement (MQTT 5.0).
            maximum_packet_size: bytes of the largest packet that is accepted from the broker; where it is not
                announced, as in MQTT 3.x, a larger message is skipped.
            topic_alias_maximum: topic aliases that the broker may use (MQTT 5.0).
            use_topic_aliases: send a topic name once per connection, if the broker allows aliases (MQTT 5.0).
            use_identifiers: route by subscription identifiers, if the broker has them (MQTT 5.0).
            bridge: ask Mosquitto to treat the client as a bridge: it does not get its own messages back, and
                RETAIN comes as it was published (MQTT 3.x; not of the standard).
            properties: further CONNECT properties by snake_case name; ``None`` leaves out
                ``session_expiry_interval`` or ``maximum_packet_size`` (MQTT 5.0).
            auth: enhanced authentication, an :class:`~device_sdk.Authenticator` (MQTT 5.0).
            connect_timeout: seconds for opening the stream, and again for CONNACK.
            ack_timeout: seconds without an acknowledgement before the connection is replaced, ``None``:
                never.
            reconnect: bounds of the back-off, see :class:`~device_sdk.ReconnectPolicy`.
            inbox_limit: received messages in hand before reading from the network pauses.
            inbox_bytes: bytes of received messages in hand before it pauses, about.
            manual_ack: a QoS 1 or 2 message is acknowledged by its ``acknowledge()``, not by its handler's
                end.
            buffer_qos0: queue QoS 0 messages too while there is no connection.
            on_poison: ``"shelve"`` refuses a message for which the broker ends connections again and again; a
                store keeps it on its shelf. ``"keep"`` sends it for ever, and nothing behind it arrives.
            on_session_lost: ``"republish"`` sends unacknowledged messages again as new ones, ``"fail"`` ends
                their deliveries with :class:`SessionLostError`.
            on_connect, on_disconnect, on_message, on_event: hooks, run in the callback thread with one
                argument: :class:`ConnectAcknowledged`, the error, a message that no subscription's handler
                matched, a :class:`~device_sdk.engine.events.ClientEvent`.

        Raises: ArgumentError, ArgumentTypeError: a value that cannot work, by its name. StoreError: the store
        cannot be opened.
        """
        check_types(policy=policy, client_id=client_id, reconnect=reconnect)
        policy = policy or StorePolicy()
        opened = store_for(store, policy)
        check_hooks(on_connect=on_connect, on_disconnect=on_disconnect, on_event=on_event)
        check_hooks(on_message=on_message, credentials=credentials)
        if credentials is not None and (user_name, password) != (None, None):
            raise ArgumentError("credentials", "replaces user_name and password; give one or the other")
        brokers = brokers_for(url, tls, proxy, network, largest_packet=maximum_packet_size)
        properties = connect_properties(properties, version or "5.0", topic_alias_maximum)
        authentication, properties = authentication_for(auth, version, properties)
        constant_will, asked_will = (None, will) if callable(will) else (will, None)
        options = ConnectOptions(
            session_name(client_id, version), version=version, keep_alive=keep_alive,
            session_expiry=session_expiry, receive_maximum=receive_maximum,
            maximum_packet_size=maximum_packet_size, topic_alias_maximum=topic_alias_maximum,
            user_name=user_name, password=password, will=constant_will,
            connect_timeout=seconds("connect_timeout", connect_timeout), properties=properties,
            bridge=bridge,
        )  # fmt: skip
        greetings = Greetings(version or "5.0", birth, farewell)
        asked = Credentials(options, credentials, asked_will, greetings)
        asked.check(brokers)
        self._engine = Engine(
            threading.RLock(), brokers, options, policy=policy, store=opened,
            reconnect=reconnect or ReconnectPolicy(), draw=random_fraction, inflight=inflight,
            inbox_limit=inbox_limit, inbox_bytes=inbox_bytes, clean_start=clean_start,
            made_up_name=not client_id,
            buffer_qos0=buffer_qos0, on_session_lost=on_session_lost,
            on_poison=on_poison, greetings=greetings,
            acknowledge=weakly(self._acknowledge) if manual_ack else None,
            authentication=authentication, use_topic_aliases=use_topic_aliases,
            use_identifiers=use_identifiers, consumers=self._consumers_class(), credentials=asked,
            return_to_first=optional_seconds("return_to_first", return_to_first),
            shared_session=shared_session, ack_timeout=optional_seconds("ack_timeout", ack_timeout),
            on_connect=on_connect, on_disconnect=on_disconnect, on_event=on_event,
        )  # fmt: skip
        self._engine.consumers.bind(weakly(self._wake))
        self._engine.consumers.explain(NotConnectedError(_NOT_STARTED))
        self._options, self._policy = options, policy
        self._fields = MessageFields(options.version, policy)
        self._life = threading.RLock()  # one start() or close() at a time, where threads can call them
        self.on_message = on_message
        if opened is not None:
            self._open_store(opened, made_up=not client_id)

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
            qos: 0, 1 or 2. retain: whether the broker keeps it for later subscribers.
            expiry: seconds after which it is not sent any more; for a 5.0 broker its message expiry interval.
            properties: further PUBLISH properties by snake_case name (MQTT 5.0).

        Returns: the delivery, to wait for or to forget.
        Raises: ArgumentError, ArgumentTypeError: an argument that cannot work, by its name; nothing was
        queued. QueueFullError: a bound of the policy. LocalProtocolError: the connected broker does not
        take it. ClosedError: after close(). RuntimeError: called in the handler of a signal that has
        interrupted this client in the same thread.
        """
        fields = self._fields
        topic_field = (type(topic) is str and fields.topics.get(topic)) or fields.encode_topic(topic)
        if type(payload) is not bytes or len(payload) > LARGEST_PAYLOAD:
            payload = check_payload(payload)
        if type(qos) is not int or not 0 <= qos <= 2:
            qos = check_range("qos", qos, 0, 2)
        block = fields.no_properties
        if properties is not None:
            block = publish_properties(properties, self._options.version, payload)
        now = expires_at = None
        if expiry is not None:
            now = boottime()
            expires_at = now + seconds("expiry", expiry)
        elif fields.ages:
            now = boottime()
        engine = self._engine
        lock = engine.lock
        flags = qos << 1 | 1 if retain else qos << 1
        if self._closed:
            raise ClosedError("publish() on a client that is closed")
        if lock._is_owned():  # type: ignore[attr-defined]  # has_lock() written out: a call less
            raise reentered("publish()")
        wake = False
        try:  # not "with": in Python 3.11 that is 0.1 us more, a tenth of a QoS 0 publish
            lock.acquire()
            delivery = engine.outgoing.publish(topic_field, payload, flags, block, expires_at, now)
            if delivery is None:
                delivery = self._publish_later(topic_field, payload, flags, block, expires_at)
            wake = engine.parked and (expires_at is not None or engine.wants_attention())
            if wake:
                engine.parked = False
            lock.release()
            if wake:
                self._wake()
            return delivery
        except BaseException as error:
            engine.parked |= wake  # whoever publishes next wakes the network
            try:
                lock.release()  # the first call in here: a second signal may come after it
            except RuntimeError:
                pass  # it was not taken yet, or is given back already
            if not isinstance(error, DeviceSdkError):
                self._wake()  # the message may have been added
            raise

    def subscribe(
        self,
        topic: str | Subscription | list[Subscription],
        qos: int = 0,
        *,
        on_message: Handler | None = None,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        properties: Mapping[str, Any] | None = None,
    ) -> SubscribeRequest:
        """Want messages, from now on and after every reconnect.

        Also without a connection: it is sent on the next one. ``on_message`` runs in the callback thread; if
        several subscriptions match a message, each handler runs once. A handler that raises is reported by
        event and log, and the message counts as handled.

        Args:
            topic: a topic filter, or Subscription objects with their own options.
            qos, no_local, retain_as_published, retain_handling: see :class:`Subscription`.
            on_message: called with each :class:`Message` that matches.
            properties: ``user_property`` (pairs), ``subscription_identifier`` (1 to 268,435,455), which
                messages for this subscription have then (MQTT 5.0 §3.8.2.1). They are repeated with it.

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
        ours = self._engine.incoming.router.identifiers is not None
        asked = subscribe_properties(properties, self._options.version, "subscribe", ours=ours)
        refuse_reentry(self._engine.lock, "subscribe()")
        with self._engine.lock:
            request = self._engine.incoming.subscribe(wanted, on_message, asked)
            wake = self._engine.parked  # which stays, so that a signal in between cannot lose the wake-up
        if wake:
            self._wake()
        return request

    def unsubscribe(
        self, topic: str | list[str], *, properties: Mapping[str, Any] | None = None
    ) -> SubscribeRequest:
        """Stop wanting one or more topic filters; their handlers see nothing more.

        ``properties``: ``user_property`` (pairs), MQTT 5.0 §3.10.2.1.

        Raises: ArgumentError, ArgumentTypeError: by name. ClosedError: after close().
        """
        self._check_open()
        topic_filters = check_topic_filters(topic)
        asked = subscribe_properties(properties, self._options.version, "unsubscribe", ours=False)
        refuse_reentry(self._engine.lock, "unsubscribe()")
        with self._engine.lock:
            request = self._engine.incoming.unsubscribe(topic_filters, asked)
            wake = self._engine.parked
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
        return self._engine.life.state

    @property
    def stats(self) -> Stats:
        """A copy of the counters."""
        with self._engine.lock:
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

    def _call(self, topic: str, timeout: float, properties: Mapping[str, Any] | None) -> Call:
        """Return a new request on ``topic``, whose response topic is being subscribed to."""
        if self._options.version != "5.0":
            raise ArgumentError(
                "version", f"request() needs MQTT 5.0, this client speaks {self._options.version}"
            )
        seconds("timeout", timeout)
        engine, incoming = self._engine, self._engine.incoming
        refuse_reentry(engine.lock, "request()")
        with engine.lock:
            self._check_open()
            calls = incoming.calls
            if calls is None:
                calls = Calls(engine.lock, engine.consumers, engine.events)
                incoming.expect_responses(calls)
            given = checked_properties(properties)
            call = calls.new(
                topic, timeout, given, self._options, engine.outgoing.online, incoming.router.wanted,
                incoming.subscribe,
            )  # fmt: skip
            wake = engine.parked
        if wake:
            self._wake()
        return call

    def _reauthenticate(self, timeout: float) -> Reauthentication:
        """Begin a re-authentication, whose end is to be waited for."""
        self._check_open()
        seconds("timeout", timeout)
        engine = self._engine
        if engine.authentication is None:
            raise ArgumentError("auth", "reauthenticate() needs a client that was made with auth=")
        refuse_reentry(engine.lock, "reauthenticate()")
        attempt = engine.authentication.prepare(engine.consumers.event())
        with engine.lock:
            engine.authentication.again(attempt, engine.outgoing.online)
            wake = engine.parked
        if wake:
            self._wake()
        return attempt

    def _reconnect_now(self, replace: bool) -> bool:
        """Connect again at once; return whether whoever waits for the network has to be woken."""
        engine = self._engine
        refuse_reentry(engine.lock, "reconnect_now()")
        with engine.lock:
            if replace:
                engine.connector.outdate()
                engine.reactions.replace(engine.connection, boottime())
            engine.reactions.reconnect_now()
            return engine.parked

    def _take_leave(self) -> bool:
        """Everything is sent: say the farewell. Returns: whether it was said. The lock is held."""
        engine = self._engine
        presence = engine.outgoing.presence
        if engine.goodbye[0] != WITH_WILL and engine.outgoing.online is not None:
            presence.take_leave(engine.outgoing.online)
        return presence.said

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self!r} cannot be used any more; make a new Client")

    def _acknowledge(self, token: AckToken) -> None:
        """The program acknowledges a message that waited for it."""
        token.handled = True
        self._settle(0)

    def _open_store(self, store: Store, *, made_up: bool) -> None:
        """Go on with what the store kept; last in the constructor, so that no mistake leaves it open."""
        saved = store.open()
        if made_up and "client_id" in saved.facts:
            self._options.client_id = saved.facts["client_id"]
        self._engine.adopt(saved, store, boottime(), weakly(self._wake))
