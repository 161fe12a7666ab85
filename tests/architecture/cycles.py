"""Import cycles inside a room: whoever reads one of these modules has to read them all.

Imports for type checkers and imports inside functions count: a name is understood where it is used. The
tables that name a class as text (``"device_sdk.net.tcp:TcpTransport"``) do not: a registry knows its
entries, not their code.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from tests.house.ratchet import Finding, Rule
from tests.house.source import Module, Source


def room(module: Module) -> str:
    """Return the room of a module: the folder or file directly in the package; ``hil`` for the rig."""
    return module.path.split("/")[1].removesuffix(".py") if module.path.startswith("device_sdk/") else "hil"


def imported(module: Module, known: Mapping[str, Module]) -> set[str]:
    """Return the known modules that a module imports, by their dotted names."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                below = f"{node.module}.{alias.name}"
                found.add(below if below in known else node.module or "")
    return found & known.keys()


def cycles(graph: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Yield the groups of nodes of which each is reached from each, sorted."""
    reached = {node: _reachable(graph, node) for node in graph}
    seen: set[str] = set()
    for node in sorted(graph):
        if node in reached[node] and node not in seen:
            group = sorted(other for other in reached[node] if node in reached[other])
            seen.update(group)
            yield group


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for node in graph[waiting.pop()] - found:
            found.add(node)
            waiting.append(node)
    return found


def _import_cycles(source: Source) -> Iterator[Finding]:
    known = {module.name: module for module in source.modules}
    graph = {
        name: {other for other in imported(module, known) if room(known[other]) == room(module)} - {name}
        for name, module in known.items()
    }
    for group in cycles(graph):
        for name in group:
            others = ", ".join(sorted(graph[name].intersection(group)))
            yield Finding(known[name].path, f"imports {others}", len(group))


IMPORT_CYCLES = Rule("modules in an import cycle", "turn one of the imports round", _import_cycles)
