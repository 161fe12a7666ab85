"""Situations that users of other clients have reported (docs/field-reports.md): hosts, processes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import device_sdk
from device_sdk import Client, Message, ReconnectPolicy
from device_sdk.errors import ConnectFailedError
from device_sdk.testing import BrokerServer, ModelBroker
from tests.steps import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

Server = BrokerServer[ModelBroker]
FAST = ReconnectPolicy(first=0.02, longest=0.1)
PACKAGE = Path(device_sdk.__file__).parent

ROUND_TRIP = """
import os, queue, sys
{first}
from device_sdk import Client
box = queue.SimpleQueue()
with Client(sys.argv[1]) as client:
    client.subscribe("t", qos=2, on_message=box.put).wait(10)
    client.publish("t", b"x", qos=2).wait(10)
    answer = box.get(timeout=10).payload
os.write(os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT), answer)
"""


def _close_standard_streams() -> None:
    for descriptor in (0, 1, 2):
        os.close(descriptor)


def round_trip(
    server: Server,
    folder: Path,
    first: str = "",
    *options: str,
    prepare: Callable[[], None] | None = None,
) -> bytes:
    """Run a program that sends a message to itself; return what has arrived."""
    answer = folder / "answer"
    program = [sys.executable, *options, "-c", ROUND_TRIP.format(first=first), server.url, str(answer)]
    subprocess.run(program, timeout=30, check=True, preexec_fn=prepare, cwd=folder)
    return answer.read_bytes()


def test_a_daemon_without_standard_streams_works(server: Server, tmp_path: Path) -> None:
    # Its first socket gets the descriptor 0, which is false.
    assert round_trip(server, tmp_path, prepare=_close_standard_streams) == b"x"


def test_a_default_timeout_of_sockets_does_not_reach_the_client(server: Server, tmp_path: Path) -> None:
    assert round_trip(server, tmp_path, "import socket; socket.setdefaulttimeout(1e-6)") == b"x"


@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_the_package_works_without_assertions(server: Server, tmp_path: Path, option: str) -> None:
    assert round_trip(server, tmp_path, "", option) == b"x"


def test_the_package_works_from_an_archive(server: Server, tmp_path: Path) -> None:
    archive = tmp_path / "program.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for module in PACKAGE.rglob("*.py"):
            file.write(module, module.relative_to(PACKAGE.parent))
    first = f"sys.path.insert(0, {str(archive)!r})"
    assert round_trip(server, tmp_path, first) == b"x"


def test_a_hook_that_raises_on_connect_leaves_a_client_that_publishes(server: Server) -> None:
    def hook(_: object) -> None:
        raise ValueError("not my day")

    with Client(server.url, on_connect=hook, on_disconnect=hook, reconnect=FAST) as client:
        client.connect(5)
        server.disconnect_all()
        eventually(lambda: client.stats.connects == 2)
        client.publish("t", b"x", qos=1).wait(5)


def _payload_length(message: Message) -> int:
    return len(message.payload)


def _fail(url: str) -> None:
    with Client(url) as client:
        client.connect(5)


def test_a_pool_of_processes_works_on_messages_and_brings_errors_back(server: Server) -> None:
    with (
        Client(server.url) as client,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        inbox = client.messages()
        client.subscribe("t", qos=1).wait(5)
        client.publish("t", b"four", qos=1, properties={"user_property": [("unit", "V")]})
        assert pool.submit(_payload_length, inbox.get(5)).result(30) == 4
        with pytest.raises(ConnectFailedError, match="refused"):
            pool.submit(_fail, "mqtt://127.0.0.1:1").result(30)


def test_a_message_of_the_drop_in_can_be_pickled() -> None:
    from device_sdk.paho.client import MQTTMessage

    message = MQTTMessage(7, b"t")
    message.payload = b"x"
    arrived = pickle.loads(pickle.dumps(message))
    assert (arrived.topic, arrived.payload, arrived.mid) == ("t", b"x", 7)
