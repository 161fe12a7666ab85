"""Messages to the server: the QoS 1 and 2 exchanges that we begin, and their repeat on a new connection.

An exchange of QoS 2 in this direction is our PUBLISH (:meth:`Outbound.publish`), PUBREC and our PUBREL
(:meth:`Outbound.on_pubrec`), and PUBCOMP (:meth:`Outbound.on_pubcomp`). The session remembers how far each
has come; this part lives as long as its connection.

Threads: the caller serialises all calls. Source: MQTT 5.0 §4.3, §4.4.
"""

from __future__ import annotations

from collections import OrderedDict

from device_sdk.errors import DeliveryExpiredError, RemoteProtocolError
from device_sdk.mqtt.decode import read_acknowledgement
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.events import PublishPostponed
from device_sdk.mqtt.packets import Pubrel
from device_sdk.mqtt.refusals import publish_refused
from device_sdk.mqtt.session import ACKNOWLEDGED, EXPIRED, REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable
    from typing import Any

    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.output import Output
    from device_sdk.mqtt.rules import ProtocolRules
    from device_sdk.mqtt.session import Outgoing, Session

__all__ = ["Outbound"]

_DUP = 0x08
_PUBACK, _PUBREC, _PUBCOMP = 4, 5, 7  # packet types
_NOT_FOUND = 0x92  # reason code: packet identifier not found
_TOO_LATE = "it expired in flight, unacknowledged: it is not repeated, and the broker may have it"
_NOTHING: dict[str, Any] = {}  # properties of an acknowledgement of two bytes


class Outbound:
    """The exchanges of one connection that we begin.

    ``send``: :meth:`Output.publish`, or :meth:`Output.publish_short`. The handlers take the first byte, the
    data, where the body starts and stops, and the list of events that they extend.

    ``repeats``: messages of an earlier connection that :meth:`repeat` has not sent yet, by packet identifier;
    ``held``: those of them that the server does not take any more, and those that it does not take now,
    see ``ProtocolRules.postpones``. They stay in flight, without a place in the window, until another
    connection, :meth:`publish_anew` or the end of the session. ``window``: messages that may be in flight,
    with a place for each that is held.
    """

    __slots__ = (
        "_choose_packet_id", "_keeps_payload", "_note_answer", "_output", "_paced", "_postpones",
        "_send", "_session", "_version", "held", "left_out", "repeats", "window",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        output: Output,
        version: str,
        rules: ProtocolRules,
        send: Callable[[Outgoing, int, float, dict[int, Outgoing]], None],
    ) -> None:
        self._session = session
        self._output = output
        self._version = version
        self._note_answer = rules.note_answer
        self._postpones = rules.postpones
        self._choose_packet_id = rules.choose_packet_id
        self._keeps_payload = rules.keeps_payload_until_pubcomp
        self._send = send
        self.left_out: set[int] = set()  # of messages in flight that are not sent on this connection
        self._paced = False
        self.window = 0
        self.held: set[int] = set()
        self.repeats: OrderedDict[int, Outgoing] = OrderedDict()

    def publish(self, message: Outgoing, now: float = 0.0) -> int:
        """Give a QoS 1 or 2 message its packet identifier and queue its PUBLISH, encoded once and for all.

        The caller has checked that there is room in the window. ``now`` matters only with an expiry.

        Raises: LocalProtocolError: beyond a limit of the server; nothing has changed then.
        Source: MQTT 5.0 §4.3.2, §4.3.3.
        """
        session = self._session
        chosen = self._choose_packet_id(message) if self._choose_packet_id else 0
        packet_id = session.allocate_from(chosen) if chosen else session.allocate()
        self._send(message, packet_id, now, session.in_flight)
        if session.journal:
            number = session.record(("sent", message.sequence, packet_id))
            if message.flags >= 4:
                self._output.hold_last(number)
        return packet_id

    def on_puback(self, first: int, data: bytes, start: int, stop: int, events: list[Any]) -> None:
        """PUBACK: the end of an exchange of QoS 1."""
        session = self._session
        if stop - start == 2 and first == 0x40:  # success, for a message that waits for it
            waiting = session.in_flight.get((data[start] << 8) | data[start + 1])
            if waiting is not None and waiting.flags < 4:
                self._finish(waiting, ACKNOWLEDGED, events)
                return
        packet_id, reason_code, properties = read_acknowledgement(first, data, start, stop, self._version)
        message = session.in_flight.get(packet_id)
        if message is None:
            if packet_id not in session.released:
                return  # for a message that we have forgotten
            message = session.released[packet_id]
        # RabbitMQ treats QoS 2 as QoS 1, and MQTT 3.x cannot announce that: refusing the PUBACK would only
        # send the message again and again.
        downgraded = self._version != "5.0" and packet_id in session.in_flight
        if message.flags >= 4 and not downgraded:
            raise RemoteProtocolError(f"PUBACK answers packet identifier {packet_id}, which is QoS 2")
        if self._note_answer is not None:
            self._note_answer(message, _PUBACK, reason_code, properties)
        if reason_code or properties:
            message.answer = reason_code, properties
        if reason_code >= 0x80:
            self._refuse(message, reason_code, properties, events)
        else:
            self._finish(message, ACKNOWLEDGED, events)

    def on_pubrec(self, first: int, data: bytes, start: int, stop: int, events: list[Any]) -> None:
        """PUBREC: the server has the message; PUBREL goes on with the exchange."""
        packet_id = (data[start] << 8) | data[start + 1] if stop - start == 2 and first == 0x50 else 0
        reason_code, properties = 0, _NOTHING
        if not packet_id:
            packet_id, reason_code, properties = read_acknowledgement(first, data, start, stop, self._version)
        session, output = self._session, self._output
        message = session.in_flight.get(packet_id)
        if message is None:
            if reason_code < 0x80:
                # A repeat, or for an exchange that we have forgotten: let the server end it.
                known = packet_id in session.released
                code = 0 if known or self._version != "5.0" else _NOT_FOUND
                output.answer(encode_packet(Pubrel(packet_id, code), self._version))
            return
        if message.flags < 4:
            raise RemoteProtocolError(f"PUBREC answers packet identifier {packet_id}, which is not QoS 2")
        if self._note_answer is not None:
            self._note_answer(message, _PUBREC, reason_code, properties)
        if reason_code or properties:
            message.answer = reason_code, properties
        if reason_code >= 0x80:
            self._refuse(message, reason_code, properties, events)
            return
        del session.in_flight[packet_id]
        self.repeats.pop(packet_id, None)
        if self.left_out or self.held:
            self._moved_on(packet_id)
        session.released[packet_id] = message
        if not self._keeps_payload:
            message.packet = None
            message.payload = b""
        change = session.record(("released", message.sequence)) if session.journal else 0
        pubrel = b"\x62\x02" + packet_id.to_bytes(2, "big")
        output.add(pubrel, change)

    def on_pubcomp(self, first: int, data: bytes, start: int, stop: int, events: list[Any]) -> None:
        """PUBCOMP: the end of an exchange of QoS 2."""
        packet_id = (data[start] << 8) | data[start + 1] if stop - start == 2 and first == 0x70 else 0
        reason_code, properties = 0, _NOTHING
        if not packet_id:
            packet_id, reason_code, properties = read_acknowledgement(first, data, start, stop, self._version)
        message = self._session.released.get(packet_id)
        if message is not None:
            if self._note_answer is not None:
                self._note_answer(message, _PUBCOMP, reason_code, properties)
            if (reason_code or properties) and message.answer is None:
                message.answer = reason_code, properties
            self._finish(message, ACKNOWLEDGED, events)
        elif packet_id in self._session.in_flight:
            raise RemoteProtocolError(f"PUBCOMP for packet identifier {packet_id} came before our PUBREL")

    # On a new connection

    def allow(self, window: int) -> None:
        """So many messages may be in flight."""
        self.window = window

    @property
    def has_room(self) -> bool:
        """Whether one more message may be in flight; those that are left out have no place in the window."""
        return len(self._session) - len(self.left_out) < self.window

    def resume(self, sent: Container[Outgoing] = ()) -> None:
        """Go on with the exchanges that the server has not finished, at most ``window`` messages at a time.

        ``sent``: messages that were sent on this connection already. :meth:`repeat` sends the others. Source:
        MQTT 5.0 §4.4 [MQTT-4.4.0-1], §4.6.
        """
        session, output = self._session, self._output
        if session.journal:
            output.hold_next(session.change_number)  # what the last connection wrote may not be durable yet
        for packet_id in session.released:
            output.add(b"\x62\x02" + packet_id.to_bytes(2, "big"))
        for message in session.in_flight.values():
            if message not in sent:
                self.repeats[message.packet_id] = message

    def forget_repeats(self) -> None:
        """Repeat nothing more on this connection."""
        self.repeats.clear()

    def pace(self) -> None:
        """Leave it to :meth:`repeat_one` when a message is repeated; before CONNACK."""
        self._paced = True

    def repeat(self, now: float, events: list[Any]) -> None:
        """Repeat as many PUBLISH packets as the window of this connection holds.

        One that expires carries what is left of its life; one whose life is over ends without a repeat. The
        server may have it, so its packet identifier is withheld. Departure from [MQTT-4.3.3-7] and
        [MQTT-4.4.0-1], see docs/decisions/0026. One beyond a limit of the server is ``held``.
        """
        repeats, session = self.repeats, self._session
        while repeats and not self._paced and len(session) - len(repeats) < self.window:
            message = repeats.popitem(last=False)[1]
            if message.expires_at is not None and message.expires_at <= now:
                session.withhold(message.packet_id)
                self._finish(message, EXPIRED, events, DeliveryExpiredError(_TOO_LATE))
            else:
                self._send_again(message, now)

    def repeat_one(self, message: Outgoing, now: float) -> bool:
        """Repeat this message, which has not expired, after :meth:`pace`; False: it is ``held`` instead."""
        self.repeats.pop(message.packet_id, None)
        return self._send_again(message, now)

    def leave_out(self, message: Outgoing) -> None:
        """Do not repeat this message on this connection, unless :meth:`take_up` comes; it stays in flight."""
        del self.repeats[message.packet_id]
        self.left_out.add(message.packet_id)

    def take_up(self) -> None:
        """Repeat the messages that were left out, in the order in which they were sent."""
        left_out = self.left_out
        self.repeats = OrderedDict(
            (packet_id, message)
            for packet_id, message in self._session.in_flight.items()
            if packet_id in left_out or packet_id in self.repeats
        )
        left_out.clear()

    def publish_anew(self, message: Outgoing, now: float, behind: Iterable[Outgoing] = ()) -> None:
        """Publish a message again that the server has refused: under another packet identifier.

        ``behind``: other refused messages that the next connection is to repeat after it. The caller has
        checked that the window has room.
        """
        self.take_back(message)
        self.publish(message, now)
        session = self._session
        for one in behind:
            session.in_flight[one.packet_id] = session.in_flight.pop(one.packet_id)
            if session.journal:
                session.record(("sent", one.sequence, one.packet_id))

    def take_back(self, message: Outgoing) -> None:
        """End an exchange that the server has refused: it knows nothing of it."""
        self._moved_on(message.packet_id)
        del self._session.in_flight[message.packet_id]

    def give_up(self, message: Outgoing) -> None:
        """End an exchange that the server has not answered; its packet identifier is withheld."""
        session = self._session
        self.repeats.pop(message.packet_id, None)
        self._moved_on(message.packet_id)
        if session.in_flight.pop(message.packet_id, None) is not None:
            session.withhold(message.packet_id)
        message.packet = None

    def _send_again(self, message: Outgoing, now: float) -> bool:
        packet = message.packet
        if packet is None or message.expires_at is not None:
            packet = message.encode(message.packet_id, now)
        if not self._output.takes(message.flags, len(packet)):
            self._hold(message)
            return False
        message.packet = packet
        self._output.add(bytes((packet[0] | _DUP,)) + packet[1:])
        return True

    # The end of an exchange

    def _refuse(
        self, message: Outgoing, reason_code: int, properties: dict[str, Any], events: list[Any]
    ) -> None:
        error = publish_refused(reason_code, properties, self._version)
        if reason_code in self._postpones:
            self._hold(message)
            message.answer = None  # there will be another one
            events.append(PublishPostponed(message, error))
        else:
            self._finish(message, REFUSED, events, error)

    def _finish(
        self, message: Outgoing, status: str, events: list[Any], error: DeviceSdkError | None = None
    ) -> None:
        """End an exchange: free its packet identifier and its place in the window."""
        session = self._session
        if session.in_flight.pop(message.packet_id, None) is None:
            session.released.pop(message.packet_id, None)
        message.status = status
        if error is not None:
            message.error = error
        message.packet = None
        if self.left_out or self.held:
            self._moved_on(message.packet_id)
        if session.journal and message.sequence:  # a greeting has none: no store knows it
            session.record(("done", message.sequence, status))
        events.append(message)
        if self.repeats:
            self.repeats.pop(message.packet_id, None)

    def _hold(self, message: Outgoing) -> None:
        message.packet = None
        self.repeats.pop(message.packet_id, None)
        self.left_out.discard(message.packet_id)
        if message.packet_id not in self.held:
            self.held.add(message.packet_id)
            self.window += 1

    def _moved_on(self, packet_id: int) -> None:
        """A message that waited for its repeat does so no more, be it that the server answered it late."""
        self.left_out.discard(packet_id)
        if packet_id in self.held:
            self.held.remove(packet_id)
            self.window -= 1
