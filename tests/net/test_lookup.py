"""A name look-up that hangs: it is called so, ends in time, and its threads do not pile up."""

from __future__ import annotations

import os
import socket
import threading
import time
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk import Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import ConnectFailedError, TransportClosedError
from device_sdk.net.base import ParsedUrl
from device_sdk.net.lookup import MOST_FOR_ONE_NAME
from device_sdk.net.tcp import TcpTransport
from tests.net.transport_contract import PATIENCE, soon
from tests.steps import join_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "broker.example"
real = socket.getaddrinfo


class NameServer:
    """A stand-in for getaddrinfo() that hangs while it is told to; ``asked``: calls for the name so far."""

    def __init__(self) -> None:
        self.hangs = True
        self.asked = 0
        self.answers = threading.Event()
        self.entered = threading.Event()
        self.address: Any = None

    def getaddrinfo(self, host: bytes, port: int, **options: int) -> Any:
        if host != NAME.encode():
            return real(host, port, **options)
        self.asked += 1
        self.entered.set()
        if self.hangs:
            assert self.answers.wait(PATIENCE)
        if self.address is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", self.address)]

    def look_ups(self) -> int:
        return sum(each.name == "device-sdk look-up" for each in threading.enumerate())


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.answers.set()
    join_threads()


def transport() -> TcpTransport:
    return TcpTransport(ParsedUrl("mqtt", NAME, 1883))


def test_a_look_up_that_hangs_ends_at_the_deadline_with_the_name_server_as_the_culprit(
    names: NameServer,
) -> None:
    with pytest.raises(ConnectFailedError) as caught:
        transport().open(time.monotonic() + 0.05)
    text = str(caught.value)
    assert text.startswith(
        f"cannot connect to {NAME}:1883: the look-up of '{NAME}' has not ended after 0 s: "
    )
    assert "/etc/resolv.conf" in text


def test_threads_of_look_ups_that_hang_are_few(names: NameServer) -> None:
    for _ in range(3 * MOST_FOR_ONE_NAME):
        with pytest.raises(ConnectFailedError):
            transport().open(time.monotonic() + 0.01)
    assert names.look_ups() == names.asked == MOST_FOR_ONE_NAME


def test_an_answer_in_the_end_is_that_of_those_who_wait(names: NameServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        names.address = listener.getsockname()
        for _ in range(MOST_FOR_ONE_NAME):
            with pytest.raises(ConnectFailedError):
                transport().open(time.monotonic() + 0.01)
        late = transport()
        opening = threading.Thread(target=late.open, args=(soon(),), daemon=True)
        opening.start()
        names.answers.set()
        opening.join(PATIENCE)
        assert late.fileno() >= 0
        late.close()


def test_a_name_server_that_answers_again_is_asked_anew(names: NameServer) -> None:
    with pytest.raises(ConnectFailedError, match="has not ended"):
        transport().open(time.monotonic() + 0.01)
    names.hangs = False
    with socket.create_server(("127.0.0.1", 0)) as listener:
        names.address = listener.getsockname()
        again = transport()
        again.open(soon())
        again.close()


def test_the_error_of_a_look_up_is_a_new_object_for_each_who_waits(names: NameServer) -> None:
    names.hangs = False
    errors = []
    for _ in range(2):
        with pytest.raises(ConnectFailedError, match=f"no address for '{NAME}': Name or service") as caught:
            transport().open(soon())
        errors.append(caught.value.__cause__)
    assert errors[0] is not errors[1]


def test_an_abort_ends_the_wait_at_once(names: NameServer) -> None:
    stream, errors = transport(), []

    def run() -> None:
        try:
            stream.open(soon())
        except TransportClosedError as error:
            errors.append(error)

    opening = threading.Thread(target=run, daemon=True)
    opening.start()
    assert names.entered.wait(PATIENCE)
    stream.abort()
    opening.join(PATIENCE)
    assert len(errors) == 1
    stream.close()


def test_an_address_needs_no_thread(names: NameServer) -> None:
    for host in ("127.0.0.1", "::1", "fe80::1%lo"):
        with pytest.raises(ConnectFailedError):
            TcpTransport(ParsedUrl("mqtt", host, 1)).open(soon())
        assert names.look_ups() == 0


def test_a_forked_child_waits_for_no_thread_of_its_parent(names: NameServer) -> None:
    for _ in range(MOST_FOR_ONE_NAME):
        with pytest.raises(ConnectFailedError):
            transport().open(time.monotonic() + 0.01)
    child = os.fork()
    if not child:
        try:
            names.hangs, before = False, names.asked
            with pytest.raises(ConnectFailedError, match="no address for"):
                transport().open(time.monotonic() + 5)
            os._exit(names.asked - before)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_a_client_whose_name_server_hangs_says_so_and_keeps_few_threads(names: NameServer) -> None:
    told: SimpleQueue[str] = SimpleQueue()
    client = Client(
        f"mqtt://{NAME}", connect_timeout=0.05, reconnect=ReconnectPolicy(first=0.001, longest=0.002),
        on_event=lambda event: told.put(event.text),
    )  # fmt: skip
    with client:
        texts = [told.get(timeout=PATIENCE) for _ in range(2 * MOST_FOR_ONE_NAME)]
        assert names.look_ups() == MOST_FOR_ONE_NAME
    assert all(f"the look-up of '{NAME}' has not ended" in text for text in texts)
