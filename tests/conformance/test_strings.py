"""Text on the wire and in arguments: UTF-8, no NUL, no surrogate, wildcards only in filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from device_sdk import Client, Subscription, Will
from device_sdk.errors import ArgumentError
from device_sdk.mqtt import Publish, Subscribe, Unsubscribe
from device_sdk.testing import ScriptedBroker
from tests.conformance.scene import Scene
from tests.mqtt.peer import connected, decode_all, end_of, every_version, messages_in, outgoing

URL = "mqtt://127.0.0.1:9"  # never opened
BAD_TEXT = ["a\0b", "\0", "\ud800", "a\udfffb"]


def property_of(name: str) -> Callable[[Client, str], object]:
    return lambda client, text: client.publish("t", b"", properties={name: text})


#: Argument named by the error -> a call that hands over the text.
PLACES: dict[str, Callable[[Client, str], object]] = {
    "topic": lambda client, text: client.publish(text, b"x"),
    "subscription": lambda client, text: client.subscribe(text),
    "unsubscription": lambda client, text: client.unsubscribe(["good", text]),
    "client_id": lambda client, text: Client(URL, client_id=text, version=version_of(client)),
    "user_name": lambda client, text: Client(URL, user_name=text, version=version_of(client)),
    "will.topic": lambda client, text: Client(URL, will=Will(text), version=version_of(client)),
}
PLACES_5: dict[str, Callable[[Client, str], object]] = {
    "response_topic": property_of("response_topic"),
    "content_type": property_of("content_type"),
    "user_property name": lambda client, text: client.publish(
        "t", b"", properties={"user_property": [(text, "v")]}
    ),
    "user_property value": lambda client, text: client.publish(
        "t", b"", properties={"user_property": [("n", text)]}
    ),
    "will user_property": lambda client, text: Client(
        URL, will=Will("t", properties={"user_property": [("n", text)]})
    ),
}
ALL_PLACES = [
    *((version, place) for version in ("3.1", "3.1.1", "5.0") for place in PLACES),
    *(("5.0", place) for place in PLACES_5),
]


def version_of(client: Client) -> str:
    return client._options.version


@pytest.fixture
def clients() -> Iterator[dict[str, Client]]:
    """One idle client for each version; in the end nothing was queued by any of them."""
    made = {version: Client(URL, version=version) for version in ("3.1", "3.1.1", "5.0")}
    yield made
    for client in made.values():
        assert (client.stats.queued, client.stats.published) == (0, 0)
        client.close(0)


@pytest.mark.conformance(
    "5.0", "MQTT-1.5.4-1", "MQTT-1.5.4-2", "MQTT-1.5.7-1", "MQTT-3.1.3-4", "MQTT-3.1.3-11", "MQTT-3.1.3-12",
    "MQTT-3.3.2-13", "MQTT-3.3.2-19", "MQTT-3.8.3-1", "MQTT-3.10.3-1", "MQTT-4.7.3-2",
)  # fmt: skip
@pytest.mark.conformance(
    "3.1.1", "MQTT-1.5.3-1", "MQTT-1.5.3-2", "MQTT-3.1.3-4", "MQTT-3.1.3-10", "MQTT-3.1.3-11",
    "MQTT-3.8.3-1", "MQTT-3.10.3-1", "MQTT-4.7.3-2",
)  # fmt: skip
@pytest.mark.parametrize("text", BAD_TEXT, ids=ascii)
@pytest.mark.parametrize(("version", "place"), ALL_PLACES)
def test_text_that_utf8_cannot_hold_or_with_a_nul_is_refused_by_the_argument(
    clients: dict[str, Client], version: str, place: str, text: str
) -> None:
    argument = {"subscription": "topic", "unsubscription": "topic"}.get(place, place).split()[-1]
    argument = "user_property" if "user_property" in place else argument
    with pytest.raises(ArgumentError) as caught:
        (PLACES | PLACES_5)[place](clients[version], text)
    assert caught.value.argument == argument


@pytest.mark.conformance("5.0", "MQTT-3.3.2-2", "MQTT-3.3.2-14", "MQTT-4.7.0-1")
@pytest.mark.conformance("3.1.1", "MQTT-3.3.2-2", "MQTT-4.7.1-1")
@pytest.mark.parametrize("text", ["#", "a/+", "a+b", "a/#/b"])
@pytest.mark.parametrize(
    ("version", "place"),
    [("3.1.1", "topic"), ("3.1.1", "will.topic"), ("5.0", "topic"), ("5.0", "response_topic"),
     ("5.0", "will.topic")],
)  # fmt: skip
def test_a_wildcard_in_a_topic_name_is_refused_by_the_argument(
    clients: dict[str, Client], version: str, place: str, text: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        (PLACES | PLACES_5)[place](clients[version], text)
    assert caught.value.argument == place


@pytest.mark.conformance("5.0", "MQTT-4.7.3-1", "MQTT-4.7.3-3")
@pytest.mark.conformance("3.1.1", "MQTT-4.7.3-1", "MQTT-4.7.3-3")
@pytest.mark.parametrize("text", ["", "a" * 65_536, "é" * 32_768], ids=["empty", "65536", "65536 in UTF-8"])
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
@pytest.mark.parametrize("place", ["topic", "subscription", "unsubscription", "will.topic"])
def test_an_empty_topic_or_one_above_65535_bytes_is_refused(
    clients: dict[str, Client], version: str, place: str, text: str
) -> None:
    with pytest.raises(ArgumentError):
        PLACES[place](clients[version], text)


@pytest.mark.conformance("5.0", "MQTT-4.7.1-1", "MQTT-4.7.1-2", "MQTT-4.8.2-1", "MQTT-4.8.2-2")
@pytest.mark.conformance("3.1.1", "MQTT-4.7.1-2", "MQTT-4.7.1-3")
@pytest.mark.parametrize(
    "text",
    ["a#", "#/a", "a/#/b", "##", "a+", "a/+b", "++", "$share/", "$share/g", "$share//a", "$share/g+/a",
     "$share/#/a", "$share/g/a+"],
)  # fmt: skip
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
@pytest.mark.parametrize("place", ["subscription", "unsubscription"])
def test_a_malformed_filter_is_refused(
    clients: dict[str, Client], version: str, place: str, text: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        PLACES[place](clients[version], text)
    assert caught.value.argument == "topic"


@pytest.mark.conformance("5.0", "MQTT-3.8.3-2", "MQTT-3.10.3-2")
@pytest.mark.conformance("3.1.1", "MQTT-3.8.3-3", "MQTT-3.10.3-2")
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_an_empty_list_of_filters_is_refused(clients: dict[str, Client], version: str) -> None:
    with pytest.raises(ArgumentError):
        clients[version].subscribe([])
    with pytest.raises(ArgumentError):
        clients[version].unsubscribe([])


@pytest.mark.conformance("5.0", "MQTT-3.8.3-4")
def test_no_local_on_a_shared_subscription_is_refused(clients: dict[str, Client]) -> None:
    with pytest.raises(ArgumentError) as caught:
        clients["5.0"].subscribe("$share/g/a", no_local=True)
    assert caught.value.argument == "no_local"


@pytest.mark.conformance("3.1.1", "MQTT-3.8.3-4")
@pytest.mark.parametrize("qos", [-1, 3, 0x80])
def test_a_qos_that_does_not_exist_is_refused_in_a_subscription(clients: dict[str, Client], qos: int) -> None:
    with pytest.raises(ArgumentError) as caught:
        clients["3.1.1"].subscribe("t", qos)
    assert caught.value.argument == "qos"
    with pytest.raises(ArgumentError):
        clients["3.1.1"].subscribe([Subscription("t", qos)])


# What arrives


def publish(topic: str, properties: str = "") -> str:
    """A QoS 0 PUBLISH of MQTT 5.0 as hex: the topic name and the properties as hex, without lengths."""
    name, block = bytes.fromhex(topic), bytes.fromhex(properties)
    body = len(name).to_bytes(2, "big") + name + bytes((len(block),)) + block
    return (bytes((0x30, len(body))) + body).hex(" ")


@pytest.mark.conformance(
    "5.0", "MQTT-1.5.4-1", "MQTT-1.5.4-2", "MQTT-1.5.7-1", "MQTT-3.3.2-1", "MQTT-3.3.2-13", "MQTT-3.3.2-19"
)
@pytest.mark.parametrize("text", ["61 00", "ed a0 80", "c0 af", "ff", "f4 90 80 80", "61 c3"])
@pytest.mark.parametrize(
    "where", ["topic name", "response topic", "content type", "name of a pair", "value of a pair"]
)
def test_received_text_that_is_not_utf8_is_malformed(where: str, text: str) -> None:
    field = f"{len(bytes.fromhex(text)):04x} {text}"
    packet = {
        "topic name": publish(text),
        "response topic": publish("61", f"08 {field}"),
        "content type": publish("61", f"03 {field}"),
        "name of a pair": publish("61", f"26 {field} 0001 76"),
        "value of a pair": publish("61", f"26 0001 6e {field}"),
    }[where]
    peer = connected()
    assert end_of(peer.receive_bytes(bytes.fromhex(packet))).reason_code == 0x81
    assert peer.bytes_sent().hex() == "e00181"


@pytest.mark.conformance("3.1.1", "MQTT-1.5.3-1", "MQTT-1.5.3-2", "MQTT-3.3.2-1", "MQTT-4.8.0-1")
@pytest.mark.parametrize("text", ["61 00", "ed a0 80", "c0 af", "ff", "f4 90 80 80", "61 c3"])
def test_a_received_topic_name_that_is_not_utf8_closes_a_connection_of_mqtt_3(text: str) -> None:
    topic = bytes.fromhex(text)
    peer = connected("3.1.1")
    end_of(peer.receive_bytes(bytes((0x30, len(topic) + 2, 0, len(topic))) + topic))
    assert peer.bytes_sent() == b""


@pytest.mark.conformance("5.0", "MQTT-3.3.2-2")
@pytest.mark.parametrize("packet", [publish("61 2f 23"), publish("2b")])
def test_a_received_topic_name_with_a_wildcard_is_an_error(packet: str) -> None:
    peer = connected()
    assert end_of(peer.receive_bytes(bytes.fromhex(packet))).reason_code == 0x90


@pytest.mark.conformance("3.1.1", "MQTT-3.3.2-2")
@pytest.mark.parametrize("topic", [b"#", b"a/+"])
def test_a_received_topic_name_with_a_wildcard_closes_a_connection_of_mqtt_3(topic: bytes) -> None:
    end_of(connected("3.1.1").receive_bytes(bytes((0x30, len(topic) + 2, 0, len(topic))) + topic))


@pytest.mark.conformance("5.0", "MQTT-1.5.4-3")
@pytest.mark.conformance("3.1.1", "MQTT-1.5.3-3")
@every_version
def test_a_byte_order_mark_is_a_character_like_others(version: str) -> None:
    peer = connected(version)
    mark = b"\xef\xbb\xbf"
    end = b"\0" if version == "5.0" else b""
    packet = bytes((0x30, 6 + len(end), 0, 4)) + mark + b"a" + end
    assert [message.topic for message in messages_in(peer.receive_bytes(packet))] == ["\ufeffa"]
    peer.publish(b"", 1, topic="\ufeffa")
    peer.protocol.subscribe([Subscription("\ufeffa")])
    peer.protocol.unsubscribe(["\ufeffa"])
    data = peer.bytes_sent()
    assert data.count(b"\0\x04" + mark + b"a") == 3
    kinds = [packet.type for packet in decode_all(data, version)]
    assert kinds == [kind.type for kind in (Publish, Subscribe, Unsubscribe)]


@pytest.mark.conformance("5.0", "MQTT-3.3.2-8", "MQTT-3.3.2-9", "MQTT-3.2.2-17", "MQTT-3.3.4-6")
@pytest.mark.parametrize("value", [0, 1, 65_535, 65_536])
@pytest.mark.parametrize("name", ["topic_alias", "subscription_identifier"])
def test_an_application_cannot_give_a_topic_alias_or_a_subscription_identifier(
    clients: dict[str, Client], name: str, value: int
) -> None:
    with pytest.raises(ArgumentError, match=name):
        clients["5.0"].publish("t", b"x", properties={name: value})


@pytest.mark.conformance("5.0", "MQTT-3.1.2-12", "MQTT-3.3.1-4")
@pytest.mark.conformance("3.1.1", "MQTT-3.1.2-14", "MQTT-3.3.1-4")
@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_qos_3_is_refused_for_a_message_and_for_a_will(clients: dict[str, Client], version: str) -> None:
    with pytest.raises(ArgumentError, match="qos"):
        clients[version].publish("t", b"x", qos=3)
    with pytest.raises(ArgumentError, match="qos"):
        Client(URL, version=version, will=Will("t", qos=3))


@pytest.mark.conformance("3.1.1", "MQTT-3.1.2-22")
@pytest.mark.conformance("3.1", "MQTT-3.1/PASSWORD")
@pytest.mark.parametrize("version", ["3.1", "3.1.1"])
def test_a_password_without_a_user_name_is_refused_in_mqtt_3(version: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Client(URL, version=version, password="secret")
    assert caught.value.argument == "password"
    Client(URL, version="5.0", password="secret").close(0)


@pytest.mark.conformance("3.1.1", "MQTT-3.1.3-7")
@pytest.mark.conformance("3.1", "MQTT-3.1/CLIENT-ID")
@pytest.mark.parametrize("client_id", [None, ""])
@pytest.mark.parametrize("version", ["3.1", "3.1.1"])
def test_without_a_client_identifier_the_client_makes_one_up(version: str, client_id: str | None) -> None:
    scene = Scene(ScriptedBroker([]), version=version, client_id=client_id)
    assert 1 <= len(scene.client.client_id) <= 23
    assert scene.client.client_id.isalnum()


def test_the_helper_of_these_tests_makes_a_whole_packet() -> None:
    assert messages_in(connected().receive_bytes(bytes.fromhex(publish("61", "03 0001 62"))))
    assert outgoing(b"x").flags == 2
