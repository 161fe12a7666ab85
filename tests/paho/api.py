"""Describes the public names of a module, so that two packages can be compared.

``python tests/paho/api.py MODULE ...`` prints the description of modules as JSON: that is how
``paho_1_6_1.json`` was made from an installed paho-mqtt 1.6.1.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import sys
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

__all__ = ["describe", "describe_class", "public_names"]

# Methods behind operators, when the class itself defines them.
_OPERATORS = (
    "__eq__",
    "__lt__",
    "__str__",
    "__repr__",
    "__iter__",
    "__next__",
    "__getitem__",
    "__setitem__",
    "__delitem__",
)


def public_names(module: ModuleType) -> list[str]:
    """Return the names that a program may take from a module: not what it imported from elsewhere."""
    own = module.__name__.partition(".")[0]
    return sorted(
        name
        for name, value in vars(module).items()
        if name[0] != "_" and name != "TYPE_CHECKING" and not _is_foreign(name, value, own)
    )


def _is_foreign(name: str, value: object, own: str) -> bool:
    if isinstance(value, ModuleType):
        return True
    origin = getattr(value, "__module__", None)
    if not isinstance(origin, str) or origin.partition(".")[0] == own:
        return False
    # CallbackOnMessage is made by typing, and is not typing's own name.
    return inspect.isclass(value) or getattr(value, "__name__", name) == name


def describe(module: ModuleType, names: Iterable[str]) -> dict[str, str]:
    """Return a line for each name of a module and for each public member of its classes."""
    described = {}
    for name in names:
        value = getattr(module, name, None)
        if inspect.isclass(value):
            described[name] = _class_line(value)
            described.update({f"{name}.{member}": line for member, line in describe_class(value).items()})
        elif hasattr(module, name):
            described[name] = _line(value)
    return described


def describe_class(kind: type) -> dict[str, str]:
    """Return a line for each public member and each operator of a class."""
    members = {name for name in dir(kind) if name[0] != "_"} | {
        name for name in _OPERATORS if name in vars(kind)
    }
    if issubclass(kind, enum.Enum):
        members = set(kind.__members__)
    elif issubclass(kind, tuple):
        members = set(getattr(kind, "_fields", ()))
    elif issubclass(kind, Exception):
        members &= set(vars(kind))
    return {name: _member_line(name, inspect.getattr_static(kind, name)) for name in sorted(members)}


def _member_line(name: str, value: object) -> str:
    return "operator" if name in _OPERATORS else _line(value)


def _class_line(kind: type) -> str:
    builtin = [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins" and base is not object]
    if issubclass(kind, (enum.Enum, Exception)):
        return f"class of {', '.join(builtin)}"
    return f"class{_parameters(kind)}"


def _line(value: Any) -> str:
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if isinstance(value, property):
        return "property" if value.fset else "read-only property"
    if isinstance(value, FunctionType):
        return f"function{_parameters(value)}"
    return _value(value)


def _parameters(function: Any) -> str:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return "(?)"
    texts = []
    for parameter in parameters:
        text = str(parameter.replace(annotation=parameter.empty, default=parameter.empty))
        if parameter.default is not parameter.empty:
            text += f"={_value(parameter.default)}"
        texts.append(text)
    return f"({', '.join(texts)})"


def _value(value: Any) -> str:
    """Return a constant as text: enum members by their values, and what has no value by its kind."""
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, (bool, int, float, str, bytes, range, type(None))):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, dict) or type(value).__name__ == "mappingproxy":
        return f"{{{', '.join(f'{_value(key)}: {_value(item)}' for key, item in sorted(value.items()))}}}"
    return "value"


def main(names: list[str]) -> None:
    """Print the descriptions of modules named on the command line."""
    modules = [importlib.import_module(name) for name in names]
    described = {module.__name__: describe(module, public_names(module)) for module in modules}
    json.dump(described, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main(sys.argv[1:])
