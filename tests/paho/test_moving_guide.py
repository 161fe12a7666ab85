"""Every code block of docs/moving-from-paho.md runs and does what the page says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.testing import BrokerServer, ModelBroker
from tests.paho.conftest import Clients, start
from tests.paho.programs import Program, paho_is_ours, take_to
from tests.steps import eventually

CHECKOUT = Path(__file__).resolve().parents[2]
GUIDE = (CHECKOUT / "docs" / "moving-from-paho.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)

Server = BrokerServer[ModelBroker]


@pytest.fixture(autouse=True)
def redirected(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Take the programs to the broker of the test, in an empty folder."""
    take_to(server.port, monkeypatch, "broker.example")
    monkeypatch.chdir(tmp_path)
    with paho_is_ours():
        yield


def block(first_line: str) -> str:
    """Return the block that begins so."""
    (found,) = [code for code in BLOCKS if code.startswith(first_line) and "store=" not in code]
    assert isinstance(found, str)
    return found


def storing(first_line: str) -> str:
    """Return the block that begins so and has a store."""
    (found,) = [code for code in BLOCKS if code.startswith(first_line) and "store=" in code]
    assert isinstance(found, str)
    return found


def test_there_are_no_other_blocks() -> None:
    assert (len(BLOCKS), len(COMMANDS), GUIDE.count("```")) == (5, 1, 12)


def test_a_program_of_2_x_runs_with_one_line_changed(clients: Clients, server: Server) -> None:
    program = Program(block("import device_sdk.paho.client as mqtt"))
    server.wait_for(lambda: server.broker.payloads("site/17/state") == [b"online"])
    start(clients("other"), server).publish("cmd/17/valve", "open", 1)
    program.wait_for_line("cmd/17/valve b'open'")
    program.names["mqttc"].disconnect()
    program.join()


def test_a_program_of_1_x_runs_with_one_line_changed() -> None:
    program = Program(block("import device_sdk.paho.v1.client as mqtt"))
    program.join()
    assert program.printed == ["connected: Connection Accepted."]


def test_an_alias_serves_whatever_imports_paho(server: Server) -> None:
    program = Program(block("from device_sdk.paho import alias"))
    program.join()
    assert program.names["publish"].__name__ == "device_sdk.paho.publish"
    assert server.broker.payloads("site/17/state") == [b"online"]


def test_a_store_keeps_messages_for_the_next_run(server: Server, tmp_path: Path) -> None:
    program = Program(storing("import device_sdk.paho.client as mqtt"))
    program.join()
    assert server.broker.payloads("site/17/temperature") == [b"21.5", b"21.6"]
    assert (tmp_path / "queue.db").exists()


def test_store_set_does_the_same(clients: Clients, server: Server) -> None:
    client = clients("node-17", clean_session=False)
    client.store_set("queue.db")
    info = client.publish("a", "b", 1)
    start(client, server)
    eventually(info.is_published)


def test_our_own_client_says_the_same_shorter(server: Server) -> None:
    Program(storing("from device_sdk import Client")).join()
    assert server.broker.payloads("site/17/temperature") == [b"21.5"]


def test_the_commands_run_a_script_that_imports_paho(tmp_path: Path) -> None:
    script = "import sys\nimport paho.mqtt.client\nprint(paho.mqtt.client.__name__, sys.argv[1:])\n"
    for name in ("script", "module"):
        (tmp_path / f"{name}.py").write_text(script, encoding="utf-8")
    printed = []
    for command in COMMANDS[0].splitlines():
        python, *arguments = shlex.split(command.removesuffix(" ..."))
        assert python == "python"
        done = subprocess.run(
            [sys.executable, *arguments],
            env={"PYTHONPATH": str(CHECKOUT)},
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            timeout=30,
            check=True,
        )
        printed.append(done.stdout)
    assert printed == [
        "device_sdk.paho.client ['argument']\n",
        "device_sdk.paho.client ['argument']\n",
        "device_sdk.paho.v1.client ['argument']\n",
    ]


def test_the_defaults_that_the_page_names_hold(clients: Clients) -> None:
    client = clients("c")
    assert client.max_inflight_messages == 20
    client.tls_set()
    client.connect_async("broker.example")
    assert (client.port, client.keepalive) == (1883, 60)
    assert client.subscribe("a") == (mqtt.MQTT_ERR_NO_CONN, None)
    assert client.publish("a", "x").rc == mqtt.MQTT_ERR_NO_CONN
