"""Reading a configuration file, and where its tables and keys stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_sdk.config.faults import ConfigFaults, Faults
from device_sdk.config.toml import line_numbers, parse_toml, read_text
from device_sdk.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_are_found_in_what_people_write() -> None:
    text = '''\
a = 1
  [node] # [not]
"id" = 1
text = """
[fake]
fake = 1
"""
b.c = 2
[[sensor]]
name = "x"
[sensor.options]
deep = 1
[[sensor]]
name = "[[y]]"
[sensor.options.more]
'''
    assert line_numbers(text) == {
        "a": 1,
        "node": 2,
        "node.id": 3,
        "node.text": 4,
        "node.b.c": 8,
        "sensor[0]": 9,
        "sensor[0].name": 10,
        "sensor[0].options": 11,
        "sensor[0].options.deep": 12,
        "sensor[1]": 13,
        "sensor[1].name": 14,
        "sensor[1].options.more": 15,
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, r"the rig file .*x\.toml cannot be read: No such file"),
     (b"\xff", "is not UTF-8 text: .* at byte 0"), (b"12345", "is longer than 4 bytes")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "x.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        read_text(path, 4, what="the rig file ")


def test_a_file_of_exactly_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1234")
    assert read_text(tmp_path / "x", 4) == "1234"


def test_what_is_no_toml_is_a_fault_with_its_line() -> None:
    with pytest.raises(ConfigFaults, match=r"(?s)node\.toml has one error:.*line 2: not TOML") as caught:
        parse_toml("a = 1\nb = \n", "node.toml")
    assert caught.value.faults[0].line == 2


@pytest.mark.parametrize("key", ["a[b", "a[", "[", "a]b", "x.a[b", "a[1]b", "a\n[2J"])
def test_a_key_with_brackets_of_its_own_is_a_fault_like_any_other(key: str) -> None:
    faults = Faults({"": 1})
    faults.add(key, "there is no such key")
    with pytest.raises(ConfigFaults) as caught:
        faults.raise_if_any("node.toml")
    assert len(caught.value.faults) == 1
