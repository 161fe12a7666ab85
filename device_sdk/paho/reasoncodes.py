"""Reason codes as in paho-mqtt: a number, a packet type, and the name of the pair.

The numbers, and which packet may carry them, are those of :mod:`device_sdk.mqtt.codes`.
Source: MQTT 5.0 §2.4.
"""

from __future__ import annotations

import warnings
from functools import total_ordering
from types import MappingProxyType

from device_sdk._printable import printable
from device_sdk.mqtt.codes import PACKET_TYPES, RECEIVED_REASON_CODES, reason_name
from device_sdk.mqtt.codes import ReasonCode as Code
from device_sdk.paho.packettypes import PacketTypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ReasonCode", "ReasonCodes"]

# paho-mqtt words two of them differently from the standard's names in our table.
_WORDS = {Code.NO_SUBSCRIPTION_EXISTED: "No subscription found", Code.RE_AUTHENTICATE: "Re-authenticate"}

# 0x00 is called differently in two packets.
_ZERO = {PacketTypes.DISCONNECT: "Normal disconnection", PacketTypes.SUBACK: "Granted QoS 0"}


def _name(packet_type: int, code: int) -> str:
    if code == 0:
        return _ZERO.get(packet_type, "Success")
    words = _WORDS.get(Code(code)) or reason_name(code)
    return words[0].upper() + words[1:]


#: (packet type, number) -> name, for all that MQTT 5.0 allows.
_NAMES: Mapping[tuple[int, int], str] = {
    (packet_type, code): _name(packet_type, code)
    for code in sorted(Code)
    for packet_type, packet in enumerate(PACKET_TYPES)
    if code in RECEIVED_REASON_CODES.get(packet, ())
}

_IDENTIFIERS: Mapping[tuple[int, str], int] = {
    (packet_type, name): code for (packet_type, code), name in _NAMES.items()
}


def _names_by_code() -> Mapping[int, dict[str, list[int]]]:
    table: dict[int, dict[str, list[int]]] = {}
    for (packet_type, code), name in _NAMES.items():
        table.setdefault(int(code), {}).setdefault(name, []).append(packet_type)
    return MappingProxyType(table)


@total_ordering
class ReasonCode:
    """A reason code of MQTT 5.0.

    Compares with an int, with its own name, and with another reason code of any packet. ``packetType`` is a
    number of :class:`PacketTypes`. Without ``identifier`` the name decides: ``aName`` is one of those that
    ``names`` lists for this packet. ``names`` maps number -> name -> packet types.

    Raises: KeyError: no such number or name. ValueError: this packet cannot carry that number.
    """

    names = _names_by_code()

    def __init__(self, packetType: int, aName: str = "Success", identifier: int = -1) -> None:
        self.packetType = packetType
        if identifier != -1:
            self.value = identifier
            self.getName()
        elif packetType == PacketTypes.DISCONNECT and aName == "Success":
            self.value = 0
        else:
            self.value = self.getId(aName)

    def getName(self) -> str:
        """Return the name of the present number in this packet."""
        try:
            return _NAMES[self.packetType, self.value]
        except KeyError:
            if self.value not in self.names:
                raise KeyError(self.value) from None
            raise ValueError(
                printable(f"packet type {self.packetType} has no reason code {self.value}")
            ) from None

    def getId(self, name: str) -> int:
        """Return the number of a name in this packet. Raises: KeyError: it has no such reason code."""
        try:
            return int(_IDENTIFIERS[self.packetType, name])
        except KeyError:
            raise KeyError(
                printable(f"packet type {self.packetType} has no reason code named {name!r}")
            ) from None

    def set(self, name: str) -> None:
        """Change the reason code to the one of that name. Raises: KeyError, as :meth:`getId`."""
        self.value = self.getId(name)

    def unpack(self, buffer: bytes | bytearray) -> int:
        """Take the reason code from the first byte; return the bytes used, 1.

        Raises: KeyError or ValueError as the constructor; the reason code is then unchanged.
        """
        self.value = type(self)(self.packetType, identifier=buffer[0]).value
        return 1

    def pack(self) -> bytearray:
        """Return the byte on the wire."""
        return bytearray((self.value,))

    def json(self) -> str:
        """Return the name, as JSON shows this reason code."""
        return self.getName()

    @property
    def is_failure(self) -> bool:
        """Whether the number means a refusal or an error: 0x80 and above."""
        return self.value >= 0x80

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return self.value == other
        if isinstance(other, str):
            return self.getName() == other
        return isinstance(other, ReasonCode) and self.value == other.value

    # It is equal to numbers and to names and cannot have the hash of both.
    __hash__ = None  # type: ignore[assignment]

    def __lt__(self, other: object) -> bool:
        if isinstance(other, ReasonCode):
            return self.value < other.value
        if isinstance(other, int):
            return self.value < other
        return NotImplemented

    def __str__(self) -> str:
        return self.getName()

    def __repr__(self) -> str:
        packet = PacketTypes.Names[self.packetType] if self.packetType in PacketTypes.indexes else "Unknown"
        return f"ReasonCode({packet}, {self.getName()!r})"


class _AnyReasonCode(type):
    """Makes every ``ReasonCode`` an instance of the deprecated class, as callbacks deliver the new one."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, ReasonCode)


class ReasonCodes(ReasonCode, metaclass=_AnyReasonCode):
    """The deprecated name of :class:`ReasonCode`; creating one warns."""

    def __init__(self, packetType: int, aName: str = "Success", identifier: int = -1) -> None:
        warnings.warn(
            "ReasonCodes is deprecated: use ReasonCode, without the s", DeprecationWarning, stacklevel=2
        )
        super().__init__(packetType, aName, identifier)
