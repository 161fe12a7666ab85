"""``import device_sdk.paho.client as mqtt``: the client of paho-mqtt 2.x on the engine of device_sdk.

Programs written for paho-mqtt run unchanged. :class:`Client` checks arguments; its parts do the work. The
docstring of ``device_sdk.paho`` lists them.
"""

from __future__ import annotations

import errno
import logging
import ssl
import warnings
from collections.abc import Callable
from time import monotonic

from device_sdk._load import load
from device_sdk._printable import printable
from device_sdk._weak import weakly
from device_sdk.paho import _constants
from device_sdk.paho._acks import Acknowledgements
from device_sdk.paho._attributes import Attribute, CallbackAttribute, setting
from device_sdk.paho._codes import (
    LOGGING_LEVEL,
    ConnectFlags,
    DisconnectFlags,
    WebsocketConnectionError,
    connack_string,
    convert_connack_rc_to_reason_code,
    convert_disconnect_error_code_to_reason_code,
    error_string,
    made_up_client_id,
    topic_matches_sub,
)
from device_sdk.paho._connection import Connection
from device_sdk.paho._constants import *  # noqa: F403
from device_sdk.paho._core import Core
from device_sdk.paho._endpoint import TRANSPORTS, Endpoint, tls_context
from device_sdk.paho._life_cycle import LifeCycle
from device_sdk.paho._loop import Loop, LoopThread
from device_sdk.paho._message import MQTTMessage, MQTTMessageInfo
from device_sdk.paho._outgoing import Outgoing
from device_sdk.paho._private import serve_private_names
from device_sdk.paho._program import Program
from device_sdk.paho._reports import Reports
from device_sdk.paho._runner import CallbackRunner
from device_sdk.paho._settings import CLEAN_START_FIRST_ONLY, BackOff, ConnectSettings, Limits
from device_sdk.paho._srv import find_brokers, resolver
from device_sdk.paho._stream import socks
from device_sdk.paho._subscribing import Subscribing
from device_sdk.paho._waker import Waker
from device_sdk.paho.enums import (
    CallbackAPIVersion,
    ConnackCode,
    LogLevel,
    MessageState,
    MessageType,
    MQTTErrorCode,
    MQTTProtocolVersion,
    PahoClientMode,
)
from device_sdk.paho.exception import MalformedPacket
from device_sdk.paho.matcher import MQTTMatcher
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties
from device_sdk.paho.reasoncodes import ReasonCode, ReasonCodes
from device_sdk.paho.subscribeoptions import SubscribeOptions
from device_sdk.store.base import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

    from device_sdk.paho._attributes import Callback, Decorator

__all__ = [
    "EAGAIN",
    "HAVE_DNS",
    "LOGGING_LEVEL",
    "MQTT_CLEAN_START_FIRST_ONLY",
    "CallbackAPIVersion",
    "CallbackOnConnect",
    "CallbackOnConnectFail",
    "CallbackOnConnect_v1",
    "CallbackOnConnect_v1_mqtt3",
    "CallbackOnConnect_v1_mqtt5",
    "CallbackOnConnect_v2",
    "CallbackOnDisconnect",
    "CallbackOnDisconnect_v1",
    "CallbackOnDisconnect_v1_mqtt3",
    "CallbackOnDisconnect_v1_mqtt5",
    "CallbackOnDisconnect_v2",
    "CallbackOnLog",
    "CallbackOnMessage",
    "CallbackOnPreConnect",
    "CallbackOnPublish",
    "CallbackOnPublish_v1",
    "CallbackOnPublish_v2",
    "CallbackOnSocket",
    "CallbackOnSubscribe",
    "CallbackOnSubscribe_v1",
    "CallbackOnSubscribe_v1_mqtt3",
    "CallbackOnSubscribe_v1_mqtt5",
    "CallbackOnSubscribe_v2",
    "CallbackOnUnsubscribe",
    "CallbackOnUnsubscribe_v1",
    "CallbackOnUnsubscribe_v1_mqtt3",
    "CallbackOnUnsubscribe_v1_mqtt5",
    "CallbackOnUnsubscribe_v2",
    "CleanStartOption",
    "Client",
    "ConnackCode",
    "ConnectFlags",
    "DisconnectFlags",
    "HTTPHeader",
    "LogLevel",
    "MQTTErrorCode",
    "MQTTMatcher",
    "MQTTMessage",
    "MQTTMessageInfo",
    "MQTTProtocolVersion",
    "MalformedPacket",
    "MessageState",
    "MessageType",
    "PacketTypes",
    "PahoClientMode",
    "PayloadType",
    "Properties",
    "ReasonCode",
    "ReasonCodes",
    "SubscribeOptions",
    "WebSocketHeaders",
    "WebsocketConnectionError",
    "connack_string",
    "convert_connack_rc_to_reason_code",
    "convert_disconnect_error_code_to_reason_code",
    "error_string",
    "socks",
    "ssl",
    "time_func",
    "topic_matches_sub",
]
__all__ += _constants.__all__

_WRITTEN_FOR_1_X = (
    "is a client identifier, so this program was written for paho-mqtt 1.x: run it with "
    "python -m device_sdk.paho --v1, or import device_sdk.paho.v1.client; for 2.x "
    "CallbackAPIVersion.VERSION2 comes first, and callbacks get other arguments, see docs/migrations.rst of "
    "paho-mqtt"
)
_SQLITE_STORE = "device_sdk.store.sqlite:SqliteStore"  # imported when it is needed

MQTT_CLEAN_START_FIRST_ONLY = CLEAN_START_FIRST_ONLY
HAVE_DNS = resolver is not None
EAGAIN = errno.EAGAIN
time_func = monotonic

# For annotations.

PayloadType = str | bytes | bytearray | int | float | None
HTTPHeader = dict[str, str]
WebSocketHeaders = Callable[[HTTPHeader], HTTPHeader] | HTTPHeader
CleanStartOption = bool | int
CallbackOnConnect_v1_mqtt3 = Callable[["Client", "Any", dict[str, "Any"], MQTTErrorCode], None]
CallbackOnConnect_v1_mqtt5 = Callable[
    ["Client", "Any", dict[str, "Any"], ReasonCode, "Properties | None"], None
]
CallbackOnConnect_v1 = CallbackOnConnect_v1_mqtt5 | CallbackOnConnect_v1_mqtt3
CallbackOnConnect_v2 = Callable[["Client", "Any", ConnectFlags, ReasonCode, "Properties | None"], None]
CallbackOnConnect = CallbackOnConnect_v1 | CallbackOnConnect_v2
CallbackOnConnectFail = Callable[["Client", "Any"], None]
CallbackOnDisconnect_v1_mqtt3 = Callable[["Client", "Any", MQTTErrorCode], None]
CallbackOnDisconnect_v1_mqtt5 = Callable[
    ["Client", "Any", "ReasonCode | int | None", "Properties | None"], None
]
CallbackOnDisconnect_v1 = CallbackOnDisconnect_v1_mqtt3 | CallbackOnDisconnect_v1_mqtt5
CallbackOnDisconnect_v2 = Callable[["Client", "Any", DisconnectFlags, ReasonCode, "Properties | None"], None]
CallbackOnDisconnect = CallbackOnDisconnect_v1 | CallbackOnDisconnect_v2
CallbackOnLog = Callable[["Client", "Any", int, str], None]
CallbackOnMessage = Callable[["Client", "Any", MQTTMessage], None]
CallbackOnPreConnect = Callable[["Client", "Any"], None]
CallbackOnPublish_v1 = Callable[["Client", "Any", int], None]
CallbackOnPublish_v2 = Callable[["Client", "Any", int, ReasonCode, Properties], None]
CallbackOnPublish = CallbackOnPublish_v1 | CallbackOnPublish_v2
CallbackOnSocket = Callable[["Client", "Any", "Any"], None]
CallbackOnSubscribe_v1_mqtt3 = Callable[["Client", "Any", int, tuple[int, ...]], None]
CallbackOnSubscribe_v1_mqtt5 = Callable[["Client", "Any", int, list[ReasonCode], Properties], None]
CallbackOnSubscribe_v1 = CallbackOnSubscribe_v1_mqtt3 | CallbackOnSubscribe_v1_mqtt5
CallbackOnSubscribe_v2 = Callable[["Client", "Any", int, list[ReasonCode], "Properties | None"], None]
CallbackOnSubscribe = CallbackOnSubscribe_v1 | CallbackOnSubscribe_v2
CallbackOnUnsubscribe_v1_mqtt3 = Callable[["Client", "Any", int], None]
CallbackOnUnsubscribe_v1_mqtt5 = Callable[
    ["Client", "Any", int, Properties, "ReasonCode | list[ReasonCode]"], None
]
CallbackOnUnsubscribe_v1 = CallbackOnUnsubscribe_v1_mqtt3 | CallbackOnUnsubscribe_v1_mqtt5
CallbackOnUnsubscribe_v2 = Callable[["Client", "Any", int, list[ReasonCode], "Properties | None"], None]
CallbackOnUnsubscribe = CallbackOnUnsubscribe_v1 | CallbackOnUnsubscribe_v2


class Client:
    """An MQTT client with the interface of paho-mqtt 2.x.

    Args:
        callback_api_version: version of the callbacks' arguments; version 1 is deprecated.
        client_id: name of the session, text or bytes; empty lets the broker choose one.
        clean_session: MQTT 3.x: whether the broker forgets the session; default True.
        userdata: second argument of every callback.
        protocol: ``MQTTv31``, ``MQTTv311`` or ``MQTTv5``.
        transport: ``"tcp"``, ``"websockets"`` or ``"unix"``.
        reconnect_on_failure: whether ``loop_forever()`` and ``loop_start()`` connect again.
        manual_ack: whether the program acknowledges received messages with ``ack()``.
        store: a path, or a :class:`~device_sdk.store.base.Store`: messages of QoS 1 and 2 survive the end of
            the process. Not in paho-mqtt.

    Callbacks run in the thread that runs the loop. Any method may be called from any thread and in callbacks.

    Raises: ValueError: a value that cannot work. TypeError: the first argument is a client identifier, as in
    paho-mqtt 1.x.
    """

    _is_1_x = False  # a subclass with the interface of paho-mqtt 1.x

    def __init__(
        self,
        callback_api_version: CallbackAPIVersion = CallbackAPIVersion.VERSION1,
        client_id: str | None = "",
        clean_session: bool | None = None,
        userdata: Any = None,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
        transport: str = "tcp",
        reconnect_on_failure: bool = True,
        manual_ack: bool = False,
        *,
        store: str | Store | None = None,
    ) -> None:
        transport = transport.lower()
        if transport not in TRANSPORTS:
            raise ValueError(printable(f'transport must be "websockets", "tcp" or "unix", not {transport}'))
        _check_version(callback_api_version, warns=not self._is_1_x)
        identifier = client_id.decode() if isinstance(client_id, bytes) else client_id or ""
        if protocol == MQTTProtocolVersion.MQTTv5:
            if clean_session is not None:
                raise ValueError("Clean session is not used for MQTT 5.0")
        elif clean_session is not None and not clean_session and not identifier:
            raise ValueError("A client id must be provided if clean session is False.")
        if not identifier and protocol == MQTTProtocolVersion.MQTTv31:
            identifier = made_up_client_id()
        is_clean = clean_session is None or bool(clean_session)
        self.suppress_exceptions = False
        self._endpoint = Endpoint(transport)
        self._connect = ConnectSettings(protocol, identifier.encode(), clean_session=is_clean)
        self._back_off = BackOff(reconnects=reconnect_on_failure)
        self._limits = Limits()
        self._life = LifeCycle()
        self._program = Program(self, callback_api_version, userdata)
        self._loop_thread = LoopThread()
        self._assemble(None)
        self.manual_ack_set(manual_ack)
        if store is not None:
            self.store_set(store)

    def _assemble(self, store: Store | None) -> None:
        """Make the parts that act, from those that know what the program wants. None keeps the client."""
        endpoint, connect, limits, back_off = self._endpoint, self._connect, self._limits, self._back_off
        life, program, waker = self._life, self._program, Waker()
        reports = Reports(program, connect, back_off, life)
        self._core = core = Core(store, reports, program.wants_log, waker.wake)
        self._acks = Acknowledgements(core)
        runner = CallbackRunner(core, program, self._acks, connect)
        self._connection = connection = Connection(
            (endpoint, connect, limits), life, core, program, reports, runner, waker
        )
        added_output = connection.added_output
        self._outgoing = Outgoing(connect, limits, life, core, program, runner.listener, waker, added_output)
        self._subscribing = Subscribing(connect, core, program, added_output)
        reconnect = weakly(self._reconnect)
        self._loop = Loop(endpoint, back_off, life, core, program, runner, connection, waker, reconnect)

    def _reconnect(self) -> None:
        """Connect as the loop does: with :meth:`reconnect`, which a program may override."""
        self.reconnect()

    def store_set(self, store: str | Store) -> None:
        """Keep messages of QoS 1 and 2 in this store, a path or a Store; call it first.

        Messages of an earlier process are sent with the first connection; ``on_publish`` is not called for
        them. The store is closed with the last reference to this client, or at the end of the program. Use
        ``clean_session=False`` (MQTT 5.0: a session expiry) for QoS 2 to arrive once.

        Raises: RuntimeError: there is a connection, or messages wait. StoreError: it cannot be opened.
        """
        if self._connection.sock is not None or self._core.outstanding():
            raise RuntimeError("store_set() must be called before connect() and publish()")
        opened = store if isinstance(store, Store) else load(_SQLITE_STORE)(store)
        saved = opened.open()
        loop, by_hand = self._loop, self._acks.by_hand
        self._assemble(opened)
        self._core.restore(saved, opened, self._connect.fields())
        self.manual_ack_set(by_hand)
        loop.replace()

    def reinitialise(self, client_id: str = "", clean_session: bool = True, userdata: Any = None) -> None:
        """Close the connection and begin anew as a client of MQTT 3.1.1 over TCP, without callbacks."""
        self._begin_anew(self._program.callback_api_version, client_id, clean_session, userdata)

    def _begin_anew(self, *arguments: Any) -> None:
        """Close the connection and call the constructor; a running loop goes on with the new parts."""
        loop, thread = self._loop, self._loop_thread
        self._connection.drop()
        self.__init__(*arguments)  # type: ignore[misc]
        self._loop_thread = thread
        loop.replace()

    # Configuration

    # Private in paho-mqtt; its examples and tests, and libraries like Flask-MQTT, use them all the same.
    _clean_session = Attribute("_connect.clean_session")
    _client_id = Attribute("_connect.client_id")
    _host = Attribute("_endpoint.host")
    _keepalive = Attribute("_connect.keepalive")
    _password = Attribute("_connect.password")
    _port = Attribute("_endpoint.port")
    _protocol = Attribute("_connect.protocol")
    _ssl_context = Attribute("_endpoint.ssl_context")
    _thread = Attribute("_loop_thread.thread")
    _transport = Attribute("_endpoint.transport")
    _userdata = Attribute("_program.userdata")
    _username = Attribute("_connect.username")

    def _check_closed(self, name: str) -> None:
        if not self._life.is_closed(self._connection.sock is not None):
            raise RuntimeError(printable(f"updating {name} on established connection is not supported"))

    host: str = setting(
        _check_closed,
        "_endpoint.host",
        "The broker's name or address; empty before ``connect()``.",
    )
    port: int = setting(_check_closed, "_endpoint.port", "The broker's port, above 0.")
    keepalive: int = setting(
        _check_closed, "_connect.keepalive", "Seconds of silence before PINGREQ, 0 is off."
    )
    transport: str = setting(
        _check_closed, "_endpoint.transport", '``"tcp"``, ``"websockets"`` or ``"unix"``.'
    )
    connect_timeout: float = setting(
        _check_closed, "_endpoint.connect_timeout", "Seconds for opening the stream, above 0."
    )
    username: str | None = setting(_check_closed, "_connect.username", "The user name, ``None`` without.")
    password: str | None = setting(_check_closed, "_connect.password_text", "The password, ``None`` without.")
    max_inflight_messages: int = setting(
        _check_closed, "_limits.inflight", "Messages of QoS 1 and 2 in flight at once; 0 is no limit."
    )
    max_queued_messages: int = setting(
        _check_closed, "_limits.queued", "Messages of QoS 1 and 2 kept at once; 0 is no limit."
    )

    @property
    def protocol(self) -> MQTTProtocolVersion:
        """The protocol version."""
        return MQTTProtocolVersion(self._connect.protocol)

    @property
    def callback_api_version(self) -> CallbackAPIVersion:
        """Which arguments the callbacks get."""
        return self._program.callback_api_version

    def username_pw_set(self, username: str | None, password: str | None = None) -> None:
        """Set the credentials of the next CONNECT; ``None`` is none. May be called in ``on_pre_connect``."""
        self._connect.username = username
        self._connect.password = password.encode() if isinstance(password, str) else password

    def max_inflight_messages_set(self, inflight: int) -> None:
        """Set :attr:`max_inflight_messages`."""
        self.max_inflight_messages = inflight

    def max_queued_messages_set(self, queue_size: int) -> Self:
        """Set :attr:`max_queued_messages` and return the client. Raises: TypeError: not an int."""
        if not isinstance(queue_size, int):
            raise TypeError("queue_size should be an int")
        self.max_queued_messages = queue_size
        return self

    def reconnect_delay_set(self, min_delay: float = 1, max_delay: float = 120) -> None:
        """Set the seconds between attempts of a loop: the first wait, doubled each time, and the longest."""
        self._back_off.set(min_delay, max_delay)

    def will_set(
        self,
        topic: str,
        payload: Any = None,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> None:
        """Set the message that the broker publishes when this client disappears, from the next CONNECT on.

        Raises: ValueError: no topic, a QoS other than 0, 1 and 2, or properties of another class.
        TypeError: a payload that is neither text, bytes, a number nor None.
        """
        self._connect.set_will(topic, payload, qos, retain, properties)

    def will_clear(self) -> None:
        """Set no will for the next CONNECT."""
        self._connect.clear_will()

    @property
    def will_topic(self) -> str | None:
        """The topic of the will, empty without one."""
        return "" if self._connect.will is None else self._connect.will[0]

    @property
    def will_payload(self) -> bytes | bytearray | None:
        """The payload of the will, empty without one."""
        return b"" if self._connect.will is None else self._connect.will[1]

    def enable_bridge_mode(self) -> None:
        """Announce this client as a bridge: the broker does not send its own messages back to it."""
        self._connect.bridge = True

    def ws_set_options(self, path: str = "/mqtt", headers: Any = None) -> None:
        """Set path and HTTP headers of a WebSocket.

        ``headers``: a dict that is added to the default ones, or a callable that gets those and returns all.
        Raises: ValueError: neither.
        """
        self._endpoint.set_websocket(path, headers)

    def tls_set_context(self, context: ssl.SSLContext | None = None) -> None:
        """Encrypt with this context, by default :func:`ssl.create_default_context`.

        Raises: ValueError: encryption was configured before.
        """
        self._endpoint.set_tls_context(context)

    def tls_set(
        self,
        ca_certs: str | None = None,
        certfile: str | None = None,
        keyfile: str | None = None,
        cert_reqs: ssl.VerifyMode | None = None,
        tls_version: int | None = None,
        ciphers: str | None = None,
        keyfile_password: str | None = None,
        alpn_protocols: list[str] | None = None,
    ) -> None:
        """Encrypt: PEM files; by default with the system's CA certificates and a check of the broker's.

        Raises: OSError: a file cannot be read. ValueError: encryption was configured before.
        """
        self.tls_set_context(
            tls_context(
                ca_certs, certfile, keyfile, cert_reqs, tls_version, ciphers, keyfile_password, alpn_protocols
            )
        )
        self.tls_insecure_set(cert_reqs == ssl.CERT_NONE)

    def tls_insecure_set(self, value: bool) -> None:
        """Do not check the broker's name in its certificate: any valid certificate is accepted.

        Raises: ValueError: encryption was not configured.
        """
        self._endpoint.set_tls_insecure(value)

    def proxy_set(self, **proxy_args: Any) -> None:
        """Go through a proxy; the arguments are those of PySocks: ``proxy_type``, ``proxy_addr``, ...

        Raises: ValueError: PySocks is not installed, or type or address is missing.
        """
        self._endpoint.set_proxy(proxy_args)

    def user_data_set(self, userdata: Any) -> None:
        """Set the second argument of every callback."""
        self._program.userdata = userdata

    def user_data_get(self) -> Any:
        """Return the second argument of every callback."""
        return self._program.userdata

    @property
    def logger(self) -> logging.Logger | None:
        """The logger of log messages; ``None``: they go only to ``on_log``."""
        return self._program.logger

    @logger.setter
    def logger(self, value: logging.Logger | None) -> None:
        self._program.logger = value

    def enable_logger(self, logger: logging.Logger | None = None) -> None:
        """Send log messages to ``logger``, by default one named after the client module."""
        if logger is None:
            logger = self._program.logger or logging.getLogger("device_sdk.paho.client")
        self._program.logger = logger

    def disable_logger(self) -> None:
        """Send log messages only to ``on_log``."""
        self._program.logger = None

    # Callbacks

    on_log = CallbackAttribute(
        "_program.callbacks.on_log",
        "client, userdata, level, text: a copy of every log message.",
    )
    log_callback = on_log.decorator()
    on_pre_connect = CallbackAttribute(
        "_program.callbacks.on_pre_connect",
        "client, userdata: immediately before each attempt to connect; it may set a new will.",
    )
    pre_connect_callback = on_pre_connect.decorator()
    on_connect = CallbackAttribute(
        "_program.callbacks.on_connect",
        "client, userdata, flags, reason code, properties: the broker has accepted or refused us.",
    )
    connect_callback = on_connect.decorator()
    on_connect_fail = CallbackAttribute(
        "_program.callbacks.on_connect_fail",
        "client, userdata: a loop could not open the stream.",
    )
    connect_fail_callback = on_connect_fail.decorator()
    on_subscribe = CallbackAttribute(
        "_program.callbacks.on_subscribe",
        "client, userdata, mid, reason codes, properties: the broker has answered SUBSCRIBE.",
    )
    subscribe_callback = on_subscribe.decorator()
    on_message = CallbackAttribute(
        "_program.callbacks.on_message",
        "client, userdata, message: a message that no filter of message_callback_add() matches.",
    )
    message_callback = on_message.decorator()
    on_publish = CallbackAttribute(
        "_program.callbacks.on_publish",
        "client, userdata, mid, reason code, properties: a message is published.",
    )
    publish_callback = on_publish.decorator()
    on_unsubscribe = CallbackAttribute(
        "_program.callbacks.on_unsubscribe",
        "client, userdata, mid, reason codes, properties: the broker has answered UNSUBSCRIBE.",
    )
    unsubscribe_callback = on_unsubscribe.decorator()
    on_disconnect = CallbackAttribute(
        "_program.callbacks.on_disconnect",
        "client, userdata, flags, reason code, properties: the stream has ended.",
    )
    disconnect_callback = on_disconnect.decorator()
    on_socket_open = CallbackAttribute(
        "_program.callbacks.on_socket_open",
        "client, userdata, socket: the socket is open.",
    )
    socket_open_callback = on_socket_open.decorator()
    on_socket_close = CallbackAttribute(
        "_program.callbacks.on_socket_close",
        "client, userdata, socket: the socket is about to be closed.",
    )
    socket_close_callback = on_socket_close.decorator()
    on_socket_register_write = CallbackAttribute(
        "_program.callbacks.on_socket_register_write",
        "client, userdata, socket: call loop_write() when the socket is writable.",
    )
    socket_register_write_callback = on_socket_register_write.decorator()
    on_socket_unregister_write = CallbackAttribute(
        "_program.callbacks.on_socket_unregister_write",
        "client, userdata, socket: loop_write() is no longer needed.",
    )
    socket_unregister_write_callback = on_socket_unregister_write.decorator()

    def message_callback_add(self, sub: str, callback: Callback) -> None:
        """Call ``callback`` for messages whose topic matches, ``on_message`` only for those that match none.

        One callback for each filter; all that match are called. Raises: ValueError: an argument is None.
        """
        if callback is None or sub is None:
            raise ValueError("sub and callback must both be defined.")
        self._program.topics.add(sub, callback)

    def message_callback_remove(self, sub: str) -> None:
        """Undo :meth:`message_callback_add`. Raises: ValueError: ``sub`` is None."""
        if sub is None:
            raise ValueError("sub must defined.")
        self._program.topics.remove(sub)

    def topic_callback(self, sub: str) -> Decorator:
        """As a decorator: :meth:`message_callback_add`."""

        def decorator(func: Callback) -> Callback:
            self.message_callback_add(sub, func)
            return func

        return decorator

    # Connecting and disconnecting

    def connect(
        self,
        host: str,
        port: int = 1883,
        keepalive: int = 60,
        bind_address: str = "",
        bind_port: int = 0,
        clean_start: bool | int = CLEAN_START_FIRST_ONLY,
        properties: Properties | None = None,
    ) -> MQTTErrorCode:
        """Open the stream and send CONNECT, without waiting for the answer, which a loop receives.

        ``clean_start`` and ``properties`` are for MQTT 5.0; 3 is clean only until the first answer. The port
        is 1883 also with TLS. Raises: OSError: the stream cannot be opened. ValueError: a wrong argument.
        """
        self._connect.expect_first(clean_start, properties)
        self.connect_async(host, port, keepalive, bind_address, bind_port, clean_start, properties)
        return self.reconnect()

    def connect_async(
        self,
        host: str,
        port: int = 1883,
        keepalive: int = 60,
        bind_address: str = "",
        bind_port: int = 0,
        clean_start: bool | int = CLEAN_START_FIRST_ONLY,
        properties: Properties | None = None,
    ) -> None:
        """End the present connection, if any, and set the address for the loop to connect to.

        Raises: ValueError: a wrong argument.
        """
        if bind_port < 0:
            raise ValueError("Invalid bind port number.")
        self._connection.drop()
        self._life.begin_anew()
        self._endpoint.host = host
        self._endpoint.port = port
        self._connect.keepalive = keepalive
        self._endpoint.source = (bind_address, bind_port)
        self._connect.set_start(clean_start, properties)
        self._life.wait_for_loop()

    def connect_srv(
        self,
        domain: str | None = None,
        keepalive: int = 60,
        bind_address: str = "",
        bind_port: int = 0,
        clean_start: bool | int = CLEAN_START_FIRST_ONLY,
        properties: Properties | None = None,
    ) -> MQTTErrorCode:
        """Connect to the first broker that answers, of those that the DNS names for ``domain``.

        By default the domain of this computer. Servers are tried by priority, then by weight (RFC 2782).
        Raises: ValueError: dnspython is not installed, the DNS names none, or none answers.
        """
        for host, port in find_brokers(domain, encrypted=self._endpoint.ssl_context is not None):
            try:
                return self.connect(host, port, keepalive, bind_address, bind_port, clean_start, properties)
            except OSError as error:
                self._program.log(LogLevel.MQTT_LOG_WARNING, "%s:%d does not answer: %s", host, port, error)
        raise ValueError("No SRV hosts responded")

    def reconnect(self) -> MQTTErrorCode:
        """Open the stream again and send CONNECT; as :meth:`connect` with the arguments it had.

        Raises: OSError: the stream cannot be opened. ValueError: there is no host yet.
        """
        return self._connection.reconnect()

    def is_connected(self) -> bool:
        """Return whether the broker has accepted the connection, and it has not ended."""
        return self._life.is_connected

    def disconnect(
        self, reasoncode: ReasonCode | None = None, properties: Properties | None = None
    ) -> MQTTErrorCode:
        """Send DISCONNECT after the output that is waiting, and do not reconnect.

        Both arguments are for MQTT 5.0. Messages that the broker has not acknowledged are kept.
        Returns: ``MQTT_ERR_NO_CONN`` without a connection.
        """
        return self._connection.disconnect(reasoncode, properties)

    def socket(self) -> Any:
        """Return the socket of the connection, for example for ``select()``, or ``None``."""
        return self._connection.socket()

    def want_write(self) -> bool:
        """Return whether there is output to send."""
        return self._core.wants_write()

    # Messages

    def publish(
        self,
        topic: str,
        payload: Any = None,
        qos: int = 0,
        retain: bool = False,
        properties: Properties | None = None,
    ) -> MQTTMessageInfo:
        """Publish text, bytes, a number (as text) or an empty payload.

        ``properties``: MQTT 5.0; a topic alias is resolved, not sent: a repeat needs the full topic.
        Returns: ``mid`` and ``rc``: ``MQTT_ERR_NO_CONN`` without a connection (QoS 1 and 2 are sent with the
        next one), ``_QUEUE_SIZE`` if the queue is full, ``_PAYLOAD_SIZE`` or ``_NOT_SUPPORTED`` beyond a
        limit of the broker. Raises: ValueError: an empty topic, wildcards, another QoS, a payload too large.
        TypeError: a payload of another type.
        """
        return self._outgoing.publish(topic, payload, qos, retain, properties)

    def subscribe(
        self,
        topic: Any,
        qos: int = 0,
        options: SubscribeOptions | None = None,
        properties: Properties | None = None,
    ) -> tuple[MQTTErrorCode, int | None]:
        """Subscribe once, on this connection: subscribe again in ``on_connect``.

        ``topic``: a topic filter, a pair of filter and QoS, or a list of such pairs; in MQTT 5.0 a pair may
        have :class:`SubscribeOptions` in place of the QoS.

        Returns: ``MQTT_ERR_SUCCESS`` and the mid for ``on_subscribe``, or ``(MQTT_ERR_NO_CONN, None)``.
        Raises: ValueError: a wrong filter, QoS or combination.
        """
        return self._subscribing.subscribe(topic, qos, options, properties)

    def unsubscribe(
        self, topic: str | list[str], properties: Properties | None = None
    ) -> tuple[MQTTErrorCode, int | None]:
        """Undo :meth:`subscribe` for a topic filter or a list of them. Returns and raises as it does."""
        return self._subscribing.unsubscribe(topic, properties)

    def drop_out_messages(self) -> list[MQTTMessage]:
        """Drop and return all messages of QoS 1 and 2 that the broker has not acknowledged."""
        return self._outgoing.drop()

    def manual_ack_set(self, on: bool) -> None:
        """Set whether the program acknowledges every received message of QoS 1 and 2 with :meth:`ack`."""
        self._acks.set_by_hand(on)

    def ack(self, mid: int, qos: int) -> MQTTErrorCode:
        """Acknowledge a received message; no effect unless ``manual_ack`` is set."""
        if self._acks.acknowledge(mid, qos):
            self._connection.added_output(self._core.is_parked())
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    # Loops

    def loop(self, timeout: float = 1.0) -> MQTTErrorCode:
        """Wait for the network once, at most ``timeout`` seconds, and do the work that is due.

        Returns: above 0 if the connection has ended or there is none.
        Raises: ValueError: a timeout below 0. Exceptions of callbacks.
        """
        if timeout < 0.0:
            raise ValueError("Invalid timeout.")
        return self._loop.turn(timeout)

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> MQTTErrorCode:
        """Run until ``disconnect()``; reconnect as often as necessary.

        ``timeout``: seconds between checks of the clock. Raises: OSError: the connection of connect_async()
        cannot be opened, unless ``retry_first_connection``. Exceptions of callbacks.
        """
        while True:
            loop = self._loop
            if not self._loop_thread.is_current():
                loop.resume()
            rc = loop.run(timeout, retry_first_connection)
            if loop is self._loop:  # else reinitialise() or store_set() has replaced it
                return rc

    def loop_start(self) -> MQTTErrorCode:
        """Start a thread that runs :meth:`loop_forever`. Returns: ``MQTT_ERR_INVAL`` if there is one."""
        name = f"paho-mqtt-client-{self._connect.client_id.decode()}"
        return self._loop_thread.start(self._loop, self.loop_forever, name)

    def loop_stop(self) -> MQTTErrorCode:
        """End the thread; first it sends waiting output and awaits its acknowledgements, for at most 5 s.

        In a callback: the thread ends after it. Returns: ``MQTT_ERR_INVAL`` if there is no thread.
        """
        return self._loop_thread.stop(self._loop)

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read from the socket, which is readable, and run callbacks. ``max_packets`` has no meaning."""
        return self._loop.read()

    def loop_write(self) -> MQTTErrorCode:
        """Write to the socket, which is writable, and run callbacks."""
        return self._loop.write()

    def loop_misc(self) -> MQTTErrorCode:
        """Send pings, and detect a broker that does not answer; call it every few seconds."""
        return self._loop.keep_time()


serve_private_names(Client)


def _check_version(callback_api_version: object, *, warns: bool) -> None:
    if warns and callback_api_version == CallbackAPIVersion.VERSION1:
        warnings.warn(
            "Callback API version 1 is deprecated, update to latest version",
            category=DeprecationWarning,
            stacklevel=3,
        )
    if isinstance(callback_api_version, CallbackAPIVersion):
        return
    if isinstance(callback_api_version, (str, bytes)) or callback_api_version is None:
        kind = TypeError if isinstance(callback_api_version, str) else ValueError
        raise kind(f"Unsupported callback API version: {callback_api_version!r} {_WRITTEN_FOR_1_X}")
    raise ValueError(f"Unsupported callback API version: {callback_api_version!r}")
