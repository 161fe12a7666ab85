"""Processes under test: started, watched, ended, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk_hil import launch
from device_sdk_hil.dut import Dut, with_values
from device_sdk_hil.timeline import Timeline

# Says what it does, does nothing, and says when it was asked to end.
PROGRAM = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("ready", os.getcwd(), *sys.argv[1:], file=sys.stderr)
print("end by", signal.sigtimedwait({signal.SIGTERM}, 30).si_signo)
sys.exit(3)
"""


@pytest.fixture
def dut(tmp_path: Path, events: Timeline) -> Iterator[Dut]:
    dut = Dut(tmp_path, events)
    yield dut
    dut.kill()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_a_program_runs_in_its_folder_until_it_is_asked_to_end(dut: Dut, program: Path) -> None:
    dut.run_python(program, "a b")
    assert dut.wait_for_log("ready") == f"ready {dut.folder} a b"
    assert dut.is_running
    assert dut.stop(10) == 3
    assert dut.log[-1] == f"end by {signal.SIGTERM.value}"
    assert dut.stop() == 3


def test_waiting_twice_for_a_line_waits_for_two_lines(dut: Dut) -> None:
    dut.run(sys.executable, "-c", "for n in 1, 2: print('line', n)")
    assert [dut.wait_for_log("line"), dut.wait_for_log("line")] == ["line 1", "line 2"]
    with pytest.raises(AssertionError, match=r"ended with status 0 and never logged 'line'(?s:.*)line 2"):
        dut.wait_for_log("line")


def test_a_line_that_does_not_come_is_a_timeout(dut: Dut, program: Path) -> None:
    dut.run_python(program)
    with pytest.raises(TimeoutError, match="'nonsense' in the log of the DUT"):
        dut.wait_for_log("nonsense", timeout=0.01)


def test_a_killed_program_had_no_time_for_last_words_and_starts_again(dut: Dut, program: Path) -> None:
    dut.run_python(program)
    for _ in range(2):
        if not dut.is_running:
            dut.run_again()
        dut.wait_for_log("ready")
        dut.kill()
        assert dut.wait() == -signal.SIGKILL
    assert [line.split()[0] for line in dut.log] == ["ready", "ready"]


def test_a_second_program_has_to_wait_for_the_end_of_the_first(dut: Dut, program: Path) -> None:
    dut.run_python(program)
    with pytest.raises(RuntimeError, match="runs already"):
        dut.run_again()


def test_what_the_program_has_started_ends_with_it(dut: Dut) -> None:
    child = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('started', flush=True); input()"
    dut.run(sys.executable, "-c", f"import os; os.dup2(os.pipe()[0], 0); {child}")
    dut.wait_for_log("started")
    dut.kill()
    assert dut.wait(10) == -signal.SIGKILL  # that is: and nobody has its output open any more


def test_a_program_that_does_not_exist_says_so_in_its_log(dut: Dut) -> None:
    dut.run("no-such-program")
    assert dut.wait(10) == 127
    assert dut.log == ["cannot start no-such-program: No such file or directory"]


def test_the_program_dies_with_the_test_even_if_that_was_killed(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    script = (
        "import subprocess, sys, os; "
        f"subprocess.Popen([sys.executable, {launch.__file__!r}, str(os.getpid()), 'sleep', '60'],"
        f" pass_fds=[{writer}]); os.kill(os.getpid(), 9)"
    )
    parent = subprocess.run([sys.executable, "-c", script], pass_fds=[writer], timeout=20, check=False)
    os.close(writer)
    assert parent.returncode == -signal.SIGKILL
    with os.fdopen(reader, "rb") as end:
        assert end.read() == b""  # the last one who had the other end is gone; pytest-timeout is the deadline


def test_the_start_and_the_end_are_on_the_timeline(dut: Dut, events: Timeline) -> None:
    dut.run(sys.executable, "-c", "print('x')")
    dut.wait(10)
    recorded = [json.loads(line) for line in events.path.read_text().splitlines()]
    assert [(event["source"], event["kind"]) for event in recorded] == [
        ("dut", "start"), ("dut", "log"), ("dut", "exit"),
    ]  # fmt: skip
    assert [event["data"] for event in recorded[1:]] == [{"line": "x"}, {"status": 0}]


def test_the_lines_of_a_configuration_get_the_values_of_the_rig() -> None:
    config = 'url = "mqtt://x"  # there\n[[sensor]]\nbus = "i2c-1"\n[[sensor]]\nbus = "i2c-2"\n'
    assert with_values(config, url="serial:///dev/x", bus="fake:a:b") == (
        'url = "serial:///dev/x"\n[[sensor]]\nbus = "fake:a:b"\n[[sensor]]\nbus = "fake:a:b"\n'
    )
    with pytest.raises(ValueError, match="no line 'interval = "):
        with_values(config, interval="1s")
