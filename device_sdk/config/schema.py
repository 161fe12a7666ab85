"""JSON Schema of a configuration, for editors and other tools: the same tables, the same bounds.

It describes one value at a time. Only ``device-sdk config check`` finds two sensors with one topic, or a
missing file.
"""

from __future__ import annotations

import re
from typing import Any

from device_sdk.config.convert import Table, schema_components
from device_sdk.config.durations import DURATION_PATTERN

__all__ = ["DIALECT", "json_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(kind: type[Table], title: str) -> dict[str, Any]:
    """Return the schema of a file that is one ``kind``, as data for :func:`json.dumps`.

    Source: JSON Schema 2020-12, Core and Validation.
    """
    root, tables = schema_components(kind)
    definitions = {name: _table(table) for name, table in tables.items()}
    top = definitions.pop(root)
    return {"$schema": DIALECT, **top, "title": title, "$defs": definitions}


def _table(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a table's schema with the first sentence of its docstring for people."""
    found: dict[str, Any] = _for_toml(schema)
    found["description"] = _first_sentence(found["description"])
    del found["title"]  # the name of a class
    return found


def _first_sentence(docstring: str) -> str:
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", docstring).replace("``", "")
    return re.split(r"[.;]\s|\n", text, maxsplit=1)[0].rstrip(".")


def _for_toml(schema: Any) -> Any:
    """Return a schema without None, which in TOML is an absent key; a duration may be a text."""
    if isinstance(schema, list):
        return [_for_toml(each) for each in schema if each != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    found = {key: _for_toml(value) for key, value in schema.items()}
    if "default" in found and (found["default"] is None or isinstance(found["default"], dict)):
        del found["default"]  # of a table: its keys have their own
    if found.get("required") == []:
        del found["required"]  # draft 4, which some editors still speak, wants one name at least
    if found.get("pattern") == DURATION_PATTERN and "type" in found:
        # The bounds hold for numbers only, and the pattern for texts only.
        found["type"] = [found["type"], "string"]
    match found.get("anyOf"):
        case [only]:
            del found["anyOf"]
            found = {**only, **found}
    return found
