"""Byte streams: one contract, one file for each kind, chosen by URL.

===================================  ===============================================================
``base.py``                          the contract, URLs, the table from scheme to transport; options
``attempt.py``                       opening a stream; abort() and close() from other threads
``sockets.py``                       a connected socket as a stream, below the next three
``tcp.py``                           TCP: look-up, addresses in turn, socket options
``unix.py``                          Unix sockets
``proxy.py``, ``socks.py``           TCP through a proxy: HTTP CONNECT, the SOCKS dialogues
``stack.py``                         the bottom of a stack: TCP, or TCP through a proxy
``layer.py``                         a stream on top of another one, and its handshake
``tls.py``, ``tls_reasons.py``       TLS over any stream; what its errors mean
``websocket.py``, ``upgrade.py``     WebSocket: frames; the HTTP request that begins it
``srv.py``                           brokers that the DNS names
``serial.py``, ``serial_errors.py``  serial lines; why one cannot be opened
``memory.py``                        streams inside the process, for tests
===================================  ===============================================================
"""

from device_sdk.net.base import ParsedUrl, Transport, open_transport, parse_url

__all__ = ["ParsedUrl", "Transport", "open_transport", "parse_url"]
