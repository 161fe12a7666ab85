"""The version of MQTT for each server, where the client may choose: 5.0, and 3.1.1 after a refusal of it."""

from __future__ import annotations

from device_sdk.errors import ConnectRefused
from device_sdk.mqtt.codes import ReasonCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.connection import Connection
    from device_sdk.mqtt.events import ConnectionEnded
    from device_sdk.mqtt.options import ConnectOptions

__all__ = ["NEWEST", "OLDER", "Versions"]

NEWEST, OLDER = "5.0", "3.1.1"

_AGAIN_S = 86_400.0  # then a server that refused the newest version is asked again: it may have been updated
_REFUSALS = frozenset({ReasonCode.UNSUPPORTED_PROTOCOL_VERSION, 1})  # of CONNACK in MQTT 5.0 and in 3.x


class Versions:
    """What each server has refused, in the memory of this client. The engine's lock guards every method.

    Only the server's own word counts: CONNACK with 0x84, or with return code 1 in the form of MQTT 3.x. A
    stream that ends, silence and every other refusal say nothing about the version, and whoever is between
    client and server must not be able to choose the older one by breaking connections.
    Source: MQTT 5.0 §3.1.2.2 [MQTT-3.1.2-2], MQTT 3.1.1 §3.1.2.2 [MQTT-3.1.2-2].
    """

    __slots__ = ("_older_until", "_options")

    def __init__(self, options: ConnectOptions) -> None:
        self._options = options
        self._older_until: dict[str, float] = {}  # address -> when to say the newest version again

    def choose(self, address: str, now: float) -> None:
        """Have the next CONNECT say the version for this server."""
        if not self._options.negotiates:
            return
        if self._older_until.get(address, now) <= now:
            self._older_until.pop(address, None)
        self._options.speak(OLDER if address in self._older_until else NEWEST)

    def refused(self, address: str, connection: Connection, event: ConnectionEnded, now: float) -> str | None:
        """Note the end of a connection before CONNACK.

        Returns: what to tell, if the server is to be asked again, in the older version.
        """
        if not (self._options.negotiates and isinstance(event.error, ConnectRefused)):
            return None
        if event.reason_code not in _REFUSALS:
            return None
        if connection.protocol.version == NEWEST:
            self._older_until[address] = now + _AGAIN_S
            where = connection.stream.transport.description
            return f"{where}: the broker refuses MQTT {NEWEST}: {OLDER} from now on, {NEWEST} after a day"
        self._older_until.pop(address, None)  # it may have been replaced: begin anew
        return None
