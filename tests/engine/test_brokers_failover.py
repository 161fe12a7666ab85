"""An engine with several brokers: failover, the session, the way back, and no storm of attempts."""

from __future__ import annotations

import threading
from typing import Any

from device_sdk.engine.connecting.attempt import Attempt
from device_sdk.engine.connecting.brokers import Broker
from device_sdk.engine.outgoing.greetings import Greetings
from device_sdk.errors import ConnectFailedError, DeviceSdkError, TlsError
from device_sdk.mqtt.message import Message
from device_sdk.mqtt.packets import Connack, Disconnect, Puback, Pubrec
from device_sdk.net.base import Transport
from tests.engine.rig import HandTransport, Packets, Rig, SlowStore, payloads, types

REFUSED = ConnectFailedError("connection refused")


class Several(Rig):
    """A rig with several brokers: ``transport`` is that of the last attempt or of the connection."""

    def __init__(self, count: int = 2, **options: Any) -> None:
        self.count = count
        super().__init__(**options)

    def places(self) -> Transport | list[Broker]:
        brokers = []
        for number in range(self.count):
            transport = HandTransport()
            transport.description = f"tcp b{number}"
            brokers.append(Broker(transport, f"b{number}"))
        return brokers

    def attempt(self) -> Attempt:
        assert self.engine.wants_open
        attempt = self.engine.attempt()
        assert isinstance(attempt.transport, HandTransport)
        if not attempt.is_return:
            self.transport = attempt.transport
        return attempt

    def opened(self) -> Packets:
        attempt = self.attempt()
        attempt.open(0.0)
        self.engine.on_open(self.clock())
        assert isinstance(attempt.transport, HandTransport)
        self.transport = attempt.transport
        return self.sent()

    def refuse(self, error: DeviceSdkError = REFUSED) -> None:
        self.attempt()
        self.engine.on_open_failed(error, self.clock())

    def fail_over(self) -> None:
        """The attempt fails, and the next one is due."""
        self.refuse()
        self.advance(0)

    @property
    def at(self) -> str:
        return self.engine.transport.description.removeprefix("tcp ")


def test_the_next_broker_is_tried_at_once_and_the_event_says_where_we_are() -> None:
    rig = Several()
    rig.fail_over()
    rig.connect()
    failed, connected = rig.event_objects()
    assert "tcp b0: connection refused; next attempt at tcp b1 at once" in failed.text
    assert (connected.kind, connected.value) == ("connected", "tcp b1")


def test_the_wait_comes_when_all_have_failed() -> None:
    rig = Several(3)
    for expected in ("b0", "b1", "b2"):
        assert rig.engine.wants_open
        rig.refuse()
        assert rig.at == expected
        if expected != "b2":
            rig.advance(0)
    assert rig.retry_delay() == 1


def test_nobody_is_told_of_a_failure_before_each_broker_has_had_its_turn() -> None:
    rig = Several()
    outcome = rig.engine.life.want_outcome(threading.Event)
    rig.refuse()
    assert not outcome.is_set()
    rig.advance(0)
    rig.refuse()
    assert outcome.is_set()


def test_an_hour_without_any_broker_is_no_storm() -> None:
    rig = Several(3, draw=0.5)
    attempts = 0
    end = rig.clock() + 3600
    while rig.clock() < end:
        if rig.engine.wants_open:
            rig.refuse()
            attempts += 1
        due = rig.deadline()
        assert due is not None
        rig.advance(due - rig.clock())
    # At most 60 s between two rounds, half of it on average; and three attempts in a round.
    assert attempts <= 3 * (3600 / 30 + 7)
    assert attempts >= 3 * 100


def test_an_hour_of_refused_certificates_is_no_storm() -> None:
    rig = Several(2, draw=0.0)  # the most impatient dice
    attempts = 0
    end = rig.clock() + 3600
    while rig.clock() < end:
        if rig.engine.wants_open:
            rig.refuse(TlsError("certificate has expired"))
            attempts += 1
        due = rig.deadline()
        assert due is not None
        rig.advance(due - rig.clock())
    assert attempts <= 2 * (3600 / 30 + 1)


def test_a_refused_password_at_one_broker_does_not_slow_the_other_down() -> None:
    rig = Several()
    rig.open()
    rig.feed(Connack(False, 0x86))
    rig.advance(0)
    rig.connect()
    assert rig.at == "b1"


# The session


def unanswered(rig: Several) -> None:
    """Three messages of which the broker has acknowledged one, and PUBREC has come for another."""
    for payload, qos in ((b"acknowledged", 1), (b"open", 1), (b"received", 2), (b"half", 2)):
        rig.publish(payload, qos)
    rig.feed(Puback(1), Pubrec(3))


def test_another_broker_gets_a_clean_start_and_what_the_last_one_left_open() -> None:
    rig = Several()
    rig.connect()
    unanswered(rig)
    rig.lose()
    rig.advance(1)
    [connect] = rig.open()
    assert (rig.at, connect.clean_start) == ("b1", True)
    packets = rig.feed(Connack(False, 0))
    assert payloads(packets) == [b"open", b"half"]
    assert not any(packet.dup for packet in packets)
    lost = next(event for event in rig.event_objects() if event.kind == "session_lost")
    assert lost.text == "another broker has the session; messages published again: 2"


def test_coming_back_to_the_first_begins_clean_again() -> None:
    rig = Several()
    rig.connect()
    rig.lose()
    rig.advance(1)
    rig.connect()
    assert rig.at == "b1"
    rig.lose()
    rig.advance(2)
    [connect] = rig.open()
    assert (rig.at, connect.clean_start) == ("b0", True)


def test_the_same_broker_again_resumes() -> None:
    rig = Several()
    rig.connect()
    unanswered(rig)
    rig.advance(30)
    rig.feed(Disconnect(0))
    rig.advance(1)
    [connect] = rig.open()
    assert (rig.at, connect.clean_start) == ("b0", False)
    assert types(rig.feed(Connack(True, 0))) == ["pubrel", "publish", "publish"]


def test_a_failed_attempt_elsewhere_leaves_the_session_where_it_is() -> None:
    rig = Several()
    rig.connect()
    unanswered(rig)
    rig.lose()
    rig.advance(1)
    rig.refuse()  # b1: it was its turn, because the connection was short
    rig.advance(rig.retry_delay())
    [connect] = rig.open()
    assert (rig.at, connect.clean_start) == ("b0", False)


def test_a_shared_session_resumes_anywhere() -> None:
    rig = Several(shared_session=True)
    rig.connect()
    unanswered(rig)
    rig.lose()
    rig.advance(1)
    [connect] = rig.open()
    assert (rig.at, connect.clean_start) == ("b1", False)
    assert payloads(rig.feed(Connack(True, 0))) == [b"open", b"half"]


def test_the_store_remembers_where_the_session_is() -> None:
    store = SlowStore()
    rig = Several(store=store)
    rig.fail_over()
    rig.connect()
    assert ("fact", "broker", "rig@b1") in store.changes
    store.close()
    after_restart = Several(store=store)
    [connect] = after_restart.open()
    assert (after_restart.at, connect.clean_start) == ("b0", True)
    after_restart.lose()
    after_restart.advance(0)
    [connect] = after_restart.open()
    assert (after_restart.at, connect.clean_start) == ("b1", False)


# The way back


def on_the_second() -> Several:
    rig = Several(return_to_first=300, keep_alive=0)
    rig.fail_over()
    rig.connect()
    unanswered(rig)
    rig.events()
    rig.advance(299)
    assert not rig.engine.wants_open
    rig.advance(1)
    return rig


def test_a_first_broker_that_is_still_away_costs_nothing() -> None:
    rig = on_the_second()
    rig.refuse()
    assert (rig.engine.life.state, rig.at) == ("connected", "b1")
    [event] = rig.event_objects()
    assert event.text == "tcp b0: connection refused; the present connection goes on"
    rig.publish(b"next")
    assert payloads(rig.sent()) == [b"next"]
    rig.advance(299)
    assert not rig.engine.wants_open
    rig.advance(1)
    assert rig.engine.wants_open


def test_a_first_broker_that_is_back_is_returned_to_with_what_is_unanswered() -> None:
    rig = on_the_second()
    second = rig.transport
    [connect] = rig.open()
    assert bytes(second.sent) == b"\xe0\x00"  # DISCONNECT: the second one must not publish the will
    assert second.closes == 1
    assert (rig.at, connect.clean_start) == ("b0", True)
    assert rig.events() == ["disconnected"]
    assert payloads(rig.feed(Connack(False, 0))) == [b"open", b"half"]
    rig.advance(10_000)
    assert not rig.engine.wants_open


def test_a_first_broker_that_takes_the_stream_and_refuses_sends_us_back_at_once() -> None:
    rig = on_the_second()
    rig.open()
    rig.feed(Connack(False, 0x87))
    rig.advance(0)
    disconnect, connect = rig.open()
    assert disconnect.type == "disconnect"
    assert (rig.at, connect.clean_start) == ("b1", False)
    assert payloads(rig.feed(Connack(True, 0))) == [b"open", b"half"]


def test_a_connection_that_ends_while_the_first_broker_is_tried_is_replaced_by_it() -> None:
    rig = on_the_second()
    attempt = rig.attempt()
    rig.lose()
    assert rig.engine.life.state == "waiting"
    rig.engine.on_open(rig.clock())
    assert isinstance(attempt.transport, HandTransport)
    rig.transport = attempt.transport
    assert types(rig.sent()) == ["connect"]
    assert (rig.at, rig.engine.life.state) == ("b0", "connecting")


def test_a_client_that_closes_while_the_first_broker_is_tried_stays_where_it_is() -> None:
    rig = on_the_second()
    attempt = rig.attempt()
    with rig.engine.lock:
        rig.engine.close_connection()
    rig.engine.on_open(rig.clock())
    assert types(rig.sent()) == ["disconnect"]
    assert isinstance(attempt.transport, HandTransport)
    assert (attempt.transport.closes, bytes(attempt.transport.sent)) == (1, b"")


def test_reconnect_now_begins_with_the_broker_whose_turn_it_is() -> None:
    rig = Several()
    for _ in range(2):
        rig.fail_over()
    with rig.engine.lock:
        rig.engine.reactions.reconnect_now()
    rig.refuse()
    assert rig.at == "b0"
    assert rig.retry_delay() == 0


def test_a_broker_that_is_left_for_the_first_one_gets_the_farewell() -> None:
    """DISCONNECT discards the will there: without it the state would stay online for ever."""
    greetings = Greetings("5.0", Message("state", b"online"), Message("state", b"offline"))
    rig = Several(return_to_first=60, greetings=greetings)
    rig.fail_over()
    assert payloads(rig.connect()) == [b"online"]
    left = rig.transport
    rig.advance(60)
    assert rig.open()[0].type == "connect"
    assert left.sent.endswith(b"state\0offline\xe0\x00")
    assert payloads(rig.feed(Connack())) == [b"online"]
