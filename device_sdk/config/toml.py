"""Reads a configuration file, and finds the line of each table and key."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from typing import TYPE_CHECKING

from device_sdk.config.faults import ConfigFaults, Fault
from device_sdk.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

__all__ = ["MAX_FILE_BYTES", "line_numbers", "parse_toml", "read_text"]

MAX_FILE_BYTES = 1 << 20

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]")
_KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[\w.-]+(?:\s*\.\s*[\w-]+)*)\s*=""")


def read_text(path: Path, limit: int = MAX_FILE_BYTES, *, what: str = "") -> str:
    """Return a UTF-8 file of at most ``limit`` bytes. Raises: ConfigError: why not.

    ``what`` stands before the path in the error: "the rig file ".
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ConfigError(f"{what}{path} is longer than {limit} bytes")
        return data.decode()
    except OSError as error:
        raise ConfigError(f"{what}{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what}{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Return the tables of a text. Raises: ConfigFaults: it is not TOML; the error calls it ``name``."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        fault = Fault("", f"not TOML: {error}", int(line[1]) if line else 0)
        raise ConfigFaults(name, [fault]) from None


def line_numbers(text: str) -> dict[str, int]:
    """Return the place of each table and key of a TOML text: path -> line, counted from 1.

    Good enough for configurations: keys inside arrays and inline tables are not in it.
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
