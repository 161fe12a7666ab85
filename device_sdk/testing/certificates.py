"""Certificates for tests: good ones, and each kind of bad one. Needs the extra ``identity``.

::

    certificates = Certificates(tmp_path)
    certificates.server                        # a Certificate: .certificate and .key are files
    TLSOptions(ca_file=certificates.ca, certificate=certificates.client.certificate, key=...)

Keys are EC P-256. Not for production: keys are stored unencrypted.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from device_sdk.errors import MissingDependency

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        KeySerializationEncryption,
        NoEncryption,
        PrivateFormat,
    )
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise MissingDependency("making certificates", "identity") from error

__all__ = ["KEY_PASSWORD", "Certificate", "Certificates"]

KEY_PASSWORD = "correct horse"
"""The password of the key of :attr:`Certificates.encrypted_client`."""

_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Certificate:
    """Paths of the PEM files of a certificate and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Certificates:
    """Certificates in a folder, each made on first use; about 0.2 ms each.

    ``folder`` must exist. Not thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # Good ones.

    @cached_property
    def ca(self) -> Path:
        """The CA of all certificates, unless their description names another one."""
        return self._write("ca.pem", self._authority.certificate.public_bytes(Encoding.PEM))

    @cached_property
    def server(self) -> Certificate:
        """Server certificate for ``localhost``, ``127.0.0.1``, ``::1``, valid from yesterday for a month."""
        return self.issue("server")

    @cached_property
    def client(self) -> Certificate:
        """A client certificate, with the common name ``client``."""
        return self.issue("client", names=(), client=True)

    @cached_property
    def encrypted_client(self) -> Certificate:
        """A client certificate whose key is encrypted with :data:`KEY_PASSWORD`."""
        return self.issue("encrypted-client", names=(), client=True, password=KEY_PASSWORD)

    # Bad ones.

    @cached_property
    def expired(self) -> Certificate:
        """A server certificate that was valid until an hour ago."""
        return self.issue("expired", days=(-30, -1 / 24))

    @cached_property
    def not_yet_valid(self) -> Certificate:
        """A server certificate that is valid from tomorrow on."""
        return self.issue("not-yet-valid", days=(1, 30))

    @cached_property
    def wrong_name(self) -> Certificate:
        """A server certificate for ``other.example``."""
        return self.issue("wrong-name", names=("other.example",))

    @cached_property
    def self_signed(self) -> Certificate:
        """A self-signed server certificate without other faults."""
        return self._issue("self-signed", None)

    @cached_property
    def other_ca(self) -> Path:
        """A CA unrelated to :attr:`ca`, with the same name."""
        return self._write("other-ca.pem", self._other_authority.certificate.public_bytes(Encoding.PEM))

    @cached_property
    def from_other_ca(self) -> Certificate:
        """A server certificate from :attr:`other_ca`."""
        return self._issue("from-other-ca", self._other_authority)

    @cached_property
    def client_from_other_ca(self) -> Certificate:
        """A client certificate from :attr:`other_ca`."""
        return self._issue("client-from-other-ca", self._other_authority, names=(), client=True)

    # Any.

    def issue(
        self,
        name: str,
        *,
        names: tuple[str, ...] = _NAMES,
        days: tuple[float, float] = (-1, 30),
        client: bool = False,
        password: str | None = None,
    ) -> Certificate:
        """Make a certificate of :attr:`ca` in the files ``name.pem`` and ``name.key``, replacing them.

        ``names``: its host names and IP addresses; ``days``: begin and end of validity, in days from now;
        ``client``: for a client instead of a server; ``password``: of the key. The common name of the
        certificate is ``name``.
        """
        return self._issue(name, self._authority, names=names, days=days, client=client, password=password)

    def revocations(self, name: str, *revoked: Certificate, days: tuple[float, float] = (-1, 30)) -> Path:
        """Make a list of :attr:`ca` in the file ``name.pem`` that revokes these certificates.

        ``days``: when it was made and when the next one is due, in days from now.
        """
        now, authority = datetime.now(UTC), self._authority
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.certificate.subject)
            .last_update(now + timedelta(days=days[0]))
            .next_update(now + timedelta(days=days[1]))
            .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
            )
        )
        for each in revoked:
            number = x509.load_pem_x509_certificate(each.certificate.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        signed = builder.sign(authority.key, hashes.SHA256())
        return self._write(f"{name}.pem", signed.public_bytes(Encoding.PEM))

    @cached_property
    def _authority(self) -> _Authority:
        return _make_authority()

    @cached_property
    def _other_authority(self) -> _Authority:
        return _make_authority()

    def _issue(
        self,
        name: str,
        authority: _Authority | None,
        *,
        names: tuple[str, ...] = _NAMES,
        days: tuple[float, float] = (-1, 30),
        client: bool = False,
        password: str | None = None,
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        builder = _builder(name, key, days).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(map(_as_name, names))), False)
        issuer = key if authority is None else authority.key
        subject = _subject(name) if authority is None else authority.certificate.subject
        builder = builder.issuer_name(subject).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False
        )
        certificate = builder.sign(issuer, hashes.SHA256())
        encryption: KeySerializationEncryption = NoEncryption()
        if password is not None:
            encryption = BestAvailableEncryption(password.encode())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
        # Renamed into place, key first: a reader sees the old file or the new one.
        key_path = self._write(f"{name}.key", pem)
        return Certificate(self._write(f"{name}.pem", certificate.public_bytes(Encoding.PEM)), key_path)

    def _write(self, name: str, data: bytes) -> Path:
        path, aside = self.folder / name, self.folder / f"{name}.new"
        aside.write_bytes(data)
        return aside.replace(path)


def _make_authority() -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("device_sdk test CA", key, (-1, 30)).issuer_name(_subject("device_sdk test CA"))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return _Authority(builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, days: tuple[float, float]
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _as_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
