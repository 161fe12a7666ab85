"""Run the faults: ``python -m tests.faults [--files FILE ...] [WORD ...]`` in the root of the project.

``--anchors`` only looks whether each can be planted, in seconds, those of the simulation included.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.conformance.catalogue import Key
from tests.faults.fault import Fault
from tests.faults.run import Outcome, TestsFailAlready, anchor_problems, run_all
from tests.faults.table import FAULTS


def _chosen(words: list[str], files: list[str]) -> list[Fault]:
    """Return the faults that have one of the words in their names, or are one of these statements.

    ``files``: only those in one of these files or folders of the package.
    """
    places = [Path(file.removeprefix("device_sdk/")) for file in files]
    return [
        fault
        for fault in FAULTS
        if not places or any(Path(fault.file).is_relative_to(place) for place in places)
        if not words
        or any(word in fault.name or word in {name for _, name in fault.statements} for word in words)
    ]


def _look_at_anchors(faults: list[Fault], files: list[str]) -> int:
    """Print which cannot be planted; return the exit code."""
    problems = anchor_problems(faults)
    bugs = 0
    if not files:
        bugs, stale = _bugs_of_the_simulation()
        problems |= stale
    for name, problem in problems.items():
        _say(f"STALE  {name}\n    {problem}")
    _say(f"{len(faults)} faults and {bugs} bugs of the simulation; {len(problems)} cannot be planted")
    return 1 if problems else 0


def _bugs_of_the_simulation() -> tuple[int, dict[str, str]]:
    """Return how many there are, and why some cannot be planted."""
    try:
        from tests.simulation.planted import PLANTED
    except Exception as error:  # it reads its source when it is imported
        return 0, {"all bugs of the simulation": f"{type(error).__name__}: {error}"}
    problems = {}
    for bug in PLANTED:
        try:
            with bug.planted():
                pass
        except Exception as error:
            problems[f"simulation: {bug.name}"] = f"{type(error).__name__}: {error}"
    return len(PLANTED), problems


def _named(statements: Iterable[Key]) -> str:
    return " ".join(f"{version}/{name}" for version, name in statements)


def _line(outcome: Outcome) -> str:
    """Return one row of the table."""
    verdict = "noticed " if outcome.noticed else "TROUBLE " if outcome.trouble else "SURVIVED"
    figures = f"{outcome.seconds:5.1f} s {len(outcome.failed):2} tests"
    row = f"{verdict} {figures}  {outcome.fault.name}  [{_named(outcome.fault.statements)}]"
    if outcome.trouble:
        return f"{row}\n    {outcome.trouble}"
    if outcome.unnoticed:
        return f"{row}\n    no test failed for {_named(outcome.unnoticed)}"
    return row


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Return the exit code: 0, or 1 if a fault was not noticed or the tests fail without any."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description="Plant small faults in a copy of the source: tests that name the statements must fail.",
    )
    parser.add_argument("words", nargs="*", help="statements or parts of names; none: all faults")
    parser.add_argument("--workers", type=int, default=2, help="copies that are tested at the same time (2)")
    parser.add_argument("--list", action="store_true", help="only print the faults")
    parser.add_argument("--anchors", action="store_true", help="only look whether each can be planted")
    parser.add_argument(
        "--files",
        nargs="+",
        default=[],
        metavar="FILE",
        help="only the faults in these, or below these folders",
    )
    options = parser.parse_args()
    faults = _chosen(options.words, options.files)
    if not faults:
        parser.error("there is no such fault")
    if options.anchors:
        return _look_at_anchors(faults, options.files)
    if options.list:
        for fault in faults:
            _say(f"{fault.name}  [{_named(fault.statements)}]")
        return 0
    survivors = 0
    try:
        for outcome in run_all(faults, options.workers):
            _say(_line(outcome))
            survivors += not outcome.noticed
    except TestsFailAlready as error:
        _say(str(error))
        return 1
    statements = {key for fault in faults for key in fault.statements}
    _say(f"{len(faults)} faults in {len(statements)} statements; {survivors} not noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
