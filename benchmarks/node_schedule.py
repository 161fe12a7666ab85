"""How exactly a node keeps its schedule by the real clock, beside a bus that hangs; see README.md.

``python benchmarks/node_schedule.py [--seconds N] [--json]``. Exit code 1: at least one figure is above its
"must" by more than noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import describe_machine, verdict
from device_sdk.drivers import Channel, Driver, Reading
from device_sdk.node.schedule import Schedule, phase_offset
from device_sdk.node.sensor import READ_TIMEOUT_S, Sensor
from device_sdk.node.watch import Watch
from device_sdk.node.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

HANG_AFTER_S = 1.0
FAILED_AFTER_S = 8.0
OPENING_S = 1.0  # all sensors of a bus are opened and read at the start, one after another


class Probe(Driver):
    """Notes when it is read, and takes so long for that."""

    def __init__(self, takes: Callable[[], object]) -> None:
        self.times: list[float] = []
        self._takes = takes

    def channels(self) -> tuple[Channel, ...]:
        """Return the one channel."""
        return (Channel("value", "1", "of the benchmark"),)

    def open(self) -> None:
        """Do nothing."""

    def read(self) -> tuple[Reading, ...]:
        """Note the time, and wait."""
        self.times.append(time.monotonic())
        self._takes()
        return (Reading("value", 1, "1", time.time()),)

    def close(self) -> None:
        """Do nothing."""


class Counted(Watch):
    """A watch whose wake-ups are counted."""

    wake_ups = 0

    def step(self) -> None:
        """Count one more."""
        self.wake_ups += 1
        super().step()


class Line(NamedTuple):
    """One row of the table: milliseconds, but for the counts."""

    title: str
    value: float
    unit: str
    must: float
    aim: float

    @property
    def row(self) -> str:
        """The row in Markdown."""
        word = verdict(self.value, self.must, self.aim)
        return f"| {self.title} | {self.value:.3f} | {self.unit} | {self.must:g} | {self.aim:g} | {word} |"


def measure(seconds: float) -> list[Line]:
    """Run four buses for so long: ten sensors at 10 Hz, a slow one beside a quick one, one that hangs."""
    watch, start = Counted(), time.monotonic()
    probes: dict[str, tuple[Probe, float, float]] = {}
    ended = threading.Event()

    def hang() -> None:
        if time.monotonic() - start > HANG_AFTER_S:
            ended.wait()

    def sensor(name: str, interval: float, takes: Callable[[], object], phase: float | None = None) -> Sensor:
        phase = phase_offset("benchmark", name, interval) if phase is None else phase
        probe = Probe(takes)
        probes[name] = (probe, start + phase, interval)
        schedule = Schedule(interval, start, phase)
        timeout = 0.5 if name == "hangs" else READ_TIMEOUT_S
        return Sensor(
            name, lambda: probe, schedule, on_readings=_nothing, on_online=_nothing, read_timeout=timeout
        )

    buses = {
        "i2c-1": [sensor(f"s{number}", 0.1, lambda: time.sleep(0.001), number / 100) for number in range(8)],
        "i2c-2": [sensor("quick", 1.0, _nothing, 0.2), sensor("slow", 5.0, lambda: time.sleep(0.3), 0.6)],
        "i2c-3": [sensor("hangs", 0.1, hang)],
    }
    workers = [Worker(name, sensors, watch=watch) for name, sensors in buses.items()]
    watch.start()
    for worker in workers:
        worker.start()
    time.sleep(FAILED_AFTER_S)
    before = watch.wake_ups
    time.sleep(seconds - FAILED_AFTER_S)
    wake_ups = (watch.wake_ups - before) / (seconds - FAILED_AFTER_S)
    for worker in workers:
        worker.stop()
    joined = [worker.join(5.0) for worker in workers[:2]]
    watch.stop()
    ended.set()
    assert all(joined), "a worker did not end"
    del probes["hangs"]
    return _lines(probes, workers, wake_ups)


def _lines(
    probes: dict[str, tuple[Probe, float, float]], workers: list[Worker], wake_ups: float
) -> list[Line]:
    late = {
        name: [(at - origin) % interval * 1000 for at in probe.times if at > origin + OPENING_S]
        for name, (probe, origin, interval) in probes.items()
    }
    busy = sorted(error for name, errors in late.items() if name.startswith("s") for error in errors)
    third = {name: max(1, len(errors) // 3) for name, errors in late.items()}
    drift = max(
        abs(statistics.median(late[name][-count:]) - statistics.median(late[name][:count]))
        for name, count in third.items()
    )
    missed = sum(sensor.schedule.missed for worker in workers[:2] for sensor in worker.sensors)
    return [
        Line("error, 8 sensors at 10 Hz on one bus, mean", statistics.mean(busy), "ms", 1.0, 0.3),
        Line("error, the same, 99th percentile", busy[len(busy) * 99 // 100], "ms", 5.0, 1.0),
        Line("error, beside a slow neighbour, mean", statistics.mean(late["quick"]), "ms", 1.0, 0.3),
        Line("drift, last third against the first", drift, "ms", 0.3, 0.1),
        Line("missed ticks", float(missed), "count", 0.0, 0.0),
        Line("wake-ups of the watch, when the bus has failed", wake_ups, "per s", 0.1, 0.07),
    ]


def _nothing(*_: object) -> None:
    pass


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="schedule of a node beside a bus that hangs")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to run (default 30)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    if arguments.seconds < 20:
        parser.error("--seconds must be at least 20: the third hang of a bus comes after 8 s")
    lines = measure(arguments.seconds)
    if arguments.json:
        rows = [line._asdict() | {"verdict": verdict(line.value, line.must, line.aim)} for line in lines]
        print(json.dumps({"machine": describe_machine(), "lines": rows}))
    else:
        print(f"{describe_machine()}; {arguments.seconds:g} s\n")
        print("| | | unit | must | aim | verdict |\n" + "|---" * 6 + "|")
        print("\n".join(line.row for line in lines))
    return int(any(verdict(line.value, line.must, line.aim) == "MISSED" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
