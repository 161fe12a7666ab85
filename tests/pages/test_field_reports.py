"""Every row of docs/field-reports.md has its reports and its tests, which there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs/field-reports.md").read_text().splitlines()
    if line.startswith("| [")
]


@pytest.fixture(scope="module")
def tests() -> set[str]:
    sources = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}


def test_there_are_twenty_reports_and_more() -> None:
    assert len(ROWS) >= 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].partition("]")[0].lstrip("["))
def test_a_report_has_its_tests(row: list[str], tests: set[str]) -> None:
    reports, *texts, named = row
    assert "](https://" in reports
    assert len(texts) == 3
    assert all(texts)
    names = re.findall(r"`(test_\w+)`", named)
    assert names
    assert not set(names) - tests
