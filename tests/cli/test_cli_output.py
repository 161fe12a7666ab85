"""Standard output and error that are closed, full or without a reader: one line, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk import Client
from device_sdk.cli.common import ExitCode
from device_sdk.testing import BrokerServer, ModelBroker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 30
COMMANDS = [
    ["--help"],
    ["--version"],
    ["pub", "--help"],
    ["sensors", "list"],
    ["sensors", "discover"],
    ["sensors", "read", "host"],
    ["sensors", "read", "host", "--json"],
    ["config", "example"],
    ["config", "schema"],
    ["queue", "stat", "{store}"],
    ["queue", "peek", "{store}"],
    ["queue", "export", "{store}"],
    ["queue", "check", "{store}"],
    ["sub", "--url", "{url}", "-t", "a/#", "-n", "1"],
]


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerServer[ModelBroker]]:
    with BrokerServer(ModelBroker()) as server:
        with Client(server.url) as client:
            client.publish("a/b", b"payload", qos=1, retain=True).wait(10)
        yield server


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "queue.db"
    with closing(Client("mqtt://127.0.0.1:1", store=str(path))) as client:
        client.publish("a", b"payload", qos=1)
    return path


def run(command: list[str], broker: BrokerServer[ModelBroker], store: Path, **streams: Any) -> Any:
    words = [word.format(url=broker.url, store=store) for word in command]
    return subprocess.run(
        [sys.executable, "-m", "device_sdk", *words], timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )  # fmt: skip


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"], autouse=True)
def unbuffered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python writes at once with PYTHONUNBUFFERED, and mostly at the end without."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_under_the_output_is_one_line(
    command: list[str], broker: BrokerServer[ModelBroker], store: Path
) -> None:
    with open("/dev/full", "wb") as full:
        done = run(command, broker, store, stdout=full)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.decode() == (
        "device-sdk: standard output cannot be written: No space left on device\n"
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_closed_output_is_one_line(
    command: list[str], broker: BrokerServer[ModelBroker], store: Path
) -> None:
    done = run(command, broker, store, stdout=None, preexec_fn=lambda: os.close(1))
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.decode() == "device-sdk: standard output cannot be written: it is closed\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_output_without_a_reader_ends_the_command_quietly(
    command: list[str], broker: BrokerServer[ModelBroker], store: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(command, broker, store, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (ExitCode.INTERRUPTED, b"")


def test_a_command_without_output_needs_none(broker: BrokerServer[ModelBroker], store: Path) -> None:
    command = ["pub", "--url", "{url}", "-t", "x", "-m", "y", "-q", "1"]
    done = run(command, broker, store, stdout=None, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (ExitCode.OK, b"")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sub", "--url", "{url}", "-t", "none", "-n", "1", "--timeout", "0.1"], ExitCode.TIMEOUT),
        (["pub", "--url", "mqtt://127.0.0.1:1", "-t", "a", "-m", "x"], ExitCode.NO_CONNECTION),
        (["queue", "purge", "{store}"], ExitCode.FAILED),
        (["pub", "--nonsense"], ExitCode.USAGE),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_standard_error_that_cannot_be_written_changes_no_exit_code(
    command: list[str], code: ExitCode, broker: BrokerServer[ModelBroker], store: Path
) -> None:
    with open("/dev/full", "wb") as full:
        assert run(command, broker, store, stderr=full).returncode == code
    done = run(command, broker, store, stderr=None, preexec_fn=lambda: os.close(2))
    assert (done.returncode, done.stdout) == (code, b"")
