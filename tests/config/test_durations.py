"""Durations as people write them."""

from __future__ import annotations

import re

import pytest

from device_sdk.config.durations import DURATION_PATTERN, parse_duration, spell_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("1.5 h", 5400), ("5m", 300), ("1d", 86_400), ("0s", 0),
     ("10", None), ("s", None), ("-1s", None), ("10 sec", None), ("1e3s", None), ("", None)],
)  # fmt: skip
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float | None) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["500ms", "10s", "1.5 h", "5m", "1d", "10", "s", "-1s", "10 sec", "1e3s", "", "1s\n"]
)
def test_the_pattern_for_editors_agrees(text: str) -> None:
    is_written_so = re.search(DURATION_PATTERN.removesuffix("$") + r"\Z", text) is not None
    assert is_written_so == (parse_duration(text) is not None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "10ms"), (0.5, "500ms"), (1, "1s"), (60, "1m"), (90, "90s"), (600, "10m"), (3600, "1h"),
     (86_400, "1d"), (31 * 86_400, "31d"), (3650 * 86_400, "3650d"), (1.5, "1500ms"), (0, "0s")],
)  # fmt: skip
def test_a_duration_is_spelled_in_the_largest_unit_that_leaves_no_fraction(seconds: float, text: str) -> None:
    assert spell_duration(seconds) == text
    assert parse_duration(text) == seconds
