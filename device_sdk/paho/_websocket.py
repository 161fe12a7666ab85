"""WebSocket as in paho-mqtt: any subprotocol is accepted, and a failed handshake has one exception."""

from __future__ import annotations

import re

from device_sdk.errors import ConnectFailedError
from device_sdk.net.upgrade import Upgrade
from device_sdk.net.websocket import WebSocketTransport
from device_sdk.paho._codes import WebsocketConnectionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.net.layer import Link

__all__ = ["PahoWebSocket"]

_SUBPROTOCOL = re.compile(rb"\r\nSec-WebSocket-Protocol:[^\r\n]*", re.IGNORECASE)
_UPGRADE = re.compile(rb"\r\nConnection:[^\r\n]*\bUpgrade\b", re.IGNORECASE)
_ACCEPTED = re.compile(rb"HTTP/1\.\d 101\b")


class _PahoUpgrade(Upgrade):
    __slots__ = ("_head",)

    def run(self, link: Link) -> Any:
        """As the base class. Raises: WebsocketConnectionError: in paho's words."""
        self._head = b""
        try:
            return super().run(link)
        except ConnectFailedError as error:
            raise WebsocketConnectionError(self._problem()) from error

    def _problem(self) -> str:
        if not _ACCEPTED.match(self._head):
            return "WebSocket handshake error"
        if not _UPGRADE.search(self._head):
            return "WebSocket handshake error, connection not upgraded"
        return "WebSocket handshake error, invalid secret key"

    def read_head(self, link: Link) -> tuple[bytes, bytes]:
        """As the base class, but treat any subprotocol of the server as ours."""
        self._head, rest = super().read_head(link)
        head = _SUBPROTOCOL.sub(b"", self._head)
        return head[:-2] + b"Sec-WebSocket-Protocol: mqtt\r\n\r\n", rest


class PahoWebSocket(WebSocketTransport):
    """A WebSocket on a stream that may be replaced: ``inner``."""

    __slots__ = ()

    asks_by = _PahoUpgrade
