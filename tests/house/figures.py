"""The figures of a checkout as tables in Markdown: functions, files, classes and whole objects."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.house.objects import Class, classes
from tests.house.ratchet import Rule, totals
from tests.house.rules import MAX_FILE, MAX_FUNCTION, NAMED, PUBLIC_NAMES
from tests.house.source import FUNCTIONS, Function, Module, Source, docstring

LARGEST = 15


class Checkout(NamedTuple):
    """What is measured: the package apart from the rig, and the tests of both."""

    source: Source
    package: list[Module]
    tests: list[Module]


def read_checkout(root: Path) -> Checkout:
    """Read the checkout at ``root``."""
    paths = [*root.glob("tests/**/*.py"), *root.glob("hil/**/test_*.py")]
    tests = [Module(path.relative_to(root).as_posix(), path.read_text("utf-8")) for path in sorted(paths)]
    source = Source.read(root)
    return Checkout(source, list(source.within("device_sdk/")), tests)


def report(checkout: Checkout, rules: Iterable[Rule]) -> str:
    """Return the whole text."""
    parts = [
        "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in _figures(checkout)),
        f"Objects with their bases, the {LARGEST} largest:\n",
        _objects_table(checkout.source),
        "Where the rules are broken (places; sum of the numbers in to_mend.toml):\n",
        _rules_table(checkout.source, rules),
    ]
    return "\n".join(parts)


def _figures(checkout: Checkout) -> Iterator[tuple[str, str]]:
    modules = checkout.package
    functions = [(module, function) for module in modules for function in module.functions]
    spans = [_span(function) for _, function in functions]
    code = [module.function_code(function) for module, function in functions]
    lines = [len(module.text.splitlines()) for module in modules]
    file_code = [module.code for module in modules]
    items = [item for item in classes(checkout.source) if item.module in modules]
    yield "files / lines", f"{len(modules)} / {sum(lines):,}"
    yield "function lines, median / p95 / max", _spread(spans)
    yield "the same in code lines", _spread(code)
    yield "functions > 40 / > 60 lines", f"{_above(spans, 40)} / {_above(spans, 60)} of {len(spans):,}"
    yield f"functions > {MAX_FUNCTION} code lines", str(_above(code, MAX_FUNCTION))
    yield "modules > 500 lines / largest", f"{_above(lines, 500)} / {max(lines, default=0)}"
    yield (
        f"modules > {MAX_FILE} code lines / largest",
        f"{_above(file_code, MAX_FILE)} / {max(file_code, default=0)}",
    )
    in_body = [len(item.functions) for item in items]
    yield "classes > 15 methods (one class body)", f"{_above(in_body, 15)} of {len(items)}"
    yield "classes > 12 attributes (one class body)", str(_above([len(i.own_attributes) for i in items], 12))
    yield "deepest class, project bases only", _deepest(items)
    yield "public docstrings", _share(_documented(modules))
    yield "return / argument types", f"{_share(_return_types(modules))} / {_share(_argument_types(modules))}"
    ignores = sum(len(re.findall(r"#\s*type:\s*ignore", module.text)) for module in modules)
    yield "`type: ignore`", str(ignores)
    tests = [f for module in checkout.tests for f in module.functions if f.name.startswith("test_")]
    median, p95, _ = _spread([_span(test) for test in tests]).split(" / ")
    yield "tests; median / p95 lines", f"{len(tests):,}; {median} / {p95}"


def _span(function: Function) -> int:
    """Return the lines as they stand: signature, docstring and blank lines included, decorators not."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def _spread(numbers: Sequence[int]) -> str:
    ordered = sorted(numbers) or [0]
    return f"{ordered[len(ordered) // 2]} / {ordered[int(len(ordered) * 0.95)]} / {ordered[-1]}"


def _above(numbers: Iterable[int], limit: int) -> int:
    return sum(number > limit for number in numbers)


def _share(flags: Iterable[bool]) -> str:
    given = list(flags)
    return f"{100 * sum(given) / len(given):.0f} %" if given else "-"


def _deepest(items: Sequence[Class]) -> str:
    """Return the longest way up through bases of the project, contracts counted; and where it begins."""
    item = max((each for each in items if not each.is_exception), key=_rungs, default=None)
    return "-" if item is None else f"{_rungs(item)} ({item.key})"


def _rungs(item: Class) -> int:
    return 1 + max(map(_rungs, item.bases), default=0)


def _public(node: ast.Module | ast.ClassDef, modules_too: bool = True) -> Iterator[ast.AST]:
    """Yield a module or class and the public classes and functions in it."""
    if modules_too:
        yield node
    for child in node.body:
        if isinstance(child, (ast.ClassDef, *FUNCTIONS)) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from _public(child, modules_too=False)


def _documented(modules: Iterable[Module]) -> Iterator[bool]:
    for module in modules:
        for node in _public(module.tree):
            decorators = getattr(node, "decorator_list", [])
            if not any(ast.unparse(each).endswith((".setter", "overload")) for each in decorators):
                yield docstring(node) is not None


def _return_types(modules: Iterable[Module]) -> Iterator[bool]:
    for module in modules:
        for function in module.functions:
            yield function.returns is not None


def _argument_types(modules: Iterable[Module]) -> Iterator[bool]:
    for module in modules:
        for function in module.functions:
            arguments = function.args
            given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            given += [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
            for argument in given:
                if argument.arg not in {"self", "cls"}:
                    yield argument.annotation is not None


def _objects_table(source: Source) -> str:
    rows = ["| object | rungs | files | lines | methods | attributes |", "|---|---|---|---|---|---|"]
    for item in _largest(source):
        files = len({each.module.path for each in item.line})
        lines = sum((each.node.end_lineno or 0) - each.node.lineno + 1 for each in item.line)
        ladder = " < ".join(each.name for each in item.line)
        rows.append(
            f"| {ladder} ({item.module.path}) | {item.depth} | {files} | {lines:,} "
            f"| {len(item.methods)} | {len(item.attributes)} |"
        )
    return "\n".join(rows) + "\n"


def _largest(source: Source) -> list[Class]:
    """Return the largest objects; a rung of a ladder within its room is left out for the whole of it."""
    items = [item for item in classes(source) if item.is_counted]
    rungs = {
        base.key
        for item in items
        for base in item.line[1:]
        if base.module.path.split("/")[1] == item.module.path.split("/")[1]
    }
    shown = [item for item in items if item.key not in rungs or item.key in NAMED or item.key in PUBLIC_NAMES]
    return sorted(shown, key=lambda item: (-len(item.methods) - len(item.attributes), item.key))[:LARGEST]


def _rules_table(source: Source, rules: Iterable[Rule]) -> str:
    rows = ["| rule | places | sum |", "|---|---|---|"]
    for rule in rules:
        found = totals(rule.find(source))
        rows.append(f"| {rule.name} | {len(found)} | {sum(found.values())} |")
    return "\n".join(rows) + "\n"
