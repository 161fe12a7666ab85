"""The time of a node's samples, by its configuration."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from device_sdk import Client
from device_sdk._clock import boot_id
from device_sdk.errors import ConfigError
from device_sdk.node.clock import build
from device_sdk.node.config import parse_config
from device_sdk.node.service import Service
from device_sdk.testing import BrokerServer, ModelBroker
from tests.node.fakes import BEHAVIOUR

Server = BrokerServer[ModelBroker]

CONFIG = """\
[node]
id = "n1"
[broker]
url = "{url}"
[clock]
{clock}
[[sensor]]
name = "gps"
driver = "function"
bus = "of its own"
interval = 0.02
options = {{ function = "tests.node.fakes:measure", arguments = {{ name = "gps" }} }}
"""


@pytest.fixture(autouse=True)
def nobody_vouches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(build, "EVIDENCE", ())
    yield
    BEHAVIOUR.clear()


@pytest.fixture
def server() -> Iterator[Server]:
    with BrokerServer(ModelBroker()) as running:
        yield running


def samples(server: Server) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in server.broker.payloads("n1/gps")]


def more_than(server: Server, count: int) -> bool:
    return len(samples(server)) > count


def test_samples_go_without_a_time_until_the_sensor_gives_it_and_the_node_says_what_time_that_was(
    server: Server,
) -> None:
    fix: list[float] = []
    BEHAVIOUR["gps"] = lambda: {"temperature": 21.5, "time": time.time() if fix else None}
    text = CONFIG.format(url=server.url, clock='wait = 0\nsensor = "gps"')
    with Service(parse_config(text)):
        server.wait_for(lambda: len(samples(server)) >= 3)
        fix.append(1.0)
        server.wait_for(lambda: server.broker.payloads("n1/clock"))
        server.wait_for(lambda: samples(server)[-1]["time"] is not None)
    first = samples(server)[0]
    (clock,) = map(json.loads, server.broker.payloads("n1/clock"))
    assert (first["time"], first["boot"], clock["boot"]) == (None, boot_id(), boot_id())
    taken = clock["time"] - clock["uptime"] + first["uptime"]
    assert abs(time.time() - taken) < 30
    message = server.broker.retained.get("n1/clock")
    assert message is not None


def test_a_message_with_the_time_lets_them_go_and_one_without_is_told(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    text = CONFIG.format(url=server.url, clock='wait = "never"\ntopic = "site/time"')
    node = Service(parse_config(text))
    with node:
        server.wait_for(lambda: any(one.subscriptions for one in server.broker.sessions.values()))
        node.client.publish("site/time", "soon\x1b[2J", qos=1).wait(10)
        node.client.publish("site/time", "1970-01-01T00:00:00Z", qos=1).wait(10)
        assert not samples(server)
        node.client.publish("site/time", f"{time.time():.3f}", qos=1).wait(10)
        server.wait_for(lambda: samples(server))
    assert abs(samples(server)[0]["time"] - time.time()) < 30
    assert not server.broker.payloads("n1/clock")  # none went without
    lines = [line for line in caplog.messages if "topic site/time: expected" in line]
    assert lines
    assert "\x1b" not in "".join(lines)


def test_a_boards_rtc_counts_only_for_who_trusts_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "RTC", ("the board's RTC", lambda: True))
    for clock in ("wait = 0", "wait = 0\nrtc = true"):
        with Service(parse_config(CONFIG.format(url=server.url, clock=clock))):
            count = len(samples(server))
            server.wait_for(partial(more_than, server, count))
    times = [sample["time"] for sample in samples(server)]
    assert times[0] is None
    assert abs(times[-1] - time.time()) < 30


def test_a_node_connects_at_once_when_the_time_is_known(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    monkeypatch.setattr(Client, "reconnect_now", lambda self, **_: asked.set())
    BEHAVIOUR["gps"] = lambda: {"temperature": 21.5, "time": time.time()}
    text = CONFIG.format(url=server.url, clock='wait = "never"\nsensor = "gps"')
    with Service(parse_config(text)):
        assert asked.wait(10)


def test_a_retained_message_is_no_time_and_the_log_says_why(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    text = CONFIG.format(url=server.url, clock='wait = "never"\ntopic = "site/time"')
    with Client(server.url) as somebody:
        somebody.publish("site/time", f"{time.time():.3f}", qos=1, retain=True).wait(10)
        told = threading.Event()

        def look(record: logging.LogRecord) -> bool:
            if "retained" in record.getMessage():
                told.set()
            return True

        caplog.handler.addFilter(look)
        with Service(parse_config(text)):
            assert told.wait(10)
            assert not samples(server)
    assert "publish it without retain" in caplog.text


@pytest.mark.parametrize(
    ("clock", "words"),
    [
        ('sensor = "gsp"', "clock.sensor: no sensor is called \"gsp\"; did you mean 'gps'"),
        ('topic = "site/#"', "clock.topic: expected a topic name"),
        ('wait = "nver"', 'clock.wait: expected seconds or "10m", at most "31d"; or "never", found "nver"'),
        ("wait = -1", "clock.wait: expected seconds"),
        ("max_samples = 0", "clock.max_samples: expected a whole number"),
        ('announce = "n1/gps"', "expected another one than"),
        ("ntp = true", "clock.ntp: there is no such key"),
    ],
)
def test_a_mistake_in_the_table_is_told_with_what_to_write(clock: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(CONFIG.format(url="mqtt://127.0.0.1", clock=clock))
    assert words in str(caught.value)
