"""Streams and callables that hang while a client connects: named, and bounded in threads."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk import Client
from device_sdk.engine.connecting import attempt
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import ConnectFailedError, TransportClosedError
from device_sdk.net.base import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 10.0
FAST = ReconnectPolicy(first=0.001, longest=0.002)


class Hanging(Transport):
    """A stream of somebody else that cannot be interrupted."""

    description = "pigeon post"
    options = ()

    def __init__(self) -> None:
        self.release = threading.Event()

    def open(self, deadline: float) -> None:
        self.release.wait(PATIENCE)
        raise ConnectFailedError("no pigeon")

    def fileno(self) -> int:
        raise TransportClosedError("not open")

    def recv(self) -> bytes | None:
        raise TransportClosedError("not open")

    def send(self, data: bytes | bytearray | memoryview) -> int:
        raise TransportClosedError("not open")

    def abort(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "_GRACE_SECONDS", 0.005)


@pytest.fixture
def stream() -> Iterator[Hanging]:
    stream = Hanging()
    yield stream
    stream.release.set()


def opening() -> int:
    return sum(thread.name == "device-sdk open" for thread in threading.enumerate())


def told_by(url: Any, count: int, **options: Any) -> tuple[list[str], int]:
    """Return the first events of a client, and how many of its threads are opening then."""
    told: SimpleQueue[str] = SimpleQueue()
    client = Client(url, connect_timeout=0.01, reconnect=FAST, on_event=lambda e: told.put(e.text), **options)
    with client:
        return [told.get(timeout=PATIENCE) for _ in range(count)], opening()


def test_threads_of_a_stream_that_hangs_are_few(stream: Hanging) -> None:
    texts, threads = told_by(stream, 12)
    assert threads <= 4
    assert "open() of pigeon post has not returned within 0.01 s, and is left behind" in texts[0]
    assert "4 earlier attempts hang; none begins before one of them ends" in texts[-1]


def test_attempts_begin_again_when_those_that_hang_have_ended(stream: Hanging) -> None:
    told: SimpleQueue[str] = SimpleQueue()
    client = Client(stream, connect_timeout=0.01, reconnect=FAST, on_event=lambda e: told.put(e.text))
    with client:
        while "earlier attempts hang" not in told.get(timeout=PATIENCE):
            pass
        stream.release.set()
        while "no pigeon" not in told.get(timeout=PATIENCE):
            pass


def test_a_callable_that_hangs_is_called_so(stream: Hanging) -> None:
    texts, threads = told_by(stream, 8, credentials=lambda: stream.release.wait(PATIENCE))
    assert "credentials(), will() or birth() has not returned within 0.01 s" in texts[0]
    assert "credentials: the call for an earlier attempt has not returned yet" in texts[-1]
    assert threads <= 2
