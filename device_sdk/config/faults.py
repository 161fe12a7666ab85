"""Every fault of a configuration file at once: place, expected, found, and a suggestion."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from device_sdk._printable import printable
from device_sdk._text import did_you_mean
from device_sdk._words import key_hint
from device_sdk.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "ConfigFaults",
    "Fault",
    "Faults",
    "mismatch",
    "not_one_of",
    "one_of",
    "shown",
    "suggestion",
    "unknown",
]

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


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

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
        super().__init__(f"{name} has {count}:")
        self.faults = tuple(faults)

    def __str__(self) -> str:
        return "\n  ".join([super().__str__(), *(printable(str(fault)) for fault in self.faults)])


class Faults:
    """Collects faults. ``lines`` are those of :func:`~device_sdk.config.toml.line_numbers`."""

    def __init__(self, lines: Mapping[str, int] | None = None) -> None:
        self._lines = lines or {}
        self._found: list[Fault] = []

    def add(self, path: str, problem: str) -> None:
        """Note a fault. A path that the file does not have gets the line of the table around it."""
        place = path
        while place and place not in self._lines:
            around = re.sub(r"(^|\.)[^.\[\]]*$|\[\d+\]$", "", place)
            place = around if around != place else ""  # a key in quotes may have brackets of its own
        self._found.append(Fault(path, problem, self._lines.get(place, 0)))

    def reword(self, path: str, problem: str) -> None:
        """Say a fault in other words that was noted before, by somebody who knows less of it."""
        self._found = [replace(one, problem=problem) if one.path == path else one for one in self._found]

    def __len__(self) -> int:
        return len(self._found)

    def raise_if_any(self, name: str) -> None:
        """Raise ConfigFaults for the file ``name`` if there are any."""
        if self._found:
            raise ConfigFaults(name, sorted(self._found, key=lambda fault: fault.line))


def mismatch(expected: str, found: object, path: str = "", hint: str = "") -> str:
    """Return ``expected ..., found ...`` with the hint; the value at a secret ``path`` is not shown."""
    return f"expected {expected}, found {shown(found, path)}{hint}"


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean ...?"``, or the list of known names if none is near."""
    names = list(known)
    return did_you_mean(wrong, names) or f"; there is: {', '.join(names)}"


def unknown(key: str, known: Iterable[str], *, what: str = "key") -> str:
    """Return the problem of a key, or of a table, that does not exist."""
    names = list(known)
    return f"there is no such {what}{key_hint(key, names) or suggestion(key, names)}"


def one_of(choices: Iterable[str]) -> str:
    """Return the "expected" of a text that has to be one of these."""
    return "one of " + ", ".join(f'"{choice}"' for choice in choices)


def not_one_of(choices: Iterable[str], found: object) -> str:
    """Return the problem of a value that is none of these."""
    names = list(choices)
    return mismatch(one_of(names), found, hint=did_you_mean(found, names) if isinstance(found, str) else "")


def shown(value: object, path: str = "") -> str:
    """Return a value as the file has it, shortened; of one at a secret ``path`` only the type."""
    if _SECRET.search(path):
        return next((name for kind, name in _TYPE_NAMES if isinstance(value, kind)), type(value).__name__)
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
