"""device_sdk.paho.packettypes: the numbers are those of the wire."""

from __future__ import annotations

from device_sdk.mqtt.codes import PACKET_TYPES
from device_sdk.paho.packettypes import PacketTypes


def test_each_packet_type_has_the_number_of_the_wire() -> None:
    for number in PacketTypes.indexes:
        assert getattr(PacketTypes, PACKET_TYPES[number].upper()) == number


def test_each_packet_type_has_a_name_to_show() -> None:
    assert PacketTypes.Names[PacketTypes.CONNECT] == "Connect"
    assert PacketTypes.Names[PacketTypes.AUTH] == "Auth"
    assert PacketTypes.Names[0] == "reserved"
    assert len(PacketTypes.Names) == len(PacketTypes.indexes) + 1


def test_the_will_message_has_a_number_that_no_packet_has() -> None:
    assert PacketTypes.WILLMESSAGE not in PacketTypes.indexes
