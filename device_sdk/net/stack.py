"""The bottom of a stack of streams: TCP for ``mqtt://``, and below TLS and WebSocket."""

from __future__ import annotations

import os

from device_sdk._load import load
from device_sdk.net.base import ParsedUrl, Transport, takes
from device_sdk.net.tcp import TcpTransport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["TCP_STREAM_OPTIONS", "tcp_stream"]

TCP_STREAM_OPTIONS = ("proxy", *TcpTransport.options)

# Imported only if there is a proxy.
_THROUGH_PROXY = "device_sdk.net.proxy:ProxyTransport"
_PROXY_FROM_ENVIRONMENT = "device_sdk.net.proxy:proxy_from_environment"


@takes(*TCP_STREAM_OPTIONS)
def tcp_stream(url: ParsedUrl, *, proxy: str | None = None, **options: Any) -> Transport:
    """Return the TCP connection of the URL, not opened yet: the bottom of a stack.

    ``proxy``: the URL of a proxy, ``""`` for a direct connection, ``None`` for the present value of the
    environment variable ``mqtt_proxy``. The other options are those of
    :class:`~device_sdk.net.tcp.TcpTransport`, or of :class:`~device_sdk.net.proxy.ProxyTransport`.
    """
    if proxy is None and ("mqtt_proxy" in os.environ or "MQTT_PROXY" in os.environ):
        proxy = load(_PROXY_FROM_ENVIRONMENT)(url.address)
    if not proxy:
        return TcpTransport(url, **options)
    through: Transport = load(_THROUGH_PROXY)(url, proxy=proxy, **options)
    return through
