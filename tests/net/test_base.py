"""URLs, and the table from scheme to transport."""

from __future__ import annotations

import importlib.metadata
import re
from typing import Any

import pytest

from device_sdk.errors import ArgumentError, ArgumentTypeError
from device_sdk.net import ParsedUrl, Transport, open_transport, parse_url
from device_sdk.net.base import TRANSPORTS
from device_sdk.net.memory import MemoryTransport
from device_sdk.net.tcp import TcpTransport


def parts(url: ParsedUrl) -> tuple[Any, ...]:
    return (url.scheme, url.host, url.port, url.path, url.query, url.user_name, url.password)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://broker.example", ("mqtt", "broker.example", 1883, "", {}, None, None)),
        ("MQTTS://Broker.Example", ("mqtts", "Broker.Example", 8883, "", {}, None, None)),
        ("ws://h", ("ws", "h", 80, "", {}, None, None)),
        ("wss://h/mqtt?a=1&b=%26", ("wss", "h", 443, "/mqtt", {"a": "1", "b": "&"}, None, None)),
        ("mqtt://h:1", ("mqtt", "h", 1, "", {}, None, None)),
        ("mqtt://h:65535/", ("mqtt", "h", 65535, "/", {}, None, None)),
        ("mqtt://u:p@h", ("mqtt", "h", 1883, "", {}, "u", "p")),
        ("mqtt://u@h", ("mqtt", "h", 1883, "", {}, "u", None)),
        ("mqtt://:p@h", ("mqtt", "h", 1883, "", {}, "", "p")),
        ("mqtt://u:@h", ("mqtt", "h", 1883, "", {}, "u", "")),
        ("mqtt://u%40d:p%3a%2F%25%C3%BC@h:1", ("mqtt", "h", 1, "", {}, "u@d", "p:/%ü")),
        ("mqtt://a@b:c@d@h", ("mqtt", "h", 1883, "", {}, "a@b", "c@d")),
        ("mqtt://[::1]", ("mqtt", "::1", 1883, "", {}, None, None)),
        ("mqtt://u:p@[2001:db8::7]:99/x", ("mqtt", "2001:db8::7", 99, "/x", {}, "u", "p")),
        ("mqtt://[fe80::1%25eth0]", ("mqtt", "fe80::1%eth0", 1883, "", {}, None, None)),
        ("mqtt://10.0.0.1", ("mqtt", "10.0.0.1", 1883, "", {}, None, None)),
        ("mqtt://bücher.example", ("mqtt", "bücher.example", 1883, "", {}, None, None)),
        ("serial:///dev/ttyUSB0?baud=9600", ("serial", "", 0, "/dev/ttyUSB0", {"baud": "9600"}, None, None)),
        ("serial:/dev/ttyS0?baud=9600", ("serial", "", 0, "/dev/ttyS0", {"baud": "9600"}, None, None)),
        ("serial://u:p@/dev/ttyS0", ("serial", "", 0, "/dev/ttyS0", {}, "u", "p")),
        ("memory://a_b-c", ("memory", "a_b-c", 0, "", {}, None, None)),
        ("x+y-z.1://h", ("x+y-z.1", "h", 0, "", {}, None, None)),
        ("mqtt://h?flag", ("mqtt", "h", 1883, "", {"flag": ""}, None, None)),
    ],
)
def test_a_url_is_split_into_its_parts(url: str, expected: tuple[Any, ...]) -> None:
    assert parts(parse_url(url)) == expected


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "no scheme"),
        ("broker.example", "no scheme"),
        ("broker.example:1883", "no scheme"),
        ("://h", "scheme"),
        ("1x://h", "scheme"),
        ("a_b://h", "scheme"),
        ("mqtt:/h", "names no host"),
        ("mqtt:h", "no scheme"),
        ("mqtt://", "names no host"),
        ("mqtt://:1883", "names no host"),
        ("mqtt://h:", "port"),
        ("mqtt://h:0", "port"),
        ("mqtt://h:65536", "port"),
        ("mqtt://h:-1", "port"),
        ("mqtt://h:+1", "port"),
        ("mqtt://h:18 83", "white space"),
        ("mqtt://h:x", "port"),
        ("mqtt://h:\N{ARABIC-INDIC DIGIT ONE}", "port"),
        ("mqtt://h:" + "9" * 5000, "port"),
        ("mqtt://::1", "brackets"),
        ("mqtt://[::1", "IPv6"),
        ("mqtt://[host]", "IPv6"),
        ("mqtt://[::g]", "IPv6"),
        ("mqtt://[::1]1883", "between"),
        ("mqtt://ho st", "white space"),
        ("mqtt://h\n", "white space"),
        ("mqtt://h\x00", "control"),
        ("mqtt://h\\x", "host name"),
        ("mqtt://h,i", "host name"),
        ("mqtt://h#x", "%23"),
        ("mqtt://%zz@h", "hexadecimal"),
        ("mqtt://%4@h", "hexadecimal"),
        ("mqtt://u%@h", "hexadecimal"),
        ("mqtt://%ff@h", "UTF-8"),
        ("mqtt://h?a=1&a=2", "twice"),
        ("mqtt://h?=1", "nameless"),
        ("mqtt://h?a=1&&b=2", "nameless"),
    ],
)
def test_a_bad_url_says_what_is_wrong(url: str, problem: str) -> None:
    with pytest.raises(ArgumentError, match=problem) as caught:
        parse_url(url)
    assert caught.value.argument == "url"


def test_a_bad_url_comes_with_an_example() -> None:
    with pytest.raises(ArgumentError, match=r"has no scheme; write 'mqtt://broker'"):
        parse_url("broker")


@pytest.mark.parametrize("url", [None, b"mqtt://h", 1883])
def test_a_url_of_another_type_is_a_type_error(url: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="url: must be a str"):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    ["mqtt://u:s3cret@h:x", "mqtt://u:s3c/ret@h", "mqtt://u:s3cret#@h", "mqtt://u:s3c?ret@h", "u:s3cret@h "],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_url(url)
    assert "s3c" not in str(caught.value)


def test_the_repr_masks_the_password() -> None:
    url = parse_url("wss://u:s3cret@[::1]:99/mqtt?a=1")
    assert repr(url) == str(url) == "ParsedUrl('wss://u:***@[::1]:99/mqtt?a=1')"
    assert repr(parse_url("memory://x")) == "ParsedUrl('memory://x')"


def test_the_scheme_decides_the_transport() -> None:
    assert type(open_transport("mqtt://h")) is TcpTransport
    assert type(open_transport("tcp://h")) is TcpTransport
    assert type(open_transport("memory://h")) is MemoryTransport


def test_options_reach_the_transport() -> None:
    with pytest.raises(ArgumentError, match="user_timeout"):
        open_transport("mqtt://h", user_timeout=-1)
    with pytest.raises(TypeError, match="colour"):
        open_transport("mqtt://h", colour="red")


def test_an_unknown_scheme_lists_those_there_are() -> None:
    with pytest.raises(
        ArgumentError,
        match=rf"no transport for 'carrier-pigeon'.*: {re.escape(', '.join(sorted(TRANSPORTS)))}",
    ) as caught:
        open_transport("carrier-pigeon://coop")
    assert caught.value.argument == "url"


def test_an_entry_point_adds_a_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint(
        "pigeon", "device_sdk.net.memory:MemoryTransport", "device_sdk.transports"
    )

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        return [point] if group == "device_sdk.transports" else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    assert isinstance(open_transport("pigeon://coop"), MemoryTransport)
    with pytest.raises(ArgumentError, match="pigeon"):
        open_transport("crow://coop")


def test_a_transport_that_lacks_a_method_cannot_be_made() -> None:
    incomplete: Any = type("Incomplete", (Transport,), {})
    with pytest.raises(TypeError, match="abstract"):
        incomplete()
