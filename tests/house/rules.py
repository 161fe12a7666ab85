"""How large a thing may grow: the one place that the test and ``python -m tests.house`` read.

**An object** is a class together with its bases inside the project: whoever reads it has to know all of
them.

- *Methods*: the names of its functions, private ones, properties, ``__init__`` and the other special ones
  included, each once however many bases define it, and a property with its setter once. A name that a class
  body gives a method of another class (``publish = Shell._publish``) counts too: otherwise a second class
  would hide methods.
- *Attributes*: the names that its methods write by ``self.``, private ones included, in any form (``del``,
  ``for``, ``with``, ``setattr`` with a constant), those of ``__slots__`` and the fields of a dataclass. A
  slot counts without a write because somebody else writes it then, which is worse. Constants of the class
  do not count, nor does ``self.x = ...`` where ``x`` is a property with a setter: that is a call.
- *Depth*: the classes from the object up to the last base inside the project, the class itself included.

A contract is no rung: a class of which something is abstract and nothing has code but its constructor and
``with`` (Transport, Store, Driver). A reader of the implementation reads it instead of the implementation.
Nor is a class that adds no function to its base: it is a row of a table. Not counted at all are records
(declared fields, and no methods but those that make, show, compare and copy them), enumerations and
exceptions, which have no behaviour to be understood together.

**Functions and files** are measured in code lines: without docstrings, comments, blank lines and the
signatures of functions, so that nobody pays for a docstring, or for one more argument with its type, by
moving code elsewhere. A function has the lines of its body, those of functions inside it included.

Exceptions have a name and a number here. A number may only fall: a test fails when the source has become
better. What breaks the rules and is to be mended is listed in ``to_mend.toml``, see ``ratchet.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.house.objects import Class, classes
from tests.house.ratchet import Finding, Rule
from tests.house.source import Source

MAX_METHODS = 25
MAX_ATTRIBUTES = 15
MAX_DEPTH = 2
MAX_FUNCTION = 45
MAX_FILE = 500


class Named(NamedTuple):
    """An object that may be larger, and why."""

    methods: int
    attributes: int
    why: str


NAMED = {
    "device_sdk/engine/engine.py:Engine": Named(29, 18, "the one object that a shell drives"),
    "device_sdk/mqtt/protocol.py:Protocol": Named(30, 15, "a handler for each packet that a server sends"),
    "device_sdk/store/sqlite.py:SqliteStore": Named(25, 27, "what Store promises, and a thread's own state"),
}

# The public names of a client are the API, not a choice of the house: they do not count as methods, but
# there may be no more of them than this.
PUBLIC_NAMES = {
    "device_sdk/client.py:Client": 13,
    "device_sdk/aio/client.py:AsyncClient": 13,
    "device_sdk/paho/client.py:Client": 47,
    "device_sdk/paho/v1/client.py:Client": 48,
}


def public_names(item: Class) -> frozenset[str]:
    """Return the names of the methods that users call."""
    return frozenset(name for name in item.methods if not name.startswith("_"))


def methods(item: Class) -> int:
    """Return how many methods the rule counts."""
    return len(item.methods - public_names(item) if item.key in PUBLIC_NAMES else item.methods)


def _objects(source: Source) -> Iterator[Class]:
    for item in classes(source):
        if item.is_counted:
            yield item


def _too_many_methods(source: Source) -> Iterator[Finding]:
    for item in _objects(source):
        most = NAMED[item.key].methods if item.key in NAMED else MAX_METHODS
        if methods(item) > most:
            yield Finding(item.key, f"{methods(item)} methods, at most {most}", methods(item))


def _too_many_attributes(source: Source) -> Iterator[Finding]:
    for item in _objects(source):
        most = NAMED[item.key].attributes if item.key in NAMED else MAX_ATTRIBUTES
        if len(item.attributes) > most:
            yield Finding(item.key, ", ".join(sorted(item.attributes)), len(item.attributes))


def _too_deep(source: Source) -> Iterator[Finding]:
    for item in _objects(source):
        if item.depth > MAX_DEPTH:
            yield Finding(item.key, " < ".join(each.name for each in item.line), item.depth)


def _too_many_public_names(source: Source) -> Iterator[Finding]:
    for item in _objects(source):
        found, most = public_names(item), PUBLIC_NAMES.get(item.key)
        if most is not None and len(found) > most:
            yield Finding(item.key, ", ".join(sorted(found)), len(found))


def _too_long_functions(source: Source) -> Iterator[Finding]:
    for module in source.modules:
        for function in module.functions:
            length = module.function_code(function)
            if length > MAX_FUNCTION:
                yield Finding(f"{module.path}:{function.name}", f"line {function.lineno}", length)


def _too_long_files(source: Source) -> Iterator[Finding]:
    for module in source.modules:
        if module.code > MAX_FILE:
            yield Finding(module.path, f"{module.code} code lines", module.code)


SIZES = [
    Rule("methods", f"an object has at most {MAX_METHODS}: give it parts", _too_many_methods),
    Rule("attributes", f"an object has at most {MAX_ATTRIBUTES}: give it parts", _too_many_attributes),
    Rule("depth", f"at most {MAX_DEPTH}: parts instead of bases", _too_deep),
    Rule("public names", "see PUBLIC_NAMES in rules.py", _too_many_public_names),
    Rule("function lines", f"at most {MAX_FUNCTION} lines of code: split it", _too_long_functions),
    Rule("file lines", f"at most {MAX_FILE} lines of code: split it", _too_long_files),
]
