"""Defaults and bounds that a mutation tool could change without a test noticing (docs/decisions/0010)."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk import Message, Will
from device_sdk.mqtt import Connack
from device_sdk.mqtt.codes import ReasonCode, reason_name
from tests.mqtt.peer import Peer, connected, end_of


def has_output(peer: Peer) -> bool:
    return peer.protocol.has_output


def test_a_message_is_by_default_of_qos_0_new_and_not_retained() -> None:
    message = Message("t", b"x")
    assert (message.qos, message.retain, message.dup) == (0, False, False)
    assert (message.packet_id, message.properties, message.handled) == (0, None, False)


def test_the_options_of_a_will_have_names() -> None:
    positional: Any = ("t", b"x", 1)
    with pytest.raises(TypeError, match="positional"):
        Will(*positional)


def test_there_is_output_as_soon_as_connect_waits_and_none_after_it_left() -> None:
    peer = Peer()
    assert not has_output(peer)
    peer.protocol.connect(0.0, clean_start=True)
    assert has_output(peer)
    peer.bytes_sent()
    assert not has_output(peer)


def test_there_is_output_while_the_last_packet_waits() -> None:
    peer = connected()
    peer.protocol.disconnect()
    assert has_output(peer)
    peer.bytes_sent()
    assert not has_output(peer)


def test_a_server_may_assign_1024_characters_and_no_more() -> None:
    for length, fits in ((1_024, True), (1_025, False)):
        peer = Peer()
        peer.options.client_id = ""
        peer.connect()
        events = peer.receive(Connack(False, 0, {"assigned_client_identifier": "x" * length}))
        if fits:
            assert peer.options.client_id == "x" * length
        else:
            assert end_of(events).reason_code == 0x83


def test_reason_code_0_has_three_names_and_the_first_is_success() -> None:
    names = ("SUCCESS", "NORMAL_DISCONNECTION", "GRANTED_QOS_0")
    assert [ReasonCode[name].value for name in names] == [0, 0, 0]
    assert [reason_name(number) for number in (0, 1, 0x87)] == ["success", "granted QoS 1", "not authorized"]
