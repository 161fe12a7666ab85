"""version=None: 5.0, and 3.1.1 with a broker that has said in its own words that it refuses 5.0."""

from __future__ import annotations

import pytest

from device_sdk.engine.connecting.brokers import Broker
from device_sdk.engine.outgoing.greetings import Greetings
from device_sdk.errors import ArgumentError, SubscribeRefused
from device_sdk.mqtt.message import Message, Subscription, Will
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.packets import Connack, Connect, Puback
from device_sdk.net.base import Transport
from tests.engine.rig import HandTransport, Packets, Rig, SlowStore, types

A_DAY = 86_400
IN_3 = b"\x20\x02\x00"  # CONNACK of MQTT 3.x; then comes the return code
REFUSALS = [b"\x20\x03\x00\x84\x00", IN_3 + b"\x01"]


class Choosing(Rig):
    """A rig whose client chooses the version; packets are read in that of the last CONNECT."""

    def __init__(self, **options: object) -> None:
        self.negotiates = True
        super().__init__(**options)  # type: ignore[arg-type]

    def opened(self) -> Packets:
        self.engine.on_open(self.clock())
        self.version = self.engine.options.version
        return self.sent()

    def says(self) -> str:
        """The version that the next CONNECT says."""
        [connect] = self.open()
        assert isinstance(connect, Connect)
        return self.version


@pytest.fixture(autouse=True)
def negotiating(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rig gives its options a version; here it is none."""
    made = ConnectOptions.__init__

    def make(self: ConnectOptions, client_id: str = "", **fields: object) -> None:
        made(self, client_id, **{**fields, "version": None})  # type: ignore[arg-type]

    monkeypatch.setattr(ConnectOptions, "__init__", make)


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_explicit_refusal_is_followed_by_the_older_version_at_once(refusal: bytes) -> None:
    rig = Choosing()
    assert rig.says() == "5.0"
    rig.feed(refusal)
    assert (rig.engine.wants_open, rig.transport.closes) == (True, 1)
    [event] = rig.event_objects()
    assert (event.kind, event.value) == ("version", "3.1.1")
    assert event.text == "hand made: the broker refuses MQTT 5.0: 3.1.1 from now on, 5.0 after a day"
    assert rig.says() == "3.1.1"
    rig.feed(IN_3 + b"\x00")
    assert rig.engine.life.state == "connected"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        IN_3 + b"\x00",
        IN_3 + b"\x02",
        IN_3 + b"\x03",
        IN_3 + b"\x04",
        IN_3 + b"\x05",
        b"\x20\x03\x00\x80\x00",
        b"\x20\x03\x00\x85\x00",
        b"\x20\x03\x00\x87\x00",
        b"\x20\x03\x00\x01\x00",
        b"\xe0\x02\x84\x00",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_nothing_else_is_a_refusal_of_the_version(answer: bytes) -> None:
    rig = Choosing()
    rig.open()
    rig.feed(answer)
    assert rig.engine.life.state == "waiting"
    assert rig.events() == ["connect_failed"]
    rig.advance(rig.retry_delay())
    assert rig.says() == "5.0"


def test_silence_is_no_refusal() -> None:
    rig = Choosing()
    rig.open()
    rig.advance(10)
    rig.advance(rig.retry_delay())
    assert rig.says() == "5.0"


def connected_in_3(rig: Choosing) -> None:
    rig.open()
    rig.feed(REFUSALS[1])
    rig.open()
    rig.feed(IN_3 + b"\x00")
    rig.events()


def test_it_is_remembered_for_a_day_and_a_connection_that_works_is_left_alone() -> None:
    rig = Choosing(keep_alive=0)
    connected_in_3(rig)
    rig.advance(A_DAY - 100)
    rig.lose()
    rig.advance(rig.retry_delay())
    assert rig.says() == "3.1.1"
    rig.feed(IN_3 + b"\x00")
    rig.advance(200)
    assert rig.engine.life.state == "connected"
    rig.lose()
    rig.advance(rig.retry_delay())
    assert rig.says() == "5.0"
    rig.feed(Connack(False, 0))
    assert rig.engine.life.state == "connected"


def test_a_broker_that_refuses_both_is_a_failure_and_asked_in_the_newest_again() -> None:
    rig = Choosing()
    rig.open()
    rig.feed(REFUSALS[0])
    rig.open()
    rig.events()
    rig.feed(IN_3 + b"\x01")
    assert rig.events() == ["connect_failed"]
    assert rig.retry_delay() == 60
    rig.advance(60)
    assert rig.says() == "5.0"


def test_while_the_client_closes_nothing_is_tried_again() -> None:
    rig = Choosing()
    rig.open()
    with rig.engine.lock:
        rig.engine.close_connection()
    rig.feed(REFUSALS[0])
    assert (rig.engine.life.state, rig.engine.wants_open) == ("closing", False)


class TwoPlaces(Choosing):
    """Two servers in a list."""

    def places(self) -> Transport | list[Broker]:
        self.other = HandTransport()
        return [Broker(self.transport, "first:1883"), Broker(self.other, "second:1883")]


def test_each_server_has_its_own() -> None:
    rig = TwoPlaces()
    rig.engine.attempt()
    rig.open()
    rig.feed(REFUSALS[0])
    assert rig.engine.connector.brokers.current.address == "first:1883"
    rig.engine.attempt()
    assert rig.says() == "3.1.1"
    first = rig.transport
    rig.feed(b"")
    assert rig.engine.connector.brokers.current.address == "second:1883"
    rig.advance(0)
    rig.engine.attempt()
    rig.transport = rig.other
    assert rig.says() == "5.0"
    rig.feed(b"")
    rig.advance(rig.retry_delay())
    rig.engine.attempt()
    rig.transport = first
    assert rig.says() == "3.1.1"


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_was_published_before_anybody_knew_leaves_in_the_version_of_the_connection(qos: int) -> None:
    rig = Choosing()
    before = rig.publish(b"before", qos, expiry=100)
    rig.open()
    rig.feed(REFUSALS[1])
    rig.open()
    sent = rig.feed(IN_3 + b"\x00")
    rig.version = "5.0"  # a thread that has made its block of properties before
    rig.publish(b"after", qos)
    rig.version = "3.1.1"
    sent += rig.sent()
    assert [(packet.payload, packet.properties) for packet in sent] == [(b"before", {}), (b"after", {})]
    assert before.properties == b""


def test_what_is_in_flight_is_repeated_in_the_version_of_the_connection() -> None:
    rig = Choosing()
    rig.answers_pings = True
    connected_in_3(rig)
    plain, short = rig.publish(b"plain"), rig.publish(b"short", expiry=2 * A_DAY)
    assert types(rig.sent()) == ["publish", "publish"]
    rig.lose()
    rig.clock.advance(A_DAY)
    rig.advance(0)
    assert rig.says() == "5.0"
    sent = rig.feed(Connack(True, 0))
    assert [(packet.payload, packet.dup) for packet in sent] == [(b"plain", True), (b"short", True)]
    assert sent[1].properties["message_expiry_interval"] == A_DAY
    rig.feed(*(Puback(packet.packet_id) for packet in sent))
    assert (plain.state, short.state) == ("acknowledged", "acknowledged")


def test_a_birth_is_said_in_the_version_of_the_connection() -> None:
    rig = Choosing(greetings=Greetings("5.0", Message("state", b"on", 1, properties={"content_type": "x"})))
    rig.open()
    rig.feed(REFUSALS[1])
    rig.open()
    [birth] = rig.feed(IN_3 + b"\x00")
    assert (birth.payload, birth.properties) == (b"on", {})


def test_a_store_keeps_the_properties_for_a_connection_that_can_say_them() -> None:
    store = SlowStore()
    rig = Choosing(store=store)
    rig.refuse()
    with rig.engine.lock:
        rig.engine.outgoing.publish(b"\0\1t", b"x", 2, b"\x05\x26\0\0\0\0", None, None)
    rig.advance(rig.retry_delay())
    connected_in_3(rig)
    [row] = [change for change in store.changes if change[0] == "message"]
    assert b"\x05\x26\0\0\0\0" in row


def test_a_subscription_with_options_of_5_is_refused_there_and_the_others_are_granted() -> None:
    rig = Choosing()
    connected_in_3(rig)
    with rig.engine.lock:
        plain = rig.engine.incoming.subscribe([Subscription("a", 1)], None)
        special = rig.engine.incoming.subscribe([Subscription("b", 1, no_local=True)], None)
    [asked] = rig.sent()
    rig.feed(b"\x90\x03" + asked.packet_id.to_bytes(2, "big") + b"\x01")
    assert plain.wait(0) == [1]
    with pytest.raises(SubscribeRefused, match=r"MQTT 5\.0; the version is 3\.1\.1"):
        special.wait(0)


@pytest.mark.parametrize("name", ["use_topic_aliases", "use_identifiers"])
def test_options_that_need_5_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match=f'{name}: needs version="5.0"'):
        Choosing(**{name: True})


def test_what_cannot_be_said_in_either_version_is_an_error_of_the_constructor() -> None:
    will = Will("t", b"x", properties={"will_delay_interval": 5})
    with pytest.raises(ArgumentError, match="properties"):
        ConnectOptions("c", will=will)
    with pytest.raises(ArgumentError, match="password"):
        ConnectOptions("c", password="secret")
