"""Every fault of a configuration file at once: where, what was expected, what was found, what was meant."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_sdk.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ConfigFaults", "Fault", "Faults", "line_numbers", "mismatch", "shown"]

_LONGEST_SHOWN = 60
_SECRET = re.compile(r"passw|secret|token|url$", re.IGNORECASE)  # a URL may hold a password

# What the TOML types are called.
_TYPE_NAMES: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number"),
    (str, "a text"),
    (dict, "a table"),
    (list, "an array"),
)

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]")
_KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[\w.-]+(?:\s*\.\s*[\w-]+)*)\s*=""")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    ``path`` as in ``sensor[2].interval`` (counted from 0), ``problem`` in words, ``line`` in the file from 1,
    0 when it is not known.
    """

    path: str
    problem: str
    line: int = 0

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path}: {self.problem}" if self.path else f"{where}{self.problem}"


class ConfigFaults(ConfigError):
    """A configuration has faults; ``faults`` holds all of them, in the order of the file."""

    def __init__(self, name: str, faults: Sequence[Fault]) -> None:
        count = "one error" if len(faults) == 1 else f"{len(faults)} errors"
        super().__init__("\n  ".join([f"{name} has {count}:", *map(str, faults)]))
        self.faults = tuple(faults)


class Faults:
    """Collects faults. ``lines`` are those of :func:`line_numbers`."""

    def __init__(self, lines: Mapping[str, int] | None = None) -> None:
        self._lines = lines or {}
        self._found: list[Fault] = []

    def add(self, path: str, problem: str) -> None:
        """Note a fault. A path that the file does not have gets the line of the table around it."""
        place = path
        while place and place not in self._lines:
            place = re.sub(r"(^|\.)[^.\[\]]*$|\[\d+\]$", "", place)
        self._found.append(Fault(path, problem, self._lines.get(place, 0)))

    def __len__(self) -> int:
        return len(self._found)

    def raise_if_any(self, name: str) -> None:
        """Raise ConfigFaults for the file ``name`` if something was found."""
        if self._found:
            raise ConfigFaults(name, sorted(self._found, key=lambda fault: fault.line))


def mismatch(expected: str, found: object, path: str = "", hint: str = "") -> str:
    """Return ``expected ..., found ...`` with the hint; the value at a secret ``path`` is not shown."""
    return f"expected {expected}, found {shown(found, path)}{hint}"


def shown(value: object, path: str = "") -> str:
    """Return a value as the file has it, shortened; of one at a secret ``path`` only the type."""
    if _SECRET.search(path):
        return next((name for kind, name in _TYPE_NAMES if isinstance(value, kind)), type(value).__name__)
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def line_numbers(text: str) -> dict[str, int]:
    """Return where each table and key of a TOML text stands: path -> line, counted from 1.

    Good for what people write in a configuration: keys inside arrays and inline tables are not in it.
    """
    lines: dict[str, int] = {}
    arrays: Counter[str] = Counter()
    table = ""
    open_quotes = ""  # those of a text over several lines
    for number, line in enumerate(text.splitlines(), 1):
        if not open_quotes:
            header, key = _HEADER.match(line), _KEY.match(line)
            if header is not None:
                table = _table_path(header[2], arrays, is_array=header[1] == "[[")
                lines.setdefault(table, number)
            elif key is not None:
                lines.setdefault(f"{table}.{_bare(key[1])}".lstrip("."), number)
        for quotes in ('"""', "'''"):
            if open_quotes in ("", quotes) and line.count(quotes) % 2:
                open_quotes = "" if open_quotes else quotes
    return lines


def _table_path(name: str, arrays: Counter[str], *, is_array: bool) -> str:
    """Return ``sensor[1].options`` for the header ``sensor.options`` after the second ``[[sensor]]``."""
    path = ""
    parts = _bare(name).split(".")
    for position, part in enumerate(parts):
        path = f"{path}.{part}".lstrip(".")
        if is_array and position == len(parts) - 1:
            arrays[path] += 1
        if arrays[path]:
            path = f"{path}[{arrays[path] - 1}]"
    return path


def _bare(key: str) -> str:
    return re.sub(r"\s*\.\s*", ".", key).replace('"', "").replace("'", "")
