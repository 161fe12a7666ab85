"""``import device_sdk.paho.client as mqtt``: the client of paho-mqtt 2.x on the engine of device_sdk.

Programs written for paho-mqtt run unchanged. :class:`Client` is put together from its parts, each a module:
settings, callbacks, events, connection, publishing, loops.
"""

from __future__ import annotations

import errno
import ssl
import threading
import warnings
import weakref
from collections.abc import Callable
from time import monotonic

from device_sdk._load import load
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
from device_sdk.paho._connection import CLEAN_START_FIRST_ONLY, resolver
from device_sdk.paho._engine import PahoEngine
from device_sdk.paho._loop import Loop
from device_sdk.paho._message import MQTTMessage, MQTTMessageInfo
from device_sdk.paho._settings import TRANSPORTS
from device_sdk.paho._stream import socks
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
    from typing import Any

    from device_sdk.mqtt.session import Session

__all__ = [
    "AUTH",
    "CONNACK",
    "CONNACK_ACCEPTED",
    "CONNACK_REFUSED_BAD_USERNAME_PASSWORD",
    "CONNACK_REFUSED_IDENTIFIER_REJECTED",
    "CONNACK_REFUSED_NOT_AUTHORIZED",
    "CONNACK_REFUSED_PROTOCOL_VERSION",
    "CONNACK_REFUSED_SERVER_UNAVAILABLE",
    "CONNECT",
    "DISCONNECT",
    "EAGAIN",
    "HAVE_DNS",
    "LOGGING_LEVEL",
    "MQTT_BRIDGE",
    "MQTT_CLEAN_START_FIRST_ONLY",
    "MQTT_CLIENT",
    "MQTT_ERR_ACL_DENIED",
    "MQTT_ERR_AGAIN",
    "MQTT_ERR_AUTH",
    "MQTT_ERR_CONN_LOST",
    "MQTT_ERR_CONN_REFUSED",
    "MQTT_ERR_ERRNO",
    "MQTT_ERR_INVAL",
    "MQTT_ERR_KEEPALIVE",
    "MQTT_ERR_NOMEM",
    "MQTT_ERR_NOT_FOUND",
    "MQTT_ERR_NOT_SUPPORTED",
    "MQTT_ERR_NO_CONN",
    "MQTT_ERR_PAYLOAD_SIZE",
    "MQTT_ERR_PROTOCOL",
    "MQTT_ERR_QUEUE_SIZE",
    "MQTT_ERR_SUCCESS",
    "MQTT_ERR_TLS",
    "MQTT_ERR_UNKNOWN",
    "MQTT_LOG_DEBUG",
    "MQTT_LOG_ERR",
    "MQTT_LOG_INFO",
    "MQTT_LOG_NOTICE",
    "MQTT_LOG_WARNING",
    "PINGREQ",
    "PINGRESP",
    "PUBACK",
    "PUBCOMP",
    "PUBLISH",
    "PUBREC",
    "PUBREL",
    "SUBACK",
    "SUBSCRIBE",
    "UNSUBACK",
    "UNSUBSCRIBE",
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
    "MQTTv5",
    "MQTTv31",
    "MQTTv311",
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
    "mqtt_ms_invalid",
    "mqtt_ms_publish",
    "mqtt_ms_queued",
    "mqtt_ms_resend_pubcomp",
    "mqtt_ms_resend_pubrel",
    "mqtt_ms_send_pubrec",
    "mqtt_ms_wait_for_puback",
    "mqtt_ms_wait_for_pubcomp",
    "mqtt_ms_wait_for_pubrec",
    "mqtt_ms_wait_for_pubrel",
    "socks",
    "ssl",
    "time_func",
    "topic_matches_sub",
]

_SQLITE_STORE = "device_sdk.store.sqlite:SqliteStore"  # imported when it is needed

MQTT_CLEAN_START_FIRST_ONLY = CLEAN_START_FIRST_ONLY
HAVE_DNS = resolver is not None
EAGAIN = errno.EAGAIN
time_func = monotonic

# What annotations use.

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

# The numbers, under the names that programs use.

CONNECT = MessageType.CONNECT
CONNACK = MessageType.CONNACK
PUBLISH = MessageType.PUBLISH
PUBACK = MessageType.PUBACK
PUBREC = MessageType.PUBREC
PUBREL = MessageType.PUBREL
PUBCOMP = MessageType.PUBCOMP
SUBSCRIBE = MessageType.SUBSCRIBE
SUBACK = MessageType.SUBACK
UNSUBSCRIBE = MessageType.UNSUBSCRIBE
UNSUBACK = MessageType.UNSUBACK
PINGREQ = MessageType.PINGREQ
PINGRESP = MessageType.PINGRESP
DISCONNECT = MessageType.DISCONNECT
AUTH = MessageType.AUTH

MQTT_LOG_INFO = LogLevel.MQTT_LOG_INFO
MQTT_LOG_NOTICE = LogLevel.MQTT_LOG_NOTICE
MQTT_LOG_WARNING = LogLevel.MQTT_LOG_WARNING
MQTT_LOG_ERR = LogLevel.MQTT_LOG_ERR
MQTT_LOG_DEBUG = LogLevel.MQTT_LOG_DEBUG

CONNACK_ACCEPTED = ConnackCode.CONNACK_ACCEPTED
CONNACK_REFUSED_PROTOCOL_VERSION = ConnackCode.CONNACK_REFUSED_PROTOCOL_VERSION
CONNACK_REFUSED_IDENTIFIER_REJECTED = ConnackCode.CONNACK_REFUSED_IDENTIFIER_REJECTED
CONNACK_REFUSED_SERVER_UNAVAILABLE = ConnackCode.CONNACK_REFUSED_SERVER_UNAVAILABLE
CONNACK_REFUSED_BAD_USERNAME_PASSWORD = ConnackCode.CONNACK_REFUSED_BAD_USERNAME_PASSWORD
CONNACK_REFUSED_NOT_AUTHORIZED = ConnackCode.CONNACK_REFUSED_NOT_AUTHORIZED

mqtt_ms_invalid = MessageState.MQTT_MS_INVALID
mqtt_ms_publish = MessageState.MQTT_MS_PUBLISH
mqtt_ms_wait_for_puback = MessageState.MQTT_MS_WAIT_FOR_PUBACK
mqtt_ms_wait_for_pubrec = MessageState.MQTT_MS_WAIT_FOR_PUBREC
mqtt_ms_resend_pubrel = MessageState.MQTT_MS_RESEND_PUBREL
mqtt_ms_wait_for_pubrel = MessageState.MQTT_MS_WAIT_FOR_PUBREL
mqtt_ms_resend_pubcomp = MessageState.MQTT_MS_RESEND_PUBCOMP
mqtt_ms_wait_for_pubcomp = MessageState.MQTT_MS_WAIT_FOR_PUBCOMP
mqtt_ms_send_pubrec = MessageState.MQTT_MS_SEND_PUBREC
mqtt_ms_queued = MessageState.MQTT_MS_QUEUED

MQTT_ERR_AGAIN = MQTTErrorCode.MQTT_ERR_AGAIN
MQTT_ERR_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS
MQTT_ERR_NOMEM = MQTTErrorCode.MQTT_ERR_NOMEM
MQTT_ERR_PROTOCOL = MQTTErrorCode.MQTT_ERR_PROTOCOL
MQTT_ERR_INVAL = MQTTErrorCode.MQTT_ERR_INVAL
MQTT_ERR_NO_CONN = MQTTErrorCode.MQTT_ERR_NO_CONN
MQTT_ERR_CONN_REFUSED = MQTTErrorCode.MQTT_ERR_CONN_REFUSED
MQTT_ERR_NOT_FOUND = MQTTErrorCode.MQTT_ERR_NOT_FOUND
MQTT_ERR_CONN_LOST = MQTTErrorCode.MQTT_ERR_CONN_LOST
MQTT_ERR_TLS = MQTTErrorCode.MQTT_ERR_TLS
MQTT_ERR_PAYLOAD_SIZE = MQTTErrorCode.MQTT_ERR_PAYLOAD_SIZE
MQTT_ERR_NOT_SUPPORTED = MQTTErrorCode.MQTT_ERR_NOT_SUPPORTED
MQTT_ERR_AUTH = MQTTErrorCode.MQTT_ERR_AUTH
MQTT_ERR_ACL_DENIED = MQTTErrorCode.MQTT_ERR_ACL_DENIED
MQTT_ERR_UNKNOWN = MQTTErrorCode.MQTT_ERR_UNKNOWN
MQTT_ERR_ERRNO = MQTTErrorCode.MQTT_ERR_ERRNO
MQTT_ERR_QUEUE_SIZE = MQTTErrorCode.MQTT_ERR_QUEUE_SIZE
MQTT_ERR_KEEPALIVE = MQTTErrorCode.MQTT_ERR_KEEPALIVE

MQTTv31 = MQTTProtocolVersion.MQTTv31
MQTTv311 = MQTTProtocolVersion.MQTTv311
MQTTv5 = MQTTProtocolVersion.MQTTv5

MQTT_CLIENT = PahoClientMode.MQTT_CLIENT
MQTT_BRIDGE = PahoClientMode.MQTT_BRIDGE


class Client(Loop):
    """An MQTT client with the interface of paho-mqtt 2.x.

    Args:
        callback_api_version: which arguments the callbacks get; version 1 is deprecated.
        client_id: name of the session, text or bytes; empty lets the broker choose one.
        clean_session: MQTT 3.x: whether the broker forgets the session; default True.
        userdata: second argument of every callback.
        protocol: ``MQTTv31``, ``MQTTv311`` or ``MQTTv5``.
        transport: ``"tcp"``, ``"websockets"`` or ``"unix"``.
        reconnect_on_failure: whether ``loop_forever()`` and ``loop_start()`` connect again.
        manual_ack: whether the program acknowledges received messages with ``ack()``.
        store: a path, or a :class:`~device_sdk.store.base.Store`: messages of QoS 1 and 2 survive the end of
            the process. paho-mqtt has nothing like it.

    Callbacks run in the thread that runs the loop. Any method may be called from any thread and in callbacks.

    Raises: ValueError: a value that cannot work. TypeError: the first argument is a client identifier, as in
    paho-mqtt 1.x.
    """

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
            raise ValueError(f'transport must be "websockets", "tcp" or "unix", not {transport}')
        _check_version(callback_api_version)
        identifier = client_id.decode() if isinstance(client_id, bytes) else client_id or ""
        if protocol == MQTTProtocolVersion.MQTTv5:
            if clean_session is not None:
                raise ValueError("Clean session is not used for MQTT 5.0")
        elif clean_session is not None and not clean_session and not identifier:
            raise ValueError("A client id must be provided if clean session is False.")
        if not identifier and protocol == MQTTProtocolVersion.MQTTv31:
            identifier = made_up_client_id()
        self._lock = threading.Lock()
        super().__init__(protocol, transport, userdata)
        self._callback_api_version = callback_api_version
        self._client_id = identifier.encode()
        self._clean_session = clean_session is None or bool(clean_session)
        self._reconnect_on_failure = reconnect_on_failure
        self._make_engine(None)
        self.manual_ack_set(manual_ack)
        if store is not None:
            self.store_set(store)

    def _make_engine(self, store: Store | None) -> None:
        # The engine does not keep the client, so that dropping the client ends the connection at once.
        tell = _forwarder(weakref.WeakMethod(self._tell))
        wants_log = _forwarder(weakref.WeakMethod(self._wants_log))
        self._engine = PahoEngine(self._lock, store, tell, wants_log)
        self._engine.waiting.wake = _forwarder(weakref.WeakMethod(self._wake))
        self._runner.tell = self._engine.tell

    def store_set(self, store: str | Store) -> None:
        """Keep messages of QoS 1 and 2 in this store, a path or a Store; call it before everything else.

        What an earlier process has left there is sent with the first connection; ``on_publish`` is not called
        for it. The store is closed with the last reference to this client, or at the end of the program. Use
        ``clean_session=False`` (MQTT 5.0: a session expiry) for QoS 2 to arrive once.

        Raises: RuntimeError: there is a connection, or messages wait. StoreError: it cannot be opened.
        """
        if self._has_socket() or self._engine.outstanding:
            raise RuntimeError("store_set() must be called before connect() and publish()")
        opened = store if isinstance(store, Store) else load(_SQLITE_STORE)(store)
        saved = opened.open()
        self._make_engine(opened)
        # An earlier client may have spoken another version of MQTT.
        self._engine.options = self._connect_fields()
        self._engine.adopt(saved, opened, monotonic(), _forwarder(weakref.WeakMethod(self._wake)))
        opened.on_progress = _forwarder(weakref.WeakMethod(self._store_progressed))
        self.manual_ack_set(self._manual_ack)
        # There is no close(): the end of the client or of the program has to do.
        weakref.finalize(self, _close_store, opened, self._engine.session, self._lock)

    def _store_progressed(self) -> None:
        with self._lock:
            wake = self._engine.on_store_progress()
        if wake:
            self._wake()

    def reinitialise(self, client_id: str = "", clean_session: bool = True, userdata: Any = None) -> None:
        """Close the connection and begin anew as a client of MQTT 3.1.1 over TCP, without callbacks."""
        self._drop()
        self.__init__(self._callback_api_version, client_id, clean_session, userdata)  # type: ignore[misc]


def _forwarder(method: weakref.WeakMethod[Callable[..., Any]]) -> Callable[..., Any]:
    """Return a function that calls a method as long as its object is there, without keeping it."""

    def forward(*arguments: object) -> Any:
        function = method()
        return None if function is None else function(*arguments)

    return forward


def _close_store(store: Store, session: Session, lock: threading.Lock) -> None:
    """Hand over what is left, and where the packet identifiers are to go on."""
    with lock:
        session.record(("reserved", session.last_packet_id))
        changes = session.take_changes()
    if changes:
        store.submit(changes, session.change_number)
    store.close()


def _check_version(callback_api_version: object) -> None:
    if callback_api_version == CallbackAPIVersion.VERSION1:
        warnings.warn(
            "Callback API version 1 is deprecated, update to latest version",
            category=DeprecationWarning,
            stacklevel=3,
        )
    if isinstance(callback_api_version, str):
        raise TypeError(
            "Unsupported callback API version: version 2.0 added a callback_api_version, "
            "see docs/migrations.rst for details"
        )
    if not isinstance(callback_api_version, CallbackAPIVersion):
        raise ValueError("Unsupported callback API version")
