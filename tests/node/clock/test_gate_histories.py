"""Any history of samples, clocks, full queues and kills: nothing lost, in order, never a wrong time."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from device_sdk._clock import EARLIEST
from device_sdk.drivers import Reading
from device_sdk.errors import QueueFullError
from device_sdk.node.clock.gate import Gate, Hooks
from device_sdk.node.clock.waiting_room import WaitingRoom
from device_sdk.node.clock.wall_clock import WallClock
from device_sdk.node.sample import Sample
from device_sdk.store.sqlite import SqliteStore

TRUE_START = EARLIEST + 10_000.0  # when the first start of the machine was, in truth
STEPS = [
    "put",
    "put",
    "put",
    "step",
    "step",
    "wait",
    "full",
    "room",
    "synchronise",
    "offer",
    "kill",
    "reboot",
]


class World:
    """A machine that may be started again, a node that may be killed, and a queue that never forgets."""

    def __init__(self, path: Path, max_samples: int) -> None:
        self.path = path
        self.max_samples = max_samples
        self.boots = 0
        self.boot_at = TRUE_START
        self.uptime = 5.0
        self.ntp = False
        self.full = False
        self.numbers = itertools.count()
        self.taken: dict[int, float] = {}  # number -> when, in truth
        self.published: list[tuple[int, float | None]] = []
        self.queued: list[SimpleNamespace] = []
        self.gate = self.begin()

    @property
    def now(self) -> float:
        return self.boot_at + self.uptime

    def begin(self) -> Gate:
        clock = WallClock(
            (("NTP", lambda: self.ntp),),
            uptime=lambda: self.uptime,
            wall=lambda: self.now if self.ntp else self.uptime,
        )
        self.room = WaitingRoom(lambda _: SqliteStore(self.path), self.max_samples, 1 << 20)
        hooks = Hooks(self.publish, self.never, lambda _: None, is_durable=True)
        gate = Gate(clock, self.room, hooks, 600.0, uptime=lambda: self.uptime, boot=f"boot {self.boots}")
        gate.begin()
        self.room.open()
        return gate

    def never(self, sample: Sample, error: Exception) -> None:
        raise AssertionError(f"{sample.seq} is lost: {error}")

    def publish(self, sample: Sample, payload: bytes) -> Any:
        if self.full:
            raise QueueFullError("the queue is full")
        utc = self.gate._clock.utc(sample.uptime) if b'"time":null' not in payload else None
        self.published.append((sample.seq, utc))
        self.queued.append(SimpleNamespace(state="queued"))
        return self.queued[-1]

    def do(self, step: str) -> None:
        getattr(self, f"_{step}")()

    def _put(self) -> None:
        number = next(self.numbers)
        sample = Sample(
            "t", 1, False, number, f"boot {self.boots}", self.uptime, (Reading("c", 1, "1", 0.0),)
        )
        try:
            self.gate.put(sample)
        except QueueFullError:
            return
        self.taken[number] = self.now

    def _step(self) -> None:
        self.uptime += 1.0
        self.gate.step()
        for delivery in self.queued:
            delivery.state = "stored"

    def _wait(self) -> None:
        self.uptime += 250.0

    def _full(self) -> None:
        self.full = True

    def _room(self) -> None:
        self.full = False

    def _synchronise(self) -> None:
        self.ntp = True

    def _offer(self) -> None:
        self.gate.offer(self.now, self.uptime, "a message")

    def _kill(self) -> None:
        self.gate._take_in()  # the thread does so at once
        self.room.close()
        self.gate = self.begin()

    def _reboot(self) -> None:
        self.gate._take_in()
        self.room.close()
        self.boots += 1
        self.boot_at = self.now + 100.0
        self.uptime, self.ntp = 5.0, False
        self.gate = self.begin()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=40), st.integers(1, 6))
def test_any_history(steps: list[str], max_samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "q.samples", max_samples)
        for step in steps:
            world.do(step)
        world.do("room")
        world.do("synchronise")
        for _ in range(3):
            world.do("step")
        world.room.close()
    numbers = [number for number, _ in world.published]
    first = list(dict.fromkeys(numbers))
    assert first == sorted(world.taken)  # nothing lost, and in order
    if not {"kill", "reboot"} & set(steps):
        assert numbers == first  # a kill may repeat some, and nothing else does
    for number, utc in world.published:
        assert utc is None or abs(utc - world.taken[number]) < 1e-3
