"""A signal may interrupt a client anywhere: no lock stays held, no wake-up is lost, nobody waits in vain."""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Client, StorePolicy
from device_sdk.engine.reentry import has_lock
from device_sdk.errors import ClosedError, QueueFullError
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.protocol import Protocol
from device_sdk.mqtt.session import Outgoing, Session
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.threads import CallbackThread
from tests.interrupts import Interrupter, in_another_thread, places
from tests.steps import join_threads

Server = BrokerServer[ModelBroker]
NOWHERE = "mqtt://127.0.0.1:9"
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module", autouse=True)
def steps() -> None:
    """The locks here are Python's: one that tells of each step would itself be interrupted elsewhere."""


def ctrl_c(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def connected(server: Server, **options: Any) -> Iterator[Client]:
    """A client without deadlines: a wake-up that is lost is never made up for. One message in flight."""
    client = Client(server.url, client_id="c", inflight=1, keep_alive=0, **options)
    client.connect(5)
    yield client
    in_another_thread(lambda: client.close(0))


def still_works(client: Client) -> None:
    in_another_thread(lambda: client.publish("t", b"after", qos=1).wait(4))


# The handler raises


@pytest.mark.parametrize(
    "options",
    [{"qos": 0}, {"qos": 1}, {"qos": 2}, {"qos": 1, "expiry": 60, "properties": {"content_type": "x"}}],
    ids=["QoS 0", "QoS 1", "QoS 2", "with properties"],
)
@pytest.mark.parametrize("stored", [False, True], ids=["memory", "store"])
def test_ctrl_c_anywhere_in_publish_leaves_a_client_that_works(
    server: Server, tmp_path: Path, stored: bool, options: dict[str, Any]
) -> None:
    with connected(server, store=tmp_path / "queue.db" if stored else None) as client:

        def interrupted(interrupter: Interrupter) -> None:
            try:
                interrupter.run(lambda: client.publish("t", b"interrupted", **options))
            except KeyboardInterrupt:
                assert interrupter.reached
            still_works(client)

        found = places(interrupted, ctrl_c)
    assert len(found) > 15
    assert any("Publisher.publish" in place for place in found)


@pytest.mark.parametrize("use_aliases", [False, True], ids=["topics", "aliases"])
def test_ctrl_c_anywhere_in_a_publish_leaves_what_is_sent_in_the_window_and_nothing_else(
    use_aliases: bool,
) -> None:
    def interrupted(interrupter: Interrupter) -> None:
        session = Session()
        protocol = Protocol(session, ConnectOptions("c"), inflight=1, use_aliases=use_aliases)
        protocol.connect(0.0, clean_start=True)
        protocol.receive_data(b"\x20\x06\x00\x00\x03\x22\x00\x05", 0.0)
        protocol.data_to_send(0, 0.0)
        try:
            interrupter.run(lambda: protocol.publish(Outgoing(b"\0\1t", b"", 2, b"\0"), 0.0))
        except KeyboardInterrupt:
            assert interrupter.reached
        in_window = [message.packet is not None for message in session.in_flight.values()]
        assert in_window == [True] * len(protocol.data_to_send(0, 0.0))

    assert any("Output.publish" in place for place in places(interrupted, ctrl_c))


@pytest.mark.parametrize("method", ["subscribe", "unsubscribe"])
def test_ctrl_c_anywhere_in_subscribe_leaves_a_client_that_works(server: Server, method: str) -> None:
    with connected(server) as client:

        def interrupted(interrupter: Interrupter) -> None:
            try:
                interrupter.run(lambda: getattr(client, method)("a/b"))
            except KeyboardInterrupt:
                assert interrupter.reached
            still_works(client)

        assert len(places(interrupted, ctrl_c)) > 10


def test_ctrl_c_anywhere_in_replacing_a_connection_leaves_a_client_that_works(server: Server) -> None:
    with connected(server) as client:

        def interrupted(interrupter: Interrupter) -> None:
            try:
                interrupter.run(lambda: client.reconnect_now(replace=True))
            except KeyboardInterrupt:
                assert interrupter.reached
            still_works(client)
            client.connect(4)

        found = places(interrupted, ctrl_c)
    assert any("Reactions.replace" in place for place in found)
    assert any("Connection.leave" in place for place in found)


def test_ctrl_c_anywhere_in_waiting_for_room_leaves_a_client_that_works(server: Server) -> None:
    client = Client(
        server.url,
        policy=StorePolicy(max_messages=1, overflow="block", block_timeout=0.001),
    )
    client.publish("t", b"fills the queue", qos=1)

    def interrupted(interrupter: Interrupter) -> None:
        with pytest.raises((KeyboardInterrupt, QueueFullError)):
            interrupter.run(lambda: client.publish("t", b"interrupted", qos=1))
        in_another_thread(lambda: client.stats)

    assert any("wait_room" in place for place in places(interrupted, ctrl_c))
    client.connect(5)
    client.publish("t", b"after", qos=1).wait(5)
    in_another_thread(client.close)


@contextlib.contextmanager
def signal_comes(handler: Callable[..., None]) -> Iterator[Callable[[], None]]:
    """Yield what sends this thread a signal in a moment."""
    before = signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
    try:
        yield timer.start
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_while_another_thread_has_the_lock_leaves_it_to_that_thread(server: Server) -> None:
    with connected(server) as client:
        has_it, let_go = threading.Event(), threading.Event()
        kept: list[bool] = []

        def hold() -> None:
            with client._engine.lock:
                has_it.set()
                let_go.wait(10)
                kept.append(has_lock(client._engine.lock))

        holder = threading.Thread(target=hold)
        holder.start()
        assert has_it.wait(5)
        with signal_comes(ctrl_c) as send_soon, pytest.raises(KeyboardInterrupt):
            send_soon()
            client.publish("t", b"interrupted", qos=1)
        assert not client._engine.lock.acquire(blocking=False)
        let_go.set()
        holder.join(5)
        assert kept == [True]
        still_works(client)


def test_ctrl_c_while_waiting_for_a_message_leaves_the_inbox_usable(server: Server) -> None:
    with connected(server) as client:
        inbox = client.messages()
        client.subscribe("t", qos=1).wait(5)
        with signal_comes(ctrl_c) as send_soon, pytest.raises(KeyboardInterrupt):
            send_soon()
            inbox.get(10)
        still_works(client)
        assert inbox.get(5).payload == b"after"


def test_ctrl_c_anywhere_in_start_leaves_a_client_that_can_be_started(server: Server) -> None:
    def interrupted(interrupter: Interrupter) -> None:
        client = Client(server.url, client_id="c")
        try:
            interrupter.run(client.start)
        except KeyboardInterrupt:
            assert interrupter.reached
        client.connect(5)
        still_works(client)
        in_another_thread(lambda: client.close(0))
        join_threads()

    assert any("NetworkThread.start" in place for place in places(interrupted, ctrl_c))


def test_ctrl_c_anywhere_in_a_wait_does_not_lift_the_limit_of_the_inbox_for_ever() -> None:
    with contextlib.ExitStack() as stack:
        with BrokerServer(ModelBroker()) as server:
            client = stack.enter_context(connected(server))
            client.subscribe("t", qos=1).wait(5)
            inbox = client.messages()
            client.publish("t", b"first", qos=1).wait(5)
            inbox.get(5)  # this thread is a consumer from now on

        def interrupted(interrupter: Interrupter) -> None:
            delivery = client.publish("t", b"", qos=1)  # never acknowledged: the broker is gone
            with contextlib.suppress(KeyboardInterrupt, TimeoutError):
                interrupter.run(lambda: delivery.wait(0.01))
            assert not client._engine.consumers.blocked

        assert any("Consumers.block" in place for place in places(interrupted, ctrl_c))


def test_ctrl_c_anywhere_in_settling_messages_of_the_inbox_loses_no_wake_up() -> None:
    client = Client(NOWHERE)
    engine = client._engine
    engine.draining = True  # whatever is settled, the network is to look again

    def interrupted(interrupter: Interrupter) -> None:
        woken: list[bool] = []
        callbacks = CallbackThread(engine, lambda: None, lambda: woken.append(True))
        engine.parked = True
        try:
            interrupter.run(lambda: callbacks.settle(0))
        except KeyboardInterrupt:
            assert interrupter.reached
        assert engine.parked or woken

    assert any("CallbackThread.settle" in place for place in places(interrupted, ctrl_c))
    client.close()


CTRL_C_IN_A_LOOP = """
import random, signal, sys
from device_sdk import Client

class Interrupted(Exception):
    pass

def handler(*_):
    raise Interrupted

signal.signal(signal.SIGALRM, handler)
chance = random.Random(int(sys.argv[2]))
client = Client(sys.argv[1], keep_alive=0)
client.connect(5)
for _ in range(60):
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0002, 0.003))
        while True:
            client.publish("t", b"x")
    except Interrupted:
        pass
client.publish("t", b"last", qos=1).wait(30)
client.close()
print("closed")
"""


def test_sixty_signals_in_a_tight_loop_of_publish_do_not_hang(server: Server) -> None:
    run = subprocess.run(
        [sys.executable, "-c", CTRL_C_IN_A_LOOP, server.url, "1"],
        cwd=ROOT, capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    assert (run.stdout, run.stderr) == ("closed\n", "")


# The handler uses the client


def test_a_handler_that_publishes_does_so_or_is_told_that_it_cannot(server: Server) -> None:
    received: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with connected(server) as client:
        client.subscribe("t", qos=1, on_message=lambda message: received.put(message.payload)).wait(5)
        refused: list[str] = []
        expected: list[bytes] = []

        def handler() -> None:
            try:
                client.publish("t", b"handler %d" % len(expected), qos=1)
            except RuntimeError as error:
                refused.append(str(error))
            else:
                expected.append(b"handler %d" % len(expected))

        def interrupted(interrupter: Interrupter) -> None:
            interrupter.run(lambda: client.publish("t", b"interrupted", qos=1)).wait(5)
            expected.append(b"interrupted")

        count = len(places(interrupted, handler))
        assert sorted(received.get(timeout=5) for _ in expected) == sorted(expected)
    assert received.empty()
    assert 0 < len(refused) < count
    (told,) = set(refused)
    assert told.startswith("publish() in the handler of a signal that has interrupted the client at work; ")
    assert told.endswith("set a flag in the handler, or start a thread there that makes the call")


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.subscribe("other"),
        lambda client: client.unsubscribe("other"),
        lambda client: client.reconnect_now(),
        lambda client: client.start(),
    ],
    ids=["subscribe", "unsubscribe", "reconnect_now", "start"],
)
def test_no_method_waits_for_the_thread_that_it_has_interrupted(
    server: Server, call: Callable[[Client], object]
) -> None:
    with connected(server) as client:
        refused: list[str] = []

        def handler() -> None:
            try:
                call(client)
            except RuntimeError as error:
                refused.append(str(error))

        def interrupted(interrupter: Interrupter) -> None:
            interrupter.run(lambda: client.publish("t", b"interrupted", qos=1)).wait(5)

        count = len(places(interrupted, handler))
        assert 0 < len(refused) < count
        assert client.stats.connects == 1
        still_works(client)


def test_a_handler_may_ask_for_the_counters_anywhere(server: Server) -> None:
    with connected(server) as client:
        places(
            lambda interrupter: interrupter.run(lambda: client.publish("t", qos=1)).wait(5),
            lambda: assert_connected(client),
        )


def assert_connected(client: Client) -> None:
    assert client.stats.connects == 1


def test_a_handler_that_closes_the_client_closes_it_or_is_told_that_it_cannot(server: Server) -> None:
    refused: list[str] = []

    def interrupted(interrupter: Interrupter) -> None:
        with connected(server) as client:

            def close() -> None:
                try:
                    client.close(0)
                except RuntimeError as error:
                    refused.append(str(error))

            interrupter._handler = close
            try:
                interrupter.run(lambda: client.publish("t", b"interrupted", qos=1))
            except ClosedError:
                pass

    count = len(places(interrupted, lambda: None))
    assert 0 < len(refused) < count


def test_a_second_signal_does_not_wait_for_the_close_that_it_has_interrupted() -> None:
    client = Client(NOWHERE)
    client.start()
    client.publish("t", b"nobody takes it", qos=1)
    closing: list[str] = []

    def handler(*_: object) -> None:
        client.close(10)
        closing.append(client.state)

    with signal_comes(handler) as send_soon:
        send_soon()
        client.close(0.5)
    assert closing in (["waiting"], ["connecting"])  # the attempt may last
    assert client.state == "closed"


def test_nobody_waits_for_a_delivery_with_the_lock_that_it_needs() -> None:
    client = Client(NOWHERE)
    delivery = client.publish("t", b"nobody takes it", qos=1)
    refused: list[str] = []

    def handler() -> None:
        try:
            delivery.wait(0.001)
        except TimeoutError:
            pass
        except RuntimeError as error:
            refused.append(str(error))

    count = len(places(lambda one: one.run(lambda: client.publish("t", b"interrupted", qos=1)), handler))
    assert 0 < len(refused) < count
    client.close()
