"""The demo's plan and loop with doubles for everything around them, in no time at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from device_sdk.cli.demo.plan import DRAIN_S, Plan, make_plan
from device_sdk.cli.demo.scene import Network, Scene
from device_sdk.cli.demo.view import Snapshot, View

if TYPE_CHECKING:
    from device_sdk.cli.demo.node import Node
    from device_sdk.cli.demo.subscriber import SubscriberProcess
    from device_sdk.cli.stop_signals import StopSignals
    from device_sdk.testing.broker_process import ChildBroker
    from device_sdk.testing.fault_proxy import FaultProxy


@pytest.mark.parametrize(
    ("seconds", "runs", "away"),
    [(30, 30, 8), (60, 60, 15), (5, 12.25, 8), (0.1, 12.25, 8), (3600, 3600, 900)],
)
def test_the_network_is_away_for_8_seconds_or_a_quarter_of_the_run_and_the_run_is_long_enough(
    seconds: float, runs: float, away: float
) -> None:
    plan = make_plan(seconds, outage=True)
    assert plan.seconds == runs
    assert plan.outage == pytest.approx(away + 0.25)
    assert plan.outage_begin == pytest.approx((runs - plan.outage) / 2)
    assert plan.outage_begin >= 2


@pytest.mark.parametrize("seconds", [30, 600, 86400])
def test_an_outage_of_any_length_holds_up_a_visible_but_bounded_queue(seconds: float) -> None:
    assert 50 <= make_plan(seconds, outage=True).queue_expected <= 500


def test_without_an_outage_the_run_is_as_long_as_asked() -> None:
    assert make_plan(3, outage=False) == Plan(3, 0.1, 3, 0)


class FakeWorld:
    """Node, subscriber, proxy, broker, view and signals in one, on a clock that only waiting moves.

    While the network is up, everything published arrives with the next wait; ``swallow`` never does.
    """

    def __init__(self, stop_at: tuple[float, ...] = (), swallow: frozenset[int] = frozenset()) -> None:
        self.now = 1000.0
        self.count = 0
        self.up = True
        self.published = self.rejected = self.peak_queue = self.arrived = 0
        self.longest_outage = 8.5
        self.last_sample = "load 0.5"
        self.state = "connected"
        self.seen: set[int] = set()
        self.calls: list[tuple[str, float]] = []
        self.notes: list[str] = []
        self.snapshots: list[Snapshot] = []
        self.interval = 1.0
        self._stop_at = list(stop_at)
        self._swallow = swallow

    @property
    def elapsed(self) -> float:
        return self.now - 1000.0

    # node and subscriber
    def sample(self) -> None:
        self.published += 1
        self.peak_queue = max(self.peak_queue, self.queue)

    @property
    def acknowledged(self) -> int:
        return self.published - self.queue

    @property
    def queue(self) -> int:
        return self.published - len(self.seen | self._swallow.intersection(range(self.published)))

    @property
    def received(self) -> int:
        return len(self.seen)

    @property
    def duplicates(self) -> int:
        return 0

    # proxy and broker
    def cut(self) -> None:
        self.calls.append(("cut", self.elapsed))
        self.up = False

    def restore(self) -> None:
        self.calls.append(("restore", self.elapsed))
        self.up = True

    def terminate(self) -> None:
        self.calls.append(("terminate", self.elapsed))
        self.up = False

    def start(self) -> None:
        self.calls.append(("start", self.elapsed))
        self.up = True

    # view
    def show(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def note(self, text: str) -> None:
        self.notes.append(text)

    # signals
    def wait(self, timeout: float) -> None:
        self.now += max(timeout, 0.001)
        while self._stop_at and self.elapsed >= self._stop_at[0]:
            self._stop_at.pop(0)
            self.count += 1
        if self.up:
            self.seen |= set(range(self.published)) - self._swallow


def scene_of(world: FakeWorld, plan: Plan, *, restart_broker: bool = False) -> Scene:
    broker = cast("ChildBroker", world) if restart_broker else None
    network = Network(plan, cast("FaultProxy", world), broker, cast("View", world))
    return Scene(
        plan,
        cast("Node", world),
        cast("SubscriberProcess", world),
        network,
        cast("View", world),
        cast("StopSignals", world),
        clock=lambda: world.now,
    )


def test_samples_go_on_through_the_outage_and_all_arrive() -> None:
    world = FakeWorld()
    plan = make_plan(30, outage=True)
    scene = scene_of(world, plan)
    scene.play()
    scene.drain()
    report = scene.report()
    assert report.published == 300
    assert (report.delivered, report.lost, report.duplicates) == (300, 0, 0)
    assert 80 <= report.peak_queue <= 85
    assert report.longest_outage_s == 8.5
    (_, cut_at), (_, restored_at) = world.calls
    assert cut_at == pytest.approx(plan.outage_begin, abs=0.11)
    assert restored_at - cut_at >= 8.25


def test_the_view_sees_the_queue_grow_and_drain() -> None:
    world = FakeWorld()
    scene = scene_of(world, make_plan(30, outage=True))
    scene.play()
    scene.drain()
    down = [s.queue for s in world.snapshots if not s.network_up]
    assert down == sorted(down)
    assert down[-1] > 60
    assert world.snapshots[-1].queue == 0
    assert world.snapshots[-1].phase == "done"
    assert 30 <= len(world.snapshots) <= 33
    assert len(world.notes) == 2


def test_with_restart_broker_the_broker_goes_instead_of_the_network() -> None:
    world = FakeWorld()
    scene = scene_of(world, make_plan(30, outage=True), restart_broker=True)
    scene.play()
    assert [name for name, _ in world.calls] == ["terminate", "start"]


def test_without_an_outage_nothing_is_cut() -> None:
    world = FakeWorld()
    scene = scene_of(world, make_plan(5, outage=False))
    scene.play()
    scene.drain()
    assert world.calls == []
    assert scene.report().published == 50


def test_a_signal_in_the_outage_ends_sampling_restores_the_network_and_drains() -> None:
    world = FakeWorld(stop_at=(14.0,))
    scene = scene_of(world, make_plan(30, outage=True))
    scene.play()
    assert [name for name, _ in world.calls] == ["cut"]
    scene.drain()
    assert [name for name, _ in world.calls] == ["cut", "restore"]
    report = scene.report()
    assert 135 <= report.published <= 142
    assert report.lost == 0


def test_a_sample_that_never_arrives_is_lost_after_a_bounded_drain() -> None:
    world = FakeWorld(swallow=frozenset({7, 8}))
    scene = scene_of(world, make_plan(2, outage=False))
    scene.play()
    scene.drain()
    assert scene.report().lost == 2
    assert DRAIN_S <= world.elapsed - 2 <= DRAIN_S + 1


def test_a_second_signal_ends_the_drain() -> None:
    world = FakeWorld(stop_at=(1.0, 3.0), swallow=frozenset({0}))
    scene = scene_of(world, make_plan(30, outage=False))
    scene.play()
    scene.drain()
    assert 3 <= world.elapsed < 3.5
    assert scene.report().lost == 1


def test_a_subscriber_that_died_ends_the_drain() -> None:
    world = FakeWorld(swallow=frozenset({0}))
    scene = scene_of(world, make_plan(1, outage=False))
    scene.play()
    world.state = "ended"
    scene.drain()
    assert world.elapsed < 2
    assert scene.report().lost == 1
