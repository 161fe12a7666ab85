"""docs/architecture.md is about the source as it is: its life cycle, its locks, its names and its files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk.engine.life_cycle import IDLE, TRANSITIONS
from tests.pages.page import DOCS, blocks

ROOT = DOCS.parent
PACKAGE = ROOT / "device_sdk"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """Return the text under a heading, which has to be there."""
    found = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    assert found, heading
    return found


def test_the_drawing_of_the_life_cycle_has_every_transition_of_the_table_and_no_other() -> None:
    (drawing,) = (block.text for block in blocks("architecture.md") if block.heading == "The life cycle")
    drawn = re.findall(r"^    (\w+) --> (\w+): (\w+)$", drawing, re.MULTILINE)
    table = [
        (before, after, trigger) for trigger, row in TRANSITIONS.items() for before, after in row.items()
    ]
    assert sorted(drawn) == sorted(table)
    assert re.findall(r"\[\*\] --> (\w+)", drawing) == [IDLE]


def test_every_trigger_is_explained() -> None:
    assert set(re.findall(r"\*(\w+)\*:", section("The life cycle"))) == set(TRANSITIONS)


def made_locks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Return class, or "" for the module, and name of what a lock is assigned to."""
    owners = {
        id(node): owner.name
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for node in ast.walk(owner)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[target], value=ast.Call(func=function)):
                if re.fullmatch(r"(threading\.)?(Lock|RLock|Condition)", ast.unparse(function)):
                    yield owners.get(id(node), ""), ast.unparse(target).removeprefix("self.")


def test_a_lock_is_found_wherever_it_is_made() -> None:
    source = "import threading\nx = threading.Lock()\nclass A:\n  def f(self):\n    self._y = RLock()\n"
    assert list(made_locks(ast.parse(source))) == [("", "x"), ("A", "_y")]


def test_the_table_of_locks_names_every_lock_of_the_package() -> None:
    page = section("Locks, in the order in which they are taken")
    missing = []
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] in ("testing", "cli"):
            continue
        for owner, name in made_locks(ast.parse(path.read_text(encoding="utf-8"))):
            shown = f"`{owner}.{name}`" if owner else f"`{name}`"
            if name == "_life":
                shown = "`Client._life`"  # BaseClient makes it
            if shown not in page and (owner, name) not in {("SqliteStore", "_wake")}:  # on SqliteStore._lock
                missing.append(f"{path.relative_to(ROOT)}: {shown}")
    assert missing == []


def defined() -> dict[str, set[str]]:
    """Return the names that each class of the package defines in its body or writes by ``self``."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            names = found.setdefault(node.name, set())
            for inner in ast.walk(node):
                match inner:
                    case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                        names.add(name)
                    case ast.Attribute(value=ast.Name(id="self"), attr=name):
                        names.add(name)
    return found


def test_every_method_that_the_page_names_is_there() -> None:
    classes = defined()
    named = re.findall(r"`([A-Z]\w+)\.(\w+)(?:\(\))?`", PAGE)
    assert len(named) > 30
    # Client has what its base makes.
    classes["Client"] |= classes["BaseClient"]
    assert [(owner, name) for owner, name in named if name not in classes.get(owner, set())] == []


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", PAGE))
    here = [
        PACKAGE,
        PACKAGE / "engine",
        PACKAGE / "engine" / "connecting",
        PACKAGE / "engine" / "outgoing",
        ROOT,
    ]
    folders = set(re.findall(r"`(\w+/)`", PAGE))
    assert len(named) > 15
    assert [name for name in named if not any((folder / name).is_file() for folder in here)] == []
    assert [name for name in folders if not any((folder / name).is_dir() for folder in here)] == []


def test_the_evening_has_about_1500_lines() -> None:
    files = re.findall(r"^\d\. `([\w/]+\.py)`$", section("One evening"), re.MULTILINE)
    lines = sum((ROOT / name).read_text(encoding="utf-8").count("\n") for name in files)
    assert 1_200 <= lines <= 1_700, lines


@pytest.mark.parametrize("folder", sorted(path for path in (PACKAGE / "engine").rglob("*") if path.is_dir()))
def test_the_tables_of_the_engine_name_every_file(folder: Path) -> None:
    if folder.name != "__pycache__":
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        files = {path.name for path in folder.glob("*.py")} - {"__init__.py"}
        assert {name for name in files if f"``{name}``" not in text} == set()
