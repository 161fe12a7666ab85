"""device_sdk.paho.reasoncodes: names, numbers and comparisons of reason codes."""

from __future__ import annotations

import pytest

from device_sdk.mqtt.codes import ReasonCode as Code
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.reasoncodes import ReasonCode, ReasonCodes


def test_a_reason_code_is_made_from_its_number() -> None:
    code = ReasonCode(PacketTypes.CONNACK, identifier=0x87)
    assert (code.value, code.getName(), str(code), code.json()) == (0x87, *["Not authorized"] * 3)
    assert code.is_failure
    assert repr(code) == "ReasonCode(Connack, 'Not authorized')"


def test_a_reason_code_is_made_from_its_name() -> None:
    assert ReasonCode(PacketTypes.SUBACK, "Granted QoS 1").value == 1
    assert not ReasonCode(PacketTypes.SUBACK, "Granted QoS 1").is_failure


def test_a_reason_code_is_success_unless_something_else_is_said() -> None:
    assert ReasonCode(PacketTypes.PUBACK).getName() == "Success"
    assert ReasonCode(PacketTypes.DISCONNECT).getName() == "Normal disconnection"


@pytest.mark.parametrize(
    ("packet_type", "number", "name"),
    [
        (PacketTypes.UNSUBACK, 0x11, "No subscription found"),
        (PacketTypes.AUTH, 0x19, "Re-authenticate"),
        (PacketTypes.SUBACK, 0x00, "Granted QoS 0"),
        (PacketTypes.DISCONNECT, 0x9B, "QoS not supported"),
        (PacketTypes.CONNACK, 0x86, "Bad user name or password"),
    ],
)
def test_names_are_worded_as_in_paho(packet_type: int, number: int, name: str) -> None:
    assert ReasonCode(packet_type, identifier=number).getName() == name
    assert ReasonCode(packet_type, name).value == number


def test_a_number_that_does_not_exist_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        ReasonCode(PacketTypes.CONNACK, identifier=0x7F)


def test_a_number_of_another_packet_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="packet type 2 has no reason code 142"):
        ReasonCode(PacketTypes.CONNACK, identifier=Code.SESSION_TAKEN_OVER)


@pytest.mark.parametrize("name", ["No such code", "Session taken over"])
def test_a_name_that_the_packet_does_not_have_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError, match=name):
        ReasonCode(PacketTypes.CONNACK, name)


def test_set_changes_the_reason_code() -> None:
    code = ReasonCode(PacketTypes.CONNACK)
    code.set("Banned")
    assert code == 0x8A


def test_reason_codes_equal_numbers_names_and_each_other() -> None:
    code = ReasonCode(PacketTypes.CONNACK, "Protocol error")
    assert code == 130
    assert code == "Protocol error"
    assert code == ReasonCode(PacketTypes.DISCONNECT, "Protocol error")
    assert code != 0
    assert code != "Success"
    assert code != ReasonCode(PacketTypes.CONNACK)
    assert code != None  # noqa: E711  # what is tested is the operator


def test_reason_codes_are_ordered_by_their_numbers() -> None:
    success, error = ReasonCode(PacketTypes.CONNACK), ReasonCode(PacketTypes.CONNACK, "Server busy")
    assert success < error
    assert error > 0
    assert success <= 0
    assert error >= ReasonCode(PacketTypes.CONNACK, "Server busy")
    with pytest.raises(TypeError):
        sorted([success, "Success"])  # type: ignore[type-var]  # that is the point


def test_a_reason_code_has_no_hash_as_it_equals_numbers_and_names() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(ReasonCode(PacketTypes.CONNACK))


def test_pack_and_unpack_are_one_byte() -> None:
    code = ReasonCode(PacketTypes.PUBACK, identifier=0x10)
    assert code.pack() == bytearray(b"\x10")
    other = ReasonCode(PacketTypes.PUBACK)
    assert other.unpack(b"\x10rest") == 1
    assert other == code


def test_unpacking_an_unknown_number_changes_nothing() -> None:
    code = ReasonCode(PacketTypes.PUBACK, identifier=0x10)
    with pytest.raises(KeyError):
        code.unpack(b"\x7f")
    assert code == 0x10


def test_the_table_of_names_lists_the_packet_types() -> None:
    assert ReasonCode.names[0x8E] == {"Session taken over": [PacketTypes.DISCONNECT]}
    assert set(ReasonCode.names) == {int(code) for code in Code}
    with pytest.raises(TypeError):
        ReasonCode.names[0x8E] = {}  # type: ignore[index]  # that is the point


def test_the_old_class_name_warns_and_is_the_same_type() -> None:
    with pytest.deprecated_call(match="without the s"):
        old = ReasonCodes(PacketTypes.CONNACK, "Success")
    new = ReasonCode(PacketTypes.CONNACK, "Success")
    assert old == new
    assert isinstance(old, ReasonCode)
    assert isinstance(new, ReasonCodes)
    assert not isinstance(0, ReasonCodes)
