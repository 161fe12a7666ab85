"""scripts/paho-suite: the parts that need no network. The suite itself is run by the script."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.paho.suite.run import Suite, selects


@pytest.mark.parametrize(
    ("name", "selected"),
    [
        ("tests/test_a.py", True),
        ("tests/test_a.py::TestB", True),
        ("tests/test_a.py::TestB::test_c", True),
        ("tests/test_a.py::TestB::test_c[tcp]", True),
        ("tests/test_a.py::Test", False),
        ("tests/test_a.py::TestB::test_c[unix]", False),
        ("tests/test", False),
    ],
)
def test_a_name_selects_what_is_below_it(name: str, selected: bool) -> None:
    assert selects(name, "tests/test_a.py::TestB::test_c[tcp]") is selected


def test_a_deselected_name_that_no_longer_exists_is_found(tmp_path: Path) -> None:
    suite = Suite(tmp_path)
    suite.deselected = {"tests/test_a.py": "a reason", "tests/test_gone.py::test_x": "a reason"}
    assert suite.unknown_names(["tests/test_a.py::test_b"]) == ["tests/test_gone.py::test_x"]


def test_every_deselected_test_has_a_reason() -> None:
    deselected = Suite().deselected
    assert deselected
    for name, reason in deselected.items():
        assert len(reason) > 20, name
