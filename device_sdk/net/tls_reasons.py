"""Reasons of TLS failures, in words for the user, with advice."""

from __future__ import annotations

import ssl
import time

from device_sdk._clock import EARLIEST
from device_sdk._peers import in_words, looks_like_mqtt, recognise
from device_sdk.errors import ConnectFailedError, TlsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CLOSED_EARLY", "clock_problem", "explain", "failure", "reason", "rejects_certificate"]

CLOSED_EARLY = (
    "the peer closed the connection in the TLS handshake, as a port without TLS does: is it a TLS port, such "
    "as 8883? For one without TLS write mqtt:// or ws://"
)
_CLIENT_CERTIFICATE = "give TLSOptions(certificate=..., key=...) of a CA that the broker trusts"
_OWN = "the broker's certificate "
# OpenSSL says what is wrong with a certificate of the chain, and Python does not say with which.
_ANY = "the broker's certificate, or one between it and the CA, "
_LOOK = "`openssl s_client -connect HOST:PORT -showcerts` shows them"
_CA_FILE = "is from a CA that is not trusted: give that CA's certificate as ca_file="
_NO_CA = (
    "is signed by one that is not a CA's: it lacks basicConstraints=CA:TRUE, also if it is that in ca_file="
)
_STRICT = "which Python 3.13 demands: issue it anew, or give a context= without ssl.VERIFY_X509_STRICT"
_TOO_WEAK = "is too weak for this system's OpenSSL (SECLEVEL in openssl.cnf): it has to be issued anew"

# OpenSSL's verdict on the server's chain -> text and advice. Source: openssl-verification-options(1), and
# x509_vfy.h of OpenSSL 1.1.1 (24 is 79 since 3.0) to 3.5.
_VERDICTS = {
    2: _OWN + _CA_FILE,
    3: _OWN + "cannot be looked up: crl_file= has no list of the CA that issued it",
    7: _OWN + "is not from the CA whose name it bears: give that CA's certificate as ca_file=",
    8: _OWN + "cannot be looked up: the list in crl_file= is not from the CA whose name it bears",
    9: _ANY + "is not valid yet; this device's clock says {now} UTC: set it if that is wrong",
    10: _ANY + "or the CA's itself, has expired; this device's clock says {now} UTC: if that is right, the "
    f"expired one has to be replaced; {_LOOK}",
    11: _OWN + "cannot be looked up: the list in crl_file= is not valid yet; this device's clock says {now} "
    "UTC: set it if that is wrong",
    12: _OWN + "cannot be looked up: the list in crl_file= has expired; this device's clock says {now} "
    "UTC: if that is right, fetch a new one",
    18: _OWN + "is self-signed and not trusted: give it as ca_file=, if it is the broker's",
    19: _OWN + _CA_FILE,
    20: _OWN + _CA_FILE + "; if it is there, the broker does not send the certificates between the two",
    21: _OWN + _CA_FILE,
    22: f"{_OWN}has too many certificates between it and the CA; {_LOOK}",
    23: _ANY + "has been revoked: the broker needs another one",
    24: _ANY + _NO_CA,
    25: _ANY + "is from a CA that may have no CA below it (pathlen): another one has to issue it",
    26: _ANY + "is not meant for a server: its extendedKeyUsage lacks serverAuth",
    32: _ANY + "is signed by one whose keyUsage lacks keyCertSign",
    47: _OWN + "has a name that its CA may not give (nameConstraints)",
    48: _OWN + "has a name that its CA may not give (nameConstraints)",
    62: _OWN + "does not name {name!r}: connect to a name that it has, or give that as server_name=; the "
    "names are in subjectAltName, the CN does not count",
    64: _OWN + "does not name the address {name}: connect to the name that it has, or give that as "
    "server_name=; addresses are in subjectAltName as IP:{name}, the CN does not count",
    66: _OWN + f"has a key that {_TOO_WEAK}",
    67: _ANY + f"is from a CA whose key {_TOO_WEAK}",
    68: _ANY + f"has a signature, such as SHA-1, that {_TOO_WEAK}",
    79: _ANY + _NO_CA,
    85: _ANY + f"lacks its authorityKeyIdentifier, {_STRICT}",
    86: _ANY + f"or the CA's, lacks its subjectKeyIdentifier, {_STRICT}",
    89: _ANY + f"or the CA's, has basicConstraints that are not critical, {_STRICT}",
    92: _ANY + f"or the CA's, lacks its keyUsage, {_STRICT}",
}
_NO_VERDICT = f"{_ANY}is not acceptable; {_LOOK}"

# Alerts of the peer, and faults in its data -> text and advice. Source: RFC 8446 §6.2, OpenSSL's sslerr.h.
_REASONS = {
    "DH_KEY_TOO_SMALL": "the broker's Diffie-Hellman key is too weak for this system: it needs a longer one",
    "NO_PROTOCOLS_AVAILABLE": "the context allows no TLS version",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "our certificate has a key that the broker cannot use",
    "SSLV3_ALERT_BAD_CERTIFICATE": f"the broker rejects our certificate: {_CLIENT_CERTIFICATE}",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the broker says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the broker says that our certificate has been revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": f"the broker rejects our certificate: {_CLIENT_CERTIFICATE}",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the broker shares no cipher suite with us, or wants a client "
    f"certificate: {_CLIENT_CERTIFICATE}",
    "SSLV3_ALERT_UNEXPECTED_MESSAGE": "the peer did not expect a client's handshake: is it a TLS server?",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the broker cannot use our kind of certificate or key",
    "TLSV1_ALERT_ACCESS_DENIED": "the broker knows our certificate and does not let it in",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": f"the broker wants a client certificate: {_CLIENT_CERTIFICATE}",
    "TLSV1_ALERT_DECRYPT_ERROR": "the broker could not check that our key is our certificate's",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": "the broker wants stronger cipher suites than ciphers= allows",
    "TLSV1_ALERT_INTERNAL_ERROR": "the broker failed in the handshake: its log says why; it may have no "
    "certificate for this name, see server_name=",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the broker knows none of the protocols in alpn=",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the broker speaks only other versions of TLS, see minimum_version=",
    "TLSV1_ALERT_UNKNOWN_CA": f"the broker does not trust our certificate: {_CLIENT_CERTIFICATE}",
    "TLSV1_UNRECOGNIZED_NAME": "the broker has no certificate for this name, see server_name=",
    "UNSUPPORTED_PROTOCOL": "the broker speaks only versions of TLS that are not secure any more",
}

# Data of a peer that does not speak TLS at all.
_NOT_TLS = {"HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "WRONG_VERSION_NUMBER"}


# Alerts about our certificate. In TLS 1.3 they can arrive after the stream has opened.
_REJECTIONS = {
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_ACCESS_DENIED",
    "TLSV1_ALERT_UNKNOWN_CA",
}


# "Not valid yet", of a certificate or of a revocation list: a clock that is set later makes them valid.
_NOT_YET = {9, 11}


def clock_problem(context: ssl.SSLContext, now: Callable[[], float] = time.time) -> str:
    """Return why no certificate can be checked by this device's clock; empty if it can."""
    moment = now()
    if context.verify_mode == ssl.CERT_NONE or moment >= EARLIEST:
        return ""
    return (
        f"this device's clock says {_in_words(moment)} UTC, which is long past: no certificate can be "
        "checked until it is set, by NTP or from an RTC; tried again meanwhile"
    )


def failure(error: ssl.SSLError, problem: str) -> TlsError:
    """Return the error to raise; its ``retry`` says that a clock that is set later may help."""
    failed = TlsError(problem)
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NOT_YET:
        failed.retry = ConnectFailedError.retry
    return failed


def rejects_certificate(error: ssl.SSLError) -> bool:
    """Whether the peer rejected our certificate: only another certificate can help."""
    return error.reason in _REJECTIONS


def explain(error: ssl.SSLError, name: str, first: bytes = b"") -> str:
    """Return problem and advice, then OpenSSL's own words.

    ``name`` is that of the host; ``first``: the first bytes of the peer, if the handshake is not over.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        now = _in_words(time.time())
        verdict = _VERDICTS.get(error.verify_code, _NO_VERDICT).format(now=now, name=name)
        return f"{verdict} ({error.verify_message.rstrip('.')})"
    if error.reason in _NOT_TLS:
        return f"the peer does not speak TLS on this port{_instead(first)} ({reason(error)})"
    return f"{_REASONS.get(error.reason or '', 'TLS failed')} ({reason(error)})"


def _in_words(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))


def _instead(first: bytes) -> str:
    """Return what it may speak, and what to do."""
    if not first:
        return ""
    known = recognise(first)
    if known or not looks_like_mqtt(first):
        return f": {known or in_words(first)}"
    return ": it may speak MQTT without TLS, then write mqtt:// or ws://"


def reason(error: Exception) -> str:
    """Return OpenSSL's name of an error, or else its text."""
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
