"""The client of paho-mqtt 1.6: its signatures, and callbacks with its arguments.

Everything else is :mod:`device_sdk.paho.client`, whose constants, functions and message classes this module
offers too.
"""

from __future__ import annotations

import string
from operator import attrgetter

from device_sdk.paho import client as v2
from device_sdk.paho.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from device_sdk.paho.properties import Properties as Properties
from device_sdk.paho.reasoncodes import ReasonCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.store.base import Store

__all__ = [*v2.__all__]

# Its only name in 1.6, so that creating one is no reason for a warning.
ReasonCodes = ReasonCode


mqtt_cs_new, mqtt_cs_connected, mqtt_cs_disconnecting, mqtt_cs_connect_async = range(4)

_BASE62 = string.digits + string.ascii_letters


def base62(num: int, base: str = _BASE62, padding: int = 1) -> str:
    """Return a number, 0 or above, in digits of ``base``: at least ``padding`` of them."""
    digits = ""
    while num:
        num, rest = divmod(num, len(base))
        digits = base[rest] + digits
    return digits.rjust(padding, base[0])


def __getattr__(name: str) -> Any:
    return getattr(v2, name)


class Client(v2.Client):
    """An MQTT client with the interface of paho-mqtt 1.6.

    The arguments are those of :class:`device_sdk.paho.client.Client` without the first; callbacks get what
    paho-mqtt 1.6 gives them. Raises: ValueError: a value that cannot work.
    """

    _is_1_x = True  # version 1 of the callbacks is no reason for a warning
    _find_state = attrgetter("_life.number_1_x")  # private in paho-mqtt, compared with mqtt_cs_connected
    _state = property(lambda client: client._find_state(client)())

    def __init__(
        self,
        client_id: str | None = "",
        clean_session: bool | None = None,
        userdata: Any = None,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
        transport: str = "tcp",
        reconnect_on_failure: bool = True,
        *,
        store: str | Store | None = None,
    ) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION1,
            client_id,
            clean_session,
            userdata,
            protocol,
            transport,
            reconnect_on_failure,
            store=store,
        )

    def reinitialise(self, client_id: str = "", clean_session: bool = True, userdata: Any = None) -> None:
        """Close the connection and begin anew as a client of MQTT 3.1.1 over TCP, without callbacks."""
        self._begin_anew(client_id, clean_session, userdata)

    def connect_srv(  # type: ignore[override]  # 2.x put an argument between
        self,
        domain: str | None = None,
        keepalive: int = 60,
        bind_address: str = "",
        clean_start: bool | int = v2.MQTT_CLEAN_START_FIRST_ONLY,
        properties: Properties | None = None,
    ) -> MQTTErrorCode:
        """As in 2.x, without ``bind_port``."""
        return super().connect_srv(domain, keepalive, bind_address, 0, clean_start, properties)

    def loop(self, timeout: float = 1.0, max_packets: int = 1) -> MQTTErrorCode:
        """As in 2.x. ``max_packets`` has no meaning, and had none in paho-mqtt."""
        return super().loop(timeout)

    def loop_forever(  # type: ignore[override]  # 2.x took the second argument out
        self, timeout: float = 1.0, max_packets: int = 1, retry_first_connection: bool = False
    ) -> MQTTErrorCode:
        """As in 2.x. ``max_packets`` has no meaning, and had none in paho-mqtt."""
        return super().loop_forever(timeout, retry_first_connection)

    def loop_write(self, max_packets: int = 1) -> MQTTErrorCode:
        """As in 2.x. ``max_packets`` has no meaning, and had none in paho-mqtt."""
        return super().loop_write()

    def loop_stop(self, force: bool = False) -> MQTTErrorCode:
        """As in 2.x. ``force`` has no meaning, and had none in paho-mqtt."""
        return super().loop_stop()

    def message_retry_set(self, retry: float) -> None:
        """Do nothing, as in paho-mqtt 1.6: MQTT repeats messages on a new connection only."""
