"""Exceptions that are kept and raised: each time a copy, or the frames of every time stay with the one.

A frame holds the variables of a call, and the frame of its caller: an instance that a failing store raised in
3,605 waits held 3,605 of them. ``fresh()`` of ``device_sdk._weak`` makes the copy.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from tests.house.ratchet import Finding, Rule
from tests.house.source import Source


def _kept_exceptions(source: Source) -> Iterator[Finding]:
    """Find each ``raise`` of an attribute, of a name that was given one, or of a global object."""
    for module in source.modules:
        globally = {name for name, value in _assigned(module.tree.body) if isinstance(value, ast.Call)}
        for function in module.functions:
            kept = {name for name, value in _assigned(ast.walk(function)) if _is_kept(value)} | globally
            for node in ast.walk(function):
                match node:
                    case ast.Raise(exc=ast.Attribute() as raised) if _is_kept(raised):
                        yield Finding(module.path, f"line {node.lineno}: raise {ast.unparse(raised)}")
                    case ast.Raise(exc=ast.Name(id=name)) if name in kept:
                        yield Finding(module.path, f"line {node.lineno}: raise {name}")


def _assigned(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.NamedExpr(target=ast.Name(id=name), value=value):
                yield name, value


def _is_kept(value: ast.expr) -> bool:
    """Whether the value may be an attribute as it is."""
    match value:
        case ast.Attribute(attr=name):
            return not name.startswith("__") and not name[0].isupper()  # a class, or the context of an error
        case ast.BoolOp(values=values):
            return any(map(_is_kept, values))
        case ast.IfExp(body=body, orelse=orelse):
            return _is_kept(body) or _is_kept(orelse)
    return False


KEPT_EXCEPTIONS = Rule("kept exceptions that are raised themselves", "raise fresh(error)", _kept_exceptions)
