"""Rows M38-M42, P08 and P09 of ``tests/vectors/conformance/scenarios.csv``: a client and a TLS server."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from device_sdk import Client
from device_sdk.errors import ArgumentError, TlsError
from device_sdk.net.base import open_transport
from device_sdk.net.tls import TLSOptions
from device_sdk.testing.certificates import KEY_PASSWORD, Certificates
from tests.net.test_tls import server_context
from tests.net.transport_contract import PATIENCE

CONNACK = bytes.fromhex("20 03 00 00 00")
DISCONNECT = bytes.fromhex("e0 00")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


class FakeBroker:
    """Accepts one TLS connection, answers CONNECT, and reads to the end; its port is known at once."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.url = f"mqtts://localhost:{self._listener.getsockname()[1]}"
        self.received = b""
        self.alpn: str | None = None
        self.client_certificate: object = None
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        plain, _ = self._listener.accept()
        plain.settimeout(PATIENCE)
        try:
            with self._context.wrap_socket(plain, server_side=True) as connection:
                self.alpn = connection.selected_alpn_protocol()
                self.client_certificate = connection.getpeercert()
                self.received = connection.recv(1000)
                connection.sendall(CONNACK)
                while data := connection.recv(1000):
                    self.received += data
        except OSError as error:
            self.failure = error
            plain.close()

    def finish(self) -> None:
        """Wait until the client has gone."""
        self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()


@pytest.fixture
def broker(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[FakeBroker]:
    """A fake broker; an indirect parameter names its certificate and whether it wants one."""
    kind, wants_certificate = getattr(request, "param", ("server", False))
    context = server_context(getattr(certificates, kind), certificates.ca if wants_certificate else None)
    context.set_alpn_protocols(["http/1.1", "mqtt"])
    broker = FakeBroker(context)
    yield broker
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", int(broker.url.rpartition(":")[2])), 1).close()
    broker.finish()


WANTS_CERTIFICATE = pytest.mark.parametrize("broker", [("server", True)], indirect=True)


def connect_and_disconnect(broker: FakeBroker, tls: TLSOptions) -> None:
    with Client(open_transport(broker.url, tls=tls), client_id="c") as client:
        client.connect(PATIENCE)
    broker.finish()
    assert broker.failure is None
    assert broker.received.startswith(b"\x10") and broker.received.endswith(DISCONNECT)


def test_m38_a_missing_ca_file_is_an_error_at_set_up(certificates: Certificates) -> None:
    with pytest.raises(ArgumentError, match="No such file") as caught:
        TLSOptions(ca_file=certificates.folder / "this-file-does-not-exist")
    assert caught.value.argument == "ca_file"


@WANTS_CERTIFICATE
@pytest.mark.parametrize("kind", ["files", "custom context", "default context"])
def test_m39_a_certificate_is_shown_to_a_server_that_asks(
    broker: FakeBroker, certificates: Certificates, kind: str
) -> None:
    mine = certificates.client
    if kind == "files":
        tls = TLSOptions(ca_file=certificates.ca, certificate=mine.certificate, key=mine.key)
    else:
        context = ssl.create_default_context() if kind == "default context" else None
        context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certificates.ca)
        context.load_cert_chain(mine.certificate, mine.key)
        tls = TLSOptions(context=context)
    connect_and_disconnect(broker, tls)
    assert broker.client_certificate


@WANTS_CERTIFICATE
def test_m40_the_password_of_an_encrypted_key_comes_from_a_callable(
    broker: FakeBroker, certificates: Certificates
) -> None:
    mine = certificates.encrypted_client
    tls = TLSOptions(
        ca_file=certificates.ca,
        certificate=mine.certificate,
        key=mine.key,
        key_password=lambda: KEY_PASSWORD,
    )
    connect_and_disconnect(broker, tls)
    assert broker.client_certificate


def test_m41_the_server_is_verified_without_a_certificate_of_ours(
    broker: FakeBroker, certificates: Certificates
) -> None:
    connect_and_disconnect(broker, TLSOptions(ca_file=certificates.ca))
    assert not broker.client_certificate


@pytest.mark.parametrize("broker", [("from_other_ca", False)], indirect=True)
def test_m42_a_certificate_from_another_ca_fails_before_connect(
    broker: FakeBroker, certificates: Certificates
) -> None:
    transport = open_transport(broker.url, tls=TLSOptions(ca_file=certificates.ca))
    with Client(transport, client_id="c") as client, pytest.raises(TlsError, match="give that CA"):
        client.connect(PATIENCE)
    broker.finish()
    assert broker.failure is not None
    assert broker.received == b""


def test_p08_the_alpn_protocol_is_offered_and_got(broker: FakeBroker, certificates: Certificates) -> None:
    connect_and_disconnect(broker, TLSOptions(ca_file=certificates.ca, alpn=["mqtt"]))
    assert broker.alpn == "mqtt"


@WANTS_CERTIFICATE
def test_p09_a_key_with_a_password_works(broker: FakeBroker, certificates: Certificates) -> None:
    mine = certificates.encrypted_client
    tls = TLSOptions(
        ca_file=certificates.ca, certificate=mine.certificate, key=mine.key, key_password=KEY_PASSWORD
    )
    connect_and_disconnect(broker, tls)
    assert broker.client_certificate
