"""The options that each transport publishes, so that whoever has some to give can ask for their names."""

from __future__ import annotations

import importlib.metadata
import inspect
from typing import Any

import pytest

from device_sdk._load import load
from device_sdk.errors import ArgumentError, MissingDependency
from device_sdk.net.base import TRANSPORTS, ParsedUrl, open_transport, takes
from device_sdk.net.base import transport_options as options_of
from device_sdk.net.memory import MemoryTransport
from device_sdk.net.stack import tcp_stream
from device_sdk.net.tcp import TcpTransport

URLS = {
    "memory": "memory://name",
    "rfc2217": "rfc2217://host:4000",
    "serial": "serial:/dev/ttyUSB0",
    "socket": "socket://host:4000",
    "unix": "unix:/run/mqtt.sock",
}
NEEDS = {"ws": "websockets", "wss": "websockets", "serial": "serial", "rfc2217": "serial", "socket": "serial",
         "mqtt+srv": "dns", "mqtts+srv": "dns"}  # fmt: skip


def transport_options(scheme: str) -> frozenset[str] | None:
    return options_of(ParsedUrl(scheme, "host"))


@pytest.fixture(params=sorted(TRANSPORTS))
def scheme(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"needs {NEEDS[name]}")
    return name


def test_every_transport_publishes_its_options_itself(scheme: str) -> None:
    assert "options" in vars(load(TRANSPORTS[scheme]))


def test_every_option_that_is_published_is_taken(scheme: str) -> None:
    for name in transport_options(scheme) or ():
        try:
            open_transport(URLS.get(scheme, f"{scheme}://host"), **{name: "nonsense"})
        except (ArgumentError, MissingDependency):
            pass  # the option is known, only its value is not
        except TypeError as error:
            assert "unexpected keyword" not in str(error)


def test_every_parameter_of_a_constructor_is_published(scheme: str) -> None:
    parameters = inspect.signature(load(TRANSPORTS[scheme])).parameters.values()
    named = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert named - {"tls"} <= (transport_options(scheme) or set())


def test_streams_over_tcp_take_its_options_and_the_proxy(scheme: str) -> None:
    if scheme not in URLS:
        assert {*TcpTransport.options, "proxy"} <= (transport_options(scheme) or set())


def test_only_a_stream_with_a_bound_of_its_own_takes_the_largest_packet() -> None:
    pytest.importorskip("websockets", reason="needs websockets")
    takers = {name for name in ("mqtt", "mqtts", "ws", "wss", "memory") if "largest_packet" in
              (transport_options(name) or ())}  # fmt: skip
    assert takers == {"ws", "wss"}


def test_the_options_of_an_unknown_scheme_are_an_error() -> None:
    with pytest.raises(ArgumentError, match="no transport for 'crow'"):
        transport_options("crow")


# Transports of others, which may publish nothing


class WithSpeed(MemoryTransport):
    """Publishes nothing itself; what its base publishes says nothing about it."""

    def __init__(self, url: ParsedUrl, *, speed: int = 1) -> None:
        super().__init__(url)


class Published(MemoryTransport):
    options = ("speed",)

    def __init__(self, url: ParsedUrl, **options: Any) -> None:
        super().__init__(url)


def forwarding(url: ParsedUrl, **options: Any) -> Any:
    return tcp_stream(url, **options)


@takes("speed")
def decorated(url: ParsedUrl, **options: Any) -> Any:
    return MemoryTransport(url)


@pytest.mark.parametrize(
    ("make", "expected"),
    [(WithSpeed, {"speed"}), (Published, {"speed"}), (forwarding, None), (decorated, {"speed"})],
)
def test_a_transport_of_an_entry_point_publishes_its_options_or_is_read(
    monkeypatch: pytest.MonkeyPatch, make: Any, expected: set[str] | None
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [Point(make)])
    assert transport_options("pigeon") == expected


class Point:
    """An entry point for the scheme ``pigeon``."""

    name = "pigeon"

    def __init__(self, make: Any) -> None:
        self._make = make

    def load(self) -> Any:
        return self._make
