"""A signal may interrupt the drop-in anywhere: no lock stays held, and nobody waits in vain."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.testing import BrokerServer, ModelBroker
from tests.interrupts import Interrupter, in_another_thread, places
from tests.paho.conftest import Clients, loop_until

Server = BrokerServer[ModelBroker]
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module", autouse=True)
def steps() -> None:
    """The locks here are Python's: one that tells of each step would itself be interrupted elsewhere."""


def ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def broken() -> Iterator[Server]:
    """A broker that may get half of what a client wanted to say."""
    with BrokerServer(ModelBroker()) as running:
        yield running


def start(client: mqtt.Client, server: Server) -> mqtt.Client:
    """Connect with a loop in a thread, and wait until the broker has accepted."""
    accepted = threading.Event()
    client.on_connect = lambda *_: accepted.set()
    client.connect("127.0.0.1", server.port)
    client.loop_start()
    assert accepted.wait(5)
    return client


def still_works(client: mqtt.Client) -> None:
    in_another_thread(lambda: client.publish("t", b"after", 1).wait_for_publish(4))


def has_no_lock_taken(client: mqtt.Client) -> None:
    """No other thread uses the client: all its locks are free."""

    def take() -> None:
        for lock in (client._core.lock, client._core._io, client._loop._runner._gate):
            assert lock.acquire(blocking=False)
            lock.release()

    in_another_thread(take)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_ctrl_c_anywhere_in_publish_leaves_a_client_that_works(
    clients: Clients, server: Server, qos: int
) -> None:
    client = start(clients("c"), server)

    def interrupted(interrupter: Interrupter) -> None:
        try:
            interrupter.run(lambda: client.publish("t", b"interrupted", qos))
        except KeyboardInterrupt:
            assert interrupter.reached
        still_works(client)

    assert any("publish" in place for place in places(interrupted, ctrl_c))


@pytest.mark.parametrize("step", ["publish", "loop", "loop_read", "loop_write", "loop_misc"])
def test_ctrl_c_anywhere_in_a_program_that_runs_the_loop_itself_leaves_no_lock_taken(
    clients: Clients, broken: Server, step: str
) -> None:
    client = clients("c")
    client.on_message = lambda *_: None
    arguments = {"publish": ("t", b"interrupted", 1), "loop": (0.1,)}.get(step, ())

    def interrupted(interrupter: Interrupter) -> None:
        client.connect("127.0.0.1", broken.port)  # what was interrupted may be half done
        loop_until(client, client.is_connected)
        client.subscribe("t", 1)
        client.publish("t", b"comes back", 1)
        try:
            interrupter.run(lambda: getattr(client, step)(*arguments))
        except KeyboardInterrupt:
            assert interrupter.reached
        has_no_lock_taken(client)

    assert len(places(interrupted, ctrl_c, stride=5 if step == "loop" else 1)) > 10


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.publish("t", b"from the handler", 1),
        lambda client: client.subscribe("other"),
        lambda client: client.disconnect(),
    ],
    ids=["publish", "subscribe", "disconnect"],
)
def test_a_handler_that_uses_the_client_does_so_or_is_told_that_it_cannot(
    clients: Clients, broken: Server, call: Callable[[mqtt.Client], object]
) -> None:
    refused: list[str] = []
    client = clients("c")

    def interrupted(interrupter: Interrupter) -> None:
        if not client.is_connected():
            client.loop_stop()
            start(client, broken)
        interrupter.run(lambda: client.publish("t", b"interrupted", 1))

    def handler() -> None:
        try:
            call(client)
        except RuntimeError as error:
            refused.append(str(error))

    count = len(places(interrupted, handler))
    assert 0 < len(refused) < count
    assert all("handler of a signal" in text for text in refused)


CTRL_C_IN_A_LOOP = """
import random, signal, sys
import device_sdk.paho.client as mqtt

class Interrupted(Exception):
    pass

def handler(*_):
    raise Interrupted

signal.signal(signal.SIGALRM, handler)
chance = random.Random(1)
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
for _ in range(60):
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0002, 0.003))
        while True:
            client.publish("t", b"x")
    except Interrupted:
        pass
client.publish("t", b"last", 1).wait_for_publish(30)
client.disconnect()
client.loop_stop()
print("stopped")
"""


def test_sixty_signals_in_a_tight_loop_of_publish_do_not_hang(server: Server) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CTRL_C_IN_A_LOOP, str(server.port)],
        cwd=ROOT, capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    assert (run.stdout, run.stderr) == ("stopped\n", "")
