"""The whole node in this process, against a model of a broker."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from device_sdk.errors import ArgumentError, ConnectFailedError, DriverError
from device_sdk.mqtt.packets import Connack
from device_sdk.node.config import parse_config
from device_sdk.node.service import Service
from device_sdk.testing import BrokerServer, FaultProxy, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, expect_close, send
from tests.node.fakes import BEHAVIOUR
from tests.steps import eventually, steps

__all__ = ["steps"]  # a fixture for every test here

Server = BrokerServer[ModelBroker]
Hang = Callable[[], object]

CONFIG = """\
[node]
id = "n1"
[clock]
wait = 0
[broker]
url = "{url}"
reconnect_longest = 1
"""
SENSOR = """\
[[sensor]]
name = "{name}"
driver = "function"
bus = "bus of {name}"
interval = 0.02
options = {{ function = "tests.node.fakes:measure", arguments = {{ name = "{name}" }} }}
"""


@pytest.fixture(autouse=True)
def behaviour() -> Iterator[dict[str, Callable[[], object]]]:
    yield BEHAVIOUR
    BEHAVIOUR.clear()


@pytest.fixture
def server() -> Iterator[Server]:
    with BrokerServer(ModelBroker()) as running:
        yield running


@pytest.fixture
def hang() -> Iterator[Hang]:
    """What hangs until the test is over."""
    over = threading.Event()
    yield lambda: over.wait(60)
    over.set()


@pytest.fixture
def quick_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening may take as long as a read, and is tried again at once."""
    monkeypatch.setattr("device_sdk.node.life_cycle.HOLD_S", 0.01)
    monkeypatch.setattr("device_sdk.node.sensor.OPEN_TIMEOUT_S", 0.1)
    monkeypatch.setattr("device_sdk.node.life_cycle.FIRST_RETRY_S", 0.01)


def service(url: str, *names: str, more: str = "", more_of_sensor: str = "") -> Service:
    sensors = "".join(SENSOR.format(name=name) + more_of_sensor for name in names)
    return Service(parse_config(CONFIG.format(url=url) + more + sensors))


def samples(server: Server, name: str) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in server.broker.payloads(f"n1/{name}")]


def status(server: Server, topic: str) -> bytes:
    message = server.broker.retained.get(topic)
    return b"" if message is None else message.payload


def told(caplog: pytest.LogCaptureFixture, words: str) -> threading.Event:
    """An event that is set when the log says these words."""
    happened = threading.Event()

    def look(record: logging.LogRecord) -> bool:
        if words in record.getMessage():
            happened.set()
        return True

    caplog.handler.addFilter(look)
    return happened


def fail() -> object:
    raise DriverError("it is broken")


def test_samples_are_numbered_and_everybody_is_online_and_in_the_end_offline(server: Server) -> None:
    node = service(server.url, "climate", "machine")
    node.start()
    server.wait_for(lambda: len(samples(server, "climate")) >= 3 and len(samples(server, "machine")) >= 3)
    topics = ("n1/status", "n1/climate/status", "n1/machine/status")
    server.wait_for(lambda: [status(server, topic) for topic in topics] == [b"online"] * 3)
    assert node.healthy
    assert node.stop() == 0
    assert [status(server, topic) for topic in topics] == [b"offline"] * 3
    assert server.broker.journal[-1].topic == "n1/status"
    assert [sample["seq"] for sample in samples(server, "climate")] == list(
        range(len(samples(server, "climate")))
    )
    assert samples(server, "climate")[0]["readings"] == {"temperature": {"value": 21.5, "unit": "1"}}
    assert server.broker.violations == []


@pytest.mark.parametrize(
    ("names", "words"), [(("climate",), "1 sensor on"), (("climate", "machine"), "2 sensors on")]
)
def test_the_first_line_of_the_log_counts_the_sensors(
    server: Server, names: tuple[str, ...], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with service(server.url, *names):
        pass
    assert any(f"node n1: {words} " in message for message in caplog.messages)


@pytest.mark.parametrize("fail", [fail, sys.exit], ids=["DriverError", "sys.exit"])
def test_a_failing_sensor_is_offline_the_others_go_on_and_it_comes_back(
    server: Server, behaviour: dict[str, Callable[[], object]], fail: Callable[[], object]
) -> None:
    with service(server.url, "climate", "machine"):
        server.wait_for(lambda: status(server, "n1/climate/status") == b"online")
        behaviour["climate"] = fail
        server.wait_for(lambda: status(server, "n1/climate/status") == b"offline")
        count = len(samples(server, "machine"))
        server.wait_for(lambda: len(samples(server, "machine")) >= count + 5)
        assert status(server, "n1/machine/status") == b"online"
        del behaviour["climate"]
        server.wait_for(lambda: status(server, "n1/climate/status") == b"online")


def test_a_sensor_that_hangs_is_offline_and_the_others_go_on_and_so_does_it_when_it_works_again(
    server: Server, behaviour: dict[str, Callable[[], object]], hang: Hang, quick_timeouts: None
) -> None:
    more = "read_timeout = 0.1\n"
    with service(server.url, "machine", "climate", more_of_sensor=more) as node:
        server.wait_for(lambda: status(server, "n1/climate/status") == b"online")
        behaviour["climate"] = hang
        server.wait_for(lambda: status(server, "n1/climate/status") == b"offline")
        del behaviour["climate"]
        server.wait_for(lambda: status(server, "n1/climate/status") == b"online")
        count = len(samples(server, "machine"))
        server.wait_for(lambda: len(samples(server, "machine")) >= count + 5)
        assert status(server, "n1/machine/status") == b"online"
        assert node.healthy
    numbers = [sample["seq"] for sample in samples(server, "climate")]
    assert numbers == list(range(len(numbers))), "the sample of the call that hangs is none"


def test_a_bus_that_hangs_for_good_fails_and_the_stop_does_not_wait_for_it(
    server: Server,
    behaviour: dict[str, Callable[[], object]],
    hang: Hang,
    quick_timeouts: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = service(server.url, "machine", "climate", more_of_sensor="read_timeout = 0.1\n")
    node.start()
    server.wait_for(lambda: status(server, "n1/climate/status") == b"online")
    behaviour["climate"] = hang
    server.wait_for(lambda: not node.healthy)
    assert node.is_alive, "the others go on"
    assert "2 of 3 hang; give what it waits for a time-out, or give it a longer read_timeout; " in caplog.text
    assert "1 of 2 sensors online; not climate (failed); bus of climate has failed: " in node.status
    assert "threads that hang in drivers: 2" in node.status
    server.wait_for(lambda: status(server, "n1/climate/status") == b"offline")
    count = len(samples(server, "machine"))
    server.wait_for(lambda: len(samples(server, "machine")) >= count + 5)
    begin = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - begin < 8
    assert status(server, "n1/machine/status") == b"offline"


def test_a_package_that_is_not_installed_costs_one_sensor_and_the_log_says_what_to_install(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    more = """
[[sensor]]
name = "exotic"
driver = "circuitpython"
bus = "fake:tests.node.fakes:climate_bus"
interval = 1
options = { driver = "adafruit_exotic:Exotic" }
"""
    missing = told(caplog, "sensor exotic: backoff: adafruit_exotic")
    with service(server.url, "climate", more=more):
        assert missing.wait(10)
        server.wait_for(lambda: len(samples(server, "climate")) >= 3)
    assert any("adafruit-circuitpython-exotic" in message for message in caplog.messages)


def test_a_missing_value_is_published_as_bad(
    server: Server, behaviour: dict[str, Callable[[], object]]
) -> None:
    behaviour["climate"] = lambda: {"temperature": 21.5, "humidity": None}
    with service(server.url, "climate"):
        server.wait_for(lambda: samples(server, "climate"))
    humidity = samples(server, "climate")[0]["readings"]["humidity"]
    assert humidity == {"value": None, "unit": "1", "quality": "bad", "reason": "no value"}


def test_after_a_lost_connection_the_will_is_corrected_and_no_sample_is_missing(server: Server) -> None:
    with service(server.url, "climate"):
        server.wait_for(lambda: status(server, "n1/status") == b"online")
        server.call(server.broker.retained.clear)
        server.disconnect_all(reset=True)
        server.wait_for(lambda: status(server, "n1/status") == b"offline")
        server.wait_for(lambda: status(server, "n1/status") == b"online")
        # Told again behind the birth: the broker may have forgotten.
        server.wait_for(lambda: status(server, "n1/climate/status") == b"online")
    numbers = [sample["seq"] for sample in samples(server, "climate")]
    assert sorted(set(numbers)) == list(range(max(numbers) + 1))


def test_a_full_queue_loses_samples_aloud_and_the_node_is_online_again_afterwards(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.cut()
        node = service(f"mqtt://127.0.0.1:{proxy.port}", "climate", more="[queue]\nmax_messages = 2\n")
        full = told(caplog, "are lost")
        with node:
            assert full.wait(10)
            proxy.restore()
            server.wait_for(lambda: status(server, "n1/status") == b"online")
            server.wait_for(lambda: len(samples(server, "climate")) > 5)
        numbers = [sample["seq"] for sample in samples(server, "climate")]
    assert numbers[:2] == [0, 1]
    assert numbers == sorted(numbers)
    assert numbers[-1] > len(numbers), "the gap shows what was lost"
    first, second, *_ = [line for line in caplog.messages if line.startswith("sensor climate: ")]
    assert "samples are lost from now on" in first
    assert second.endswith("samples were lost, now they are taken again")


def test_a_sensor_that_fails_while_the_queue_is_full_is_told_when_there_is_room(
    server: Server, behaviour: dict[str, Callable[[], object]], caplog: pytest.LogCaptureFixture
) -> None:
    with FaultProxy("127.0.0.1", server.port) as proxy:
        node = service(
            f"mqtt://127.0.0.1:{proxy.port}", "climate", "machine", more="[queue]\nmax_messages = 2\n"
        )
        full, broken = told(caplog, "machine: samples are lost"), told(caplog, "climate: backoff")
        with node:
            server.wait_for(lambda: status(server, "n1/climate/status") == b"online")
            proxy.stall()
            assert full.wait(10)
            behaviour["climate"] = fail
            assert broken.wait(10)
            proxy.resume()
            server.wait_for(lambda: status(server, "n1/climate/status") == b"offline")
            assert status(server, "n1/status") == b"online"


def test_a_stop_without_a_broker_is_bounded_and_says_what_is_lost_and_why() -> None:
    with FaultProxy("127.0.0.1", 1) as proxy:
        proxy.cut()
        node = service(f"mqtt://127.0.0.1:{proxy.port}", "climate")
        node.start()
        worker = node.workers[0]
        eventually(lambda: worker.sensors[0].state == "ok")
        begin = time.monotonic()
        assert node.stop(drain=0.2) >= 2, "a sample, and the word that the sensor is offline"
        assert time.monotonic() - begin < 8
    assert isinstance(node.error, ConnectFailedError)


def test_who_is_in_a_hurry_does_not_wait_for_the_drain() -> None:
    with FaultProxy("127.0.0.1", 1) as proxy:
        proxy.cut()
        node = service(f"mqtt://127.0.0.1:{proxy.port}", "climate")
        node.start()
        begin = time.monotonic()
        node.stop(drain=60, hurry=lambda: True)
        assert time.monotonic() - begin < 8


def test_a_broker_that_does_not_acknowledge_gets_no_disconnect_so_that_it_sends_the_will(
    behaviour: dict[str, Callable[[], object]],
) -> None:
    behaviour["climate"] = fail  # no samples: only the states of node and sensor, and that of the end
    states = [expect("publish", topic=topic) for topic in ("n1/status", "n1/climate/status")]
    broker = ScriptedBroker([expect("connect"), send(Connack()), *states, states[1], expect_close()])
    with BrokerServer(broker) as server:
        node = service(server.url, "climate")
        node.start()
        server.wait_for(lambda: len(broker.received) == 3)
        assert node.stop(drain=0.2) == 2, "the states of the sensor"
        server.wait_for(lambda: broker.done)
        server.call(broker.check)
    assert [packet.type for packet in broker.received] == ["connect"] + ["publish"] * 3
    assert isinstance(node.error, TimeoutError)


def test_values_that_only_together_are_wrong_are_told_before_anything_starts() -> None:
    text = CONFIG.format(url="mqtt://127.0.0.1") + SENSOR.format(name="climate")
    text = text.replace("[[sensor]]", 'version = "3.1.1"\npassword = "x"\n[[sensor]]')
    with pytest.raises(ArgumentError):
        Service(parse_config(text))
