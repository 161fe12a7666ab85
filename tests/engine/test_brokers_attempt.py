"""What an application says anew for each attempt: credentials and will; and how attempts are logged."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from device_sdk.engine.connecting.brokers import Broker
from device_sdk.engine.connecting.credentials import Credentials
from device_sdk.errors import ArgumentError, ConnectFailedError, TlsError
from device_sdk.mqtt.message import Will
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.packets import Puback, Pubcomp, Pubrec
from tests.engine.rig import HandTransport, Rig
from tests.engine.test_brokers_failover import Several

HERE = Broker(HandTransport(), "b0")
THERE = Broker(HandTransport(), "b1", "there", "secret")


def personals(**arguments: Any) -> Credentials:
    return Credentials(ConnectOptions("node"), **arguments)


def test_credentials_are_asked_before_each_attempt() -> None:
    tokens = iter([("node", "one"), ("node", b"two")])
    asked = personals(credentials=lambda: next(tokens))
    assert asked.ask(HERE) == ("node", b"one", None)
    assert asked.ask(HERE) == ("node", b"two", None)


def test_credentials_may_be_an_object() -> None:
    class Token:
        user_name = "node"
        password = "token"

    assert personals(credentials=Token).ask(HERE) == ("node", b"token", None)


def test_the_credentials_of_a_url_are_for_that_broker_only() -> None:
    asked = personals()
    assert asked.ask(HERE) == (None, None, None)
    assert asked.ask(THERE) == ("there", b"secret", None)


def test_the_credentials_of_the_client_replace_those_of_every_url() -> None:
    asked = Credentials(ConnectOptions("node", user_name="me", password="mine"))
    assert asked.ask(THERE) == ("me", b"mine", None)


def test_a_will_may_be_made_for_each_attempt() -> None:
    wills = iter([Will("a", b"1"), None])
    asked = personals(will=lambda: next(wills))
    assert asked.ask(HERE)[2] == Will("a", b"1")
    assert asked.ask(HERE)[2] is None


def raising(error: BaseException) -> Any:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"credentials": raising(KeyError("token"))}, "credentials: the callable raised KeyError: 'token'"),
        ({"credentials": raising(SystemExit(1))}, "credentials: the callable raised SystemExit: 1"),
        ({"credentials": lambda: "token"}, "must return .user_name, password. or an object"),
        ({"credentials": lambda: ("user", 5)}, "password: must be bytes, str or None, not int"),
        ({"credentials": lambda: ("a\0b", "p")}, "user_name"),
        ({"will": raising(OSError("no clock"))}, "will: the callable raised OSError: no clock"),
        ({"will": lambda: "offline"}, "will: must be a Will, not str"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_fails_the_attempt_and_says_why(arguments: Any, problem: str) -> None:
    with pytest.raises(ConnectFailedError, match=problem):
        personals(**arguments).ask(HERE)


def test_a_call_that_hangs_is_not_joined_by_another_one() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hangs() -> tuple[str, str]:
        entered.set()
        assert leave.wait(5)
        return "node", "late"

    asked = personals(credentials=hangs)
    thread = threading.Thread(target=asked.ask, args=(HERE,))
    thread.start()
    try:
        assert entered.wait(5)
        with pytest.raises(ConnectFailedError, match="has not returned yet"):
            asked.ask(HERE)
    finally:
        leave.set()
        thread.join(5)
    assert asked.ask(HERE)[1] == b"late"


def test_credentials_of_a_url_that_cannot_be_sent_are_an_error_of_the_constructor() -> None:
    with pytest.raises(ArgumentError, match="user_name"):
        personals().check([HERE, Broker(HandTransport(), "b2", "a\0b")])


def test_the_fields_reach_connect_and_rotate() -> None:
    tokens = iter([("node", "one"), ("node", "two")])
    rig = Several(1, ask=lambda: next(tokens))
    [connect] = rig.open()
    assert (connect.user_name, connect.password) == ("node", b"one")
    rig.lose()
    rig.advance(1)
    [connect] = rig.open()
    assert connect.password == b"two"


def test_an_attempt_that_was_left_behind_changes_nothing() -> None:
    rig = Several(1, ask=lambda: ("late", "x"))
    late = rig.attempt()
    rig.engine.on_open_failed(ConnectFailedError("open() did not return"), rig.clock())
    late.open(0.0)
    assert rig.engine.options.user_name is None


# The log


def log_of_failures(count: int, error: ConnectFailedError, caplog: pytest.LogCaptureFixture) -> list[str]:
    rig = Several(1)
    with caplog.at_level(logging.INFO, "device_sdk.engine"):
        for _ in range(count):
            rig.refuse(error)
            rig.advance(rig.retry_delay())
        rig.handle()
    return [record.getMessage() for record in caplog.records]


def test_a_long_row_of_failures_is_logged_at_growing_distance(caplog: pytest.LogCaptureFixture) -> None:
    lines = log_of_failures(1000, ConnectFailedError("no route"), caplog)
    assert len(lines) == 10
    assert lines[0].startswith("connect_failed: tcp b0: no route; next attempt in 1.0 s")
    assert lines[-1].endswith(" (512 times in 0 s)")
    assert {record.levelname for record in caplog.records} == {"INFO"}


def test_a_failure_that_needs_somebody_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    log_of_failures(3, TlsError("certificate has expired"), caplog)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_the_events_are_not_thinned_out() -> None:
    rig = Several(1)
    for _ in range(20):
        rig.refuse()
        rig.advance(rig.retry_delay())
    assert rig.events() == ["connect_failed"] * 20


def test_a_connection_ends_the_row_with_its_sum(caplog: pytest.LogCaptureFixture) -> None:
    rig = Several(1)
    with caplog.at_level(logging.INFO, "device_sdk.engine"):
        for _ in range(7):
            rig.refuse()
            rig.advance(rig.retry_delay())
        rig.connect()
        rig.handle()
    *failures, connected, total = caplog.messages
    assert len(failures) == 3
    assert connected.startswith("connected: ")
    assert total.startswith("connect_failed: ") and total.endswith(" (7 times in 0 s)")


# ack_timeout


def test_a_stuck_window_ends_the_connection_and_is_repeated_on_the_next() -> None:
    rig = Rig(ack_timeout=20.0, keep_alive=0)
    rig.connect()
    rig.publish(b"stuck")
    assert [packet.dup for packet in rig.sent()] == [False]
    assert rig.advance(19) == []
    assert rig.engine.life.state == "connected"
    [goodbye] = rig.advance(11)
    assert goodbye.type == "disconnect"
    event = next(event for event in rig.event_objects() if event.kind == "disconnected")
    assert "ack_timeout: no acknowledgement for 20 s; 1 in flight" in event.text
    rig.advance(rig.retry_delay() if rig.engine.life.state == "waiting" else 0)
    packets = rig.connect(session_present=True)
    assert [(packet.payload, packet.dup) for packet in packets] == [(b"stuck", True)]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_window_that_moves_is_not_stuck(qos: int) -> None:
    rig = Rig(ack_timeout=20.0, keep_alive=0, inflight=1)
    rig.connect()
    for number in range(1, 10):
        rig.publish(b"x", qos)
        rig.advance(15)
        if qos == 1:
            rig.feed(Puback(number))
        else:
            rig.feed(Pubrec(number))
            rig.advance(15)
            rig.feed(Pubcomp(number))
    assert rig.engine.life.state == "connected"


def test_a_message_that_has_not_left_yet_is_not_unanswered() -> None:
    rig = Rig(ack_timeout=20.0, keep_alive=0)
    rig.connect()
    rig.transport.room = 3
    rig.publish(b"slow link")
    rig.sent()
    rig.advance(100)
    assert rig.engine.life.state == "connected"


def test_an_idle_connection_has_no_deadline_for_acknowledgements() -> None:
    rig = Rig(ack_timeout=20.0, keep_alive=0)
    rig.connect()
    assert rig.deadline() is None
