"""A wrong argument is named before anything is queued, by an error that is a ValueError or TypeError too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk import Client, Subscription, Will
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import ArgumentError, ArgumentTypeError, QueueFullError
from device_sdk.store.base import StorePolicy
from device_sdk.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

URL = "memory://nobody"
Wrong = tuple[Any, type[Exception]]


@pytest.fixture
def client() -> Iterator[Client]:
    """A client that is not started: whatever it queued would stay."""
    client = Client(URL)
    yield client
    assert (client.stats.queued, client.stats.published) == (0, 0)
    client.close()


@pytest.fixture
def old_client() -> Iterator[Client]:
    client = Client(URL, version="3.1.1")
    yield client
    client.close()


MOST = 0xFFFF_FFFF
SPANS: list[tuple[str, Any]] = [
    ("expiry", lambda span: Client(URL).publish("t", b"", qos=1, expiry=span)),
    ("connect_timeout", lambda span: Client(URL, connect_timeout=span)),
    ("ack_timeout", lambda span: Client(URL, ack_timeout=span)),
    ("return_to_first", lambda span: Client(URL, return_to_first=span)),
    ("session_expiry", lambda span: Client(URL, session_expiry=span)),
    ("session_expiry", lambda span: Client(URL).close(session_expiry=span)),
    ("longest", lambda span: ReconnectPolicy(longest=span)),
    ("stable", lambda span: ReconnectPolicy(stable=span)),
    ("max_age", lambda span: StorePolicy(max_age=span)),
    ("block_timeout", lambda span: StorePolicy(block_timeout=span)),
    ("linger", lambda span: StorePolicy(linger=span)),
]


@pytest.mark.parametrize(("argument", "give"), SPANS, ids=[name for name, _ in SPANS])
def test_a_time_span_is_as_long_as_an_interval_of_mqtt(argument: str, give: Any) -> None:
    give(MOST)
    for span in (MOST + 1, 1e300):
        with pytest.raises(ArgumentError) as caught:
            give(span)
        assert caught.value.argument == argument


def expect_argument(caught: pytest.ExceptionInfo[ArgumentError], name: str, kind: type[Exception]) -> None:
    assert caught.value.argument == name
    assert str(caught.value).startswith(f"{name}: ")
    assert isinstance(caught.value, kind)


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        ("", ValueError),
        ("a/#", ValueError),
        ("a/+/b", ValueError),
        ("a\0b", ValueError),
        ("a\ud800b", ValueError),
        ("x" * 65_536, ValueError),
        ("é" * 32_768, ValueError),
        ("/" * 200, ValueError),
        (b"bytes", TypeError),
        (None, TypeError),
        (5, TypeError),
        (["a"], TypeError),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_wrong_topic(client: Client, topic: Any, kind: type[Exception]) -> None:
    with pytest.raises(ArgumentError) as caught:
        client.publish(topic, b"x")
    expect_argument(caught, "topic", kind)


@pytest.mark.parametrize(
    ("qos", "kind"),
    [
        (3, ValueError),
        (-1, ValueError),
        (1.0, TypeError),
        ("1", TypeError),
        (None, TypeError),
        (True, TypeError),
    ],
)
def test_a_wrong_qos(client: Client, qos: Any, kind: type[Exception]) -> None:
    with pytest.raises(ArgumentError) as caught:
        client.publish("a", b"x", qos=qos)
    expect_argument(caught, "qos", kind)
    with pytest.raises(ArgumentError) as caught:
        client.subscribe("a", qos=qos)
    expect_argument(caught, "qos", kind)


@pytest.mark.parametrize("payload", [21.5, 21, ["a"], {"a": 1}, object()])
def test_a_payload_of_a_wrong_type(client: Client, payload: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="encode it first") as caught:
        client.publish("a", payload)
    expect_argument(caught, "payload", TypeError)


def test_a_payload_that_is_no_utf_8(client: Client) -> None:
    with pytest.raises(ArgumentError) as caught:
        client.publish("a", "\ud800")
    expect_argument(caught, "payload", ValueError)


def test_a_payload_larger_than_any_packet(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_sdk.client_base.LARGEST_PAYLOAD", 1000)
    monkeypatch.setattr("device_sdk.engine.arguments.LARGEST_PAYLOAD", 1000)
    for payload in (b"x" * 1001, bytearray(1001), "x" * 1001):
        with pytest.raises(ArgumentError, match="1001 bytes") as caught:
            client.publish("a", payload)
        expect_argument(caught, "payload", ValueError)


@pytest.mark.parametrize(
    ("expiry", "kind"),
    [(0, ValueError), (-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("5", TypeError)],
)
def test_a_wrong_expiry(client: Client, expiry: Any, kind: type[Exception]) -> None:
    with pytest.raises(ArgumentError) as caught:
        client.publish("a", b"x", expiry=expiry)
    expect_argument(caught, "expiry", kind)


@pytest.mark.parametrize(
    ("properties", "name", "kind"),
    [
        ({"content_typ": "x"}, "content_typ", ValueError),
        ({"content_type": 5}, "content_type", TypeError),
        ({"session_expiry_interval": 5}, "session_expiry_interval", ValueError),
        ({"payload_format_indicator": 2}, "payload_format_indicator", ValueError),
        ({"response_topic": "a/#"}, "response_topic", ValueError),
        ({"correlation_data": "text"}, "correlation_data", TypeError),
        ({"user_property": {"a": "b"}}, "user_property", TypeError),
        ({"message_expiry_interval": 5}, "properties", ValueError),
        ({"topic_alias": 1}, "properties", ValueError),
        ({"subscription_identifier": 1}, "properties", ValueError),
        (5, "properties", TypeError),
        ("content_type", "properties", TypeError),
        (["content_type"], "properties", TypeError),
    ],
)
def test_wrong_properties(client: Client, properties: Any, name: str, kind: type[Exception]) -> None:
    with pytest.raises(ArgumentError) as caught:
        client.publish("a", b"x", properties=properties)
    expect_argument(caught, name, kind)


def test_properties_in_mqtt_3(old_client: Client) -> None:
    with pytest.raises(ArgumentError, match=r"MQTT 3.1.1 has no properties") as caught:
        old_client.publish("a", properties={"content_type": "text/plain"})
    expect_argument(caught, "properties", ValueError)
    old_client.publish("a", qos=1, properties={})


@pytest.mark.parametrize(
    ("topic", "kind"),
    [
        ("", ValueError),
        ("a/#/b", ValueError),
        ("a+", ValueError),
        ("$share/g", ValueError),
        ("$share//a", ValueError),
        ("a\0", ValueError),
        ("x" * 65_536, ValueError),
        (b"a", TypeError),
        (None, TypeError),
        ([], ValueError),
        (["a"], TypeError),
        ([Subscription("a"), "b"], TypeError),
        (Subscription("a/#/b"), ValueError),
    ],
    ids=lambda value: repr(value)[:25],
)
def test_a_wrong_topic_filter(client: Client, topic: Any, kind: type[Exception]) -> None:
    with pytest.raises(ArgumentError) as caught:
        client.subscribe(topic)
    expect_argument(caught, "topic", kind)


@pytest.mark.parametrize(
    ("topic", "kind"),
    [("", ValueError), ("a#", ValueError), (5, TypeError), ([], ValueError), ([5], TypeError)],
)
def test_a_wrong_topic_filter_to_unsubscribe(client: Client, topic: Any, kind: type[Exception]) -> None:
    with pytest.raises(ArgumentError) as caught:
        client.unsubscribe(topic)
    expect_argument(caught, "topic", kind)


def test_wrong_subscription_options(client: Client, old_client: Client) -> None:
    with pytest.raises(ArgumentError) as caught:
        client.subscribe("a", retain_handling=3)
    expect_argument(caught, "retain_handling", ValueError)
    with pytest.raises(ArgumentError) as caught:
        client.subscribe("$share/g/a", no_local=True)
    expect_argument(caught, "no_local", ValueError)
    with pytest.raises(ArgumentError, match=r"MQTT 3.1.1") as caught:
        old_client.subscribe("a", retain_as_published=True)
    expect_argument(caught, "retain_as_published", ValueError)
    with pytest.raises(ArgumentError) as caught:
        client.subscribe("a", on_message="not callable")  # type: ignore[arg-type]
    expect_argument(caught, "on_message", TypeError)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("broker.example", ValueError),
        ("http://broker.example", ValueError),
        ("mqtt://", ValueError),
        ("mqtt://host:0", ValueError),
        ("mqtt://host:65536", ValueError),
        ("mqtt://host:port", ValueError),
        ("mqtt://host:1883/path", ValueError),
        ("mqtt://ho st", ValueError),
        ("", ValueError),
        (b"mqtt://host", TypeError),
        (None, TypeError),
        (1883, TypeError),
    ],
)
def test_a_wrong_url(url: Any, kind: type[Exception]) -> None:
    with pytest.raises(ArgumentError) as caught:
        Client(url)
    expect_argument(caught, "url", kind)


def test_a_password_never_shows_in_an_error_or_a_repr() -> None:
    with pytest.raises(ArgumentError) as caught:
        Client("mqtt://user:s3cret@host:port")
    assert "s3cret" not in str(caught.value)
    client = Client("mqtt://user:s3cret@host")
    assert "s3cret" not in repr(client) + repr(client._options)
    client.close()


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"version": "5"}, ValueError),
        ({"version": 5}, ValueError),
        ({"client_id": b"bytes"}, TypeError),
        ({"client_id": 17}, TypeError),
        ({"client_id": "a\0b"}, ValueError),
        ({"client_id": "x" * 65_536}, ValueError),
        ({"keep_alive": -1}, ValueError),
        ({"keep_alive": 65_536}, ValueError),
        ({"keep_alive": 1.5}, TypeError),
        ({"session_expiry": -1}, ValueError),
        ({"inflight": 0}, ValueError),
        ({"inflight": 65_536}, ValueError),
        ({"inflight": "20"}, TypeError),
        ({"inbox_limit": 0}, ValueError),
        ({"inbox_bytes": 0}, ValueError),
        ({"inbox_bytes": 1.5}, TypeError),
        ({"receive_maximum": 0}, ValueError),
        ({"maximum_packet_size": 10}, ValueError),
        ({"topic_alias_maximum": 65_536}, ValueError),
        ({"connect_timeout": 0}, ValueError),
        ({"connect_timeout": math.nan}, ValueError),
        ({"connect_timeout": "10"}, TypeError),
        ({"store": ""}, ValueError),
        ({"store": 5}, TypeError),
        ({"store": MemoryStore}, TypeError),
        ({"policy": "reject"}, TypeError),
        ({"reconnect": 5}, TypeError),
        ({"will": "offline"}, TypeError),
        ({"on_session_lost": "panic"}, ValueError),
        ({"on_connect": 5}, TypeError),
        ({"on_disconnect": 5}, TypeError),
        ({"on_message": "handler"}, TypeError),
        ({"on_event": []}, TypeError),
        ({"user_name": "a\0"}, ValueError),
        ({"user_name": "u", "password": 5}, TypeError),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_wrong_option(arguments: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(ArgumentError) as caught:
        Client(URL, **arguments)
    expect_argument(caught, list(arguments)[-1], kind)


@pytest.mark.parametrize(
    "will",
    [
        Will("a/#", b"x"),
        Will("", b"x"),
        Will("a", b"x", qos=3),
        Will("a", b"x" * 65_536),
        Will("a", properties={"content_type": 5}),
        Will("a", properties={"topic_alias": 5}),
    ],
    ids=lambda will: repr(will)[:40],
)
def test_a_wrong_will(will: Will) -> None:
    with pytest.raises(ArgumentError):
        Client(URL, will=will)


@pytest.mark.parametrize(
    "properties",
    [
        {"will_delay_interval": 1},
        {"nonsense": 1},
        {"authentication_data": b"x"},
        {"session_expiry_interval": 5},
        {"maximum_packet_size": 500},
        {"receive_maximum": 5},
        {"receive_maximum": None},
        {"topic_alias_maximum": 5},
        {"request_response_information": None},
        "request_response_information",
    ],
)
def test_wrong_connect_properties(properties: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        Client(URL, properties=properties)


def test_the_mark_of_a_bridge_is_not_for_mqtt_5() -> None:
    with pytest.raises(ArgumentError, match="no_local= and retain_as_published= to subscribe"):
        Client(URL, bridge=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {"version": "3.1.1", "properties": {"user_property": [("a", "b")]}},
        {"topic_alias_maximum": 5, "properties": {"maximum_packet_size": None}},
    ],
)
def test_connect_properties_that_do_not_go_with_others(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError) as caught:
        Client(URL, **arguments)
    expect_argument(caught, "properties", ArgumentError)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"max_messages": 0}, ValueError),
        ({"max_messages": "many"}, TypeError),
        ({"max_bytes": 0}, ValueError),
        ({"max_bytes": 1.5}, TypeError),
        ({"overflow": "explode"}, ValueError),
        ({"durability": "maybe"}, ValueError),
    ],
)
def test_a_wrong_policy(arguments: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(ArgumentError) as caught:
        StorePolicy(**arguments)
    expect_argument(caught, next(iter(arguments)), kind)


@pytest.mark.parametrize("drain", [-1, math.inf, math.nan, None, "5"])
def test_a_wrong_drain_time_leaves_the_client_open(drain: Any) -> None:
    client = Client(URL)
    with pytest.raises(ArgumentError) as caught:
        client.close(drain)
    assert caught.value.argument == "drain"
    client.publish("a", qos=1)  # still open
    client.close(0)


@pytest.mark.parametrize("timeout", [0, -1, math.inf, "5", None])
def test_a_wrong_connect_timeout_starts_nothing(client: Client, timeout: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        client.connect(timeout)
    assert caught.value.argument == "timeout"
    assert client.state == "idle"


def test_a_full_queue_says_how_full_and_what_to_do() -> None:
    client = Client(URL, policy=StorePolicy(max_messages=2), reconnect=ReconnectPolicy())
    client.publish("a", b"1", qos=1)
    client.publish("a", b"2", qos=2)
    with pytest.raises(QueueFullError, match=r"2 of 2 messages.*wait for acknowledgements"):
        client.publish("a", b"3", qos=1)
    assert client.stats.queued == 2
    client.close(0)
