"""Cases of the scenario groups in ``groups.py`` that no other test shows, each with a fake broker."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk import Client, Subscription
from device_sdk.errors import ClosedError, DroppedError, QueueFullError, SubscribeRefused
from device_sdk.mqtt import Connack, Disconnect, Puback, Pubcomp, Publish, Pubrec, Pubrel, Suback, Unsuback
from device_sdk.store.base import StorePolicy
from device_sdk.testing import ScriptedBroker
from device_sdk.testing.scripted_broker import close, expect, ignore, send, stall
from tests.conformance.scenarios import END, OPEN, RESUMED
from tests.conformance.scene import Scene, Wire, accept
from tests.mqtt.peer import every_version

KEEP_ALIVE = 60


def a_scene(*scripts: Any, version: str = "5.0", **options: Any) -> Scene:
    return Scene(ScriptedBroker(*scripts, version=version), version=version, **options)


# Life and connection


@every_version
def test_a_client_may_be_closed_twice_and_before_it_ever_connected(version: str) -> None:
    client = Client("memory://nobody", version=version)
    queued = client.publish("t", b"x", qos=1)
    for _ in range(2):
        client.close(0)
    assert isinstance(queued.error, (ClosedError, DroppedError))
    with pytest.raises(ClosedError):
        client.publish("t", b"x")


@every_version
def test_offline_close_and_reconnect_are_told_in_their_order(version: str) -> None:
    scene = a_scene(
        [expect("connect"), send(Connack()), close()],
        [expect("connect"), close()],
        [expect("connect"), send(Connack(version != "3.1")), ignore()],
        version=version,
        clean_start=False,  # a clean session of 3.1 would not be there any more
    )
    scene.start().advance(10)
    assert scene.kinds() == ["connected", "disconnected", "connect_failed", "connected"]
    assert (scene.client.stats.connects, scene.client.stats.reconnects) == (2, 1)
    scene.close()


def test_the_server_s_disconnect_is_told_and_the_client_comes_back() -> None:
    goodbye = Disconnect(0x8B, {"reason_string": "maintenance"})
    scene = a_scene([*OPEN, send(goodbye), close()], [*RESUMED, ignore()])
    scene.start().advance(10)
    (told,) = [event for event in scene.events if event.kind == "disconnected"]
    assert "maintenance" in told.text
    assert scene.client.state == "connected"
    scene.close()


def test_what_connack_says_replaces_what_was_asked_for() -> None:
    said = accept(
        server_keep_alive=10, assigned_client_identifier="auto-1", receive_maximum=1, maximum_qos=1,
        session_expiry_interval=5,
    )  # fmt: skip
    scene = a_scene(
        [expect("connect", client_id="", keep_alive=60), send(said), expect("publish", packet_id=1),
         expect("pingreq"), send(Puback(1)), expect("publish", packet_id=2), send(Puback(2)), *END],
        client_id="", keep_alive=60,
    )  # fmt: skip
    scene.start()
    for _ in range(2):
        scene.client.publish("t", b"x", qos=1)
    scene.advance(9.5)
    assert scene.client.client_id == "auto-1"
    scene.close()


# Subscriptions


def test_one_packet_asks_for_many_filters_and_gives_them_up() -> None:
    filters = [f"a/{number}" for number in range(30)]
    scene = a_scene(
        [
            *OPEN,
            expect("subscribe", subscriptions=lambda found: [each.topic for each in found] == filters),
            send(lambda seen: Suback(seen.packet_id, [0] * 30)),
            expect("unsubscribe", unsubscriptions=filters),
            send(lambda seen: Unsuback(seen.packet_id, [0] * 30)),
            *END,
        ]
    )
    scene.start()
    granted = scene.client.subscribe([Subscription(each) for each in filters])
    scene.run()
    assert granted.wait(0) == [0] * 30
    scene.client.unsubscribe(filters)
    scene.run()
    scene.close()


def test_a_lost_session_is_subscribed_to_again_with_options_and_identifier() -> None:
    wanted = Subscription("a/#", 1, no_local=True, retain_as_published=True, retain_handling=2)
    asked = expect(
        "subscribe", subscriptions=[wanted], subscription_identifier=lambda number: number is not None
    )
    answer = send(lambda seen: Suback(seen.packet_id, [1]))
    scene = a_scene(
        [*OPEN, asked, answer, close()],
        [expect("connect", clean_start=False), send(Connack()), asked, answer, ignore()],
        use_identifiers=True,
    )
    scene.client.subscribe(wanted)
    scene.start().advance(2)
    scene.close()


@pytest.mark.parametrize(
    ("topic_filter", "missing", "reason_code"),
    [
        ("a/#", "wildcard_subscription_available", 0xA2),
        ("+/b", "wildcard_subscription_available", 0xA2),
        ("$share/group/+", "wildcard_subscription_available", 0xA2),
        ("$share/group/a", "shared_subscription_available", 0x9E),
    ],
)
def test_a_kind_of_subscription_that_the_server_does_not_have_is_refused_here(
    topic_filter: str, missing: str, reason_code: int
) -> None:
    plain = expect("subscribe", subscriptions=[Subscription("plain")])
    script = [expect("connect"), send(accept(**{missing: 0})), plain]
    scene = a_scene([*script, send(lambda seen: Suback(seen.packet_id, [0])), *END])
    request = scene.client.subscribe([Subscription(topic_filter), Subscription("plain")])
    scene.start()
    with pytest.raises(SubscribeRefused, match="not supported by this server") as caught:
        request.wait(0)
    assert caught.value.reason_code == reason_code
    assert "subscribe_refused" in scene.kinds()
    scene.close()


def test_a_server_without_subscription_identifiers_is_asked_without_one() -> None:
    asked = expect("subscribe", subscription_identifier=None)
    hello = [expect("connect"), send(accept(subscription_identifiers_available=0))]
    answer = send(lambda seen: Suback(seen.packet_id, [0]))
    scene = a_scene([*hello, asked, answer, *END], use_identifiers=True)
    scene.client.subscribe("a")
    scene.start()
    scene.close()


# Exchanges over several connections


@every_version
def test_messages_in_flight_survive_several_connections(version: str) -> None:
    resumed = [expect("connect", clean_start=False), send(Connack(version != "3.1"))]

    def sent(number: int, qos: int, dup: bool) -> Any:
        return expect("publish", payload=b"%d" % number, qos=qos, packet_id=number, dup=dup)

    scene = a_scene(
        [*OPEN, sent(1, 1, False), sent(2, 2, False), close()],
        [*resumed, sent(1, 1, True), sent(2, 2, True), close()],
        [*resumed, sent(1, 1, True), sent(2, 2, True), send(Pubrec(2)), expect(Pubrel(2)), close()],
        [*resumed, expect(Pubrel(2)), sent(1, 1, True), close()],
        [*resumed, expect(Pubrel(2)), sent(1, 1, True), send(Puback(1), Pubcomp(2)), *END],
        version=version,
        clean_start=False,
        on_poison="keep",  # else the third connection goes one by one, with PINGREQ between
    )
    deliveries = [scene.client.publish("t", b"%d" % number, qos=number) for number in (1, 2)]
    scene.start().advance(40)
    assert [delivery.state for delivery in deliveries] == ["acknowledged", "acknowledged"]
    scene.close()


@every_version
def test_many_messages_of_every_qos_are_one_event_each(version: str) -> None:
    binary = bytes(range(256))
    packets = [
        Publish(f"ü/{number}", binary, qos=number % 3, packet_id=number if number % 3 else None)
        for number in range(1, 100)
    ]
    scene = a_scene([*OPEN, send(*packets), ignore()], version=version)
    scene.start()
    assert [message.topic for message in scene.arrived] == [packet.topic for packet in packets]
    assert {message.payload for message in scene.arrived} == {binary}
    scene.close()


# A link that died


class NarrowWire(Wire):
    """Takes as much as a kernel's buffer holds while the other end does not read."""

    room = 16_384

    def send(self, data: bytes | bytearray | memoryview) -> int:
        assert self.link is not None
        if self.link.reading:
            return super().send(data)
        taken = min(self.room, len(data))
        self.room -= taken
        return taken


@pytest.mark.conformance("5.0", "MQTT-3.12.4-1", "MQTT-3.1.2-20")
@pytest.mark.conformance("3.1.1", "MQTT-3.12.4-1", "MQTT-3.1.2-23")
@pytest.mark.parametrize(
    ("qos", "size"),
    [(None, 0), (0, 2_000), (1, 2_000), (0, 100)],
    ids=["idle", "QoS 0", "QoS 1", "the buffers never fill"],
)
@every_version
def test_a_half_open_link_is_left_in_time_and_the_output_stays_bounded(
    version: str, qos: int | None, size: int
) -> None:
    scene = a_scene(
        [*OPEN, stall()],
        [expect("connect"), send(Connack(version != "3.1")), ignore()],
        version=version,
        wire=NarrowWire,
        keep_alive=KEEP_ALIVE,
        policy=StorePolicy(max_bytes=50_000),
    )
    scene.start()
    began, refused = scene.clock(), 0
    while "disconnected" not in scene.kinds():
        assert scene.clock() <= began + 1.5 * KEEP_ALIVE, "the dead link was not noticed"
        if qos is not None:
            try:
                scene.client.publish("t", bytes(size), qos=qos)
            except QueueFullError:
                refused += 1
        protocol = scene._engine.outgoing.online
        assert protocol is None or protocol.buffered <= 52_100
        assert scene.client.stats.queued_bytes <= 50_000
        scene.advance(1)
    assert bool(refused) is (size == 2_000)
    (told,) = [event for event in scene.events if event.kind == "disconnected"]
    assert "no answer to PINGREQ" in told.text
    scene.advance(2)
    assert scene.client.state == "connected"
    scene.close()
