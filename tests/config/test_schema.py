"""JSON Schema out of the tables of a configuration, judged by the package jsonschema."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from device_sdk.config.schema import DIALECT, json_schema
from tests.config.test_vocabulary import Words

SCHEMA = json_schema(Words, "Words")


def is_valid(**table: Any) -> bool:
    return not list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(table))


def test_it_is_a_schema_of_its_dialect() -> None:
    assert SCHEMA["$schema"] == DIALECT
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_first_sentence_of_a_docstring_describes_a_table() -> None:
    assert SCHEMA["description"] == "[words]: one of each"


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("timeout", [1, 600, 2.5, "10s", "1.5 h"], [0.5, 601, "soon", "10", True, None]),
        ("keep_alive", [0, 65_535, "1h"], [-1, 65_536, 1.5, "1 hour"]),
        ("count", [1], [0, "1", 1.5, None]),
        ("qos", [0, 1, 2], [3, "1"]),
        ("rate", [0.1], [0, -1, "fast"]),
        ("chip", [0x76], [0x78, "0x76"]),
        ("id", ["greenhouse-1"], ["", "a b", "x" * 65, 7]),
        ("url", ["mqtt://x", "unix:/run/x"], ["x", "//x", 1883]),
        ("bus", ["i2c-1"], ["", 1, None]),
        ("file", ["queue.db"], ["", None]),
        ("kinds", [[], ["a"]], ["a", [1]]),
        ("kindz", [], [[]]),
    ],
)
def test_it_takes_what_the_file_may_say_and_nothing_else(key: str, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if not is_valid(**{key: value})] == []
    assert [value for value in bad if is_valid(**{key: value})] == []


def test_nothing_in_it_is_null_and_no_list_of_needed_keys_is_empty() -> None:
    def look(schema: Any) -> None:
        if isinstance(schema, dict):
            assert schema.get("type") != "null" and schema.get("default", 0) is not None
            assert schema.get("required") != []
            schema = list(schema.values())
        if isinstance(schema, list):
            for each in schema:
                look(each)

    look(SCHEMA)
