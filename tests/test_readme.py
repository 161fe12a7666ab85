"""What the README and the pages of docs/ tell a newcomer to copy works as it stands there."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from device_sdk.node.config import parse_config
from device_sdk.testing import BrokerServer, ModelBroker

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def example(language: str) -> str:
    """Return the only example in that language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert isinstance(found, str)
    return found


def test_the_first_program_publishes_and_ends(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with BrokerServer(ModelBroker()) as server:
        program = example("python").replace("mqtt://localhost", server.url)
        assert server.url in program
        exec(compile(program, "README.md", "exec"), {})
        published = [(message.topic, message.payload) for message in server.broker.journal]
    assert published == [
        ("site/17/state", b"online"),
        ("site/17/temperature", b"21.5"),
        ("site/17/state", b"offline"),
    ]
    assert "the broker has it: acknowledged" in capsys.readouterr().out


def test_the_first_node_has_no_errors_and_runs_over_a_serial_line_with_one_line_changed() -> None:
    pytest.importorskip("serial", reason="needs pyserial")
    text = example("toml")
    (serial,) = re.findall(r'"(serial:[^"]*)"', text)
    over_tcp, over_serial = parse_config(text), parse_config(text.replace("mqtt://localhost", serial, 1))
    assert over_tcp.broker.url == "mqtt://localhost"
    assert over_serial.broker.url == serial
    assert over_tcp.sensor == over_serial.sensor


def python_examples() -> Iterator[tuple[str, str]]:
    """Return where each example in Python stands, and its text."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, found.start(1)) + 1
            yield f"{page.relative_to(ROOT)}:{line}", found[1]


@pytest.mark.parametrize(("where", "text"), [pytest.param(*each, id=each[0]) for each in python_examples()])
def test_every_example_is_python_and_imports_what_there_is(where: str, text: str) -> None:
    tree = ast.parse(text, where)
    compile(text, where, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("device_sdk"):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                there = hasattr(module, name.name) or find_spec(f"{node.module}.{name.name}") is not None
                assert there, f"{where}: {node.module} has no {name.name}"


def test_there_are_examples_to_look_at() -> None:
    assert len(list(python_examples())) > 30
