"""Import what a table or a user names as ``"module:name"``, when it is needed and not before."""

from __future__ import annotations

import importlib

from device_sdk.errors import ArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["load", "load_object"]

_DID_YOU_MEAN = "device_sdk._text:did_you_mean"  # only for an error, see there


def load(where: str) -> Any:
    """Return what one of our tables names. Raises: whatever importing the module raises."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def load_object(path: str, argument: str) -> Any:
    """Return what a user names.

    Raises: ArgumentError: the path is not of the form ``"package.module:name"``, or the module has no such
    name; it carries ``argument``. Whatever importing the module raises, ImportError for a start.
    """
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise ArgumentError(argument, f"expected 'package.module:name', found {path!r}")
    module = importlib.import_module(module_name)
    if not hasattr(module, name):
        hint = load(_DID_YOU_MEAN)(name, vars(module))
        raise ArgumentError(argument, f"the module {module_name} has no {name!r}{hint}")
    return getattr(module, name)
