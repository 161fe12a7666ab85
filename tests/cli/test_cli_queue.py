"""device-sdk queue: what waits in the file of a client, while it runs and after."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk import Client
from device_sdk.cli import main
from device_sdk.store.base import StorePolicy

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


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", "stat", str(tmp_path / "none.db")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
