"""Durations as people write them: ``"500ms"``, ``"10s"``, ``"5m"``, ``"1.5h"``, ``"1d"``."""

from __future__ import annotations

import re

__all__ = ["DURATION_PATTERN", "parse_duration", "spell_duration"]

# From the longest to the shortest.
_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1, "ms": 0.001}

DURATION_PATTERN = r"^\d+(\.\d+)? ?(ms|s|m|h|d)$"
"""A regular expression, for Python and for JSON Schema."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d)")


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration; ``None`` for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    seconds = float(match[1]) * _SECONDS[match[2]]
    return int(seconds) if seconds.is_integer() else seconds


def spell_duration(seconds: float) -> str:
    """Return the shortest way to write a duration without a fraction: ``"10m"`` for 600."""
    for unit, size in _SECONDS.items():
        count = round(seconds / size, 6)
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{seconds:g}s"
