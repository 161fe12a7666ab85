"""Recognition of what answers instead of an MQTT broker, by its first bytes. Only on the way of an error."""

from __future__ import annotations

import re

__all__ = ["in_words", "looks_like_mqtt", "recognise"]

#: So many first bytes are enough to recognise anything here.
FIRST_BYTES = 256
_SHOWN = 40

_PORTS = "check host and port; MQTT mostly has 1883, with TLS 8883"
_HTTP = "for MQTT over WebSocket write ws://host:port/path, for plain MQTT another port, mostly 1883 or 8883"
_TLS = "write mqtts:// instead of mqtt://, or wss:// instead of ws://"
_CONSOLE = (
    "check that it is the right port or line, and end the console there "
    "(systemctl disable --now serial-getty@ttyX; console= in the kernel's command line)"
)
_ECHO = "a loopback, a line that echoes or another client; check the wiring, and the gateway at the other end"
_WHICH_PORT = "check which serial port leads to the gateway"
_MODEM = f"let it attach and dial first, or {_WHICH_PORT}"

# The first that fits decides: beginning of the bytes, as a regular expression -> what answers, the remedy.
# Source: RFC 8446 §5.1, RFC 9112 §4, RFC 4253 §4.2, RFC 854, RFC 5321 §4.2, RFC 1939, RFC 9051, RFC 6143.
_BEGINNINGS = (
    (rb"[\x15\x16]\x03[\x00-\x04]", "a server that wants TLS", _TLS),
    (rb"\x10.{1,4}\x00[\x04\x06]MQ", "our own CONNECT that comes back", _ECHO),
    (rb"HTTP/\d|\s*<(?i:!doctype|html|\?xml)", "an HTTP server", _HTTP),
    (rb"SSH-\d", "an SSH server", _PORTS),
    (rb"220[ -]", "a mail or FTP server", _PORTS),
    (rb"\+OK", "a mail server (POP3)", _PORTS),
    (rb"\* OK", "a mail server (IMAP)", _PORTS),
    (rb"RFB \d", "a VNC server", _PORTS),
    (rb"AMQP", "an AMQP broker", "its port for MQTT is another one, mostly 1883, and may need a plugin"),
    (rb"INFO \{", "a NATS server", "its port for MQTT is another one, mostly 1883"),
    (rb"-ERR|-DENIED", "a Redis server", _PORTS),
    (rb"...\x00\x0a[\d.]{3}", "a MySQL or MariaDB server", _PORTS),
    (rb"\xff[\xfb-\xfe][\x00-\x31]", "Telnet", f"for a serial port write rfc2217://host:port; else {_PORTS}"),
    (rb"\s*\$G[A-Z]{4},", "a GPS receiver (NMEA)", _WHICH_PORT),
    (rb"\s*(?:OK|ERROR|NO CARRIER|RING|CONNECT|\+CM[ES] ERROR|AT\S*)\s", "a modem in command mode", _MODEM),
    (
        rb".{0,200}?(?i:login: |password: |username: |[$#>] $|\[ +\d+\.\d{6}\]|u-boot|linux)",
        "a console",
        _CONSOLE,
    ),
)
_COMPILED = tuple((re.compile(pattern, re.DOTALL), what, remedy) for pattern, what, remedy in _BEGINNINGS)

_TEXT = bytes((*range(0x20, 0x7F), *b"\t\r\n\x1b\x07\x08"))
# Packet types of a server, and the flags that each must have; None: any. Source: MQTT 5.0 §2.1.2, §2.1.3.
_OF_A_SERVER = {2: 0, 3: None, 4: 0, 5: 0, 6: 2, 7: 0, 9: 0, 11: 0, 13: 0, 14: 0, 15: 0}


def recognise(first: bytes) -> str:
    """Return what answers and what to do, for an error text; ``""`` if the bytes do not tell.

    ``first``: the first bytes that came, in any number. What is shown of them is ASCII without control
    characters.
    """
    first = first[:FIRST_BYTES]
    for pattern, what, remedy in _COMPILED:
        if pattern.match(first):
            return f"what answers is no MQTT broker but {what} (it sent {_shown(first)}): {remedy}"
    if first and not first.translate(None, _TEXT):
        return f"what answers is no MQTT broker, it sends text ({_shown(first)}): {_CONSOLE}; {_PORTS}"
    return ""


def looks_like_mqtt(first: bytes) -> bool:
    """Whether these can be the first bytes of a packet that a server may send at some time."""
    flags = _OF_A_SERVER.get(first[0] >> 4, -1) if first else 0
    return flags is None or flags == (first[0] & 15 if first else 0)


def in_words(first: bytes) -> str:
    """As :func:`recognise`, also for bytes that are neither text nor anything known."""
    shown = first[:16].hex(" ") + " ..." * (len(first) > 16)
    return recognise(first) or (
        f"what answers does not speak MQTT (it sent {shown}): on a serial line compare baud rate and parity "
        f"of both ends, and the wiring; in a network {_PORTS}"
    )


def _shown(first: bytes) -> str:
    return f"{first[:_SHOWN]!r}" + "..." * (len(first) > _SHOWN)
