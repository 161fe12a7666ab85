"""Bounds and orders that a mutation tool could change without a test noticing (docs/decisions/0010)."""

from __future__ import annotations

import pytest

from device_sdk import Client, Subscription
from device_sdk.engine.arguments import disconnect_fields, seconds
from device_sdk.engine.connecting.authentication import Authenticator
from device_sdk.engine.incoming.manual_ack import ManualAcks
from device_sdk.errors import ArgumentError
from device_sdk.mqtt import Auth, Connack, Publish, Suback, Unsuback
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.testing import ScriptedBroker
from device_sdk.testing.scripted_broker import expect, ignore, send
from tests.conformance.scene import Scene, accept
from tests.mqtt.peer import connected, messages_in

#: What a client may say in DISCONNECT. Source: MQTT 5.0 §3.14.2.1, table 3-10.
OURS = {0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}


@pytest.mark.parametrize("reason_code", range(256))
def test_a_client_says_in_disconnect_what_the_table_of_the_standard_lets_it_say(reason_code: int) -> None:
    options = ConnectOptions("c")
    if reason_code in OURS:
        assert disconnect_fields(options, reason_code, None) == (reason_code, {})
        return
    with pytest.raises(ArgumentError) as caught:
        disconnect_fields(options, reason_code, None)
    assert caught.value.argument == "reason_code"


def test_a_queue_in_memory_holds_10000_messages_and_16_mib() -> None:
    client = Client("mqtt://127.0.0.1:9")  # never opened
    bounds = client._engine.outgoing.outbox.bounds
    assert (bounds.max_messages, bounds.max_bytes) == (10_000, 16 * 1024 * 1024)
    client.close(0)


def test_what_is_left_of_a_refused_subscribe_goes_before_the_requests_after_it() -> None:
    """Otherwise an UNSUBSCRIBE that was asked for later would be overtaken by its SUBSCRIBE."""
    broker = ScriptedBroker(
        [
            expect("connect"),
            send(accept(shared_subscription_available=0)),
            expect("subscribe", subscriptions=[Subscription("a")]),
            send(Suback(1, [0])),
            expect("unsubscribe", unsubscriptions=["a"]),
            send(Unsuback(2, [0])),
            expect("subscribe", subscriptions=[Subscription("b")]),
            ignore(),
        ]
    )
    scene = Scene(broker)
    scene.client.subscribe([Subscription("$share/g/a"), Subscription("a")])
    scene.client.unsubscribe("a")
    scene.client.subscribe("b")
    scene.start()
    scene.close()


def test_the_key_of_a_qos_2_message_is_not_given_to_a_qos_1_message_of_a_later_connection() -> None:
    acks = ManualAcks(lambda message: None)
    peer = connected()
    (first,) = messages_in(peer.receive(Publish("t", b"2", qos=2, packet_id=5)))
    acks.claim([first], peer.protocol)
    peer.cut()
    again = connected(session=peer.session)
    (second,) = messages_in(again.receive(Publish("t", b"1", qos=1, packet_id=5, dup=True)))
    acks.claim([second], again.protocol)
    assert first.redelivery_key is not None
    assert second.redelivery_key is not None
    assert first.redelivery_key != second.redelivery_key


class Failing(Authenticator):
    """Raises whenever the server wants an answer."""

    method = "SCRAM"
    asked = 0

    def start(self) -> bytes | None:
        return None

    def respond(self, data: bytes) -> bytes | None:
        self.asked += 1
        raise ValueError("no")


def test_an_authenticator_that_has_failed_is_not_asked_again_on_that_connection() -> None:
    authenticator = Failing()
    challenge = Auth(0x18, {"authentication_method": "SCRAM"})
    broker = ScriptedBroker([expect("connect"), send(challenge, challenge, Connack()), ignore()])
    scene = Scene(broker, auth=authenticator)
    scene.start()
    assert authenticator.asked == 1
    scene.close()


def test_a_failure_before_the_first_connection_begins_none() -> None:
    client = Client("mqtt://127.0.0.1:9")  # never opened
    engine = client._engine
    before = engine.life.state
    engine.on_fault(MemoryError(), 0.0)
    assert (engine.life.state, engine.next_deadline()) == (before, None)
    client.close(0)


def test_no_time_at_all_is_a_time_span_only_where_that_makes_sense() -> None:
    assert seconds("timeout", 0, zero=True) == 0.0
    with pytest.raises(ArgumentError, match="above 0"):
        seconds("timeout", 0)


def test_a_session_without_expiry_in_connect_gets_none_in_disconnect() -> None:
    """Source: MQTT 5.0 §3.14.2.2.2."""
    forgotten, kept = ConnectOptions("c", session_expiry=0), ConnectOptions("c", session_expiry=60)
    assert disconnect_fields(forgotten, 0, 0) == (0, {"session_expiry_interval": 0})
    assert disconnect_fields(kept, 0, 0) == (0, {"session_expiry_interval": 0})
    assert disconnect_fields(kept, 0, 5) == (0, {"session_expiry_interval": 5})
    with pytest.raises(ArgumentError, match="it was 0 in CONNECT"):
        disconnect_fields(forgotten, 0, 5)


def test_a_stream_that_fails_is_closed_at_once() -> None:
    """Not with the next packet that is to be sent: the descriptor would keep the shell busy until then."""
    scene = Scene(ScriptedBroker([expect("connect"), send(Connack()), ignore()]))
    scene.start()
    assert scene.wire.link is not None
    scene.wire.link.reset = True
    scene.client._engine.on_readable(scene.clock())
    assert scene.wire.ends == 1
    scene.client.close(0)
