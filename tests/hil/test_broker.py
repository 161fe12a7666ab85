"""The listener at the broker: what it keeps, and what it says about gaps."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from device_sdk import Client
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk_hil.broker import Broker, Sequence
from device_sdk_hil.timeline import Timeline

PATIENCE_S = 20.0


@pytest.fixture
def server() -> Iterator[BrokerServer[ModelBroker]]:
    with BrokerServer(ModelBroker()) as server:
        yield server


@pytest.fixture
def broker(server: BrokerServer[ModelBroker], events: Timeline) -> Iterator[Broker]:
    broker = Broker(server.url, events)
    broker.start()
    yield broker
    broker.stop()


def publish(broker: Broker, *numbers: int) -> None:
    with Client(broker.url) as client:
        for number in numbers:
            client.publish("n/s", json.dumps({"seq": number}), qos=1).wait(PATIENCE_S)
    broker.settle()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([], Sequence(0, [], [], True)),
        ([0, 1, 2], Sequence(3, [], [], True)),
        ([1, 3], Sequence(2, [0, 2], [], True)),
        ([0, 1, 0, 1, 2], Sequence(3, [], [0, 1], True)),
        ([1, 0], Sequence(2, [], [], False)),
    ],
)
def test_the_numbers_of_the_samples_tell_what_is_lost_or_came_twice(
    broker: Broker, numbers: list[int], expected: Sequence
) -> None:
    publish(broker, *numbers)
    assert broker.sequence("n/s") == expected


def test_a_duplicate_is_flagged_and_stands_so_on_the_timeline(broker: Broker, events: Timeline) -> None:
    publish(broker, 0, 0, 1)
    assert [arrival.duplicate for arrival in broker.arrivals("n/s")] == [False, True, False]
    assert events.path.read_text().count('"duplicate": true') == 1


def test_what_is_no_sample_is_kept_as_it_is(broker: Broker) -> None:
    with Client(broker.url) as client:
        for payload in (b"online", b"\xff", b"[1]"):
            client.publish("n/status", payload, qos=1, retain=True).wait(PATIENCE_S)
    broker.settle()
    assert [arrival.payload for arrival in broker.arrivals("n/status")] == [b"online", b"\xff", b"[1]"]
    assert broker.samples("n/status") == []
    assert broker.last("n/status") == b"[1]"
    assert broker.last("n/other") is None


def test_waiting_counts_only_what_comes_from_now_on(broker: Broker) -> None:
    publish(broker, 0, 1)
    with pytest.raises(TimeoutError, match="2 samples on n/s"):
        broker.wait_for_samples("n/s", 2, timeout=0.01)
