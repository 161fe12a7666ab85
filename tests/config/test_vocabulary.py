"""The words of a configuration: each bound stands once, and is checked, told and exported from there."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from device_sdk.config.convert import Meta, Table, convert_table
from device_sdk.config.faults import Faults
from device_sdk.config.vocabulary import (
    File,
    Name,
    above,
    bus_address,
    name_of,
    seconds,
    text_like,
    url_like,
    whole_number,
    whole_seconds,
)

DAY = 86_400


class Words(Table, frozen=True, kw_only=True):
    """``[words]``: one of each."""

    timeout: Annotated[float, seconds("10s", 1, 600)] = 10.0
    drain: Annotated[float, seconds("10s", 0, 600)] = 10.0
    interval: Annotated[float, seconds("10s", 0.01, 31 * DAY)] = 10.0
    keep_alive: Annotated[int, whole_seconds("60s", 0, 0xFFFF)] = 60
    count: Annotated[int, whole_number(1)] | None = None
    qos: Annotated[int, whole_number(0, 2)] = 0
    port: Annotated[int, whole_number(1, 65_535)] = 1883
    rate: Annotated[float, above(0, "messages a second")] | None = None
    chip: Annotated[int, bus_address(0x08, 0x77)] = 0x76
    id: Name = "x"
    short: Annotated[str, name_of(3, "a-c", "letters from a to c")] = "abc"
    url: Annotated[str, url_like("mqtt://127.0.0.1")] = "mqtt://127.0.0.1"
    bus: Annotated[str, text_like("a bus", "i2c-1")] | None = None
    file: File | None = None
    kinds: Annotated[list[str], Meta(description="a list")] = []


def problem(key: str, value: Any) -> str:
    """What is wrong with this value of the key; empty if it is taken."""
    faults = Faults()
    convert_table({key: value}, Words, "words", faults)
    try:
        faults.raise_if_any("file")
    except Exception as error:
        return str(error).partition(f"words.{key}: ")[2]
    return ""


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("timeout", "11m", 'expected seconds or "10s", "1s" to "10m", found "11m"'),
        ("timeout", 0.5, 'expected seconds or "10s", "1s" to "10m", found 0.5'),
        ("drain", 601, 'expected seconds or "10s", at most "10m", found 601'),
        ("interval", "9ms", 'expected seconds or "10s", "10ms" to "31d", found "9ms"'),
        ("keep_alive", 65_536, 'expected whole seconds or "60s", 0 to 65535, found 65536'),
        ("keep_alive", "500ms", 'expected whole seconds or "60s", 0 to 65535, found "500ms"'),
        ("count", 0, "expected a whole number from 1, found 0"),
        ("qos", 3, "expected 0, 1 or 2, found 3"),
        ("port", 0, "expected a whole number from 1 to 65535, found 0"),
        ("rate", 0, "expected messages a second, above 0, found 0"),
        ("chip", 0x78, "expected an address from 0x08 to 0x77, found 120"),
        ("id", "a b", "expected a name of 1 to 64 letters, digits, '_', '-' and '.', found \"a b\""),
        ("short", "abca", "expected a name of 1 to 3 letters from a to c, found \"abca\""),
        ("url", 5, 'expected a URL such as "mqtt://127.0.0.1", found a whole number'),
        ("bus", "", 'expected a bus such as "i2c-1", found ""'),
        ("file", "", 'expected the path of a file, found ""'),
        ("kindz", [], "there is no such key; did you mean 'kinds'?"),
        ("colour", 1, f"there is no such key; there is: {', '.join(Words.__struct_fields__)}"),
    ],
)  # fmt: skip
def test_what_is_expected_is_made_from_the_bounds(key: str, value: object, expected: str) -> None:
    assert problem(key, value) == expected


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("timeout", [1, 600, "1s", "10m", "1000ms"]),
        ("drain", [0, "0s", 600]),
        ("interval", [0.01, "10ms", "31d"]),
        ("keep_alive", [0, 65_535, "1h"]),
        ("count", [1, 10**12]),
        ("qos", [0, 1, 2]),
        ("port", [1, 65_535]),
        ("rate", [0.001, 1]),
        ("chip", [0x08, 0x77]),
        ("short", ["a", "abc"]),
    ],
)
def test_the_bounds_themselves_are_taken(key: str, values: list[object]) -> None:
    assert [problem(key, value) for value in values] == [""] * len(values)
