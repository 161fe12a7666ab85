"""Samples go on in order, and with their time if anything can give it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from device_sdk._clock import EARLIEST
from device_sdk.drivers import Reading
from device_sdk.errors import DeviceSdkError, QueueFullError
from device_sdk.node.clock.gate import Gate, Hooks
from device_sdk.node.clock.waiting_room import WaitingRoom
from device_sdk.node.clock.wall_clock import WallClock
from device_sdk.node.sample import Sample
from device_sdk.store.memory import MemoryStore
from device_sdk.store.sqlite import SqliteStore

BOOT = "this-boot"
NOW = EARLIEST + 5_000.0


class Node:
    """A machine, a queue and the gate between; :meth:`run` is one step of the gate's thread."""

    def __init__(self, wait: float = 600.0, path: Path | None = None, max_samples: int = 100) -> None:
        self.uptime = 10.0
        self.wall = 10.0
        self.ntp = False
        self.published: list[tuple[int, dict[str, Any]]] = []
        self.full = False
        self.refuse: DeviceSdkError | None = None
        self.state = "stored"
        self.deliveries: list[SimpleNamespace] = []
        self.lost: list[int] = []
        self.times: list[bool] = []
        self.wait = wait
        self.path = path
        self.max_samples = max_samples
        self.begin()

    def begin(self) -> None:
        clock = WallClock((("NTP", lambda: self.ntp),), uptime=lambda: self.uptime, wall=lambda: self.wall)
        self.room = WaitingRoom(self.store, self.max_samples, 1 << 20)
        hooks = Hooks(
            self.publish,
            lambda sample, error: self.lost.append(sample.seq),
            self.times.append,
            is_durable=self.path is not None,
        )
        self.gate = Gate(clock, self.room, hooks, self.wait, uptime=lambda: self.uptime, boot=BOOT)

    def store(self, wanted: bool) -> Any:
        return MemoryStore() if self.path is None else SqliteStore(self.path)

    def publish(self, sample: Sample, payload: bytes) -> Any:
        if self.full:
            raise QueueFullError("the queue is full")
        if self.refuse is not None:
            raise self.refuse
        self.published.append((sample.seq, json.loads(payload)))
        self.deliveries.append(SimpleNamespace(state=self.state))
        return self.deliveries[-1]

    def synchronise(self, at: float = NOW) -> None:
        self.wall, self.ntp = at, True

    def put(self, seq: int, *, boot: str = BOOT, qos: int = 1) -> None:
        self.gate.put(Sample("n1/s", qos, False, seq, boot, self.uptime, (Reading("c", seq, "1", 0.0),)))

    @property
    def seen(self) -> list[tuple[int, float | None]]:
        return [(seq, payload["time"]) for seq, payload in self.published]


def started(node: Node) -> Node:
    """Return the node with a gate whose steps the test takes."""
    node.gate.begin()
    node.room.open()
    return node


class TestSteps:
    def test_with_a_clock_that_is_right_samples_go_at_once_and_there_is_no_thread(self) -> None:
        node = Node()
        node.synchronise()
        node.gate.start()
        node.put(0)
        assert node.seen == [(0, NOW)]
        assert node.gate._thread is None

    def test_samples_wait_for_the_time_and_get_that_at_which_they_were_taken(self) -> None:
        node = started(Node())
        node.put(0)
        node.uptime = 25.5
        node.put(1)
        assert node.gate.step() == 1.0
        assert node.seen == []
        node.uptime = 40.0
        node.synchronise()
        assert node.gate.step() is None
        assert node.seen == [(0, NOW - 30.0), (1, NOW - 14.5)]
        node.put(2)
        assert node.seen[2:] == [(2, NOW)]

    def test_a_sample_that_comes_between_waits_behind_those_that_wait(self) -> None:
        node = started(Node())
        node.put(0)
        node.synchronise()
        node.put(1)
        node.gate.step()
        assert [seq for seq, _ in node.seen] == [0, 1]

    def test_after_the_patience_samples_go_without_a_time_and_the_clock_is_looked_at_now_and_then(
        self,
    ) -> None:
        node = started(Node(wait=30.0))
        node.put(0)
        node.uptime = 39.9
        assert node.gate.step() == 1.0
        node.uptime = 40.0
        assert node.gate.step() == 10.0
        node.put(1)
        shown = [(one["seq"], one["time"], one["boot"], one["uptime"]) for _, one in node.published]
        assert shown == [(0, None, BOOT, 10.0), (1, None, BOOT, 40.0)]
        node.synchronise()
        assert node.gate.step() is None
        node.put(2)
        assert node.seen[-1] == (2, NOW)

    def test_the_end_of_the_patience_is_told_once(self, caplog: pytest.LogCaptureFixture) -> None:
        node = started(Node(wait=30.0))
        for _ in range(3):
            node.uptime += 20.0
            node.gate.step()
        told = [line for line in caplog.messages if "go without a time" in line]
        assert told == ["30 s have passed: samples go without a time until it is known"]

    def test_without_patience_nothing_waits(self) -> None:
        node = started(Node(wait=0.0))
        node.put(0)
        assert node.seen == [(0, None)]

    def test_never_is_never(self) -> None:
        node = started(Node(wait=math.inf))
        node.put(0)
        node.uptime = 1e9
        assert node.gate.step() == 1.0
        assert node.seen == []

    def test_a_full_room_lets_the_oldest_go_without_a_time(self) -> None:
        node = started(Node(max_samples=3))
        for seq in range(5):
            node.put(seq)
        node.gate.step()
        assert node.seen == [(0, None), (1, None)]
        node.synchronise()
        node.gate.step()
        assert [seq for seq, _ in node.seen] == [0, 1, 2, 3, 4]
        assert None not in dict(node.seen[2:]).values()

    def test_a_full_queue_keeps_them_in_the_room(self) -> None:
        node = started(Node())
        node.put(0)
        node.synchronise()
        node.full = True
        assert node.gate.step() == 1.0
        assert (node.seen, node.lost) == ([], [])
        node.full = False
        assert node.gate.step() is None
        assert node.seen == [(0, NOW)]

    def test_what_the_queue_refuses_for_good_is_told_and_stops_nothing(self) -> None:
        node = started(Node())
        node.put(0)
        node.synchronise()
        node.refuse = DeviceSdkError("too large")
        node.gate.step()
        assert node.lost == [0]
        with pytest.raises(DeviceSdkError):
            node.put(1)  # an open gate leaves it to its caller

    def test_an_offered_time_lets_them_go(self) -> None:
        node = started(Node())
        node.put(0)
        node.uptime = 20.0
        assert not node.gate.offer(12.0, 20.0, "sensor gps")
        assert node.gate.offer(NOW, 20.0, "sensor gps")
        node.gate.step()
        assert node.seen == [(0, NOW - 10.0)]

    def test_a_sample_of_an_earlier_start_goes_first_and_has_no_time(self, tmp_path: Path) -> None:
        node = started(Node(path=tmp_path / "q.samples"))
        node.put(7, boot="the-boot-before")
        node.put(8)
        node.gate._take_in()
        node.room.close()
        again = started(Node(path=tmp_path / "q.samples"))
        again.put(0)
        again.gate.step()
        assert again.seen == [(7, None)]
        again.synchronise()
        again.gate.step()
        assert [seq for seq, _ in again.seen] == [7, 8, 0]
        again.room.close()

    def test_a_sample_stays_in_its_file_until_the_queue_has_it(self, tmp_path: Path) -> None:
        node = started(Node(path=tmp_path / "q.samples"))
        node.state = "queued"
        node.put(0)
        node.put(1, qos=0)  # nobody stores it
        node.synchronise()
        assert node.gate.step() == 1.0
        node.room.close()
        again = started(Node(path=tmp_path / "q.samples"))
        again.synchronise()
        again.state = "queued"
        assert again.gate.step() == 1.0
        assert [seq for seq, _ in again.seen] == [0]
        again.deliveries[0].state = "stored"
        assert again.gate.step() is None
        again.room.close()

    def test_a_value_that_cannot_be_encoded_is_the_callers_error(self) -> None:
        node = started(Node())
        bad = Sample("n1/s", 1, False, 0, BOOT, 1.0, (Reading("c", math.nan, "1", 0.0),))
        with pytest.raises(ValueError, match="JSON"):
            node.gate.put(bad)
        node.put(1)
        node.synchronise()
        node.gate.step()
        assert [seq for seq, _ in node.seen] == [1]


# With the thread


def until_the_end(node: Node) -> None:
    """Let the gate's thread look, and wait until it has nothing more to do."""
    thread = node.gate._thread
    assert thread is not None
    node.gate._wake.set()
    thread.join(10)
    assert not thread.is_alive()


def test_the_thread_tells_once_that_the_time_is_known_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    node = Node(wait=0.0)
    node.gate.start()
    node.put(0)
    node.synchronise()
    until_the_end(node)
    assert node.times == [True]
    assert "the time is known now, from NTP; 1 samples went without it" in caplog.text
    assert "samples have no time until it is" in caplog.text


def test_a_stop_leaves_in_the_file_what_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = Node(path=tmp_path / "q.samples")
    node.gate.start()
    node.put(0)
    node.gate.stop()
    assert node.seen == []
    assert "1 samples wait in their file" in caplog.text
    again = Node(path=tmp_path / "q.samples")
    again.synchronise()
    again.gate.start()
    until_the_end(again)
    assert again.seen == [(0, NOW)]


def test_a_stop_without_a_file_lets_them_go_without_a_time() -> None:
    node = Node()
    node.gate.start()
    node.put(0)
    node.gate.stop()
    assert node.seen == [(0, None)]


def test_a_stop_without_a_file_at_a_full_queue_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node.full = True
    node.gate.start()
    node.put(0)
    node.gate.stop()
    assert "1 samples are lost: the queue is full" in caplog.text
