"""Reasons of TLS failures, in words for the user, with advice."""

from __future__ import annotations

import ssl
import time

__all__ = ["CLOSED_EARLY", "explain", "reason", "rejects_certificate"]

CLOSED_EARLY = "the peer closed the connection in the TLS handshake; is it a TLS port, such as 8883?"
_CLIENT_CERTIFICATE = "give TLSOptions(certificate=..., key=...) of a CA that the broker trusts"

# OpenSSL's verdict on the server's certificate -> text and advice. Source: openssl-verification-options(1).
_VERDICTS = {
    7: "is not from the CA whose name it bears: give that CA's certificate as ca_file=",
    9: "is not valid yet; this device's clock says {now} UTC: set it if that is wrong",
    10: "has expired; this device's clock says {now} UTC: if that is right, the broker needs a new one",
    18: "is self-signed and not trusted: give it as ca_file=, if it is the broker's",
    19: "is from a CA that is not trusted: give that CA's certificate as ca_file=",
    20: "is from a CA that is not trusted: give that CA's certificate as ca_file=",
    21: "is from a CA that is not trusted: give that CA's certificate as ca_file=",
    23: "has been revoked",
    24: "is from a CA whose certificate is not one for a CA",
    26: "is not meant for a server",
    62: "does not name {name!r}: connect to a name that it has, or give that as server_name=",
    64: "does not name the address {name}: connect to the name that it has, or give that as server_name=",
}

# Alerts of the peer, and faults in its data -> text and advice. Source: RFC 8446 §6.2, OpenSSL's sslerr.h.
_REASONS = {
    "HTTP_REQUEST": "the peer does not speak TLS on this port",
    "NO_PROTOCOLS_AVAILABLE": "the context allows no TLS version",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "our certificate has a key that the broker cannot use",
    "PACKET_LENGTH_TOO_LONG": "the peer does not speak TLS on this port",
    "RECORD_LAYER_FAILURE": "the peer does not speak TLS on this port",
    "SSLV3_ALERT_BAD_CERTIFICATE": f"the broker rejects our certificate: {_CLIENT_CERTIFICATE}",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the broker says that our certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "the broker says that our certificate has been revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": f"the broker rejects our certificate: {_CLIENT_CERTIFICATE}",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the broker shares no cipher suite with us, or wants a client "
    f"certificate: {_CLIENT_CERTIFICATE}",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "the broker cannot use our kind of certificate or key",
    "TLSV1_ALERT_ACCESS_DENIED": "the broker knows our certificate and does not let it in",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": f"the broker wants a client certificate: {_CLIENT_CERTIFICATE}",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the broker knows none of the protocols in alpn=",
    "TLSV1_ALERT_PROTOCOL_VERSION": "the broker speaks only other versions of TLS, see minimum_version=",
    "TLSV1_ALERT_UNKNOWN_CA": f"the broker does not trust our certificate: {_CLIENT_CERTIFICATE}",
    "TLSV1_UNRECOGNIZED_NAME": "the broker has no certificate for this name, see server_name=",
    "UNSUPPORTED_PROTOCOL": "the broker speaks only versions of TLS that are not secure any more",
    "WRONG_VERSION_NUMBER": "the peer does not speak TLS on this port",
}


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


def rejects_certificate(error: ssl.SSLError) -> bool:
    """Whether the peer rejected our certificate: only another certificate can help."""
    return error.reason in _REJECTIONS


def explain(error: ssl.SSLError, name: str) -> str:
    """Return problem and advice, then OpenSSL's own words; ``name`` is that of the host."""
    if isinstance(error, ssl.SSLCertVerificationError):
        now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
        verdict = _VERDICTS.get(error.verify_code, "is not acceptable").format(now=now, name=name)
        return f"the broker's certificate {verdict} ({error.verify_message.rstrip('.')})"
    return f"{_REASONS.get(error.reason or '', 'TLS failed')} ({reason(error)})"


def reason(error: Exception) -> str:
    """Return OpenSSL's name of an error, or else its text."""
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
