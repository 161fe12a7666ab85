"""Events of a connection, as arguments of the callbacks of either version."""

from __future__ import annotations

from device_sdk.errors import ConnectRefused, ProtocolError, RefusedError
from device_sdk.mqtt.events import ConnectAcknowledged, SubscribeAcknowledged, UnsubscribeAcknowledged
from device_sdk.paho._codes import (
    ConnectFlags,
    DisconnectFlags,
    convert_connack_rc_to_reason_code,
    convert_disconnect_error_code_to_reason_code,
)
from device_sdk.paho._message import MQTTMessageInfo
from device_sdk.paho.enums import CallbackAPIVersion, ConnackCode, LogLevel, MQTTErrorCode
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties, from_mapping
from device_sdk.paho.reasoncodes import ReasonCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.mqtt.events import ConnectionEnded
    from device_sdk.paho._life_cycle import LifeCycle
    from device_sdk.paho._program import Program
    from device_sdk.paho._settings import BackOff, ConnectSettings

__all__ = ["Reports"]

_DEBUG = LogLevel.MQTT_LOG_DEBUG
_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS
_CONN_REFUSED = MQTTErrorCode.MQTT_ERR_CONN_REFUSED
_CONN_LOST = MQTTErrorCode.MQTT_ERR_CONN_LOST
_PROTOCOL = MQTTErrorCode.MQTT_ERR_PROTOCOL
_KEEPALIVE = MQTTErrorCode.MQTT_ERR_KEEPALIVE
_NO_ANSWER: tuple[int, int, dict[str, Any]] = (PacketTypes.PUBACK, 0, {})


class Reports:
    """Reports events of the engine to the program.

    :meth:`tell` and :meth:`tell_ended` run under the lock: they update the state at once, and return the pair
    (function, argument) to run. Those functions run where callbacks run.
    """

    def __init__(
        self, program: Program, connect: ConnectSettings, back_off: BackOff, life: LifeCycle
    ) -> None:
        self._program = program
        self._connect = connect
        self._back_off = back_off
        self._life = life
        self._is_version_1 = program.callback_api_version == CallbackAPIVersion.VERSION1

    def tell(self, event: Any) -> Any:
        """Return the pair to run for an event, a published message or a text for the log, or ``None``."""
        if type(event) is MQTTMessageInfo:
            return (self._published, event) if self._program.has("on_publish") else None
        if type(event) is str:
            return (self._log_packet, event)
        if type(event) is ConnectAcknowledged:
            self._life.accepted()
            self._back_off.reset()
            self._connect.accepted(event.properties)
            return (self._connected, event)
        if type(event) is UnsubscribeAcknowledged:
            return (self._unsubscribed, event)
        return (self._subscribed, event)

    def tell_ended(self, event: ConnectionEnded, goodbye_size: int) -> Any:
        """Return the pair to run for the end of a connection.

        ``goodbye_size``: bytes of the body of the broker's DISCONNECT.
        """
        error = event.error
        rc = _KEEPALIVE if event.silent else _CONN_LOST
        if isinstance(error, ConnectRefused):
            rc = _PROTOCOL if self._connect.protocol == 5 else _CONN_REFUSED
            self._connect.refused()
            if self._back_off.reconnects and self._connect.adapt(error.reason_code):
                self._life.refused()
                return None
        elif isinstance(error, ProtocolError):
            rc = _PROTOCOL
        elif isinstance(error, RefusedError):
            rc = _SUCCESS  # the broker's DISCONNECT has its own code
        return (self._ended, (event, self._life.ended(rc), goodbye_size))

    def disconnected(self, rc: MQTTErrorCode) -> None:
        """Report the end of a connection without a DISCONNECT of the broker."""
        call = self._program.call
        if not self._is_version_1:
            flags = DisconnectFlags(is_disconnect_packet_from_server=False)
            reason = convert_disconnect_error_code_to_reason_code(rc)
            call("on_disconnect", flags, reason, Properties(PacketTypes.DISCONNECT))
        elif self._connect.protocol == 5:
            call("on_disconnect", rc, None)
        else:
            call("on_disconnect", rc)

    # Run as callbacks

    def _log_packet(self, text: str) -> None:
        self._program.log(_DEBUG, "%s", text)

    def _connected(self, event: ConnectAcknowledged) -> None:
        v5 = self._connect.protocol == 5
        properties = self._properties(PacketTypes.CONNACK, event.properties)
        shown = f" properties={properties}" if v5 else ""
        reason = "Success" if v5 else "0"
        self._program.log(_DEBUG, "Received CONNACK (%s, %s)%s", int(event.session_present), reason, shown)
        self._report_connect(event.session_present, 0, properties)

    def _report_connect(self, session_present: bool, code: int, properties: Properties | None) -> None:
        if not self._program.has("on_connect"):
            return
        call = self._program.call
        v5 = self._connect.protocol == 5
        reason: Any
        if v5:
            reason = ReasonCode(PacketTypes.CONNACK, identifier=code)
        elif self._is_version_1:
            reason = ConnackCode(code) if code <= 5 else code
        else:
            reason = convert_connack_rc_to_reason_code(code)
        if not self._is_version_1:
            flags = ConnectFlags(session_present=bool(session_present))
            call("on_connect", flags, reason, properties or Properties(PacketTypes.CONNACK))
        elif v5:
            call("on_connect", {"session present": int(session_present)}, reason, properties)
        else:
            call("on_connect", {"session present": int(session_present)}, reason)

    def _ended(self, told: tuple[ConnectionEnded, MQTTErrorCode, int]) -> None:
        event, rc, goodbye_size = told
        self._life.tell_loop(_CONN_LOST if rc == _KEEPALIVE else rc)
        error = event.error
        if isinstance(error, ConnectRefused):
            properties = self._properties(PacketTypes.CONNACK, event.properties)
            self._program.log(_DEBUG, "Received CONNACK (0, %s): %s", error.reason_code, error)
            try:
                self._report_connect(False, error.reason_code, properties)
            finally:
                self.disconnected(rc)
        elif isinstance(error, RefusedError):
            self._program.log(_DEBUG, "Received DISCONNECT %s", error.reason_code)
            self._report_goodbye(error.reason_code, event.properties, goodbye_size)
        else:
            self._program.log(LogLevel.MQTT_LOG_ERR, "%s", error)
            self.disconnected(rc)

    def _report_goodbye(self, code: int, found: dict[str, Any], size: int) -> None:
        """Report the broker's DISCONNECT. Version 1 shows omitted fields as None."""
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=code)
        properties = from_mapping(PacketTypes.DISCONNECT, found)
        if self._is_version_1:
            self._program.call("on_disconnect", reason if size else None, properties if size > 1 else None)
        else:
            flags = DisconnectFlags(is_disconnect_packet_from_server=True)
            self._program.call("on_disconnect", flags, reason, properties)

    def _published(self, info: MQTTMessageInfo) -> None:
        try:
            if self._is_version_1:
                self._program.call("on_publish", info.mid)
                return
            packet_type, code, properties = info.answer or _NO_ANSWER
            reason = ReasonCode(packet_type, identifier=code)
            self._program.call("on_publish", info.mid, reason, from_mapping(packet_type, properties))
        finally:
            info.told()

    def _subscribed(self, event: SubscribeAcknowledged) -> None:
        self._program.log(_DEBUG, "Received SUBACK")
        if not self._program.has("on_subscribe"):
            return
        codes: Any = event.reason_codes
        if self._is_version_1 and self._connect.protocol != 5:
            self._program.call("on_subscribe", event.packet_id, tuple(codes))
            return
        codes = [ReasonCode(PacketTypes.SUBACK, identifier=code) for code in codes]
        properties = from_mapping(PacketTypes.SUBACK, event.properties)
        self._program.call("on_subscribe", event.packet_id, codes, properties)

    def _unsubscribed(self, event: UnsubscribeAcknowledged) -> None:
        self._program.log(_DEBUG, "Received UNSUBACK (Mid: %d)", event.packet_id)
        if not self._program.has("on_unsubscribe"):
            return
        call = self._program.call
        v5 = self._connect.protocol == 5
        codes = event.reason_codes if v5 else []
        reasons: Any = [ReasonCode(PacketTypes.UNSUBACK, identifier=code) for code in codes]
        properties = from_mapping(PacketTypes.UNSUBACK, event.properties)
        if not self._is_version_1:
            call("on_unsubscribe", event.packet_id, reasons, properties)
        elif v5:
            call("on_unsubscribe", event.packet_id, properties, reasons[0] if len(reasons) == 1 else reasons)
        else:
            call("on_unsubscribe", event.packet_id)

    def _properties(self, packet_type: int, found: dict[str, Any]) -> Properties | None:
        return from_mapping(packet_type, found) if self._connect.protocol == 5 else None
