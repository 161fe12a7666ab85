"""When the next attempt comes: full jitter, a new row after a stable connection, patience where it is due."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.engine.connecting.back_off import LATER, NEVER, SOON, ReconnectPolicy, classify
from device_sdk.errors import (
    ArgumentError,
    AuthenticationError,
    ConnectFailedError,
    ConnectRefused,
    MissingDependency,
    RefusedError,
    RemoteProtocolError,
    TlsError,
    TransportClosedError,
)
from device_sdk.mqtt.packets import Connack, Disconnect
from tests.engine.rig import Rig

ERROR = RefusedError("no", 0)


def test_delays_double_up_to_the_longest_and_are_drawn_from_zero() -> None:
    policy = ReconnectPolicy(first=1, longest=60)
    assert [policy.delay(n, SOON, 1.0) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [policy.delay(n, SOON, 0.0) for n in range(8)] == [0] * 8
    assert policy.delay(3, SOON, 0.5) == 4


def test_a_thousand_failures_do_not_overflow() -> None:
    assert ReconnectPolicy().delay(100_000, SOON, 1.0) == 60


@pytest.mark.parametrize("code", [0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x8E, 1, 2, 4, 5])
def test_what_only_a_person_can_change_waits_long_from_the_first_time(code: int) -> None:
    error = ConnectRefused("no", code)
    assert [ReconnectPolicy().delay(0, classify(error, code), draw) for draw in (0.0, 1.0)] == [30, 60]


@pytest.mark.parametrize("code", [0x88, 0x89, 0x97, 0x9F, 3])
def test_a_busy_server_is_given_more_time(code: int) -> None:
    assert ReconnectPolicy().delay(0, classify(ConnectRefused("no", code), code), 1.0) == 8


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5])
def test_a_disconnect_of_mqtt_5_is_not_taken_for_a_return_code_of_mqtt_3(code: int) -> None:
    assert classify(ERROR, code) == SOON


def test_a_disconnect_with_will_message_is_followed_by_an_attempt_soon() -> None:
    rig = Rig()
    rig.connect()
    rig.feed(Disconnect(0x04))
    [*_, event] = rig.event_objects()
    assert "disconnect with will message (0x04); next attempt in 1.0 s" in event.text


@pytest.mark.parametrize(
    ("error", "retry"),
    [
        (ConnectFailedError("no route"), SOON),
        (TransportClosedError("reset"), SOON),
        (AuthenticationError("not now"), SOON),
        (
            RemoteProtocolError("nonsense", 0x97),
            SOON,
        ),  # our reason code for the peer is not the peer's for us
        (TlsError("the certificate has expired"), NEVER),
        (ArgumentError("ca_file", "is gone"), NEVER),
        (MissingDependency("WebSocket", "websockets"), NEVER),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_without_a_reason_code_says_itself_when_to_try_again(error: Any, retry: str) -> None:
    assert classify(error, None) == retry


def test_an_error_may_carry_its_own_word() -> None:
    refusal = ConnectFailedError("the server answers 503")
    refusal.retry = LATER
    assert classify(refusal, None) == LATER
    assert ReconnectPolicy().delay(0, LATER, 1.0) == 8


def test_a_refusal_carries_when_to_try_again_to_the_program() -> None:
    rig = Rig()
    rig.open()
    rig.feed(Connack(False, 0x86))
    [event] = rig.event_objects()
    assert isinstance(event.error, ConnectRefused)
    assert event.error.retry == NEVER


@pytest.mark.parametrize(("first", "longest"), [(0, 1), (-1, 1), (2, 1)])
def test_bounds_that_cannot_be_are_refused(first: float, longest: float) -> None:
    with pytest.raises(ArgumentError, match="first"):
        ReconnectPolicy(first=first, longest=longest)


def test_failed_attempts_wait_longer_each_time_and_then_try_again() -> None:
    rig = Rig()
    delays = []
    for _ in range(4):
        rig.refuse()
        delays.append(rig.retry_delay())
        assert not rig.engine.wants_open
        rig.advance(delays[-1])
        assert rig.engine.wants_open
    assert delays == [1, 2, 4, 8]
    assert rig.events() == ["connect_failed"] * 4


def test_the_dice_decide_between_nothing_and_the_whole_delay() -> None:
    rig = Rig(draw=0.25)
    rig.refuse()
    assert rig.retry_delay() == 0.25


def test_a_short_connection_goes_on_with_the_row() -> None:
    rig = Rig()
    for expected in (1, 2, 4):
        rig.connect()
        rig.advance(29)
        rig.lose()
        assert rig.retry_delay() == expected
        rig.advance(expected)


def test_a_stable_connection_begins_a_new_row() -> None:
    rig = Rig()
    for _ in range(3):
        rig.refuse()
        rig.advance(rig.retry_delay())
    rig.connect()
    rig.advance(30)
    rig.lose()
    assert rig.retry_delay() == 1


def test_being_taken_over_waits_long() -> None:
    rig = Rig()
    rig.connect()
    rig.feed(Disconnect(0x8E))
    assert rig.retry_delay() == 60
    assert isinstance(rig.engine.life.last_error, RefusedError)
    assert rig.engine.life.last_error.reason_code == 0x8E


def test_refused_credentials_wait_long_and_the_event_says_why() -> None:
    rig = Rig()
    rig.open()
    rig.feed(Connack(False, 0x86))
    assert rig.retry_delay() == 60
    [event] = rig.event_objects()
    assert event.kind == "connect_failed"
    assert isinstance(event.error, ConnectRefused)
    assert "0x86" in event.text


def test_reconnect_now_ends_the_wait_and_the_row() -> None:
    rig = Rig()
    for _ in range(4):
        rig.refuse()
        rig.advance(rig.retry_delay())
    rig.refuse()
    with rig.engine.lock:
        rig.engine.reactions.reconnect_now()
    assert rig.engine.wants_open
    rig.refuse()
    assert rig.retry_delay() == 1


def test_reconnect_now_leaves_a_connection_alone() -> None:
    rig = Rig()
    rig.connect()
    with rig.engine.lock:
        rig.engine.reactions.reconnect_now()
    assert rig.engine.life.state == "connected"


def test_no_answer_to_connect_is_a_failed_attempt() -> None:
    rig = Rig()
    rig.open()
    rig.advance(10)
    assert rig.engine.life.state == "waiting"
    assert "no answer to CONNECT within 10 s" in rig.event_objects()[0].text
    assert rig.transport.closes == 1


def test_garbage_instead_of_connack_is_a_failed_attempt_with_the_reason() -> None:
    rig = Rig()
    rig.open()
    rig.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert rig.engine.life.state == "waiting"
    [event] = rig.event_objects()
    assert event.kind == "connect_failed"
    assert isinstance(event.error, RemoteProtocolError)


def test_every_failed_attempt_closes_the_transport_once() -> None:
    rig = Rig()
    for attempt in range(1, 6):
        rig.open()
        rig.lose()
        assert rig.transport.closes == attempt
        rig.advance(rig.retry_delay())
