"""Ask chronyd whether it has set the clock: one datagram, as ``chronyc tracking`` sends it.

Without ``rtcsync`` in its configuration chronyd leaves the kernel's STA_UNSYNC set, so it has to be asked.

Source: ``candm.h`` of chrony 4 (protocol version 6): requests and replies of the command socket.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress

__all__ = ["FOLDER", "PORT", "is_synchronised", "says_synchronised", "tracking_request"]

PORT = 323
FOLDER = "/run/chrony"
_SOCKET = "chronyd.sock"

_TIMEOUT_S = 0.2

_VERSION, _REQUEST, _REPLY = 6, 1, 2
_REQ_TRACKING, _RPY_TRACKING, _SUCCESS = 33, 5, 0

# version, type, two reserved bytes, command, attempt, sequence, two paddings.
_REQUEST_HEAD = struct.Struct("!BBBBHHIII")
# version, type, two reserved bytes, command, reply, status, three paddings, sequence, two paddings.
_REPLY_HEAD = struct.Struct("!BBBBHHHHHHIII")
# Reference identifier, address with family and padding, stratum, leap status, 12 + 36 more bytes.
_TRACKING = struct.Struct("!I20xHH48x")
# A request is as long as its reply, so that nobody can multiply traffic with it.
_LENGTH = _REPLY_HEAD.size + _TRACKING.size

_UNSYNCHRONISED = 3
_LOCAL_CLOCK = 0x7F7F0101  # 127.127.1.1: "local stratum", chronyd believes the clock that it should set


def tracking_request(sequence: int) -> bytes:
    """Return the request "tracking"."""
    return _REQUEST_HEAD.pack(_VERSION, _REQUEST, 0, 0, _REQ_TRACKING, 0, sequence, 0, 0).ljust(
        _LENGTH, b"\0"
    )


def says_synchronised(reply: bytes, sequence: int) -> bool:
    """Return whether a reply is that to the request, and says that a source elsewhere set the clock."""
    if len(reply) < _LENGTH:
        return False
    version, kind, _, _, command, number, status, _, _, _, answered, _, _ = _REPLY_HEAD.unpack_from(reply)
    if (version, kind, command, number, status) != (_VERSION, _REPLY, _REQ_TRACKING, _RPY_TRACKING, _SUCCESS):
        return False
    reference, _stratum, leap = _TRACKING.unpack_from(reply, _REPLY_HEAD.size)
    return answered == sequence and leap != _UNSYNCHRONISED and reference not in (0, _LOCAL_CLOCK)


def is_synchronised(port: int = PORT, folder: str = FOLDER) -> bool:
    """Ask chronyd on this machine: first the UDP port, open to everybody, then the socket, open to root.

    False if there is none. Takes at most 0.4 s.
    """
    return _asked_by_udp(port) or _asked_by_socket(folder)


def _asked_by_udp(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        return _ask(asking, ("127.0.0.1", port))


def _asked_by_socket(folder: str) -> bool:
    there = os.path.join(folder, _SOCKET)
    here = os.path.join(folder, f"device-sdk.{os.getpid()}.sock")  # chronyd replies to sockets in its folder
    if not os.path.exists(there):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking, suppress(OSError):
        asking.bind(here)
        try:
            os.chmod(here, 0o666)  # chronyd is not root when it replies
            return _ask(asking, there)
        finally:
            os.unlink(here)
    return False


def _ask(asking: socket.socket, address: tuple[str, int] | str) -> bool:
    sequence = int.from_bytes(os.urandom(4), "big")
    asking.settimeout(_TIMEOUT_S)
    try:
        asking.connect(address)
        asking.send(tracking_request(sequence))
        return says_synchronised(asking.recv(1024), sequence)
    except OSError:  # nobody there, not allowed, or no reply in time
        return False
