"""What the command prints: safe lines, whoever chose the words, and `sub` into a pipe byte for byte."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from device_sdk import Client
from device_sdk._printable import printable
from device_sdk.cli import main
from device_sdk.cli.common import ExitCode, set_up_logging
from device_sdk.cli.terminal import LogFormatter, complain, say, say_message, show_defects_safely
from device_sdk.mqtt.packets import Connack, Publish, Suback
from device_sdk.store.base import StorePolicy
from device_sdk.testing.broker_server import BrokerServer
from device_sdk.testing.scripted_broker import ScriptedBroker, expect, send

HOSTILE = "x\nforged\r\x1b[2J\u202e\x9b"
SHOWN = "x\\nforged\\r\\x1b[2J\\u202e\\x9b"
PAYLOAD = HOSTILE.encode() + b"\xff"


def safe_lines(text: str) -> list[str]:
    lines = text.split("\n")
    assert all(printable(line.strip()) == line.strip() for line in lines), text
    return lines


# Messages


def script(payload: bytes) -> ScriptedBroker:
    """A broker that sends one hostile message."""
    return ScriptedBroker(
        [
            expect("connect"),
            send(Connack()),
            expect("subscribe"),
            send(lambda seen: Suback(seen.packet_id, [0])),
            send(Publish(HOSTILE, payload)),
            expect("disconnect"),
        ]
    )


class FakeOutput(io.TextIOWrapper):
    """Standard output that says it is a terminal."""

    def __init__(self, terminal: bool) -> None:
        self.bytes = io.BytesIO()
        super().__init__(self.bytes, encoding="utf-8")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize(
    ("options", "in_a_pipe", "on_a_terminal"),
    [
        ([], PAYLOAD + b"\n", f"{SHOWN}\\xff\n"),
        (["-v"], HOSTILE.encode() + b" " + PAYLOAD + b"\n", f"{SHOWN} {SHOWN}\\xff\n"),
    ],
    ids=["payload", "with topic"],
)
def test_sub_into_a_pipe_is_byte_for_byte_and_on_a_terminal_safe(
    options: list[str], in_a_pipe: bytes, on_a_terminal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for terminal, wanted in ((False, in_a_pipe), (True, on_a_terminal.encode())):
        out = FakeOutput(terminal)
        with BrokerServer(script(PAYLOAD)) as server, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            code = main(["sub", "--url", server.url, "-t", "#", "-n", "1", "--timeout", "10", *options])
        assert (code, out.bytes.getvalue()) == (ExitCode.OK, wanted)


def test_json_of_sub_is_complete_and_ascii_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    out = FakeOutput(terminal=True)
    with BrokerServer(script(HOSTILE.encode() * 9_000)) as server, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        assert main(["sub", "--url", server.url, "-t", "#", "-n", "1", "--timeout", "10", "--json"]) == 0
    (line,) = out.bytes.getvalue().splitlines()
    assert line.isascii() and line.decode().isprintable()
    shown = json.loads(line)
    assert (shown["topic"], shown["payload"]) == (HOSTILE, HOSTILE * 9_000)


def test_a_message_of_megabytes_does_not_fill_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, least, most in ((True, 99_000, 101_000), (False, 9_000_001, 9_000_001)):
        out = FakeOutput(terminal)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            say_message(b"x" * 9_000_000)
        assert least <= len(out.bytes.getvalue()) <= most


# Everything else


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store whose name, client identifier, subscriptions and messages are hostile."""
    path = tmp_path / f"{HOSTILE}.db"
    policy = StorePolicy(durability="os", min_free=0)
    client = Client("memory://nobody", client_id=HOSTILE, store=path, policy=policy)
    client.subscribe(f"{HOSTILE}/#")
    client.publish(HOSTILE, PAYLOAD, qos=1).wait_stored(10)
    client.close(drain=0)
    return path


@pytest.mark.parametrize(
    "action", ["stat", "peek", "check", "export", "stat --json", "peek --json", "purge --yes"]
)
def test_a_store_shows_no_control_characters(
    action: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = action.split()
    assert main(["queue", name, str(store), *options]) == ExitCode.OK
    shown = capsys.readouterr().out
    lines = safe_lines(shown)
    assert "forged" in shown or name == "purge"
    assert not [line for line in lines if line.lstrip().startswith("forged")]


@pytest.mark.parametrize(
    "argv",
    [
        [HOSTILE],
        ["queue", HOSTILE],
        ["queue", "stat", HOSTILE],
        ["queue", "stat", "x.db", HOSTILE],
        ["config", "check", HOSTILE],
        ["sensors", "read", HOSTILE],
        ["sensors", "read", "host", "-o", HOSTILE],
        ["sensors", "read", "host", "-o", f"{HOSTILE}=1"],
        ["sensors", "discover", "--root", HOSTILE],
        ["pub", "-t", f"{HOSTILE}#", "-m", "x", "--url", "memory://nobody"],
        ["pub", "-t", "t", "-m", "x", "--url", f"mqtt://{HOSTILE}"],
        ["pub", "-t", "t", "-m", "x", "--password-file", HOSTILE],
        ["sub", "-t", "#", "--url", f"unix:/{HOSTILE.replace(chr(10), '%0A')}"],
        ["demo", "--url", f"mqtt://{HOSTILE}"],
    ],
    ids=lambda argv: " ".join(word for word in argv if word.isprintable()),
)
def test_a_hostile_argument_is_quoted_safely(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(argv)
    out, err = capsys.readouterr()
    safe_lines(out)
    assert "forged" not in [line.strip() for line in safe_lines(err)]


def test_each_fault_of_a_configuration_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"node{HOSTILE}.toml"
    path.write_text(
        f'"a\\n\\u001b[2J" = 1\n[node]\nid = {json.dumps(HOSTILE)}\n"\u202e" = 2\n', encoding="utf-8"
    )
    assert main(["config", "check", str(path)]) == ExitCode.USAGE
    first, *faults = safe_lines(capsys.readouterr().err.rstrip("\n"))
    assert first.startswith("device-sdk: node") and first.endswith("errors:")
    assert len(faults) > 2
    assert all(fault.startswith("  ") for fault in faults)


def test_a_complaint_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain(TimeoutError(HOSTILE))
    say(HOSTILE, HOSTILE)
    out, err = capsys.readouterr()
    assert (out, err) == (f"{SHOWN}\n{SHOWN}\n", f"device-sdk: {SHOWN}\n")


# The log of the command, also of other packages


def test_a_record_of_another_package_is_one_line_and_its_traceback_is_safe() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        reason = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("other", logging.WARNING, __file__, 1, "%s", (HOSTILE,), reason)
    first, *traceback = safe_lines(LogFormatter("%(message)s").format(record))
    assert first == SHOWN
    assert traceback[-1] == f"ValueError: {SHOWN}"


def test_the_command_logs_with_that_formatter(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.Logger("root")
    monkeypatch.setattr(logging, "root", root)
    monkeypatch.setattr(logging, "getLogger", lambda name=None: root)
    set_up_logging("info", who="somebody")
    (handler,) = root.handlers
    record = logging.LogRecord("other", logging.WARNING, __file__, 1, "%s", (HOSTILE,), None)
    assert handler.format(record).endswith(f" WARNING somebody other: {SHOWN}")


# Defects


def hooks(monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., object], Callable[..., object]]:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    show_defects_safely()
    return sys.excepthook, threading.excepthook


def test_the_traceback_of_a_defect_is_safe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of_main, of_threads = hooks(monkeypatch)
    error = ValueError(HOSTILE)
    of_main(ValueError, error, None)
    thread = SimpleNamespace(name=HOSTILE)
    of_threads(SimpleNamespace(exc_type=ValueError, exc_value=error, exc_traceback=None, thread=thread))
    of_threads(SimpleNamespace(exc_type=SystemExit, exc_value=SystemExit(), exc_traceback=None, thread=None))
    lines = safe_lines(capsys.readouterr().err)
    assert lines == [f"ValueError: {SHOWN}", f"Exception in thread {SHOWN}:", f"ValueError: {SHOWN}", ""]


def test_hooks_of_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", print)
    monkeypatch.setattr(threading, "excepthook", print)
    show_defects_safely()
    assert sys.excepthook is print
    assert threading.excepthook is print
