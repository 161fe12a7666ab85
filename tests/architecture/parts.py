"""Parts instead of bases: a part of the engine knows what it needs, not the engine, and writes only what
is its own.

Who writes to whom is read from annotations and assignments. What passes through the parts may be written by
each of them, as a form is filled in on its way: records, exceptions, and the classes of ``PASSED_ON``. So
may what a contract promises as an attribute.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.objects import Class, classes
from tests.house.ratchet import Finding, Rule
from tests.house.source import FUNCTIONS, Function, Module, Source

ROOMS = ("device_sdk/engine/", "device_sdk/mqtt/")
# The file of Engine itself, and the one that makes it.
MAKES_ENGINE = {"device_sdk/engine/engine.py"}
# What is handed from part to part: a message on its way out, one on its way in.
PASSED_ON = {"Awaited", "Delivery", "Message", "Outgoing"}
# What its holder writes for every read and every send: a method for it would be a Python call per message.
WRITTEN_BY_HOLDER = {("KeepAlive", "last_received"), ("KeepAlive", "last_sent")}


def _holds_engine(source: Source) -> Iterator[Finding]:
    for module in source.within("device_sdk/engine/"):
        if module.path in MAKES_ENGINE:
            continue
        for node in ast.walk(module.tree):
            match node:
                case ast.arg(arg="engine" | "_engine" as name, lineno=line):
                    yield Finding(module.path, f"line {line}: an argument {name}")
                case ast.arg(annotation=ast.expr() as kind) | ast.AnnAssign(annotation=kind):
                    if any(isinstance(each, ast.Name) and each.id == "Engine" for each in ast.walk(kind)):
                        yield Finding(module.path, f"line {kind.lineno}: something of the type Engine")
                case ast.Attribute(attr="engine" | "_engine" as name, ctx=ast.Store(), lineno=line):
                    yield Finding(module.path, f"line {line}: an attribute {name}")


class _Types:
    """The classes of expressions in one function, as far as annotations and assignments tell."""

    def __init__(self, known: dict[str, list[Class]], owner: Class | None, function: Function) -> None:
        self._known = known
        self._owner = owner
        self._local = _assigned(function, "")

    def of(self, value: ast.expr, depth: int = 0) -> Class | None:
        """Return the class of what an expression stands for, None if it cannot be told."""
        if depth > 5:
            return None
        match value:
            case ast.Name(id="self"):
                return self._owner
            case ast.Name(id=name):
                return self._named(self._local.get(name), depth)
            case ast.Attribute(value=inner, attr=name):
                holder = self.of(inner, depth + 1)
                for each in holder.line if holder is not None else ():
                    if (source := _attribute(each, name)) is not None:
                        return _Types(self._known, each, source[0])._named(source[1], depth + 1)
        return None

    def _named(self, value: ast.expr | None, depth: int) -> Class | None:
        """Return the class that an annotation names, or whose object an expression makes."""
        match value:
            case None:
                return None
            case ast.Name(id=name) if name in self._known:
                return self._known[name][0]
            case ast.BinOp(left=left, op=ast.BitOr()):  # ``Protocol | None``
                return self._named(left, depth)
            case ast.Call(func=ast.Name(id=name)):
                return self._known[name][0] if name in self._known else None
            case ast.Call(func=ast.Attribute() as method):
                return self.of(method, depth + 1)  # what the method returns
        return self.of(value, depth + 1)


def _assigned(function: Function, prefix: str) -> dict[str, ast.expr]:
    """Return what the names of a function are given: the annotation, else the value; ``self.`` as prefix."""
    found: dict[str, ast.expr] = {}
    if not prefix:
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        found = {each.arg: each.annotation for each in arguments if each.annotation is not None}
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign):
            found[ast.unparse(node.target)] = node.annotation
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                for name, value in pairs:
                    found.setdefault(ast.unparse(name), value)
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def _attribute(item: Class, name: str) -> tuple[Function, ast.expr] | None:
    """Return where a class says what its attribute is, and the annotation or value there."""
    for function in item.functions:
        if function.name == name and function.returns is not None:  # a property, or a method that is called
            return function, function.returns
        value = _assigned(function, "self.").get(name)
        if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            return function, value
    return None


def _writes(module: Module, items: list[Class]) -> Iterator[tuple[ast.Attribute, Class | None, Function]]:
    """Yield every attribute written that is not ``self``'s, with the class and the function around it."""
    owners = {function: item for item in items if item.module is module for function in item.functions}
    for function in module.functions:
        for node in _own_nodes(function):
            if not (isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del))):
                continue
            if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}):
                yield node, owners.get(function), function


def _own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a function without the functions inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, FUNCTIONS):
            yield child
            yield from _own_nodes(child)


def _writes_to_others(source: Source) -> Iterator[Finding]:
    items = classes(source)
    known: dict[str, list[Class]] = {}
    for item in items:
        known.setdefault(item.name, []).append(item)
    for module in source.within(*ROOMS):
        for node, owner, function in _writes(module, items):
            target = _Types(known, owner, function).of(node.value)
            if not _may_be_written(target, node.attr, owner, items):
                yield Finding(module.path, f"line {node.lineno}: {ast.unparse(node)}")


def _may_be_written(target: Class | None, name: str, owner: Class | None, items: list[Class]) -> bool:
    if target is None:  # not known: then by the name of the attribute
        return any(name in each.own_attributes for each in items if _is_passed_on(each))
    if target is owner or _is_passed_on(target) or (target.name, name) in WRITTEN_BY_HOLDER:
        return True
    if any(name in each.setters for each in target.line):
        return True  # a call that looks like a write
    return any(name in each.own_attributes for each in target.line if each.is_contract)


def _is_passed_on(item: Class) -> bool:
    return item.is_record or item.is_exception or any(each.name in PASSED_ON for each in item.line)


HOLDS_ENGINE = Rule("parts that hold the engine", "hand it what it needs", _holds_engine)
WRITES_TO_OTHERS = Rule("attributes of others written", "ask the object to do it", _writes_to_others)
