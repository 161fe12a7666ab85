"""The drop-in has every public name of paho-mqtt 2.2.0, with its signature, value and errors.

Every difference is in one of the two tables, with its reason, and a reason that is no longer needed fails.
"""

from __future__ import annotations

import importlib
import ssl
import warnings
from collections.abc import Callable
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import pytest

import device_sdk.paho
from tests.paho.api import describe, public_names

MODULES = (
    "client",
    "enums",
    "exception",
    "matcher",
    "packettypes",
    "properties",
    "publish",
    "reasoncodes",
    "subscribe",
    "subscribeoptions",
)

# Pattern of module.name -> why ours is not the same.
DIFFERENCES = {
    "client.Client": "ours has one keyword argument more, store",
    "client.sockpair_data": "what paho-mqtt writes to wake its own loop",
    "*.MQTTMatcher.Node": "the nodes of paho-mqtt's tree; ours is in device_sdk.mqtt.topics",
    "*.ReasonCode*.names": "MQTT 5.0 §3.2.2.2 also allows 0x99 in CONNACK, where paho-mqtt would raise",
    "*.ReasonCodes": "the parameters are named instead of *args and **kwargs",
    "publish.CallbackAPIVersion*": "imported there for annotations only; it is in enums and in client",
    "publish.MQTTProtocolVersion*": "imported there for annotations only; it is in enums and in client",
    "publish.Properties*": "imported there for annotations only; it is in properties and in client",
    "publish.ReasonCode*": "imported there for annotations only; it is in reasoncodes and in client",
}

pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt")

# When paho-mqtt's constructor raises, its __del__ fails too.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def paho_module(name: str) -> Any:
    return importlib.import_module(f"paho.mqtt.{name}")


def our_module(name: str) -> Any:
    return importlib.import_module(f"device_sdk.paho.{name}")


def differences(module: str) -> dict[str, tuple[str, str | None]]:
    names = public_names(paho_module(module))
    theirs, ours = describe(paho_module(module), names), describe(our_module(module), names)
    return {
        f"{module}.{name}": (line, ours.get(name)) for name, line in theirs.items() if ours.get(name) != line
    }


def test_the_package_has_the_version_and_the_exception() -> None:
    package = importlib.import_module("paho.mqtt")
    assert device_sdk.paho.__version__ == package.__version__
    assert device_sdk.paho.MQTTException.__name__ == package.MQTTException.__name__


@pytest.mark.parametrize("module", MODULES)
def test_every_name_is_there_and_the_same(module: str) -> None:
    found = differences(module)
    unexplained = {
        name: lines
        for name, lines in found.items()
        if not any(fnmatchcase(name, pattern) for pattern in DIFFERENCES)
    }
    assert not unexplained


def test_every_explained_difference_exists() -> None:
    found = [name for module in MODULES for name in differences(module)]
    unused = [pattern for pattern in DIFFERENCES if not any(fnmatchcase(name, pattern) for name in found)]
    assert not unused


# What calls return and raise

THEIRS = SimpleNamespace(**{name: paho_module(name) for name in MODULES})
OURS = SimpleNamespace(**{name: our_module(name) for name in MODULES})


SETTINGS = (
    "host",
    "port",
    "keepalive",
    "transport",
    "protocol",
    "connect_timeout",
    "max_inflight_messages",
    "max_queued_messages",
    "suppress_exceptions",
    "on_connect",
    "on_message",
    "on_pre_connect",
    "logger",
)


def client(m: Any, **arguments: Any) -> Any:
    return m.client.Client(m.enums.CallbackAPIVersion.VERSION2, **arguments)


def client_5(m: Any) -> Any:
    return client(m, protocol=m.enums.MQTTProtocolVersion.MQTTv5)


def properties(m: Any, packet: str) -> Any:
    return m.properties.Properties(getattr(m.packettypes.PacketTypes, packet))


def reason(m: Any, packet: str, *arguments: Any, **keywords: Any) -> Any:
    return m.reasoncodes.ReasonCode(getattr(m.packettypes.PacketTypes, packet), *arguments, **keywords)


def attribute(name: str, value: Any) -> Callable[[Any], Any]:
    return lambda m: setattr(client(m), name, value)


def set_property(packet: str, name: str, value: Any) -> Callable[[Any], Any]:
    return lambda m: setattr(properties(m, packet), name, value)


def connect_with(m: Any, **arguments: Any) -> Any:
    return client(m).connect_async("localhost", **arguments)


def tls_twice(m: Any) -> None:
    made = client(m)
    made.tls_set()
    made.tls_set()


CALLS: dict[str, Callable[[Any], Any]] = {
    # The constructor.
    "client id first": lambda m: m.client.Client("id"),
    "transport": lambda m: client(m, transport="udp"),
    "transport case": lambda m: client(m, transport="WebSockets").transport,
    "clean_session with MQTT 5.0": lambda m: client(m, protocol=5, clean_session=True),
    "clean_session False without id": lambda m: client(m, clean_session=False),
    "client id as bytes": lambda m: client(m, client_id=b"id") and None,
    # Connecting.
    "empty host": lambda m: client(m).connect(""),
    "port 0": lambda m: client(m).connect("localhost", 0),
    "negative keepalive": lambda m: client(m).connect("localhost", keepalive=-1),
    "negative bind_port": lambda m: client(m).connect("localhost", bind_port=-1),
    "clean_start in 3.1.1": lambda m: connect_with(m, clean_start=True),
    "properties in 3.1.1": lambda m: connect_with(m, properties=properties(m, "CONNECT")),
    "connect_async": connect_with,
    "reconnect without host": lambda m: client(m).reconnect(),
    "disconnect while not connected": lambda m: client(m).disconnect(),
    "is_connected": lambda m: client(m).is_connected(),
    # Loops without a connection.
    "loop": lambda m: client(m).loop(),
    "loop with negative timeout": lambda m: client(m).loop(timeout=-1),
    "loop_read": lambda m: client(m).loop_read(),
    "loop_write": lambda m: client(m).loop_write(),
    "loop_misc": lambda m: client(m).loop_misc(),
    "loop_stop": lambda m: client(m).loop_stop(),
    "want_write": lambda m: client(m).want_write(),
    "socket": lambda m: client(m).socket(),
    # Publishing.
    "publish offline": lambda m: client(m).publish("a", "b", 0).rc,
    "publish offline, QoS 1": lambda m: tuple(client(m).publish("a", "b", 1)),
    "publish info": lambda m: str(client(m).publish("a", "b", 1)),
    "publish empty topic": lambda m: client(m).publish(""),
    "publish to None": lambda m: client(m).publish(None),
    "publish to wildcard": lambda m: client(m).publish("a/#"),
    "publish to plus": lambda m: client(m).publish("a/+/b"),
    "publish to long topic": lambda m: client(m).publish("a" * 65_536),
    "publish QoS 3": lambda m: client(m).publish("a", qos=3),
    "publish QoS -1": lambda m: client(m).publish("a", qos=-1),
    "publish a list": lambda m: client(m).publish("a", ["b"]),
    "publish a dict": lambda m: client(m).publish("a", {}),
    "publish integers": lambda m: client(m).publish("a", 21, 1).rc,
    "publish floats": lambda m: client(m).publish("a", 21.5, 1).rc,
    "publish bytearray": lambda m: client(m).publish("a", bytearray(b"b"), 1).rc,
    # Subscribing.
    "subscribe offline": lambda m: client(m).subscribe("a"),
    "subscribe offline to a tuple": lambda m: client(m).subscribe(("a", 1)),
    "subscribe offline to a list": lambda m: client(m).subscribe([("a", 1), ("b", 2)]),
    "subscribe to nothing": lambda m: client(m).subscribe(""),
    "subscribe to None": lambda m: client(m).subscribe(None),
    "subscribe to empty list": lambda m: client(m).subscribe([]),
    "subscribe QoS 3": lambda m: client(m).subscribe("a", 3),
    "subscribe tuple QoS 3": lambda m: client(m).subscribe(("a", 3)),
    "subscribe list QoS -1": lambda m: client(m).subscribe([("a", -1)]),
    "subscribe bad filter": lambda m: client(m).subscribe("a/#/b"),
    "subscribe bad plus": lambda m: client(m).subscribe("a+/b"),
    "subscribe to a number": lambda m: client(m).subscribe(7),
    "subscribe with options and QoS": lambda m: client_5(m).subscribe(
        "a", 1, options=m.subscribeoptions.SubscribeOptions()
    ),
    "subscribe 5.0 tuple with QoS": lambda m: client_5(m).subscribe(("a", 1)),
    "unsubscribe offline": lambda m: client(m).unsubscribe("a"),
    "unsubscribe from nothing": lambda m: client(m).unsubscribe(""),
    "unsubscribe from None": lambda m: client(m).unsubscribe(None),
    "unsubscribe from a number": lambda m: client(m).unsubscribe(7),
    "callback None": lambda m: client(m).message_callback_add("a", None),
    "callback without filter": lambda m: client(m).message_callback_add(None, print),
    "callback removed": lambda m: client(m).message_callback_remove("a"),
    "callback removed None": lambda m: client(m).message_callback_remove(None),
    # Settings.
    "will": lambda m: client(m).will_set("a", "b", 1, True),
    "will without topic": lambda m: client(m).will_set(""),
    "will QoS 3": lambda m: client(m).will_set("a", qos=3),
    "will payload list": lambda m: client(m).will_set("a", []),
    "will properties dict": lambda m: client_5(m).will_set("a", properties={}),
    "will topic": lambda m: client(m).will_topic,
    "user name": lambda m: client(m).username_pw_set("user", b"secret"),
    "user name None": lambda m: client(m).username_pw_set(None),
    "TLS": lambda m: client(m).tls_set(),
    "TLS twice": tls_twice,
    "TLS with a missing CA": lambda m: client(m).tls_set(ca_certs="/nonexistent/ca.pem"),
    "TLS key without certificate": lambda m: client(m).tls_set(keyfile="key.pem"),
    "TLS insecure before TLS": lambda m: client(m).tls_insecure_set(True),
    "TLS context": lambda m: client(m).tls_set_context(ssl.create_default_context()),
    "WebSocket headers": lambda m: client(m).ws_set_options(headers=7),
    "proxy of no kind": lambda m: client(m).proxy_set(proxy_type=99, proxy_addr="localhost"),
    "proxy without address": lambda m: client(m).proxy_set(proxy_type=2),
    "inflight": lambda m: client(m).max_inflight_messages_set(-1),
    "queue size": lambda m: type(client(m).max_queued_messages_set(10)).__name__,
    "queue size negative": lambda m: client(m).max_queued_messages_set(-1),
    "queue size text": lambda m: client(m).max_queued_messages_set("x"),
    "user data": lambda m: client(m, userdata=7).user_data_get(),
    "out messages": lambda m: client(m).drop_out_messages(),
    "host": attribute("host", ""),
    "port": attribute("port", 0),
    "keepalive": attribute("keepalive", -1),
    "transport later": attribute("transport", "udp"),
    "connect_timeout": attribute("connect_timeout", 0),
    "protocol": attribute("protocol", 4),
    "max_inflight_messages": attribute("max_inflight_messages", -1),
    "username": lambda m: client(m).username,
    "password": lambda m: client(m).password,
    "defaults": lambda m: [getattr(client(m), name) for name in SETTINGS],
    # Functions.
    "error_string": lambda m: [m.client.error_string(code) for code in (*m.enums.MQTTErrorCode, 99)],
    "connack_string": lambda m: [m.client.connack_string(code) for code in (*range(7), 0x87)],
    "connack_string of reasons": lambda m: [
        m.client.connack_string(reason(m, "CONNACK", identifier=code)) for code in (0, 0x84, 0x86, 0x87, 0x97)
    ],
    "connack rc to reason": lambda m: [
        str(m.client.convert_connack_rc_to_reason_code(code)) for code in m.enums.ConnackCode
    ],
    "disconnect rc to reason": lambda m: [
        str(m.client.convert_disconnect_error_code_to_reason_code(code)) for code in m.enums.MQTTErrorCode
    ],
    "topic_matches_sub": lambda m: [
        m.client.topic_matches_sub(topic_filter, topic)
        for topic_filter in ("a", "a/+", "a/#", "#", "+/b", "$SYS/#", "a/+/#")
        for topic in ("a", "a/b", "a/b/c", "$SYS/a", "", "/b")
    ],
    "message": lambda m: m.client.MQTTMessage(topic=b"a/b").topic,
    "message with a wrong topic": lambda m: m.client.MQTTMessage(topic=b"\xff").topic,
    "message equality": lambda m: m.client.MQTTMessage(1, b"a") == m.client.MQTTMessage(1, b"b"),
    "message info": lambda m: [*m.client.MQTTMessageInfo(7)],
    "message info index": lambda m: m.client.MQTTMessageInfo(7)[2],
    "flags": lambda m: str(m.client.ConnectFlags(True)) + str(m.client.DisconnectFlags(False)),
    # Properties, reason codes, options, matcher.
    "property unknown": set_property("PUBLISH", "Nothing", 1),
    "property of another packet": set_property("PUBLISH", "ReceiveMaximum", 1),
    "property out of range": set_property("CONNECT", "ReceiveMaximum", 0),
    "property of the wrong type": set_property("CONNECT", "ReceiveMaximum", "1"),
    "property not set": lambda m: properties(m, "PUBLISH").TopicAlias,
    "properties": lambda m: str(properties(m, "PUBLISH")) + repr(properties(m, "PUBLISH").json()),
    "properties tables": lambda m: [
        properties(m, "PUBLISH").names[name]
        for name in ("User Property", "Subscription Identifier Available")
    ],
    "properties types": lambda m: properties(m, "PUBLISH").types,
    "properties of each identifier": lambda m: [
        (number, index, sorted(packets))
        for number, (index, packets) in sorted(properties(m, "PUBLISH").properties.items())
    ],
    "properties cut off": lambda m: properties(m, "PUBLISH").unpack(b"\x05\x09\x00\x05ab"),
    "properties length": lambda m: properties(m, "PUBLISH").unpack(b"\x80"),
    "properties twice": lambda m: properties(m, "PUBLISH").unpack(b"\x04\x01\x00\x01\x00"),
    "reason": lambda m: repr(reason(m, "CONNACK", "Banned")) + str(reason(m, "DISCONNECT")),
    "reason unknown": lambda m: reason(m, "CONNACK", "Nothing"),
    "reason number unknown": lambda m: reason(m, "CONNACK", identifier=3),
    "reason of another packet": lambda m: reason(m, "CONNACK", identifier=0x8E),
    "reason hash": lambda m: hash(reason(m, "CONNACK")),
    "options QoS": lambda m: m.subscribeoptions.SubscribeOptions(qos=3),
    "options retain handling": lambda m: m.subscribeoptions.SubscribeOptions(retainHandling=3),
    "options unknown": lambda m: setattr(m.subscribeoptions.SubscribeOptions(), "qos", 1),
    "options": lambda m: str(m.subscribeoptions.SubscribeOptions(1, True)),
    "options bytes": lambda m: m.subscribeoptions.SubscribeOptions(2, True, True, 2).pack(),
    "matcher": lambda m: m.matcher.MQTTMatcher()["a"],
    "integers": lambda m: [
        m.properties.writeInt16(258),
        m.properties.writeInt32(1),
        m.properties.readInt16(b"\1\2"),
    ],
    "texts": lambda m: [
        m.properties.writeUTF("é"),
        m.properties.readUTF(b"\0\1a", 3),
        m.properties.writeBytes(b"a"),
    ],
    "text cut off": lambda m: m.properties.readUTF(b"\0\5a", 3),
    "varint": lambda m: [m.properties.VariableByteIntegers.encode(n) for n in (0, 128, 268_435_455)],
    "varint too large": lambda m: m.properties.VariableByteIntegers.encode(268_435_456),
    "varint too long": lambda m: m.properties.VariableByteIntegers.decode(b"\xff\xff\xff\xff\x01"),
    # One-shot helpers.
    "publish.multiple of nothing": lambda m: m.publish.multiple([]),
    "publish.multiple of a number": lambda m: m.publish.multiple(7),
    "publish.single with auth": lambda m: m.publish.single("a", auth={"password": "secret"}),
    "subscribe.simple of none": lambda m: m.subscribe.simple("a", msg_count=0),
    "subscribe.callback QoS 3": lambda m: m.subscribe.callback(print, "a", qos=3),
}

# Call -> why ours answers differently.
CALL_DIFFERENCES: dict[str, str] = {}


def outcome(call: Callable[[Any], Any], m: Any) -> Any:
    """Return what a call returns, or the exception it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call(m)
        except Exception as error:
            return error


def same(ours: Any, theirs: Any) -> bool:
    """Tell whether a program sees no difference: an error may be of a narrower class with the same name."""
    if isinstance(theirs, Exception):
        return type(theirs).__name__ in (kind.__name__ for kind in type(ours).__mro__)
    if isinstance(theirs, list):
        return isinstance(ours, list) and [*map(str, ours)] == [*map(str, theirs)]
    return bool(ours == theirs)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_returns_or_raises_the_same(name: str) -> None:
    ours, theirs = outcome(CALLS[name], OURS), outcome(CALLS[name], THEIRS)
    if name in CALL_DIFFERENCES:
        assert not same(ours, theirs), "this difference is gone: take it out of CALL_DIFFERENCES"
    else:
        assert same(ours, theirs), f"ours: {ours!r}; paho-mqtt: {theirs!r}"
