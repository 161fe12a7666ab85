"""The page that tells which feature is tested with which broker, made from the tests themselves."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

from tests.system.brokers import BROKERS, EVERY_RUN
from tests.system.matrix import FEATURES, deviation_of
from tests.system.matrix_broker import Deviation

__all__ = ["PAGE", "page"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "brokers-tested.md"

_FOLDER = ROOT / "tests" / "system"
_MATRIX = "test_broker_matrix"


def page() -> str:
    """Return the text of docs/brokers-tested.md."""
    importlib.import_module(f"tests.system.{_MATRIX}")  # its tests enter themselves
    lines = [
        "# Brokers that the tests run against",
        "",
        "Real brokers, each started by the tests on 127.0.0.1 with one user and a password. Every run has",
        f"{' and '.join(EVERY_RUN)}; `./scripts/test --brokers all` installs the others too and runs all.",
        "",
        "This page is written by `python -m tests.system`; do not edit it. A test compares it with them.",
        "",
        "## Brokers, streams and versions",
        "",
        *_streams(),
        "",
        "## Features",
        "",
        "Each test runs with each broker, in each version and over each stream of the table above, that of",
        "the asyncio client over TCP. *yes*: the broker does what the test demands; a number: it departs,",
        "see below; both: it departs on some streams; nothing: MQTT 5.0 only. A departure is tested as well:",
        "a test fails when the broker no longer does it.",
        "",
        *_features(),
        "",
        "## Departures",
        "",
        *_departures(),
        "",
        "## Other tests with brokers",
        "",
        "`model` is the broker of `device_sdk.testing`, for comparison.",
        "",
        *_others(),
    ]
    return "\n".join(lines) + "\n"


def _streams() -> list[str]:
    """Return the table of what each broker speaks."""
    streams = list(dict.fromkeys(stream for kind in BROKERS.values() for stream in kind.streams))
    rows = [
        [name, kind.origin, *(", ".join(kind.streams.get(stream, ())) for stream in streams)]
        for name, kind in BROKERS.items()
    ]
    return _table(["broker", "version and origin", *streams], rows)


def _features() -> list[str]:
    """Return the table of what the matrix shows."""
    rows = []
    for feature, found in FEATURES.items():
        row = [f"[{feature}](../tests/system/{_MATRIX}.py)"]
        for broker in BROKERS:
            at = [case for case in found.cases if case.broker == broker]
            departs = [deviation_of(feature, case) for case in at]
            numbers = sorted({_all_deviations().index((broker, each)) + 1 for each in departs if each})
            kept = ["yes"] if None in departs else []
            row.append(", ".join([*kept, *map(str, numbers)]))
        rows.append(row)
    return _table(["feature", *BROKERS], rows)


def _all_deviations() -> list[tuple[str, Deviation]]:
    return [(name, each) for name, kind in BROKERS.items() for each in kind.deviations]


def _departures() -> list[str]:
    """Return the numbered list of what the brokers do otherwise."""
    lines = []
    for number, (name, each) in enumerate(_all_deviations(), 1):
        where = ", ".join([*each.versions, *each.streams])
        lines.append(f"{number}. {name}{f' ({where})' if where else ''}, {each.feature}: {each.reason}.")
    return lines


def _others() -> list[str]:
    """Return the table of the other files of this folder: their tests, by broker and version."""
    rows = []
    for path in sorted(_FOLDER.glob("test_*.py")):
        if path.stem == _MATRIX:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        fixtures = {node.name: node for node in functions if not node.name.startswith("test_")}
        tests = [node for node in functions if node.name.startswith("test_")]
        used = [_brokers_of(node, fixtures) for node in tests]
        counts = [
            f"{name} {sum(name in each for each in used)}" for name in ("mosquitto", "iotcore", "model")
        ]
        title = (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")
        counted = ", ".join(count for count in counts if not count.endswith(" 0"))
        rows.append([f"[{path.stem}](../tests/system/{path.name})", title, counted])
    return _table(["file", "what", "tests with"], rows)


def _brokers_of(test: ast.FunctionDef, fixtures: dict[str, ast.FunctionDef]) -> set[str]:
    """Return the brokers that a test, or one of its fixtures, names."""
    arguments = [argument.arg for argument in test.args.args]
    text = " ".join(
        [ast.unparse(test), *(ast.unparse(fixtures[name]) for name in arguments if name in fixtures)]
    )
    found = {name for name in ("mosquitto", "iotcore", "model") if name in text.lower()}
    if "broker" in arguments and "broker" not in fixtures:  # that of conftest.py
        found |= set(EVERY_RUN)
    return found


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
