"""device_sdk.paho.subscribeoptions: the option byte of SUBSCRIBE."""

from __future__ import annotations

import pytest

from device_sdk.paho import MQTTException
from device_sdk.paho.subscribeoptions import SubscribeOptions

BYTES = [
    (SubscribeOptions(), 0b000000),
    (SubscribeOptions(qos=2), 0b000010),
    (SubscribeOptions(noLocal=True), 0b000100),
    (SubscribeOptions(retainAsPublished=True), 0b001000),
    (SubscribeOptions(1, True, True, SubscribeOptions.RETAIN_SEND_IF_NEW_SUB), 0b011101),
    (SubscribeOptions(retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND), 0b100000),
]


@pytest.mark.parametrize(("options", "byte"), BYTES)
def test_options_become_one_byte(options: SubscribeOptions, byte: int) -> None:
    assert options.pack() == bytes((byte,))


@pytest.mark.parametrize(("options", "byte"), BYTES)
def test_one_byte_becomes_options(options: SubscribeOptions, byte: int) -> None:
    read = SubscribeOptions()
    assert read.unpack(bytes((byte, 0xFF))) == 1
    assert read.json() == options.json()


@pytest.mark.parametrize("wrong", [{"qos": 3}, {"retainHandling": 3}, {"qos": -1}])
def test_a_wrong_number_is_an_assertion_error(wrong: dict[str, int]) -> None:
    with pytest.raises(AssertionError, match="must be 0, 1 or 2"):
        SubscribeOptions(**wrong)  # type: ignore[arg-type]  # keywords by name


def test_a_number_that_became_wrong_is_found_when_it_is_packed() -> None:
    options = SubscribeOptions()
    options.QoS = 3
    with pytest.raises(AssertionError, match="QoS must be 0, 1 or 2, not 3"):
        options.pack()


@pytest.mark.parametrize("byte", [0b000011, 0b110000])
def test_a_reserved_number_is_not_read(byte: int) -> None:
    with pytest.raises(AssertionError):
        SubscribeOptions().unpack(bytes((byte,)))


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(MQTTException, match="qos is not a subscription option"):
        SubscribeOptions().qos = 1


def test_options_show_their_values() -> None:
    shown = "{QoS=1, noLocal=True, retainAsPublished=False, retainHandling=0}"
    assert str(SubscribeOptions(1, noLocal=True)) == repr(SubscribeOptions(1, noLocal=True)) == shown
