"""What the store on disk costs: processor, bytes and flushes at the device, memory, start.

``python benchmarks/store.py [--quick] [--only SECTION ...] [--directory DIR] [--json]``. Exit code 1: a
figure is above its "must" by more than noise. 2: a package to compare with is missing.

The device is counted at an ext4 of its own on a loop device, which needs root; else
these columns are empty.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from benchmarks.harness import ROOT, Sink, summary, verdict
from benchmarks.store_disk import Disk, counting_disk, why_not_counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

SECTIONS = ("online", "device", "million", "queues")
PACKAGES = {
    "litequeue": "litequeue",
    "diskcache": "diskcache",
    "persist-queue": "persistqueue",
    "paho": "paho",
}
MODES = ("sync", "batch", "os")
DEADLINE = 400.0
SLOW_RATE = 100  # messages per second of the node that is online: each is acknowledged before the next one
FEW = 16
LIVES = {
    1: 15_000,
    100: 650,
}  # messages in a commit -> bytes per message that SQLite with lazy deletion needs

QUICK = {"repetitions": 3, "online": 5_000, "one": 1_000, "hundred": 10_000, "million": 100_000, "hold": 3}
FULL = {"repetitions": 5, "online": 20_000, "one": 3_000, "hundred": 30_000, "million": 1_000_000, "hold": 10}


class Figure(NamedTuple):
    """One measured figure, and its bounds if there are any."""

    title: str
    unit: str
    value: float
    must: float | None = None
    aim: float | None = None

    @property
    def verdict(self) -> str:
        """See :func:`benchmarks.harness.verdict`; empty without bounds."""
        if self.must is None:
            return ""
        return verdict(self.value, self.must, 0.0 if self.aim is None else self.aim)

    @property
    def row(self) -> str:
        """One line of the table."""
        must, aim = ("" if bound is None else number(bound) for bound in (self.must, self.aim))
        return f"| {self.title} | {number(self.value)} | {self.unit} | {must} | {aim} | {self.verdict} |"


class Outcome(NamedTuple):
    """What a child measured, and what the device was asked to do meanwhile, per message."""

    result: dict[str, Any]
    messages: int
    bytes: float | None
    flushes: float | None


class Bench:
    """Runs children on one disk against one sink."""

    def __init__(self, disk: Disk, sink: Sink, sizes: dict[str, int]) -> None:
        self.disk = disk
        self.sizes = sizes
        self._sink = sink
        path = [str(ROOT), sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"]]
        self._common = {"path": ":".join(path), "port": sink.port, "shared": sink.path}

    def run(self, job: str, count: int, directory: Path, **more: object) -> Outcome:
        """Run a child for so many messages; what it leaves behind stays in the directory."""
        self._sink.order("", count=0, size=0, qos=0, window=1)
        values = self._common | {"count": count, "directory": directory, "counter": harness.PUBLISHED} | more
        program = [sys.executable, "-I", "-S", "-E", str(harness.HERE / "store_peers.py"), job]
        before = self.disk.written()
        command = [*program, *(f"{name}={value}" for name, value in values.items())]
        result = harness.run_child(command, DEADLINE)
        after = self.disk.written()
        if before is None or after is None:
            return Outcome(result, count, None, None)
        written, flushes = after.bytes - before.bytes, after.flushes - before.flushes
        return Outcome(result, count, written / count, flushes / count)


def number(value: float) -> str:
    """Three digits, or a whole number."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def heading(*titles: str) -> str:
    """The first two lines of a table."""
    return f"\n| {' | '.join(titles)} |\n" + "|---" * len(titles) + "|"


# The sections. Each prints its table and yields the figures that have bounds.


def online(bench: Bench, say: Callable[[str], None]) -> Iterator[Figure]:
    """CPU per message with a connection, and what a slow node that is online writes."""
    peers = {"paho": "memory", "device_sdk, memory": "memory"}
    peers |= {f"device_sdk, {mode}": mode for mode in MODES}
    count = bench.sizes["online"]
    say(
        heading("publish QoS 1 online", "CPU us", "of paho", "messages/s", "bytes/message", "flushes/message")
    )
    for inflight in (20, 1_000):
        runs: dict[str, list[Outcome]] = {peer: [] for peer in peers}
        for _ in range(bench.sizes["repetitions"]):
            for peer, mode in peers.items():
                name = peer.partition(",")[0]
                messages = count // 4 if name == "paho" else count
                where = bench.disk.new_directory()
                more = {"peer": name, "durability": mode, "inflight": inflight, "rate": 0}
                outcome = bench.run("online", messages, where, **more)
                outcome.result["us"] = outcome.result["cpu"] / messages * 1e6
                outcome.result["per_s"] = messages / outcome.result["wall"]
                runs[peer].append(outcome)
        paho = [run.result["us"] for run in runs["paho"]]
        for peer, these in runs.items():
            own = [run.result["us"] for run in these]
            ratio = statistics.median(a / b for a, b in zip(own, paho, strict=True))
            rate = summary([run.result["per_s"] for run in these])
            figures = f"{summary(own)} | {ratio:.3f} | {rate} | {_device(these)}"
            say(f"| {peer}, {inflight:,} in flight | {figures} |")
            if peer == "device_sdk, batch":
                yield Figure(
                    f"publish QoS 1 with a store, {inflight:,} in flight, CPU", "of paho", ratio, 0.40, 0.25
                )


def device(bench: Bench, say: Callable[[str], None]) -> Iterator[Figure]:
    """Bytes and flushes per message, through the whole client."""
    say(heading("through the client, batch", "bytes/message", "flushes/message", "CPU us"))
    where = bench.disk.new_directory()
    slow = {"peer": "device_sdk", "durability": "batch", "inflight": 20, "rate": SLOW_RATE}
    short, long = FEW, FEW + 1_024
    _, begun, lasted = (bench.run("online", count, where, **slow) for count in (short, short, long))
    if begun.bytes is not None and lasted.bytes is not None:
        per_message = (lasted.bytes * long - begun.bytes * short) / (long - short)
        flushes = _marginal_flushes(begun, lasted)
        say(f"| online, one message at a time | {number(per_message)} | {flushes} | |")
        say(f"| online, start and end of a process | {number(begun.bytes * short)} in all | | |")
        yield Figure("online, one message at a time", "bytes/message", per_message, 100)
    for title, commit, messages, must in (
        ("one commit each", 1, bench.sizes["one"], 15_000),
        ("a hundred in a commit", 100, bench.sizes["hundred"], 650),
    ):
        where = bench.disk.new_directory()
        filled = bench.run("fill", messages, where, durability="batch", commit=commit)
        drained = bench.run("drain", messages, where, durability="batch", inflight=20)
        say(f"| offline, {title} | {_device([filled])} | {_cpu(filled)} |")
        say(f"| the same later sent and acknowledged | {_device([drained])} | {_cpu(drained)} |")
        if filled.bytes is not None:
            yield Figure(f"offline, {title}", "bytes/message", filled.bytes, must)


def million(bench: Bench, say: Callable[[str], None]) -> Iterator[Figure]:
    """A deep queue: filling it, the memory, the next process; beside other queues."""
    count = bench.sizes["million"]
    where = bench.disk.new_directory()
    filled = bench.run("fill", count, where, durability="batch", commit=0)
    size = sum(file.stat().st_size for file in where.iterdir()) / 1024 / 1024
    bench.disk.forget(where)
    sent = min(count, 100_000)
    drained = bench.run("drain", sent, where, durability="batch", inflight=20)
    say(heading("deep queue, 200 B each", "queued", "in seconds", "MiB in memory", "the most", "MiB on disk"))
    say(_deep_row("device_sdk", filled.result, f"{size:.0f}"))
    for peer in PACKAGES:
        directory = bench.disk.new_directory()
        held = bench.run("hold", count, directory, peer=peer, seconds=bench.sizes["hold"])
        size = sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / 1024 / 1024
        say(_deep_row(peer, held.result, f"{size:.0f}" if size else "-"))
    result = drained.result
    rate, cpu = sent / result["wall"], result["cpu"] / sent * 1e6
    first, peak = result["first"], result["peak"] / 1024
    say(f"\nThe next process: the first PUBLISH arrives after {first:.3f} s; {sent:,} are acknowledged at")
    say(f"{rate:,.0f} messages/s with {cpu:.1f} us of CPU each; the most memory is {peak:.1f} MiB.")
    title = f"{count:,} x 200 B queued"
    yield Figure(f"{title}, most memory", "MiB", filled.result["peak"] / 1024, 24, 18)
    yield Figure(f"{title}, most memory of the next process", "MiB", result["peak"] / 1024, 24, 18)
    yield Figure(f"{title}, client made to first PUBLISH", "s", result["first"], 0.5)


def queues(bench: Bench, say: Callable[[str], None]) -> Iterator[Figure]:
    """Put, take, acknowledge, with 1,000 in the queue: the store alone, beside other queues."""
    say(
        heading(
            "life of a message", "in a commit", "messages/s", "CPU us", "bytes/message", "flushes/message"
        )
    )
    rows = [("device_sdk", mode, commit) for commit in (1, 100) for mode in MODES]
    rows += [(peer, "", 1) for peer in PACKAGES if peer != "paho"]
    rows += [(peer, "", 100) for peer in ("litequeue", "diskcache")]
    for peer, mode, commit in rows:
        count = bench.sizes["one"] if commit == 1 else bench.sizes["hundred"]
        more = {"peer": peer, "durability": mode, "commit": commit}
        outcome = bench.run("life", count, bench.disk.new_directory(), **more)
        rate = number(count / outcome.result["wall"])
        title = f"{peer}, {mode}" if mode else peer
        say(f"| {title} | {commit} | {rate} | {_cpu(outcome)} | {_device([outcome])} |")
        if mode == "batch" and outcome.bytes is not None:
            what = f"life of a message, {commit} in a commit"
            yield Figure(what, "bytes/message", outcome.bytes, LIVES[commit])


def _deep_row(peer: str, result: dict[str, Any], size: str) -> str:
    memory, peak = result["memory"] / 1024, result["peak"] / 1024
    return f"| {peer} | {result['queued']:,} | {result['wall']:.1f} | {memory:.1f} | {peak:.1f} | {size} |"


def _cpu(outcome: Outcome) -> str:
    return number(outcome.result["cpu"] / outcome.messages * 1e6)


def _marginal_flushes(short: Outcome, long: Outcome) -> str:
    counted = [outcome.flushes * outcome.messages for outcome in (short, long) if outcome.flushes is not None]
    return f"{(counted[1] - counted[0]) / (long.messages - short.messages):.3g}"


def _device(outcomes: list[Outcome]) -> str:
    """Two columns: bytes and flushes per message."""
    written = [run.bytes for run in outcomes if run.bytes is not None]
    flushes = [run.flushes for run in outcomes if run.flushes is not None]
    if not written:
        return "- | -"
    return f"{number(statistics.median(written))} | {statistics.median(flushes):.3g}"


def check_packages() -> None:
    """Raises: SystemExit(2): something to compare with is not installed."""
    missing = [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        print(f"{', '.join(missing)}: missing; pip install -e '.[bench]'", file=sys.stderr)
        raise SystemExit(2)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="cost of the store on disk, beside other queues")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, 100,000 for the deep queue")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument(
        "--directory", help="where the disk is made (default: the system's temporary directory)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    return parser.parse_args()


def main() -> int:
    """Measure the chosen sections; return the exit code."""
    arguments = parse_arguments()
    check_packages()

    def say(text: str) -> None:
        if not arguments.json:
            print(text, flush=True)

    say(harness.describe_machine())
    lacking = why_not_counted()
    if lacking is not None:
        say(f"without {lacking}: bytes and flushes at the device are not counted")
    figures: list[Figure] = []
    with counting_disk(arguments.directory) as disk, Sink() as sink:
        bench = Bench(disk, sink, QUICK if arguments.quick else FULL)
        for section in (online, device, million, queues):
            if section.__name__ in arguments.only:
                figures += section(bench, say)
    say(heading("", "measured", "unit", "must", "aim", "verdict"))
    for figure in figures:
        say(figure.row)
    if arguments.json:
        rows = [figure._asdict() | {"verdict": figure.verdict} for figure in figures]
        print(json.dumps({"machine": harness.describe_machine(), "figures": rows}))
    return int(any(figure.verdict == "MISSED" for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
