"""Byte streams: one contract, one file for each kind, chosen by URL.

Read ``base.py`` first, then ``attempt.py`` and one of the streams.

====================  ================================================================================
``base.py``           the contract :class:`Transport`; URLs; the table of schemes
``attempt.py``        opening and abandoning a stream; holds the lock that ``open()`` and ``abort()`` share
``sockets.py``        base of the streams on a socket: TCP, Unix, through a proxy
``tcp.py``            ``mqtt:``, ``tcp:``
``lookup.py``         name look-ups that end in time, each in a thread of its own; one lock for all of them
``unix.py``           ``unix:``
``memory.py``         ``memory:``, inside one process; one lock for all of these streams
``serial.py``         ``serial:``, ``rfc2217:``, ``socket:``; a remote port has two threads of its own
``link/``             ``framing=link`` of a serial line: frames that are checked and repeated
``serial_errors.py``  advice for a serial port that cannot be opened
``proxy.py``          TCP through SOCKS or HTTP CONNECT; ``socks.py`` has the SOCKS dialogues
``stack.py``          the bottom of a stack: TCP, directly or through a proxy
``challenges.py``     the schemes of authentication that an HTTP server asks for
``layer.py``          base of the streams on top of another one
``tls.py``            ``mqtts:``, and the option ``tls`` of any other URL
``tls_psk.py``        TLS with a key that both sides have instead of certificates
``tls_reasons.py``    TLS failures in words, with advice
``watch.py``          a descriptor that wakes its owner without data on the line
``websocket.py``      ``ws:``, ``wss:``; ``upgrade.py`` has their HTTP handshake, ``pieces.py`` large frames
``srv.py``            ``mqtt+srv:``, ``mqtts+srv:``: servers announced in the DNS
====================  ================================================================================

A transport has no thread (but for a remote serial port, and a name look-up): its owner calls it, see
:class:`Transport`.
"""

from __future__ import annotations

from device_sdk._load import export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.net.base import ParsedUrl, Transport, open_transport, parse_url

__all__ = ["ParsedUrl", "Transport", "open_transport", "parse_url"]

_HOMES = dict.fromkeys(__all__, "base")


def __getattr__(name: str) -> object:
    return export(globals(), _HOMES, name)
