"""Private names of paho-mqtt that libraries on top of it use: ThingsBoard, Home Assistant and others."""

from __future__ import annotations

import collections
import re
import threading
from pathlib import Path
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
import device_sdk.paho.v1.client as mqtt_1
from device_sdk.mqtt.packets import Connack, Publish, Pubrel
from device_sdk.paho import _private
from device_sdk.paho._attributes import NAMES
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.testing.scripted_broker import expect, ignore, send
from tests.paho.conftest import SECONDS, Clients, scripted, start
from tests.steps import eventually

PAGE = Path(__file__).resolve().parents[2] / "docs" / "moving-from-paho.md"
ONLY_1_X = {"_out_packet_mutex", "_current_out_packet_mutex"}


def served() -> set[str]:
    """Return the private names of paho-mqtt that are served."""

    class Blank:
        pass

    _private.serve_private_names(Blank)
    return {name for name in vars(Blank) if not name.startswith("__")}


def test_every_served_name_is_one_of_paho_mqtt_and_can_be_read(clients: Clients) -> None:
    paho = pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")
    theirs, ours = paho.Client(paho.CallbackAPIVersion.VERSION2), clients("c")
    for name in served():
        getattr(ours, name)
        assert hasattr(theirs, name) or name in ONLY_1_X, name


def test_the_page_lists_every_served_name() -> None:
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index("## Private names") : text.index("## Versions")]
    listed = set(re.findall(r"`(_\w+)", table))
    callbacks = {f"_{name}" for name in NAMES}
    assert served() - callbacks <= listed
    assert "_on_connect" in listed


def test_thingsboard_clears_its_queues_at_each_disconnect(clients: Clients) -> None:
    with scripted([expect("connect"), send(Connack()), expect("publish"), ignore()]) as server:
        client: Any = clients("c")
        cleared: list[int] = []

        def on_disconnect(*_: Any) -> None:
            with client._out_message_mutex:
                client._out_packet.clear()
                client._out_messages.clear()
            client._in_messages.clear()
            cleared.append(len(client._out_messages))

        client.on_disconnect = on_disconnect
        start(client, server)
        client._max_inflight_messages = client._max_queued_messages = 3
        assert (client.max_inflight_messages, client.max_queued_messages) == (3, 3)
        for number in range(4):
            client.publish("a", str(number), 1)
        assert len(client._out_messages) == 3
        client.disconnect()
        eventually(lambda: cleared == [0])


def test_an_empty_container_in_the_place_of_the_messages_drops_them(clients: Clients) -> None:
    client: Any = clients("c")
    client.publish("a", "x", 1)
    assert client._out_messages
    client._out_messages = collections.OrderedDict()
    assert not client._out_messages
    with pytest.raises(TypeError, match="publish"):
        client._out_messages = {1: "a message"}


def test_clearing_received_messages_loses_none(clients: Clients) -> None:
    script = [expect("connect"), send(Connack(), Publish("a", b"x", qos=2, packet_id=7)), expect("pubrec")]
    with scripted([*script, send(Pubrel(7)), expect("pubcomp"), ignore()]) as server:
        client: Any = clients("c")
        got: list[bytes] = []
        client.on_connect = lambda *_: client._in_messages.clear()
        client.on_message = lambda c, d, message: got.append(message.payload)
        start(client, server)
        eventually(lambda: got == [b"x"])


def test_home_assistant_puts_locks_of_its_own_in_their_place(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client: Any = clients("c")
    mutexes = sorted(name for name in served() if name.endswith("_mutex"))
    for name in mutexes:
        assert getattr(client, name).acquire(False)
        assert not getattr(client, name).locked()
        getattr(client, name).release()
        setattr(client, name, threading.Lock())
    start(client, server)
    client.publish("a", "x", 1).wait_for_publish(SECONDS)


def test_the_state_has_the_numbers_of_either_version(server: BrokerServer[ModelBroker]) -> None:
    client: Any = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    old: Any = mqtt_1.Client("old")
    assert (client._state, old._state) == (1, mqtt_1.mqtt_cs_new)
    client.connect_async("127.0.0.1", server.port)
    old.connect_async("127.0.0.1", server.port)
    assert (client._state, old._state) == (2, mqtt_1.mqtt_cs_connect_async)
    for one in (client, old):
        one.loop_start()
        eventually(one.is_connected)
    assert (client._state, old._state) == (4, mqtt_1.mqtt_cs_connected)
    for one in (client, old):
        one.disconnect()
        one.loop_stop()
    assert (client._state, old._state) == (7, mqtt_1.mqtt_cs_disconnecting)


def test_paho_numbers_its_states_likewise() -> None:
    enums = pytest.importorskip("paho.mqtt.enums", reason="needs paho-mqtt")
    names = ["NEW", "CONNECT_ASYNC", "CONNECTING", "CONNECTED", "CONNECTION_LOST"]
    names += ["DISCONNECTING", "DISCONNECTED"]
    states = [f"MQTT_CS_{name}" for name in names]
    assert [(state.name, state.value) for state in enums._ConnectionState] == list(
        zip(states, range(1, 8), strict=True)
    )


def test_a_thread_is_told_to_end(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    client: Any = start(clients("c"), server)
    thread = client._thread
    assert client._thread_terminate is False
    client._thread_terminate = True
    assert client._thread_terminate is True
    thread.join(SECONDS)
    assert not thread.is_alive()
    client._thread_terminate = False
    assert client._thread_terminate is False


def test_the_socket_and_its_end(clients: Clients, server: BrokerServer[ModelBroker]) -> None:
    client: Any = clients("c")
    assert client._sock is None
    client.connect("127.0.0.1", server.port)
    assert client._sock is client.socket()
    client._sock_close()
    assert client._sock is None


def test_callbacks_log_and_counts_under_their_private_names(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    client: Any = clients("c")
    lines: list[str] = []
    client._on_log = lambda c, d, level, text: lines.append(text)
    client._easy_log(mqtt.MQTT_LOG_INFO, "%s lines", 2)
    assert lines == ["2 lines"]
    assert client.on_log is client._on_log
    client.publish("a", "x", 1)
    assert (client._inflight_messages, len(client._out_messages)) == (0, 1)
    client._reconnect_min_delay, client._reconnect_max_delay, client._reconnect_on_failure = 2, 3, False
    assert client._reconnect_delay is None


@pytest.mark.parametrize(
    ("number", "arguments", "text"),
    [(0, {}, "0"), (61, {}, "Z"), (62, {}, "10"), (5, {"padding": 3}, "005"), (5, {"base": "01"}, "101")],
)
def test_base62_of_1_x(number: int, arguments: dict[str, Any], text: str) -> None:
    assert mqtt_1.base62(number, **arguments) == text


@pytest.mark.parametrize(
    ("first", "kind"), [("node-17", TypeError), ("", TypeError), (b"node-17", ValueError), (None, ValueError)]
)
def test_a_program_for_1_x_is_recognised_by_its_call_and_told_so(first: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=r"paho-mqtt 1\.x: run it with python -m device_sdk\.paho --v1"):
        mqtt.Client(first, True)  # type: ignore[arg-type]
