"""Import what a table or a user names as ``"module:name"``, when it is needed and not before."""

from __future__ import annotations

import importlib

from device_sdk.errors import ArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["check_path", "export", "load", "load_object"]

_DID_YOU_MEAN = "device_sdk._text:did_you_mean"  # only for an error, see there


def load(where: str) -> Any:
    """Return what one of our tables names. Raises: whatever importing the module raises."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def export(package: dict[str, Any], homes: Mapping[str, str], name: str) -> Any:
    """Return a name of a package that is at home in a module below it. For the ``__getattr__`` of a package.

    A package must not import its own modules: a thread that imports one of them has the lock of the module
    and waits for that of the package, while another thread has the package's and waits for the module's.
    Python ends that by an error in one of them, or by a module that is not complete.

    Args: ``package``: its ``globals()``, which get the name; ``homes``: name -> module.
    Raises: AttributeError: the package has no such name.
    """
    if name not in homes:
        raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{package['__name__']}.{homes[name]}"), name)
    package[name] = value
    return value


def check_path(path: str, argument: str) -> None:
    """Raise ArgumentError for a text that is not of the form ``"package.module:name"``, without an import."""
    module, colon, name = path.partition(":")
    if not (colon and all(part.isidentifier() for part in [*module.split("."), *name.split(".")])):
        hint = (
            f"; the name of a file is written without .py: {module[:-3]}:name"
            if module.endswith(".py")
            else ""
        )
        raise ArgumentError(argument, f"expected 'package.module:name', found {path!r:.80}{hint}")


def load_object(path: str, argument: str) -> Any:
    """Return what a user names.

    Raises: ArgumentError: the path is not of the form ``"package.module:name"``, or the module has no such
    name; it carries ``argument``. Whatever importing the module raises, ImportError for a start.
    """
    check_path(path, argument)
    module_name, _, name = path.partition(":")
    module = importlib.import_module(module_name)
    if not hasattr(module, name):
        hint = load(_DID_YOU_MEAN)(name, vars(module))
        raise ArgumentError(argument, f"the module {module_name} has no {name!r}{hint}")
    return getattr(module, name)
