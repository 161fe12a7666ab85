"""CPU time per message of this client, paho-mqtt and libmosquitto, measured in turns; see README.md.

``python benchmarks/cpu_per_message.py [--quick] [--only CELL ...] [--json]``. Exit code 1: at least one cell
is above its "must" by more than noise. 2: something needed is missing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from benchmarks.harness import Sink, summary, verdict
from benchmarks.peers import PAYLOAD, TOPIC

if TYPE_CHECKING:
    from typing import Any


class Cell(NamedTuple):
    """One kind of traffic, and how much of paho's CPU it may cost."""

    name: str
    title: str
    direction: str
    qos: int
    inflight: int
    must: float
    aim: float

    @property
    def counter(self) -> int:
        """The word in which the sink counts what this cell is to complete."""
        if self.direction == "publish":
            return harness.RELEASED if self.qos == 2 else harness.PUBLISHED
        return harness.ACKNOWLEDGED if self.qos else harness.SENT


CELLS = (
    Cell("pub-q0", "publish QoS 0", "publish", 0, 20, 0.10, 0.05),
    Cell("pub-q1", "publish QoS 1, 20 in flight", "publish", 1, 20, 0.25, 0.12),
    Cell("pub-q1-1000", "publish QoS 1, 1,000 in flight", "publish", 1, 1000, 0.08, 0.04),
    Cell("pub-q2", "publish QoS 2, 20 in flight", "publish", 2, 20, 0.30, 0.15),
    Cell("recv-q0", "receive QoS 0", "receive", 0, 1000, 0.25, 0.10),
    Cell("recv-q1", "receive QoS 1", "receive", 1, 1000, 0.15, 0.06),
    Cell("recv-q2", "receive QoS 2", "receive", 2, 1000, 0.20, 0.10),
)
OURS, PAHO, C = "device_sdk", "paho", "cmosq"
FIRST_COUNT = 2_000


class Run(NamedTuple):
    """What one child process measured."""

    cpu_us: float  # per message
    rate: float  # messages per second


class Bench:
    """Runs children against one sink."""

    def __init__(self, sink: Sink, peers: list[str], seconds: float) -> None:
        self._sink = sink
        self._peers = peers
        self._seconds = seconds

    def measure(self, cell: Cell, repetitions: int) -> dict[str, list[Run]]:
        """Return the runs of each peer; the peers take turns, so that they share every disturbance."""
        counts = {peer: self._fitting_count(peer, cell) for peer in self._peers}
        runs: dict[str, list[Run]] = {peer: [] for peer in self._peers}
        for _ in range(repetitions):
            for peer, count in counts.items():
                runs[peer].append(self._run(peer, cell, count))
        return runs

    def _fitting_count(self, peer: str, cell: Cell) -> int:
        """How many messages take about the time of one run; two rehearsals tell."""
        count = FIRST_COUNT
        for _ in range(2):
            count = max(FIRST_COUNT, int(self._run(peer, cell, count).rate * self._seconds))
        return count

    def _run(self, peer: str, cell: Cell, count: int) -> Run:
        sink = self._sink
        ordered = count if cell.direction == "receive" else 0
        sink.order(TOPIC, count=ordered, size=len(PAYLOAD), qos=cell.qos, window=cell.inflight)
        result = harness.run_child(self._command(peer, cell, count))
        arrived = sink.wait_for(cell.counter, count)
        if arrived != count:
            raise RuntimeError(f"{peer}, {cell.title}: the sink counted {arrived} instead of {count}")
        return Run(result["cpu"] / count * 1e6, count / result["wall"])

    def _command(self, peer: str, cell: Cell, count: int) -> list[str]:
        if peer == C:
            numbers = (cell.qos, cell.inflight, count, len(PAYLOAD))
            program = harness.compile_c("cmosq.c", "mosquitto")
            return [program, str(self._sink.port), cell.direction, *map(str, numbers), TOPIC]
        job = self._job(cell, count)
        return [sys.executable, str(harness.HERE / "peers.py"), peer, json.dumps(job)]

    def _job(self, cell: Cell, count: int) -> dict[str, Any]:
        return {
            "port": self._sink.port,
            "shared": self._sink.path,
            "counter": cell.counter,
            "direction": cell.direction,
            "qos": cell.qos,
            "inflight": cell.inflight,
            "count": count,
        }


def ratios(runs: dict[str, list[Run]], to: str) -> list[float]:
    """Our CPU per message in units of another peer's, one per repetition."""
    return [ours.cpu_us / other.cpu_us for ours, other in zip(runs[OURS], runs[to], strict=True)]


def judge(cell: Cell, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """The figures of one cell, by name."""
    to_paho = statistics.median(ratios(runs, PAHO))
    return {
        "cell": cell.name,
        "ratio": to_paho,
        "must": cell.must,
        "aim": cell.aim,
        "verdict": verdict(to_paho, cell.must, cell.aim),
        "ratio_to_c": statistics.median(ratios(runs, C)) if C in runs else None,
        "cpu_us": {peer: [run.cpu_us for run in these] for peer, these in runs.items()},
        "messages_per_s": {peer: [run.rate for run in these] for peer, these in runs.items()},
    }


def print_cpu_row(cell: Cell, result: dict[str, Any]) -> None:
    """One line of the first table."""
    cpu = {peer: summary(values) for peer, values in result["cpu_us"].items()}
    to_c = "-" if result["ratio_to_c"] is None else f"{result['ratio_to_c']:.2f}"
    figures = f"{cpu[OURS]} | {cpu[PAHO]} | {cpu.get(C, '-')} | {result['ratio']:.3f}"
    print(
        f"| {cell.title} | {figures} | {cell.must:.2f} | {cell.aim:.2f} | {result['verdict']} | {to_c} |",
        flush=True,
    )


def print_rates(results: list[dict[str, Any]], peers: list[str]) -> None:
    """The second table: thousand messages per second."""
    print(f"\n| thousand messages per second | {' | '.join(peers)} |\n|---{'|---' * len(peers)}|")
    titles = {cell.name: cell.title for cell in CELLS}
    for result in results:
        rates = result["messages_per_s"]
        figures = " | ".join(summary([rate / 1000 for rate in rates[peer]]) for peer in peers)
        print(f"| {titles[result['cell']]} | {figures} |")


def available_peers() -> list[str]:
    """The peers that can run here. Raises: SystemExit(2): not enough of them."""
    try:
        import paho.mqtt
    except ImportError:
        print("paho-mqtt is missing: pip install -e '.[bench]'", file=sys.stderr)
        raise SystemExit(2) from None
    if paho.mqtt.__version__ != "2.2.0":
        print(f"the budgets are for paho-mqtt 2.2.0, not {paho.mqtt.__version__}", file=sys.stderr)
        raise SystemExit(2)
    try:
        harness.compile_c("cmosq.c", "mosquitto")
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
    except subprocess.CalledProcessError:
        print("without the C reference; for it: apt install libmosquitto-dev", file=sys.stderr)
        return [OURS, PAHO]
    return [OURS, PAHO, C]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="CPU time per message against paho-mqtt and libmosquitto")
    parser.add_argument("--quick", action="store_true", help="3 repetitions of 0.15 s, not 5 of 0.4 s")
    parser.add_argument("--repetitions", type=int, help="runs of each client and cell")
    names = [cell.name for cell in CELLS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="CELL", help=f"of {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    arguments = parser.parse_args()
    if arguments.repetitions is not None and arguments.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    return arguments


def main() -> int:
    """Measure the chosen cells; return the exit code."""
    arguments = parse_arguments()
    peers = available_peers()
    repetitions = arguments.repetitions or (3 if arguments.quick else 5)
    cells = [cell for cell in CELLS if arguments.only is None or cell.name in arguments.only]
    machine = harness.describe_machine()
    if not arguments.json:
        print(f"{machine}; MQTT 3.1.1, {len(PAYLOAD)} bytes; {repetitions} runs in turns, median (min-max)\n")
        print(
            "| CPU us per message | device_sdk | paho 2.2.0 | libmosquitto | ratio to paho "
            "| must | aim | verdict | ratio to C |\n" + "|---" * 9 + "|"
        )
    results = []
    with Sink() as sink:
        bench = Bench(sink, peers, 0.15 if arguments.quick else 0.4)
        for cell in cells:
            result = judge(cell, bench.measure(cell, repetitions))
            results.append(result)
            if not arguments.json:
                print_cpu_row(cell, result)
    if arguments.json:
        print(json.dumps({"machine": machine, "repetitions": repetitions, "cells": results}))
    else:
        print_rates(results, peers)
    return int(any(result["verdict"] == "MISSED" for result in results))


if __name__ == "__main__":
    sys.exit(main())
