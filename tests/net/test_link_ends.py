"""The ends in firmware_examples, in C and in Python for MicroPython, against the vectors and against ours."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from device_sdk.net.link import words
from device_sdk.net.link.answerer import Answerer
from device_sdk.net.link.stream import LinkStream
from tests.net.link_line import Faults
from tests.net.link_vectors import PATH

EXAMPLES = Path(__file__).resolve().parents[2] / "firmware_examples"
C = EXAMPLES / "link_c"
PYTHON = EXAMPLES / "link_micropython"
ENDS = ["c", "python", "micropython"]
FLAGS = ["-std=c99", "-pedantic", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
BAUD = 115_200
PATIENCE = 30.0
Command = Callable[[str, int], list[str]]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Return the command that runs an end with frames of a size; C is compiled for each."""
    folder = tmp_path_factory.mktemp("link")

    def find(end: str, frame: int) -> list[str]:
        if end == "python":
            return [sys.executable, str(PYTHON / "host.py")]
        if end == "micropython":
            found = shutil.which("micropython")
            if found is None:
                pytest.skip("needs micropython")
            return [found, str(PYTHON / "host.py")]
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            pytest.skip("needs a C compiler")
        program = folder / f"host-{frame}"
        if not program.exists():
            sources = [str(C / name) for name in ("link.c", "host.c")]
            subprocess.run(
                [compiler, *FLAGS, f"-DLINK_FRAME={frame}", *sources, "-o", str(program)],
                check=True, timeout=PATIENCE,
            )  # fmt: skip
        return [str(program)]

    return find


def run(command: list[str], text: str = "") -> list[str]:
    done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("end", ENDS)
def test_an_end_says_what_the_vectors_say(command: Command, end: str) -> None:
    steps: list[dict[str, Any]] = json.loads(PATH.read_text(encoding="utf-8"))["dialogue"]
    script = "".join(f"{step['ms']} {step['receive'] or '-'} {step['send'] or '-'}\n" for step in steps)
    *said, last = run([*command(end, 64), "play"], script)
    expected = [" ".join((step["delivered"], *step["expect"])) for step in steps]
    assert [(step["note"], line) for step, line in zip(steps, said, strict=True)] == [
        (step["note"], line) for step, line in zip(steps, expected, strict=True)
    ]
    assert last == f"2 {words.AWAY}"


def test_the_c_end_is_small(command: Command) -> None:
    (ram,) = run([*command("c", 128), "size"])
    assert int(ram) <= 2048
    assert sum(len((C / name).read_text().splitlines()) for name in ("link.c", "link.h")) <= 400


def test_the_python_end_is_small() -> None:
    assert len((PYTHON / "link.py").read_text().splitlines()) <= 200


class Board:
    """An end in a process of its own at a pseudo-terminal, and our answerer beyond a noisy line."""

    def __init__(self, command: list[str], noise: float) -> None:
        self.master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self.master, False)
        self.device = os.ttyname(slave)
        self._slave = slave  # held open, so that a board that starts again finds the same line
        self.command = command
        self.end = Answerer(BAUD, 256, 8, 0x55AA)
        self.up, self.down = Faults(1, noise), Faults(2, noise)
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*self.command, "echo", self.device, str(BAUD)], stdout=subprocess.PIPE, text=True
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=PATIENCE)

    def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.kill()
        os.close(self.master)
        os.close(self._slave)

    def pump(self) -> None:
        due = self.end.next_deadline(blocked=False)
        wait = 1.0 if due is None else min(1.0, max(0.0, due - time.monotonic()))
        if select.select([self.master], [], [], wait)[0]:
            self.end.receive(self.up(os.read(self.master, 4096)), time.monotonic())
        now = time.monotonic()
        self.end.handle_deadline(now)
        while frame := self.end.next_frame(now):
            os.write(self.master, self.down(frame))

    def run_until(self, is_done: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not is_done():
            assert time.monotonic() < until
            self.pump()

    def begin(self) -> LinkStream:
        """Start the board and return the stream that it begins."""
        before = self.end.stream
        self.start()
        self.run_until(lambda: self.end.stream is not before)
        assert self.end.stream is not None
        return self.end.stream

    def exchange(self, stream: LinkStream, data: bytes) -> bytes:
        """Send the data; return as much of what comes back."""
        unsent, echoed = data, bytearray()

        def is_done() -> bool:
            nonlocal unsent
            unsent = unsent[stream.send(unsent, time.monotonic()) :]
            echoed.extend(stream.take())
            assert stream.end is None, words.explain(stream.end or 0)
            return len(echoed) >= len(data)

        self.run_until(is_done)
        return bytes(echoed)


@pytest.fixture
def board(command: Command, request: pytest.FixtureRequest) -> Iterator[Board]:
    board = Board(command(request.param, 128), 1 / 500)
    yield board
    board.close()


@pytest.mark.parametrize("board", ENDS, indirect=True)
def test_an_end_echoes_every_byte_over_a_noisy_line(board: Board) -> None:
    data = Random(4).randbytes(6000)
    stream = board.begin()
    assert board.exchange(stream, data) == data
    assert board.end.splitter.damaged > 5
    board.up = board.down = Faults(0)
    stream.close(words.AWAY)
    board.pump()
    assert board.process is not None
    out, _ = board.process.communicate(timeout=PATIENCE)
    assert out.split() == [str(words.AWAY)]


@pytest.mark.parametrize("board", ENDS, indirect=True)
def test_an_end_that_is_killed_and_starts_again_gets_a_new_epoch(board: Board) -> None:
    data = Random(5).randbytes(500)
    first = board.begin()
    assert board.exchange(first, data) == data
    board.kill()
    second = board.begin()
    assert (first.end, first.epoch == second.epoch) == (words.RESTARTED, False)
    assert board.exchange(second, data[::-1]) == data[::-1]
