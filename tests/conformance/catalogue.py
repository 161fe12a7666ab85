"""Which normative statement is proven by which test, read from the source of the tests.

A test names what it proves with ``@pytest.mark.conformance(version, *ids)``, once for each version::

    @pytest.mark.conformance("5.0", "MQTT-3.2.0-2")
    def test_a_second_connack_is_an_error() -> None: ...

The statements and the reasons for those without a test are in ``tests/vectors/conformance/``.
"""

from __future__ import annotations

import ast
import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.groups import GROUPS, NOT_OFFERED

__all__ = ["PAGE", "Key", "Statement", "exemptions", "page", "proofs", "statements"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "conformance.md"

_DATA = ROOT / "tests" / "vectors" / "conformance"
_FILES = {"5.0": "mqtt5.csv", "3.1.1": "mqtt311.csv", "3.1": "mqtt31.csv"}

#: Version and identifier: the same identifier means different things in different versions.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Statement:
    """One normative statement, in our words."""

    version: str
    id: str
    binds: str
    paraphrase: str
    client_test: str

    @property
    def required(self) -> bool:
        """Whether a test or an exemption has to name it: it binds a client, or asks it to react."""
        return self.binds != "server" or "fake-broker" in self.client_test


def statements() -> dict[Key, Statement]:
    """Return all statements, in the order of the standards."""
    found = {}
    for version, name in _FILES.items():
        for row in _rows(name):
            statement = Statement(version, row["id"], row["binds"], row["paraphrase"], row["client_test"])
            assert row["version"] == version, row
            found[version, row["id"]] = statement
    return found


def exemptions() -> dict[Key, str]:
    """Return the reasons of the statements that no test names."""
    return {(row["version"], row["id"]): row["reason"] for row in _rows("exemptions.csv")}


def proofs() -> dict[Key, list[str]]:
    """Return the tests that name each statement, as pytest node identifiers."""
    found: dict[Key, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if "mark.conformance(" not in source:
            continue
        where = path.relative_to(ROOT).as_posix()
        for function in ast.walk(ast.parse(source, str(path))):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for key in _named(function):
                    found[key].append(f"{where}::{function.name}")
    return dict(found)


def _named(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[Key]:
    """Return what the decorators of a test name."""
    keys: list[Key] = []
    for call in function.decorator_list:
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.conformance":
            version, *ids = map(ast.literal_eval, call.args)
            keys += ((version, identifier) for identifier in ids)
    return keys


def page() -> str:
    """Return the text of docs/conformance.md."""
    tests, reasons = proofs(), exemptions()
    listed = [each for key, each in statements().items() if each.required or key in tests]
    shown = sum((each.version, each.id) in tests for each in listed)
    lines = [
        "# Conformance",
        "",
        "Every normative statement of the MQTT standards that binds a client, or that asks it to react to",
        "a server that breaks a rule, and the tests that prove it. The words are ours, the identifiers are",
        "those of the standards; MQTT 3.1 has none, there the names are ours. A test fails when a statement",
        "is missing here.",
        "",
        f"{shown} statements are shown by tests, {len(listed) - shown} are not, for the reason given.",
        "",
        "This page is written by `python -m tests.conformance`; do not edit it.",
    ]
    for version in _FILES:
        lines += ["", f"## MQTT {version}", "", "| statement | what it demands | shown by |", "|---|---|---|"]
        for each in listed:
            if each.version == version:
                key = version, each.id
                proof = "<br>".join(map(_link, tests[key])) if key in tests else f"*{reasons.get(key, '')}*"
                lines.append(f"| {each.id} | {each.paraphrase.replace('|', '&#124;')} | {proof} |")
    return "\n".join(lines + _departures() + _scenarios()) + "\n"


def departures() -> list[dict[str, str]]:
    """Return the statements that we break on purpose, each with its decision record."""
    return _rows("departures.csv")


def _departures() -> list[str]:
    """Return the section about the statements that we break on purpose."""
    lines = [
        "",
        "## Departures",
        "",
        "Where this client does something else than a statement demands, on purpose:",
        "",
        "| version | statement | what it does | why |",
        "|---|---|---|---|",
    ]
    for row in departures():
        record = row["record"]
        link = f"[{record[:4]}](decisions/{record})"
        lines.append(f"| {row['version']} | {row['id']} | {row['departure']} | {link} |")
    return lines


def _scenarios() -> list[str]:
    """Return the section about the scenarios of other projects' test suites."""
    lines = [
        "",
        "## Scenarios",
        "",
        "What the test suites of other projects try, and more. Rows M and P are scripts of a fake broker,",
        "played by `tests/conformance/test_scenarios.py` and, those with TLS, by",
        "`tests/net/test_tls_scenarios.py`. The others are groups of cases:",
        "",
        "| row | group | cases |",
        "|---|---|---|",
    ]
    for row in _rows("scenarios.csv"):
        name = row["id"]
        if name in GROUPS:
            links = [
                f"{case}: {_link(f'tests/{path}::test_{test}')}"
                for path, found in GROUPS[name].items()
                for case, test in found.items()
            ]
            lines.append(f"| {name} | {row['source'].replace('|', '&#124;')} | {'<br>'.join(links)} |")
        elif name in NOT_OFFERED:
            lines.append(f"| {name} | {row['source']} | *{NOT_OFFERED[name]}* |")
    return lines


def _link(node: str) -> str:
    path, _, name = node.partition("::")
    return f"[{name.removeprefix('test_')}](../{path})"


def _rows(name: str) -> list[dict[str, str]]:
    with (_DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
