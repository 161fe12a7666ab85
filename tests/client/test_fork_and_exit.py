"""The end of the process, and its children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from typing import TYPE_CHECKING

from device_sdk import Client
from device_sdk.errors import ClosedError
from device_sdk.testing import BrokerServer, ModelBroker

if TYPE_CHECKING:
    from collections.abc import Callable

Server = BrokerServer[ModelBroker]


def _end_after(seconds: int) -> None:
    """In a child: whatever hangs, it ends. pytest-timeout uses the same signal in the parent."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)


def in_child(work: Callable[[], None]) -> str:
    """Run ``work`` in a forked child; what it raised, or an empty text. The child ends without atexit."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: this process has threads
        pid = os.fork()
    if pid == 0:
        _end_after(20)
        try:
            work()
            text = ""
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    _, status = os.waitpid(pid, 0)
    return text or ("" if status == 0 else f"the child ended with status {status}")


def test_the_childs_copy_raises_and_the_parents_connection_is_unharmed(server: Server) -> None:
    with Client(server.url) as client:
        client.connect(5)
        pending = client.publish("t", b"0", qos=1)

        def work() -> None:
            for call in (lambda: client.publish("t", b"child"), client.start, lambda: client.subscribe("a")):
                try:
                    call()
                except ClosedError:
                    continue
                raise AssertionError(f"{call} worked in a child")
            client.close()
            assert client.state == "closed"
            assert client.stats.connects == 1

        assert in_child(work) == ""
        pending.wait(5)
        client.publish("t", b"1", qos=1).wait(5)
        assert client.stats.connects == 1
    assert server.broker.payloads("t") == [b"0", b"1"]


def test_the_child_works_even_if_a_lock_was_held_when_it_was_forked(server: Server) -> None:
    held, release = threading.Event(), threading.Event()
    with Client(server.url) as client:
        client.connect(5)

        def hold() -> None:
            with client._engine.lock, client._life:
                held.set()
                release.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(5)

        def work() -> None:
            client.close()
            assert client.stats.connects == 1

        outcome = in_child(work)
        release.set()
        thread.join(5)
    assert outcome == ""


def test_a_delivery_in_the_child_ends_at_once(server: Server) -> None:
    client = Client("memory://nobody")
    client.start()
    delivery = client.publish("t", b"x", qos=1)

    def work() -> None:
        try:
            delivery.wait(5)
        except ClosedError:
            return
        raise AssertionError("the child waited for its parent's message")

    assert in_child(work) == ""
    assert delivery.state == "queued"
    client.close(0)


def test_a_child_does_not_keep_the_parents_connection_open(server: Server) -> None:
    client = Client(server.url)
    client.connect(5)
    go_on_reader, go_on_writer = os.pipe()
    ready_reader, ready_writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _end_after(20)
        os.close(go_on_writer)
        os.write(ready_writer, b"!")
        os.read(go_on_reader, 1)
        os._exit(0)
    os.close(go_on_reader)
    os.close(ready_writer)
    try:
        assert os.read(ready_reader, 1) == b"!"
        names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        stream = os.readlink(f"/proc/self/fd/{client._engine.transport.fileno()}")
        assert stream.startswith("socket:")
        assert stream not in names
    finally:
        os.close(ready_reader)
        os.close(go_on_writer)
        os.waitpid(pid, 0)
        client.close(0)


def test_a_new_client_works_in_the_child(server: Server) -> None:
    with Client(server.url) as client:
        client.connect(5)

        def work() -> None:
            with Client(server.url) as own:
                own.publish("t", b"from the child", qos=1).wait(5)

        assert in_child(work) == ""
    assert server.broker.payloads("t") == [b"from the child"]


def run_program(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_program_that_just_ends_delivers_what_it_queued(server: Server) -> None:
    program = """
        import sys
        from device_sdk import Client
        client = Client(sys.argv[1])
        client.start()
        for number in range(100):
            client.publish("t", b"%d" % number, qos=number % 3)
    """
    result = run_program(program, server.url)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert len(server.broker.payloads("t")) == 100


def test_a_program_without_a_broker_ends_soon() -> None:
    program = """
        from device_sdk import Client
        client = Client("memory://nobody")
        client.start()
        client.publish("t", b"x", qos=1)
    """
    result = run_program(program)
    assert result.returncode == 0
    assert "1 messages that were not acknowledged" in result.stderr  # never silence


def test_a_program_whose_handler_never_returns_ends_all_the_same(server: Server) -> None:
    program = """
        import sys, threading
        from device_sdk import Client
        entered = threading.Event()
        def handler(message):
            entered.set()
            threading.Event().wait(60)
        client = Client(sys.argv[1])
        client.connect(5)
        client.subscribe("t", on_message=handler).wait(5)
        client.publish("t", b"x")
        assert entered.wait(5)
    """
    assert run_program(program, server.url).returncode == 0


def test_ctrl_c_during_close_still_ends_the_threads(server: Server) -> None:
    program = """
        import os, signal, threading
        from device_sdk import Client
        client = Client("memory://nobody")
        client.start()
        client.publish("t", b"x", qos=1)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            client.close(30)
        except KeyboardInterrupt:
            print(client.state, [t.name for t in threading.enumerate() if "device-sdk" in t.name])
    """
    result = run_program(program)
    assert (result.returncode, result.stdout) == (0, "closed []\n")
