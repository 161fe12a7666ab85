"""What an application sees of the client: publish, subscribe, handlers, events, start, connect, close."""

from __future__ import annotations

import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from device_sdk import Client, Message, Subscription, Will
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import (
    ClosedError,
    ConnectFailedError,
    ConnectRefused,
    DroppedError,
    QueueFullError,
    RemoteProtocolError,
    StoreError,
    TransportClosedError,
)
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.packets import Connack, Puback
from device_sdk.net.memory import MemoryListener
from device_sdk.store.base import StorePolicy
from device_sdk.store.memory import MemoryStore
from device_sdk.testing import BrokerServer, FaultProxy, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import Step, close, expect, ignore, send, stall
from tests.steps import eventually, join_threads, sdk_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

FAST = ReconnectPolicy(first=0.02, longest=0.05)
Server = BrokerServer[ModelBroker]


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port that is ours and on which nobody listens, until a BrokerServer of this test does."""
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@pytest.mark.parametrize("version", ["3.1", "3.1.1", "5.0"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_goes_out_and_comes_back(server: Server, version: str, qos: int) -> None:
    received: list[Message] = []
    with Client(server.url, version=version) as client:
        assert client.subscribe("a/+", qos=qos, on_message=received.append).wait(5) == [qos]
        client.publish("a/b", b"payload", qos=qos).wait(5)
        eventually(lambda: received)
    assert [(m.topic, m.payload, m.qos) for m in received] == [("a/b", b"payload", qos)]


def test_nothing_is_lost_and_nothing_comes_twice_through_cuts(server: Server) -> None:
    count = 300
    with (
        FaultProxy("127.0.0.1", server.port) as proxy,
        Client(f"mqtt://{proxy.host}:{proxy.port}", reconnect=FAST, clean_start=False) as client,
    ):
        for number in range(count):
            client.publish("t", b"%d" % number, qos=2)
            if number % 100 == 50:
                proxy.reset()
        server.wait_for(lambda: len(server.broker.payloads("t")) >= count, timeout=20)
        eventually(lambda: client.stats.in_flight == 0)
        assert client.stats.acknowledged == count
    assert server.broker.payloads("t") == [b"%d" % number for number in range(count)]


def test_a_handler_that_raises_is_an_event_and_the_message_counts_as_handled(server: Server) -> None:
    events: list[ClientEvent] = []
    seen: list[bytes] = []

    def handler(message: Message) -> None:
        seen.append(message.payload)
        raise ValueError("cannot use this")

    with Client(server.url, on_event=events.append) as client:
        client.subscribe("a", qos=1, on_message=handler).wait(5)
        for payload in (b"1", b"2"):
            client.publish("a", payload, qos=1).wait(5)
        eventually(lambda: len(seen) == 2 and client.stats.acks_held == 0)
    failures = [event for event in events if event.kind == "handler_failed"]
    assert len(failures) == 2
    assert isinstance(failures[0].error, ValueError)
    assert "handler raised ValueError: cannot use this" in failures[0].text


def test_even_a_handler_that_exits_or_cannot_be_named_leaves_the_thread_alive(server: Server) -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Handler:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def __call__(self, message: Message) -> None:
            raise self.error

        def __repr__(self) -> str:
            raise RuntimeError("no name")

    received: list[Message] = []
    events: list[ClientEvent] = []
    with Client(server.url, on_event=events.append) as client:
        for handler in (Handler(SystemExit(1)), Handler(Nasty()), received.append):
            client.subscribe("a", on_message=handler).wait(5)
        client.publish("a", b"x")
        eventually(lambda: received and [e.kind for e in events].count("handler_failed") == 2)


def test_publish_wait_subscribe_and_close_are_legal_inside_a_handler(server: Server) -> None:
    outcome: list[str] = []
    over = threading.Event()

    def handler(message: Message) -> None:
        client.publish("answer", b"y", qos=2).wait(5)
        outcome.append("published")
        assert client.subscribe("other", qos=1).wait(5) == [1]
        outcome.append("subscribed")
        client.close()
        outcome.append("closed")
        over.set()

    client = Client(server.url)
    client.connect(5)
    client.subscribe("question", on_message=handler).wait(5)
    client.publish("question", b"x")
    assert over.wait(10)
    assert outcome == ["published", "subscribed", "closed"]
    assert client.state == "closed"
    assert server.broker.payloads("answer") == [b"y"]


def test_a_handler_that_answers_each_message_never_waits_for_itself(server: Server) -> None:
    """More messages are in hand than may be, and the acknowledgement is behind unread ones."""
    answered: list[bytes] = []

    def handler(message: Message) -> None:
        client.publish("answer", message.payload, qos=1).wait(10)
        answered.append(message.payload)

    with Client(server.url, inbox_limit=3) as client, Client(server.url) as source:
        client.subscribe("question", qos=1, on_message=handler).wait(5)
        for number in range(60):
            source.publish("question", b"%d" % number, qos=1)
        eventually(lambda: len(answered) == 60, timeout=20)


def test_the_program_that_pulls_and_answers_never_waits_for_itself(server: Server) -> None:
    with Client(server.url, inbox_limit=3) as client, Client(server.url) as source:
        inbox = client.messages()
        client.subscribe("question", qos=1).wait(5)
        for number in range(60):
            source.publish("question", b"%d" % number, qos=1)
        for _ in range(60):
            message = inbox.get(10)
            client.publish("answer", message.payload, qos=1).wait(10)
    assert len(server.broker.payloads("answer")) == 60


def test_a_message_that_nobody_handles_is_told_once(server: Server) -> None:
    events: list[ClientEvent] = []
    with Client(server.url, on_event=events.append) as client:
        client.subscribe("a", qos=1).wait(5)
        for _ in range(3):
            client.publish("a", b"x", qos=1).wait(5)
        eventually(lambda: client.stats.received == 3 and client.stats.acks_held == 0)
    assert [event.kind for event in events].count("no_handler") == 1


def test_on_message_takes_what_no_subscription_handles(server: Server) -> None:
    default: list[str] = []
    special: list[str] = []
    with Client(server.url, on_message=lambda m: default.append(m.topic)) as client:
        client.subscribe("a").wait(5)
        client.subscribe("b", on_message=lambda m: special.append(m.topic)).wait(5)
        client.publish("a")
        client.publish("b")
        eventually(lambda: default and special)
    assert (default, special) == (["a"], ["b"])


def test_an_unsubscribed_handler_sees_nothing_more(server: Server) -> None:
    received: list[Message] = []
    with Client(server.url) as client:
        client.subscribe("a", on_message=received.append).wait(5)
        assert client.unsubscribe("a").wait(5) == [0]
        client.publish("a", b"x", qos=1).wait(5)
    assert received == []


def test_subscription_options_reach_the_broker(server: Server) -> None:
    wanted = [Subscription("a", 1, no_local=True), Subscription("b", 2, retain_handling=2)]
    with Client(server.url, client_id="c") as client:
        client.subscribe(wanted).wait(5)
        found = server.call(lambda: dict(server.broker.sessions["c"].subscriptions))
    assert (found["a"].no_local, found["b"].retain_handling) == (True, 2)


# connect() and start()


def test_connect_raises_what_went_wrong_and_the_queue_stays(refused_port: int) -> None:
    client = Client(f"mqtt://127.0.0.1:{refused_port}", reconnect=FAST)
    delivery = client.publish("t", b"x", qos=1)
    with pytest.raises(ConnectFailedError, match="ECONNREFUSED"):
        client.connect(5)
    assert client.state == "idle"
    join_threads()
    with BrokerServer(ModelBroker(), port=refused_port) as server:
        client.connect(5)
        delivery.wait(5)
        client.close()
        assert server.broker.payloads() == [b"x"]


def test_connect_raises_the_brokers_refusal() -> None:
    broker = ModelBroker(authorize_connect=lambda packet: 0x86)
    with BrokerServer(broker) as server:
        client = Client(server.url, user_name="node", password="wrong")
        with pytest.raises(ConnectRefused) as caught:
            client.connect(5)
        assert caught.value.reason_code == 0x86
        client.close()


def test_connect_gives_up_when_nobody_answers() -> None:
    with BrokerServer(ScriptedBroker([stall()])) as server:
        client = Client(server.url)
        with pytest.raises(TimeoutError, match=r"within 0.2 s"):
            client.connect(0.2)
        client.close()


def test_connect_in_two_threads_ends_in_both(server: Server) -> None:
    client = Client(server.url)
    threads = [threading.Thread(target=client.connect, args=(5,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert client.state == "connected"
    client.close()


def test_close_ends_a_connect_in_another_thread() -> None:
    errors: list[BaseException] = []

    def connect() -> None:
        try:
            client.connect(30)
        except ClosedError as error:
            errors.append(error)

    with BrokerServer(ScriptedBroker([stall()])) as server:
        client = Client(server.url)
        thread = threading.Thread(target=connect)
        thread.start()
        eventually(lambda: client.state == "connecting" and sdk_threads())
        client.close(0)
        thread.join(5)
    assert len(errors) == 1


def test_start_again_changes_nothing(server: Server) -> None:
    with Client(server.url) as client:
        client.start()
        client.connect(5)
        join_threads("device-sdk open")
        assert sorted(sdk_threads()) == ["device-sdk callbacks", "device-sdk network"]


def test_a_closed_client_says_so(server: Server) -> None:
    client = Client(server.url)
    client.connect(5)
    client.close()
    client.close()
    for call in (
        client.start,
        client.connect,
        client.messages,
        lambda: client.publish("a"),
        lambda: client.subscribe("a"),
        lambda: client.unsubscribe("a"),
    ):
        with pytest.raises(ClosedError):
            call()
    assert client.state == "closed"


def test_close_delivers_what_was_queued(server: Server) -> None:
    with Client(server.url) as client:
        for number in range(500):
            client.publish("t", b"%d" % number, qos=number % 3)
    assert len(server.broker.payloads("t")) == 500


def test_close_says_goodbye_and_the_will_stays_unpublished(server: Server) -> None:
    with Client(server.url, will=Will("will", b"gone", retain=True)) as client:
        client.connect(5)
    server.wait_for(lambda: not server.broker.links)
    assert server.call(lambda: dict(server.broker.retained)) == {}


def test_what_close_drops_is_told_by_event_and_delivery(refused_port: int) -> None:
    events: list[ClientEvent] = []
    client = Client(f"mqtt://127.0.0.1:{refused_port}", on_event=events.append)
    client.start()
    delivery = client.publish("t", b"x", qos=1)
    client.close(0)
    with pytest.raises(DroppedError):
        delivery.wait(0)
    assert "dropped" in [event.kind for event in events]


def bounded(client: Client, drain: float = 0.2, *, at_most: float = 5.0) -> None:
    """Close, and fail if that took longer than was promised."""
    begin = time.monotonic()
    client.close(drain)
    assert time.monotonic() - begin < at_most
    assert client.state == "closed"


def test_close_is_bounded_while_connecting_to_a_black_hole() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as hole, socket.socket() as filler:
        filler.setblocking(False)
        filler.connect_ex(hole.getsockname())  # the backlog is full: further SYNs are dropped
        client = Client(f"mqtt://127.0.0.1:{hole.getsockname()[1]}")
        client.start()
        client.publish("t", b"x", qos=1)
        eventually(lambda: "device-sdk open" in sdk_threads())
        bounded(client)


def test_close_is_bounded_when_the_broker_stalls() -> None:
    with BrokerServer(ScriptedBroker([expect("connect"), send(Connack()), stall()], version="5.0")) as server:
        client = Client(server.url)
        client.connect(5)
        client.publish("t", b"x" * 5_000_000, qos=0)
        client.publish("t", b"x", qos=1)
        bounded(client)


def test_close_is_bounded_when_a_handler_is_stuck(server: Server) -> None:
    entered, release = threading.Event(), threading.Event()
    handled: list[bytes] = []

    def handler(message: Message) -> None:
        handled.append(message.payload)
        entered.set()
        release.wait(20)

    client = Client(server.url)
    client.connect(5)
    client.subscribe("a", qos=1, on_message=handler).wait(5)
    for number in range(3):
        client.publish("a", b"%d" % number, qos=1)
    assert entered.wait(5)
    eventually(lambda: client.stats.received == 3)
    bounded(client)
    release.set()
    join_threads()
    assert handled == [b"0"]  # nobody could acknowledge the others: the next client gets them


def test_close_is_bounded_during_a_flood_of_messages(server: Server) -> None:
    stop = threading.Event()
    with Client(server.url) as source:
        client = Client(server.url)
        client.subscribe("flood", on_message=lambda message: None)
        client.connect(5)

        def flood() -> None:
            while not stop.is_set():
                try:
                    source.publish("flood", b"x" * 100)
                except QueueFullError:
                    stop.wait(0.01)

        thread = threading.Thread(target=flood)
        thread.start()
        eventually(lambda: client.stats.received > 100)
        bounded(client)
        stop.set()
        thread.join(5)


def test_close_in_a_handler_while_another_thread_closes(server: Server) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def handler(message: Message) -> None:
        entered.set()
        go_on.wait(5)
        client.close()

    client = Client(server.url)
    client.connect(5)
    client.subscribe("a", on_message=handler).wait(5)
    client.publish("a", b"x")
    assert entered.wait(5)
    closer = threading.Thread(target=client.close, args=(10,))
    closer.start()
    eventually(lambda: client._closed)
    go_on.set()
    closer.join(5)  # far below the drain time: the handler did not wait for the one who waits for it
    assert not closer.is_alive()


# Deliveries


def test_wait_has_a_timeout() -> None:
    with BrokerServer(
        ScriptedBroker([expect("connect"), send(Connack()), ignore()], version="5.0")
    ) as server:
        client = Client(server.url)
        client.connect(5)
        delivery = client.publish("t", b"x", qos=1)
        with pytest.raises(TimeoutError, match=r"'t' qos=1 sent.*within 0.05 s"):
            delivery.wait(0.05)
        client.close(0)


def test_wait_stored_needs_a_store_and_works_with_one(server: Server) -> None:
    with Client(server.url) as client, pytest.raises(StoreError, match="store="):
        client.publish("t", b"x", qos=1).wait_stored(1)
    store = MemoryStore()
    with Client(server.url, store=store) as client:
        first_name = client.client_id
        client.publish("t", b"x", qos=1).wait_stored(1)
    with Client(server.url, store=store) as client:
        assert client.client_id == first_name  # the store remembers the made-up name


def test_a_client_with_a_store_hands_its_queue_to_the_next(server: Server, refused_port: int) -> None:
    store = MemoryStore()
    offline = Client(f"mqtt://127.0.0.1:{refused_port}", store=store)
    deliveries = [offline.publish("t", b"%d" % number, qos=1) for number in range(5)]
    assert {delivery.state for delivery in deliveries} == {"stored"}
    offline.close(0)
    with Client(server.url, store=store) as client:
        client.connect(5)
    assert server.broker.payloads("t") == [b"%d" % number for number in range(5)]


def test_a_mistake_in_the_constructor_leaves_the_store_free() -> None:
    store = MemoryStore()
    with pytest.raises(ValueError, match="keep_alive"):
        Client("mqtt://localhost", store=store, keep_alive=-1)
    Client("mqtt://localhost", store=store).close()


def test_a_made_up_client_identifier_is_one_that_every_server_must_accept() -> None:
    first, second = Client("mqtt://localhost"), Client("mqtt://localhost")
    assert first.client_id != second.client_id
    assert len(first.client_id) <= 23
    assert first.client_id.isalnum()


def test_a_blocked_publisher_goes_on_when_there_is_room() -> None:
    policy = StorePolicy(max_messages=1, overflow="block", block_timeout=10)
    with BrokerServer(ModelBroker()) as server:
        with Client(server.url, policy=policy, inflight=1) as client:
            for number in range(50):
                client.publish("t", b"%d" % number, qos=1)
        assert server.broker.payloads("t") == [b"%d" % number for number in range(50)]


def test_a_blocked_publisher_gives_up_in_time_and_ends_with_the_client(refused_port: int) -> None:
    policy = StorePolicy(max_messages=1, overflow="block", block_timeout=0.05)
    client = Client(f"mqtt://127.0.0.1:{refused_port}", policy=policy)
    client.publish("t", b"0", qos=1)
    with pytest.raises(QueueFullError, match="no room in time"):
        client.publish("t", b"1", qos=1)
    client.close(0)


def test_a_blocked_publisher_waits_no_longer_than_the_expiry_of_its_message(refused_port: int) -> None:
    """Afterwards nobody wants it any more: a request for example that has timed out."""
    policy = StorePolicy(max_messages=1, overflow="block", block_timeout=5)
    client = Client(f"mqtt://127.0.0.1:{refused_port}", policy=policy)
    client.publish("t", b"0", qos=1)
    begun = time.monotonic()
    with pytest.raises(QueueFullError, match="no room in time"):
        client.publish("t", b"1", qos=1, expiry=0.05)
    assert time.monotonic() - begun < 4
    assert client.stats.queued == 1
    client.close(0)


# Brokers that do not behave


CONNACK_BYTES = encode_packet(Connack(False, 0, {"receive_maximum": 10}), "5.0")


@pytest.mark.parametrize("cut", range(len(CONNACK_BYTES)))
def test_a_broker_that_closes_at_any_byte_of_connack_loses_nothing(cut: int) -> None:
    script: list[Step] = [expect("connect"), *([send(CONNACK_BYTES[:cut])] if cut else []), close()]
    good = [
        expect("connect"),
        send(CONNACK_BYTES),
        expect("publish", topic="t", payload=b"x"),
        send(lambda seen: Puback(seen.packet_id)),
        ignore(),
    ]
    events: list[ClientEvent] = []
    broker = ScriptedBroker(script, good, version="5.0")
    with BrokerServer(broker) as server, Client(server.url, reconnect=FAST, on_event=events.append) as client:
        client.publish("t", b"x", qos=1).wait(5)
    assert "closed the connection before answering CONNECT" in events[0].text
    assert [event.kind for event in events[:2]] == ["connect_failed", "connected"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", RemoteProtocolError),
        (b"\xff" * 64, RemoteProtocolError),
        (b"\x20\x02\x00\x00", RemoteProtocolError),  # the CONNACK of another version
        (encode_packet(Connack(False, 0x88), "5.0"), ConnectRefused),
        (b"", TransportClosedError),
    ],
)
def test_a_broker_that_answers_nonsense_is_reported_and_tried_again(
    answer: bytes, kind: type[Exception]
) -> None:
    script = [expect("connect"), *([send(answer)] if answer else []), close()]
    events: list[ClientEvent] = []
    broker = ScriptedBroker(script, script, script, version="5.0")
    with BrokerServer(broker) as server:
        client = Client(server.url, reconnect=FAST, on_event=events.append)
        client.start()
        delivery = client.publish("t", b"x", qos=1)
        eventually(lambda: [event.kind for event in events].count("connect_failed") >= 2)
        assert isinstance(events[0].error, kind)
        assert delivery.state == "queued"
        client.close(0)


def test_a_broker_that_never_answers_is_reported_after_connect_timeout() -> None:
    events: list[ClientEvent] = []
    with BrokerServer(ScriptedBroker([stall()], [stall()], [stall()])) as server:
        client = Client(server.url, connect_timeout=0.1, reconnect=FAST, on_event=events.append)
        client.start()
        eventually(lambda: events)
        assert "no answer to CONNECT within 0.1 s" in events[0].text
        client.close(0)


def test_garbage_on_a_connection_ends_it_and_nothing_is_lost() -> None:
    broker = ScriptedBroker(
        [expect("connect"), send(Connack()), expect("publish"), send(b"\x00\x00garbage"), ignore()],
        [
            expect("connect"),
            send(Connack(session_present=True)),
            expect("publish", dup=True, payload=b"x"),
            send(lambda seen: Puback(seen.packet_id)),
            ignore(),
        ],
        version="5.0",
    )
    events: list[ClientEvent] = []
    with BrokerServer(broker) as server, Client(server.url, reconnect=FAST, on_event=events.append) as client:
        client.publish("t", b"x", qos=1).wait(5)
    assert [event.kind for event in events] == ["connected", "disconnected", "connected"]
    assert isinstance(events[1].error, RemoteProtocolError)


def test_it_runs_over_a_stream_in_memory() -> None:
    with MemoryListener("client-test") as listener:
        client = Client("memory://client-test", version="3.1.1")
        client.start()
        end = listener.accept(timeout=5)
        data = bytearray()

        def arrived(first: bytes) -> bool:
            data.extend(end.recv() or b"")
            return data.startswith(first)

        eventually(lambda: arrived(b"\x10"))
        end.send(b"\x20\x02\x00\x00")
        eventually(lambda: client.state == "connected")
        delivery = client.publish("t", b"x", qos=1)
        data.clear()
        eventually(lambda: arrived(b"\x32"))
        end.send(b"\x40\x02" + delivery.packet_id.to_bytes(2, "big"))
        delivery.wait(5)
        client.close()
        end.close()
