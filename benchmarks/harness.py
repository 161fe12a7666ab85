"""What the benchmarks share: the sink at the other end, the two processor cores, fresh child processes."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Any, Self

__all__ = [
    "HERE",
    "ROOT",
    "Sink",
    "compile_c",
    "cores",
    "describe_machine",
    "run_child",
    "summary",
    "verdict",
]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

_SLACK = 1.3  # a shared machine: differences below it are noise

# 64-bit words of the file shared with the sink; sink.c has the same table.
ORDER_COUNT, ORDER_SIZE, ORDER_QOS, ORDER_WINDOW = range(4)
PUBLISHED, RELEASED, SENT, ACKNOWLEDGED = range(16, 20)
PORT = 24
TOPIC_BYTE = 2048
_SHARED_SIZE = 4096


class Sink:
    """The compiled ``sink.c``, running: a peer that answers, counts, and sends what it was ordered to."""

    def __init__(self) -> None:
        handle, self.path = tempfile.mkstemp(prefix="device-sdk-sink-")
        os.truncate(handle, _SHARED_SIZE)
        self._words = memoryview(mmap.mmap(handle, _SHARED_SIZE)).cast("Q")
        os.close(handle)
        self._process = subprocess.Popen(
            [compile_c("sink.c"), self.path], preexec_fn=_pin_to(cores()[1]), stdin=subprocess.DEVNULL
        )
        self.wait_for(PORT, 1)
        self.port = self._words[PORT]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(10)
        os.unlink(self.path)

    def order(self, topic: str, *, count: int, size: int, qos: int, window: int) -> None:
        """Zero the counters; send so many messages after the next SUBSCRIBE (0: none)."""
        for word in (PUBLISHED, RELEASED, SENT, ACKNOWLEDGED):
            self._words[word] = 0
        for word, value in (
            (ORDER_COUNT, count),
            (ORDER_SIZE, size),
            (ORDER_QOS, qos),
            (ORDER_WINDOW, window),
        ):
            self._words[word] = value
        name = topic.encode() + b"\0"
        self._words.cast("B")[TOPIC_BYTE : TOPIC_BYTE + len(name)] = name

    def wait_for(self, word: int, count: int, seconds: float = 5.0) -> int:
        """Wait until a counter has reached ``count``; return it. Raises: TimeoutError."""
        deadline = time.monotonic() + seconds
        while self._words[word] < count:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError(f"the sink counted {self._words[word]} of {count} (word {word})")
            time.sleep(0.001)
        return self._words[word]


def compile_c(name: str, *libraries: str) -> str:
    """Compile a file of this directory and return the program; the result is kept in the user's cache.

    Raises: FileNotFoundError: no C compiler. subprocess.CalledProcessError: a header or library is missing.
    """
    source = HERE / name
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("no C compiler (cc); on Debian: apt install gcc libc6-dev")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "device-sdk-benchmarks"
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / f"{source.stem}-{digest}"
    if not program.exists():
        # Written beside and moved: two runs at once must not execute half a file.
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [compiler, "-O2", "-o", unfinished, source, *(f"-l{library}" for library in libraries)],
            check=True,
            capture_output=True,
            timeout=120,
        )
        unfinished.replace(program)
    return str(program)


def cores() -> tuple[int | None, int | None]:
    """The core of the client and that of the sink; ``None`` twice if there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[-1]) if len(available) > 1 else (None, None)


def run_child(command: Sequence[str], seconds: float = 60.0) -> dict[str, Any]:
    """Run a program on the client's core; return the JSON object in the last line that it prints.

    Raises: RuntimeError, with what it wrote to standard error: it failed or took too long.
    """
    try:
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            preexec_fn=_pin_to(cores()[0]),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{' '.join(command)}: not finished after {seconds:g} s") from error
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {run.returncode}\n{run.stderr}")
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


def summary(values: Sequence[float], digits: int = 3) -> str:
    """``median (smallest-largest)``, each with so many significant digits."""
    median, low, high = (
        f"{value:.{digits}g}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({low}-{high})"


def verdict(value: float, must: float, aim: float) -> str:
    """In one word: ``aim``, ``must``, ``noise`` (above must, within the slack) or ``MISSED``."""
    for bound, word in ((aim, "aim"), (must, "must"), (must * _SLACK, "noise")):
        if value <= bound:
            return word
    return "MISSED"


def describe_machine() -> str:
    """One line that says what the numbers below it were measured on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    system = os.uname()
    version = sys.version.split()[0]
    return f"Python {version}, {system.sysname} {system.machine}, {os.cpu_count()} cores, load {load}"


def _pin_to(core: int | None) -> Callable[[], None] | None:
    return None if core is None else lambda: os.sched_setaffinity(0, {core})
