"""Chains of certificates with a fault in the middle: the words for what OpenSSL finds."""

from __future__ import annotations

import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from device_sdk.errors import TlsError
from device_sdk.net.base import parse_url
from device_sdk.net.memory import MemoryListener, MemoryTransport
from device_sdk.net.tls import TLSOptions, TlsTransport
from device_sdk.net.tls_reasons import explain
from tests.net.test_tls import TlsPeer
from tests.net.transport_contract import soon

if TYPE_CHECKING:
    from pathlib import Path

    Names = list[x509.GeneralName]

HOST = "broker.example"
GOOD, EXPIRED = (-1, 30), (-30, -1)


class Link:
    """A certificate with its key; a chain is a list of them, the root first."""

    def __init__(
        self,
        name: str,
        issuer: Link | None,
        *,
        ca: bool,
        days: tuple[int, int] = GOOD,
        names: Names | None = None,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        signer = issuer or self
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self.pem = builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def refusal(folder: Path, root: Link, chain: list[Link], host: str = HOST) -> str:
    """Return the words for this chain, leaf first."""
    certificate, key, ca = folder / "chain.pem", folder / "key.pem", folder / "ca.pem"
    certificate.write_bytes(b"".join(link.pem for link in chain))
    key.write_bytes(chain[0].key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    ca.write_bytes(root.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def serve(end: MemoryTransport) -> None:
        def run() -> None:
            with suppress(OSError):
                TlsPeer(end, context).handshake()
            end.close()

        threading.Thread(target=run, daemon=True).start()

    with MemoryListener("chain", on_connect=serve) as listener:
        inner = MemoryTransport(parse_url(listener.url))
        transport = TlsTransport(inner, TLSOptions(ca_file=ca, server_name=host))
        with pytest.raises(TlsError) as caught:
            transport.open(soon())
    return str(caught.value)


def leaf(issuer: Link, *, names: Names | None = None, days: tuple[int, int] = GOOD) -> Link:
    return Link(HOST, issuer, ca=False, days=days, names=names or [x509.DNSName(HOST)])


def test_an_expired_intermediate_is_thought_of(tmp_path: Path) -> None:
    root = Link("root", None, ca=True)
    middle = Link("middle", root, ca=True, days=EXPIRED)
    words = refusal(tmp_path, root, [leaf(middle), middle])
    assert "the broker's certificate, or one between it and the CA, or the CA's itself, has expired" in words
    assert "openssl s_client" in words


def test_an_expired_root_is_thought_of(tmp_path: Path) -> None:
    root = Link("root", None, ca=True, days=EXPIRED)
    assert "or the CA's itself, has expired; this device's clock says" in refusal(
        tmp_path, root, [leaf(root)]
    )


def test_an_intermediate_that_is_no_ca_is_called_so(tmp_path: Path) -> None:
    root = Link("root", None, ca=True)
    middle = Link("middle", root, ca=False)
    words = refusal(tmp_path, root, [leaf(middle), middle])
    assert "is signed by one that is not a CA's: it lacks basicConstraints=CA:TRUE" in words


def test_a_missing_intermediate_is_thought_of(tmp_path: Path) -> None:
    root = Link("root", None, ca=True)
    words = refusal(tmp_path, root, [leaf(Link("middle", root, ca=True))])
    assert "if it is there, the broker does not send the certificates between the two" in words


def test_an_address_in_the_common_name_does_not_count(tmp_path: Path) -> None:
    root = Link("root", None, ca=True)
    by_name = Link("192.0.2.7", root, ca=False)
    words = refusal(tmp_path, root, [by_name], "192.0.2.7")
    assert "does not name the address 192.0.2.7" in words
    assert "addresses are in subjectAltName as IP:192.0.2.7, the CN does not count" in words
    of_another = leaf(root, names=[x509.IPAddress(ip_address("192.0.2.8"))])
    assert "IP:192.0.2.7" in refusal(tmp_path, root, [of_another], "192.0.2.7")


def test_a_name_in_the_common_name_does_not_count(tmp_path: Path) -> None:
    root = Link("root", None, ca=True)
    words = refusal(tmp_path, root, [leaf(root, names=[x509.DNSName("other.example")])])
    assert "the names are in subjectAltName, the CN does not count" in words


@pytest.mark.parametrize("code", [*range(1, 95)])
def test_every_verdict_of_openssl_has_words(code: int) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "what OpenSSL says"
    words = explain(error, HOST)
    assert words.startswith("the broker's certificate")
    assert words.endswith("(what OpenSSL says)")
    assert "{" not in words
