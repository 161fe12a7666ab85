"""``python -m tests.same_as COMMIT``: does the package do exactly what it did at that commit?"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from tests.same_as.child import PARTS, ROOT
from tests.same_as.compare import Comparison, ProcessFailed, checkout, compare

_DIFFERENT = 1
_TROUBLE = 2
_PROGRESS_SECONDS = 10.0


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.same_as",
        description="Run the same seeds with the package of a commit and with that of the working tree, each "
        "in a process of its own, and compare in order: bytes each way, changes of the store, events, calls "
        "of handlers and hooks, wake-ups, return values.",
        epilog="Exit codes: 0 the same, 1 a seed differs, 2 it could not be compared.",
    )
    parser.add_argument("commit", help="of this repository: a hash, a branch, HEAD")
    parser.add_argument("--seeds", type=int, default=500, help="of each part (500)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--part", choices=PARTS, action="append", help=f"only this: {', '.join(PARTS)}")
    parser.add_argument("--without-texts", action="store_true", help="words of errors and events may differ")
    return parser.parse_args(arguments)


class _Progress:
    """Says now and then how far it is, to a person who waits."""

    def __init__(self, part: str, count: int) -> None:
        self._part, self._count = part, count
        self._told = time.monotonic()

    def __call__(self, seeds: int) -> None:
        if time.monotonic() - self._told >= _PROGRESS_SECONDS:
            self._told = time.monotonic()
            sys.stderr.write(f"{self._part}: {seeds} of {self._count} seeds\n")


def _described(part: str, comparison: Comparison) -> str:
    """Return the result line of one part."""
    total = comparison.counts.total()
    words = ", ".join(f"{count:,} {word}" for word, count in sorted(comparison.counts.items()))
    return f"{part}: {comparison.seeds} seeds equal, {total:,} notes: {words}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, and return the exit code."""
    options = _arguments(arguments)
    code = 0
    try:
        with checkout(options.commit) as old:
            for part in options.part or PARTS:
                comparison = compare(
                    part, old, ROOT, options.first, options.seeds,
                    texts=not options.without_texts, progress=_Progress(part, options.seeds),
                )  # fmt: skip
                sys.stdout.write(_described(part, comparison) + "\n")
                if comparison.difference is not None:
                    sys.stdout.write(f"{part} is DIFFERENT: {comparison.difference.text}\n")
                    code = _DIFFERENT
                sys.stdout.flush()
    except (ProcessFailed, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return _TROUBLE
    return code


if __name__ == "__main__":
    sys.exit(main())
