"""The loop around the client: its end, other loops, threads, forks, faults, descriptors, and idle time."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from device_sdk import AsyncClient, Message
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import ClosedError
from device_sdk.mqtt.packets import Connack
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import expect, send
from tests.aio.conftest import Run, run_in, turns
from tests.client.test_client_threads import FaultyTransport, HangingTransport, descriptors
from tests.client.test_fork_and_exit import in_child
from tests.steps import eventually_in_loop as eventually
from tests.steps import join_threads

FAST = ReconnectPolicy(first=0.02, longest=0.05)
Server = BrokerServer[ModelBroker]


# The end of the loop


NO_STOPWATCH = """
import logging
logging.getLogger("asyncio").addFilter(lambda record: not record.msg.startswith("Executing %s took"))
"""


def run_program(body: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that may not print a warning, in the development mode of Python.

    There asyncio also warns of a turn that took 0.1 s: on a busy machine that says nothing about the program.
    """
    program = NO_STOPWATCH + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


PROGRAM = """
    import asyncio, os, sys
    from device_sdk import AsyncClient

    async def handler(message):
        await asyncio.Event().wait()

    async def main():
        client = AsyncClient(sys.argv[1])
        await client.connect(5)
        {body}

    asyncio.run(main())
    print(len(os.listdir("/proc/self/fd")) - 1)  # the directory itself is open, too
"""


@pytest.mark.parametrize(
    "body",
    [
        "await client.publish('t', b'last words')",
        "await client.publish('t', b'last words'); await asyncio.sleep(0.01)",
        "await client.subscribe('a', on_message=handler); await client.publish('a', b'last words')",
        "asyncio.create_task(client.messages().get()); await client.publish('t', b'last words')",
    ],
)
def test_a_program_that_forgets_to_close_ends_without_a_warning(server: Server, body: str) -> None:
    result = run_program(PROGRAM.format(body=body), server.url)
    assert (result.returncode, result.stdout, result.stderr) == (0, "3\n", "")
    server.wait_for(lambda: not server.broker.links)
    assert [message.payload for message in server.broker.journal] == [b"last words"]


def test_the_end_of_the_loop_says_disconnect_so_that_no_will_is_published(run: Run) -> None:
    broker = ScriptedBroker([expect("connect"), send(Connack()), expect("disconnect")], version="5.0")

    async def main(url: str) -> None:
        await AsyncClient(url).connect(5)

    with BrokerServer(broker) as server:
        run(main(server.url))
        server.wait_for(lambda: broker.done)
    broker.check()


def test_what_a_forgotten_client_drops_is_told_all_the_same(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    clients = []

    async def main() -> None:
        clients.append(AsyncClient("memory://nobody"))
        await clients[0].start()
        await clients[0].publish("t", b"x", qos=1)

    run(main())
    assert clients[0].state == "closed"
    assert "1 messages that were not acknowledged" in caplog.text


def test_ctrl_c_in_a_handler_ends_the_program_and_the_client() -> None:
    program = """
        import asyncio
        from device_sdk import AsyncClient

        def hook(event):
            raise KeyboardInterrupt

        async def main():
            global client
            client = AsyncClient("memory://nobody", on_connect=hook)
            client._engine.events.append((hook, None))
            await client.start()
            await asyncio.sleep(10)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print(client.state)
    """
    result = run_program(program)
    assert (result.returncode, result.stdout) == (0, "closed\n")


def test_a_handler_that_takes_no_notice_of_the_end_of_the_loop_is_the_last_one(
    server: Server, run: Run
) -> None:
    seen: list[bytes] = []

    async def handler(message: Message) -> None:
        seen.append(message.payload)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

    async def main() -> None:
        client = AsyncClient(server.url)
        await client.connect(5)
        await client.subscribe("t", qos=1, on_message=handler)
        for payload in (b"1", b"2"):
            await client.publish("t", payload, qos=1)
        await eventually(lambda: client.stats.received == 2)

    run(main())
    assert seen == [b"1"]


# Other loops, and other threads


def test_a_client_belongs_to_the_loop_of_its_first_use(server: Server) -> None:
    client = AsyncClient(server.url)

    async def use() -> None:
        await client.publish("t", b"x", qos=1)

    run_in(use())
    with pytest.raises(RuntimeError, match="belongs to another event loop"):
        run_in(use())
    with pytest.raises(RuntimeError, match="no running event loop"):
        client.subscribe("t")


def test_other_threads_publish_through_the_loop(server: Server, run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)  # it checks who calls
        async with AsyncClient(server.url) as client:

            def work() -> None:
                for number in range(20):
                    delivery = asyncio.run_coroutine_threadsafe(
                        client.publish("t", b"%d" % number, qos=1), loop
                    ).result(5)
                    asyncio.run_coroutine_threadsafe(delivery.wait(5), loop).result(5)

            await asyncio.to_thread(work)

    run(main())
    assert server.broker.payloads("t") == [b"%d" % number for number in range(20)]


def test_two_clients_in_one_loop_do_not_disturb_each_other(server: Server, run: Run) -> None:
    received: list[bytes] = []

    async def main() -> None:
        async with AsyncClient(server.url) as one, AsyncClient(server.url) as other:
            await one.subscribe("t", qos=1, on_message=lambda message: received.append(message.payload))
            for number in range(100):
                await other.publish("t", b"%d" % number, qos=1)
            await eventually(lambda: len(received) == 100)

    run(main())
    assert received == [b"%d" % number for number in range(100)]


def test_opening_is_the_only_thread_and_it_ends(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.connect(5)
            await asyncio.to_thread(join_threads)

    run(main())


def test_the_childs_copy_raises_and_the_parents_connection_is_unharmed(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.connect(5)
            pending = await client.publish("t", b"0", qos=1)

            def work() -> None:
                assert client.state == "closed"
                assert client.stats.connects == 1
                assert isinstance(pending.error, ClosedError)
                with pytest.raises(ClosedError):
                    asyncio.run(client.publish("t", b"child"))
                stream = os.readlink(f"/proc/self/fd/{client._driver._watched[0]}")  # type: ignore[union-attr, index]
                assert stream == os.devnull

            assert in_child(work) == ""
            await pending.wait(5)
            await (await client.publish("t", b"1", qos=1)).wait(5)
            assert client.stats.connects == 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        run(main())
    assert server.broker.payloads("t") == [b"0", b"1"]


# Faults


@pytest.mark.parametrize("method", ["open", "fileno", "recv", "send", "wants_write", "next_deadline"])
def test_an_unforeseen_error_is_an_event_and_a_reconnect(
    server: Server, run: Run, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_sdk.aio.driver._FAULT_SECONDS", 0.01)
    events: list[ClientEvent] = []

    async def main() -> None:
        transport = FaultyTransport(server.url, method)
        async with AsyncClient(transport, reconnect=FAST, on_event=events.append) as client:
            await (await client.publish("t", b"x", qos=1)).wait(10)

    run(main())
    kinds = [event.kind for event in events]
    assert ("connect_failed" if method == "open" else "internal_error") in kinds
    assert "ZeroDivisionError" in events[0].text
    assert server.broker.payloads("t") == [b"x"]


def test_an_attempt_that_does_not_return_is_left_behind(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_sdk.engine.connecting.attempt._GRACE_SECONDS", 0.05)
    events: list[ClientEvent] = []
    transport = HangingTransport(server.url)

    async def main() -> None:
        async with AsyncClient(
            transport, connect_timeout=0.05, reconnect=FAST, on_event=events.append
        ) as client:
            await (await client.publish("t", b"x", qos=1)).wait(5)
            assert "open() of faulty has not returned within 0.05 s" in events[0].text
            transport.release.set()  # the latecomer disturbs nobody
            await (await client.publish("t", b"y", qos=1)).wait(5)
            assert client.stats.connects == 1

    run(main())


def test_a_loop_that_ends_during_an_attempt_does_not_wait_for_it(server: Server, run: Run) -> None:
    transport = HangingTransport(server.url)

    async def main() -> None:
        await AsyncClient(transport).start()
        assert await asyncio.to_thread(transport.opening.wait, 5)

    run(main())
    transport.release.set()


def test_without_threads_for_an_attempt_the_attempt_fails_and_is_repeated(
    server: Server, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_start = threading.Thread.start
    refused: list[str] = []

    def start(thread: threading.Thread) -> None:
        if thread.name == "device-sdk open" and len(refused) < 2:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        real_start(thread)

    monkeypatch.setattr(threading.Thread, "start", start)

    async def main() -> None:
        async with AsyncClient(server.url, reconnect=FAST) as client:
            await (await client.publish("t", b"x", qos=1)).wait(5)

    run(main())
    assert len(refused) == 2


# Cost


def test_an_idle_client_takes_no_turns(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client, AsyncClient(server.url) as busy:
            await (await client.publish("t", b"x", qos=1)).wait(5)
            await turns(20)
            assert client._driver is not None
            before = client._driver.turns
            for _ in range(50):
                await (await busy.publish("t", b"x", qos=1)).wait(5)
            assert client._driver.turns == before
            timer = client._driver._timer
            assert timer is not None
            assert timer.when() - asyncio.get_running_loop().time() > 1

    run(main())


def test_publishing_offline_takes_no_turns(run: Run) -> None:
    async def main() -> None:
        policy = ReconnectPolicy(first=1_000, longest=1_000)
        async with AsyncClient("memory://nobody", reconnect=policy) as client:
            await eventually(lambda: client.state == "waiting")
            await turns()
            assert client._driver is not None
            before = client._driver.turns
            for _ in range(1_000):
                await client.publish("t", b"x", qos=1)
            await turns()
            assert client._driver.turns == before
            delivery = await client.publish("t", b"x", qos=1, expiry=0.02)
            await eventually(lambda: delivery.state == "expired")  # but an expiry shortens the sleep
            await client.close(0)

    run(main())


@pytest.mark.parametrize("closes", [True, False])
def test_many_lives_leave_no_descriptor_and_no_thread_behind(server: Server, run: Run, closes: bool) -> None:
    async def live() -> None:
        client = AsyncClient(server.url)
        await client.connect(5)
        await (await client.publish("t", b"x", qos=1)).wait(5)
        if closes:
            await client.close()

    async def lives() -> None:
        for _ in range(10):
            await live()

    measure_leaks(lambda: run(lives()), server)


def measure_leaks(work: Callable[[], Any], server: Server) -> None:
    """Do the work some times; the number of open descriptors stays what it was after the first time."""
    work()
    gc.collect()
    server.wait_for(lambda: not server.broker.links)
    before = descriptors()
    for _ in range(5):
        work()
    gc.collect()
    # The server has forgotten a client at its DISCONNECT, and closes the socket a moment later.
    server.wait_for(lambda: descriptors() <= before)


def test_failed_lives_leave_nothing_behind_either(run: Run) -> None:
    async def main() -> None:
        client = AsyncClient("memory://nobody")
        gc.collect()
        before = descriptors()
        for _ in range(50):
            with pytest.raises(OSError, match="nobody listens"):
                await client.connect(5)
        assert descriptors() <= before
        await client.close()

    run(main())


def test_a_batch_of_handlers_lets_the_loop_run_in_between(server: Server) -> None:
    """Handlers that take long together must not keep PINGREQ, timers and other tasks waiting."""
    ticks: list[int] = []
    handled: list[bytes] = []

    def busy(message: Message) -> None:
        end = asyncio.get_running_loop().time() + 0.002
        while asyncio.get_running_loop().time() < end:
            pass
        handled.append(message.payload)

    async def tick() -> None:
        while True:
            ticks.append(len(handled))
            await asyncio.sleep(0)

    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.subscribe("t", on_message=busy)
            for _ in range(50):
                await client.publish("t", b"x")
            task = asyncio.create_task(tick())
            await eventually(lambda: len(handled) == 50)
            task.cancel()

    run_in(main())
    assert len(set(ticks)) > 5
