"""The model broker is itself the reference of other tests: here it is driven with encoded packets."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.mqtt.decode import decode_packet
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Subscription, Will
from device_sdk.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
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
from device_sdk.testing.model_broker import ModelBroker
from device_sdk.testing.model_link import connect_version

ALL_VERSIONS = ("3.1", "3.1.1", "5.0")
every_version = pytest.mark.parametrize("version", ALL_VERSIONS)
FOREVER = {"session_expiry_interval": 0xFFFF_FFFF}


class Peer:
    """A client that sends exactly what the test says and decodes what comes back."""

    def __init__(self, broker: ModelBroker, version: str = "5.0") -> None:
        self.broker = broker
        self.version = version
        self.link = broker.connect()

    def send(self, *packets: Packet, now: float = 0.0) -> list[Packet]:
        self.link.receive_data(b"".join(encode_packet(each, self.version) for each in packets), now)
        return self.read()

    def read(self) -> list[Packet]:
        data, packets = self.link.data_to_send(), []
        while data:
            decoded = decode_packet(data, self.version)
            assert decoded is not None, "the broker sends whole packets"
            packets.append(decoded[0])
            data = data[decoded[1] :]
        return packets

    def connect(self, client_id: str = "c1", *, now: float = 0.0, **options: Any) -> list[Packet]:
        return self.send(Connect(client_id, **options), now=now)


def connected(
    broker: ModelBroker, client_id: str = "c1", version: str = "5.0", *, now: float = 0.0, **options: Any
) -> Peer:
    peer = Peer(broker, version)
    connack = peer.connect(client_id, now=now, **options)[0]
    assert isinstance(connack, Connack)
    assert connack.reason_code == 0
    return peer


def subscriber(broker: ModelBroker, *filters: str, qos: int = 2, **options: Any) -> Peer:
    peer = connected(broker, options.pop("client_id", "sub"), options.pop("version", "5.0"), **options)
    peer.send(Subscribe(1, [Subscription(each, qos) for each in filters]))
    return peer


def persistent(version: str) -> dict[str, Any]:
    """CONNECT fields of a session that is to stay."""
    return {"clean_start": False, "properties": FOREVER if version == "5.0" else {}}


def publishes(packets: list[Packet]) -> list[tuple[str, bytes, int]]:
    return [(each.topic, each.payload, each.qos) for each in packets if isinstance(each, Publish)]


# Connecting


@every_version
def test_connect_is_answered_with_connack(version: str) -> None:
    limits = {"topic_alias_maximum": 10} if version == "5.0" else {}
    assert Peer(ModelBroker(), version).connect() == [Connack(False, 0, limits)]


@every_version
def test_packets_are_understood_byte_by_byte(version: str) -> None:
    broker = ModelBroker()
    peer = Peer(broker, version)
    data = encode_packet(Connect("c1"), version) + encode_packet(Publish("a", b"x"), version)
    for position in range(len(data)):
        peer.link.receive_data(data[position : position + 1], 0.0)
    assert [entry.payload for entry in broker.journal] == [b"x"]


def test_limits_are_announced_in_connack() -> None:
    broker = ModelBroker(
        receive_maximum=3,
        maximum_qos=1,
        retain_available=False,
        maximum_packet_size=100,
        topic_alias_maximum=0,
        server_keep_alive=7,
        session_expiry_maximum=9,
    )
    connack = Peer(broker).connect(properties=FOREVER)[0]
    assert connack == Connack(
        properties={
            "receive_maximum": 3,
            "maximum_qos": 1,
            "retain_available": 0,
            "maximum_packet_size": 100,
            "server_keep_alive": 7,
            "session_expiry_interval": 9,
        }
    )


def test_an_empty_client_identifier_is_assigned_one() -> None:
    broker = ModelBroker()
    connack = Peer(broker).connect("")[0]
    assert isinstance(connack, Connack)
    assert connack.properties["assigned_client_identifier"] == "assigned-1"
    assert list(broker.sessions) == ["assigned-1"]


@pytest.mark.parametrize(("version", "clean"), [("3.1", True), ("3.1.1", False)])
def test_an_empty_client_identifier_is_rejected_by_mqtt_3_unless_clean(version: str, clean: bool) -> None:
    # A conforming encoder may refuse to make this packet, so it is spelled out.
    name = {"3.1": b"\0\6MQIsdp\3", "3.1.1": b"\0\4MQTT\4"}[version]
    body = name + bytes([2 * clean]) + b"\0\0\0\0"
    link = ModelBroker().connect()
    link.receive_data(bytes([0x10, len(body)]) + body, 0.0)
    assert link.data_to_send() == b"\x20\x02\x00\x02"
    assert link.closed


@pytest.mark.parametrize(("version", "code"), [("3.1", 4), ("3.1.1", 4), ("5.0", 0x86)])
def test_a_refused_connection_gets_the_reason_and_is_closed(version: str, code: int) -> None:
    peer = Peer(ModelBroker(authorize_connect=lambda connect: 0x86), version)
    assert peer.connect() == [Connack(False, code)]
    assert peer.link.closed
    assert not peer.broker.sessions


def test_enhanced_authentication_is_refused() -> None:
    peer = Peer(ModelBroker())
    assert peer.connect(properties={"authentication_method": "X"}) == [Connack(False, 0x8C)]


@pytest.mark.parametrize(
    ("spoken", "asked", "answer"),
    [(["3.1.1"], "5.0", "20 02 00 01"), (["5.0"], "3.1.1", "20 03 00 84 00")],
)
def test_a_version_that_the_broker_does_not_speak_is_refused_in_one_that_it_does(
    spoken: list[str], asked: str, answer: str
) -> None:
    link = ModelBroker(versions=spoken).connect()
    link.receive_data(encode_packet(Connect("c1"), asked), 0.0)
    assert link.data_to_send().hex(" ") == answer
    assert link.closed


@every_version
def test_the_version_is_read_from_the_first_bytes_of_connect(version: str) -> None:
    data = encode_packet(Connect("c" * 200), version)
    assert connect_version(data) == version
    assert connect_version(data[:5]) is None
    assert connect_version(b"\x10\x0c\x00\x04HTTP\x05") == ""
    assert connect_version(b"\x10\xff\xff\xff\xff") == ""


@every_version
def test_pingreq_is_answered(version: str) -> None:
    assert connected(ModelBroker(), version=version).send(Pingreq()) == [Pingresp()]


# Sessions


@pytest.mark.parametrize(("version", "present"), [("3.1", False), ("3.1.1", True), ("5.0", True)])
def test_a_session_is_present_after_reconnecting_except_in_mqtt_3_1(version: str, present: bool) -> None:
    broker = ModelBroker()
    connected(broker, version=version, **persistent(version)).link.connection_lost(1.0)
    connack = Peer(broker, version).connect(**persistent(version))[0]
    assert isinstance(connack, Connack)
    assert connack.session_present is present
    assert broker.violations == []


@every_version
def test_clean_start_discards_the_session(version: str) -> None:
    broker = ModelBroker()
    first = connected(broker, version=version, **persistent(version))
    first.send(Subscribe(1, [Subscription("a", 1)]))
    first.link.connection_lost(1.0)
    connack = Peer(broker, version).connect(clean_start=True)[0]
    assert isinstance(connack, Connack)
    assert not connack.session_present
    assert broker.sessions["c1"].subscriptions == {}


def test_a_session_ends_when_its_expiry_interval_has_passed() -> None:
    broker = ModelBroker()
    connected(broker, properties={"session_expiry_interval": 10}).link.connection_lost(5.0)
    assert broker.next_deadline() == 15.0
    broker.handle_deadline(14.9)
    assert "c1" in broker.sessions
    broker.handle_deadline(15.0)
    assert "c1" not in broker.sessions


def test_a_session_that_is_due_is_gone_for_a_connect_that_comes_first() -> None:
    broker = ModelBroker()
    connected(broker, properties={"session_expiry_interval": 10}).link.connection_lost(0.0)
    connack = Peer(broker).connect(clean_start=False, now=10.0)[0]
    assert isinstance(connack, Connack)
    assert not connack.session_present


def test_disconnect_can_change_the_session_expiry_interval() -> None:
    broker = ModelBroker()
    peer = connected(broker, properties={"session_expiry_interval": 10})
    peer.send(Disconnect(properties={"session_expiry_interval": 0}))
    assert peer.link.closed
    assert not broker.sessions


def test_disconnect_cannot_make_a_session_last_that_connect_made_end() -> None:
    peer = connected(ModelBroker())
    assert peer.send(Disconnect(properties={"session_expiry_interval": 5})) == [Disconnect(0x82)]
    assert len(peer.broker.violations) == 1


@every_version
def test_a_second_connection_takes_the_session_over(version: str) -> None:
    broker = ModelBroker()
    first = connected(broker, version=version, **persistent(version))
    second = connected(broker, version=version, **persistent(version))
    assert first.link.closed
    assert first.read() == ([Disconnect(0x8E)] if version == "5.0" else [])
    assert broker.sessions["c1"].link is second.link
    assert broker.violations == []


def test_forgetting_sessions_ends_every_connection_without_its_will() -> None:
    broker = ModelBroker()
    observer = subscriber(broker, "#", client_id="observer")
    peer = connected(broker, will=Will("gone", b"x"), properties=FOREVER)
    broker.forget_sessions(1.0)
    assert peer.read() == [Disconnect(0x8B)]
    assert observer.read() == [Disconnect(0x8B)]
    assert broker.sessions == {}


# From the client


@every_version
@pytest.mark.parametrize(("qos", "answer"), [(0, []), (1, [Puback(7)]), (2, [Pubrec(7)])])
def test_a_publish_is_acknowledged_and_written_to_the_journal(
    version: str, qos: int, answer: list[Packet]
) -> None:
    peer = connected(ModelBroker(), version=version)
    assert peer.send(Publish("a/b", b"x", qos=qos, packet_id=7 if qos else None)) == answer
    (entry,) = peer.broker.journal
    assert (entry.client_id, entry.topic, entry.payload, entry.qos) == ("c1", "a/b", b"x", qos)
    assert entry.packet_id == (7 if qos else None)


@every_version
def test_qos_2_is_accepted_once_however_often_it_is_sent_again(version: str) -> None:
    broker = ModelBroker()
    message = Publish("a", b"x", qos=2, packet_id=3)
    connected(broker, version=version, **persistent(version)).send(message)
    message.dup = True
    for connection in range(3):
        for link in list(broker.links):
            link.connection_lost(connection)
        peer = Peer(broker, version)
        peer.connect(**persistent(version))
        assert peer.send(message) == [Pubrec(3)]
    assert peer.send(Pubrel(3)) == [Pubcomp(3)]
    assert broker.payloads() == [b"x"]
    assert broker.violations == []


def test_qos_1_sent_again_is_in_the_journal_twice_and_marked() -> None:
    broker = ModelBroker()
    message = Publish("a", b"x", qos=1, packet_id=3)
    peer = connected(broker, **persistent("5.0"))
    peer.send(message)
    peer.link.connection_lost(0.0)
    message.dup = True
    connected(broker, **persistent("5.0")).send(message)
    assert [entry.dup for entry in broker.journal] == [False, True]
    assert broker.violations == []


@pytest.mark.parametrize(("version", "code"), [("3.1", 0), ("3.1.1", 0), ("5.0", 0x92)])
def test_pubrel_for_an_unknown_identifier_is_completed_and_only_wrong_in_a_new_session(
    version: str, code: int
) -> None:
    broker = ModelBroker()
    peer = connected(broker, version=version, **persistent(version))
    fresh = 0 if version == "3.1" else 1  # MQTT 3.1 cannot know whether its session was there
    assert peer.send(Pubrel(9)) == [Pubcomp(9, code)]
    assert len(broker.violations) == fresh
    peer.link.connection_lost(0.0)
    again = connected(broker, version=version, **persistent(version))
    assert again.send(Pubrel(9)) == [Pubcomp(9, code)]
    assert len(broker.violations) == fresh


@pytest.mark.parametrize(("version", "code"), [("3.1", 0), ("3.1.1", 0), ("5.0", 0x87)])
def test_a_publish_that_is_not_authorized_is_refused_where_mqtt_can(version: str, code: int) -> None:
    peer = connected(ModelBroker(authorize_publish=lambda client_id, publish: 0x87), version=version)
    assert peer.send(Publish("a", qos=1, packet_id=1)) == [Puback(1, code)]
    assert peer.send(Publish("a", qos=2, packet_id=1)) == [Pubrec(1, code)]
    assert peer.broker.journal == []


def test_an_identifier_is_free_again_after_a_refused_pubrec() -> None:
    peer = connected(ModelBroker(authorize_publish=lambda client_id, publish: 0x97))
    for _ in range(2):
        assert peer.send(Publish("a", b"x", qos=2, packet_id=1)) == [Pubrec(1, 0x97)]
    assert peer.broker.violations == []


def test_a_topic_alias_stands_for_the_topic_of_this_connection() -> None:
    broker = ModelBroker()
    peer = connected(broker)
    peer.send(
        Publish("a/long/topic", b"1", properties={"topic_alias": 2}),
        Publish("", b"2", properties={"topic_alias": 2}),
    )
    assert [entry.topic for entry in broker.journal] == ["a/long/topic", "a/long/topic"]
    assert connected(broker, "c2").send(Publish("", b"3", properties={"topic_alias": 2})) == [
        Disconnect(0x82)
    ]


# To the client


@every_version
def test_a_message_reaches_the_subscriber_with_the_lower_qos(version: str) -> None:
    broker = ModelBroker()
    peer = connected(broker, version=version)
    assert peer.send(Subscribe(1, [Subscription("a/+", 1), Subscription("b", 0)])) == [Suback(1, [1, 0])]
    connected(broker, "pub").send(
        Publish("a/x", b"1", qos=2, packet_id=1), Publish("b", b"2", qos=1, packet_id=2)
    )
    assert peer.read() == [Publish("a/x", b"1", qos=1, packet_id=1), Publish("b", b"2")]


@every_version
def test_qos_2_to_the_client_is_a_four_part_exchange(version: str) -> None:
    broker = ModelBroker()
    peer = subscriber(broker, "a", version=version)
    broker.publish("a", b"x", qos=2)
    assert peer.read() == [Publish("a", b"x", qos=2, packet_id=1)]
    assert peer.send(Pubrec(1)) == [Pubrel(1)]
    assert peer.send(Pubcomp(1)) == []
    assert not broker.sessions["sub"].in_flight
    assert broker.violations == []


@every_version
def test_unfinished_messages_are_sent_again_in_order_after_a_resume(version: str) -> None:
    broker = ModelBroker()
    peer = subscriber(broker, "a", version=version, **persistent(version))
    for payload in (b"1", b"2", b"3"):
        broker.publish("a", payload, qos=2)
    peer.send(Pubrec(2))
    peer.link.connection_lost(0.0)
    broker.publish("a", b"4", qos=1)
    broker.publish("a", b"5", qos=0)
    assert Peer(broker, version).connect("sub", **persistent(version))[1:] == [
        Publish("a", b"1", qos=2, packet_id=1, dup=True),
        Pubrel(2),
        Publish("a", b"3", qos=2, packet_id=3, dup=True),
        Publish("a", b"4", qos=1, packet_id=4),
    ]


def test_the_receive_maximum_of_the_client_is_honoured() -> None:
    broker = ModelBroker()
    peer = subscriber(broker, "a", properties={"receive_maximum": 2})
    for number in range(4):
        broker.publish("a", b"%d" % number, qos=1)
    assert publishes(peer.read()) == [("a", b"0", 1), ("a", b"1", 1)]
    assert publishes(peer.send(Puback(1))) == [("a", b"2", 1)]


def test_a_smaller_receive_maximum_holds_on_resume_and_keeps_the_order() -> None:
    broker = ModelBroker()
    peer = subscriber(broker, "a", **persistent("5.0"))
    for number in range(3):
        broker.publish("a", b"%d" % number, qos=1)
    peer.link.connection_lost(0.0)
    broker.publish("a", b"3", qos=1)
    again = Peer(broker)
    packets = again.connect("sub", clean_start=False, properties={**FOREVER, "receive_maximum": 1})
    for packet_id in (1, 2, 3, 4):
        packets += again.send(Puback(packet_id))
    assert [payload for _, payload, _ in publishes(packets)] == [b"0", b"1", b"2", b"3"]
    assert [each.dup for each in packets if isinstance(each, Publish)] == [True, True, True, False]


def test_a_message_above_the_maximum_packet_size_of_the_client_is_skipped() -> None:
    broker = ModelBroker()
    peer = subscriber(broker, "a", properties={"maximum_packet_size": 30})
    broker.publish("a", bytes(100), qos=1)
    broker.publish("a", bytes(100), qos=0)
    broker.publish("a", b"small", qos=1)
    assert publishes(peer.read()) == [("a", b"small", 1)]
    assert len(broker.sessions["sub"].in_flight) == 1


def test_a_message_that_no_longer_fits_is_not_sent_again() -> None:
    broker = ModelBroker()
    peer = subscriber(broker, "a", **persistent("5.0"))
    broker.publish("a", bytes(100), qos=1)
    peer.link.connection_lost(0.0)
    broker.publish("a", b"small", qos=1)
    limits = {**FOREVER, "maximum_packet_size": 50, "receive_maximum": 1}
    packets = Peer(broker).connect("sub", clean_start=False, properties=limits)
    assert publishes(packets) == [("a", b"small", 1)]


@every_version
def test_overlapping_subscriptions_give_one_copy_with_the_highest_qos(version: str) -> None:
    broker = ModelBroker()
    peer = subscriber(broker, "a/#", "a/b", qos=1, version=version)
    broker.publish("a/b", b"x", qos=2)
    assert publishes(peer.read()) == [("a/b", b"x", 1)]


def test_subscription_identifiers_of_all_matches_are_in_the_one_copy() -> None:
    broker = ModelBroker()
    peer = connected(broker)
    for identifier, topic_filter in [(5, "a/#"), (6, "a/b"), (7, "c")]:
        subscribe = Subscribe(identifier, [Subscription(topic_filter)])
        subscribe.properties = {"subscription_identifier": identifier}
        peer.send(subscribe)
    broker.publish("a/b", b"x")
    assert peer.read() == [Publish("a/b", b"x", properties={"subscription_identifier": [5, 6]})]


def test_no_local_keeps_a_message_from_its_publisher_only() -> None:
    broker = ModelBroker()
    peer, other = connected(broker), subscriber(broker, "a")
    peer.send(Subscribe(1, [Subscription("a", no_local=True)]))
    assert peer.send(Publish("a", b"x")) == []
    assert publishes(other.read()) == [("a", b"x", 0)]


def test_properties_travel_to_mqtt_5_subscribers_only() -> None:
    broker = ModelBroker()
    modern, old = subscriber(broker, "a"), subscriber(broker, "a", client_id="old", version="3.1.1")
    properties = {
        "content_type": "text/plain",
        "correlation_data": b"\1\2",
        "payload_format_indicator": 1,
        "response_topic": "answer",
        "user_property": [["k", "v"]],
    }
    connected(broker).send(Publish("a", b"x", properties={**properties, "topic_alias": 1}))
    assert modern.read() == [Publish("a", b"x", properties=properties)]
    assert old.read() == [Publish("a", b"x")]


def test_waiting_reduces_the_message_expiry_interval_until_the_message_is_gone() -> None:
    broker = ModelBroker()
    subscriber(broker, "a", **persistent("5.0")).link.connection_lost(0.0)
    broker.publish("a", b"short", qos=1, properties={"message_expiry_interval": 5}, now=0.0)
    broker.publish("a", b"long", qos=1, properties={"message_expiry_interval": 60}, now=0.0)
    packets = Peer(broker).connect("sub", now=10.0, **persistent("5.0"))
    assert packets[1:] == [
        Publish("a", b"long", qos=1, packet_id=1, properties={"message_expiry_interval": 50})
    ]


@pytest.mark.parametrize(("version", "code"), [("3.1", 0), ("3.1.1", 0x80), ("5.0", 0x87)])
def test_a_refused_subscription_gets_no_messages(version: str, code: int) -> None:
    broker = ModelBroker(
        authorize_subscribe=lambda client_id, wanted: 0x87 if wanted.topic == "secret" else 1
    )
    peer = connected(broker, version=version)
    assert peer.send(Subscribe(1, [Subscription("secret", 2), Subscription("b", 2)])) == [
        Suback(1, [code, 1])
    ]
    broker.publish("secret", b"x")
    assert peer.read() == []


@pytest.mark.parametrize(("version", "codes"), [("3.1", []), ("3.1.1", []), ("5.0", [0, 0x11])])
def test_unsubscribe_ends_the_messages(version: str, codes: list[int]) -> None:
    broker = ModelBroker()
    peer = subscriber(broker, "a", version=version)
    assert peer.send(Unsubscribe(2, ["a", "unknown"])) == [Unsuback(2, codes)]
    broker.publish("a", b"x")
    assert peer.read() == []


def test_a_shared_subscription_takes_turns_among_connected_members() -> None:
    broker = ModelBroker()
    members = [
        subscriber(broker, "$share/g/a/#", client_id=name, properties=FOREVER) for name in ("m1", "m2", "m3")
    ]
    members[1].link.connection_lost(0.0)
    for number in range(4):
        broker.publish("a/b", b"%d" % number, qos=1)
    assert [payload for _, payload, _ in publishes(members[0].read())] == [b"0", b"2"]
    assert [payload for _, payload, _ in publishes(members[2].read())] == [b"1", b"3"]
    assert not broker.sessions["m2"].queue


def test_no_local_on_a_shared_subscription_is_a_protocol_error() -> None:
    # The encoder refuses it, so it is spelled out: SUBSCRIBE 1, "$share/g/a", No Local.
    peer = connected(ModelBroker())
    peer.link.receive_data(b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x04", 0.0)
    assert peer.read() == [Disconnect(0x82)]
    assert len(peer.broker.violations) == 1


# Retained messages


@every_version
def test_a_retained_message_is_sent_to_a_new_subscription(version: str) -> None:
    broker = ModelBroker()
    connected(broker, "pub").send(Publish("a", b"old", retain=True), Publish("a", b"new", retain=True))
    peer = connected(broker, version=version)
    assert peer.send(Subscribe(1, [Subscription("#", 1)])) == [
        Suback(1, [1]),
        Publish("a", b"new", retain=True),
    ]


def test_an_empty_retained_message_removes_the_one_before() -> None:
    broker = ModelBroker()
    broker.publish("a", b"x", retain=True)
    broker.publish("a", b"", retain=True)
    assert broker.retained == {}


@pytest.mark.parametrize(("handling", "first", "second"), [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
def test_retain_handling_says_when_retained_messages_come(handling: int, first: int, second: int) -> None:
    broker = ModelBroker()
    broker.publish("a", b"x", retain=True)
    peer = connected(broker)
    wanted = Subscription("a", retain_handling=handling)
    assert len(publishes(peer.send(Subscribe(1, [wanted])))) == first
    assert len(publishes(peer.send(Subscribe(2, [wanted])))) == second


@pytest.mark.parametrize("as_published", [False, True])
def test_retain_as_published_keeps_the_flag_of_a_live_message(as_published: bool) -> None:
    broker = ModelBroker()
    peer = connected(broker)
    peer.send(Subscribe(1, [Subscription("a", retain_as_published=as_published)]))
    broker.publish("a", b"x", retain=True)
    assert peer.read() == [Publish("a", b"x", retain=as_published)]


def test_shared_subscriptions_get_no_retained_messages_and_expired_ones_are_gone() -> None:
    broker = ModelBroker()
    broker.publish("a", b"x", retain=True, properties={"message_expiry_interval": 5}, now=0.0)
    peer = connected(broker)
    assert publishes(peer.send(Subscribe(1, [Subscription("$share/g/a")]))) == []
    assert publishes(peer.send(Subscribe(2, [Subscription("a")]), now=5.0)) == []
    assert broker.retained == {}


# Wills


@every_version
def test_the_will_is_published_when_the_connection_is_lost(version: str) -> None:
    broker = ModelBroker()
    observer = subscriber(broker, "#", client_id="observer")
    peer = connected(broker, version=version, will=Will("gone", b"c1", qos=1, retain=True))
    peer.link.connection_lost(1.0)
    peer.link.connection_lost(1.0)
    assert publishes(observer.read()) == [("gone", b"c1", 1)]
    assert "gone" in broker.retained


@every_version
def test_disconnect_discards_the_will(version: str) -> None:
    broker = ModelBroker()
    observer = subscriber(broker, "#", client_id="observer")
    peer = connected(broker, version=version, will=Will("gone", b"c1"))
    peer.send(Disconnect())
    peer.link.connection_lost(1.0)
    assert observer.read() == []


def test_disconnect_with_will_message_publishes_it() -> None:
    broker = ModelBroker()
    observer = subscriber(broker, "#", client_id="observer")
    connected(broker, will=Will("gone", b"c1")).send(Disconnect(0x04))
    assert publishes(observer.read()) == [("gone", b"c1", 0)]


def test_a_will_waits_for_its_delay_and_not_longer_than_the_session() -> None:
    broker = ModelBroker()
    observer = subscriber(broker, "#", client_id="observer", keep_alive=0)
    for client_id, expiry in (("patient", 100), ("short", 3)):
        will = Will("gone", client_id, properties={"will_delay_interval": 10})
        properties = {"session_expiry_interval": expiry}
        connected(broker, client_id, will=will, properties=properties).link.connection_lost(0.0)
    seen = []
    while (deadline := broker.next_deadline()) is not None:
        broker.handle_deadline(deadline)
        seen += [(deadline, payload) for _, payload, _ in publishes(observer.read())]
    assert seen == [(3.0, b"short"), (10.0, b"patient")]


@pytest.mark.parametrize(("clean_start", "published"), [(False, 0), (True, 1)])
def test_a_reconnect_within_the_will_delay_keeps_the_will_unless_it_starts_clean(
    clean_start: bool, published: int
) -> None:
    broker = ModelBroker()
    observer = subscriber(broker, "#", client_id="observer")
    will = Will("gone", properties={"will_delay_interval": 10})
    connected(broker, will=will, properties=FOREVER).link.connection_lost(0.0)
    connected(broker, clean_start=clean_start, now=5.0)
    broker.handle_deadline(20.0)
    assert len(publishes(observer.read())) == published


@pytest.mark.parametrize(("version", "output"), [("3.1", []), ("3.1.1", []), ("5.0", [Disconnect(0x8D)])])
def test_silence_of_one_and_a_half_keep_alives_ends_the_connection_with_its_will(
    version: str, output: list[Packet]
) -> None:
    broker = ModelBroker()
    observer = subscriber(broker, "#", client_id="observer", keep_alive=0)
    peer = connected(broker, version=version, keep_alive=10, will=Will("gone"))
    peer.send(Pingreq(), now=4.0)
    assert broker.next_deadline() == 19.0
    broker.handle_deadline(18.9)
    assert publishes(observer.read()) == []
    broker.handle_deadline(19.0)
    assert peer.link.closed
    assert peer.read() == output
    assert publishes(observer.read()) == [("gone", b"", 0)]
    assert broker.violations == []


def test_the_server_keep_alive_replaces_that_of_the_client() -> None:
    broker = ModelBroker(server_keep_alive=4)
    connected(broker, keep_alive=100)
    assert broker.next_deadline() == 6.0


# Faults of the client


@pytest.mark.parametrize(
    ("packets", "reason_code", "words"),
    [
        ([Connect("c1")], 0x82, "second CONNECT"),
        ([Connack()], 0x82, "CONNACK is not for clients"),
        ([Auth(0x18, {"authentication_method": "X"})], 0x82, "AUTH is not for clients"),
        ([Publish("a", qos=1, packet_id=1), Publish("b", qos=1, packet_id=1)], 0x82, "in use by PUBLISH"),
        ([Publish("a", qos=1, packet_id=1), Subscribe(1, [Subscription("a")])], 0x82, "in use by PUBLISH"),
        ([Subscribe(1, [Subscription("a")]), Unsubscribe(1, ["a"])], 0x82, "in use by SUBSCRIBE"),
        ([Publish("a", qos=2, packet_id=1), Publish("b", qos=2, packet_id=1)], 0x82, "in use by PUBLISH"),
        ([Publish("a", qos=1, packet_id=n) for n in (1, 2, 3)], 0x93, "receive maximum is 2"),
        ([Publish("a", bytes(200))], 0x95, "maximum packet size is 150"),
        ([Publish("a", properties={"topic_alias": 11})], 0x94, "topic alias 11"),
        ([Puback(4)], None, "PUBACK 4 for no message in flight"),
        ([Pubcomp(4)], None, "PUBCOMP 4 for no message in flight"),
        ([Publish("a", qos=1, packet_id=1, dup=True)], None, "DUP on a first send"),
        ([Disconnect(), Pingreq()], None, "2 bytes after DISCONNECT: c0 00"),
    ],
)
def test_a_fault_of_the_client_is_recorded_and_answered(
    packets: list[Packet], reason_code: int | None, words: str
) -> None:
    peer = connected(ModelBroker(receive_maximum=2, maximum_packet_size=150))
    answers = peer.send(*packets)
    (violation,) = peer.broker.violations
    assert violation.startswith("c1: ")
    assert words in violation
    if reason_code is not None:
        assert answers[-1] == Disconnect(reason_code)
        assert peer.link.closed


@pytest.mark.parametrize(
    ("limits", "packet", "reason_code"),
    [
        ({"maximum_qos": 1}, Publish("a", qos=2, packet_id=1), 0x9B),
        ({"retain_available": False}, Publish("a", b"x", retain=True), 0x9A),
    ],
)
def test_what_connack_ruled_out_is_a_fault(limits: Any, packet: Packet, reason_code: int) -> None:
    peer = connected(ModelBroker(**limits))
    assert peer.send(packet) == [Disconnect(reason_code)]
    assert len(peer.broker.violations) == 1


@every_version
def test_a_packet_before_connect_closes_the_stream_in_silence(version: str) -> None:
    peer = Peer(ModelBroker(), version)
    assert peer.send(Pingreq()) == []
    assert peer.link.closed
    assert peer.broker.violations == ["before CONNECT: the first packet is not CONNECT: c0 00"]


@pytest.mark.parametrize(("version", "answer"), [("3.1.1", ""), ("5.0", "20 03 00 81 00")])
def test_a_malformed_connect_is_refused_where_mqtt_can_say_so(version: str, answer: str) -> None:
    data = bytearray(encode_packet(Connect("c1"), version))
    data[9] |= 1  # the reserved connect flag
    link = ModelBroker().connect()
    link.receive_data(bytes(data), 0.0)
    assert link.data_to_send().hex(" ") == answer
    assert link.closed


@every_version
def test_a_subscribe_without_filters_is_malformed(version: str) -> None:
    peer = connected(ModelBroker(), version=version)
    peer.link.receive_data(b"\x82\x03\x00\x01\x00" if version == "5.0" else b"\x82\x02\x00\x01", 0.0)
    assert peer.link.closed
    assert len(peer.broker.violations) == 1


@every_version
def test_an_identifier_counts_as_free_once_the_client_can_have_read_the_acknowledgement(version: str) -> None:
    peer = connected(ModelBroker(receive_maximum=1), version=version)
    for payload in (b"1", b"2"):
        assert peer.send(Publish("a", payload, qos=1, packet_id=1)) == [Puback(1)]
    assert peer.broker.violations == []
    assert peer.link.in_flight_peak == 1


@every_version
def test_a_qos_2_identifier_stays_in_use_until_pubcomp(version: str) -> None:
    peer = connected(ModelBroker(), version=version)
    peer.send(Publish("a", b"1", qos=2, packet_id=1))
    peer.send(Publish("a", b"2", qos=1, packet_id=1))
    assert peer.link.closed
    assert len(peer.broker.violations) == 1


@every_version
def test_a_qos_2_message_sent_again_needs_dup_and_the_same_content(version: str) -> None:
    broker = ModelBroker()
    peer = connected(broker, version=version, **persistent(version))
    peer.send(Publish("a", b"1", qos=2, packet_id=1), Publish("a", b"2", qos=2, packet_id=2))
    peer.link.connection_lost(0.0)
    again = connected(broker, version=version, **persistent(version))
    assert again.send(Publish("a", b"1", qos=2, packet_id=1)) == [Pubrec(1)]
    assert broker.violations == ["c1: PUBLISH 1 (a): sent again without DUP"]
    again.send(Publish("a", b"other", qos=2, packet_id=2, dup=True))
    assert len(broker.violations) == 2
    assert again.link.closed
    assert broker.payloads() == [b"1", b"2"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([Publish("a", b"1", qos=1, packet_id=1)], [Publish("a", b"1", qos=1, packet_id=1)], "without DUP"),
        (
            [Publish("a", b"1", qos=2, packet_id=1), Pubrel(1)],
            [Publish("a", b"1", qos=2, packet_id=1, dup=True)],
            "again after its PUBREL",
        ),
        (
            [Publish("a", b"1", qos=1, packet_id=1), Publish("a", b"2", qos=1, packet_id=2)],
            [
                Publish("a", b"2", qos=1, packet_id=2, dup=True),
                Publish("a", b"1", qos=1, packet_id=1, dup=True),
            ],
            "out of order",
        ),
    ],
)
def test_unique_messages_show_a_wrong_repetition(
    before: list[Packet], after: list[Packet], words: str
) -> None:
    broker = ModelBroker(unique_messages=True)
    peer = connected(broker, **persistent("5.0"))
    peer.send(*before)
    peer.link.connection_lost(0.0)
    assert broker.violations == []
    connected(broker, **persistent("5.0")).send(*after)
    (violation,) = broker.violations
    assert words in violation


def test_unique_messages_show_a_repetition_on_a_live_connection() -> None:
    broker = ModelBroker(unique_messages=True)
    connected(broker, **persistent("5.0")).link.connection_lost(0.0)
    peer = connected(broker, **persistent("5.0"))
    peer.send(Publish("a", b"1", qos=1, packet_id=1))
    peer.send(Publish("a", b"1", qos=1, packet_id=1, dup=True))
    assert broker.violations == ["c1: PUBLISH 1 (a): sent again on a live connection"]


@pytest.mark.parametrize("packet", [Puback(1), Pubcomp(1)])
def test_the_wrong_acknowledgement_for_a_qos_2_message_is_a_protocol_error(packet: Packet) -> None:
    broker = ModelBroker()
    peer = subscriber(broker, "a")
    broker.publish("a", b"x", qos=2)
    assert peer.send(packet)[-1] == Disconnect(0x82)
    assert len(broker.violations) == 1


def test_pubrec_with_an_error_ends_the_exchange() -> None:
    broker = ModelBroker()
    peer = subscriber(broker, "a")
    broker.publish("a", b"x", qos=2)
    assert peer.send(Pubrec(1, 0x97))[1:] == []
    assert not broker.sessions["sub"].in_flight


def test_what_arrives_after_the_broker_closed_is_no_fault() -> None:
    broker = ModelBroker()
    peer = connected(broker)
    broker.disconnect_all(1.0)
    peer.send(Publish("a", b"late"))
    assert broker.violations == []
    assert broker.journal == []
