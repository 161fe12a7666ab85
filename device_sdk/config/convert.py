"""The thin layer over msgspec: a table becomes a Struct, and all its faults are reported, not only the first.

msgspec knows the types and their bounds; the description in a field's ``Meta`` is the "expected" of a fault::

    class Broker(Table, kw_only=True):
        max_messages: Annotated[int, Meta(ge=1, description="a whole number from 1")] = 10_000

:mod:`device_sdk.config.vocabulary` makes these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

from device_sdk._text import did_you_mean
from device_sdk.config.durations import parse_duration
from device_sdk.config.faults import mismatch, one_of, unknown
from device_sdk.errors import MissingDependency

try:
    import msgspec
    from msgspec import Meta, Struct
    from msgspec.structs import replace
except ImportError as error:
    raise MissingDependency("the node's configuration", "node") from error

if TYPE_CHECKING:
    from device_sdk.config.faults import Faults

__all__ = [
    "DURATION",
    "Meta",
    "Table",
    "convert_table",
    "replace",
    "schema_components",
]

T = TypeVar("T", bound=Struct)

DURATION = {"duration": True}
"""As the ``extra`` of a field's ``Meta``: texts such as ``"10s"`` are seconds."""

_PLAIN_TYPES = {bool: "true or false", str: "a text", int: "a whole number", float: "a number"}


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the tables of a configuration."""


def convert_table(table: object, kind: type[T], path: str, faults: Faults) -> T | None:
    """Return the table as a ``kind``, or ``None`` after every fault in it was added to ``faults``."""
    if not isinstance(table, dict):
        faults.add(path, mismatch(f"a table [{path}]", table, path))
        return None
    before = len(faults)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for key in table.keys() - fields.keys():
        faults.add(_join(path, key), unknown(key, fields))
    arguments: dict[str, Any] = {}
    for name, field in fields.items():
        if name in table:
            arguments[name] = _convert(table[name], field.type, _join(path, name), faults)
        elif field.required:
            what = f"[{name}]" if _is_struct(field.type) else _expected(field.type)
            faults.add(_join(path, name), f"expected {what}, but it is missing")
    return kind(**arguments) if len(faults) == before else None


def schema_components(kind: type[Table]) -> tuple[str, dict[str, Any]]:
    """Return the name of a table, and the JSON Schema of it and of all tables in it by their names."""
    (_,), components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    return kind.__name__, components


def _convert(value: object, kind: Any, path: str, faults: Faults) -> object:
    if _is_struct(kind):
        return convert_table(value, kind, path, faults)
    item = _struct_in_list(kind)
    if item is not None:
        return _convert_list(value, item, kind, path, faults)
    meta = _meta(kind)
    given = value
    if meta is not None and meta.extra == DURATION and isinstance(value, str):
        seconds = parse_duration(value)
        given = value if seconds is None else seconds
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError:
        choices = _choices(kind)
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        faults.add(path, mismatch(_expected(kind), value, path, hint))
        return None


def _convert_list(value: object, item: Any, kind: Any, path: str, faults: Faults) -> object:
    if isinstance(value, dict):
        faults.add(path, f"expected {_expected(kind)}, found one table [{path}]; write [[{path}]]")
    elif not isinstance(value, list) or not value:
        faults.add(path, mismatch(_expected(kind), value, path))
    else:
        return [convert_table(table, item, f"{path}[{index}]", faults) for index, table in enumerate(value)]
    return None


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _struct_in_list(kind: Any) -> type[Struct] | None:
    plain = _plain(kind)
    if get_origin(plain) is list:
        (item,) = get_args(plain)
        return item if _is_struct(item) else None
    return None


def _expected(kind: Any) -> str:
    meta = _meta(kind)
    if meta is not None and meta.description:
        return str(meta.description)
    choices = _choices(kind)
    if choices:
        return one_of(choices)
    return _PLAIN_TYPES.get(kind, "a table")


def _choices(kind: Any) -> tuple[str, ...]:
    return get_args(_plain(kind)) if get_origin(_plain(kind)) is Literal else ()


def _meta(kind: Any) -> Meta | None:
    """Return the first Meta of a type, also of one that may be None."""
    annotated = (part for part in (kind, *get_args(kind)) if get_origin(part) is Annotated)
    return next((part.__metadata__[0] for part in annotated), None)


def _plain(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
