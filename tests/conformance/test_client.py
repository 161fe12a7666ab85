"""Statements about a whole client: what it does over several connections, and what its application sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from device_sdk import Client, Message, ReconnectPolicy, Subscription
from device_sdk.errors import ConnectRefused, RefusedError, SubscribeRefused
from device_sdk.mqtt import (
    Connack,
    Disconnect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from device_sdk.mqtt.events import ConnectAcknowledged
from device_sdk.mqtt.protocol import Protocol
from device_sdk.store.memory import MemoryStore
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import close, expect, expect_close, ignore, send, silence
from tests.conformance.scene import Scene, accept
from tests.mqtt.peer import every_version

since_3_1_1 = pytest.mark.parametrize("version", ["3.1.1", "5.0"])


def a_scene(*scripts: Any, version: str = "5.0", **options: Any) -> Scene:
    return Scene(ScriptedBroker(*scripts, version=version), version=version, **options)


def present(version: str) -> Connack:
    """A CONNACK that goes on with the session; MQTT 3.1 cannot say so."""
    return Connack(version != "3.1")


# CONNECT


@pytest.mark.conformance("5.0", "MQTT-3.1.0-1", "MQTT-3.1.0-2", "MQTT-3.1.3-2")
@pytest.mark.conformance("3.1.1", "MQTT-3.1.0-1", "MQTT-3.1.0-2", "MQTT-3.1.3-2")
@pytest.mark.parametrize("client_id", [None, "", "node-17"])
@every_version
def test_every_connection_begins_with_its_only_connect_and_with_the_same_name(
    version: str, client_id: str | None
) -> None:
    asks = client_id == "" and version == "5.0"
    hello = accept(assigned_client_identifier="auto-1") if asks else Connack()
    scene = a_scene(
        [expect("connect"), send(hello), expect("publish"), close()],
        [expect("connect"), close()],
        [expect("connect"), send(present(version)), expect("publish"), ignore()],
        version=version,
        client_id=client_id,
    )
    scene.client.publish("t", b"x", qos=1)
    scene.start().advance(60)
    assert scene.types() == ["connect", "publish", "connect", "connect", "publish"]
    names = {packet.client_id for packet in scene.received if packet.type == "connect"}
    assert names == ({"", "auto-1"} if asks else {scene.client.client_id})
    assert scene.client.client_id == (client_id or scene.client.client_id) != ""
    scene.close()


@pytest.mark.conformance("5.0", "MQTT-3.1.3-2")
@pytest.mark.conformance("3.1.1", "MQTT-3.1.3-2")
@since_3_1_1
def test_the_same_client_identifier_resumes_the_session_and_another_does_not(version: str) -> None:
    broker = ModelBroker()
    seen: list[bool] = []
    for name in ("a", "a", "b"):
        scene = Scene(
            broker,
            client_id=name,
            version=version,
            clean_start=False,
            on_connect=lambda event: seen.append(event.session_present),
        )
        scene.start().close()
    assert seen == [False, True, False]


@pytest.mark.conformance("5.0", "MQTT-3.1.3-7", "MQTT-3.2.2-16")
def test_an_assigned_client_identifier_is_used_and_kept() -> None:
    seen: list[ConnectAcknowledged] = []
    store = MemoryStore()
    scene = a_scene(
        [expect("connect", client_id=""), send(accept(assigned_client_identifier="auto-1")), close()],
        [expect("connect", client_id="auto-1", clean_start=False), send(Connack(True)), ignore()],
        client_id="",
        store=store,
        on_connect=seen.append,
    )
    scene.start().advance(2)
    assert [event.properties.get("assigned_client_identifier") for event in seen] == ["auto-1", None]
    assert scene.client.client_id == "auto-1"
    scene.close()
    for given in (None, ""):
        restarted = a_scene(
            [expect("connect", client_id="auto-1"), send(Connack(True)), ignore()],
            client_id=given,
            store=store,
        )
        restarted.start().close()


@pytest.mark.conformance("5.0", "MQTT-3.2.2-4")
def test_a_session_of_which_nothing_is_known_is_replaced_at_once() -> None:
    scene = a_scene(
        [expect("connect", clean_start=False), send(Connack(True)), expect("disconnect", reason_code=0x82)],
        [
            expect("connect", clean_start=True),
            send(Connack()),
            expect("subscribe"),
            expect("publish"),
            close(),
        ],
        [expect("connect", clean_start=False), send(Connack(True)), expect("publish", dup=True), ignore()],
        store=MemoryStore(),
    )
    scene.client.subscribe("commands", 1)
    scene.client.publish("t", b"x", qos=1)
    scene.start()
    assert scene.kinds() == ["session_lost", "connected", "disconnected"]
    scene.advance(2)
    scene.close()


def test_a_program_that_says_it_has_the_session_gets_what_waits_in_it() -> None:
    hello = [expect("connect", clean_start=False), send(Connack(True))]
    waiting = Publish("commands", b"on", qos=1, packet_id=9, dup=True)
    scene = a_scene([*hello, send(waiting), expect(Puback(9)), ignore()], clean_start=False)
    scene.start()
    assert [message.payload for message in scene.arrived] == [b"on"]
    assert "session_lost" not in scene.kinds()
    scene.close()


def test_identifiers_of_an_earlier_life_are_avoided_as_well_as_possible() -> None:
    hello = [expect("connect", clean_start=False), send(Connack(True))]
    scene = a_scene([*hello, expect("publish", packet_id=49_152), ignore()], clean_start=False)
    scene.dice = 0.75
    scene.client.publish("t", b"x", qos=2)
    scene.start().close()


@pytest.mark.conformance("5.0", "MQTT-3.1.2-30")
@pytest.mark.parametrize("properties", [{}, {"authentication_method": "SCRAM"}])
def test_nothing_leaves_before_connack(properties: dict[str, str]) -> None:
    scene = a_scene(
        [
            expect("connect"),
            silence(5),
            send(accept(**properties)),
            expect("subscribe"),
            expect("publish", qos=0),
            expect("publish", qos=1),
            ignore(),
        ],
        properties=properties,
    )
    scene.client.publish("t", b"0", qos=0)
    scene.client.publish("t", b"1", qos=1)
    scene.client.subscribe("a")
    scene.start().advance(10)
    scene.close()


@pytest.mark.conformance("3.1.1", "MQTT-3.1.2-2", "MQTT-3.2.2-5")
@pytest.mark.conformance("3.1", "MQTT-3.1/ONLY-WHEN-ASKED")
def test_a_refused_version_is_reported_and_never_changed() -> None:
    refused = [expect("connect", protocol_level=4), send(Connack(False, 1)), expect_close()]
    scene = a_scene(refused, refused, version="3.1.1")
    scene.start().advance(61)
    errors = [event.error for event in scene.events if event.kind == "connect_failed"]
    assert [type(error) for error in errors] == [ConnectRefused, ConnectRefused]
    scene.close()


@pytest.mark.conformance("5.0", "MQTT-3.1.2-2", "MQTT-3.1.3-8", "MQTT-3.1.4-6", "MQTT-3.2.2-7")
@pytest.mark.parametrize("reason_code", [0x84, 0x85, 0x87, 0x9A, 0x9B])
def test_after_a_refusal_the_client_closes_and_says_nothing_more(reason_code: int) -> None:
    scene = a_scene([expect("connect"), send(Connack(False, reason_code)), expect_close()])
    scene.client.publish("t", b"x", qos=1)
    scene.start()
    assert scene.types() == ["connect"]
    (event,) = scene.events
    assert isinstance(event.error, ConnectRefused)
    assert event.error.reason_code == reason_code
    scene.close()


@pytest.mark.conformance("5.0", "MQTT-3.1.4-3", "MQTT-4.13.2-1")
def test_a_client_that_was_taken_over_closes_and_does_not_fight() -> None:
    scene = a_scene(
        [expect("connect"), send(Connack(), Disconnect(0x8E)), expect_close()],
        [expect("connect"), send(Connack()), ignore()],
    )
    scene.start().advance(59)
    assert scene.types() == ["connect"]
    error = scene.events[-1].error
    assert isinstance(error, RefusedError)
    assert error.reason_code == 0x8E
    scene.advance(2)
    scene.close()


@pytest.mark.conformance("3.1.1", "MQTT-3.1.4-2")
def test_a_client_that_is_closed_without_a_word_backs_off() -> None:
    scene = a_scene(*[[expect("connect"), send(Connack()), close()]] * 6, version="3.1.1")
    scene.start()
    assert scene.types() == ["connect"]
    scene.advance(62)
    delays = [event.text.rpartition("in ")[2] for event in scene.events if event.kind == "disconnected"]
    assert delays == ["1.0 s", "2.0 s", "4.0 s", "8.0 s", "16.0 s", "32.0 s"]
    scene.close()


@pytest.mark.conformance("3.1.1", "MQTT-3.2.2-2", "MQTT-3.2.2-3")
@pytest.mark.conformance("5.0", "MQTT-3.2.2-5")
@pytest.mark.parametrize("session_present", [False, True])
@since_3_1_1
def test_session_present_reaches_the_application(version: str, session_present: bool) -> None:
    seen: list[bool] = []
    scene = a_scene(
        [expect("connect"), send(Connack()), close()],
        [expect("connect", clean_start=False), send(Connack(session_present)), ignore()],
        version=version,
        on_connect=lambda event: seen.append(event.session_present),
    )
    scene.start().advance(2)
    assert seen == [False, session_present]
    assert ("session_lost" in scene.kinds()) is not session_present
    scene.close()


# Publishing


@pytest.mark.conformance("5.0", "MQTT-3.2.2-17", "MQTT-3.2.2-18", "MQTT-3.3.2-7", "MQTT-3.3.2-9")
@pytest.mark.parametrize("maximum", [None, 1, 65_535])
def test_every_publish_has_its_full_topic_and_no_alias(maximum: int | None) -> None:
    server = {} if maximum is None else {"topic_alias_maximum": maximum}
    full = [expect("publish", topic="a/long/topic", topic_alias=None)] * 3
    scene = a_scene(
        [expect("connect"), send(accept(**server)), *full, close()],
        [expect("connect"), send(Connack(True)), *full[:2], ignore()],
    )
    scene.start()
    for qos in range(3):
        scene.client.publish("a/long/topic", b"x", qos=qos)
    scene.advance(2)
    scene.close()


@pytest.mark.conformance("5.0", "MQTT-3.3.4-7", "MQTT-4.9.0-2")
@pytest.mark.parametrize("receive_maximum", [1, 2, 3])
@pytest.mark.parametrize("qos", [1, 2])
def test_never_more_messages_are_unacknowledged_than_the_server_takes(receive_maximum: int, qos: int) -> None:
    script: list[Any] = [expect("connect"), send(accept(receive_maximum=receive_maximum))]
    script += [expect("publish", payload=b"%d" % number) for number in range(receive_maximum)]
    for number in range(receive_maximum, 6):
        done = number - receive_maximum + 1  # the identifiers begin at 1
        if qos == 1:
            script += [silence(10), send(Puback(done))]
        else:
            script += [silence(10), send(Pubrec(done)), expect(Pubrel(done)), silence(10)]
            script += [send(bytes((0x70, 2, 0, done)))]
        script += [expect("publish", payload=b"%d" % number)]
    scene = a_scene([*script, ignore()], keep_alive=0)
    scene.start()
    for number in range(6):
        scene.client.publish("t", b"%d" % number, qos=qos)
    scene.advance(300)
    scene.close()


@pytest.mark.conformance("5.0", "MQTT-3.3.4-7", "MQTT-4.9.0-2")
def test_a_message_past_pubrec_still_has_its_place() -> None:
    scene = a_scene(
        [
            expect("connect"),
            send(accept(receive_maximum=1)),
            expect("publish", payload=b"1"),
            send(Pubrec(1)),
            expect(Pubrel(1)),
            silence(10),
            send(Pubcomp(1)),
            expect("publish", payload=b"2"),
            ignore(),
        ]
    )
    scene.start()
    scene.client.publish("t", b"1", qos=2)
    scene.run()
    scene.client.publish("t", b"2", qos=1)
    scene.advance(11)
    scene.close()


@pytest.mark.conformance("5.0", "MQTT-3.3.4-7", "MQTT-4.9.0-2")
def test_a_refused_message_gives_its_place_back() -> None:
    scene = a_scene(
        [
            expect("connect"),
            send(accept(receive_maximum=1)),
            expect("publish", payload=b"1"),
            send(Pubrec(1, 0x83)),
            expect("publish", payload=b"2"),
            send(lambda seen: Puback(seen.packet_id, 0x87)),
            expect("publish", payload=b"3"),
            ignore(),
        ]
    )
    scene.start()
    first, second, third = (
        scene.client.publish("t", payload, qos=qos) for payload, qos in ((b"1", 2), (b"2", 1), (b"3", 1))
    )
    scene.run()
    assert [each.state for each in (first, second, third)] == ["refused", "refused", "sent"]
    scene.close()


@pytest.mark.conformance("5.0", "MQTT-3.3.4-8", "MQTT-4.9.0-3")
def test_only_publish_above_qos_0_is_held_back_by_a_full_window() -> None:
    scene = a_scene(
        [
            expect("connect"),
            send(accept(receive_maximum=1)),
            expect("publish", payload=b"1"),
            expect("subscribe"),
            expect("unsubscribe"),
            expect("publish", payload=b"0", qos=0),
            send(Publish("t", b"in", qos=1, packet_id=7), Publish("t", b"in", qos=2, packet_id=8)),
            expect(Puback(7)),
            expect(Pubrec(8)),
            send(Pubrel(8)),
            expect("pubcomp"),
            expect("pingreq"),
            send(b"\xd0\x00"),
            ignore(),
        ],
        keep_alive=30,
    )
    scene.start()
    scene.client.publish("t", b"1", qos=1)
    waits = scene.client.publish("t", b"2", qos=1)
    scene.client.subscribe("a")
    scene.client.unsubscribe("b")
    scene.client.publish("t", b"0", qos=0)
    scene.advance(31)
    assert waits.state == "queued"
    scene.close()


# Receiving


def failing(message: Message) -> None:
    raise ZeroDivisionError("a handler that fails")


@pytest.mark.conformance("5.0", "MQTT-4.5.0-2", "MQTT-3.3.4-1")
@pytest.mark.conformance("3.1.1", "MQTT-4.5.0-2", "MQTT-3.3.4-1")
@pytest.mark.parametrize("handler", [None, failing, lambda message: None], ids=["none", "fails", "works"])
@every_version
def test_every_message_is_acknowledged_whatever_the_application_does_with_it(
    version: str, handler: Callable[[Message], object] | None
) -> None:
    scene = a_scene(
        [
            expect("connect"),
            send(Connack(), Publish("t"), Publish("t", qos=1, packet_id=5), Publish("t", qos=2, packet_id=6)),
            expect(Puback(5)),
            expect(Pubrec(6)),
            send(Pubrel(6)),
            expect("pubcomp", packet_id=6, reason_code=0),
        ],
        version=version,
        on_message=handler,
    )
    scene.start()
    assert scene.kinds().count("handler_failed") == (3 if handler is failing else 0)
    scene.close()


@pytest.mark.conformance("3.1.1", "MQTT-4.8.0-2")
@since_3_1_1
def test_a_failure_inside_the_client_closes_the_connection_and_acknowledges_nothing(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = Publish("t", b"x", qos=1, packet_id=5)
    receive_data = Protocol.receive_data
    failures = [MemoryError()]

    def failing_once(self: Protocol, data: bytes, now: float) -> Any:
        if data[0] >> 4 == 3 and failures:
            raise failures.pop()
        return receive_data(self, data, now)

    monkeypatch.setattr(Protocol, "receive_data", failing_once)
    broker = ScriptedBroker(
        [expect("connect"), send(Connack()), expect("publish"), send(message), expect_close()],
        [expect("connect"), send(Connack(True)), expect("publish", dup=True), send(Puback(1)),
         send(message), expect(Puback(5))],
        version=version,
    )  # fmt: skip
    monkeypatch.setattr("device_sdk.client_base.random_fraction", lambda: 1.0)
    reconnect = ReconnectPolicy(60.0, 60.0)  # the stream of another attempt would take the place of the first
    options: dict[str, Any] = {"client_id": "c", "clean_start": False, "reconnect": reconnect}
    with BrokerServer(broker) as server, Client(server.url, version=version, **options) as client:
        client.connect(5)
        delivery = client.publish("t", b"now send", qos=1)
        server.wait_for(lambda: len(broker.links) == 1 and broker.links[0].done, timeout=5)
        client.reconnect_now()
        delivery.wait(5)
        server.wait_for(lambda: broker.done, timeout=5)
    broker.check()


# SUBSCRIBE and UNSUBSCRIBE


@pytest.mark.conformance("5.0", "MQTT-3.8.4-1", "MQTT-3.10.4-4")
@pytest.mark.conformance("3.1.1", "MQTT-3.8.4-1", "MQTT-3.10.4-4")
@since_3_1_1
def test_a_request_without_an_answer_times_out_and_is_asked_again_on_the_next_connection(
    version: str,
) -> None:
    codes = [0] if version == "5.0" else []
    scene = a_scene(
        [expect("connect"), send(Connack()), expect("subscribe"), expect("unsubscribe"), close()],
        [
            expect("connect"),
            send(Connack(True)),
            expect("subscribe"),
            send(lambda seen: Suback(seen.packet_id, [1])),
            expect("unsubscribe"),
            send(lambda seen: Unsuback(seen.packet_id, codes)),
        ],
        version=version,
    )
    requests = [scene.client.subscribe("a", 1), scene.client.unsubscribe("b")]
    scene.start()
    for request in requests:
        with pytest.raises(TimeoutError, match="no answer"):
            request.wait(0)
    scene.advance(2)
    assert [request.wait(0) for request in requests] == [[1], [0]]
    scene.close()


@pytest.mark.conformance("5.0", "MQTT-3.8.4-7", "MQTT-3.9.3-1")
@pytest.mark.conformance("3.1.1", "MQTT-3.9.3-1", "MQTT-3.8.4-5")
@since_3_1_1
def test_granted_and_refused_filters_are_told_apart_by_position(version: str) -> None:
    scene = a_scene(
        [expect("connect"), send(Connack()), expect("subscribe"), send(Suback(1, [1, 0x80, 0]))],
        version=version,
    )
    request = scene.client.subscribe([Subscription("a", 1), Subscription("b", 2), Subscription("c", 2)])
    scene.start()
    assert request.reason_codes == [1, 0x80, 0]
    with pytest.raises(SubscribeRefused, match=r"refused b "):
        request.wait(0)
    scene.close()


@pytest.mark.conformance("5.0", "MQTT-3.10.4-5", "MQTT-3.11.3-1")
def test_a_subscription_that_did_not_exist_is_no_error() -> None:
    scene = a_scene(
        [
            expect("connect"),
            send(Connack()),
            expect(Unsubscribe(1, ["a", "b"])),
            send(Unsuback(1, [0x11, 0])),
        ]
    )
    request = scene.client.unsubscribe(["a", "b"])
    scene.start()
    assert request.wait(0) == [0x11, 0]
    scene.close()


@pytest.mark.conformance("5.0", "MQTT-3.2.2-5")
@pytest.mark.conformance("3.1.1", "MQTT-3.2.2-3")
@since_3_1_1
def test_subscriptions_of_a_lost_session_are_asked_for_again(version: str) -> None:
    wanted = [Subscription("a", 1), Subscription("b/#", 2)]
    ask = [expect(Subscribe(1, wanted)), send(Suback(1, [1, 2]))]
    scene = a_scene(
        [expect("connect"), send(Connack()), *ask, close()],
        [expect("connect"), send(Connack(True)), silence(5), close()],
        [
            expect("connect"),
            send(Connack(False)),
            expect("subscribe", subscriptions=wanted),
            send(lambda seen: Suback(seen.packet_id, [1, 2])),
        ],
        version=version,
    )
    scene.client.subscribe(wanted)
    scene.start().advance(120)
    scene.close()


# The end


@pytest.mark.conformance("5.0", "MQTT-3.14.4-1", "MQTT-3.14.4-2")
@pytest.mark.conformance("3.1.1", "MQTT-3.14.4-1", "MQTT-3.14.4-2")
@every_version
def test_disconnect_is_the_last_packet_and_the_client_closes(version: str) -> None:
    scene = a_scene(
        [expect("connect"), send(Connack()), expect("publish"), expect("disconnect"), expect_close()],
        version=version,
    )
    scene.start()
    scene.client.publish("t", b"x", qos=0)
    scene.close()
    assert scene.wire.ends == 1


@pytest.mark.conformance("5.0", "MQTT-3.14.4-2", "MQTT-4.13.1-1")
def test_after_a_disconnect_for_a_fault_of_the_server_the_client_closes() -> None:
    scene = a_scene(
        [expect("connect"), send(Connack(), b"\x36\x00"), expect(Disconnect(0x81)), expect_close()],
        [expect("connect"), ignore()],
    )
    scene.start()
    assert scene.wire.ends == 1
    scene.advance(2)
    scene.close()


@pytest.mark.conformance("3.1.1", "MQTT-4.8.0-1", "MQTT-3.2.0-1")
def test_a_fault_of_the_server_closes_a_connection_of_mqtt_3_without_a_word() -> None:
    first = [expect("connect"), send(Publish("t", b"too early")), expect_close()]
    second = [expect("connect"), send(Connack(), b"\x41\x02\x00\x01"), expect_close()]
    scene = a_scene(first, second, [expect("connect"), ignore()], version="3.1.1")
    scene.start().advance(10)
    assert scene.types() == ["connect"] * 3
    assert scene.wire.ends == 2
    scene.close()
