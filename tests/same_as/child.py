"""One of the two processes: runs seeds with the package of one folder, and says what each of them did.

``child.py PACKAGE PART FIRST COUNT [--keep] [--without-texts]``: for each seed one line on standard output, a
JSON list of the seed, the digest of its notes and their number by word; with ``--keep`` the notes themselves,
one on a line. PACKAGE is the folder in which ``device_sdk`` lies; everything else is of this checkout.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

__all__ = ["PARTS", "Tape"]

ROOT = Path(__file__).resolve().parent.parent.parent

#: Name -> module with ``run(seed, note)``; in the order in which they are compared.
PARTS = {"engine": "tests.same_as.engine", "drop-in": "tests.same_as.dropin"}


_SEEDS_PER_COLLECTION = 25


class Tape:
    """Takes notes, and keeps their digest, or themselves."""

    def __init__(self, *, keep: bool) -> None:
        self.lines: list[str] | None = [] if keep else None
        self.counts: Counter[str] = Counter()
        self._digest = hashlib.blake2b(digest_size=16)

    def note(self, word: str, *values: object) -> None:
        """Take one."""
        line = f"{word} {', '.join(map(repr, values))}"
        self.counts[word] += 1
        self._digest.update(line.encode() + b"\n")
        if self.lines is not None:
            self.lines.append(line)

    def digest(self) -> str:
        """Return a short text that two equal tapes have in common."""
        return self._digest.hexdigest()


def main() -> None:
    """Run the seeds."""
    package, part, first, count, *flags = sys.argv[1:]
    sys.path[:0] = [package, str(ROOT)]
    from tests.same_as import virtual

    virtual.install()
    import device_sdk

    found = Path(device_sdk.__file__).resolve().parent.parent
    assert found == Path(package).resolve(), f"device_sdk was imported from {found}, not from {package}"
    from tests.simulation.tape import Text

    Text.hidden = "--without-texts" in flags
    keep = "--keep" in flags
    run = import_module(PARTS[part]).run
    gc.disable()  # when it comes is left to chance
    for seed in range(int(first), int(first) + int(count)):
        if seed % _SEEDS_PER_COLLECTION == 0:
            gc.collect()
        tape = Tape(keep=keep)
        try:
            run(seed, tape.note)
        except Exception as error:
            tape.note("failed", type(error).__name__, Text(error))
        lines = tape.lines if tape.lines is not None else [json.dumps([seed, tape.digest(), tape.counts])]
        for line in lines:
            sys.stdout.write(line.replace("\n", "\\n") + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
