"""The alarms of the decision records that the source itself can raise; all of them are in test_alarms.py."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.cycles import room
from tests.house.objects import classes
from tests.house.ratchet import Finding, Rule
from tests.house.source import Module, Source

SHELLS = {"aio", "client", "client_base", "paho", "threads"}
# What packets are made of: a shell that needs these has a piece of the protocol in it.
PACKET_MODULES = {
    "device_sdk.mqtt.decode",
    "device_sdk.mqtt.encode",
    "device_sdk.mqtt.packets",
    "device_sdk.mqtt.receive",
    "device_sdk.mqtt.wire",
}
# Of the streams the engine may know the contract and how they are found; TLSOptions is what a user hands it.
NEUTRAL = {"device_sdk.net.base", "device_sdk.net.tls.TLSOptions"}
# What a URL may begin with: an engine that knows one treats a stream by its kind.
SCHEMES = {"memory", "mqtt", "mqtts", "serial", "tcp", "unix", "ws", "wss"}
CONTRACT = "device_sdk/net/base.py:Transport"


def _imported_names(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of what a module imports, or names as ``"module:Name"``."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=names, lineno=line):
                yield from ((line, alias.name) for alias in names)
            case ast.ImportFrom(module=origin, names=names, lineno=line):
                yield from ((line, f"{origin}.{alias.name}") for alias in names)
            case ast.Constant(value=str(text), lineno=line) if text.startswith("device_sdk.") and ":" in text:
                yield line, text.replace(":", ".")


# paho-mqtt's Properties pack and unpack bytes, and programs call that.
PUBLIC_CODEC = {"device_sdk/paho/properties.py"}


def _packets_in_shells(source: Source) -> Iterator[Finding]:
    for module in source.modules:
        if room(module) in SHELLS and module.path not in PUBLIC_CODEC:
            for line, name in _imported_names(module):
                if name in PACKET_MODULES or name.rpartition(".")[0] in PACKET_MODULES:
                    yield Finding(module.path, f"line {line}: {name}")


def _kinds_of_transport(source: Source) -> Iterator[Finding]:
    for module in source.within("device_sdk/engine/"):
        for line, name in _imported_names(module):
            neutral = name in NEUTRAL or name.rpartition(".")[0] in NEUTRAL
            if name.startswith("device_sdk.net.") and not neutral:
                yield Finding(module.path, f"line {line}: {name}")
        for node in _outside_texts(module.tree):
            if _asks_for_kind(node):
                yield Finding(module.path, f"line {getattr(node, 'lineno', 0)}: {ast.unparse(node)}")


def _asks_for_kind(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="scheme"):
            return True
        case ast.Constant(value=str(text)):
            return text in SCHEMES
        case ast.Call(
            func=ast.Name(id="isinstance"), args=[_, kind]
        ):  # Transport alone: a stream, or its URL?
            return any(
                isinstance(each, (ast.Name, ast.Attribute))
                and ast.unparse(each).endswith("Transport")
                and ast.unparse(each) != "Transport"
                for each in ast.walk(kind)
            )
        case ast.Call(func=ast.Name(id="hasattr" | "getattr"), args=[subject, *_]):
            return ast.unparse(subject).endswith(("transport", "stream"))
    return False


def _outside_texts(node: ast.AST) -> Iterator[ast.AST]:
    """Walk everything but f-strings: an error may name the scheme."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.JoinedStr):
            yield child
            yield from _outside_texts(child)


def _rig_imports(source: Source) -> Iterator[Finding]:
    for module in source.within("hil/"):
        for line, name in _imported_names(module):
            if f"{name}.".startswith(("device_sdk.cli.", "device_sdk.node.")):
                yield Finding(module.path, f"line {line}: {name}")


def _for_one_stream(source: Source) -> Iterator[Finding]:
    """Find methods of the contract that less than two streams have code for, of their own or of a base."""
    streams = [item for item in classes(source) if any(each.key == CONTRACT for each in item.line[1:])]
    for contract in classes(source):
        for function in contract.functions if contract.key == CONTRACT else ():
            users = [
                item.name
                for item in streams
                if any(function.name in each.own_methods for each in item.line if each.key != CONTRACT)
            ]
            if len(users) < 2:
                text = f"line {function.lineno}: {function.name}() is used by {', '.join(users) or 'none'}"
                yield Finding(contract.module.path, text)


PACKETS_IN_SHELLS = Rule("packets in a shell", "decision 0001: it belongs into mqtt/", _packets_in_shells)
KINDS_OF_TRANSPORT = Rule(
    "kinds of transport in the engine", "decision 0003: ask the contract", _kinds_of_transport
)
RIG_IMPORTS = Rule("the rig imports cli or node", "it uses the public API, config and testing", _rig_imports)
FOR_ONE_STREAM = Rule("contract methods for one stream", "decision 0003: not the contract's", _for_one_stream)
