"""Whoever may choose a text puts line ends, terminal sequences and marks of direction into it.

A broker, a proxy, a web server, another client, a driver, a store: everything that the package logs, raises
and reports after that has to be one safe line of limited length. The command has its own file,
``tests/cli/test_terminal.py``.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk._printable import LONGEST, printable
from device_sdk.drivers.base import Reading
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import ConnectFailedError, ConnectRefused, DeviceSdkError, StoreError
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.packets import Connack, Disconnect, Packet, Puback, Publish, Suback, Unsuback
from device_sdk.net.base import open_transport
from device_sdk.node.schedule import Schedule
from device_sdk.node.sensor import Sensor
from device_sdk.store.sqlite import SqliteStore
from device_sdk.testing.broker_server import BrokerServer
from device_sdk.testing.scripted_broker import ScriptedBroker, close, expect, send
from tests.engine.rig import Rig
from tests.net.test_proxy import scripted, take_head
from tests.net.test_tcp import HOST
from tests.net.transport_contract import soon

HOSTILE = "x\n2026-01-01 WARNING forged\r\x1b[2J\x07\u202e\u2066\u200b\x9b\u2028 end"
LONG = HOSTILE * 100  # 5,400 characters
PAIRS = [(HOSTILE, HOSTILE)] * 3


def is_safe(text: str, longest: int = LONGEST) -> bool:
    return printable(text, longest) == text


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All that is logged, down to the packets; whatever it is has to be safe in any formatter."""
    caplog.set_level(logging.DEBUG)
    yield caplog
    plain = logging.Formatter("%(levelname)s %(name)s %(message)s")
    for record in caplog.get_records("call"):
        line, *traceback = plain.format(record).split("\n")
        assert is_safe(line, 3 * LONGEST), line
        assert bool(traceback) == bool(record.exc_info), "a line more than there should be"
        assert all(map(is_safe, traceback)), traceback


def checked(events: list[ClientEvent]) -> list[str]:
    """Return the kinds of these events, all of which have to be safe."""
    for event in events:
        assert is_safe(event.text), event.text
        assert event.error is None or is_safe(str(event.error))
        assert len(repr(event)) < 5_000
    return [event.kind for event in events]


class Watched(Rig):
    """A rig that keeps its events."""

    def __init__(self, **options: Any) -> None:
        self.seen: list[ClientEvent] = []
        super().__init__(on_event=self.seen.append, **options)

    def kinds(self) -> list[str]:
        self.handle()
        return checked(self.seen)


# The broker


@pytest.mark.parametrize("text", [HOSTILE, LONG], ids=["short", "long"])
@pytest.mark.parametrize("code", [0x87, 0x9C])
def test_the_words_of_a_connack(text: str, code: int) -> None:
    rig = Watched()
    rig.open()
    properties = {"reason_string": text, "server_reference": text, "user_property": PAIRS}
    rig.feed(Connack(False, code, properties))
    assert rig.kinds() == ["connect_failed", "server_reference"]
    failed, reference = rig.seen
    assert isinstance(failed.error, ConnectRefused) and failed.error.reason_string == text
    assert reference.value == text, "for programs, exactly what was received"
    assert "next attempt" in failed.text, "what is ours stays readable"


@pytest.mark.parametrize("text", [HOSTILE, LONG], ids=["short", "long"])
def test_the_words_of_a_disconnect(text: str) -> None:
    rig = Watched()
    rig.connect(assigned_client_identifier=HOSTILE, response_information=text, user_property=PAIRS)
    delivery = rig.publish(b"x", topic=f"out/{text}")
    rig.feed(Disconnect(0x8B, {"reason_string": text, "server_reference": text, "user_property": PAIRS}))
    assert rig.kinds() == ["connected", "disconnected", "server_reference"]
    with pytest.raises(TimeoutError) as caught:
        delivery.wait(0)
    assert is_safe(str(caught.value))


def test_the_words_of_refusals_and_what_was_refused() -> None:
    rig = Watched()
    rig.connect()
    subscription = rig.engine.incoming.subscribe([Subscription(LONG)], None)
    delivery = rig.publish(b"x", topic=LONG)
    rig.publish(b"y", topic=f"{LONG}/again")
    with pytest.raises(TimeoutError) as late:
        subscription.wait(0)
    assert is_safe(str(late.value))
    rig.sent()
    words = {"reason_string": LONG, "user_property": PAIRS}
    rig.feed(Suback(1, [0x87], words), Puback(2, 0x99, words), Puback(3, 0x97, words))
    assert sorted(rig.kinds()) == ["connected", "postponed", "refused", "subscribe_refused"]
    for request in (subscription, delivery):
        with pytest.raises(DeviceSdkError) as refused:
            request.wait(0)
        assert is_safe(str(refused.value))


def test_the_topic_of_another_client() -> None:
    rig = Watched()
    rig.connect()
    rig.feed(Publish(LONG, b"\xff", properties={"payload_format_indicator": 1, "user_property": PAIRS}))
    assert rig.kinds() == ["connected", "invalid_payload"]


def test_packets_that_are_none() -> None:
    for garbage in (
        LONG.encode(),
        b"HTTP/1.1 400 \x1b[2J\r\n\r\n",
        b"\x20\x09\x00\x00\x06\x1f\x00\x03\n\x1b\x00",
    ):
        rig = Watched()
        rig.open()
        rig.feed(garbage)
        assert rig.kinds() == ["connect_failed"]


# The program's own code fails with a text that came from outside


def fail(_: object) -> None:
    raise ValueError(f"cannot read {LONG}")


def test_what_a_handler_raises(log: pytest.LogCaptureFixture) -> None:
    rig = Watched()
    rig.engine.events.reporter.on_event = fail
    rig.connect()
    rig.handle()
    assert "on_event raised" in log.text
    error = ConnectFailedError("x")
    error.__cause__ = ValueError(HOSTILE)
    rig.engine.events.notify("handler_failed", f"{HOSTILE} raised", error)
    rig.handle()
    assert "forged" in log.text


# Streams


def error_of(url: str, answer: bytes, **options: Any) -> str:
    """Return the error of an open() that is answered so, checked."""

    def script(sock: socket.socket) -> None:
        take_head(sock)
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
        raise EOFError

    with scripted(script) as server:
        place = f"{HOST}:{server.port}"
        transport = open_transport(
            url.format(place), **{name: text.format(place) for name, text in options.items()}
        )
        with pytest.raises(ConnectFailedError) as caught:
            transport.open(soon())
    assert is_safe(str(caught.value))
    return str(caught.value)


RAW = HOSTILE.replace("\n", "").replace("\r", "").encode()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 " + RAW + b"\r\n\r\n",
        b"HTTP/1.1 403 a\nb" + RAW * 200 + b"\r\n\r\n",
        b"not HTTP " + HOSTILE.encode() + b"\r\n\r\n",
    ],
    ids=["status", "long", "garbage"],
)
def test_the_status_of_a_proxy(answer: bytes) -> None:
    error_of("mqtt://broker.example", answer, proxy="http://{}")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 403 " + RAW + b"\r\nContent-Length: 9999\r\n\r\n" + LONG.encode(),
        b"HTTP/1.1 301 Moved\r\nLocation: wss://" + RAW + b"\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nX: " + RAW + b"\r\n\r\n",
        b"SSH-2.0-" + HOSTILE.encode() + b"\r\n\r\n",
    ],
    ids=["refusal", "redirect", "upgrade", "garbage"],
)
def test_the_answer_of_a_web_server(answer: bytes) -> None:
    error_of("ws://{}/mqtt", answer)


# Sensors and stores


class BadDriver:
    def __init__(self, error: Exception) -> None:
        self.error = error

    def open(self) -> None: ...

    def read(self) -> tuple[Reading, ...]:
        raise self.error

    def close(self) -> None:
        raise self.error


@pytest.mark.parametrize("kind", [OSError, KeyError, DeviceSdkError])
def test_what_a_driver_raises(kind: type[Exception], log: pytest.LogCaptureFixture) -> None:
    driver: Any = BadDriver(kind(LONG))
    sensor = Sensor(
        "climate", lambda: driver, Schedule(1.0, 0.0), on_readings=lambda *_: None, on_online=lambda _: None
    )
    sensor.run()
    assert "sensor climate: backoff" in log.text


def test_the_name_of_a_stores_file(tmp_path: Path) -> None:
    (tmp_path / HOSTILE).mkdir()
    with pytest.raises(StoreError) as caught:
        SqliteStore(tmp_path / HOSTILE).open()
    assert is_safe(str(caught.value)) and "forged" in str(caught.value)


# The drop-in


def test_the_drop_in_passes_only_safe_text_to_its_log(log: pytest.LogCaptureFixture) -> None:
    words = {"reason_string": HOSTILE, "user_property": PAIRS}
    script = [
        expect("connect"),
        send(Connack(False, 0, {"assigned_client_identifier": HOSTILE, **words})),
        expect("subscribe"),
        send(lambda seen: Suback(seen.packet_id, [0x87], words)),
        send(Publish(HOSTILE, b"x", properties={"user_property": PAIRS})),
        expect("unsubscribe"),
        send(lambda seen: Unsuback(seen.packet_id, [0x87], words)),
        send(Disconnect(0x8B, {"server_reference": HOSTILE, **words})),
        close(),
    ]
    texts: list[str] = []
    with BrokerServer(ScriptedBroker(script)) as server:
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.on_log = lambda c, d, level, text: texts.append(text)
        client.on_connect = lambda c, *_: c.subscribe("#")
        client.on_message = fail_in_callback
        client.suppress_exceptions = True
        client.enable_logger()
        client.on_disconnect = lambda c, *_: c.disconnect()
        client.on_subscribe = lambda c, *_: c.unsubscribe(HOSTILE)
        client.connect(HOST, server.port)
        while client.loop(1.0) == mqtt.MQTT_ERR_SUCCESS:
            pass
    assert any("Received PUBLISH" in text for text in texts)
    assert any("Caught exception" in text for text in texts)
    assert all(map(is_safe, texts)), texts


def fail_in_callback(client: object, userdata: object, message: mqtt.MQTTMessage) -> None:
    raise ValueError(message.topic)


# All of it, without knowing where it goes: each kind of packet with each of its texts


def test_no_packet_of_a_broker_forges_a_line_in_the_packet_log(log: pytest.LogCaptureFixture) -> None:
    texts = {"reason_string": HOSTILE, "user_property": PAIRS}
    packets: list[Packet] = [
        Connack(False, 0, {"response_information": HOSTILE, "server_reference": HOSTILE, **texts}),
        Publish(HOSTILE, b"x", properties={"content_type": HOSTILE, "response_topic": HOSTILE}),
        Puback(1, 0, texts),
        Suback(1, [0], texts),
        Disconnect(0, texts),
    ]
    rig = Watched()
    rig.open()
    rig.feed(b"".join(encode_packet(packet, "5.0") for packet in packets))
    shown = [record for record in log.records if record.name == "device_sdk.packets"]
    assert len(shown) > 2
    rig.kinds()
