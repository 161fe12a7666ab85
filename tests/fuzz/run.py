"""The long run of one target: guided by coverage with atheris, or with our own mutator. See scripts/fuzz."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main", "read_corpus"]

CORPUS = Path(__file__).parent / "corpus"
#: Inputs that atheris finds worth keeping go here, and those that fail; git ignores it.
WORK = Path(__file__).parents[2] / "build" / "fuzz"
_SKIPPED = 77
_NO_ATHERIS = """\
skipped: the coverage-guided run needs atheris: pip install -e '.[fuzz]'
         (wheels for x86-64 Linux; without it: scripts/fuzz {target} --runs {runs} --plain)"""


def read_corpus(target: str) -> dict[str, bytes]:
    """Return the committed seeds of a target by their names."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / target).iterdir())}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Give hostile bytes to a target of tests/fuzz/targets.py until an invariant breaks.",
        epilog="Exit codes: 0 nothing found, 2 wrong arguments, 77 no atheris here, others: found.",
    )
    parser.add_argument("target", help="a folder of tests/fuzz/corpus, or 'all', one after the other")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs for each target (1,000,000)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (1)")
    parser.add_argument("--plain", action="store_true", help="mutate without coverage, as the tests do")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one target or all; return the exit code."""
    options = _arguments(arguments)
    known = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())
    if options.target not in (*known, "all"):
        print(
            f"scripts/fuzz: no target {options.target!r}; there are: all, {', '.join(known)}", file=sys.stderr
        )
        return 2
    if options.target == "all" and not options.plain:
        print("scripts/fuzz: atheris takes one target for each process; name it", file=sys.stderr)
        return 2
    if options.plain:
        return _run_plain(known if options.target == "all" else [options.target], options.runs, options.seed)
    return _run_atheris(options.target, options.runs, options.seed)


def _run_plain(targets: Sequence[str], runs: int, seed: int) -> int:
    mutate = importlib.import_module("tests.fuzz.mutate")
    table = importlib.import_module("tests.fuzz.targets").TARGETS
    for name in targets:
        try:
            mutate.fuzz(table[name], list(read_corpus(name).values()), runs, seed)
        except AssertionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(f"{name}: {runs:,} inputs, nothing found (seed {seed})", flush=True)
    return 0


def _run_atheris(target: str, runs: int, seed: int) -> int:
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        print(_NO_ATHERIS.format(target=target, runs=runs), file=sys.stderr)
        return _SKIPPED
    # Only what is fuzzed is instrumented, and only when it is imported after this.
    with atheris.instrument_imports(include=["device_sdk.mqtt", "device_sdk.net"]):
        table = importlib.import_module("tests.fuzz.targets").TARGETS
    folder = WORK / target
    folder.mkdir(parents=True, exist_ok=True)
    committed = CORPUS / target
    arguments = [f"-runs={runs}", f"-seed={seed}", "-max_len=600", f"-artifact_prefix={folder}-failed-"]
    atheris.Setup(["scripts/fuzz", str(folder), str(committed), *arguments], table[target])
    atheris.Fuzz()  # ends the process: with 0, or with the input that failed
    return 0


if __name__ == "__main__":
    sys.exit(main())
