"""The message at which a program stops: acknowledged if it stops in good order, sent again if not."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Client, Message
from device_sdk.testing import BrokerServer, ModelBroker
from tests.steps import eventually

Server = BrokerServer[ModelBroker]
SECONDS = 10.0


def node(server: Server, store: str | None, **options: Any) -> Client:
    """Return a client whose session outlives it."""
    return Client(server.url, client_id="node", session_expiry=600, clean_start=False, store=store, **options)


def subscribe(server: Server, store: str | None, qos: int) -> None:
    """Leave a session with a subscription behind, and messages in it."""
    with node(server, store) as client:
        client.subscribe("t", qos=qos).wait(SECONDS)
    for payload in (b"1", b"2", b"3"):
        server.call(lambda payload=payload: server.broker.publish("t", payload, qos=qos))


def seen_by(server: Server, store: str | None, stop: Callable[[Client, list[bytes]], None]) -> list[bytes]:
    """Return what a program sees that stops so."""
    seen: list[bytes] = []
    stop(node(server, store), seen)
    server.wait_for(lambda: not server.broker.links, SECONDS)
    return seen


def in_a_handler(client: Client, seen: list[bytes]) -> None:
    def on_message(message: Message) -> None:
        seen.append(message.payload)
        client.close()

    client.on_message = on_message
    client.start()
    eventually(lambda: client.state == "closed")


def out_of_a_loop(client: Client, seen: list[bytes]) -> None:
    inbox = client.messages()
    with client:
        for message in inbox:
            seen.append(message.payload)
            break


def out_of_a_loop_then_close(client: Client, seen: list[bytes]) -> None:
    inbox = client.messages()
    client.start()
    for message in inbox:
        seen.append(message.payload)
        break
    client.close()


def close_in_a_loop(client: Client, seen: list[bytes]) -> None:
    inbox = client.messages()
    client.start()
    for message in inbox:
        if not seen:
            seen.append(message.payload)
            client.close()


def with_get(client: Client, seen: list[bytes]) -> None:
    inbox = client.messages()
    with client:
        seen.append(inbox.get(SECONDS).payload)


def during_an_exception_of_before(client: Client, seen: list[bytes]) -> None:
    try:
        raise LookupError("nothing to do with it")
    except LookupError:
        out_of_a_loop_then_close(client, seen)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize(
    "stop",
    [
        in_a_handler,
        out_of_a_loop,
        out_of_a_loop_then_close,
        close_in_a_loop,
        with_get,
        during_an_exception_of_before,
    ],
)
def test_the_message_at_which_a_program_stops_does_not_come_again(
    server: Server, tmp_path: Path, stop: Callable[[Client, list[bytes]], None], stored: bool, qos: int
) -> None:
    store = str(tmp_path / "queue.db") if stored else None
    subscribe(server, store, qos)
    assert [seen_by(server, store, stop)[0] for _ in range(3)] == [b"1", b"2", b"3"]


def raise_in_a_loop(client: Client, seen: list[bytes]) -> None:
    inbox = client.messages()
    with contextlib.suppress(LookupError), client:
        for message in inbox:
            seen.append(message.payload)
            raise LookupError


def raise_and_close_at_last(client: Client, seen: list[bytes]) -> None:
    inbox = client.messages()
    client.start()
    try:
        for message in inbox:
            seen.append(message.payload)
            raise LookupError
    except LookupError:
        client.close()


def close_after_a_failure_in_a_handler(client: Client, seen: list[bytes]) -> None:
    def on_message(message: Message) -> None:
        seen.append(message.payload)
        try:
            raise LookupError
        except LookupError:
            client.close()

    client.on_message = on_message
    client.start()
    eventually(lambda: client.state == "closed")


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(
    "stop", [raise_in_a_loop, raise_and_close_at_last, close_after_a_failure_in_a_handler]
)
def test_the_message_at_which_a_program_fails_comes_again(
    server: Server, stop: Callable[[Client, list[bytes]], None], qos: int
) -> None:
    subscribe(server, None, qos)
    assert [seen_by(server, None, stop)[0] for _ in range(2)] == [b"1", b"1"]


def test_manual_acknowledgement_is_left_to_the_program(server: Server) -> None:
    subscribe(server, None, 1)
    for _ in range(2):
        client = node(server, None, manual_ack=True)
        inbox = client.messages()
        with client:
            assert inbox.get(SECONDS).payload == b"1"


def test_the_end_of_the_interpreter_settles_nothing(server: Server) -> None:
    subscribe(server, None, 1)
    program = f"""\
        from device_sdk import Client
        client = Client({server.url!r}, client_id="node", session_expiry=600, clean_start=False)
        inbox = client.messages()
        client.start()
        print(inbox.get(10).payload)
    """
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, timeout=30, check=True
        )
        assert done.stdout == b"b'1'\n"


def test_another_thread_that_closes_leaves_the_message_of_this_one(server: Server) -> None:
    subscribe(server, None, 1)
    client = node(server, None)
    inbox = client.messages()
    client.start()
    assert inbox.get(SECONDS).payload == b"1"
    closing = threading.Thread(target=client.close)
    closing.start()
    closing.join(SECONDS)
    assert seen_by(server, None, with_get) == [b"1"]
