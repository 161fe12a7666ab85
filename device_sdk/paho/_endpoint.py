"""The address of the broker, and the stream to it: TCP or a Unix socket, proxy, TLS, WebSocket."""

from __future__ import annotations

import ssl
import urllib.parse
import urllib.request

from device_sdk._load import load
from device_sdk.net.base import ParsedUrl, Transport
from device_sdk.paho._stream import SocketStream, socks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["TRANSPORTS", "Endpoint", "tls_context"]

TRANSPORTS = ("websockets", "tcp", "unix")
# Imported when they are needed.
_TLS = "device_sdk.net.tls:TlsTransport"
_TLS_OPTIONS = "device_sdk.net.tls:TLSOptions"
_WEBSOCKET = "device_sdk.paho._websocket:PahoWebSocket"

_LONGEST_FRAME = (1 << 31) - 1
_PROXY_ARGUMENTS = (
    "proxy_type",
    "proxy_addr",
    "proxy_port",
    "proxy_rdns",
    "proxy_username",
    "proxy_password",
)


class Endpoint:
    """The program's settings of the way to the broker; they apply to the next stream.

    ``transport``: one of ``TRANSPORTS``. ``source``: local address and port to connect from. ``ssl_context``:
    for TLS, ``None`` without.
    """

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.source = ("", 0)
        self._host, self._port = "", 1883
        self._connect_timeout = 5.0
        self.ssl_context: ssl.SSLContext | None = None
        self._websocket_path: str | None = "/mqtt"
        self._websocket_headers: Any = None
        self._proxy: dict[str, Any] | None = None

    @property
    def host(self) -> str:
        """Name or address; with a Unix socket its path. Empty before the first ``connect()``."""
        return self._host

    @host.setter
    def host(self, value: str) -> None:
        if not value:
            raise ValueError("Invalid host.")
        self._host = value

    @property
    def port(self) -> int:
        """Above 0."""
        return self._port

    @port.setter
    def port(self, value: int) -> None:
        if value <= 0:
            raise ValueError("Invalid port number.")
        self._port = value

    @property
    def connect_timeout(self) -> float:
        """Seconds for opening the stream, above 0."""
        return self._connect_timeout

    @connect_timeout.setter
    def connect_timeout(self, value: float) -> None:
        if value <= 0.0:
            raise ValueError("timeout must be a positive number")
        self._connect_timeout = value

    def set_websocket(self, path: str, headers: Any) -> None:
        """As ``Client.ws_set_options()``."""
        self._websocket_path = path
        if headers is None:
            return
        if not (isinstance(headers, dict) or callable(headers)):
            raise ValueError("'headers' option to ws_set_options has to be either a dictionary or callable")
        self._websocket_headers = headers

    def set_tls_context(self, context: ssl.SSLContext | None) -> None:
        """As ``Client.tls_set_context()``."""
        if self.ssl_context is not None:
            raise ValueError("SSL/TLS has already been configured.")
        self.ssl_context = ssl.create_default_context() if context is None else context

    def set_tls_insecure(self, value: bool) -> None:
        """As ``Client.tls_insecure_set()``."""
        if self.ssl_context is None:
            raise ValueError("Must configure SSL context before using tls_insecure_set.")
        self.ssl_context.check_hostname = not value

    def set_proxy(self, arguments: dict[str, Any]) -> None:
        """As ``Client.proxy_set()``."""
        if socks is None:
            raise ValueError("PySocks must be installed for proxy support.")
        if not _is_proxy(arguments):
            raise ValueError("proxy_type and/or proxy_addr are invalid.")
        self._proxy = arguments

    def new_stream(self) -> tuple[Transport, SocketStream]:
        """Return the byte stream to the broker, and the socket at its bottom; neither is open."""
        path = self._host if self.transport == "unix" else None
        proxy = None if path is not None else self.find_proxy()
        bottom = SocketStream(self._host, self._port, path=path, source=self.source, proxy=proxy)
        stream: Transport = bottom
        secure = {}
        if self.ssl_context is not None:
            secure["tls"] = load(_TLS_OPTIONS)(context=self.ssl_context)
            stream = load(_TLS)(stream, secure["tls"], self._host)
        if self.transport == "websockets":
            url = ParsedUrl(
                "wss" if secure else "ws", self._host, self._port, self._websocket_path or "/mqtt"
            )
            websocket = load(_WEBSOCKET)(
                url, headers=self._websocket_headers, max_message_size=_LONGEST_FRAME, **secure
            )
            websocket.inner, stream = stream, websocket
        return stream, bottom

    def find_proxy(self) -> dict[str, Any] | None:
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


def tls_context(
    ca_certs: str | None,
    certfile: str | None,
    keyfile: str | None,
    cert_reqs: ssl.VerifyMode | None,
    tls_version: int | None,
    ciphers: str | None,
    keyfile_password: str | None,
    alpn_protocols: list[str] | None,
) -> ssl.SSLContext:
    """Return the context for these arguments of ``Client.tls_set()``. Raises: OSError: no such file."""
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
    return context


def _is_proxy(arguments: dict[str, Any]) -> bool:
    """Whether PySocks could go through it."""
    known = {socks.HTTP, socks.SOCKS4, socks.SOCKS5}
    return arguments.get("proxy_type") in known and bool(arguments.get("proxy_addr"))
