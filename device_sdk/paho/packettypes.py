"""The control packet types by number, as ``Properties`` and ``ReasonCode`` take them."""

from __future__ import annotations

from device_sdk.mqtt.codes import PACKET_TYPES

__all__ = ["PacketTypes"]


class PacketTypes:
    """The numbers of the control packets, 1 to 15. Source: MQTT 5.0 §2.1.2.

    ``Names`` has the word for each number; ``indexes`` is the range of the numbers.
    """

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15

    #: Not a packet: the will message inside CONNECT, which has properties of its own.
    WILLMESSAGE = 99

    indexes = range(1, 16)
    Names = (PACKET_TYPES[0], *map(str.capitalize, PACKET_TYPES[1:]))
