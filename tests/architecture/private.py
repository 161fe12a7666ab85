"""Names that begin with an underscore belong to the class, or the file, that defines them.

Two rules, because there are two ways in. *From outside*: ``delivery._waiter`` in another class. *By
inheritance*: a subclass in another room that overrides or uses what its base calls private; nobody who
changes the base looks there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.architecture.cycles import room
from tests.house.objects import Class, classes
from tests.house.ratchet import Finding, Rule
from tests.house.source import FUNCTIONS, Module, Source

# Private names of other people's code, and names that only look private: (file, name) or name, and why.
FOREIGN = {
    "_asdict": "namedtuple: public, the underscore only keeps it apart from the fields",
    "_at_fork_reinit": "threading.RLock: no public name makes a lock anew in a forked child",
    "_current_frames": "sys: no public name tells where another thread is",
    "_is_owned": "threading.RLock: no public name tells whether the calling thread has it",
    "_negotiate_SOCKS4": "PySocks: no public name speaks the handshake on a socket that is connected already",
    "_negotiate_SOCKS5": "PySocks: as above",
}

# Bases that are made to be derived from in another room: what they call private is hidden from users, who
# hold an instance of the subclass, and is what the base offers to the clients.
MADE_FOR_SUBCLASSES = {"device_sdk/client_base.py:BaseClient"}

# Modules that are private to the package, not to a room.
SHARED_MODULES = {
    "_clock",
    "_folding",
    "_load",
    "_log",
    "_printable",
    "_text",
    "_traceback",
    "_version",
    "_weak",
}


def is_private(name: str) -> bool:
    """Whether a name begins with one underscore, or with two and does not end with two."""
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__")) and name != "_"


class _Uses(ast.NodeVisitor):
    """The private names that a module takes from others."""

    def __init__(self, module: Module, source: Source) -> None:
        self.module = module
        self.source = source
        self.here = {item.node: item for item in classes(source) if item.module is module}
        self.inside: list[Class] = []
        self.arguments: list[dict[str, str]] = []  # annotation by argument, of the functions around
        self.found: list[tuple[int, str]] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.inside.append(self.here[node])
        self.generic_visit(node)
        self.inside.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        self.arguments.append({each.arg: ast.unparse(each.annotation) for each in given if each.annotation})
        self.generic_visit(node)
        self.arguments.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            taken = is_private(alias.name) and alias.name not in SHARED_MODULES
            if taken and f"{node.module}.{alias.name}" not in self._modules_of_this_room():
                self.found.append((node.lineno, f"{alias.name} of {node.module}"))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._look(node.value, node.attr, node.lineno)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        match node:
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr"), args=[owner, ast.Constant(value=str(name)), *_]
            ):
                self._look(owner, name, node.lineno)
        self.generic_visit(node)

    def _look(self, owner: ast.expr, name: str, line: int) -> None:
        if is_private(name) and name not in FOREIGN and not self._is_own(owner, name):
            self.found.append((line, f"{ast.unparse(owner)}.{name}"))

    def _is_own(self, owner: ast.expr, name: str) -> bool:
        text = ast.unparse(owner)
        if text in {"self", "cls", "super()", "type(self)"}:
            return True
        if not self.inside:  # beside the classes of this file: a function of theirs
            return any(name in item.own_names for item in self.here.values())
        line = [each for item in self.inside for each in item.line]
        if text in {each.name for each in line}:
            return True
        if self._annotation(text) in {each.name for each in line} | {"Self"}:
            return True
        # Another object of the same class, if no class that this file knows has such a name.
        return any(name in each.own_names for each in line) and not any(
            name in item.own_names
            for item in classes(self.source)
            if item not in line and self._is_known(item)
        )

    def _annotation(self, name: str) -> str:
        for arguments in reversed(self.arguments):
            if name in arguments:
                return arguments[name]
        return ""

    def _is_known(self, item: Class) -> bool:
        return item.module is self.module or item.name in self.module.text

    def _modules_of_this_room(self) -> set[str]:
        return {module.name for module in self.source.modules if room(module) == room(self.module)}


def _from_outside(source: Source) -> Iterator[Finding]:
    for module in source.modules:
        uses = _Uses(module, source)
        uses.visit(module.tree)
        for line, text in uses.found:
            yield Finding(module.path, f"line {line}: {text}")


def _by_inheritance(source: Source) -> Iterator[Finding]:
    for item in classes(source):
        private: dict[str, Class] = {}
        own_room: set[str] = set()
        for base in item.line[1:]:
            if room(base.module) == room(item.module):
                own_room |= base.own_names
            elif base.key not in MADE_FOR_SUBCLASSES:
                private.update((name, base) for name in base.own_names if is_private(name))
        if private:
            yield from _taken(item, private, own_room)


def _taken(item: Class, private: dict[str, Class], own_room: set[str]) -> Iterator[Finding]:
    """Yield what a class overrides and what it uses of the private names of bases in other rooms."""
    for name in sorted(item.own_names & private.keys()):
        if name not in _abstract(private[name]):
            yield Finding(item.module.path, f"{item.name} overrides {private[name].name}.{name}")
    bases = {base.name for base in private.values()}
    for node in ast.walk(item.node):
        if isinstance(node, ast.Attribute) and node.attr in private:
            inherited = node.attr not in own_room | item.own_names
            owner = ast.unparse(node.value)
            if owner == "super()" or owner in bases or (owner == "self" and inherited):
                text = f"line {node.lineno}: {item.name} uses {private[node.attr].name}.{node.attr}"
                yield Finding(item.module.path, text)


def _abstract(item: Class) -> set[str]:
    """Return the methods that a subclass is asked for: overriding one is what its base wants."""
    return {
        node.name
        for node in item.node.body
        if isinstance(node, FUNCTIONS)
        for decorator in node.decorator_list
        if ast.unparse(decorator).endswith("abstractmethod")
    }


PRIVATE_NAMES = Rule("private names of others", "ask for it by a public name", _from_outside)
PRIVATE_MEMBERS = Rule("private members of a base in another room", "ask the base for it", _by_inheritance)
