"""Servers that a domain announces in the DNS: ``mqtt+srv://example.com``, ``mqtts+srv://example.com``.

The records ``_mqtt._tcp.example.com`` or ``_secure-mqtt._tcp.example.com`` name hosts, ports, priorities and
weights. Needs the extra ``srv`` (dnspython). Source: RFC 2782; the service names are IANA's.
"""

from __future__ import annotations

import time

from device_sdk.errors import (
    ArgumentError,
    ConnectFailedError,
    MissingDependency,
)
from device_sdk.net.attempt import StreamAttempt
from device_sdk.net.base import ParsedUrl, Transport, open_transport
from device_sdk.net.layer import Layer
from device_sdk.net.stack import TCP_STREAM_OPTIONS

try:
    import dns.exception
    import dns.rdatatype
    import dns.resolver
except ImportError as error:
    raise MissingDependency("a look-up of SRV records", "srv") from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["SrvTransport", "find_servers"]

SERVICES = {"mqtt": "_mqtt._tcp", "mqtts": "_secure-mqtt._tcp"}

# Records tried in one attempt: the DNS answer may have any number.
MAX_SERVERS = 16


def find_servers(
    domain: str,
    *,
    deadline: float,
    secure: bool = False,
    nameservers: Sequence[str] | None = None,
    nameserver_port: int = 53,
) -> list[tuple[str, int]]:
    """Return the hosts and ports of a domain's servers, in the order in which to try them.

    The lowest priority comes first; equal priorities are shuffled by weight, anew in each call. At most 16.
    Blocks until ``deadline`` at the latest, in monotonic seconds; it cannot be interrupted.

    ``nameservers``: their addresses, by default those of ``/etc/resolv.conf``.
    Raises: ConnectFailedError: no answer, no such record, or a record that denies the service.
    """
    name = f"{SERVICES['mqtts' if secure else 'mqtt']}.{domain.rstrip('.')}."
    lifetime = deadline - time.monotonic()
    if lifetime <= 0:
        raise ConnectFailedError(f"cannot look up {name} SRV: timed out")
    try:
        resolver = dns.resolver.Resolver(configure=nameservers is None)
        if nameservers is not None:
            resolver.nameservers = list(nameservers)
        resolver.port = nameserver_port
        answer = resolver.resolve(name, dns.rdatatype.SRV, lifetime=lifetime)
    except dns.exception.Timeout as error:
        raise ConnectFailedError(f"cannot look up {name} SRV: timed out; {error}") from error
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer) as error:
        raise ConnectFailedError(
            f"{domain} announces no broker: there is no record {name} SRV; write the broker's host instead"
        ) from error
    except (dns.exception.DNSException, OSError, UnicodeError) as error:
        raise ConnectFailedError(f"cannot look up {name} SRV: {error}") from error
    records: list[Any] = [] if answer.rrset is None else answer.rrset.processing_order()
    found = [(record.target.to_text(omit_final_dot=True), record.port) for record in records]
    # RFC 2782: the target "." means that the service is decidedly not available at this domain.
    found = [(host, port) for host, port in found if host not in ("", ".") and port]
    if not found:
        raise ConnectFailedError(f"{domain} says that it has no broker: {name} SRV has the target '.'")
    return found[:MAX_SERVERS]


class SrvTransport(Layer):
    """A connection to one of the servers that a domain announces.

    Each ``open()`` looks the records up and tries them in order until one answers, each with a fair share of
    the remaining time. The options are those of ``mqtt:`` or ``mqtts:``, besides ``nameservers`` and
    ``nameserver_port`` (see :func:`find_servers`).

    DNS answers can be forged. So ``mqtts+srv`` follows only a record whose host is the domain or below it,
    and the certificate has to be for that host.

    Raises: ArgumentError: the URL has a port, a path or a query, or no domain. MissingDependency.
    """

    options = ("nameserver_port", "nameservers", *TCP_STREAM_OPTIONS)
    __slots__ = ("_domain", "_nameserver_port", "_nameservers", "_options", "_scheme", "_streams")

    def __init__(
        self,
        url: ParsedUrl,
        *,
        nameservers: Sequence[str] | None = None,
        nameserver_port: int = 53,
        **options: Any,
    ) -> None:
        if not url.host or url.port or url.path not in ("", "/") or url.query or ":" in url.host:
            problem = f"must be {url.scheme}://DOMAIN, the port is in the DNS; found {url!r}"
            raise ArgumentError("url", problem)
        self._scheme = url.scheme.partition("+")[0]
        self._domain = url.host
        self._nameservers = nameservers
        self._nameserver_port = nameserver_port
        self._options = options
        # One for each host and port of the last answer: it may remember a TLS session.
        self._streams: dict[tuple[str, int], Transport] = {}
        # Never opened: stands for servers that are not known yet, and checks the options now.
        super().__init__(self._stream((url.host, 1)), f"{url.scheme} {url.host}")

    def open(self, deadline: float) -> None:
        """Look the servers up and open a stream to the first that answers; see :meth:`Transport.open`."""
        with self._life.begin(self.description) as attempt:
            try:
                servers = find_servers(
                    self._domain, deadline=deadline, secure=self._scheme == "mqtts",
                    nameservers=self._nameservers, nameserver_port=self._nameserver_port,
                )  # fmt: skip
                self._open_one(attempt, servers, deadline)
            except ConnectFailedError:
                with attempt.lock:
                    attempt.check()
                raise

    def _open_one(self, attempt: StreamAttempt, servers: list[tuple[str, int]], deadline: float) -> None:
        failures = []
        streams = {server: self._streams[server] for server in servers if server in self._streams}
        for index, server in enumerate(servers):
            if self._scheme == "mqtts" and not f".{server[0]}".lower().endswith(f".{self._domain}".lower()):
                failures.append(f"{server[0]} is not in the domain; if it is right, write it as the host")
                continue
            stream = streams.get(server) or streams.setdefault(server, self._stream(server))
            now = time.monotonic()
            with attempt.lock:
                attempt.check()
                self.inner = stream
            try:
                stream.open(now + (deadline - now) / (len(servers) - index))
            except ConnectFailedError as error:
                failures.append(str(error))
                with attempt.lock:
                    attempt.check()
                    stream.close()
                continue
            with attempt.lock:
                attempt.succeed()
                self._streams = streams
            return
        raise ConnectFailedError(f"no broker of {self._domain} can be reached: {'; '.join(failures)}")

    def _stream(self, server: tuple[str, int]) -> Transport:
        return open_transport(ParsedUrl(self._scheme, *server), **self._options)
