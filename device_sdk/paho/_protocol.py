"""paho-mqtt's departures from the standard, as rules for the protocol; its log of packets."""

from __future__ import annotations

from device_sdk.mqtt.rules import STANDARD, ProtocolRules
from device_sdk.paho._codes import RETURN_CODE_REASONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["DISCONNECT", "LOGGED", "RULES", "NotText", "PacketNotes"]

DISCONNECT = 14  # packet type
# Packets without an event or a call of their own; the first four have a packet identifier.
_NAMES = {4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP", 12: "PINGREQ", 13: "PINGRESP"}
_LAST_WITH_MID = 7

#: The packet types that :class:`PacketNotes` puts into the log, and the one that it always looks at.
LOGGED = frozenset({*_NAMES, DISCONNECT})


class NotText(str):
    """A topic name that is not UTF-8, its bytes as surrogates."""

    __slots__ = ()


def _read_topic(field: bytes) -> str:
    """Return a topic name; bytes that are not UTF-8 are passed on to the program."""
    try:
        field[2:].decode()
    except UnicodeDecodeError:
        return NotText(field[2:].decode("utf-8", "surrogateescape"))
    return STANDARD.read_topic(field)


def _choose_packet_id(message: Any) -> int:
    """Return the identifier of a message that has waited: the one that its program knows."""
    info = message.on_done  # its MQTTMessageInfo, once publish() has returned it
    return 0 if info is None else info.mid


def _note_answer(message: Any, packet_type: int, reason_code: int, properties: dict[str, Any]) -> None:
    """Keep the broker's answer for on_publish."""
    info = message.on_done
    if info is not None:
        info.answer = (packet_type, reason_code, properties)


#: paho-mqtt repeats messages in flight even if a broker of MQTT 3.x reports no session, and checks less.
RULES = ProtocolRules(
    assumes_session=True,
    keeps_payload_until_pubcomp=True,
    accepts_unasked_suback=True,
    explains_early_end=False,
    sends_before_connack=True,
    delivers_at_pubrel=True,
    mqtt_3_refusals=RETURN_CODE_REASONS,
    read_topic=_read_topic,
    choose_packet_id=_choose_packet_id,
    note_answer=_note_answer,
)


class PacketNotes:
    """The packets of one connection, for the log; ``note`` gets a line for each.

    ``goodbye_size``: bytes of the body of the broker's DISCONNECT, for callbacks of version 1: fields that it
    omits are None there.
    """

    __slots__ = ("_note", "goodbye_size")

    def __init__(self, note: Callable[[str], object]) -> None:
        self._note = note
        self.goodbye_size = 0

    def on_packet(self, direction: str, first: int, data: bytes, start: int, stop: int) -> None:
        """Note one packet; the callback of :meth:`Protocol.watch`."""
        packet_type = first >> 4
        if packet_type == DISCONNECT:
            if direction == "received":
                self.goodbye_size = stop - start
            return
        mid = ""
        if packet_type <= _LAST_WITH_MID:
            mid = f" (Mid: {int.from_bytes(data[start : start + 2], 'big')})"
        verb = "Received" if direction == "received" else "Sending"
        self._note(f"{verb} {_NAMES[packet_type]}{mid}")
