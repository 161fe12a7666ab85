"""The payload format indicator: text is UTF-8, whoever says so."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk import Client, Will
from device_sdk.errors import ArgumentError
from device_sdk.mqtt.events import PayloadNotText
from device_sdk.mqtt.packets import Publish
from tests.engine.rig import Rig
from tests.mqtt.peer import connected

TEXT = {"payload_format_indicator": 1}


@pytest.mark.parametrize("payload", [b"\xff", b"a\xc0\x80", b"\xed\xa0\x80", b"caf\xc3"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_text_that_is_not_utf_8_is_told_before_its_message(payload: bytes, qos: int) -> None:
    peer = connected()
    packet = Publish("t", payload, qos=qos, packet_id=1 if qos else None, properties=TEXT)
    told, message = peer.receive(packet)
    assert isinstance(told, PayloadNotText)
    assert (told.topic, message.payload) == ("t", payload)


@pytest.mark.parametrize("properties", [{}, {"payload_format_indicator": 0}, {"content_type": "x"}])
def test_bytes_may_be_anything(properties: dict[str, Any]) -> None:
    [message] = connected().receive(Publish("t", b"\xff", properties=properties))
    assert message.payload == b"\xff"


@pytest.mark.parametrize("payload", [b"", "café \0 \U0001f600".encode()])
def test_utf_8_is_text(payload: bytes) -> None:
    [message] = connected().receive(Publish("t", payload, properties=TEXT))
    assert message.payload == payload


def test_the_engine_makes_it_an_event_and_delivers_the_message() -> None:
    rig = Rig()
    rig.connect()
    rig.events()
    rig.feed(Publish("t", b"ab\xff", properties=TEXT))
    [event] = rig.event_objects()
    assert event.kind == "invalid_payload"
    assert "from byte 2 on" in event.text
    assert rig.engine.stats().received == 1


def test_publish_and_will_refuse_text_that_is_not_utf_8() -> None:
    client = Client("memory://nobody")
    with pytest.raises(ArgumentError, match="payload: is not UTF-8 from byte 1 on"):
        client.publish("t", b"a\xff", qos=1, properties=TEXT)
    assert client.stats.queued == 0
    client.publish("t", "ä", qos=1, properties=TEXT)
    assert client.stats.queued == 1
    client.close(0)
    with pytest.raises(ArgumentError, match="will: is not UTF-8"):
        Client("memory://nobody", will=Will("t", b"\xff", properties=TEXT))
