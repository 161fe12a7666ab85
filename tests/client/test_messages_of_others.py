"""Messages of other clients that a client skips: acknowledged in their turn, counted, told now and then."""

from __future__ import annotations

import asyncio

import pytest

import device_sdk.paho.client as mqtt
from device_sdk import AsyncClient, Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from device_sdk.mqtt import Connack, Message, Publish, encode_packet
from device_sdk.testing import BrokerServer, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, expect_close, ignore, send
from tests.conformance.scene import Scene
from tests.steps import eventually, eventually_in_loop

FAST = ReconnectPolicy(first=0.02, longest=0.05)
LARGE = 300_000


def large(packet_id: int, qos: int = 1) -> bytes:
    return encode_packet(Publish("large", bytes(LARGE), qos=qos, packet_id=packet_id), "3.1.1")


def small(packet_id: int, version: str = "3.1.1") -> bytes:
    return encode_packet(Publish("small", b"x", qos=1, packet_id=packet_id), version)


def unreadable(version: str, packet_id: int = 7) -> bytes:
    """A PUBLISH at QoS 1 whose topic name is not UTF-8."""
    body = b"\0\x02a\xff" + packet_id.to_bytes(2, "big") + (b"\0" if version == "5.0" else b"") + b"x"
    return bytes((0x32, len(body))) + body


def skipped(events: list[ClientEvent]) -> list[ClientEvent]:
    return [event for event in events if event.kind == "skipped"]


def test_a_large_message_of_mqtt_3_passes_by_and_the_others_arrive() -> None:
    acks = [expect("puback", packet_id=number) for number in (1, 2, 3)]
    script = [expect("connect"), send(Connack(), small(1), large(2), small(3)), *acks]
    scene = Scene(ScriptedBroker(script, version="3.1.1"), version="3.1.1").start()
    assert [message.topic for message in scene.arrived] == ["small", "small"]
    assert (scene.client.stats.received, scene.client.stats.skipped) == (2, 1)
    [told] = skipped(scene.events)
    assert told.value == "large"
    assert told.text.startswith("'large': skipped 300")
    assert "maximum_packet_size" in told.text
    scene.close()


def test_skipped_messages_are_told_the_first_second_fourth_time() -> None:
    packets = [large(number) for number in range(1, 10)]
    script = [expect("connect"), send(Connack(), *packets), *[expect("puback")] * 9]
    scene = Scene(ScriptedBroker(script, version="3.1.1"), version="3.1.1").start()
    assert scene.client.stats.skipped == 9
    assert [event.text.rpartition(" (")[2] for event in skipped(scene.events)][1:] == [
        f"{count} messages skipped so far)" for count in (2, 4, 8)
    ]
    assert len(skipped(scene.events)) == 4
    scene.close()


def test_a_large_message_waits_for_the_handler_of_the_one_before_it() -> None:
    handled: list[list[str]] = []

    def handler(message: Message) -> None:
        handled.append([packet.type for packet in broker.received])

    script = [expect("connect"), send(Connack(), small(1), large(2)),
              expect("puback", packet_id=1), expect("puback", packet_id=2)]  # fmt: skip
    broker = ScriptedBroker(script, version="3.1.1")
    scene = Scene(broker, version="3.1.1", on_message=handler).start()
    assert handled == [["connect"]]
    scene.close()


@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_the_third_connection_in_a_row_passes_over_a_text_that_is_not_utf8(version: str) -> None:
    present = Connack(True)
    beginning = [expect("connect"), send(present, unreadable(version), small(8, version))]
    end = [expect_close()]
    third = [*beginning, expect("puback", packet_id=7), expect("puback", packet_id=8)]
    first = [expect("connect"), send(Connack(), unreadable(version), small(8, version)), *end]
    broker = ScriptedBroker(first, [*beginning, *end], third, version=version)
    scene = Scene(broker, version=version, clean_start=False).start()
    scene.advance(60)
    assert [message.topic for message in scene.arrived] == ["small"]
    assert scene.client.stats.skipped == 1
    assert [event.value for event in skipped(scene.events)] == ["a\\xff"]
    scene.close()


def test_text_from_outside_is_escaped_where_people_read_it() -> None:
    packet = encode_packet(Publish("a\n\x1b[31mb", bytes(LARGE)), "3.1.1")
    script = [expect("connect"), send(Connack(), packet)]
    scene = Scene(ScriptedBroker(script, version="3.1.1"), version="3.1.1").start()
    [told] = skipped(scene.events)
    assert told.text.isprintable()
    scene.close()


def three_times(version: str) -> ScriptedBroker:
    beginning = [
        expect("connect"),
        send(Connack(), unreadable_property() if version == "5.0" else unreadable(version)),
    ]
    return ScriptedBroker(
        [*beginning, expect_close()],
        [*beginning, expect_close()],
        [*beginning, expect("puback", packet_id=7), ignore()],
        version=version,
    )


def acknowledged(server: BrokerServer[ScriptedBroker]) -> bool:
    return any(packet.type == "puback" for packet in server.broker.received)


def unreadable_property() -> bytes:
    body = b"\0\x01a" + b"\0\x07" + b"\x04\x03\0\x01\xff" + b"x"
    return bytes((0x32, len(body))) + body


@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_client_goes_on_by_itself_the_third_time(version: str) -> None:
    with BrokerServer(three_times(version)) as server:
        with Client(server.url, version=version, reconnect=FAST) as client:
            eventually(lambda: client.stats.skipped == 1)
            assert client.stats.connects == 3
            server.wait_for(lambda: acknowledged(server), 10)
        server.broker.check()


@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_async_client_goes_on_by_itself_the_third_time(version: str) -> None:
    async def main() -> None:
        async with AsyncClient(server.url, version=version, reconnect=FAST) as client:
            await eventually_in_loop(lambda: client.stats.skipped == 1)
            assert client.stats.connects == 3
            await asyncio.to_thread(server.wait_for, lambda: acknowledged(server), 10)

    with BrokerServer(three_times(version)) as server:
        asyncio.run(asyncio.wait_for(main(), 30))
        server.broker.check()


def test_the_drop_in_goes_on_by_itself_the_third_time() -> None:
    with BrokerServer(three_times("5.0")) as server:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.reconnect_delay_set(0.02, 0.05)
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        try:
            server.wait_for(lambda: acknowledged(server), 10)
        finally:
            client.disconnect()
            client.loop_stop()
        server.broker.check()
