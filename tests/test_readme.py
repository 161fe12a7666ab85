"""What the README tells a newcomer to copy works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from device_sdk.node.config import parse_config
from device_sdk.testing import BrokerServer, ModelBroker

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


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
