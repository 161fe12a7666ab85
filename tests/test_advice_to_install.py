"""Advice to install something never names a project that somebody else could register."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from device_sdk.errors import MissingDependency

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
TEXTS = ("*.py", "*.md", "*.toml", "*.service")
# This distribution by its name, as something to install: from a package index, which does not have it.
BY_NAME = re.compile(r"\binstall\b[^\n`#]*(?<![/\w])device[-_]sdk\b(?![_./-])", re.IGNORECASE)


def texts() -> list[Path]:
    folders = ("device_sdk", "docs", "hil", "benchmarks", "firmware_examples", "tests", "scripts")
    found = [path for folder in folders for kind in TEXTS for path in (ROOT / folder).rglob(kind)]
    return [*found, *ROOT.glob("*.md"), *(path for path in (ROOT / "scripts").iterdir() if path.is_file())]


def extras_in_the_source() -> set[str]:
    """Names of extras that MissingDependency is raised with, and those in a table of texts."""
    found: set[str] = set()
    for path in (ROOT / "device_sdk").rglob("*.py"):
        for call in re.finditer(
            r"MissingDependency\((.*?)\)\s*(?:from|$)", path.read_text("utf-8"), re.S | re.M
        ):
            found.update(re.findall(r',\s*"(\w+)"', call[1])[-1:])
    return found


def test_no_text_names_this_project_as_one_of_a_package_index() -> None:
    looked_at = [path for path in texts() if path != Path(__file__)]
    found = [(path, BY_NAME.search(path.read_text(encoding="utf-8"))) for path in looked_at]
    assert len(looked_at) > 400
    assert [f"{path.relative_to(ROOT)}: {match[0]}" for path, match in found if match] == []


def test_the_search_finds_such_a_text() -> None:
    assert BY_NAME.search("pip install 'device-sdk[node]'")
    assert BY_NAME.search("pip install --upgrade device_sdk")
    assert not BY_NAME.search("pip install '.[node]'")


@pytest.mark.parametrize("extra", sorted(extras_in_the_source()))
def test_a_missing_package_is_named_as_the_project_file_names_it(extra: str) -> None:
    missing = MissingDependency("the feature", extra)
    required = [requirement.partition(";")[0].strip() for requirement in EXTRAS[extra]]
    assert list(missing.packages) == required
    for requirement in required:
        assert f"'{requirement}'" in str(missing), "quoted: a shell takes >= for a redirection"
    assert "device-sdk" not in str(missing)


def test_every_extra_of_an_error_is_looked_at() -> None:
    assert extras_in_the_source() == {
        "blinka", "broker", "identity", "node", "proxy", "serial", "srv", "websockets",
    }  # fmt: skip


def test_an_extra_of_somebody_else_is_named_without_a_command() -> None:
    missing = MissingDependency("the feature", "theirs")
    assert (missing.extra, missing.packages) == ("theirs", ())
    assert "pip" not in str(missing)
