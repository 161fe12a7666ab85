"""Whole objects: a class together with its bases inside the project, as the rule of rules.py reads it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache, cached_property

from tests.house.source import FUNCTIONS, Function, Module, Source

# What a record may have besides its fields: how it is made, shown, compared and copied.
_RECORD_METHODS = {
    "__copy__",
    "__eq__",
    "__getstate__",
    "__hash__",
    "__init__",
    "__init_subclass__",
    "__new__",
    "__post_init__",
    "__reduce__",
    "__repr__",
    "__setstate__",
    "__str__",
    "copy",
}
# What a contract may have besides methods without code: attributes that it promises, and ``with``.
_CONTRACT_METHODS = {"__enter__", "__exit__", "__init__"}
_ENUMERATIONS = {"Enum", "Flag", "IntEnum", "IntFlag", "StrEnum"}
# Bases whose annotations become attributes, as those of a dataclass do.
_GENERATED = {"NamedTuple", "Struct", "Structure", "TypedDict"}


class Class:
    """One class statement: its own methods and attributes, and the bases it has inside the project."""

    def __init__(self, module: Module, node: ast.ClassDef) -> None:
        self.module = module
        self.node = node
        self.name = node.name
        self.key = f"{module.path}:{node.name}"
        self.bases: list[Class] = []
        self.foreign_bases: list[str] = []

    @cached_property
    def functions(self) -> list[Function]:
        """The functions written in the body, under an ``if`` too."""
        return [node for node in _statements(self.node.body) if isinstance(node, FUNCTIONS)]

    @cached_property
    def own_methods(self) -> frozenset[str]:
        """Names of functions, and of names that are given a function: ``publish = Shell._publish``."""
        names = {function.name for function in self.functions}
        for node in _statements(self.node.body):
            if isinstance(node, ast.Assign) and _is_method_value(node.value):
                names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        return frozenset(names)

    @cached_property
    def own_attributes(self) -> frozenset[str]:
        """Names written by ``self.``, in ``__slots__``, or fields that a generated constructor writes."""
        names = {name for function in self.functions for name in _written_by_self(function)}
        for node in _statements(self.node.body):
            if isinstance(node, ast.Assign) and "__slots__" in _names_assigned(node):
                names.update(_texts(node.value))
            if self.has_fields and isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.update([node.target.id] if "ClassVar" not in ast.unparse(node.annotation) else [])
        return frozenset(names)

    @cached_property
    def own_names(self) -> frozenset[str]:
        """Every name that the class defines itself, constants and annotations of the body included."""
        targets = [target for node in self.node.body for target in _targets(node)]
        names = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
        return self.own_methods | self.own_attributes | names

    @cached_property
    def setters(self) -> frozenset[str]:
        """Properties with a setter, descriptors: ``self.x = ...`` is a call and writes no attribute ``x``."""
        properties = {
            function.name
            for function in self.functions
            for decorator in function.decorator_list
            if ast.unparse(decorator) == f"{function.name}.setter"
        }
        descriptors = {
            name
            for node in self.node.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call)
            for name in _names_assigned(node)
        }
        return frozenset(properties if self.has_fields else properties | descriptors)

    @property
    def has_fields(self) -> bool:
        """Whether annotations in the body become attributes: a dataclass or a structure of msgspec."""
        decorators = {
            ast.unparse(node).partition("(")[0].rpartition(".")[2] for node in self.node.decorator_list
        }
        return "dataclass" in decorators or bool(_GENERATED.intersection(self.foreign_bases))

    @cached_property
    def line(self) -> list[Class]:
        """The class and all its bases inside the project, each once, nearest first."""
        found = [self]
        for base in self.bases:
            found += [each for each in base.line if each not in found]
        return found

    @cached_property
    def is_contract(self) -> bool:
        """Whether the class only promises: it has no code but a constructor and ``with``."""
        promises = "Protocol" in self.foreign_bases or any(map(_is_abstract, self.functions))
        coded = {function.name for function in self.functions if _has_code(function)}
        return promises and coded <= _CONTRACT_METHODS and all(base.is_contract for base in self.bases)

    @property
    def is_table(self) -> bool:
        """Whether the class adds no function to its bases: a row of data in the form of a class."""
        return bool(self.bases) and not self.own_methods

    @cached_property
    def is_record(self) -> bool:
        """Whether the class has declared fields and no behaviour."""
        methods = {name for each in self.line for name in each.own_methods}
        fields = all(each.has_fields or each.has_slots for each in self.line)
        return fields and methods <= _RECORD_METHODS

    @property
    def has_slots(self) -> bool:
        """Whether the class names its attributes itself."""
        return any("__slots__" in _names_assigned(node) for node in self.node.body)

    @cached_property
    def is_exception(self) -> bool:
        """Whether the class can be raised."""
        names = (name for each in self.line for name in each.foreign_bases)
        return any(name.endswith(("Error", "Exception", "Warning")) for name in names)

    @cached_property
    def is_counted(self) -> bool:
        """Whether the rule applies: the class is no record, enumeration or exception."""
        foreign = {name for each in self.line for name in each.foreign_bases}
        return not (self.is_record or self.is_exception or foreign & _ENUMERATIONS)

    @property
    def methods(self) -> frozenset[str]:
        """All names that can be called as methods, inherited ones included."""
        return frozenset().union(*(each.own_methods for each in self.line))

    @property
    def attributes(self) -> frozenset[str]:
        """All names that hold state, inherited ones included."""
        written = frozenset().union(*(each.own_attributes for each in self.line))
        return written.difference(*(each.setters for each in self.line))

    @property
    def depth(self) -> int:
        """The rungs from here to the top, this class included, contracts and tables left out."""
        above = max((base.depth for base in self.bases), default=0)
        return above + (0 if self.is_contract or self.is_table else 1)


@cache
def classes(source: Source) -> list[Class]:
    """Return every class of the source, its bases looked up."""
    found = [
        Class(module, node)
        for module in source.modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
    ]
    names = Names(source)
    by_name = {(each.module.name, each.name): each for each in found}
    for each in found:
        for base in each.node.bases:
            dotted = ast.unparse(base).partition("[")[0]
            target = by_name.get(names.home(each.module.name, dotted))
            if target is not None and target is not each:
                each.bases.append(target)
            elif target is None:
                each.foreign_bases.append(dotted.rpartition(".")[2])
    return found


class Names:
    """Where a name of a module comes from, followed through imports and the tables of lazy imports."""

    def __init__(self, source: Source) -> None:
        self._imports = {module.name: _imports(module) for module in source.modules}

    def home(self, module: str, dotted: str) -> tuple[str, str]:
        """Return the module that defines ``dotted`` as it is written in ``module``, and its name there."""
        first, *rest = dotted.split(".")
        seen = set()
        while (module, first) not in seen:
            seen.add((module, first))
            origin = self._imports.get(module, {}).get(first)
            if origin is None:
                break
            module, first = origin
            if f"{module}.{first}" in self._imports and rest:  # ``from device_sdk.paho import client as v2``
                module, first = f"{module}.{first}", ""
            if not first and rest:
                first = rest.pop(0)
        return module, ".".join([first, *rest])


def _imports(module: Module) -> dict[str, tuple[str, str]]:
    """Return the imported names: module, and the name there; ``""`` if it is the module itself."""
    found: dict[str, tuple[str, str]] = {}
    for node in ast.walk(module.tree):
        match node:
            case ast.ImportFrom(module=origin, names=names):
                found.update({n.asname or n.name: (origin or "", n.name) for n in names})
            case ast.Import(names=names):
                found.update({n.asname: (n.name, "") for n in names if n.asname})
            case ast.Constant(value=str(text)) if text.startswith("device_sdk.") and text.count(":") == 1:
                origin, _, name = text.partition(":")
                if module.is_package:
                    found.setdefault(name, (origin, name))
    return found


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a class body, those under an ``if`` or ``try`` too."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from _statements([*node.body, *node.orelse])


def _is_method_value(value: ast.expr) -> bool:
    """Whether a name in a class body becomes a method by this: ``Shell._publish``, ``property(...)``."""
    match value:
        case ast.Attribute(value=ast.Name(id=owner)):
            return owner[:1].isupper()
        case ast.Call(func=func):
            return ast.unparse(func) in {"property", "staticmethod", "classmethod"}
    return False


def _written_by_self(function: Function) -> Iterator[str]:
    """Yield ``x`` for ``self.x = ...`` in every form, and for ``setattr(self, "x", ...)``."""
    first = next(iter([*function.args.posonlyargs, *function.args.args]), None)
    owners = {"self"} | ({first.arg} if first is not None and first.arg != "cls" else set())
    for node in walk_without_classes(function):
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name, ctx=ast.Store()) if owner in owners:
                yield name
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id=owner), attr=name)) if owner in owners:
                yield name
            case ast.Call(func=func, args=[ast.Name(id=owner), ast.Constant(value=str(name)), _]) if (
                owner in owners and ast.unparse(func) in {"setattr", "object.__setattr__"}
            ):
                yield name


def walk_without_classes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a function with the functions inside it, but not into a class inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef):
            yield child
            yield from walk_without_classes(child)


def _texts(node: ast.expr) -> list[str]:
    """Return the strings of a ``__slots__``."""
    return [
        each.value
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]


def _targets(node: ast.stmt) -> list[ast.expr]:
    """Return what a statement assigns to or annotates."""
    if isinstance(node, ast.AnnAssign):
        return [node.target]
    return node.targets if isinstance(node, ast.Assign) else []


def _names_assigned(node: ast.stmt) -> list[str]:
    """Return the plain names that a statement assigns."""
    return [target.id for target in _targets(node) if isinstance(target, ast.Name)]


def _is_abstract(function: Function) -> bool:
    return any(ast.unparse(node).endswith("abstractmethod") for node in function.decorator_list)


def _has_code(function: Function) -> bool:
    """Whether a body is more than a docstring, ``...``, ``pass``, a constant or NotImplementedError."""
    for node in function.body:
        match node:
            case ast.Pass() | ast.Expr(value=ast.Constant()) | ast.Return(value=ast.Constant() | None):
                continue
            case ast.Raise(exc=exc) if exc is not None and "NotImplementedError" in ast.unparse(exc):
                continue
        return True
    return False
