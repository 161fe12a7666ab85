"""One network connection as paho-mqtt has it: what CONNECT says, and when the session counts as kept."""

from __future__ import annotations

from device_sdk.mqtt.codes import VERSIONS
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.events import ConnectAcknowledged, ConnectionEnded
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.packets import Connack, Connect
from device_sdk.mqtt.protocol import CONNECTED, Protocol
from device_sdk.paho._codes import RETURN_CODE_REASONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.packets import Packet
    from device_sdk.mqtt.protocol import Event

__all__ = ["ConnectFields", "NotText", "PahoProtocol"]

_BRIDGE = 0x80
_UNSPECIFIED_ERROR = 0x80
_PUBREL = 6
# Packets that no event and no call stands for: their remaining length has one byte.
_NOTED = {4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP", 12: "PINGREQ"}


class NotText(str):
    """A topic name that is not UTF-8, its bytes as surrogates."""

    __slots__ = ()


class ConnectFields(ConnectOptions):
    """The fields of CONNECT and nothing else: a property is sent only if the program has set it."""

    __slots__ = ("bridge",)

    bridge: bool

    def __init__(self, client_id: str = "", *, bridge: bool = False, **fields: Any) -> None:
        self.bridge = bridge
        super().__init__(client_id, **fields)

    def encode(self, *, clean_start: bool) -> bytes:
        """Return the CONNECT packet. Raises: ArgumentError: as :meth:`ConnectOptions.encode`."""
        packet = Connect(
            self.client_id,
            clean_start=clean_start,
            keep_alive=self.keep_alive,
            user_name=self.user_name,
            password=self.password,
            will=self.will,
            properties=self.properties,
        )
        encoded = encode_packet(packet, self.version)
        if not self.bridge:
            return encoded
        name, level = VERSIONS[self.version]
        where = encoded.index(name.encode()) + len(name)
        return encoded[:where] + bytes((level | _BRIDGE,)) + encoded[where + 1 :]


class PahoProtocol(Protocol):
    """Resumes as paho-mqtt does.

    In MQTT 3.x a session counts as present whatever the broker says, so that what is in flight is repeated
    with its packet identifiers. Where the broker certainly has nothing any more, a message past PUBREC begins
    anew as well: it may arrive twice, but it is not lost with the broker's half of the exchange.
    """

    note: Callable[[str], object]  # says to the log that a packet without an event has come or gone ...
    wants_log: Callable[[], bool]  # ... if anybody listens
    silent = False  # the end came because the peer did not answer
    goodbye_size = 0  # bytes of the body of the peer's DISCONNECT

    def _new_topic(self, field: bytes) -> str:
        """As :meth:`Receiver._new_topic`, but bytes that are not UTF-8 are for the program to see."""
        try:
            field[2:].decode()
        except UnicodeDecodeError:
            return NotText(field[2:].decode("utf-8", "surrogateescape"))
        return super()._new_topic(field)

    def _on_connack(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        if self.version == "5.0" and stop - start == 2 and data[stop - 1]:
            # A broker that knows only MQTT 3.x refuses in its own words.
            code = RETURN_CODE_REASONS.get(data[stop - 1], _UNSPECIFIED_ERROR)
            self._refused(Connack(False, code), events)
            return
        super()._on_connack(first, data, start, stop, events)

    def _accept_connack(self, connack: Connack, events: list[Event]) -> None:
        present, clean = connack.session_present, self._clean_start
        if connack.reason_code == 0 and (clean or not present):
            if clean or self.version == "5.0":
                self._begin_anew()
            if self.version != "3.1" or clean:
                self._forget_received()
        if self.version != "5.0":
            connack.session_present = True
            self._clean_start = False
        super()._accept_connack(connack, events)
        for event in events:
            if type(event) is ConnectAcknowledged:
                event.session_present = present

    def _begin_anew(self) -> None:
        """What is past PUBREC is published again, before what was sent after it."""
        session = self.session
        if session.journal:
            return  # a store keeps the content only until PUBREC: the broker has taken it
        unfinished = {**session.released, **session.in_flight}
        session.released.clear()
        session.in_flight.clear()
        session.in_flight.update(unfinished)

    def _forget_received(self) -> None:
        """The broker may use these packet identifiers for other messages now."""
        session = self.session
        for packet_id in list(session.received):
            del session.received[packet_id]
            session.record(("completed", packet_id))

    def _accept_suback(self, packet: Any, events: list[Event]) -> None:
        """As the base class, but an answer to what we never asked is for the program to judge."""
        expected = (packet.type, len(packet.reason_codes))
        self.session.requests.setdefault(packet.packet_id, expected)
        super()._accept_suback(packet, events)

    def _fail(self, error: DeviceSdkError) -> list[Event]:
        """As the base class; a broker that has not accepted us is told nothing."""
        accepted = self.state == CONNECTED
        events = super()._fail(error)
        if not accepted:
            self._last_packet = None
        return events

    def _accept_pubrec(
        self, packet_id: int, reason_code: int, events: list[Event], packet: Packet | None
    ) -> None:
        message = self.session.in_flight.get(packet_id)
        kept = None if message is None else (message.packet, message.payload)
        super()._accept_pubrec(packet_id, reason_code, events, packet)
        if message is not None and kept is not None and packet_id in self.session.released:
            message.packet, message.payload = kept

    def _acknowledgement(
        self, first: int, flags: int, data: bytes, start: int, stop: int
    ) -> tuple[int, int, Any]:
        packet_id, reason_code, packet = super()._acknowledgement(first, flags, data, start, stop)
        if self.wants_log():
            self.note(f"Received {_NOTED[first >> 4]} (Mid: {packet_id})")
        if first >> 4 != _PUBREL:
            session = self.session
            message: Any = session.in_flight.get(packet_id) or session.released.get(packet_id)
            if message is not None and message.on_done is not None:
                properties = {} if packet is None else packet.properties
                message.on_done._answer = (first >> 4, reason_code, properties)
        return packet_id, reason_code, packet

    def publish(self, message: Any, now: float = 0.0) -> int:
        """As :meth:`Protocol.publish`; a message that has waited gets the identifier its program knows."""
        info = message.on_done
        if info is None:
            return super().publish(message, now)
        session = self.session
        last, session.last_packet_id = session.last_packet_id, info.mid - 1
        try:
            return super().publish(message, now)
        finally:
            session.last_packet_id = last

    def _on_disconnect(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        self.goodbye_size = stop - start
        super()._on_disconnect(first, data, start, stop, events)

    def _accept_all_packets(self) -> None:
        super()._accept_all_packets()
        if self.wants_log():
            self._handlers[4] = self._on_noted_puback

    def _on_noted_puback(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        if stop - start == 2:  # others are noted as every acknowledgement
            self.note(f"Received PUBACK (Mid: {int.from_bytes(data[start:stop], 'big')})")
        self._on_puback(first, data, start, stop, events)

    def _on_pingresp(self, first: int, data: bytes, start: int, stop: int, events: list[Event]) -> None:
        super()._on_pingresp(first, data, start, stop, events)
        if self.wants_log():
            self.note("Received PINGRESP")

    def data_to_send(self, durable_through: int, now: float) -> list[bytes]:
        """As :meth:`Protocol.data_to_send`; says what leaves to the log."""
        chunks = super().data_to_send(durable_through, now)
        if chunks and self.wants_log():
            for chunk in chunks:
                name = _NOTED.get(chunk[0] >> 4)
                if name is not None:
                    mid = f" (Mid: {int.from_bytes(chunk[2:4], 'big')})" if len(chunk) > 2 else ""
                    self.note(f"Sending {name}{mid}")
        return chunks

    def handle_deadline(self, now: float) -> list[Event]:
        """As :meth:`Protocol.handle_deadline`; notes that it was the peer's silence."""
        events = super().handle_deadline(now)
        self.silent = any(type(event) is ConnectionEnded for event in events)
        return events

    def forget_repeats(self) -> None:
        """What waits to be repeated on this connection is not wanted any more."""
        self._resend.clear()

    @property
    def is_open(self) -> bool:
        """Whether packets may be added: the stream is open and no DISCONNECT is on its way."""
        return self.state <= CONNECTED
