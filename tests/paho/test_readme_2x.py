"""Every code block of the README of paho-mqtt 2.x runs and does what the document says."""

from __future__ import annotations

import logging
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.testing import BrokerServer, ModelBroker
from tests.paho.conftest import SECONDS, Clients, start
from tests.paho.programs import Program, Sensor, blocks, paho_is_ours, take_to
from tests.steps import eventually

BLOCKS = blocks(Path(__file__).parent / "readme" / "2x.txt")

Server = BrokerServer[ModelBroker]


@pytest.fixture(autouse=True)
def redirected(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take the programs to the broker of the test."""
    take_to(server.port, monkeypatch)
    with paho_is_ours():
        yield


def end(program: Program) -> None:
    """End a program that would run for ever."""
    program.names["mqttc"].disconnect()
    program.join()
    program.names["mqttc"].loop_stop()


def test_getting_started_prints_what_it_subscribes_to_and_renews_its_subscription(server: Server) -> None:
    server.call(server.broker.publish, "$SYS/broker/uptime", b"1 s", retain=True)
    program = Program(BLOCKS["getting started"])
    program.wait_for_line("$SYS/broker/uptime b'1 s'")
    assert program.printed == ["Connected with result code Success", "$SYS/broker/uptime b'1 s'"]
    program.names["mqttc"].reconnect_delay_set(0.01)
    server.disconnect_all()
    eventually(lambda: len(program.printed) == 4)
    assert program.printed[2:] == program.printed[:2]
    end(program)


def test_loop_start_publishes_in_the_background(clients: Clients, server: Server) -> None:
    client = clients("c")
    client.connect("127.0.0.1", server.port)
    with pytest.raises(EOFError):
        Program(BLOCKS["loop_start"], mqttc=client, sensor=Sensor(values=[21.5, 22.0])).join()
    server.wait_for(lambda: server.broker.payloads("paho/temperature") == [b"21.5", b"22.0"])


def test_loop_forever_returns_after_disconnect(clients: Clients, server: Server) -> None:
    client = clients("c")
    client.on_connect = lambda *_: client.disconnect()
    client.connect("127.0.0.1", server.port)
    Program(BLOCKS["loop_forever"], mqttc=client).join()


def test_loop_returns_an_error_when_the_connection_is_lost(clients: Clients, server: Server) -> None:
    client = clients("c")
    client.on_connect = lambda *_: server.disconnect_all()
    client.connect("127.0.0.1", server.port)
    program = Program(BLOCKS["loop"], mqttc=client)
    program.join()
    assert program.names["rc"] == mqtt.MQTT_ERR_CONN_LOST


def test_subscriber_collects_ten_messages_in_its_user_data_and_ends(server: Server) -> None:
    for number in range(10):
        server.call(server.broker.publish, f"$SYS/{number}", b"%d" % number, retain=True)
    program = Program(BLOCKS["subscriber"])
    program.join()
    assert program.printed == [
        "Broker granted the following QoS: 0",
        "unsubscribe succeeded (if SUBACK is received in MQTTv3 it success)",
        f"Received the following message: {[b'%d' % number for number in range(10)]}",
    ]


class Unacknowledged(set[int]):
    """The set of the publisher, without the race that the publisher describes: it would wait for ever."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._early: set[int] = set()

    def add(self, mid: int) -> None:
        with self._lock:
            if mid not in self._early:
                super().add(mid)

    def remove(self, mid: int) -> None:
        with self._lock:
            self._early.add(mid)
            self.discard(mid)


def test_publisher_waits_for_its_messages_and_ends(server: Server) -> None:
    Program(BLOCKS["publisher"], set=Unacknowledged).join()
    assert server.broker.payloads("paho/test/topic") == [b"my message", b"my message2"]


def test_logger_gets_what_the_client_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    program = Program(BLOCKS["logger"])
    program.join()
    eventually(lambda: any(text.startswith("Received CONNACK") for text in caplog.messages))
    assert caplog.messages[0].startswith("Sending CONNECT")
    end(program)


def test_on_log_gets_a_copy_of_every_message() -> None:
    program = Program(BLOCKS["on_log"])
    program.join()
    client, on_log = program.names["mqttc"], program.names["on_log"]
    assert client.on_log is on_log
    assert mqtt.LOGGING_LEVEL == {
        mqtt.LogLevel.MQTT_LOG_ERR: logging.ERROR,
        mqtt.LogLevel.MQTT_LOG_WARNING: logging.WARNING,
        mqtt.LogLevel.MQTT_LOG_NOTICE: logging.INFO,
        mqtt.LogLevel.MQTT_LOG_INFO: logging.INFO,
        mqtt.LogLevel.MQTT_LOG_DEBUG: logging.DEBUG,
    }
    assert program.printed == []
    end(program)


def test_an_external_event_loop_needs_the_three_pieces(clients: Clients, server: Server) -> None:
    client = clients("c")
    client.on_connect = lambda *_: client.publish("from/the/loop", "x", 1)
    client.on_publish = lambda *_: client.disconnect()
    client.connect("127.0.0.1", server.port)
    names = {"mqttc": client, "run": True, "need_read": False, "need_write": False}

    def updated_need_read_and_write() -> None:
        program.names["run"] = client.socket() is not None
        program.names["need_write"] = client.want_write()
        readable = select.select([client.socket()], [], [], 0)[0] if program.names["run"] else []
        program.names["need_read"] = bool(readable)

    def wait_for_change_in_need_read_or_write() -> None:
        if client.socket() is not None and not client.want_write():
            select.select([client.socket()], [], [], 0.2)

    functions = [wait_for_change_in_need_read_or_write, updated_need_read_and_write]
    program = Program("", **{function.__name__: function for function in functions}, **names)
    program = Program(BLOCKS["external event loop"], **program.names)
    program.join()
    assert server.broker.payloads("from/the/loop") == [b"x"]


def test_publish_single_publishes_one_message(server: Server) -> None:
    Program(BLOCKS["publish.single"]).join()
    server.wait_for(lambda: server.broker.payloads("paho/test/topic") == [b"payload"])


def test_publish_multiple_publishes_dicts_and_tuples(server: Server) -> None:
    Program(BLOCKS["publish.multiple"]).join()
    server.wait_for(lambda: server.broker.payloads() == [b"multiple 1", b"multiple 2"])


def test_subscribe_simple_returns_one_message(server: Server) -> None:
    server.call(server.broker.publish, "paho/test/topic", b"1", retain=True)
    program = Program(BLOCKS["subscribe.simple"])
    program.join()
    assert program.printed == ["paho/test/topic b'1'"]


def test_subscribe_callback_ends_when_the_callback_disconnects(clients: Clients, server: Server) -> None:
    program = Program(BLOCKS["subscribe.callback"])
    server.wait_for(lambda: any(session.subscriptions for session in server.broker.sessions.values()))
    publisher = start(clients("c"), server)
    for number in range(5):
        publisher.publish("paho/test/topic", number, 1).wait_for_publish(SECONDS)
    program.join()
    assert program.printed == [f"paho/test/topic b'{number}'" for number in range(5)]


def test_the_topics_of_the_document_match_as_it_says() -> None:
    assert mqtt.topic_matches_sub("foo/#", "foo/bar")
    assert mqtt.topic_matches_sub("+/bar", "foo/bar")
    assert not mqtt.topic_matches_sub("non/+/+", "non/matching")


def test_no_block_was_forgotten() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in BLOCKS if f'"{name}"' not in source] == []
