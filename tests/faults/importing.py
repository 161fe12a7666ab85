"""Does source still import with a fault in it? Asked of a process that is thrown away afterwards.

Reads a JSON list of [name, file, old, new] from standard input and writes a JSON object of problems by name.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import device_sdk

__all__ = ["main"]

_PACKAGE = Path(device_sdk.__file__).resolve().parent


def _problem(file: str, old: str, new: str) -> str:
    """Run a module with the fault in it beside the real one; say what is wrong, or ``""``."""
    path = _PACKAGE / file
    parts = ["device_sdk", *Path(file).with_suffix("").parts]
    if parts[-1] == "__init__":
        parts.pop()
    original = importlib.import_module(".".join(parts))
    planted = ModuleType(original.__name__)
    planted.__dict__.update(__file__=str(path), __package__=original.__package__)
    if hasattr(original, "__path__"):
        planted.__path__ = original.__path__
    source = path.read_text(encoding="utf-8").replace(old, new)
    try:
        exec(compile(source, str(path), "exec"), vars(planted))
    except BaseException as error:
        return f"device_sdk/{file} would not import: {type(error).__name__}: {error}"
    missing = _written(original) - vars(planted).keys()
    return f"device_sdk/{file} would not have {', '.join(sorted(missing))}" if missing else ""


def _written(module: ModuleType) -> set[str]:
    """Return the names that a module had when it was imported: others may import them."""
    code = compile(Path(str(module.__file__)).read_text(encoding="utf-8"), "", "exec")
    return set(code.co_names) & vars(module).keys() - {"__all__"}


def main(faults: Iterable[tuple[str, str, str, str]]) -> dict[str, str]:
    """Return the problems by the names of the faults."""
    problems = {name: _problem(file, old, new) for name, file, old, new in faults}
    return {name: problem for name, problem in problems.items() if problem}


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
