"""The package beside itself at a commit, in turns: Client, AsyncClient and the drop-in.

``python benchmarks/against_commit.py COMMIT [--count calls|instructions|cpu] [--only CELL ...] [--json]``

``calls``: Python calls per message, those of the standard library included. ``instructions``: those of the
processor, counted by ``perf stat`` or, where that cannot, by valgrind. For both the threads take turns in
virtual time, with a small broker in the same process, so the figures repeat and no machine is too busy for
them; the instructions of that broker and of taking turns are in them, alike for both packages.
``cpu``: microseconds per message, with real threads and the C sink at the other end; medians.

Exit code 1: at least one cell is above 1.05. 2: something needed is missing.
"""

from __future__ import annotations

import _thread
import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from benchmarks.asyncio_clients import AsyncClientPeer
from benchmarks.count_calls import count_calls
from benchmarks.cpu_per_message import CELLS, Cell
from benchmarks.harness import ROOT, Sink
from benchmarks.peers import PAYLOAD, TOPIC, DeviceSdkPeer, PahoPeer, SinkCounter, cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST = 1.05
_COUNTS = ("calls", "instructions", "cpu")
_CHILD_SECONDS = 600.0
#: Messages of a short and of a long run: what the start of Python and of the client cost is in both.
_MESSAGES = {"calls": (1_000, 3_000), "instructions": (500, 2_500), "cpu": (2_000, 22_000)}
_REPETITIONS = {"calls": 1, "instructions": 1, "cpu": 5}
_SHELLS = ("client", "async", "drop-in")


class Package(NamedTuple):
    """One of the two peers."""

    name: str
    folder: str


class Task(NamedTuple):
    """One cell with one of the shells."""

    shell: str
    cell: Cell

    @property
    def name(self) -> str:
        """As the command line has it."""
        return f"{self.shell}/{self.cell.name}"


TASKS = [
    Task(shell, cell)
    for shell in _SHELLS
    for cell in CELLS
    if shell != "async" or cell.name in ("pub-q0", "pub-q1", "recv-q0", "recv-q1")
]


# One run, in a process of its own


class DropInPeer(PahoPeer):
    """The program of the paho-mqtt peer on the drop-in, whether paho-mqtt is installed or not."""

    def __init__(self, port: int, inflight: int) -> None:
        sys.modules["paho"] = ModuleType("paho")
        for name in ("", ".client", ".enums"):
            sys.modules[f"paho.mqtt{name}"] = import_module(f"device_sdk.paho{name}")
        vars(sys.modules["paho"])["mqtt"] = sys.modules["paho.mqtt"]
        super().__init__(port, inflight)


async def _run_async(job: dict[str, Any], begin: Callable[[], None], end: Callable[[], None]) -> None:
    peer = AsyncClientPeer(job["port"], job["inflight"], pulls=False)
    await peer.open()
    counter = SinkCounter(job["shared"], job["counter"])
    begin()
    async with asyncio.timeout(_CHILD_SECONDS):
        await (peer.publish if job["direction"] == "publish" else peer.receive)(job["count"], job["qos"])
        while not counter.reached(job["count"]):
            await asyncio.sleep(0.001)
    end()
    await peer.close()


def _run_threads(
    kind: type[DeviceSdkPeer] | type[PahoPeer],
    job: dict[str, Any],
    begin: Callable[[], None],
    end: Callable[[], None],
) -> None:
    peer = kind(job["port"], job["inflight"])
    counter = SinkCounter(job["shared"], job["counter"])
    begin()
    (peer.publish if job["direction"] == "publish" else peer.receive)(job["count"], job["qos"])
    counter.wait_for(job["count"])
    end()
    peer.close()


def _child_with_sink(shell: str, job: dict[str, Any]) -> dict[str, float]:
    """Run once; return the CPU seconds of the work."""
    marks: list[float] = []

    def mark() -> None:
        marks.append(cpu_seconds())

    if shell == "async":
        asyncio.run(_run_async(job, mark, mark))
    else:
        _run_threads(DeviceSdkPeer if shell == "client" else DropInPeer, job, mark, mark)
    return {"cpu": marks[1] - marks[0]}


def child(package: str, shell: str, count: str, job: dict[str, Any]) -> None:
    """Be one run, and print what it cost."""
    sys.path.insert(0, package)
    if count != "cpu":
        from tests.same_as import strands, virtual

        virtual.install()
        strands.install()
        real, stand_in = _thread.allocate_lock, threading.Lock

        def lock() -> Any:
            """Python's, for what it costs; the callback thread waits for its own to be let go of."""
            return (stand_in if sys._getframe(1).f_globals["__name__"] == "device_sdk.threads" else real)()

        threading.Lock, threading.RLock = lock, _thread.RLock  # type: ignore[assignment]
    import device_sdk

    found = Path(str(device_sdk.__file__)).resolve().parent.parent
    assert found == Path(package).resolve(), f"device_sdk was imported from {found}"
    status = 0
    try:
        if count == "cpu":
            cost = _child_with_sink(shell, job)
        else:
            cost = {"calls": float(count_calls(shell, job, watched=count == "calls"))}
        print(json.dumps(cost), flush=True)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)  # threads that take turns are not ended in good order, and would be waited for


# All runs


@cache
def _instruction_counter() -> tuple[list[str], str]:
    """Return a command to put in front, and a pattern of what it says."""
    perf = ["perf", "stat", "-x,", "-e", "instructions:u"]
    if shutil.which("perf"):
        tried = subprocess.run([*perf, "true"], capture_output=True, text=True, check=False)
        if re.search(r"^\d+,.*instructions", tried.stderr, re.MULTILINE):
            return perf, r"^(\d+),.*instructions"
    if shutil.which("valgrind"):
        valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        return valgrind, r"I\s+refs:\s+([\d,]+)"
    print("neither perf can count instructions here, nor is valgrind installed", file=sys.stderr)
    raise SystemExit(2)


class Bench:
    """Runs children of this file with either package."""

    def __init__(self, count: str, sink: Sink | None) -> None:
        self._count = count
        self._sink = sink

    def per_message(self, package: Package, task: Task) -> float:
        """Return the cost of one message: a long run less a short one."""
        short, long = _MESSAGES[self._count]
        return (self._cost(package, task, long) - self._cost(package, task, short)) / (long - short)

    def _cost(self, package: Package, task: Task, messages: int) -> float:
        cell = task.cell
        job: dict[str, Any] = {
            "direction": cell.direction, "qos": cell.qos, "inflight": cell.inflight, "count": messages,
        }  # fmt: skip
        if self._sink is not None:
            ordered = messages if cell.direction == "receive" else 0
            self._sink.order(TOPIC, count=ordered, size=len(PAYLOAD), qos=cell.qos, window=cell.inflight)
            job |= {"port": self._sink.port, "shared": self._sink.path, "counter": cell.counter}
        command = [
            sys.executable,
            __file__,
            "--child",
            package.folder,
            task.shell,
            self._count,
            json.dumps(job),
        ]
        pattern = ""
        if self._count == "instructions":
            front, pattern = _instruction_counter()
            command = [*front, *command]
        core = harness.cores()[0]
        pinned = ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []
        done = subprocess.run(
            ["env", "PYTHONHASHSEED=0", *pinned, *command], capture_output=True, text=True, check=False,
            timeout=_CHILD_SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-3000:]}")
        if pattern:
            found = re.search(pattern, done.stderr, re.MULTILINE)
            assert found is not None, done.stderr
            return float(found[1].replace(",", ""))
        cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return cost["calls"] if self._count == "calls" else cost["cpu"] * 1e6


def _measured(bench: Bench, packages: list[Package], task: Task, repetitions: int) -> dict[str, Any]:
    """Return the figures of one cell; the packages take turns, each begins every other time."""
    costs: dict[str, list[float]] = {package.name: [] for package in packages}
    for repetition in range(repetitions):
        for package in packages if repetition % 2 else reversed(packages):
            costs[package.name].append(bench.per_message(package, task))
    then, now = (costs[package.name] for package in packages)
    ratio = statistics.median(now) / statistics.median(then)
    return {"cell": task.name, "then": then, "now": now, "ratio": ratio, "above": ratio > _MOST}


def _shown(values: list[float]) -> str:
    """Return a value, or the median of several with the smallest and the largest."""
    digits = 2 if max(values) < 1_000 else 0
    median, low, high = (
        f"{one:,.{digits}f}" for one in (statistics.median(values), min(values), max(values))
    )
    return median if len(values) == 1 else f"{median} ({low}-{high})"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="what a message costs, beside this package at a commit")
    parser.add_argument("commit", help="of this repository: a hash, a branch, HEAD")
    parser.add_argument("--count", choices=_COUNTS, default="calls", help="what to count (calls)")
    parser.add_argument("--repetitions", type=int, help="runs of each package and cell (1; cpu: 5)")
    names = [task.name for task in TASKS]
    parser.add_argument("--only", nargs="+", metavar="CELL", help=f"parts of names, of {', '.join(names)}")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser.parse_args()


def main() -> int:
    """Measure the chosen cells; return the exit code."""
    from tests.same_as.compare import checkout

    arguments = parse_arguments()
    count = arguments.count
    repetitions = arguments.repetitions or _REPETITIONS[count]
    tasks = [one for one in TASKS if not arguments.only or any(word in one.name for word in arguments.only)]
    source = _instruction_counter()[0][0] if count == "instructions" else ""
    if not arguments.json:
        by = f" ({source})" if source else ""
        print(f"{harness.describe_machine()}; {count}{by} per message, median of {repetitions}\n")
        print(
            f"| cell | {arguments.commit} | now | ratio | at most {_MOST} |\n" + "|---" * 5 + "|", flush=True
        )
    results = []
    begun = time.monotonic()
    sink = Sink() if count == "cpu" else None
    try:
        with checkout(arguments.commit) as folder:
            packages = [Package(arguments.commit, str(folder)), Package("now", str(ROOT))]
            bench = Bench(count, sink)
            for task in tasks:
                result = _measured(bench, packages, task, repetitions)
                results.append(result)
                if not arguments.json:
                    figures = f"{_shown(result['then'])} | {_shown(result['now'])} | {result['ratio']:.3f}"
                    print(f"| {task.name} | {figures} | {'ABOVE' if result['above'] else 'ok'} |", flush=True)
    finally:
        if sink is not None:
            sink.__exit__(None, None, None)
    if arguments.json:
        print(json.dumps({"machine": harness.describe_machine(), "count": count, "cells": results}))
    else:
        print(f"\n{len(results)} cells in {time.monotonic() - begun:.0f} s")
    return int(any(result["above"] for result in results))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        package, shell, count, job = sys.argv[2:]
        child(package, shell, count, json.loads(job))
    else:
        sys.exit(main())
