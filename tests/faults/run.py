"""Plant the faults one by one and see whether the tests notice.

A fault is written into a copy of the project, never into the checkout. Then the tests run that name one of
its statements. What counts is a test that fails: source that does not compile or import proves nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from tests.conformance.catalogue import ROOT, Key, proofs
from tests.faults.fault import Fault

__all__ = [
    "Outcome",
    "TestsFailAlready",
    "Workshop",
    "anchor_problems",
    "problem_of",
    "run_all",
    "workshops",
]

_COPIED = ("device_sdk", "tests", "pyproject.toml")
_TEST_TIMEOUT = 20  # seconds for one test: some faults make a client wait for ever
_IMPORT_TIMEOUT = 60  # seconds for importing with each of all faults
_RUN_TIMEOUT = 180  # seconds for the tests of one fault
_TESTS_FAILED = 1  # exit code of pytest: it ran, and there were failures
_FAILED = re.compile(r"^FAILED (\S+?::\w+)", re.MULTILINE)


class TestsFailAlready(Exception):
    """The tests are not green without a fault, so they cannot tell anything about one."""


@dataclass(slots=True)
class Outcome:
    """How the tests took a fault."""

    fault: Fault
    seconds: float = 0.0
    #: The tests that failed, as node identifiers without parameters.
    failed: set[str] = field(default_factory=set)
    #: The statements of which no test failed.
    unnoticed: list[Key] = field(default_factory=list)
    #: Why the run proves nothing, with the end of its output: the fault is stale, or breaks the import.
    trouble: str = ""

    @property
    def noticed(self) -> bool:
        """Whether for each of its statements a test failed."""
        return not (self.trouble or self.unnoticed)


def problem_of(fault: Fault, root: Path = ROOT) -> str:
    """Say why a fault cannot be planted, or ``""``."""
    path = root / "device_sdk" / fault.file
    if not path.is_file():
        return f"device_sdk/{fault.file} does not exist"
    source = path.read_text(encoding="utf-8")
    count = source.count(fault.old)
    if count != 1:
        return f"device_sdk/{fault.file} has the text {count} times, not once: {fault.old!r}"
    try:
        compile(source.replace(fault.old, fault.new), fault.file, "exec")
    except SyntaxError as error:
        return f"device_sdk/{fault.file} would not compile: {error}"
    return ""


def anchor_problems(faults: Iterable[Fault]) -> dict[str, str]:
    """Return why faults cannot be planted, by name: the text is not there once, or nothing imports then."""
    faults = list(faults)
    problems = {fault.name: problem_of(fault) for fault in faults}
    given = [(fault.name, fault.file, fault.old, fault.new) for fault in faults if not problems[fault.name]]
    command = [sys.executable, "-m", "tests.faults.importing"]
    done = subprocess.run(
        command, cwd=ROOT, input=json.dumps(given), text=True, capture_output=True, timeout=_IMPORT_TIMEOUT,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {_tail(done.stderr)}")
    problems |= json.loads(done.stdout)
    return {name: problem for name, problem in problems.items() if problem}


class Workshop:
    """A copy of the project in which one fault after the other is planted. One thread at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._edition = 0
        for name in _COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "corpus"))
            else:
                shutil.copy2(source, folder / name)

    def test(self, fault: Fault, tests: dict[Key, list[str]]) -> Outcome:
        """Run the tests that name a statement of the fault, with the fault in place."""
        outcome = Outcome(fault, trouble=problem_of(fault, self._folder))
        if outcome.trouble:
            return outcome
        begun = time.monotonic()
        with self._planted(fault):
            wanted = sorted({test for key in fault.statements for test in tests.get(key, ())})
            code, output = self.pytest(wanted)
        outcome.seconds = time.monotonic() - begun
        outcome.failed = set(_FAILED.findall(output))
        if code not in (0, _TESTS_FAILED):
            outcome.trouble = f"pytest ended with {code}: {_tail(output)}"
        outcome.unnoticed = [
            key for key in fault.statements if not outcome.failed.intersection(tests.get(key, ()))
        ]
        return outcome

    @contextmanager
    def _planted(self, fault: Fault) -> Iterator[None]:
        path = self._folder / "device_sdk" / fault.file
        source = path.read_text(encoding="utf-8")
        try:
            self._write(path, source.replace(fault.old, fault.new))
            yield
        finally:
            self._write(path, source)

    def _write(self, path: Path, source: str) -> None:
        """Write an edition of a source file, each with a second of its own.

        Python takes a compiled file for current by the second and the size of its source.
        """
        path.write_text(source, encoding="utf-8")
        self._edition += 1
        os.utime(path, (self._edition, self._edition))

    def pytest(self, tests: Sequence[str]) -> tuple[int, str]:
        """Run tests of the copy; return the exit code of pytest and what it said."""
        command = [
            sys.executable, "-m", "pytest", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider",
            f"--timeout={_TEST_TIMEOUT}", *tests,
        ]  # fmt: skip
        # Options of a run that this one is part of are not meant for it.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment |= {"PYTHONPATH": str(self._folder), "COLUMNS": "400"}
        try:
            done = subprocess.run(
                command, cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_RUN_TIMEOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return -1, f"the tests took more than {_RUN_TIMEOUT} s"
        return done.returncode, done.stdout


@contextmanager
def workshops(count: int) -> Iterator[list[Workshop]]:
    """Set up so many copies of the project, and clear them away afterwards."""
    with tempfile.TemporaryDirectory(prefix="device-sdk-faults-") as folder:
        yield [Workshop(Path(folder) / str(number)) for number in range(count)]


def run_all(faults: Iterable[Fault], workers: int) -> Iterator[Outcome]:
    """Test each fault; yield the outcomes in the order of the faults.

    Raises: TestsFailAlready: without any fault.
    """
    tests, faults = proofs(), list(faults)
    with workshops(workers) as all_workshops:
        wanted = sorted({test for each in faults for key in each.statements for test in tests.get(key, ())})
        code, output = all_workshops[0].pytest(wanted)
        if code:
            raise TestsFailAlready(f"without any fault pytest ends with {code}: {_tail(output)}")
        free: SimpleQueue[Workshop] = SimpleQueue()
        for workshop in all_workshops:
            free.put(workshop)

        def work(fault: Fault) -> Outcome:
            workshop = free.get()
            try:
                return workshop.test(fault, tests)
            finally:
                free.put(workshop)

        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(work, faults)


def _tail(output: str) -> str:
    return "\n".join(output.splitlines()[-15:])
