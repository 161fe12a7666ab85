"""Ends and half ends of a life: closed in the middle of CONNECT, left behind, told to the right people."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from device_sdk.engine.connecting.attempt import Attempt, Opener, Opening
from device_sdk.engine.connecting.authentication import Authenticator, authentication_for
from device_sdk.errors import ConnectFailedError, TransportClosedError
from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.packets import Auth, Connack, Publish, Suback
from tests.engine.rig import Rig, types
from tests.engine.test_brokers_failover import Several


def test_a_close_between_connect_and_connack_asks_for_subscriptions_again() -> None:
    """The server may have answered that CONNECT with a new session, and we did not wait for it."""
    rig = Rig(clean_start=False)
    rig.connect()
    with rig.engine.lock:
        rig.engine.incoming.subscribe([Subscription("cmd", 1)], None)
    [subscribe] = rig.sent()
    rig.feed(Suback(subscribe.packet_id, [1]))
    rig.lose()
    rig.advance(1)
    rig.open()
    with rig.engine.lock:
        rig.engine.close_connection()
    rig.sent()
    rig.engine.drop_connection()
    with rig.engine.lock:
        rig.engine.life.start()
    assert types(rig.connect(session_present=True)) == ["subscribe"]


def test_an_attempt_that_asks_the_application_for_too_long_never_touches_the_stream() -> None:
    late: list[Attempt] = []

    def slow() -> tuple[str, str]:
        late[0].abort()
        late[0].close()
        return "node", "late"

    rig = Several(1, ask=slow)
    late.append(rig.attempt())
    opened: list[float] = []
    rig.transport.open = opened.append  # type: ignore[method-assign, assignment]
    with pytest.raises(TransportClosedError, match="left behind"):
        late[0].open(5.0)
    assert opened == []
    assert rig.transport.closes == 0  # it may be a later attempt's


def test_an_attempt_that_is_left_behind_just_before_it_opens_closes_what_it_has_opened() -> None:
    rig = Several(1)
    attempt = rig.attempt()
    states: list[str] = []

    def open_late(deadline: float) -> None:
        attempt.abort()
        attempt.close()  # the stream has not begun to open, and forgets that it was aborted
        states.append("open")

    rig.transport.open = open_late  # type: ignore[method-assign]
    rig.transport.close = lambda: states.append("closed")  # type: ignore[method-assign]
    with pytest.raises(TransportClosedError, match="left behind"):
        attempt.open(5.0)
    assert states == ["closed", "open", "closed"]


@pytest.mark.parametrize("fault", ["close", "on_fault"])
def test_a_stream_with_a_mistake_of_its_own_is_closed_all_the_same(fault: str) -> None:
    rig = Rig()
    rig.connect()
    error = ZeroDivisionError("a mistake")

    def fail() -> None:
        raise error

    rig.transport.recv = fail  # type: ignore[method-assign]
    if fault == "close":
        with pytest.raises(ZeroDivisionError):
            assert rig.engine.connection is not None
            rig.engine.connection.stream.close([])
    else:
        rig.engine.on_fault(error, rig.clock())
        assert rig.engine.life.state == "waiting"
    assert rig.transport.closes == 1


def test_a_failed_attempt_leaves_its_stream_closed() -> None:
    rig = Several(1)
    rig.refuse()
    assert rig.transport.closes == 1


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), MemoryError()])
def test_whatever_open_raises_is_the_outcome_of_the_attempt(error: BaseException) -> None:
    rig = Several(1)
    attempt = rig.attempt()

    def fail(deadline: float) -> None:
        raise error

    rig.transport.open = fail  # type: ignore[method-assign]
    over = threading.Event()
    opening = Opening(attempt, 0.0, 10.0, 1.0, over.set)
    assert over.wait(5)
    assert isinstance(opening.error, ConnectFailedError)
    assert type(error).__name__ in str(opening.error)


class FailsWhileSomebodyLooks:
    """An attempt whose thread sets the error at the worst moment, and then says that it is done."""

    give_up_at = 1e9
    error: ConnectFailedError | None = None

    @property
    def done(self) -> bool:
        self.error = ConnectFailedError("refused just now")
        return True


def test_an_attempt_that_fails_while_somebody_looks_has_failed() -> None:
    rig = Several(1)
    rig.attempt()
    opener = Opener(rig.engine, 10.0)
    opener._opening = FailsWhileSomebodyLooks()  # type: ignore[assignment]
    opener.look(rig.clock())
    assert rig.engine.life.state == "waiting"
    assert "refused just now" in str(rig.engine.life.last_error)
    assert opener.give_up_at is None


def test_a_probe_that_fails_after_the_connection_does_not_say_that_it_goes_on() -> None:
    rig = Several(return_to_first=60)
    rig.fail_over()
    rig.connect()
    rig.advance(60)
    rig.engine.attempt()
    rig.lose()
    rig.events()
    rig.engine.on_open_failed(ConnectFailedError("refused"), rig.clock())
    [event] = rig.event_objects()
    assert "goes on" not in event.text


# ack_timeout


def test_a_program_that_is_behind_is_not_taken_for_a_server_that_does_not_acknowledge() -> None:
    rig = Rig(ack_timeout=8, inbox_limit=1, keep_alive=0)
    rig.connect()
    delivery = rig.publish(b"x")
    rig.sent()
    rig.feed(Publish("in", b"1", qos=1, packet_id=1))
    assert rig.engine.interest() == (99, False, False)  # PUBACK is unread because we do not read
    rig.advance(60)
    assert rig.engine.life.state == "connected"
    rig.handle()
    rig.handle()
    assert rig.engine.interest() == (99, True, False)
    rig.advance(12)
    assert any("ack_timeout" in event.text for event in rig.event_objects())  # now it was the server
    assert not delivery.done


# What comes back after the client was closed for good


class SlowAuthenticator(Authenticator):
    """Takes so long that the client is closed without it."""

    method = "slow"
    meanwhile: Any = None

    def start(self) -> bytes:
        return b"1"

    def respond(self, data: bytes) -> bytes:
        self.meanwhile()
        return b"2"

    def finish(self, data: bytes | None) -> None:
        self.meanwhile()


@pytest.mark.parametrize("packet", ["auth", "connack"])
def test_a_client_that_was_closed_while_its_authenticator_was_busy_stays_closed(packet: str) -> None:
    authenticator = SlowAuthenticator()
    authentication, properties = authentication_for(authenticator, "5.0", None)
    assert properties is not None
    rig = Rig(authentication=authentication)
    rig.engine.options.properties.update(properties)
    rig.open()

    def close() -> None:
        with rig.engine.lock:
            rig.engine.close_connection()
        rig.engine.end()
        rig.engine.close_store()

    authenticator.meanwhile = close
    words = {"authentication_method": "slow", "authentication_data": b"x"}
    rig.feed(Auth(0x18, words) if packet == "auth" else Connack(False, 0, words))
    assert rig.engine.life.state == "closed"
    rig.engine.drop_connection()
    assert rig.engine.life.state == "closed"


def test_the_longest_expiry_of_the_standard_is_sent_as_it_is() -> None:
    """Source: MQTT 5.0 §3.3.2.3.3: a four byte integer."""
    rig = Rig()
    rig.connect()
    rig.publish(b"x", expiry=0xFFFF_FFFF)
    (packet,) = rig.sent()
    assert packet.properties == {"message_expiry_interval": 0xFFFF_FFFF}
    rig.clock.advance_to(rig.clock() + 4)
    rig.lose()
    rig.advance(60)
    (again,) = rig.connect(session_present=True)
    assert again.properties == {"message_expiry_interval": 0xFFFF_FFFF - 64}
