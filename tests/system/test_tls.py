"""A real Mosquitto over TLS, with and without client certificates, over a serial line, and a Unix socket."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk import Client, Message
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import TlsError, TransportError
from device_sdk.net.base import open_transport
from device_sdk.net.tls import TLSOptions, TlsTransport
from device_sdk.testing import Certificates, FaultProxy, PtyLine
from device_sdk.testing.broker_process import MosquittoBroker
from device_sdk.testing.certificates import KEY_PASSWORD, Certificate
from tests.steps import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ["3.1", "3.1.1", "5.0"]
FAST = ReconnectPolicy(first=0.02, longest=0.1)
HOST = "127.0.0.1"


class TlsMosquitto(MosquittoBroker):
    """Mosquitto that also listens with TLS, with TLS and client certificates, and on a Unix socket."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self.certificates = certificates
        self.tls_port, self.certificate_port = (self._reserve_port() for _ in range(2))

    def _ports(self) -> tuple[int, ...]:
        return (*super()._ports(), self.tls_port, self.certificate_port)

    def _command(self, folder: Path) -> list[str]:
        command = super()._command(folder)
        server = self.certificates.server
        # Mosquitto opens them in this order, and start() waits for the ports: so the Unix socket is there.
        lines = [f"listener 0 {folder}/mqtt.sock"]
        for port in (self.tls_port, self.certificate_port):
            lines += [f"listener {port} {HOST}", f"certfile {server.certificate}", f"keyfile {server.key}"]
        lines += [f"cafile {self.certificates.ca}", "require_certificate true"]
        with (folder / "mosquitto.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        return command


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def broker(certificates: Certificates) -> Iterator[TlsMosquitto]:
    if not TlsMosquitto.available():
        pytest.skip("needs mosquitto")
    with TlsMosquitto(certificates) as broker:
        yield broker
        assert broker.folder is not None
        sys.stderr.write((broker.folder / broker.log_name).read_text(errors="replace"))


def client(port: int, tls: TLSOptions, **options: Any) -> Client:
    return Client(open_transport(f"mqtts://localhost:{port}", tls=tls), **options)


def presenting(identity: Certificate, certificates: Certificates, **options: Any) -> TLSOptions:
    return TLSOptions(ca_file=certificates.ca, certificate=identity.certificate, key=identity.key, **options)


def messages_go_round(user: Client) -> None:
    received: list[Message] = []
    user.connect(10)
    user.subscribe("t/#", qos=2, on_message=received.append).wait(10)
    payloads = {0: b"", 1: b"small", 2: b"large" * 40_000}
    for qos, payload in payloads.items():
        user.publish(f"t/{qos}", payload, qos=qos).wait(10)
    eventually(lambda: len(received) == 3)
    assert {message.topic: message.payload for message in received} == {
        f"t/{qos}": payload for qos, payload in payloads.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_go_round_over_tls(broker: TlsMosquitto, certificates: Certificates, version: str) -> None:
    with client(broker.tls_port, TLSOptions(ca_file=certificates.ca), version=version) as user:
        messages_go_round(user)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain key", "encrypted key"])
def test_messages_go_round_with_a_client_certificate(
    broker: TlsMosquitto, certificates: Certificates, encrypted: bool
) -> None:
    identity = certificates.encrypted_client if encrypted else certificates.client
    tls = presenting(identity, certificates, key_password=KEY_PASSWORD if encrypted else None)
    with client(broker.certificate_port, tls) as user:
        messages_go_round(user)


def test_a_missing_client_certificate_is_told_and_does_not_connect(
    broker: TlsMosquitto, certificates: Certificates
) -> None:
    tls = TLSOptions(ca_file=certificates.ca)
    with client(broker.certificate_port, tls) as user, pytest.raises(TransportError, match="certificate="):
        user.connect(10)


def test_the_name_alone_may_be_left_unchecked(broker: TlsMosquitto, certificates: Certificates) -> None:
    listening = f"mqtts://localhost:{broker.tls_port}"
    tls = TLSOptions(ca_file=certificates.ca, server_name="other.example")
    with Client(listening, tls=tls) as user, pytest.raises(TlsError, match=r"does not name 'other\.example'"):
        user.connect(10)
    tls = TLSOptions(ca_file=certificates.ca, server_name="other.example", check_hostname=False)
    with Client(listening, tls=tls) as user:
        messages_go_round(user)
    tls = TLSOptions(ca_file=certificates.other_ca, server_name="other.example", check_hostname=False)
    with Client(listening, tls=tls) as user, pytest.raises(TlsError, match="ca_file="):
        user.connect(10)


def test_a_broker_whose_certificate_was_revoked_is_refused(
    broker: TlsMosquitto, certificates: Certificates
) -> None:
    tls = TLSOptions(ca_file=certificates.ca, crl_file=certificates.revocations("none-revoked"))
    with client(broker.tls_port, tls) as user:
        messages_go_round(user)
    tls = TLSOptions(
        ca_file=certificates.ca, crl_file=certificates.revocations("revoked", certificates.server)
    )
    with client(broker.tls_port, tls) as user, pytest.raises(TlsError, match="has been revoked"):
        user.connect(10)


def test_another_ca_is_told_and_does_not_connect(broker: TlsMosquitto, certificates: Certificates) -> None:
    tls = TLSOptions(ca_file=certificates.other_ca)
    with client(broker.tls_port, tls) as user, pytest.raises(TlsError, match="ca_file="):
        user.connect(10)


def test_a_cut_connection_comes_back_with_its_tls_session_and_loses_nothing(
    broker: TlsMosquitto, certificates: Certificates
) -> None:
    received: list[bytes] = []
    tls = TLSOptions(ca_file=certificates.ca)
    with (
        FaultProxy(HOST, broker.tls_port) as proxy,
        client(broker.tls_port, tls) as watcher,
        client(proxy.port, tls, reconnect=FAST) as user,
    ):
        watcher.subscribe("t", qos=1, on_message=lambda message: received.append(message.payload)).wait(10)
        user.connect(10)
        transport = user._engine.transport
        assert isinstance(transport, TlsTransport)
        for number in range(20):
            user.publish("t", b"%d" % number, qos=1)
            if number % 5 == 4:
                before = user.stats.reconnects
                proxy.reset()
                eventually(lambda before=before: user.stats.reconnects > before)  # type: ignore[misc]
        eventually(lambda: user.stats.acknowledged == 20)
        assert transport.ssl_object is not None and transport.ssl_object.session_reused
        eventually(lambda: len(set(received)) == 20)


def test_certificates_are_replaced_without_a_restart_of_the_client(
    broker: TlsMosquitto, certificates: Certificates
) -> None:
    identity = certificates.issue("renewed", client=True)
    with client(broker.certificate_port, presenting(identity, certificates), reconnect=FAST) as user:
        user.connect(10)
        identity.key.write_text("not finished yet")
        broker.restart()
        eventually(lambda: user.state != "connected")
        certificates.issue("renewed", client=True)
        eventually(lambda: user.state == "connected")
        user.publish("t", b"x", qos=1).wait(10)


def test_tls_over_a_serial_line(broker: TlsMosquitto, certificates: Certificates) -> None:
    tls = TLSOptions(ca_file=certificates.ca, server_name="localhost")
    with PtyLine(HOST, broker.tls_port) as line, Client(open_transport(line.url, tls=tls)) as user:
        messages_go_round(user)


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_go_round_over_a_unix_socket(broker: TlsMosquitto, version: str) -> None:
    with Client(f"unix:{broker.folder}/mqtt.sock", version=version) as user:
        messages_go_round(user)
