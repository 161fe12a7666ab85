"""The packets of a connection in the log, for whoever sets the logger ``device_sdk.packets`` to DEBUG.

The logger is checked once per connection, so a client that is not watched pays nothing. User
names, passwords and authentication data are masked, payloads and other binary data are their lengths.

Threads: those of the connection, see :meth:`PacketLog.on_packet` and :meth:`PacketLog.write`.
"""

from __future__ import annotations

from device_sdk._log import Log
from device_sdk.errors import DeviceSdkError
from device_sdk.mqtt.decode import decode_body

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.mqtt.packets import Packet

__all__ = ["PacketLog", "describe"]

log = Log("device_sdk.packets")

# Also the user name: several cloud services take an access token there.
_SECRET = frozenset({"user_name", "password", "authentication_data"})
_LARGEST_SHOWN = 1 << 20  # bytes; of a larger packet only the length is logged
_ARROWS = {"received": "<-", "sent": "->"}


class PacketLog:
    """Logs the packets of one connection; ``where``: the description of its stream."""

    __slots__ = ("_lines", "_version", "_where")

    def __init__(self, where: str, version: str) -> None:
        self._where = where
        self._version = version
        self._lines: list[tuple[str, str]] = []

    def on_packet(self, direction: str, first: int, data: bytes, start: int, stop: int) -> None:
        """Note a packet, as :meth:`Protocol.watch` tells of it: the engine's lock is held."""
        self._lines.append((_ARROWS[direction], self._shown(first, data, start, stop)))

    def write(self) -> None:
        """Log what was noted. Without the lock: a handler of the logger may use the client."""
        lines, self._lines = self._lines, []
        for arrow, shown in lines:
            log.debug("%s %s %s", self._where, arrow, shown)

    def _shown(self, first: int, data: bytes, start: int, stop: int) -> str:
        if stop - start > _LARGEST_SHOWN:
            return f"a packet of {stop - start} bytes, too large to show"
        try:
            return describe(decode_body(first, data, start, stop, self._version))
        except DeviceSdkError as error:
            return f"no packet: {error}"


def describe(packet: Packet) -> str:
    """Return one line with the fields that are set, and with nothing that is secret."""
    return " ".join((packet.type.upper(), *_shown(packet)))


def _shown(value: Packet | object) -> list[str]:
    fields = [(name, getattr(value, name)) for name in getattr(value, "field_names", ())]
    return [f"{name}={_text(name, found)}" for name, found in fields if found not in (None, {}, [], False)]


def _text(name: str, value: object) -> str:
    if name in _SECRET:
        return "***"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_text(key, one)}" for key, one in value.items()) + "}"
    if isinstance(value, list) and value and hasattr(value[0], "field_names"):
        return "[" + ", ".join(_text("", one) for one in value) + "]"
    if hasattr(value, "field_names"):
        return f"({' '.join(_shown(value))})"
    return repr(value)
