"""Connecting with the façade: arguments, errors as the system raised them, what CONNECT says."""

from __future__ import annotations

import queue
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import device_sdk.paho.client as mqtt
from device_sdk.mqtt.packets import Connack, Disconnect
from device_sdk.paho import _srv
from device_sdk.paho._endpoint import Endpoint
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties
from device_sdk.testing import BrokerServer, ModelBroker
from device_sdk.testing.scripted_broker import close, expect, ignore, send
from tests.paho.conftest import SECONDS, Clients, scripted, start
from tests.steps import eventually


def packet_of(client: mqtt.Client) -> bytes:
    """Connect to a broker that says nothing, and return what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client.connect("127.0.0.1", listener.getsockname()[1])
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(SECONDS)
            return peer.recv(1000)


def test_connect_has_no_property_that_the_program_has_not_set(clients: Clients) -> None:
    plain = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c"
    assert packet_of(clients("c", protocol=mqtt.MQTTv5)) == plain


def test_bridge_mode_sets_the_high_bit_of_the_protocol_level(clients: Clients) -> None:
    client = clients("c")
    client.enable_bridge_mode()
    assert packet_of(client) == b"\x10\x0d\x00\x04MQTT\x84\x02\x00\x3c\x00\x01c"


def test_mqtt_3_1_makes_up_a_client_identifier(clients: Clients) -> None:
    packet = packet_of(clients(protocol=mqtt.MQTTv31))
    head, made = packet[:16], packet[16:].decode()
    assert head == b"\x10\x24\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x16"
    assert len(made) == 22
    assert made.isalnum()


def test_a_password_without_a_user_name_is_not_sent(clients: Clients) -> None:
    client = clients("c")
    client.username_pw_set(None, "secret")
    assert packet_of(client) == packet_of(clients("c"))


def test_the_last_will_of_on_pre_connect_is_the_one_that_is_sent(clients: Clients) -> None:
    def will(number: int) -> Any:
        return expect("connect", will=lambda will: will.payload == b"%d" % number)

    with scripted([will(1), send(Connack()), close()], [will(2), send(Connack()), ignore()]) as server:
        attempts: list[int] = []

        def on_pre_connect(client: mqtt.Client, data: object) -> None:
            attempts.append(1)
            client.will_set("gone", len(attempts), retain=True)

        client = clients("c")
        client.on_pre_connect = on_pre_connect
        client.reconnect_delay_set(0.01)
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        server.wait_for(lambda: server.broker.done, SECONDS)


def test_clean_start_is_for_the_first_connection_only_by_default(clients: Clients) -> None:
    first = [expect("connect", clean_start=True), send(Connack()), close()]
    second = [expect("connect", clean_start=False), send(Connack()), ignore()]
    with scripted(first, second, version="5.0") as server:
        client = clients("c", protocol=mqtt.MQTTv5)
        client.reconnect_delay_set(0.01)
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        server.wait_for(lambda: server.broker.done, SECONDS)


def test_the_properties_of_connect_are_sent(clients: Clients) -> None:
    with scripted(
        [expect("connect", session_expiry_interval=99), send(Connack()), ignore()], version="5.0"
    ) as server:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 99
        start(clients("c", protocol=mqtt.MQTTv5), server, properties=properties)


def test_a_broker_that_knows_only_mqtt_3_1_is_spoken_to_in_it(clients: Clients) -> None:
    refusal = [expect("connect", protocol_level=4), send(Connack(False, 1)), close()]
    with scripted(
        refusal, [expect("connect", protocol_level=3), send(Connack()), ignore()], version=None
    ) as server:
        told: list[Any] = []
        client = clients("c")
        client.on_connect = lambda c, d, flags, reason, properties: told.append(reason)
        start(client, server)
        assert client.protocol == mqtt.MQTTv31
        assert told == ["Success"]


def test_a_rejected_empty_client_identifier_is_replaced_by_one_of_our_own(clients: Clients) -> None:
    refusal = [expect("connect", client_id=""), send(Connack(False, 2)), close()]
    with scripted(
        refusal, [expect("connect", client_id=lambda name: len(name) == 22), send(Connack()), ignore()]
    ) as server:
        start(clients(), server)


def test_connection_refused_is_the_error_of_the_system(clients: Clients) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        clients("c").connect("127.0.0.1", port)


def test_an_unknown_host_is_the_error_of_the_resolver(clients: Clients) -> None:
    with pytest.raises(socket.gaierror):
        clients("c").connect("no-such-host.invalid")


def test_a_missing_unix_socket_is_the_error_of_the_system(clients: Clients, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        clients("c", transport="unix").connect(str(tmp_path / "none"))


def test_a_unix_socket_works(clients: Clients, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    with listener:
        client = clients("c", transport="unix")
        client.connect(path)
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(SECONDS)
            assert peer.recv(100) == packet_of(clients("c"))


def test_a_connection_that_takes_too_long_is_given_up(clients: Clients) -> None:
    listener = socket.socket()
    with listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)  # the queue is full now
            client = clients("c")
            client.connect_timeout = 0.2
            with pytest.raises(TimeoutError):
                client.connect(*address)


def test_bind_address_and_bind_port_choose_our_end(
    clients: Clients, server: BrokerServer[ModelBroker]
) -> None:
    with socket.create_server(("127.0.0.2", 0)) as free:
        port = free.getsockname()[1]
    client = start(clients("c"), server, bind_address="127.0.0.2", bind_port=port)
    assert client.socket().getsockname() == ("127.0.0.2", port)


def test_disconnect_ends_an_attempt_that_hangs(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = clients("c", transport="websockets")
        client.connect_timeout = 60
        client.connect_async("127.0.0.1", listener.getsockname()[1])
        client.loop_start()
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(SECONDS)
            assert peer.recv(10)  # it asks, and gets no answer
            began = time.monotonic()
            client.disconnect()
            client.loop_stop()
            assert time.monotonic() - began < 5


def answers(*records: tuple[int, int, str, int]) -> Any:
    """Stand in for dnspython: SRV records of priority, weight, host, port."""

    def resolve(name: str, kind: str) -> list[Any]:
        assert (name, kind) == ("_mqtt._tcp.example.org", "SRV")
        return [
            SimpleNamespace(priority=priority, weight=weight, port=port,
                            target=SimpleNamespace(to_text=lambda host=host: f"{host}."))
            for priority, weight, host, port in records
        ]  # fmt: skip

    return SimpleNamespace(resolve=resolve, NXDOMAIN=KeyError, NoAnswer=KeyError, NoNameservers=KeyError)


def test_connect_srv_tries_servers_by_priority(
    clients: Clients, server: BrokerServer[ModelBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = listener.getsockname()[1]
    found = answers(
        (20, 0, "no-such-host.invalid", 1883), (10, 5, "127.0.0.1", server.port), (10, 9, "127.0.0.1", dead)
    )
    monkeypatch.setattr(_srv, "resolver", found)
    client = clients("c")
    assert client.connect_srv("example.org") == mqtt.MQTT_ERR_SUCCESS
    assert client.port == server.port


def test_connect_srv_raises_when_no_server_answers(clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_srv, "resolver", answers())
    monkeypatch.setattr(socket, "getfqdn", lambda: "host.example.org")
    with pytest.raises(ValueError, match="No SRV hosts responded"):
        clients("c").connect_srv()
    monkeypatch.setattr(_srv, "resolver", None)
    with pytest.raises(ValueError, match="dnspython"):
        clients("c").connect_srv()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("certificate")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", key, "-out", cert]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *names]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("needs openssl")
    return cert, key


@pytest.fixture
def tls_port(certificate: tuple[str, str]) -> Any:
    """Where a broker with TLS listens. To be named before ``clients``: it ends when they have left."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            raw.settimeout(SECONDS)
            try:
                with context.wrap_socket(raw, server_side=True) as peer:
                    peer.recv(1000)
                    peer.sendall(b"\x20\x02\x00\x00")
                    peer.recv(1000)
            except OSError:
                raw.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(SECONDS)


def test_tls_set_checks_the_broker(tls_port: int, clients: Clients, certificate: tuple[str, str]) -> None:
    client = clients("c")
    client.tls_set(certificate[0])
    assert client.port == 1883
    client.connect("localhost", tls_port)
    client.loop_start()
    eventually(client.is_connected)


def test_an_unknown_authority_is_an_error_of_ssl(tls_port: int, clients: Clients) -> None:
    client = clients("c")
    client.tls_set()
    with pytest.raises(ssl.SSLCertVerificationError):
        client.connect("localhost", tls_port)


def test_tls_insecure_set_overlooks_the_name(
    tls_port: int, clients: Clients, certificate: tuple[str, str]
) -> None:
    client = clients("c")
    client.tls_set(certificate[0])
    with pytest.raises(ssl.SSLCertVerificationError):
        client.connect("127.0.0.1", tls_port)
    client.tls_insecure_set(True)
    client.connect("127.0.0.1", tls_port)


def test_tls_insecure_set_overlooks_the_name_alone(tls_port: int, clients: Clients) -> None:
    client = clients("c")
    client.tls_set()
    client.tls_insecure_set(True)
    with pytest.raises(ssl.SSLCertVerificationError):
        client.connect("localhost", tls_port)


def test_proxy_set_goes_through_the_proxy(clients: Clients) -> None:
    socks = pytest.importorskip("socks", reason="needs PySocks")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        asked: list[bytes] = []

        def serve() -> None:
            peer, _ = proxy.accept()
            with peer:
                peer.settimeout(SECONDS)
                asked.append(peer.recv(1000))
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                asked.append(peer.recv(1000))

        thread = threading.Thread(target=serve)
        thread.start()
        client = clients("c")
        client.proxy_set(proxy_type=socks.HTTP, proxy_addr="127.0.0.1", proxy_port=proxy.getsockname()[1])
        client.connect("127.0.0.1", 7)
        thread.join(SECONDS)
        assert asked[0].startswith(b"CONNECT 127.0.0.1:7 HTTP/1.1")
        assert asked[1] == packet_of(clients("c"))


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    socks = pytest.importorskip("socks", reason="needs PySocks")
    endpoint = Endpoint("tcp")
    assert endpoint.find_proxy() is None
    monkeypatch.setenv("mqtt_proxy", "socks://proxy.example:1080")
    found = endpoint.find_proxy()
    assert found == {"proxy_type": socks.SOCKS5, "proxy_addr": "proxy.example", "proxy_port": 1080}


def test_libraries_find_the_client_identifier_as_bytes(clients: Clients) -> None:
    client = clients("node-17")
    assert client._client_id == b"node-17"  # aiomqtt decodes it
    client._client_id = b"node-18"  # Flask-MQTT sets it
    assert packet_of(client).endswith(b"\x00\x07node-18")


def test_programs_may_use_private_names_of_paho_mqtt(clients: Clients) -> None:
    client = clients("c")
    client._userdata = "set"  # as in its client_mqtt_clear_retain.py
    assert client.user_data_get() == "set"
    client._protocol, client._transport, client._clean_session = mqtt.MQTTv31, "tcp", False  # Flask-MQTT
    assert packet_of(client) == b"\x10\x0f\x00\x06MQIsdp\x03\x00\x00\x3c\x00\x01c"
    assert (client._host, client._port) == (client.host, client.port)  # as in client_sub-srv.py


def test_disconnect_says_the_reason_and_properties_of_the_program(clients: Clients) -> None:
    said = {"session_expiry_interval": 30, "reason_string": "moved", "user_property": [["to", "b"]]}
    script = [expect("connect"), send(Connack()), expect(Disconnect(0x04, said))]
    with scripted(script, version="5.0") as server:
        client = start(clients(protocol=mqtt.MQTTv5), server)
        properties = Properties(PacketTypes.DISCONNECT)
        properties.SessionExpiryInterval, properties.ReasonString = 30, "moved"
        properties.UserProperty = ("to", "b")
        reason = mqtt.ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message")
        assert client.disconnect(reason, properties) == mqtt.MQTT_ERR_SUCCESS


def test_what_the_broker_says_in_disconnect_reaches_the_callback(clients: Clients) -> None:
    goodbye = Disconnect(0x8B, {"reason_string": "maintenance", "user_property": [["until", "noon"]]})
    ends: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with scripted([expect("connect"), send(Connack(), goodbye), close()], version="5.0") as server:
        client = clients(protocol=mqtt.MQTTv5, reconnect_on_failure=False)
        client.on_disconnect = lambda _client, _userdata, *what: ends.put(what)
        client.connect("127.0.0.1", server.port)
        client.loop_start()
        flags, reason, properties = ends.get(timeout=SECONDS)
    assert flags.is_disconnect_packet_from_server
    assert (reason.value, reason.getName()) == (0x8B, "Server shutting down")
    assert (properties.ReasonString, properties.UserProperty) == ("maintenance", [("until", "noon")])
