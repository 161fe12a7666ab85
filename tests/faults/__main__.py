"""Run the faults: ``python -m tests.faults [--workers N] [--list] [WORD ...]`` in the root of the project."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from tests.conformance.catalogue import Key
from tests.faults.fault import Fault
from tests.faults.run import Outcome, TestsFailAlready, run_all
from tests.faults.table import FAULTS


def _chosen(words: list[str]) -> list[Fault]:
    """Return the faults that have one of the words in their names, or are one of these statements."""
    if not words:
        return list(FAULTS)
    return [
        fault
        for fault in FAULTS
        if any(word in fault.name or word in {name for _, name in fault.statements} for word in words)
    ]


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
    options = parser.parse_args()
    faults = _chosen(options.words)
    if not faults:
        parser.error("no fault has these words")
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
