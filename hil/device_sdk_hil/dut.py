"""The device under test: a process, its log, and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import device_sdk
import device_sdk_hil
from device_sdk._printable import printable

if TYPE_CHECKING:
    from device_sdk_hil.timeline import Timeline

__all__ = ["Dut", "with_values"]

_LAUNCH = Path(__file__).with_name("launch.py")
_LAST_LINES = 10
# A child of the DUT may keep its output open for longer than the DUT lives.
_READER_S = 2.0


class Dut:
    """Runs one program at a time. Its output becomes its log, line by line. One thread owns the object.

    Args:
        folder: its working directory; configurations are written there.
        timeline: gets the log and every start and end.
    """

    def __init__(self, folder: Path, timeline: Timeline) -> None:
        self.folder = folder
        self.log: list[str] = []
        self._timeline = timeline
        self._command: tuple[str, ...] = ()
        self._process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None
        self._exit_status: int | None = None
        self._read_to = 0  # where the next wait_for_log() begins

    # Start

    def run_node(self, config: str) -> None:
        """Write the configuration to ``node.toml`` in the folder and start ``device-sdk run``."""
        path = self.folder / "node.toml"
        path.write_text(config, encoding="utf-8")
        self.run(sys.executable, "-m", "device_sdk", "run", str(path))

    def run_python(self, program: str | Path, *arguments: str) -> None:
        """Start a Python program in the interpreter of the tests."""
        self.run(sys.executable, str(program), *arguments)

    def run(self, *command: str) -> None:
        """Start any program, in a process group of its own. It can import the packages of the test.

        Raises: RuntimeError: the last one still runs.
        """
        if self.is_running:
            raise RuntimeError("the DUT runs already; stop() or kill() it first")
        self._finish_log()
        self._command, self._exit_status = command, None
        self._timeline.record("dut", "start", command=" ".join(command))
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCH), str(os.getpid()), *command],
            cwd=self.folder, env=_environment(), start_new_session=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._process = process
        self._reader = Thread(target=self._read, args=(process,), name="hil-dut-log", daemon=True)
        self._reader.start()

    def run_again(self) -> None:
        """Start the same program once more, after it has ended."""
        self.run(*self._command)

    # Watch

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process identifier. Raises: RuntimeError: it was never started."""
        return self._started().pid

    def wait_for_log(self, pattern: str, timeout: float | None = None) -> str:
        """Wait for a line that matches the regular expression, and return it.

        The search begins after the line that the last call found: waiting twice waits for two lines.

        Raises: TimeoutError: no such line in time. AssertionError: the DUT ended without one.
        """
        found: list[str] = []

        def look() -> bool:
            while self._read_to < len(self.log) and not found:
                line = self.log[self._read_to]
                self._read_to += 1
                if re.search(pattern, line):
                    found.append(line)
            return bool(found) or self._exit_status is not None

        self._timeline.wait_until(look, f"{pattern!r} in the log of the DUT", timeout)
        if not found:
            problem = f"the DUT ended with status {self._exit_status} and never logged {pattern!r}"
            lines = [f"{problem}; its last lines:", *self.log[-_LAST_LINES:]]
            raise AssertionError("\n  ".join(map(printable, lines)))
        return found[0]

    # End

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return the exit status, negative for a signal.

        Raises: TimeoutError: it still runs.
        """
        process = self._started()
        self._timeline.wait_until(lambda: self._exit_status is not None, "the end of the DUT", timeout)
        return process.wait()

    def stop(self, timeout: float | None = None) -> int:
        """End it with SIGTERM and wait; return the exit status, also of a DUT that has ended before.

        Raises: TimeoutError: it did not end in time.
        """
        process = self._started()
        if process.poll() is None:
            self._timeline.record("dut", "stop")
            process.terminate()
        return self.wait(timeout)

    def kill(self) -> None:
        """End it, and all processes that it has started, with SIGKILL. Does nothing if it is not running."""
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return
        if process.poll() is None or reader.is_alive():
            self._timeline.record("dut", "kill")
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._finish_log()

    def _finish_log(self) -> None:
        """Let the reader take the last lines of a DUT that has ended."""
        if self._reader is not None:
            self._reader.join(_READER_S)

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the DUT was never started")
        return self._process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.log.append(line.rstrip("\n"))
                self._timeline.record("dut", "log", line=self.log[-1])
        self._exit_status = process.wait()
        self._timeline.record("dut", "exit", status=self._exit_status)


def with_values(config: str, **values: str) -> str:
    """Return a TOML text with other values in the lines ``name = ...``: adapts a node's to this rig.

    Args:
        values: texts by name, such as ``url=broker.url``; each line of that name gets it.

    Raises: ValueError: no line has the name.
    """
    for name, value in values.items():
        line = f'{name} = "{value}"'.replace("\\", r"\\")
        config, count = re.subn(rf"(?m)^{name} = .*$", line, config)
        if not count:
            raise ValueError(printable(f"the configuration has no line '{name} = ...'"))
    return config


def _environment() -> dict[str, str]:
    """Return the environment of the DUT: this one, with the import path of the test."""
    packages = [str(Path(package.__path__[0]).parent) for package in (device_sdk, device_sdk_hil)]
    path = os.pathsep.join([*packages, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Blinka refuses to be imported on an unknown board; our buses work without that knowledge.
    return {"BLINKA_OS_AGNOSTIC": "1", **os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
