"""The retained online and offline, against a client that only writes down."""

from __future__ import annotations

from typing import Any, cast

import pytest

from device_sdk import Client
from device_sdk.errors import QueueFullError
from device_sdk.node.availability import Availability


class Recorder:
    """Stands in for a client: writes down what is published, or is full."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.full = False

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> tuple[str, bytes]:
        assert (qos, retain) == (1, True)
        if self.full:
            raise QueueFullError("full")
        self.published.append((topic, payload))
        return self.published[-1]

    def take(self) -> list[tuple[str, bytes]]:
        taken, self.published = self.published, []
        return taken


@pytest.fixture
def client() -> Recorder:
    return Recorder()


@pytest.fixture
def availability(client: Recorder) -> Availability:
    return Availability(cast(Client, client), ["n/a/status", "n/b/status"])


def test_without_a_connection_nothing_is_published_and_then_all_that_is_true(
    client: Recorder, availability: Availability
) -> None:
    availability.set("n/a/status", True)
    availability.set("n/a/status", False)
    availability.set("n/b/status", True)
    assert client.take() == []
    everything = [("n/a/status", b"offline"), ("n/b/status", b"online")]
    availability.connected()
    assert client.take() == everything
    availability.disconnected()
    availability.set("n/a/status", True)
    availability.set("n/a/status", False)
    assert client.take() == []
    availability.connected()
    assert client.take() == everything, "a new broker may know nothing"


def test_with_a_connection_each_change_is_published_once(
    client: Recorder, availability: Availability
) -> None:
    availability.connected()
    client.take()
    for online in (True, True, False, False):
        availability.set("n/a/status", online)
    assert client.take() == [("n/a/status", b"online"), ("n/a/status", b"offline")]


def test_what_a_full_queue_does_not_take_is_published_later_as_it_is_then(
    client: Recorder, availability: Availability
) -> None:
    client.full = True
    availability.connected()
    availability.pay()
    availability.set("n/a/status", True)
    client.full = False
    availability.pay()
    assert client.take() == [("n/a/status", b"online"), ("n/b/status", b"offline")]
    availability.pay()
    assert client.take() == []


def test_the_end_is_offline_for_all_and_stays_so(client: Recorder, availability: Availability) -> None:
    availability.set("n/a/status", True)
    last: Any = availability.end()
    everything = [("n/a/status", b"offline"), ("n/b/status", b"offline")]
    assert client.take() == everything
    assert last == everything[-1]
    availability.connected()  # only now, while it drains
    assert client.take() == everything


def test_an_end_without_room_is_tried_again(client: Recorder, availability: Availability) -> None:
    availability.connected()
    client.take()
    client.full = True
    assert availability.end() is None
    availability.set("n/a/status", True)
    client.full = False
    last: Any = availability.end()
    assert last == ("n/b/status", b"offline")
    assert client.take() == [("n/a/status", b"offline"), last]
    assert availability.end() == last, "not published again"
    assert client.take() == []
