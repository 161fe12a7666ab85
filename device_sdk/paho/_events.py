"""What happened on the connection, put into the arguments of the callbacks of either version."""

from __future__ import annotations

from device_sdk.errors import ConnectRefused, ProtocolError, RefusedError
from device_sdk.mqtt.events import (
    ConnectAcknowledged,
    ConnectionEnded,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from device_sdk.paho._callbacks import CallbackRunner
from device_sdk.paho._codes import (
    ConnectFlags,
    DisconnectFlags,
    convert_connack_rc_to_reason_code,
    convert_disconnect_error_code_to_reason_code,
    made_up_client_id,
)
from device_sdk.paho._message import MQTTMessageInfo
from device_sdk.paho._settings import CONNECTED, CONNECTION_LOST, DISCONNECTED, DISCONNECTING
from device_sdk.paho.enums import (
    CallbackAPIVersion,
    ConnackCode,
    LogLevel,
    MQTTErrorCode,
    MQTTProtocolVersion,
)
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties, from_mapping
from device_sdk.paho.reasoncodes import ReasonCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Events"]

_DEBUG = LogLevel.MQTT_LOG_DEBUG
_SUCCESS = MQTTErrorCode.MQTT_ERR_SUCCESS
_CONN_REFUSED = MQTTErrorCode.MQTT_ERR_CONN_REFUSED
_CONN_LOST = MQTTErrorCode.MQTT_ERR_CONN_LOST
_PROTOCOL = MQTTErrorCode.MQTT_ERR_PROTOCOL
_KEEPALIVE = MQTTErrorCode.MQTT_ERR_KEEPALIVE
_UNACCEPTABLE_VERSION, _IDENTIFIER_REJECTED = 1, 2
_NO_ANSWER: tuple[int, int, dict[str, Any]] = (PacketTypes.PUBACK, 0, {})


class Events(CallbackRunner):
    """The part of a client that reports to the program.

    :meth:`_tell` runs under the lock and only says which function is to run; those functions run where
    callbacks run, and call the program.
    """

    _reconnect_on_failure: bool

    def __init__(self, protocol: int, transport: str, userdata: Any) -> None:
        super().__init__(protocol, transport, userdata)
        self._rc = _SUCCESS  # why the last connection ended, for the loop
        self._reconnect_delay: float | None = None
        self._mqttv5_first_connect = True
        self._again = False  # connect again at once, in another way
        self._offline: list[MQTTMessageInfo] = []  # published without a connection

    @property
    def _is_version_1(self) -> bool:
        return self._callback_api_version == CallbackAPIVersion.VERSION1

    def _tell(self, event: Any) -> Any:
        """Note what must be known at once; return the pair (function, argument) that is to run."""
        if type(event) is MQTTMessageInfo:
            return None if self.on_publish is None else (self._told_published, event)
        if type(event) is str:
            return (self._told_packet, event)
        if type(event) is ConnectAcknowledged:
            self._state = CONNECTED
            self._reconnect_delay = None
            self._mqttv5_first_connect = False
            self._keepalive = event.properties.get("server_keep_alive", self._keepalive)
            assigned = event.properties.get("assigned_client_identifier", "")
            self._client_id = self._client_id or assigned.encode()
            for info in self._offline:
                if info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN:
                    info.rc = _SUCCESS
            self._offline = []
            return (self._told_connected, event)
        if type(event) is ConnectionEnded:
            return self._tell_ended(event)
        if type(event) is UnsubscribeAcknowledged:
            return (self._told_unsubscribed, event)
        return (self._told_subscribed, event)

    def _tell_ended(self, event: ConnectionEnded) -> Any:
        error = event.error
        rc = _KEEPALIVE if event.silent else _CONN_LOST
        if isinstance(error, ConnectRefused):
            rc = _PROTOCOL if self._protocol == 5 else _CONN_REFUSED
            self._mqttv5_first_connect = False
            if self._begins_again(error.reason_code):
                return None
        elif isinstance(error, ProtocolError):
            rc = _PROTOCOL
        elif isinstance(error, RefusedError):
            rc = _SUCCESS  # the broker's DISCONNECT has its own code
        if self._state in (DISCONNECTING, DISCONNECTED):
            self._state = DISCONNECTED
            rc = _SUCCESS
        else:
            self._state = CONNECTION_LOST
        return (self._told_ended, (event, rc, self._engine.goodbye_size))

    def _begins_again(self, code: int) -> bool:
        """Whether a refused client tries another version or a client identifier of its own."""
        if self._protocol != MQTTProtocolVersion.MQTTv311 or not self._reconnect_on_failure:
            return False
        if code == _UNACCEPTABLE_VERSION:
            self._protocol = MQTTProtocolVersion.MQTTv31
            self._client_id = self._client_id or made_up_client_id().encode()
        elif code == _IDENTIFIER_REJECTED and not self._client_id:
            self._client_id = made_up_client_id().encode()
        else:
            return False
        self._again = True
        return True

    # Run as callbacks

    def _told_packet(self, text: str) -> None:
        self._log(_DEBUG, "%s", text)

    def _told_connected(self, event: ConnectAcknowledged) -> None:
        properties = self._properties(PacketTypes.CONNACK, event.properties)
        shown = f" properties={properties}" if self._protocol == 5 else ""
        reason = "Success" if self._protocol == 5 else "0"
        self._log(_DEBUG, "Received CONNACK (%s, %s)%s", int(event.session_present), reason, shown)
        self._report_connect(event.session_present, 0, properties)

    def _report_connect(self, session_present: bool, code: int, properties: Properties | None) -> None:
        if self.on_connect is None:
            return
        v5 = self._protocol == 5
        reason: Any
        if v5:
            reason = ReasonCode(PacketTypes.CONNACK, identifier=code)
        elif self._is_version_1:
            reason = ConnackCode(code) if code <= 5 else code
        else:
            reason = convert_connack_rc_to_reason_code(code)
        if not self._is_version_1:
            flags = ConnectFlags(session_present=bool(session_present))
            self._call("on_connect", flags, reason, properties or Properties(PacketTypes.CONNACK))
        elif v5:
            self._call("on_connect", {"session present": int(session_present)}, reason, properties)
        else:
            self._call("on_connect", {"session present": int(session_present)}, reason)

    def _told_ended(self, told: tuple[ConnectionEnded, MQTTErrorCode, int]) -> None:
        event, rc, goodbye_size = told
        self._rc = _CONN_LOST if rc == _KEEPALIVE else rc
        error = event.error
        if isinstance(error, ConnectRefused):
            properties = self._properties(PacketTypes.CONNACK, event.properties)
            self._log(_DEBUG, "Received CONNACK (0, %s): %s", error.reason_code, error)
            try:
                self._report_connect(False, error.reason_code, properties)
            finally:
                self._report_disconnect(rc)
        elif isinstance(error, RefusedError):
            self._log(_DEBUG, "Received DISCONNECT %s", error.reason_code)
            self._report_goodbye(error.reason_code, event.properties, goodbye_size)
        else:
            self._log(LogLevel.MQTT_LOG_ERR, "%s", error)
            self._report_disconnect(rc)

    def _report_goodbye(self, code: int, found: dict[str, Any], size: int) -> None:
        """The broker's DISCONNECT. Version 1 shows what its body left out as None."""
        reason = ReasonCode(PacketTypes.DISCONNECT, identifier=code)
        properties = from_mapping(PacketTypes.DISCONNECT, found)
        if self._is_version_1:
            self._call("on_disconnect", reason if size else None, properties if size > 1 else None)
        else:
            flags = DisconnectFlags(is_disconnect_packet_from_server=True)
            self._call("on_disconnect", flags, reason, properties)

    def _report_disconnect(self, rc: MQTTErrorCode) -> None:
        """The end of a connection about which the broker has not said anything."""
        if not self._is_version_1:
            flags = DisconnectFlags(is_disconnect_packet_from_server=False)
            reason = convert_disconnect_error_code_to_reason_code(rc)
            self._call("on_disconnect", flags, reason, Properties(PacketTypes.DISCONNECT))
        elif self._protocol == 5:
            self._call("on_disconnect", rc, None)
        else:
            self._call("on_disconnect", rc)

    def _told_published(self, info: MQTTMessageInfo) -> None:
        on_publish = self.on_publish
        try:
            if on_publish is None:
                return
            if self._is_version_1:
                on_publish(self, self._userdata, info.mid)
                return
            packet_type, code, properties = info._answer or _NO_ANSWER
            reason = ReasonCode(packet_type, identifier=code)
            found = from_mapping(packet_type, properties)
            on_publish(self, self._userdata, info.mid, reason, found)
        except Exception as error:
            self._caught("on_publish", error)
        finally:
            info.told()

    def _told_subscribed(self, event: SubscribeAcknowledged) -> None:
        self._log(_DEBUG, "Received SUBACK")
        if self.on_subscribe is None:
            return
        codes: Any = event.reason_codes
        if self._is_version_1 and self._protocol != 5:
            self._call("on_subscribe", event.packet_id, tuple(codes))
            return
        codes = [ReasonCode(PacketTypes.SUBACK, identifier=code) for code in codes]
        properties = from_mapping(PacketTypes.SUBACK, event.properties)
        self._call("on_subscribe", event.packet_id, codes, properties)

    def _told_unsubscribed(self, event: UnsubscribeAcknowledged) -> None:
        self._log(_DEBUG, "Received UNSUBACK (Mid: %d)", event.packet_id)
        if self.on_unsubscribe is None:
            return
        v5 = self._protocol == 5
        codes = event.reason_codes if v5 else []
        reasons: Any = [ReasonCode(PacketTypes.UNSUBACK, identifier=code) for code in codes]
        properties = from_mapping(PacketTypes.UNSUBACK, event.properties)
        if not self._is_version_1:
            self._call("on_unsubscribe", event.packet_id, reasons, properties)
        elif v5:
            self._call(
                "on_unsubscribe", event.packet_id, properties, reasons[0] if len(reasons) == 1 else reasons
            )
        else:
            self._call("on_unsubscribe", event.packet_id)

    def _properties(self, packet_type: int, found: dict[str, Any]) -> Properties | None:
        return from_mapping(packet_type, found) if self._protocol == 5 else None
