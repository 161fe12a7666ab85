"""Messages on their way in: subscriptions and answers, routing, the order of acknowledgements, bounds."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from device_sdk.engine.consumers import Consumers
from device_sdk.engine.incoming.inbox import Inbox
from device_sdk.engine.incoming.router import Router
from device_sdk.engine.incoming.subscribe_request import SubscribeRequest
from device_sdk.errors import ClosedError, SubscribeRefused
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Message, Subscription
from device_sdk.mqtt.packets import Pingresp, Puback, Publish, Pubrec, Suback, Unsuback
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Rig, SlowStore, types


def subscribe(rig: Rig, *topics: str, qos: int = 1) -> SubscribeRequest:
    with rig.engine.lock:
        return rig.engine.incoming.subscribe([Subscription(topic, qos) for topic in topics], None)


def incoming(number: int, qos: int = 1, topic: str = "t") -> Publish:
    return Publish(topic, b"%d" % number, qos=qos, packet_id=number if qos else None)


def test_a_subscription_made_offline_is_sent_on_the_connection() -> None:
    rig = Rig()
    request = rig.engine.incoming.subscribe([Subscription("a/#", 1)], None)
    [packet] = rig.connect()
    assert (packet.type, packet.subscriptions) == ("subscribe", [Subscription("a/#", 1)])
    assert not request.done
    rig.feed(Suback(packet.packet_id, [1]))
    assert request.wait(0) == [1]


def test_without_a_session_everything_wanted_is_asked_for_again() -> None:
    rig = Rig()
    subscribe(rig, "a", "b")
    [packet] = rig.connect()
    rig.feed(Suback(packet.packet_id, [1, 1]))
    rig.engine.incoming.unsubscribe(["b"])
    [packet] = rig.sent()
    rig.feed(Unsuback(packet.packet_id, [0]))
    rig.lose()
    rig.advance(1)
    [again] = rig.connect(session_present=False)
    assert [wanted.topic for wanted in again.subscriptions] == ["a"]


def test_after_an_unanswered_connect_they_are_asked_for_whatever_the_broker_says() -> None:
    # The CONNACK that said "new session" may be what was lost.
    rig = Rig()
    subscribe(rig, "a")
    [packet] = rig.connect()
    rig.feed(Suback(packet.packet_id, [1]))
    rig.lose()
    rig.advance(1)
    rig.open()
    rig.lose()
    rig.advance(5)
    [again] = rig.connect(session_present=True)
    assert [wanted.topic for wanted in again.subscriptions] == ["a"]


def test_a_session_that_is_present_still_has_them() -> None:
    rig = Rig()
    subscribe(rig, "a")
    [packet] = rig.connect()
    rig.feed(Suback(packet.packet_id, [1]))
    rig.lose()
    rig.advance(1)
    assert rig.connect(session_present=True) == []


def test_a_request_without_an_answer_is_repeated_even_if_the_session_is_present() -> None:
    rig = Rig()
    request = rig.engine.incoming.subscribe([Subscription("a", 1)], None)
    assert types(rig.connect()) == ["subscribe"]
    rig.lose()
    rig.advance(1)
    [packet] = rig.connect(session_present=True)
    rig.feed(Suback(packet.packet_id, [0]))
    assert request.wait(0) == [0]


def test_many_subscriptions_come_back_eight_in_a_packet_and_in_order() -> None:
    # AWS IoT Core ends the connection of a SUBSCRIBE with more than eight.
    rig = Rig()
    subscribe(rig, *(f"topic/{number}" for number in range(120)))
    rig.connect()
    rig.lose()
    rig.advance(1)
    [first] = rig.connect()  # not answered: as it was
    rig.feed(Suback(first.packet_id, [1] * 120))
    rig.lose()
    rig.advance(2)
    again = rig.connect(session_present=False)
    assert {len(packet.subscriptions) for packet in again} == {8}
    topics = [wanted.topic for packet in again for wanted in packet.subscriptions]
    assert topics == [f"topic/{number}" for number in range(120)]


@pytest.mark.parametrize("largest", [70, 120, 200, 10_000])
def test_subscriptions_come_back_in_packets_that_the_server_takes(largest: int) -> None:
    rig = Rig()
    for number in range(10):
        subscribe(rig, f"{number:050}")
    asked = rig.connect(maximum_packet_size=largest)
    rig.feed(*(Suback(packet.packet_id, [1]) for packet in asked))
    rig.lose()
    rig.advance(1)
    again = rig.connect(maximum_packet_size=largest)
    assert [wanted.topic for packet in again for wanted in packet.subscriptions] == [
        f"{number:050}" for number in range(10)
    ]
    assert all(len(encode_packet(packet, "5.0")) <= largest for packet in again)
    assert "subscribe_refused" not in rig.events()


def test_many_subscriptions_are_asked_for_in_turn_and_leave_packet_identifiers_for_messages() -> None:
    rig = Rig()
    requests = [subscribe(rig, f"topic/{number}") for number in range(2_500)]
    asked = rig.connect()
    while asked:
        assert len(asked) <= 1_000
        asked = rig.feed(*(Suback(packet.packet_id, [1]) for packet in asked))
    assert all(request.wait(0) == [1] for request in requests)


def test_a_refused_filter_is_forgotten_and_reported() -> None:
    rig = Rig()
    request = rig.engine.incoming.subscribe([Subscription("good", 1), Subscription("secret", 1)], None)
    [packet] = rig.connect()
    rig.feed(Suback(packet.packet_id, [1, 0x87]))
    with pytest.raises(SubscribeRefused, match="secret") as caught:
        request.wait(0)
    assert caught.value.reason_code == 0x87
    assert list(rig.engine.incoming.router.wanted) == ["good"]
    assert "subscribe_refused" in rig.events()


def test_a_request_larger_than_the_server_takes_is_refused() -> None:
    rig = Rig()
    request = rig.engine.incoming.subscribe([Subscription("x" * 100, 1)], None)
    assert rig.connect(maximum_packet_size=50) == []
    with pytest.raises(SubscribeRefused, match="Maximum Packet Size"):
        request.wait(0)


LACKING: list[tuple[dict[str, Any], str, int]] = [
    ({"shared_subscription_available": 0}, "$share/g/t", 0x9E),
    ({"wildcard_subscription_available": 0}, "t/#", 0xA2),
    ({"maximum_packet_size": 50}, "x" * 100, 0x95),
]


@pytest.mark.parametrize(("server", "topic_filter", "code"), LACKING, ids=["shared", "wildcard", "size"])
@pytest.mark.parametrize("online", [False, True], ids=["offline", "online"])
def test_a_filter_that_is_refused_here_is_forgotten_like_one_that_the_broker_refuses(
    server: dict[str, Any], topic_filter: str, code: int, online: bool
) -> None:
    store = SlowStore()
    rig = Rig(store=store)
    if online:
        rig.connect(**server)
    handled: list[Message] = []
    request = rig.engine.incoming.subscribe([Subscription(topic_filter, 1)], handled.append)
    sent = rig.sent() if online else rig.connect(**server)
    assert sent == []
    with pytest.raises(SubscribeRefused) as caught:
        request.wait(0)
    assert caught.value.reason_code == code
    router = rig.engine.incoming.router
    assert topic_filter not in router.wanted
    assert router.route("t") == router.route(topic_filter) == ()
    assert rig.events().count("subscribe_refused") == 1
    assert store.changes[-1] == ("unsubscribed", topic_filter)
    rig.lose()
    rig.advance(60)
    assert rig.connect() == [], "it is not asked for again, not even by a broker that could take it"
    assert "subscribe_refused" not in rig.events()


@pytest.mark.parametrize(("server", "topic_filter", "code"), LACKING, ids=["shared", "wildcard", "size"])
def test_a_filter_that_a_broker_has_granted_waits_for_one_that_has_its_kind(
    server: dict[str, Any], topic_filter: str, code: int
) -> None:
    rig = Rig()
    subscribe(rig, topic_filter)
    (packet,) = rig.connect()
    rig.feed(Suback(packet.packet_id, [1]))
    for _ in range(2):
        rig.lose()
        rig.advance(60)
        rig.events()
        assert rig.connect(**server) == []
        (refused,) = [event for event in rig.event_objects() if event.kind == "subscribe_refused"]
        assert getattr(refused.error, "reason_code", None) == code
    rig.lose()
    rig.advance(60)
    (packet,) = rig.connect()
    assert [wanted.topic for wanted in packet.subscriptions] == [topic_filter]


def test_what_is_left_of_a_refused_repeat_is_a_repeat_too() -> None:
    rig = Rig()
    rig.engine.incoming.subscribe([Subscription("$share/g/t", 1), Subscription("x" * 100, 1)], None)
    (packet,) = rig.connect()
    rig.feed(Suback(packet.packet_id, [1, 1]))
    rig.lose()
    rig.advance(60)
    assert rig.connect(shared_subscription_available=0, maximum_packet_size=50) == []
    assert list(rig.engine.incoming.router.wanted) == ["$share/g/t", "x" * 100]


WORDS = {"reason_string": "not for you", "user_property": [["ticket", "17"], ["ticket", "18"]]}


@pytest.mark.parametrize("code", [1, 0x87], ids=["granted", "refused"])
def test_the_broker_s_words_in_suback_and_unsuback_reach_the_program(code: int) -> None:
    rig = Rig()
    wanted = subscribe(rig, "t")
    (packet,) = rig.connect()
    rig.feed(Suback(packet.packet_id, [code], WORDS))
    unwanted = rig.engine.incoming.unsubscribe(["t"])
    (packet,) = rig.sent()
    rig.feed(Unsuback(packet.packet_id, [code & 0x80 and code], WORDS))
    for request in (wanted, unwanted):
        assert request.properties == WORDS
        if code < 0x80:
            request.wait(0)
            continue
        with pytest.raises(
            SubscribeRefused, match=r"the server refused t \(not authorized\): not for you"
        ) as caught:
            request.wait(0)
        assert caught.value.reason_string == "not for you"
        assert caught.value.user_properties == (("ticket", "17"), ("ticket", "18"))


def test_in_mqtt_3_there_are_no_words() -> None:
    rig = Rig(version="3.1.1")
    request = subscribe(rig, "t")
    (packet,) = rig.connect()
    rig.feed(Suback(packet.packet_id, [0x80]))
    assert request.properties == {}
    with pytest.raises(SubscribeRefused, match=r"the server refused t \(failure\); look") as caught:
        request.wait(0)
    assert (caught.value.reason_string, caught.value.user_properties) == (None, ())


def test_requests_that_wait_end_with_the_client() -> None:
    rig = Rig()
    request = rig.engine.incoming.subscribe([Subscription("a", 1)], None)
    rig.engine.end()
    rig.engine.close_store()
    with pytest.raises(ClosedError):
        request.wait(0)
    with pytest.raises(ClosedError):
        rig.engine.incoming.subscribe([Subscription("a", 1)], None)


def test_subscriptions_survive_in_the_store_and_are_asked_for_when_the_session_is_gone() -> None:
    store = MemoryStore()
    first = Rig(store=store)
    first.engine.incoming.subscribe([Subscription("a/#", 2, no_local=True)], None)
    first.connect()
    first.engine.end()
    first.engine.close_store()
    second = Rig(store=store)
    [packet] = second.connect(session_present=False)
    assert packet.subscriptions == [Subscription("a/#", 2, no_local=True)]


def test_each_handler_runs_once_however_many_of_its_filters_match() -> None:
    router = Router(threading.RLock(), Consumers())

    def one(message: Message) -> None: ...
    def other(message: Message) -> None: ...

    router.subscribe([Subscription("a/#"), Subscription("a/+")], one)
    router.subscribe([Subscription("$share/group/a/b")], other)
    assert set(router.route("a/b")) == {one, other}
    assert router.route("a/c/d") == (one,)
    assert router.route("b") == ()
    router.unsubscribe(["a/#"])
    assert router.route("a/c/d") == ()
    assert set(router.route("a/b")) == {one, other}


def test_acknowledgements_leave_in_receive_order_after_the_handlers() -> None:
    rig = Rig()
    rig.connect()
    assert rig.feed(incoming(1), incoming(2, qos=2), incoming(3)) == []
    with rig.engine.lock:
        batch = [item for item in rig.engine.events.take() if isinstance(item, Message)]
        assert rig.engine.stats().acks_held == 3
    batch[1].handled = batch[2].handled = True
    with rig.engine.lock:
        rig.engine.handled(2)
    assert rig.sent() == []  # the first one is not finished
    batch[0].handled = True
    with rig.engine.lock:
        rig.engine.handled(1)
    assert rig.sent() == [Puback(1), Pubrec(2), Puback(3)]


def test_pubrec_waits_until_the_store_knows_the_identifier() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    rig.connect()
    store.commit()
    rig.feed(incoming(5, qos=2))
    rig.handle()
    assert rig.sent() == []
    store.commit()
    assert rig.sent() == [Pubrec(5)]


def test_reading_pauses_when_too_much_is_in_hand_and_goes_on_after() -> None:
    rig = Rig(inbox_limit=3)
    rig.connect()
    rig.feed(*(incoming(number, qos=0) for number in range(1, 4)))
    interest = rig.engine.interest()
    assert interest is not None and not interest[1]
    assert len(rig.handle()) == 3
    interest = rig.engine.interest()
    assert interest is not None and interest[1]


def test_bytes_in_hand_have_a_bound_of_their_own() -> None:
    rig = Rig(inbox_bytes=100)
    rig.connect()
    rig.handle()
    paused = []
    for number in range(3):
        rig.feed(Publish("in", b"x" * 40, qos=0, packet_id=None))
        interest = rig.engine.interest()
        paused.append(interest is not None and not interest[1])
        assert number < 2 or paused == [False, False, True]
    assert len(rig.handle()) == 3
    interest = rig.engine.interest()
    assert interest is not None and interest[1]


def test_pings_go_on_while_reading_is_paused_and_silence_proves_nothing() -> None:
    rig = Rig(inbox_limit=1, keep_alive=10)
    rig.connect()
    rig.feed(incoming(1))
    rig.engine.interest()
    assert "pingreq" in types(rig.advance(100))
    assert rig.engine.life.state == "connected"
    rig.handle()
    rig.engine.interest()
    assert rig.engine.life.state == "connected"
    rig.feed(Pingresp())
    rig.advance(11)
    assert rig.engine.life.state == "connected"


def test_a_handler_that_waits_for_the_broker_keeps_reading_alive() -> None:
    rig = Rig(inbox_limit=1)
    rig.connect()
    rig.engine.consumers.register()  # this thread is the one that handles messages
    rig.feed(incoming(1))
    delivery = rig.publish(b"answer")
    [packet] = rig.sent()
    woken: list[bool] = []

    def shell() -> None:
        """What the network thread does when it is woken: look, read, react."""
        interest = rig.engine.interest()
        woken.append(interest is not None and interest[1])
        rig.feed(incoming(0, qos=0), incoming(2), Puback(packet.packet_id))

    rig.engine.consumers.bind(shell)
    delivery.wait(0.01)
    assert woken == [True]
    interest = rig.engine.interest()
    assert interest is not None and not interest[1]
    with rig.engine.lock:
        stats = rig.engine.stats()
    assert (stats.received, stats.discarded) == (2, 1)  # QoS 0 must not fill the memory meanwhile


def test_another_thread_that_waits_does_not_lift_the_limit() -> None:
    rig = Rig(inbox_limit=1)
    rig.connect()
    rig.feed(incoming(1))

    def look(_: float | None) -> bool:
        interest = rig.engine.interest()
        return interest is not None and not interest[1]

    assert rig.engine.consumers.wait(look, None)


def test_a_message_of_the_inbox_is_finished_when_the_next_is_asked_for() -> None:
    settled: list[int] = []
    inbox = Inbox(settled.append, Consumers())
    one, two = Message("a", b"1"), Message("a", b"2")
    inbox.put(one)
    inbox.put(two)
    assert len(inbox) == 2
    assert inbox.get(0) is one
    assert (settled, one.handled) == ([], False)
    assert inbox.get(0) is two
    assert (settled, one.handled, two.handled) == ([1], True, False)
    with pytest.raises(TimeoutError):
        inbox.get(0)
    assert (settled, two.handled) == ([1, 1], True)


def test_a_closed_inbox_ends_after_its_last_message() -> None:
    inbox = Inbox(lambda message: None, Consumers())
    inbox.put(Message("a", b"1"))
    inbox.close()
    assert [message.payload for message in inbox] == [b"1"]
    with pytest.raises(ClosedError):
        inbox.get(0)
