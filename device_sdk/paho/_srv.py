"""The brokers that the DNS names for a domain."""

from __future__ import annotations

import socket

from device_sdk._printable import printable

try:
    import dns.resolver as resolver
except ImportError:
    resolver = None  # type: ignore[assignment]

__all__ = ["find_brokers", "resolver"]


def find_brokers(domain: str | None, *, encrypted: bool) -> list[tuple[str, int]]:
    """Return host and port of the brokers of a domain, by default this computer's.

    By priority, then by weight. Source: RFC 2782. Raises: ValueError: dnspython is not installed, or the DNS
    names none.
    """
    if resolver is None:
        raise ValueError('No DNS resolver library found, try "pip install dnspython".')
    if domain is None:
        domain = socket.getfqdn().partition(".")[2] or socket.getfqdn()
    service = "_secure-mqtt" if encrypted else "_mqtt"
    try:
        answers = list(resolver.resolve(f"{service}._tcp.{domain}", "SRV"))
    except (resolver.NXDOMAIN, resolver.NoAnswer, resolver.NoNameservers) as error:
        raise ValueError(printable(f"No answer/NXDOMAIN for SRV in {domain}")) from error
    answers.sort(key=lambda found: (found.priority, -found.weight))
    return [(answer.target.to_text().rstrip("."), answer.port) for answer in answers]
