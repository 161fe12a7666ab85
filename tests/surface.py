"""What users can see of the package, as text: ``python -m tests.surface`` writes ``public_surface.txt``.

Public are the names of the modules in :data:`MODULES`, every class that an annotation of these leads to, the
commands and their options, the keys of a node's configuration, kinds of events, loggers and exit codes.
Members that a class inherits are listed as its own, and nothing is said about the module in which something
is written, so that only what a user would notice changes the text.
"""

from __future__ import annotations

import argparse
import ast
import enum
import importlib
import inspect
import json
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache, cached_property
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import device_sdk

__all__ = ["FILE", "MODULES", "surface"]

FILE = Path(__file__).with_name("public_surface.txt")

#: Modules of which docs/ speaks, and from which programs import.
MODULES = (
    "device_sdk",
    "device_sdk.aio",
    "device_sdk.errors",
    "device_sdk.drivers",
    "device_sdk.drivers.base",
    "device_sdk.drivers.bus",
    "device_sdk.drivers.bus.i2c",
    "device_sdk.drivers.circuitpython",
    "device_sdk.drivers.function",
    "device_sdk.drivers.host",
    "device_sdk.drivers.sysfs",
    "device_sdk.mqtt",
    "device_sdk.mqtt.codes",
    "device_sdk.mqtt.decode",
    "device_sdk.mqtt.encode",
    "device_sdk.mqtt.events",
    "device_sdk.mqtt.message",
    "device_sdk.mqtt.options",
    "device_sdk.mqtt.packets",
    "device_sdk.mqtt.protocol",
    "device_sdk.mqtt.session",
    "device_sdk.mqtt.topics",
    "device_sdk.net",
    "device_sdk.net.base",
    "device_sdk.net.layer",
    "device_sdk.net.memory",
    "device_sdk.net.proxy",
    "device_sdk.net.serial",
    "device_sdk.net.srv",
    "device_sdk.net.tcp",
    "device_sdk.net.tls",
    "device_sdk.net.unix",
    "device_sdk.net.websocket",
    "device_sdk.paho",
    "device_sdk.paho.client",
    "device_sdk.paho.enums",
    "device_sdk.paho.exception",
    "device_sdk.paho.matcher",
    "device_sdk.paho.packettypes",
    "device_sdk.paho.properties",
    "device_sdk.paho.publish",
    "device_sdk.paho.reasoncodes",
    "device_sdk.paho.subscribe",
    "device_sdk.paho.subscribeoptions",
    "device_sdk.paho.v1",
    "device_sdk.paho.v1.client",
    "device_sdk.paho.v1.publish",
    "device_sdk.paho.v1.reasoncodes",
    "device_sdk.paho.v1.subscribe",
    "device_sdk.store.base",
    "device_sdk.store.inspect",
    "device_sdk.store.memory",
    "device_sdk.store.sqlite",
    "device_sdk.testing",
    "device_sdk.testing.broker_server",
    "device_sdk.testing.certificates",
    "device_sdk.testing.clock",
    "device_sdk.testing.fake_bme280",
    "device_sdk.testing.fake_i2c",
    "device_sdk.testing.fake_sht4x",
    "device_sdk.testing.fake_sysfs",
    "device_sdk.testing.fault_proxy",
    "device_sdk.testing.model_broker",
    "device_sdk.testing.model_link",
    "device_sdk.testing.model_session",
    "device_sdk.testing.pty_line",
    "device_sdk.testing.scripted_broker",
)

#: Where the node's configuration and the parts of the commands are, or were: the first that exists counts.
_CONFIGURATION = ("device_sdk.node.tables:NodeConfig",)
_COMMANDS = ("device_sdk.cli:COMMANDS",)
_EXIT_CODES = ("device_sdk.cli.common:ExitCode",)

_SPECIAL = (
    "__aenter__", "__aexit__", "__aiter__", "__anext__", "__await__", "__call__", "__contains__",
    "__delitem__", "__enter__", "__eq__", "__exit__", "__getitem__", "__iter__", "__len__", "__lt__",
    "__next__", "__setitem__", "__str__",
)  # fmt: skip
#: Programs get these from a client and never make one: how that is done is nobody's business.
_GIVEN = {"AsyncDelivery", "AsyncInbox", "AsyncRequest", "Delivery", "Inbox", "Request"}
_WORD = re.compile(r"[A-Za-z_]\w*")
_OURS = "device_sdk"


def _load(places: Iterable[str]) -> Any:
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise ImportError(f"none of {', '.join(places)}")


# Modules and their names


@cache
def _modules() -> tuple[ModuleType, ...]:
    """Every module of the package whose name has no underscore in front."""
    found = pkgutil.walk_packages(device_sdk.__path__, "device_sdk.")
    names = [one.name for one in found if not any(part[0] == "_" for part in one.name.split("."))]
    return (device_sdk, *map(importlib.import_module, names))


def _listed(module: ModuleType) -> list[str]:
    return sorted(vars(module).get("__all__", ()))


@cache
def _import_paths() -> dict[int, list[str]]:
    """Return from which modules each class can be imported, by its ``id()``."""
    paths: dict[int, list[str]] = {}
    for module in _modules():
        for name in _listed(module):
            value = getattr(module, name)
            if inspect.isclass(value) and _is_ours(value):
                paths.setdefault(id(value), []).append(module.__name__)
    return paths


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] == _OURS


def _named(value: type) -> str:
    """Return a name that tells a class from others: those of the drop-in say so."""
    room = value.__module__.removeprefix("device_sdk.")
    if room.startswith("paho.v1"):
        return f"paho.v1 {value.__qualname__}"
    return f"paho {value.__qualname__}" if room.startswith("paho") else value.__qualname__


# Values and signatures


def _shown(value: Any) -> str:
    """Return a value as it reads in every process."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, type) or inspect.isfunction(value):
        return value.__qualname__
    if isinstance(value, (tuple, list)):
        inside = ", ".join(map(_shown, value))
        return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_shown, value)))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_shown(key)}: {_shown(one)}' for key, one in value.items())}}}"
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return repr(value)
    return f"<{type(value).__name__}>"


def _annotation(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return ""
    text = value if isinstance(value, str) else inspect.formatannotation(value)
    return " ".join(text.replace('"', "'").split())


def _signature(function: Any, *, bound: bool = False) -> str:
    """Return the arguments of a function; ``bound``: without the first."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    parts = []
    positional_only = False
    parameters = list(signature.parameters.values())[bound:]
    for index, one in enumerate(parameters):
        if positional_only and one.kind is not one.POSITIONAL_ONLY:
            parts.append("/")
        positional_only = one.kind is one.POSITIONAL_ONLY
        if one.kind is one.KEYWORD_ONLY and not any(
            each.kind in (one.KEYWORD_ONLY, one.VAR_POSITIONAL) for each in parameters[:index]
        ):
            parts.append("*")
        stars = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        annotation = _annotation(one.annotation)
        part = f"{stars}{one.name}" + (f": {annotation}" if annotation else "")
        if one.default is not one.empty:
            part += (" = " if annotation else "=") + _shown(one.default)
        parts.append(part)
    returned = _annotation(signature.return_annotation)
    return f"({', '.join(parts)})" + (f" -> {returned}" if returned else "")


# Classes


def _own_bases(kind: type) -> list[type]:
    """Return the classes of this package that it is made of, itself first."""
    return [one for one in kind.__mro__ if _is_ours(one)]


def _raw(kind: type, name: str) -> Any:
    """Return a member as it is written in the first class that has it."""
    return next((vars(one)[name] for one in _own_bases(kind) if name in vars(one)), None)


@cache
def _assigned(kind: type) -> frozenset[str]:
    """Return the attributes that the methods of one class assign to ``self``, and those it only declares."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return frozenset()
    names = set()
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in (one for each in targets for one in ast.walk(each)):
            if (
                isinstance(target, ast.Attribute)
                and isinstance(target.value, ast.Name)
                and target.value.id == "self"
            ):
                names.add(target.attr)
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    names |= {
        node.target.id
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return frozenset(names)


def _member_names(kind: type) -> list[str]:
    found: set[str] = set()
    for one in _own_bases(kind):
        found.update(vars(one))
        found.update(_assigned(one))
    public = {name for name in found if name[0] != "_"}
    return sorted(public | {name for name in _SPECIAL if name in found})


def _member(kind: type, name: str) -> str:
    raw = _raw(kind, name)
    if isinstance(raw, (staticmethod, classmethod)):
        word = "static" if isinstance(raw, staticmethod) else "class"
        return f"{word} method {name}{_signature(raw.__func__, bound=isinstance(raw, classmethod))}"
    if inspect.isfunction(raw):
        word = "async method" if inspect.iscoroutinefunction(raw) else "method"
        return f"{word} {name}{_signature(raw, bound=True)}"
    if isinstance(raw, property):
        return f"attribute {name}" + ("" if raw.fset is not None else ", read only")
    if isinstance(raw, cached_property):
        return f"attribute {name}, read only"
    if isinstance(raw, enum.Enum):
        return f"member {name} = {_shown(raw.value)}"
    if (
        raw is None
        or inspect.isdatadescriptor(raw)
        or any(name in _assigned(one) for one in _own_bases(kind))
    ):
        return f"attribute {name}"
    if inspect.isclass(raw):
        return f"class {name}"
    return f"attribute {name} = {_shown(raw)}"


def _class_lines(kind: type) -> Iterator[str]:
    yield f"class {_named(kind)}"
    paths = _import_paths().get(id(kind), [])
    yield f"    from {', '.join(paths) or 'nowhere'}"
    bases = [
        _named(one) if _is_ours(one) else one.__qualname__
        for one in kind.__mro__[1:]
        if one.__name__ not in ("object", "ABC", "Generic")
        and (not _is_ours(one) or id(one) in _public_classes())
    ]
    if bases:
        yield f"    is a {', '.join(bases)}"
    if _is_made_by_programs(kind):
        yield f"    {_signature(_raw(kind, '__init__'), bound=True)}"
    for name in _member_names(kind):
        yield f"    {_member(kind, name)}"


# What annotations lead to


@cache
def _imported(module: str) -> dict[str, tuple[str, str]]:
    """Return the names that a module imports from this package, also for its annotations only."""
    source = inspect.getsource(importlib.import_module(module))
    return {
        name.asname or name.name: (node.module, name.name)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == _OURS
        for name in node.names
    }


def _meant(word: str, module: str) -> Any:
    """Return what a word of an annotation means in a module."""
    known = vars(importlib.import_module(module))
    if word in known:
        return known[word]
    where, name = _imported(module).get(word, ("", ""))
    return getattr(importlib.import_module(where), name, None) if where else None


def _led_to(function: Any) -> Iterator[type]:
    module = getattr(function, "__module__", None)
    if not isinstance(module, str) or module.partition(".")[0] != _OURS:
        return
    for annotation in getattr(function, "__annotations__", {}).values():
        for word in _WORD.findall(_annotation(annotation)):
            meaning = _meant(word, module)
            if inspect.isclass(meaning) and _is_ours(meaning) and meaning.__name__[0] != "_":
                yield meaning


def _is_made_by_programs(kind: type) -> bool:
    if kind.__name__ in _GIVEN or issubclass(kind, enum.Enum):
        return False
    return any("__init__" in vars(one) for one in _own_bases(kind))


def _functions(kind: type) -> Iterator[Any]:
    constructor = ["__init__"] if _is_made_by_programs(kind) else []
    for name in (*constructor, *_member_names(kind)):
        raw = _raw(kind, name)
        raw = raw.fget if isinstance(raw, property) else getattr(raw, "__func__", raw)
        if inspect.isfunction(raw):
            yield raw


@cache
def _public_classes() -> dict[int, type]:
    """Return the classes of the public modules and those that annotations lead to, by ``id()``."""
    values = [
        getattr(module, name) for module in map(importlib.import_module, MODULES) for name in _listed(module)
    ]
    found = {id(one): one for one in values if inspect.isclass(one) and _is_ours(one)}
    waiting = [*found.values()]
    functions = [one for one in values if inspect.isfunction(one)]
    reached = [kind for function in functions for kind in _led_to(function)]
    while waiting or reached:
        for kind in reached:
            if id(kind) not in found:
                found[id(kind)] = kind
                waiting.append(kind)
        reached = (
            [kind for function in _functions(waiting.pop()) for kind in _led_to(function)] if waiting else []
        )
    return found


# The sections


def _module_lines() -> Iterator[str]:
    """Yield what each public module has, classes by their names only."""
    for name in MODULES:
        module = importlib.import_module(name)
        yield f"module {name}"
        for each in _listed(module):
            value = getattr(module, each)
            if inspect.isclass(value):
                yield f"    class {each}" + (
                    "" if value.__qualname__ == each else f", which is {_named(value)}"
                )
            elif inspect.isfunction(value):
                word = "async function" if inspect.iscoroutinefunction(value) else "function"
                yield f"    {word} {each}{_signature(value)}"
            elif inspect.ismodule(value):
                yield f"    module {each}"
            elif each == "__version__" or (name.startswith("device_sdk.paho") and each in ("ssl", "socks")):
                yield f"    {each}"
            else:
                yield f"    {each} = {_shown(value)}"
        yield ""


class _ParserMade(Exception):
    """Carries the parser of a command, instead of letting it read arguments."""


def _parser_of(command: Any, arguments: list[str]) -> argparse.ArgumentParser:
    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _ParserMade(parser)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            command(arguments)
        except _ParserMade as made:
            parser: argparse.ArgumentParser = made.args[0]
            return parser
    raise AssertionError(f"{command} has read its arguments without a parser")


def _option_lines(parser: argparse.ArgumentParser, indent: str) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield f"{indent}{name}"
                yield from _option_lines(inner, indent + "    ")
            continue
        facts = [", ".join(action.option_strings) or action.dest]
        if action.nargs is not None:
            facts.append(f"nargs={action.nargs!r}")
        if action.choices is not None:
            facts.append(f"of {_shown(list(action.choices))}")
        if action.default not in (None, argparse.SUPPRESS):
            facts.append(f"default {_shown(action.default)}")
        if action.option_strings and action.required:
            facts.append("required")
        yield indent + "; ".join(facts)


def _command_lines() -> Iterator[str]:
    from device_sdk.cli import main

    yield "command device-sdk"
    yield from _option_lines(_parser_of(main, []), "    ")
    yield ""
    for name, (where, _) in sorted(_load(_COMMANDS).items()):
        yield f"command device-sdk {name}"
        yield from _option_lines(_parser_of(_load([where]), []), "    ")
        yield ""
    yield "exit codes"
    yield from (f"    {code.value} {code.name}" for code in _load(_EXIT_CODES))
    yield ""


def _bare(schema: Any) -> Any:
    """Return a JSON Schema without words for people and names of classes."""
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if key not in ("description", "title")}
    return [_bare(one) for one in schema] if isinstance(schema, list) else schema


def _configuration_lines() -> Iterator[str]:
    import msgspec

    schema = msgspec.json.schema(_load(_CONFIGURATION))
    yield "configuration of a node"
    for table, about in sorted(schema["$defs"].items()):
        yield f"    {table}"
        required = about.get("required", [])
        for key, value in about["properties"].items():
            must = ", required" if key in required else ""
            yield f"        {key}{must}: {json.dumps(_bare(value), sort_keys=True)}"
    yield ""


def _log_lines() -> Iterator[str]:
    names = set()
    for path in sorted(Path(device_sdk.__path__[0]).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Name(id="Log") | ast.Attribute(attr="getLogger"),
                    args=[ast.Constant(value=str(name)), *_],
                ):
                    names.add(name)
    yield "loggers"
    yield from (f"    {name}" for name in sorted(names))
    yield ""


def _event_lines() -> Iterator[str]:
    """The page of the interface is compared with the source by tests/test_reference_pages.py."""
    (event,) = (kind for kind in _public_classes().values() if kind.__name__ == "ClientEvent")
    yield "kinds of events"
    kinds = re.findall(r"``(\w+)``", (inspect.getdoc(event) or "").partition("Kinds:")[2])
    yield from (f"    {kind}" for kind in sorted(kinds))
    yield ""


def surface() -> str:
    """Return the whole text."""
    lines = ["# Written by `python -m tests.surface`, compared by tests/test_surface.py.", ""]
    lines += _module_lines()
    for kind in sorted(_public_classes().values(), key=lambda kind: (_named(kind), kind.__module__)):
        lines += [*_class_lines(kind), ""]
    for section in (_event_lines, _log_lines, _command_lines, _configuration_lines):
        lines += section()
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    FILE.write_text(surface(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
