"""Options of the transport reach it through the client, and a wrong one is named."""

from __future__ import annotations

import contextlib
import importlib.metadata
import socket
import ssl
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk import Client, TLSOptions, testing
from device_sdk.engine.connecting.back_off import LATER, NEVER
from device_sdk.errors import ArgumentError, ArgumentTypeError, ConnectFailedError, TlsError, TransportError
from device_sdk.net.base import ParsedUrl, open_transport
from device_sdk.net.memory import MemoryTransport
from device_sdk.testing import BrokerServer, ModelBroker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

URL = "mqtt://127.0.0.1:1"


@pytest.fixture(autouse=True)
def no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mqtt_proxy", "MQTT_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[BrokerServer[ModelBroker]]:
    with BrokerServer(ModelBroker()) as server:
        yield server


def description(url: Any = URL, **options: Any) -> str:
    """What the transport of a client with these options is."""
    client = Client(url, **options)
    try:
        return client._engine.transport.description
    finally:
        client.close(0)


def test_tls_encrypts_any_url() -> None:
    tls = TLSOptions(context=ssl.create_default_context())
    assert description("mqtts://127.0.0.1", tls=tls) == "tls 127.0.0.1:8883"
    assert description("mqtt://127.0.0.1", tls=tls).startswith("tls ")


def test_a_ready_context_is_taken_as_tls() -> None:
    assert description("mqtts://127.0.0.1", tls=ssl.create_default_context()) == "tls 127.0.0.1:8883"


def test_a_proxy_is_gone_through() -> None:
    assert description(proxy="http://127.0.0.1:3128") == "tcp 127.0.0.1:1 through http://127.0.0.1:3128"


def test_a_proxy_of_the_environment_is_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("mqtt_proxy", "http://127.0.0.1:3128")
    assert "through http://127.0.0.1:3128" in description()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert description() == "tcp 127.0.0.1:1"


def test_an_empty_proxy_is_the_direct_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("mqtt_proxy", "http://127.0.0.1:3128")
    assert description(proxy="") == "tcp 127.0.0.1:1"


def test_a_proxy_is_for_each_url() -> None:
    client = Client([URL, "mqtt://127.0.0.1:2"], proxy="http://127.0.0.1:3128")
    assert all("through" in broker.transport.description for broker in client._engine.connector.brokers.all)
    client.close(0)


def test_options_of_the_network_reach_the_socket(server: BrokerServer[ModelBroker]) -> None:
    with Client(server.url, network={"bind": "127.0.0.1", "user_timeout": 5}) as client:
        client.connect(5)
    with pytest.raises(ConnectFailedError):
        Client(server.url, network={"bind": "192.0.2.1"}).connect(5)


def test_each_url_gets_the_options_that_it_knows(server: BrokerServer[ModelBroker]) -> None:
    with Client(["memory://nobody", server.url], network={"bind": "127.0.0.1"}) as client:
        client.connect(5)


@pytest.mark.parametrize(
    ("options", "bytes_allowed"),
    [
        ({}, 1 << 20),
        ({"maximum_packet_size": 1000}, 1 << 20),
        ({"maximum_packet_size": 1 << 20}, (1 << 20) + (1 << 20)),
        ({"maximum_packet_size": 4 << 20, "network": {"max_message_size": 5000}}, 5000),
    ],
)
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_a_websocket_takes_what_the_largest_packet_needs(
    scheme: str, options: dict[str, Any], bytes_allowed: int
) -> None:
    pytest.importorskip("websockets", reason="needs websockets")
    client = Client([URL, f"{scheme}://127.0.0.1"], **options)
    transport: Any = client._engine.connector.brokers.all[1].transport
    assert transport.upgrade.max_message_size == bytes_allowed
    client.close(0)


def test_a_largest_packet_of_a_wrong_type_is_named_as_the_application_knows_it() -> None:
    pytest.importorskip("websockets", reason="needs websockets")
    with pytest.raises(ArgumentTypeError, match="maximum_packet_size"):
        Client("ws://127.0.0.1", maximum_packet_size="4 MiB")  # type: ignore[arg-type]


class Pigeon(MemoryTransport):
    """A transport of another distribution, which publishes no names of options."""

    def __init__(self, url: ParsedUrl, *, grains: int = 0) -> None:
        super().__init__(url)
        self.grains = grains


def crow(url: ParsedUrl, **options: Any) -> Pigeon:
    return Pigeon(url, **options)


@pytest.mark.parametrize("make", [Pigeon, crow])
def test_a_transport_that_publishes_no_options_gets_those_of_its_signature(
    monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    point = SimpleNamespace(name="pigeon", load=lambda: make)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point])
    client = Client("pigeon://coop", network={"grains": 7})
    transport: Any = client._engine.connector.brokers.all[0].transport
    assert transport.grains == 7
    client.close(0)
    with pytest.raises(ArgumentError, match="crumbs"):
        Client("pigeon://coop", network={"crumbs": 7})


def test_an_option_goes_past_a_transport_that_does_not_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    point = SimpleNamespace(name="pigeon", load=lambda: Pigeon)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point])
    client = Client(["pigeon://coop", URL], network={"grains": 7, "bind": "127.0.0.1"})
    client.close(0)


@pytest.mark.parametrize(
    ("url", "options", "argument", "kind"),
    [
        (URL, {"network": {"bnid": "127.0.0.1"}}, "bnid", ArgumentError),
        (URL, {"network": {"headers": {}}}, "headers", ArgumentError),
        (URL, {"network": {"bind": "nowhere:port:x"}}, "bind", ArgumentError),
        (URL, {"network": {"tls": None}}, "network", ArgumentError),
        (URL, {"network": {"largest_packet": 1}}, "network", ArgumentError),
        (URL, {"network": ["bind"]}, "network", ArgumentTypeError),
        (URL, {"network": {1: 2}}, "network", ArgumentTypeError),
        (URL, {"network": {"user_timeout": "5"}}, "network", ArgumentTypeError),
        (URL, {"tls": True}, "tls", ArgumentTypeError),
        (URL, {"proxy": "nonsense"}, "proxy", ArgumentError),
        (URL, {"proxy": 3128}, "proxy", ArgumentTypeError),
        ("memory://nobody", {"proxy": "http://127.0.0.1"}, "proxy", ArgumentError),
        (["memory://a", URL], {"proxy": "http://127.0.0.1"}, "proxy", ArgumentError),
        (open_transport("memory://a"), {"network": {"bind": "127.0.0.1"}}, "bind", ArgumentError),
        (open_transport("memory://a"), {"proxy": "http://127.0.0.1"}, "proxy", ArgumentError),
        ([], {}, "url", ArgumentError),
        ([URL, 5], {}, "url", ArgumentTypeError),
        ([open_transport("memory://a")] * 2, {}, "url", ArgumentError),
        (["mqtt://a%00b@h"], {}, "user_name", ArgumentError),
        (URL, {"return_to_first": 0}, "return_to_first", ArgumentError),
        (URL, {"ack_timeout": -1}, "ack_timeout", ArgumentError),
        (URL, {"ack_timeout": "5"}, "ack_timeout", ArgumentTypeError),
        (URL, {"credentials": "token"}, "credentials", ArgumentTypeError),
        (URL, {"credentials": print, "user_name": "me"}, "credentials", ArgumentError),
        (URL, {"credentials": print, "password": "me"}, "credentials", ArgumentError),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_option_is_named(url: Any, options: dict[str, Any], argument: str, kind: type) -> None:
    with pytest.raises(ArgumentError) as caught:
        Client(url, **options)
    assert caught.value.argument == argument
    assert isinstance(caught.value, kind)


def test_the_error_says_which_streams_do_not_know_an_option() -> None:
    with pytest.raises(ArgumentError, match=r"bnid: is no option of tcp 127\.0\.0\.1:1"):
        Client(URL, network={"bnid": "127.0.0.1"})


# Refusals on the way to the broker: one attempt, then patience


class Refusing:
    """Does the same with every connection, and counts them."""

    def __init__(self, refuse: Callable[[socket.socket], object]) -> None:
        self.connections = 0
        self._refuse = refuse
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                connection.settimeout(5)
                with connection, contextlib.suppress(OSError):
                    self._refuse(connection)

    def __enter__(self) -> Refusing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)


@pytest.mark.parametrize("way", ["websocket", "proxy"])
@pytest.mark.parametrize(
    ("status", "retry"), [(301, NEVER), (401, NEVER), (403, NEVER), (404, NEVER), (407, NEVER), (503, LATER)]
)
def test_a_refusal_on_the_way_is_one_attempt_and_then_patience(way: str, status: int, retry: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)

    with Refusing(answer) as server:
        if way == "websocket":
            pytest.importorskip("websockets", reason="needs websockets")
            client = Client(f"ws://{server.address}")
        else:
            client = Client("mqtt://broker.example", proxy=f"http://{server.address}")
        with pytest.raises(ConnectFailedError, match=str(status)) as caught:
            client.connect(5)
        client.close(0)
        assert caught.value.retry == retry
        assert server.connections == 1


def test_a_certificate_of_an_unknown_authority_is_one_attempt_and_then_patience(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs cryptography")
    certificates = testing.Certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    with Refusing(lambda connection: context.wrap_socket(connection, server_side=True)) as server:
        client = Client(f"mqtts://{server.address}", tls=TLSOptions(ca_file=certificates.other_ca))
        with pytest.raises(TlsError) as caught:
            client.connect(5)
        client.close(0)
    assert caught.value.retry == NEVER
    assert server.connections == 1


def test_a_server_without_tls_is_no_reason_for_less_security(server: BrokerServer[ModelBroker]) -> None:
    client = Client(server.url.replace("mqtt:", "mqtts:"), tls=ssl.create_default_context())
    with pytest.raises(ConnectFailedError):
        client.connect(5)
    client.close(0)
    assert server.call(lambda: list(server.broker.journal)) == []


@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
@pytest.mark.parametrize("shown", ["nothing", "a stranger's"])
def test_a_client_certificate_that_is_rejected_after_the_handshake_is_one_attempt_and_then_patience(
    scheme: str, shown: str, tmp_path: Path
) -> None:
    """In TLS 1.3 the broker looks at it when ours is over, so that the stream is open for a moment."""
    pytest.importorskip("cryptography", reason="needs cryptography")
    pytest.importorskip("websockets", reason="needs websockets")
    certificates = testing.Certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    stranger = certificates.client_from_other_ca
    ours: dict[str, Any] = (
        {} if shown == "nothing" else {"certificate": stranger.certificate, "key": stranger.key}
    )
    with Refusing(lambda connection: context.wrap_socket(connection, server_side=True)) as server:
        client = Client(f"{scheme}://{server.address}", tls=TLSOptions(ca_file=certificates.ca, **ours))
        with pytest.raises(TransportError, match=r"certificate=\.\.\., key=\.\.\.") as caught:
            client.connect(5)
        client.close(0)
    assert caught.value.retry == NEVER
    assert server.connections == 1
