"""``python -m tests.simulation``: simulate until there is enough, or repeat one seed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.simulation.campaign import describe, run_until, seeds_to_find
from tests.simulation.history import SimulationFailure
from tests.simulation.planted import PLANTED
from tests.simulation.run import Figures, simulate

_FOUND = 1


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description="Run client, broker and a bad network in virtual time, and check what came of it.",
        epilog="Exit codes: 0 nothing found, 1 a seed failed or a planted bug was not found.",
    )
    parser.add_argument("--seed", type=int, help="repeat this one run")
    parser.add_argument("--first", type=int, default=0, help="the first of many seeds (0)")
    parser.add_argument("--messages", type=int, default=200_000, help="go on until so many (200,000)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so much time")
    parser.add_argument(
        "--planted", type=int, metavar="MOST", help="find each planted bug with so many seeds"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _arguments(arguments)
    if options.planted is not None:
        return _find_planted(options.planted)
    figures, begun = Figures(), time.monotonic()
    code = 0
    try:
        if options.seed is not None:
            figures.add(simulate(options.seed))
        else:
            run_until(figures, options.first, messages=options.messages, seconds=options.seconds)
    except SimulationFailure as failure:
        sys.stdout.write(f"found: {failure}\n")
        code = _FOUND
    sys.stdout.write(describe(figures, time.monotonic() - begun) + "\n")
    return code


def _find_planted(most: int) -> int:
    missed = 0
    for bug in PLANTED:
        found = seeds_to_find(bug, 0, most)
        missed += found is None
        count, what = found or (most, "NOT FOUND")
        sys.stdout.write(f"{count:4} seeds  {bug.name}: {what[:100]}\n")
        sys.stdout.flush()
    return _FOUND if missed else 0


if __name__ == "__main__":
    sys.exit(main())
