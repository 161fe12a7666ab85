"""What a client is told before it connects: who it is, where to, how encrypted, with which will."""

from __future__ import annotations

import logging
import ssl
import urllib.parse
import urllib.request
from abc import ABC, abstractmethod

from device_sdk._load import load
from device_sdk.mqtt.message import Will
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.net.base import ParsedUrl, Transport
from device_sdk.paho._codes import LOGGING_LEVEL
from device_sdk.paho._message import encode_payload
from device_sdk.paho._stream import SocketStream, socks
from device_sdk.paho.enums import LogLevel, MQTTProtocolVersion
from device_sdk.paho.properties import Properties, as_mapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

__all__ = ["NEW", "TRANSPORTS", "VERSIONS", "Settings"]

TRANSPORTS = ("websockets", "tcp", "unix")
VERSIONS = {
    MQTTProtocolVersion.MQTTv31: "3.1",
    MQTTProtocolVersion.MQTTv311: "3.1.1",
    MQTTProtocolVersion.MQTTv5: "5.0",
}
# Imported when they are needed.
_TLS = "device_sdk.net.tls:TlsTransport"
_TLS_OPTIONS = "device_sdk.net.tls:TLSOptions"
_WEBSOCKET = "device_sdk.paho._websocket:PahoWebSocket"

_LARGEST_PACKET = 268_435_460
_LONGEST_FRAME = (1 << 31) - 1
_LONGEST_TIMEOUT = 65_535.0

# The states of a client, in the words of its log.
NEW, CONNECT_ASYNC, CONNECTING, CONNECTED = "NEW", "CONNECT_ASYNC", "CONNECTING", "CONNECTED"
CONNECTION_LOST, DISCONNECTING, DISCONNECTED = "CONNECTION_LOST", "DISCONNECTING", "DISCONNECTED"

_PROXY_ARGUMENTS = (
    "proxy_type",
    "proxy_addr",
    "proxy_port",
    "proxy_rdns",
    "proxy_username",
    "proxy_password",
)


class Settings(ABC):
    """The part of a client that only remembers; what concerns CONNECT counts from the next one on."""

    on_log: Callable[..., object] | None

    def __init__(self, protocol: int, transport: str, userdata: Any) -> None:
        self._protocol = protocol
        self._transport = transport
        self._userdata = userdata
        self._state = NEW
        self._host, self._port = "", 1883
        self._source = ("", 0)
        self._keepalive = 60
        self._connect_timeout = 5.0
        self._client_id = b""  # bytes, as libraries on top of paho-mqtt expect
        self._bridge = False
        self._username: str | None = None
        self._password: bytes | None = None
        self._connect_properties: Properties | None = None
        self._will: tuple[str, bytes, int, bool] | None = None
        self._will_properties: Properties | None = None
        self._max_inflight_messages = 20
        self._max_queued_messages = 0
        self._ssl_context: ssl.SSLContext | None = None
        self._websocket_path: str | None = "/mqtt"
        self._websocket_headers: Any = None
        self._proxy: dict[str, Any] | None = None
        self._logger: logging.Logger | None = None
        self.suppress_exceptions = False

    @abstractmethod
    def _has_socket(self) -> bool:
        """Whether there is a connection."""

    def _connection_closed(self) -> bool:
        """Whether there is no connection, and none is being opened."""
        if self._state == NEW:
            return True
        return self._state in (DISCONNECTING, DISCONNECTED) and not self._has_socket()

    def _check_closed(self, name: str) -> None:
        if not self._connection_closed():
            raise RuntimeError(f"updating {name} on established connection is not supported")

    # Properties

    @property
    def host(self) -> str:
        """The broker's name or address; empty before ``connect()``. To be changed without a connection."""
        return self._host

    @host.setter
    def host(self, value: str) -> None:
        self._check_closed("host")
        if not value:
            raise ValueError("Invalid host.")
        self._host = value

    @property
    def port(self) -> int:
        """The broker's port, above 0. To be changed without a connection."""
        return self._port

    @port.setter
    def port(self, value: int) -> None:
        self._check_closed("port")
        if value <= 0:
            raise ValueError("Invalid port number.")
        self._port = value

    @property
    def keepalive(self) -> int:
        """Seconds of silence before PINGREQ, 0 is off. To be changed without a connection."""
        return self._keepalive

    @keepalive.setter
    def keepalive(self, value: int) -> None:
        self._check_closed("keepalive")
        if value < 0:
            raise ValueError("Keepalive must be >=0.")
        self._keepalive = value

    @property
    def transport(self) -> str:
        """``"tcp"``, ``"websockets"`` or ``"unix"``. To be changed without a connection."""
        return self._transport

    @transport.setter
    def transport(self, value: str) -> None:
        self._check_closed("transport")
        self._transport = value

    @property
    def protocol(self) -> MQTTProtocolVersion:
        """The protocol version."""
        return MQTTProtocolVersion(self._protocol)

    @property
    def connect_timeout(self) -> float:
        """Seconds for opening the stream, above 0. To be changed without a connection."""
        return self._connect_timeout

    @connect_timeout.setter
    def connect_timeout(self, value: float) -> None:
        self._check_closed("connect_timeout")
        if value <= 0.0:
            raise ValueError("timeout must be a positive number")
        self._connect_timeout = value

    @property
    def username(self) -> str | None:
        """The user name, ``None`` without. To be changed without a connection."""
        return self._username

    @username.setter
    def username(self, value: str | None) -> None:
        self._check_closed("username")
        self._username = value

    @property
    def password(self) -> str | None:
        """The password, ``None`` without. To be changed without a connection."""
        return None if self._password is None else self._password.decode()

    @password.setter
    def password(self, value: str | None) -> None:
        self._check_closed("password")
        self._password = None if value is None else value.encode()

    @property
    def max_inflight_messages(self) -> int:
        """Messages of QoS 1 and 2 on their way at once; 0 is no limit. To be changed without a connection."""
        return self._max_inflight_messages

    @max_inflight_messages.setter
    def max_inflight_messages(self, value: int) -> None:
        self._check_closed("max_inflight_messages")
        if value < 0:
            raise ValueError("Invalid inflight.")
        self._max_inflight_messages = value

    @property
    def max_queued_messages(self) -> int:
        """Messages of QoS 1 and 2 kept at once; 0 is no limit. To be changed without a connection."""
        return self._max_queued_messages

    @max_queued_messages.setter
    def max_queued_messages(self, value: int) -> None:
        self._check_closed("max_queued_messages")
        if value < 0:
            raise ValueError("Invalid queue size.")
        self._max_queued_messages = value

    @property
    def will_topic(self) -> str | None:
        """The topic of the will, empty without one."""
        return "" if self._will is None else self._will[0]

    @property
    def will_payload(self) -> bytes | bytearray | None:
        """The payload of the will, empty without one."""
        return b"" if self._will is None else self._will[1]

    @property
    def logger(self) -> logging.Logger | None:
        """Where log messages go, ``None``: nowhere but ``on_log``."""
        return self._logger

    @logger.setter
    def logger(self, value: logging.Logger | None) -> None:
        self._logger = value

    # Functions

    def max_inflight_messages_set(self, inflight: int) -> None:
        """Set :attr:`max_inflight_messages`."""
        self.max_inflight_messages = inflight

    def max_queued_messages_set(self, queue_size: int) -> Self:
        """Set :attr:`max_queued_messages` and return the client. Raises: TypeError: not an int."""
        if not isinstance(queue_size, int):
            raise TypeError("queue_size should be an int")
        self.max_queued_messages = queue_size
        return self

    def user_data_set(self, userdata: Any) -> None:
        """Set what every callback gets as its second argument."""
        self._userdata = userdata

    def user_data_get(self) -> Any:
        """Return what every callback gets as its second argument."""
        return self._userdata

    def username_pw_set(self, username: str | None, password: str | None = None) -> None:
        """Set the credentials of the next CONNECT; ``None`` is none. May be called in ``on_pre_connect``."""
        self._username = username
        self._password = password.encode() if isinstance(password, str) else password

    def enable_bridge_mode(self) -> None:
        """Tell the broker that this client is a bridge: it gets nothing back that it has published."""
        self._bridge = True

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
        if not topic:
            raise ValueError("Invalid topic.")
        if qos < 0 or qos > 2:
            raise ValueError("Invalid QoS level.")
        if properties and not isinstance(properties, Properties):
            raise ValueError("The properties argument must be an instance of the Properties class.")
        self._will = (topic, encode_payload(payload), qos, bool(retain))
        self._will_properties = properties

    def will_clear(self) -> None:
        """Remove the will."""
        self._will = None
        self._will_properties = None

    def ws_set_options(self, path: str = "/mqtt", headers: Any = None) -> None:
        """Set path and HTTP headers of a WebSocket.

        ``headers``: a dict that is added to the default ones, or a callable that gets those and returns all.
        Raises: ValueError: neither.
        """
        self._websocket_path = path
        if headers is None:
            return
        if not (isinstance(headers, dict) or callable(headers)):
            raise ValueError("'headers' option to ws_set_options has to be either a dictionary or callable")
        self._websocket_headers = headers

    def tls_set_context(self, context: ssl.SSLContext | None = None) -> None:
        """Encrypt with this context, by default :func:`ssl.create_default_context`.

        Raises: ValueError: encryption was configured before.
        """
        if self._ssl_context is not None:
            raise ValueError("SSL/TLS has already been configured.")
        self._ssl_context = ssl.create_default_context() if context is None else context

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
        """Encrypt: files in PEM, by default the system's CA certificates and a broker that must have one.

        Raises: OSError: a file cannot be read. ValueError: encryption was configured before.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if tls_version is None else tls_version)
        if ciphers is not None:
            context.set_ciphers(ciphers)
        if certfile is not None:
            context.load_cert_chain(certfile, keyfile, keyfile_password)
        if cert_reqs == ssl.CERT_NONE:
            context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED if cert_reqs is None else cert_reqs
        if ca_certs is not None:
            context.load_verify_locations(ca_certs)
        else:
            context.load_default_certs()
        if alpn_protocols is not None:
            context.set_alpn_protocols(alpn_protocols)
        self.tls_set_context(context)
        self.tls_insecure_set(cert_reqs == ssl.CERT_NONE)

    def tls_insecure_set(self, value: bool) -> None:
        """Do not look for the broker's name in its certificate: anybody with a certificate can be it.

        Raises: ValueError: encryption was not configured.
        """
        if self._ssl_context is None:
            raise ValueError("Must configure SSL context before using tls_insecure_set.")
        self._ssl_context.check_hostname = not value

    def proxy_set(self, **proxy_args: Any) -> None:
        """Go through a proxy; the arguments are those of PySocks: ``proxy_type``, ``proxy_addr``, ...

        Raises: ValueError: PySocks is not installed, or type or address is missing.
        """
        if socks is None:
            raise ValueError("PySocks must be installed for proxy support.")
        if not _is_proxy(proxy_args):
            raise ValueError("proxy_type and/or proxy_addr are invalid.")
        self._proxy = proxy_args

    def enable_logger(self, logger: logging.Logger | None = None) -> None:
        """Send log messages to ``logger``, by default one named after the client module."""
        if logger is None:
            logger = self._logger or logging.getLogger("device_sdk.paho.client")
        self._logger = logger

    def disable_logger(self) -> None:
        """Send log messages only to ``on_log``."""
        self._logger = None

    def _log(self, level: LogLevel, text: str, *values: object) -> None:
        """Tell ``on_log`` and the logger; an exception in ``on_log`` is nobody's business."""
        on_log = self.on_log
        if on_log is not None:
            try:
                on_log(self, self._userdata, level, text % values)
            except Exception:
                pass
        if self._logger is not None:
            self._logger.log(LOGGING_LEVEL[level], text, *values)

    def _wants_log(self) -> bool:
        return self._logger is not None or self.on_log is not None

    # For connecting

    def _connect_fields(self) -> ConnectOptions:
        """Return the fields of the next CONNECT. Raises: ValueError: one that MQTT cannot express."""
        will = None
        if self._will is not None:
            topic, payload, qos, retain = self._will
            will = Will(topic, payload, qos=qos, retain=retain, properties=as_mapping(self._will_properties))
        properties = as_mapping(self._connect_properties)
        return ConnectOptions(
            self._client_id.decode(),
            bridge=self._bridge,
            version=VERSIONS[MQTTProtocolVersion(self._protocol)],
            keep_alive=self._keepalive,
            receive_maximum=properties.get("receive_maximum", 65_535),
            maximum_packet_size=min(properties.get("maximum_packet_size", _LARGEST_PACKET), _LARGEST_PACKET),
            topic_alias_maximum=properties.get("topic_alias_maximum", 0),
            user_name=self._username,
            password=None if self._username is None else self._password,
            will=will,
            connect_timeout=float(self._keepalive or _LONGEST_TIMEOUT),
            properties=properties,
            announces_limits=False,
        )

    def _new_stream(self) -> tuple[Transport, SocketStream]:
        """Return the byte stream to the broker, and the socket at its bottom; neither is open."""
        path = self._host if self._transport == "unix" else None
        proxy = None if path is not None else self._find_proxy()
        bottom = SocketStream(self._host, self._port, path=path, source=self._source, proxy=proxy)
        stream: Transport = bottom
        secure = {}
        if self._ssl_context is not None:
            secure["tls"] = load(_TLS_OPTIONS)(context=self._ssl_context)
            stream = load(_TLS)(stream, secure["tls"], self._host)
        if self._transport == "websockets":
            url = ParsedUrl(
                "wss" if secure else "ws", self._host, self._port, self._websocket_path or "/mqtt"
            )
            websocket = load(_WEBSOCKET)(
                url, headers=self._websocket_headers, max_message_size=_LONGEST_FRAME, **secure
            )
            websocket.inner, stream = stream, websocket
        return stream, bottom

    def _find_proxy(self) -> dict[str, Any] | None:
        """Return PySocks' arguments: those given, else by ``mqtt_proxy`` in the environment, else its own."""
        if socks is None or self._proxy is not None:
            return self._proxy
        if not urllib.request.proxy_bypass(self._host):
            parts = urllib.parse.urlparse(urllib.request.getproxies().get("mqtt", ""))
            kind = {"http": socks.HTTP, "socks": socks.SOCKS5}.get(parts.scheme)
            if kind is not None:
                return {"proxy_type": kind, "proxy_addr": parts.hostname, "proxy_port": parts.port}
        default = socks.get_default_proxy()
        arguments = dict(zip(_PROXY_ARGUMENTS, default or (), strict=False))
        return arguments if _is_proxy(arguments) else None


def _is_proxy(arguments: dict[str, Any]) -> bool:
    """Whether PySocks could go through it."""
    known = {socks.HTTP, socks.SOCKS4, socks.SOCKS5}
    return arguments.get("proxy_type") in known and bool(arguments.get("proxy_addr"))
