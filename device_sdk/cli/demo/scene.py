"""The run of the demo: the outage, the loop that plays the plan, the books."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_sdk.cli.common import Ticker
from device_sdk.cli.demo.plan import DRAIN_S, Plan
from device_sdk.cli.demo.view import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.cli.demo.node import Node
    from device_sdk.cli.demo.subscriber import SubscriberProcess
    from device_sdk.cli.demo.view import View
    from device_sdk.cli.stop_signals import StopSignals
    from device_sdk.testing.broker_process import ChildBroker
    from device_sdk.testing.fault_proxy import FaultProxy

__all__ = ["Network", "Report", "Scene"]

_INTERRUPTED_DRAIN_S = 20.0
_DRAIN_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Report:
    """The books. ``lost``: published sequence numbers that the subscriber process never received.

    ``duplicates``: repeated arrivals of a number, which QoS 1 allows. ``longest_outage_s``: the longest time
    that the node was without a connection. ``peak_queue``: the largest number of waiting samples.
    """

    published: int
    delivered: int
    lost: int
    duplicates: int
    longest_outage_s: float
    peak_queue: int


class Network:
    """The part that fails: the network at the proxy, or with ``broker`` the broker itself."""

    def __init__(self, plan: Plan, proxy: FaultProxy, broker: ChildBroker | None, view: View) -> None:
        self.up = True
        self._plan = plan
        self._proxy = proxy
        self._broker = broker
        self._view = view
        self._gone_at: float | None = None

    def follow(self, now: float) -> None:
        """Follow the plan up to this moment."""
        if self._gone_at is None:
            if now >= self._plan.outage_begin and self._plan.outage:
                self._gone_at = now
                self._cut()
        elif now >= self._gone_at + self._plan.outage:
            self.restore()

    def restore(self) -> None:
        """Bring the network, or the broker, back if it is away."""
        if self.up:
            return
        if self._broker is not None:
            self._broker.start()
        else:
            self._proxy.restore()
        self.up = True
        self._view.note(f"the {self._what} is back")

    def _cut(self) -> None:
        self.up = False
        self._view.note(f"the {self._what} goes away for {self._plan.outage:.1f} s; sampling goes on")
        if self._broker is not None:
            self._broker.terminate()
        else:
            self._proxy.cut()

    @property
    def _what(self) -> str:
        return "broker" if self._broker is not None else "network"


class Scene:
    """Plays the plan: samples on schedule, moves the network, refreshes the view, drains, counts."""

    def __init__(
        self,
        plan: Plan,
        node: Node,
        subscriber: SubscriberProcess,
        network: Network,
        view: View,
        signals: StopSignals,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plan = plan
        self._node = node
        self._subscriber = subscriber
        self._network = network
        self._view = view
        self._signals = signals
        self._clock = clock
        self._begin = clock()
        self._sampling = Ticker(plan.interval)
        self._showing = Ticker(view.interval)

    def play(self) -> None:
        """Sample until the plan's end or the first signal."""
        self._begin = self._clock()
        while not self._signals.count and (now := self._now()) < self._plan.seconds:
            self._network.follow(now)
            if self._sampling.due(now):
                self._node.sample()
            self._show_when_due("sampling")
            wake = min(self._sampling.next, self._showing.next, self._plan.seconds)
            self._signals.wait(wake - self._now())

    def drain(self) -> None:
        """Wait until everything arrived: 60 s at most, 20 s after a signal, not at all after a second one."""
        self._network.restore()
        if self._signals.count:
            self._view.note("stopping: waiting for samples on their way (signal again to skip)")
        deadline = self._now() + (_INTERRUPTED_DRAIN_S if self._signals.count else DRAIN_S)
        while self._on_its_way() and self._signals.count < 2 and self._now() < deadline:
            self._show_when_due("draining")
            self._signals.wait(_DRAIN_LOOK_S)
        self._view.show(self._snapshot("done"))

    def report(self) -> Report:
        """Close the books."""
        published, seen = self._node.published, self._subscriber.seen
        delivered = sum(number in seen for number in range(published))
        return Report(
            published=published,
            delivered=delivered,
            lost=published - delivered,
            duplicates=self._subscriber.duplicates,
            longest_outage_s=round(self._node.longest_outage, 2),
            peak_queue=self._node.peak_queue,
        )

    def _on_its_way(self) -> bool:
        if self._subscriber.state == "ended":
            return False
        accepted = self._node.published - self._node.rejected
        return self._subscriber.received < accepted or self._node.queue > 0

    def _now(self) -> float:
        return self._clock() - self._begin

    def _show_when_due(self, phase: str) -> None:
        if self._showing.due(self._now()):
            self._view.show(self._snapshot(phase))

    def _snapshot(self, phase: str) -> Snapshot:
        node, subscriber = self._node, self._subscriber
        return Snapshot(
            elapsed=self._now(),
            seconds=self._plan.seconds,
            phase=phase,
            network_up=self._network.up,
            node_state=node.state,
            subscriber_state=subscriber.state,
            published=node.published,
            acknowledged=node.acknowledged,
            queue=node.queue,
            queue_expected=self._plan.queue_expected,
            peak_queue=node.peak_queue,
            received=subscriber.received,
            duplicates=subscriber.duplicates,
            sample=node.last_sample,
        )
