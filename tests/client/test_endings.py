"""A client that is closed, forked or given up at the worst moment: nothing hangs, nothing is left behind."""

from __future__ import annotations

import gc
import os
import socket
import stat
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk import Client, TLSOptions, Will
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import ClosedError, DeviceSdkError
from device_sdk.mqtt.packets import Connack
from device_sdk.testing import BrokerServer, Certificates, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, send
from tests.client.test_client_threads import descriptors
from tests.client.test_fork_and_exit import in_child
from tests.steps import eventually, join_threads, step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FAST = ReconnectPolicy(first=0.02, longest=0.05)
Server = BrokerServer[ModelBroker]


@pytest.fixture(autouse=True)
def no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mqtt_proxy", "MQTT_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Silent:
    """Takes connections and says nothing; ``came`` are the sockets, which it keeps open."""

    def __init__(self, path: Path) -> None:
        self.listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        self.listeners[1].bind(str(path))
        self.listeners[1].listen()
        self.port = self.listeners[0].getsockname()[1]
        self.path = path
        self.came: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._take, args=(each,)) for each in self.listeners]
        for thread in self._threads:
            thread.start()

    def _take(self, listener: socket.socket) -> None:
        try:
            while True:
                self.came.append(listener.accept()[0])
                step()
        except OSError:
            pass

    def forget(self) -> None:
        for sock in self.came:
            sock.close()
        self.came.clear()

    def close(self) -> None:
        for listener in self.listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join(5)
        self.forget()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Silent]:
    server = Silent(tmp_path / "socket")
    yield server
    server.close()


def way_to(silent: Silent, kind: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """URL and arguments of a client whose open() hangs there."""
    place = f"127.0.0.1:{silent.port}"
    if kind in ("mqtts", "wss"):
        pytest.importorskip("cryptography", reason="needs cryptography")
    if kind in ("ws", "wss"):
        pytest.importorskip("websockets", reason="needs websockets")
    if kind == "socks5":
        pytest.importorskip("socks", reason="needs PySocks")
    if kind in ("http", "socks5"):
        return "mqtt://broker.example", {"proxy": f"{kind}://{place}"}
    if kind == "tls-unix":
        return f"unix:{silent.path}", {"tls": TLSOptions(insecure=True, server_name="localhost")}
    if kind in ("mqtts", "wss"):
        return f"{kind}://{place}", {"tls": TLSOptions(ca_file=Certificates(folder).ca)}
    return f"{kind}://{place}", {}


@pytest.mark.parametrize("kind", ["mqtts", "tls-unix", "ws", "wss", "http", "socks5"])
@pytest.mark.parametrize("how", ["close", "connect"])
def test_an_open_in_progress_is_ended_at_once_and_leaves_nothing(
    silent: Silent, kind: str, how: str, tmp_path: Path
) -> None:
    url, arguments = way_to(silent, kind, tmp_path)
    first = 0
    for _ in range(3):
        client = Client(url, **arguments)
        if how == "connect":
            with pytest.raises(TimeoutError):
                client.connect(0.05)
            assert client.state == "idle"
        else:
            client.start()
            eventually(lambda: silent.came)
        began = time.monotonic()
        client.close(0)
        assert time.monotonic() - began < 1
        join_threads()
        silent.forget()
        gc.collect()  # a client is a circle, and keeps two descriptors for as long as it is there
        first = first or descriptors()
    assert descriptors() <= first


# Callables of the application


def nobody_came(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("what", ["credentials", "will"])
def test_a_callable_that_returns_after_the_end_of_the_client_opens_nothing(what: str) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow() -> object:
        entered.set()
        assert leave.wait(5)
        return ("user", "password") if what == "credentials" else Will("t")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments: dict[str, Any] = {what: slow}
        client = Client(f"mqtt://127.0.0.1:{listener.getsockname()[1]}", **arguments)
        client.start()
        assert entered.wait(5)
        client.close(0)
        leave.set()
        join_threads()
        assert nobody_came(listener)


def test_a_callable_that_takes_too_long_once_does_not_spoil_the_stream(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back while nobody opens the stream, and must not open it for nobody."""
    monkeypatch.setattr("device_sdk.engine.connecting.attempt._GRACE_SECONDS", 0.05)
    asked: list[threading.Event] = []
    returned = threading.Event()

    def credentials() -> tuple[str, str]:
        if not asked:
            asked.append(threading.Event())
            assert asked[0].wait(5)
            returned.set()
        return "user", "password"

    policy = ReconnectPolicy(first=30, longest=30)
    client = Client(server.url, credentials=credentials, connect_timeout=0.1, reconnect=policy)
    failed = threading.Event()
    client._engine.events.reporter.on_event = lambda event: failed.set()
    client.start()
    assert failed.wait(5)
    asked[0].set()
    join_threads("device-sdk open")
    assert returned.is_set()
    client.reconnect_now()
    client.publish("t", b"x", qos=1).wait(5)
    assert client.stats.connects == 1
    client.close()


def test_an_attempt_that_is_replaced_is_aborted_and_the_next_one_follows_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(5)
        events: list[str] = []
        client = Client(
            f"mqtts://127.0.0.1:{silent.getsockname()[1]}",
            connect_timeout=60,
            reconnect=ReconnectPolicy(first=60, longest=60),
            on_event=lambda event: events.append(event.kind),
        )
        client.start()
        for _ in range(3):
            came, _ = silent.accept()  # and waits for a TLS handshake
            client.reconnect_now(replace=True)
            came.close()
        client.close(0)
        assert events == []


@pytest.mark.parametrize(
    "what", ["credentials", "will", "on_event", "on_connect", "on_message", "on_disconnect"]
)
def test_close_may_be_called_in_every_callable(server: Server, what: str) -> None:
    clients: list[Client] = []
    closed = threading.Event()

    def close(*_: object) -> object:
        if not closed.is_set():
            clients[0].close(0.1)
            closed.set()
        return ("user", "password") if what == "credentials" else None

    arguments: dict[str, Any] = {what: close}
    client = Client(server.url, **arguments)
    clients.append(client)
    client.subscribe("t")
    client.start()
    if what in ("on_message", "on_disconnect"):
        eventually(lambda: client.state == "connected")
        if what == "on_message":
            client.publish("t", b"x", qos=1)
        else:
            server.call(lambda: server.broker.disconnect_all(0.0))
    assert closed.wait(10)
    join_threads()
    assert client.state == "closed"
    with pytest.raises(ClosedError):
        client.publish("t")


# Others who wait


def test_a_connect_that_gives_up_tells_the_others_who_wait(silent: Silent) -> None:
    client = Client(f"mqtt://127.0.0.1:{silent.port}")
    outcomes: list[float] = []

    def wait_long() -> None:
        began = time.monotonic()
        with pytest.raises((TimeoutError, DeviceSdkError)):
            client.connect(20)
        outcomes.append(time.monotonic() - began)

    thread = threading.Thread(target=wait_long)
    thread.start()
    eventually(lambda: silent.came)
    with pytest.raises(TimeoutError):
        client.connect(0.1)
    thread.join(5)
    assert outcomes and outcomes[0] < 5
    client.close(0)


def test_a_close_that_cannot_wait_for_the_network_thread_is_still_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stream is stuck in a call that never should block; afterwards nobody is brought back to life."""
    monkeypatch.setattr("device_sdk.client._JOIN_SECONDS", 0.1)
    entered, leave = threading.Event(), threading.Event()
    with BrokerServer(ScriptedBroker([expect("connect"), send(Connack(False, 0))])) as server:
        client = Client(server.url, reconnect=FAST)
        transport: Any = client._engine.transport
        recv = transport.recv

        class Stuck(type(transport)):  # type: ignore[misc]
            __slots__ = ()

            def recv(self) -> bytes | None:
                data: bytes | None = recv()
                entered.set()
                assert leave.wait(5)
                return data

        transport.__class__ = Stuck
        client.start()
        assert entered.wait(5)
        client.close(0)
        assert client.state == "closed"
        leave.set()
        join_threads()
        assert client.state == "closed"


# Forks


def test_a_child_does_not_keep_a_connection_whose_reading_is_paused(server: Server) -> None:
    in_handler, leave = threading.Event(), threading.Event()

    def handler(_: object) -> None:
        in_handler.set()
        assert leave.wait(10)

    with Client(server.url, inbox_limit=1) as client:
        client.subscribe("t", on_message=handler).wait(5)
        client.publish("t", b"x")
        assert in_handler.wait(5)
        fd = client._engine.transport.fileno()
        eventually(lambda: client._engine.parked and client._engine.interest() == (fd, False, False))

        def work() -> None:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise AssertionError("the child holds its parent's connection")

        outcome = in_child(work)
        leave.set()
        client.publish("t", b"y", qos=1).wait(5)
    assert outcome == ""


def test_refused_attempts_leave_the_stream_for_the_next_one(server: Server) -> None:
    """An open() that found the stream in use used to fail for ever after."""
    client = Client(server.url, reconnect=FAST)
    client._engine.transport.open(time.monotonic() + 5)  # by somebody who should not have
    with pytest.raises(DeviceSdkError):
        client.connect(5)
    client.connect(5)
    client.close()
