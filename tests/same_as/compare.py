"""Two processes, one for each package, and the first place where they differ."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn, Self

from tests.same_as.child import ROOT

__all__ = ["Comparison", "Difference", "ProcessFailed", "checkout", "compare"]

_CHILD = Path(__file__).with_name("child.py")
_CONTEXT = 6  # notes before a difference
_AFTER = 4  # notes from the difference on, of either side
_END_SECONDS = 30
_WIDTH = 300  # characters of a note that are shown


class ProcessFailed(Exception):
    """One of the two processes did not come to its end."""


@dataclass(slots=True)
class Difference:
    """Where two runs of a seed part. ``text`` is for a terminal."""

    seed: int
    text: str


@dataclass(slots=True)
class Comparison:
    """What was compared: notes by their word, of all seeds that were equal."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    difference: Difference | None = None


@contextmanager
def checkout(commit: str, root: Path = ROOT) -> Iterator[Path]:
    """Have the package of a commit in a folder for a while. Raises: ValueError: git does not know it."""
    command = ["git", "-C", str(root), "archive", "--format=tar", commit, "device_sdk"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise ValueError(done.stderr.decode().strip())
    with tempfile.TemporaryDirectory(prefix="device-sdk-same-as-") as folder:
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(folder, filter="data")
        yield Path(folder)


def compare(
    part: str,
    old: Path,
    new: Path,
    first: int,
    count: int,
    *,
    texts: bool = True,
    progress: Callable[[int], None] = lambda seeds: None,
) -> Comparison:
    """Run the same seeds with the packages of two folders, until one differs.

    Raises: ProcessFailed: a process ended early.
    """
    comparison = Comparison()
    with (
        _Child(old, part, first, count, texts=texts) as one,
        _Child(new, part, first, count, texts=texts) as other,
    ):
        while comparison.seeds < count and (ours := one.line()) == other.line():
            comparison.seeds += 1
            comparison.counts.update(json.loads(ours)[2])
            progress(comparison.seeds)
    if comparison.seeds < count:
        seed = first + comparison.seeds
        comparison.difference = Difference(seed, _first_difference(part, old, new, seed, texts=texts))
    return comparison


class _Child:
    """One of the two processes."""

    def __init__(self, package: Path, part: str, first: int, count: int, *flags: str, texts: bool) -> None:
        command = [sys.executable, "-P", str(_CHILD), str(package), part, str(first), str(count), *flags]
        if not texts:
            command.append("--without-texts")
        self._package = package
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (see __exit__)
        self._folder = tempfile.TemporaryDirectory(prefix="device-sdk-same-as-")  # of a child that is killed
        self._process = subprocess.Popen(
            command, cwd=ROOT, text=True,
            env={**os.environ, "PYTHONHASHSEED": "0", "TMPDIR": self._folder.name},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._errors,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(_END_SECONDS)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()
        self._folder.cleanup()

    def line(self) -> str:
        """Return the next line. Raises: ProcessFailed: there is none."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        return line

    def lines(self) -> list[str]:
        """Return all lines, at the end. Raises: ProcessFailed: it ended with an error."""
        assert self._process.stdout is not None
        lines = self._process.stdout.read().splitlines()
        if self._process.wait(_END_SECONDS):
            self._fail()
        return lines

    def _fail(self) -> NoReturn:
        code = self._process.wait(_END_SECONDS)
        self._errors.seek(0)
        said = self._errors.read().strip()[-3000:]
        raise ProcessFailed(f"exit code {code} with the package in {self._package}: {said}")


def _notes(package: Path, part: str, seed: int, *, texts: bool) -> list[str]:
    with _Child(package, part, seed, 1, "--keep", texts=texts) as child:
        return child.lines()


def _first_difference(part: str, old: Path, new: Path, seed: int, *, texts: bool) -> str:
    """Return the notes before it, and how either side goes on."""
    before, after = _notes(old, part, seed, texts=texts), _notes(new, part, seed, texts=texts)
    pairs = enumerate(zip_longest(before, after, fillvalue="(the end)"))
    place, one, other = next(((place, *pair) for place, pair in pairs if pair[0] != pair[1]), (-1, "", ""))
    if place < 0:
        return f"seed {seed} differs, and did not when it was repeated: something in it is left to chance"
    parting = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
    lines = [f"seed {seed}, note {place + 1} of {len(before)} before and {len(after)} now:"]
    lines += [f"    {_shown(note)}" for note in before[max(0, place - _CONTEXT) : place]]
    for mark, notes in (("-", before), ("+", after)):
        rest = notes[place : place + _AFTER] or ["(the end)"]
        lines += [f"  {mark} {_shown(note, parting)}" for note in rest]
    return "\n".join(lines)


def _shown(note: str, place: int = 0) -> str:
    """Return the part of a long note in which the place lies."""
    start = max(0, place - _WIDTH // 2) if len(note) > _WIDTH else 0
    end = start + _WIDTH
    return ("..." if start else "") + note[start:end] + ("..." if len(note) > end else "")
