"""Every row of the scenario groups has tests that exist, or a reason."""

from __future__ import annotations

import ast
import csv
from functools import cache

from tests.conformance.groups import GROUPS, NOT_OFFERED, ROOT, cases


@cache
def functions(path: str) -> frozenset[str]:
    """Return the names of the functions of a test file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_row_of_the_groups_has_a_test_or_a_reason() -> None:
    with (ROOT / "vectors" / "conformance" / "scenarios.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["id"] for row in csv.DictReader(file) if row["id"][0] not in "MP"}
    assert len(rows) == 42
    assert GROUPS.keys() | NOT_OFFERED.keys() == rows
    assert not GROUPS.keys() & NOT_OFFERED.keys()
    assert all(len(reason) > 20 for reason in NOT_OFFERED.values())


def test_every_case_has_a_test_that_exists() -> None:
    missing = [each for each in cases() if each[3] not in functions(each[2])]
    assert missing == []
    assert {row for row, *_ in cases()} == GROUPS.keys()


def test_every_case_of_this_folder_s_group_tests_is_named_by_a_row() -> None:
    named = {test for _, _, path, test in cases() if path == "conformance/test_groups.py"}
    written = {name for name in functions("conformance/test_groups.py") if name.startswith("test_")}
    assert written == named
