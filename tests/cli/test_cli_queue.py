"""device-sdk queue: what waits in the file of a client, while it runs and after."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk import Client
from device_sdk.cli import main
from device_sdk.store.base import StorePolicy
from device_sdk.store.sqlite import SqliteStore

NOBODY = "memory://nobody-listens"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """A client that is offline, with three messages on disk."""
    policy = StorePolicy(durability="os", min_free=0)
    client = Client(NOBODY, client_id="queue-test", store=tmp_path / "queue.db", policy=policy)
    client.subscribe("cmd/#", qos=1)
    client.publish("a/1", "first", qos=1)
    client.publish("a/2", b"\xff\x00", qos=2, expiry=60)
    properties = {"content_type": "text/plain", "correlation_data": b"\1\2"}
    client.publish("a/3", "x" * 100, qos=1, retain=True, properties=properties).wait_stored(10)
    yield client
    client.close()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["queue", *map(str, arguments)])
    return code, capsys.readouterr().out


def test_stat_tells_how_much_waits_while_the_client_has_the_file_open(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, "stat", tmp_path / "queue.db")
    assert code == 0
    assert "a client has it open; client identifier queue-test" in text
    assert "subscribed to cmd/#" in text
    figures = json.loads(run(capsys, "stat", "--json", tmp_path / "queue.db")[1])
    assert (figures["waiting"], figures["in_flight"], figures["in_use"]) == (3, 0, True)


def test_peek_shows_the_oldest_messages(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, "peek", "-n", 3, tmp_path / "queue.db")
    assert code == 0
    first, second, third = text.splitlines()
    assert first == "1 waiting qos=1 a/1 first"
    assert second.startswith("2 waiting qos=2 a/2 ")
    assert third.endswith("xxx ... (100 bytes)")
    assert len(run(capsys, "peek", "-n", 1, tmp_path / "queue.db")[1].splitlines()) == 1


def test_export_has_every_message_with_everything(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, "export", tmp_path / "queue.db")
    first, second, third = map(json.loads, text.splitlines())
    assert code == 0
    assert first == {
        "sequence": 1, "state": "waiting", "topic": "a/1", "qos": 1, "retain": False, "payload": "first",
    }  # fmt: skip
    assert second["payload_base64"] == "/wA="
    assert 0 < second["expires_in"] <= 60
    assert third["properties"] == {"content_type": "text/plain", "correlation_data": "hex:0102"}
    assert (third["retain"], third["payload"]) == (True, "x" * 100)


def test_check_finds_nothing_wrong(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, "check", tmp_path / "queue.db")
    assert (code, text.endswith("everything is in order\n")) == (0, True)


def test_check_finds_damage(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client.close()
    path = tmp_path / "queue.db"
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data)):
        data[at] ^= 0x55
    path.write_bytes(data)
    code, text = run(capsys, "check", path)
    assert code == 1
    assert str(path) in text


def test_purge_is_refused_while_a_client_has_the_file_open(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["queue", "purge", "--yes", str(tmp_path / "queue.db")]) == 1
    assert "queue.db" in capsys.readouterr().err


def test_purge_deletes_what_waits_and_counts_it(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client.close()
    assert run(capsys, "purge", "--yes", tmp_path / "queue.db") == (0, "3 messages deleted\n")
    figures = json.loads(run(capsys, "stat", "--json", tmp_path / "queue.db")[1])
    assert (figures["waiting"], figures["dropped"], figures["accepted"]) == (0, 3, 3)


def test_purge_asks_first(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client.close()
    assert main(["queue", "purge", str(tmp_path / "queue.db")]) == 1
    assert "--yes" in capsys.readouterr().err


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A file with two messages on the shelf, whose texts would move the cursor of a terminal."""
    store = SqliteStore(tmp_path / "queue.db", StorePolicy(durability="os", min_free=0))
    store.open()
    poison = "a/\x1b[2J\u202e"
    topic = len(poison.encode()).to_bytes(2, "big") + poison.encode()
    changes = [
        ("fact", "client_id", "node\x1b[0m\n"),
        ("subscribed", "cmd/\x07", 1, False, False, 0),
        ("message", 1, topic, b"\x1b]0;", 2, b"\0", None),
        ("message", 2, b"\0\1t", b"x" * 100, 2, b"\0", None),
        ("message", 3, b"\0\1t", b"good", 2, b"\0", None),
        ("sent", 1, 9),
        ("shelved", 1, "refused", "not authorized\r\n2 \x1b", 1_795_000_000.0),
        ("shelved", 2, "damaged", "the payload has changed", 1_795_000_001.5),
    ]
    store.submit(changes, len(changes))
    store.close()
    return tmp_path / "queue.db"


def test_stat_shows_the_shelf_apart(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys, "stat", shelf)
    assert code == 0
    queue, on_shelf = text.split("on the shelf, not sent any more:\n")
    assert [line.split()[-1] for line in on_shelf.splitlines()] == ["1", "1", "120", "0", "1"]
    assert "waiting" in queue
    assert on_shelf in run(capsys, "stat", "--refused", shelf)[1]
    assert json.loads(run(capsys, "stat", "--refused", "--json", shelf)[1]) == {
        "refused": 1, "damaged": 1, "bytes": 120, "pushed_off": 0, "withheld": 1,
    }  # fmt: skip


def test_peek_shows_why_a_message_is_on_the_shelf_and_since_when(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = run(capsys, "peek", "--refused", shelf)
    assert code == 0
    assert text.splitlines()[2:] == [
        "2 damaged qos=1 t " + "x" * 60 + " ... (100 bytes)",
        "    2026-11-18T11:06:41+00:00: the payload has changed",
    ]
    assert len(run(capsys, "peek", "--refused", "-n", 1, shelf)[1].splitlines()) == 2
    assert run(capsys, "peek", shelf)[1] == "3 waiting qos=1 t good\n"


@pytest.mark.parametrize("command", [("stat",), ("stat", "--refused"), ("peek", "--refused"), ("peek",)])
def test_nothing_from_a_message_reaches_the_terminal_as_a_command(
    shelf: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    text = run(capsys, *command, shelf)[1]
    assert all(line.isprintable() for line in text.split("\n"))


def test_export_of_the_shelf_keeps_every_byte(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = map(json.loads, run(capsys, "export", "--refused", shelf)[1].splitlines())
    assert first == {
        "sequence": 1, "state": "refused", "topic": "a/\x1b[2J\u202e", "qos": 1, "retain": False,
        "reason": "not authorized\r\n2 \x1b", "at": 1_795_000_000.0, "payload": "\x1b]0;",
    }  # fmt: skip
    assert (second["sequence"], second["state"]) == (2, "damaged")


def test_a_message_of_which_nothing_is_right_any_more_can_be_looked_at(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = sqlite3.connect(shelf)
    connection.execute(
        "UPDATE message SET topic = 'text', properties = x'ffff', payload = 7, flags = 'x', expires_at = 'x' "
        "WHERE sequence = 2"
    )
    connection.commit()
    connection.close()
    assert "\n2 damaged qos=0 " in run(capsys, "peek", "--refused", shelf)[1]
    [_, second] = run(capsys, "export", "--refused", shelf)[1].splitlines()
    assert json.loads(second)["properties"] == {"damaged": "hex:ffff"}


def test_retry_puts_refused_messages_back_into_the_queue(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "retry", "--refused", shelf) == (0, "1 messages are in the queue again\n")
    exported = [json.loads(line) for line in run(capsys, "export", shelf)[1].splitlines()]
    assert [(each["sequence"], each["state"], each["payload"]) for each in exported] == [
        (3, "waiting", "good"), (4, "waiting", "\x1b]0;"),
    ]  # fmt: skip


def test_purge_of_the_shelf_leaves_the_queue(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", "purge", "--refused", str(shelf)]) == 1
    assert run(capsys, "purge", "--refused", "--yes", shelf) == (0, "2 messages deleted\n")
    assert run(capsys, "export", "--refused", shelf) == (0, "")
    assert run(capsys, "peek", shelf)[1] == "3 waiting qos=1 t good\n"


@pytest.mark.parametrize("action", ["retry", "purge"])
def test_the_shelf_is_left_alone_while_a_client_has_the_file_open(
    client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    yes = ["--yes"] if action == "purge" else []
    assert main(["queue", action, "--refused", *yes, str(tmp_path / "queue.db")]) == 1
    assert "has it open" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", "stat", str(tmp_path / "none.db")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
