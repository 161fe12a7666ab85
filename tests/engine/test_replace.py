"""A connection is replaced although it looks alive: the broker forgets the will, and all else goes on."""

from __future__ import annotations

import pytest

from device_sdk.errors import TransportClosedError
from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.packets import Connack, Puback, Suback
from tests.engine.rig import Rig, payloads, types

VERSIONS = ("5.0", "3.1.1")


def replace(rig: Rig) -> None:
    """Do what ``reconnect_now(replace=True)`` does under the lock."""
    with rig.engine.lock:
        rig.engine.connector.outdate()
        rig.engine.reactions.replace(rig.engine.connection, rig.clock())
        rig.engine.reactions.reconnect_now()


@pytest.mark.parametrize("version", VERSIONS)
def test_disconnect_is_the_last_packet_and_the_next_attempt_follows_at_once(version: str) -> None:
    rig = Rig(version=version)
    rig.connect()
    rig.events()
    replace(rig)
    [goodbye] = rig.sent()
    assert (goodbye.type, goodbye.reason_code) == ("disconnect", 0)
    assert (rig.transport.closes, rig.engine.wants_open) == (0, False)
    rig.feed(b"")  # the broker has heard it
    assert (rig.transport.closes, rig.engine.wants_open) == (1, True)
    [event] = rig.event_objects()
    assert event.kind == "disconnected"
    assert event.text == (
        "hand made: replaced by reconnect_now(replace=True); the next attempt follows at once"
    )


def test_messages_in_flight_and_the_session_go_on_as_after_a_loss() -> None:
    rig = Rig()
    rig.connect()
    first = rig.publish(b"in flight")
    rig.sent()
    replace(rig)
    second = rig.publish(b"queued")
    assert types(rig.sent()) == ["disconnect"]
    rig.feed(b"")
    connect, *_ = rig.open()
    assert (connect.type, connect.clean_start) == ("connect", False)
    repeated, following = rig.feed(Connack(True, 0))
    assert (repeated.payload, repeated.dup) == (b"in flight", True)
    assert (following.payload, following.dup) == (b"queued", False)
    rig.feed(Puback(repeated.packet_id), Puback(following.packet_id))
    assert (first.state, second.state) == ("acknowledged", "acknowledged")


def test_a_subscription_that_was_not_answered_is_asked_for_again() -> None:
    rig = Rig()
    rig.connect()
    with rig.engine.lock:
        request = rig.engine.incoming.subscribe([Subscription("a/#", 1)], None, None)
    assert types(rig.sent()) == ["subscribe"]
    replace(rig)
    rig.feed(Suback(1, [1]))  # too late: it means nothing any more
    rig.advance(1)
    rig.open()
    [again] = rig.feed(Connack(True, 0))
    assert again.type == "subscribe"
    rig.feed(Suback(again.packet_id, [1]))
    assert request.wait(0) == [1]


def test_no_back_off_and_no_rest_of_a_broker_survives() -> None:
    rig = Rig()
    for _ in range(4):
        rig.refuse()
        rig.advance(rig.retry_delay())
    rig.connect()
    replace(rig)
    rig.advance(1)
    rig.refuse()
    assert rig.retry_delay() == 1


@pytest.mark.parametrize("ends", ["time", "peer", "broken"])
def test_a_stream_that_takes_nothing_is_given_up_after_a_second(ends: str) -> None:
    rig = Rig()
    rig.connect()
    rig.transport.room = 3
    rig.publish(b"half of it leaves")
    rig.sent()
    replace(rig)
    assert (rig.deadline(), rig.engine.wants_open) == (rig.clock() + 1, False)
    match ends:
        case "time":
            rig.advance(0.9)
            assert rig.transport.closes == 0
            rig.advance(0.1)
        case "peer":
            rig.feed(b"")
        case "broken":
            rig.transport.broken = True
            rig.engine.on_readable(rig.clock())
    assert (rig.transport.closes, rig.engine.wants_open) == (1, True)
    assert bytes(rig.transport.sent[:1]) == b"\x32"
    assert len(rig.transport.sent) == 3  # no DISCONNECT in the middle of a packet
    rig.transport.sent.clear()
    rig.transport.room = None
    assert payloads(rig.connect(session_present=True)) == [b"half of it leaves"]


def test_what_is_half_sent_leaves_before_disconnect() -> None:
    rig = Rig()
    rig.connect()
    rig.transport.room = 3
    rig.publish(b"slow", qos=0)
    rig.sent()
    replace(rig)
    rig.transport.room = None
    rig.engine.on_writable(rig.clock())
    assert types(rig.sent()) == ["publish", "disconnect"]
    rig.feed(b"")
    assert rig.engine.wants_open


def test_what_arrives_meanwhile_is_read_and_means_nothing() -> None:
    rig = Rig()
    rig.connect()
    rig.transport.room = 0
    rig.publish(b"waits")
    replace(rig)
    interest = rig.engine.interest()
    assert interest is not None
    assert interest[1]
    rig.feed(b"nonsense")
    rig.events()
    assert rig.engine.life.state == "connecting"
    rig.advance(1)
    assert rig.events() == []


def test_a_connect_without_its_answer_is_replaced_too() -> None:
    rig = Rig()
    rig.open()
    replace(rig)
    assert types(rig.sent()) == ["disconnect"]
    rig.feed(b"")
    assert rig.engine.wants_open
    assert rig.events() == []
    rig.connect()
    assert rig.engine.life.state == "connected"


@pytest.mark.parametrize("outcome", ["open", "failed"])
def test_an_attempt_under_way_is_aborted_and_its_outcome_means_nothing(outcome: str) -> None:
    rig = Rig()
    rig.engine.attempt().open(rig.clock() + 1)
    replace(rig)
    if outcome == "open":
        rig.engine.on_open(rig.clock())
    else:
        rig.engine.on_open_failed(TransportClosedError("aborted"), rig.clock())
    assert rig.transport.closes == 1
    assert rig.engine.wants_open
    assert rig.events() == []
    assert rig.sent() == []
    rig.engine.attempt().open(rig.clock() + 1)
    rig.transport.broken = False
    rig.connect()
    assert rig.engine.life.state == "connected"


def test_an_attempt_that_asked_for_credentials_before_is_not_used() -> None:
    asked: list[str] = []

    def ask() -> tuple[str, str]:
        asked.append("")
        return f"token-{len(asked)}", ""

    rig = Rig(ask=ask)
    rig.engine.attempt().open(rig.clock() + 1)
    replace(rig)
    assert rig.open() == []
    rig.engine.attempt().open(rig.clock() + 1)
    assert rig.open()[0].user_name == "token-2"


@pytest.mark.parametrize("times", [1, 2, 5])
def test_once_more_changes_nothing(times: int) -> None:
    rig = Rig()
    rig.connect()
    rig.transport.room = 0
    rig.events()
    for _ in range(times):
        replace(rig)
    assert rig.events() == ["disconnected"]
    rig.transport.room = None
    assert types(rig.sent()) == ["disconnect"]


def test_a_client_that_closes_or_was_never_started_is_left_alone() -> None:
    rig = Rig()
    rig.connect()
    with rig.engine.lock:
        rig.engine.close_connection()
    replace(rig)
    assert types(rig.sent()) == ["disconnect"]
    assert rig.engine.life.state == "closing"
    idle = Rig()
    with idle.engine.lock:
        idle.engine.life.enter("drop")
    replace(idle)
    assert idle.engine.life.state == "idle"


def test_closing_while_it_leaves_ends_with_that_disconnect() -> None:
    rig = Rig()
    rig.connect()
    rig.transport.room = 0
    replace(rig)
    with rig.engine.lock:
        rig.engine.close_connection()
    rig.transport.room = None
    assert types(rig.sent()) == ["disconnect"]
    assert not rig.engine.wants_open


def test_a_broker_is_not_blamed_for_it() -> None:
    rig = Rig()
    hints: list[list[str]] = []
    for _ in range(4):
        rig.connect(session_present=bool(hints))
        replace(rig)
        rig.feed(b"")
        hints.append([event.text for event in rig.event_objects() if event.kind == "disconnected"])
    assert all("another client" not in text for texts in hints for text in texts)


def test_no_packet_follows_half_of_another_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.connect()
    rig.publish(b"x" * 30)
    sent: list[bytes] = []

    def send(data: bytes | bytearray | memoryview) -> int:
        sent.append(bytes(data))
        return min(len(data), 10)

    monkeypatch.setattr(rig.transport, "send", send)
    with rig.engine.lock:
        connection = rig.engine.connection
        assert connection is not None
        rig.engine.reactions.leave(connection, "for a better one")
    connection.close(rig.clock())
    assert len(sent) == 1
