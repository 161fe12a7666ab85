"""One of the two processes: runs seeds with the package of one folder, and says what each of them did.

``child.py PACKAGE PART FIRST COUNT [--keep] [--without-texts]``: for each seed one line on standard output, a
JSON list of the seed, the digest of its notes and their number by word; with ``--keep`` the notes themselves,
one on a line. PACKAGE is the folder in which ``device_sdk`` lies; everything else is of this checkout.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

__all__ = ["PARTS", "Tape"]

ROOT = Path(__file__).resolve().parent.parent.parent

#: Name -> module with ``run(seed, note)``; in the order in which they are compared.
PARTS = {
    "engine": "tests.same_as.engine",
    "clients": "tests.same_as.clients",
    "drop-in": "tests.same_as.dropin",
}
_IN_STRANDS = {"clients"}  # whose threads take turns


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


class _NotedLog(logging.Handler):
    """Notes what the package logs."""

    note: Callable[..., None]

    def emit(self, record: logging.LogRecord) -> None:
        """Note one record, and which exception it tells of."""
        from tests.simulation.tape import Text

        kind = record.exc_info[0] if record.exc_info else None
        named = None if kind is None else kind.__name__
        self.note("logged", record.name, record.levelname, Text(record.getMessage()), named)


def _note_log() -> _NotedLog:
    log = logging.getLogger("device_sdk")
    log.setLevel(logging.INFO)
    log.propagate = False
    handler = _NotedLog()
    log.addHandler(handler)
    return handler


def main() -> None:
    """Run the seeds."""
    package, part, first, count, *flags = sys.argv[1:]
    sys.path[:0] = [package, str(ROOT)]
    from tests.same_as import virtual

    virtual.install()
    if part in _IN_STRANDS:
        from tests.same_as import strands

        strands.install()
    import device_sdk

    found = Path(device_sdk.__file__).resolve().parent.parent
    assert found == Path(package).resolve(), f"device_sdk was imported from {found}, not from {package}"
    from tests.simulation.tape import Text

    Text.hidden = "--without-texts" in flags
    keep = "--keep" in flags
    run = import_module(PARTS[part]).run
    log = _note_log()
    gc.disable()  # when it comes is left to chance
    for seed in range(int(first), int(first) + int(count)):
        if seed % _SEEDS_PER_COLLECTION == 0:
            gc.collect()
        tape = Tape(keep=keep)
        log.note = tape.note
        try:
            run(seed, tape.note)
        except Exception as error:
            tape.note("failed", type(error).__name__, Text(error))
        lines = tape.lines if tape.lines is not None else [json.dumps([seed, tape.digest(), tape.counts])]
        for line in lines:
            sys.stdout.write(line.replace("\n", "\\n") + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    code = 1
    try:
        main()
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        # What a run has left behind is not to be closed in good order: it may wait for ever.
        os._exit(code)
