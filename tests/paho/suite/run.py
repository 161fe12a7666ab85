"""Run paho-mqtt's own test suite with ``paho.mqtt`` being ``device_sdk.paho``. See scripts/paho-suite."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

__all__ = ["CACHE", "Suite", "download", "fetch", "main", "selects"]

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2]
CACHE = CHECKOUT / "build" / "paho-suite"
#: Source distributions by what they are called without ``.tar.gz``, and their SHA-256.
HASHES = {
    "paho_mqtt-2.2.0": "bcf706f03f1f49e0fc3ae166dc7b67ee35463496f8bdfd7c9c36181f6ba635c9",
    "paho-mqtt-1.6.1": "2a8291c81623aec00372b5a85558a372c747cbca8e9934dfe218638b8eefc26f",
}
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
#: A test that hangs is ended after this many seconds; the slowest takes 12.
TIMEOUT = 60


def selects(name: str, node: str) -> bool:
    """Tell whether a name, of a file, class, test or one of its cases, includes a test's node id."""
    return node == name or node.startswith((f"{name}::", f"{name}["))


def download(name: str, folder: Path = CACHE) -> Path:
    """Get a source distribution from PyPI, unless it is there; return the archive.

    Raises: subprocess.CalledProcessError: pip could not get it.
    """
    archive = folder / f"{name}.tar.gz"
    if archive.exists():
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    # Into a folder of its own, then renamed: two processes may do this at the same time.
    with tempfile.TemporaryDirectory(dir=folder) as own:
        requirement = Path(own) / "requirement.txt"
        version = name.rpartition("-")[2]
        requirement.write_text(f"paho-mqtt=={version} --hash=sha256:{HASHES[name]}\n", encoding="utf-8")
        # Only this one has to be a source distribution: the tools that pip builds it with come as wheels.
        source = ["--no-deps", "--no-binary=paho-mqtt"]
        options = ["--quiet", "--disable-pip-version-check", "--no-input", *source]
        command = [sys.executable, "-m", "pip", "download", *options, f"--dest={own}"]
        subprocess.run([*command, "--requirement", str(requirement)], check=True)
        (Path(own) / archive.name).replace(archive)
    return archive


def fetch(name: str, folder: Path = CACHE) -> Path:
    """Unpack a source distribution, downloaded if need be, afresh into this folder; return where.

    Raises: subprocess.CalledProcessError: pip could not get it.
    """
    archive = download(name)
    shutil.rmtree(folder / name, ignore_errors=True)
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / name


class Suite:
    """The unpacked suite, and how Python is started in it.

    Raises, from the methods: subprocess.CalledProcessError: pip or pytest could not do its part.
    """

    def __init__(self, folder: Path = CACHE) -> None:
        self.folder = folder
        self.root = folder / "paho_mqtt-2.2.0"
        self.deselected: Mapping[str, str] = tomllib.loads((HERE / "deselected.toml").read_text("utf-8"))

    def tests(self) -> list[str]:
        """Return the node ids of all its tests, collected with paho-mqtt itself."""
        command = [*PYTEST, "--collect-only", "--quiet", "tests"]
        environment = _environment(self.root, self.root / "src")
        found = subprocess.run(command, cwd=self.root, env=environment, text=True, stdout=subprocess.PIPE)
        if found.returncode:
            sys.stderr.write(found.stdout)
        found.check_returncode()
        return [line for line in found.stdout.splitlines() if "::" in line]

    def unknown_names(self, tests: Iterable[str]) -> list[str]:
        """Return the names of the table of deselected tests that select no test."""
        return [name for name in self.deselected if not any(selects(name, node) for node in tests)]

    def run(self, jobs: int, arguments: Sequence[str]) -> tuple[int, dict[str, int]]:
        """Run it on device_sdk; return pytest's exit code and the number of tests by outcome."""
        counts = self.folder / "counts.json"
        counts.unlink(missing_ok=True)
        environment = _environment(self.root, HERE / "startup", CHECKOUT, PAHO_SUITE_COUNTS=str(counts))
        left_out = [
            f"--ignore={name}" if name.endswith(".py") else f"--deselect={name}" for name in self.deselected
        ]
        # The aliases are made before pytest starts: it warns that device_sdk's own plugin is there already.
        warnings = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        options = ["-p", "suite_plugin", f"--timeout={TIMEOUT}", *warnings]
        if jobs > 1:
            # The tests with Unix sockets all use the same path, so a file's tests stay in one process.
            options += [f"--numprocesses={jobs}", "--dist=loadfile"]
        command = [*PYTEST, *options, *left_out, *(arguments or ["tests"])]
        status = subprocess.run(command, cwd=self.root, env=environment).returncode
        found: dict[str, int] = json.loads(counts.read_text("utf-8")) if counts.exists() else {}
        return status, found


def _environment(*path: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), **more}


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch and run the suite; print the counts; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/paho-suite",
        description="Run paho-mqtt's own test suite on device_sdk.paho.",
        epilog="Everything after -- goes to pytest: scripts/paho-suite -- tests/test_client.py -k unix",
    )
    parser.add_argument("--jobs", type=int, default=4, help="processes that run tests; most of them wait (4)")
    parser.add_argument("pytest", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    suite = Suite()
    fetch(suite.root.name)
    tests = suite.tests()
    unknown = suite.unknown_names(tests)
    if unknown:
        sys.stderr.write(f"deselected.toml names tests that do not exist: {', '.join(unknown)}\n")
        return 1
    status, counts = suite.run(options.jobs, options.pytest)
    deselected = sum(any(selects(name, node) for name in suite.deselected) for node in tests)
    for name, reason in suite.deselected.items():
        sys.stdout.write(f"deselected: {name}: {reason}\n")
    shown = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    sys.stdout.write(f"paho-mqtt 2.2.0, {len(tests)} tests: {shown}, {deselected} deselected\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
