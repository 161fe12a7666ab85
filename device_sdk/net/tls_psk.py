"""TLS without certificates: a key that both sides have (PSK; RFC 4279, RFC 8446 §2.2).

Each side proves to the other that it has the key, so there is no certificate to check. Needs Python 3.13.
"""

from __future__ import annotations

import platform
import ssl
from pathlib import Path

from device_sdk.errors import ArgumentError, ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    Pair = tuple[str, bytes]
    Source = Pair | Callable[[], Pair]

__all__ = ["Psk"]

_LONGEST_IDENTITY = 128  # bytes, and of the key: what every OpenSSL takes
_LONGEST_KEY = 256
# Suites of TLS 1.2, those with forward secrecy first. A suite with a certificate would prove nothing here.
_SUITES = "kECDHEPSK:kDHEPSK:kPSK:!aNULL:!eNULL"
_REFUSED = "the broker does not accept the PSK: look at identity and key"
_NO_PROOF = "the broker has not proved that it has our PSK: it answered with a certificate, say"

# How servers refuse an identity or a key. Source: RFC 4279 §2, RFC 8446 §4.2.11; OpenSSL 3.
_ALERTS = {"SSLV3_ALERT_BAD_RECORD_MAC", "SSLV3_ALERT_HANDSHAKE_FAILURE", "SSLV3_ALERT_ILLEGAL_PARAMETER",
           "TLSV1_ALERT_DECRYPT_ERROR", "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY"}  # fmt: skip


class Psk:
    """An identity and its key: ``source`` as the argument ``psk`` of TLSOptions, or ``file`` as ``psk_file``.

    Raises: ArgumentError: by one of these names: both are given; this Python has no PSK.
    """

    __slots__ = ("_argument", "_current", "_file", "_source")

    def __init__(self, source: Source | None, file: str | os.PathLike[str] | None) -> None:
        self._argument = "psk_file" if source is None else "psk"
        self._source = source
        self._file = file
        if source is not None and file is not None:
            raise ArgumentError("psk_file", "replaces psk; give one or the other")
        if not getattr(ssl, "HAS_PSK", False):
            have = f"this is Python {platform.python_version()} with {ssl.OPENSSL_VERSION}"
            raise ArgumentError(self._argument, f"needs Python 3.13, and an OpenSSL with PSK; {have}")
        self._current: Pair = ("", b"")  # until refresh()

    def refresh(self) -> None:
        """Read the file, or call the callable, for the next connection.

        Raises: ArgumentError, ArgumentTypeError: it cannot be read, raised, or gave what can never work.
        """
        self._current = self._read() if self._file is not None else self._ask()

    def prepare(self, context: ssl.SSLContext, *, own_suites: bool) -> None:
        """Have the context take the key instead of certificates. ``own_suites``: the program chose them."""
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if not own_suites:
            context.set_ciphers(_SUITES)
        context.set_psk_client_callback(self._answer)  # type: ignore[attr-defined]  # new in Python 3.13

    def problem(self, connection: ssl.SSLObject) -> str:
        """Return why this connection, whose handshake is over, must not be used; ``""``: the key was used.

        In TLS 1.3 a server that does not know it goes on with a certificate.
        """
        suite = connection.cipher()
        by_suite = suite is not None and "PSK" in suite[0]
        by_key = connection.version() == "TLSv1.3" and connection.getpeercert(binary_form=True) is None
        return "" if by_suite or by_key else _NO_PROOF

    def explain(self, error: ssl.SSLError) -> str:
        """Return the words for a handshake that failed because of the key, ``""`` for another reason."""
        refused = error.reason in _ALERTS or "unknown psk identity" in str(error)
        return f"{_REFUSED} ({error.reason or 'UNKNOWN_PSK_IDENTITY'})" if refused else ""

    def _answer(self, hint: str | None) -> Pair:
        return self._current  # it must not raise: Python would print that, and go on

    def _ask(self) -> Pair:
        source = self._source
        if callable(source):
            try:
                source = source()
            except Exception as error:  # the application's own code
                raise ArgumentError("psk", f"the callable for it raised {error!r}") from error
        if not isinstance(source, tuple) or len(source) != 2:
            raise ArgumentTypeError(
                "psk", "must be a pair of identity and key, or a callable that returns it"
            )
        identity, key = source
        if not isinstance(identity, str) or not isinstance(key, bytes):
            raise ArgumentTypeError("psk", "must be a str, the identity, and bytes, the key")
        return self._checked(identity, key)

    def _read(self) -> Pair:
        assert self._file is not None
        try:
            lines = Path(self._file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ArgumentError("psk_file", f"cannot read {str(self._file)!r}: {error}") from error
        entries = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if len(entries) != 1:
            problem = f"{str(self._file)!r} holds {len(entries)} entries IDENTITY:KEY, and must hold one"
            raise ArgumentError("psk_file", problem)
        identity, colon, key = entries[0].partition(":")
        try:
            return self._checked(identity, bytes.fromhex(key if colon else "-"))
        except ValueError as error:
            if isinstance(error, ArgumentError):
                raise
            problem = f"{str(self._file)!r} does not hold IDENTITY:KEY with the key in hexadecimal digits"
            raise ArgumentError("psk_file", problem) from None

    def _checked(self, identity: str, key: bytes) -> Pair:
        try:
            size = len(identity.encode())
        except UnicodeEncodeError as error:
            raise ArgumentError(self._argument, f"the identity is no text in UTF-8: {error}") from error
        if not 1 <= size <= _LONGEST_IDENTITY or "\0" in identity:
            problem = f"the identity has {size} bytes; it must have 1 to {_LONGEST_IDENTITY}, none of them 0"
            raise ArgumentError(self._argument, problem)
        if not 1 <= len(key) <= _LONGEST_KEY:
            problem = f"the key has {len(key)} bytes; it must have 1 to {_LONGEST_KEY}"
            raise ArgumentError(self._argument, problem)
        return identity, key
