"""What authentication must not cost: messages of a session that was just lost, or endless rounds."""

from __future__ import annotations

import pytest

from device_sdk.engine.connecting.authentication import Authentication, Authenticator
from device_sdk.errors import AuthenticationError
from device_sdk.mqtt.events import AuthReceived
from device_sdk.mqtt.packets import Connack
from tests.engine.rig import Rig, payloads, types


class Doubting(Authenticator):
    """Has no data, and rejects the server while it doubts."""

    method = "DOUBT"
    doubts = False

    def respond(self, data: bytes) -> bytes | None:
        return data

    def start(self) -> bytes | None:
        return None

    def finish(self, data: bytes | None) -> None:
        if self.doubts:
            raise ValueError("I doubt it")


def test_a_rejected_server_that_lost_the_session_costs_no_message() -> None:
    authenticator = Doubting()
    rig = Rig(authentication=Authentication(authenticator))
    rig.connect()
    delivery = rig.publish(b"x")
    assert payloads(rig.sent()) == [b"x"]
    rig.lose()
    authenticator.doubts = True
    rig.advance(rig.retry_delay())
    rig.open()
    assert types(rig.feed(Connack(False, 0))) == ["disconnect"]
    assert (rig.engine.life.state, rig.engine.stats().queued, delivery.done) == ("waiting", 1, False)
    authenticator.doubts = False
    rig.advance(rig.retry_delay())
    assert payloads(rig.connect(session_present=True)) == [b"x"]


def test_a_connection_closed_while_the_authenticator_thinks_does_not_begin() -> None:
    class Closing(Doubting):
        def finish(self, data: bytes | None) -> None:
            with rig.engine.lock:  # another thread's close()
                rig.engine.close_connection()

    rig = Rig(authentication=Authentication(Closing()))
    rig.open()
    assert types(rig.feed(Connack(False, 0))) == ["disconnect"]
    assert (rig.engine.life.state, rig.engine.stats().connects) == ("closing", 0)


def test_a_server_that_never_ends_the_exchange_is_left_after_100_rounds() -> None:
    authentication = Authentication(Doubting())
    challenge = AuthReceived(0x18, {"authentication_data": b"again"})
    for _ in range(100):
        answer = authentication.answer(challenge)
        assert answer == {"authentication_method": "DOUBT", "authentication_data": b"again"}
    with pytest.raises(AuthenticationError, match="more than 100 rounds"):
        authentication.answer(challenge)
