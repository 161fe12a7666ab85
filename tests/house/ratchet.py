"""What a rule finds, and the table of what is still to be mended, which can only shrink.

``to_mend.toml`` has one section per rule: where the rule is broken, and by how much. A test fails when the
source is worse than its line there, and also when it has become better: then the line has to follow, so
that nobody can take back what was won. ``python -m tests.house --lower`` writes the smaller numbers; it
never writes a larger one.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from tests.house.source import Source

TO_MEND = Path(__file__).with_name("to_mend.toml")

_HEADER = """\
# What still breaks a rule, and by how much: see ratchet.py. A number here may only fall, a line only go.
# After an improvement: python -m tests.house --lower
"""

Table: TypeAlias = dict[str, dict[str, int]]


class Finding(NamedTuple):
    """One place that breaks a rule: ``where`` is the key in the table, ``text`` says what is there."""

    where: str
    text: str
    amount: int = 1


class Rule(NamedTuple):
    """A rule: its section in the table, what to do when it is broken, and how to find where it is."""

    name: str
    advice: str
    find: Callable[[Source], Iterator[Finding]]


def read_table() -> Table:
    """Return the table: number by place by rule."""
    return tomllib.loads(TO_MEND.read_text(encoding="utf-8"))


def totals(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how much there is at each place."""
    found: dict[str, int] = {}
    for finding in findings:
        found[finding.where] = found.get(finding.where, 0) + finding.amount
    return found


def problems(rule: Rule, findings: list[Finding], allowed: Mapping[str, int]) -> Iterator[str]:
    """Yield one text for each place where source and table differ."""
    found = totals(findings)
    for where in sorted(found.keys() | allowed.keys()):
        now, then = found.get(where, 0), allowed.get(where, 0)
        if now > then:
            places = "".join(f"\n    {finding.text}" for finding in findings if finding.where == where)
            yield f"{where}: {rule.name}: {now}, allowed {then}; {rule.advice}{places}"
        elif now < then:
            yield f"{where}: {rule.name}: {now} is better than the {then} of to_mend.toml; {_HOW_TO_LOWER}"


_HOW_TO_LOWER = "lower it: python -m tests.house --lower"


def lowered(table: Table, rules: Iterable[Rule], source: Source) -> Table:
    """Return the table with the numbers of the source where these are smaller."""
    result: Table = {}
    for rule in rules:
        found = totals(rule.find(source))
        section = table.get(rule.name, {})
        kept = {where: min(then, found.get(where, 0)) for where, then in section.items()}
        result[rule.name] = {where: number for where, number in sorted(kept.items()) if number}
    return result


def written(table: Table) -> str:
    """Return the table as the text of the file."""
    parts = [_HEADER]
    for name, section in table.items():
        if section:
            lines = [f'"{where}" = {number}\n' for where, number in section.items()]
            parts.append(f'\n["{name}"]\n{"".join(lines)}')
    return "".join(parts)
