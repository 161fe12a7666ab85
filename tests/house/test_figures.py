"""``python -m tests.house`` prints the figures of this checkout, and of another commit."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.architecture.rules import RULES
from tests.house.__main__ import report_of
from tests.house.figures import read_checkout, report

FILES = {
    "device_sdk/a.py": (
        '"""Module."""\n'
        "class A:\n"
        '    """Class."""\n'
        "    def go(self, given: int) -> None:\n"
        "        self.x = given  # type: ignore\n"
        "    def _private(self, given):\n"
        "        self.y = given\n"
        "        self.z = given\n"
    ),
    "device_sdk/b.py": (
        "from device_sdk.a import A\nclass B(A):\n    def other(self) -> None:\n        self.w = 1\n"
    ),
    "hil/README.md": "The rig.\n",
    "tests/test_a.py": (
        "def test_one() -> None:\n    assert 1\ndef test_two() -> None:\n    pass\n    assert 1\n"
    ),
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def rows(text: str) -> dict[str, list[str]]:
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {first: rest for first, *rest in cells}


def test_the_figures_of_a_small_checkout(small: Path) -> None:
    found = rows(report(read_checkout(small), RULES))
    assert {name: found[name] for name in list(found)[1:16]} == {
        "files / lines": ["2 / 12"],
        "function lines, median / p95 / max": ["2 / 3 / 3"],
        "the same in code lines": ["1 / 2 / 2"],
        "functions > 40 / > 60 lines": ["0 / 0 of 3"],
        "functions > 45 code lines": ["0"],
        "modules > 500 lines / largest": ["0 / 8"],
        "modules > 500 code lines / largest": ["0 / 4"],
        "classes > 15 methods (one class body)": ["0 of 2"],
        "classes > 12 attributes (one class body)": ["0"],
        "deepest class, project bases only": ["2 (device_sdk/b.py:B)"],
        "public docstrings": ["33 %"],
        "return / argument types": ["67 % / 50 %"],
        "`type: ignore`": ["1"],
        "tests; median / p95 lines": ["2; 3 / 3"],
        "object": ["rungs", "files", "lines", "methods", "attributes"],
    }
    assert found["B < A (device_sdk/b.py)"] == ["2", "2", "10", "3", "4"]
    assert found["private names of others"] == ["0", "0"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_figures_of_another_commit_are_those_of_its_files(small: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *arguments], cwd=small, check=True, stdout=subprocess.PIPE)

    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "First")
    (small / "device_sdk" / "c.py").write_text('"""Module."""\n', encoding="utf-8")
    assert rows(report_of("HEAD", small))["files / lines"] == ["2 / 12"]
    assert rows(report(read_checkout(small), RULES))["files / lines"] == ["3 / 13"]
