"""Size, memory and idle cost of this client against paho-mqtt; see README.md.

``python benchmarks/footprint.py [--idle-seconds N] [--json]``. Exit code 1: at least one figure is above its
"must" by more than noise. 2: paho-mqtt 2.2.0 is missing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import ROOT, Sink, describe_machine, run_child, verdict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

OURS, PAHO = "device_sdk", "paho"
REPETITIONS = 9

# Every child begins like this: -I -S -E keeps out site-packages and what its .pth files import; the clean
# directory holds the packages to compare and nothing else.
PRELUDE = """
import sys, time
sys.path.insert(0, sys.argv[1])
def resident_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
def report(**values):
    print("{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}")
"""

IMPORTS = {
    OURS: "from device_sdk import Client",
    PAHO: "import paho.mqtt.client",
}

IMPORT = """
memory, cpu = resident_kib(), time.process_time()
{statement}
report(cpu=(time.process_time() - cpu) * 1000, memory=resident_kib() - memory)
"""

MESSAGES, SIZE = 10_000, 256
QUEUE = {
    OURS: """
from device_sdk import Client
client = Client("mqtt://127.0.0.1:1")  # never started: everything is queued
def publish(payload):
    client.publish("site/42/node/17/temperature", payload, qos=1)
queued = lambda: client.stats.queued
""",
    PAHO: """
import paho.mqtt.client as mqtt
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.max_queued_messages_set(0)
def publish(payload):
    client.publish("site/42/node/17/temperature", payload, qos=1)
queued = lambda: len(client._out_messages)
""",
}
FILL_QUEUE = f"""
publish(bytes({SIZE}))
memory = resident_kib()
for number in range(1, {MESSAGES}):
    publish(number.to_bytes({SIZE}, "big"))
report(memory=resident_kib() - memory, queued=queued())
"""

# Prints a line when it is connected and does nothing until its input ends.
IDLE = {
    OURS: """
from device_sdk import Client
client = Client("mqtt://127.0.0.1:" + sys.argv[2], keep_alive=60)
client.connect(10)
print("connected", flush=True)
sys.stdin.read()
client.close()
""",
    PAHO: """
import threading
import paho.mqtt.client as mqtt
connected = threading.Event()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.on_connect = lambda *_: connected.set()
client.connect("127.0.0.1", int(sys.argv[2]), 60)
client.loop_start()
connected.wait(10)
print("connected", flush=True)
sys.stdin.read()
client.disconnect()
client.loop_stop()
""",
}


class Line(NamedTuple):
    """One figure and its bounds, which are multiples of paho's figure unless ``absolute``."""

    title: str
    unit: str
    ours: float
    paho: float
    must: float
    aim: float
    absolute: bool = False

    @property
    def verdict(self) -> str:
        """See :func:`benchmarks.harness.verdict`."""
        return verdict(self.ours if self.absolute else self.ours / self.paho, self.must, self.aim)

    @property
    def row(self) -> str:
        """One line of the table."""
        ratio = f"{self.ours / self.paho:.3f}"
        unit = f" {self.unit}" if self.absolute else ""
        bounds = f"{self.must:.4g}{unit} | {self.aim:.4g}{unit}"
        figures = f"{_figure(self.ours)} | {_figure(self.paho)} | {ratio} | {bounds}"
        return f"| {self.title} | {self.unit} | {figures} | {self.verdict} |"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def clean_directory(parent: str) -> Path:
    """A directory with links to the two packages alone. Raises: SystemExit(2): no paho-mqtt."""
    found = importlib.util.find_spec("paho")
    if found is None or not found.submodule_search_locations:
        print("paho-mqtt is missing: pip install -e '.[bench]'", file=sys.stderr)
        raise SystemExit(2)
    clean = Path(parent, "clean")
    clean.mkdir()
    (clean / "device_sdk").symlink_to(ROOT / "device_sdk")
    (clean / "paho").symlink_to(next(iter(found.submodule_search_locations)))
    return clean


def child_command(clean: Path, program: str, *arguments: str) -> list[str]:
    """The command line of a fresh interpreter that sees the standard library and the clean directory."""
    return [sys.executable, "-I", "-S", "-E", "-c", PRELUDE + program, str(clean), *arguments]


def medians(clean: Path, programs: dict[str, str]) -> dict[str, dict[str, float]]:
    """Run each peer's program in turns; return the median of everything that it reports."""
    runs: dict[str, list[dict[str, float]]] = {peer: [] for peer in programs}
    for repetition in range(REPETITIONS + 1):
        for peer, program in programs.items():
            result = run_child(child_command(clean, program))
            if repetition:  # the first one only fills the byte code cache
                runs[peer].append(result)
    return {
        peer: {name: statistics.median(run[name] for run in these) for name in these[0]}
        for peer, these in runs.items()
    }


def import_lines(clean: Path) -> Iterator[Line]:
    """CPU time and memory of the import, beyond the bare interpreter."""
    found = medians(clean, {peer: IMPORT.format(statement=statement) for peer, statement in IMPORTS.items()})
    ours, paho = found[OURS], found[PAHO]
    yield Line("import, CPU", "ms", ours["cpu"], paho["cpu"], 0.5, 0.35)
    yield Line("import, memory", "KiB", ours["memory"], paho["memory"], 0.5, 0.35)


def queue_line(clean: Path) -> Line:
    """Memory that grows while messages are queued offline."""
    found = medians(clean, {peer: program + FILL_QUEUE for peer, program in QUEUE.items()})
    for peer, values in found.items():
        if values["queued"] != MESSAGES:
            raise RuntimeError(f"{peer} queued {values['queued']:.0f} of {MESSAGES} messages")
    title = f"{MESSAGES:,} x {SIZE} B queued offline"
    return Line(title, "KiB", found[OURS]["memory"], found[PAHO]["memory"], 0.5, 0.35)


def package_files(package: Path) -> list[Path]:
    """What a wheel of this package contains: everything but byte code."""
    return [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def size_line(clean: Path) -> Line:
    """Bytes on disk without byte code."""
    size = {
        peer: sum(path.stat().st_size for path in package_files((clean / peer).resolve())) / 1024
        for peer in (OURS, PAHO)
    }
    return Line("installed, without byte code", "KiB", size[OURS], size[PAHO], 2000, 1400, absolute=True)


def thread_totals(process_id: int) -> tuple[int, float]:
    """Voluntary context switches, and CPU seconds, of all threads of a process."""
    switches, nanoseconds = 0, 0
    for task in Path(f"/proc/{process_id}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                switches += int(line.split()[1])
        nanoseconds += int((task / "schedstat").read_text().split()[0])
    return switches, nanoseconds / 1e9


def idle_lines(clean: Path, seconds: float) -> Iterator[Line]:
    """Both clients connected and silent at the same time; wake-ups as the kernel counts them."""
    with Sink() as sink:
        sink.order("", count=0, size=0, qos=0, window=1)
        processes = {
            peer: subprocess.Popen(
                child_command(clean, program, str(sink.port)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for peer, program in IDLE.items()
        }
        try:
            for peer, process in processes.items():
                assert process.stdout is not None
                if process.stdout.readline() != "connected\n":
                    raise RuntimeError(f"{peer} did not connect")
            time.sleep(1)
            begin = {peer: thread_totals(process.pid) for peer, process in processes.items()}
            time.sleep(seconds)
            end = {peer: thread_totals(process.pid) for peer, process in processes.items()}
        finally:
            for process in processes.values():
                process.communicate(timeout=20)
    wake_ups = {peer: (end[peer][0] - begin[peer][0]) / seconds for peer in begin}
    cpu = {peer: (end[peer][1] - begin[peer][1]) / seconds * 60_000 for peer in begin}
    title = f"idle for {seconds:g} s"
    yield Line(f"{title}, wake-ups", "per s", wake_ups[OURS], wake_ups[PAHO], 0.1, 0.035, True)
    yield Line(f"{title}, CPU", "ms per min", cpu[OURS], cpu[PAHO], 0.3, 0.1)


def measure(idle_seconds: float) -> Iterator[Line]:
    """Everything, in the order of the table."""
    with tempfile.TemporaryDirectory(prefix="device-sdk-footprint-") as directory:
        clean = clean_directory(directory)
        yield from import_lines(clean)
        yield size_line(clean)
        yield queue_line(clean)
        yield from idle_lines(clean, idle_seconds)


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="size, memory and idle cost against paho-mqtt")
    parser.add_argument("--idle-seconds", type=float, default=20.0, help="how long to watch (default 20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    if arguments.idle_seconds < 2:
        parser.error("--idle-seconds must be at least 2: paho wakes up once a second")
    os.chdir(ROOT)
    lines: list[Line] = []
    if not arguments.json:
        print(f"{describe_machine()}; medians of {REPETITIONS} fresh processes in turns\n")
        print("| | unit | device_sdk | paho 2.2.0 | ratio | must | aim | verdict |\n" + "|---" * 8 + "|")
    for line in measure(arguments.idle_seconds):
        lines.append(line)
        if not arguments.json:
            print(line.row, flush=True)
    if arguments.json:
        rows: list[dict[str, Any]] = [line._asdict() | {"verdict": line.verdict} for line in lines]
        print(json.dumps({"machine": describe_machine(), "lines": rows}))
    return int(any(line.verdict == "MISSED" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
