"""Frames of the link: header, payload and CRC-32, coded by COBS between zeros. Source: docs/link.md.

COBS: S. Cheshire, M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Trans. on Networking 7 (2), 1999.
"""

from __future__ import annotations

import struct
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ACK", "CLOSE", "DATA", "FRAME_BYTES", "HELLO", "OVERHEAD", "VERSION", "WELCOME", "WINDOWS",
           "Frame", "Hello", "Splitter", "cobs_decode", "cobs_encode", "decode", "encode"]  # fmt: skip

VERSION = 1
#: Kinds of frames.
HELLO, WELCOME, DATA, ACK, CLOSE = range(1, 6)

#: Bytes of the largest frame that both ends may agree on, before COBS; frames of a window.
FRAME_BYTES = range(64, 1025)
WINDOWS = range(1, 65)

_HEADER = struct.Struct("<BHBBB")
_CRC_BYTES = 4
#: Bytes of a frame before COBS that are no payload.
OVERHEAD = _HEADER.size + _CRC_BYTES
_LONGEST_CODED = FRAME_BYTES[-1] + FRAME_BYTES[-1] // 254 + 1


class Frame:
    """A frame whose checksum was right. All numbers are unsigned: ``epoch`` 16 bits, the others 8."""

    __slots__ = ("ack", "credit", "epoch", "kind", "payload", "seq")

    def __init__(self, kind: int, epoch: int, seq: int, ack: int, credit: int, payload: bytes) -> None:
        self.kind = kind
        self.epoch = epoch
        self.seq = seq
        self.ack = ack
        self.credit = credit
        self.payload = payload


class Hello:
    """The payload of HELLO and WELCOME: what an end offers, or what is agreed.

    ``nonce``: 32 bits of the end that said HELLO; WELCOME repeats them.
    """

    __slots__ = ("frame", "nonce", "version", "window")

    _FORM = struct.Struct("<BxHBI")  # the second byte is for later versions: 0

    def __init__(self, version: int, frame: int, window: int, nonce: int) -> None:
        self.version = version
        self.frame = frame
        self.window = window
        self.nonce = nonce

    def pack(self) -> bytes:
        """Return the 9 bytes of it."""
        return self._FORM.pack(self.version, self.frame, self.window, self.nonce)

    @classmethod
    def unpack(cls, payload: bytes) -> Hello | None:
        """Return what a payload says, ``None`` if it is too short. Bytes behind it are of later versions."""
        return cls(*cls._FORM.unpack_from(payload)) if len(payload) >= cls._FORM.size else None


def cobs_encode(data: bytes) -> bytes:
    """Return the data without zeros: each 254 bytes cost one more, and one in any case."""
    parts: list[bytes] = []
    for piece in data.split(b"\0"):
        while len(piece) >= 254:
            parts += b"\xff", piece[:254]
            piece = piece[254:]
        parts += bytes((len(piece) + 1,)), piece
    if len(parts) > 2 and not parts[-1] and parts[-4] == b"\xff":
        del parts[-2:]  # a full block at the end needs no empty one behind it
    return b"".join(parts)


def cobs_decode(data: bytes) -> bytes | None:
    """Return what was coded, ``None`` if nothing is coded like that."""
    parts: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        code = data[at]
        after = at + code
        if not code or after > end:
            return None
        parts.append(data[at + 1 : after])
        if code != 255 and after < end:
            parts.append(b"\0")
        at = after
    return b"".join(parts) if parts else None


def encode(kind: int, epoch: int, seq: int, ack: int, credit: int, payload: bytes = b"") -> bytes:
    """Return a frame as it goes over the line, zeros before and after it included."""
    body = _HEADER.pack(kind, epoch, seq, ack, credit) + payload
    return b"\0%b\0" % cobs_encode(body + crc32(body).to_bytes(_CRC_BYTES, "little"))


def decode(coded: bytes) -> Frame | None:
    """Return the frame between two zeros, ``None`` if it is damaged."""
    data = cobs_decode(coded)
    if data is None or len(data) < OVERHEAD:
        return None
    body = data[:-_CRC_BYTES]
    if crc32(body).to_bytes(_CRC_BYTES, "little") != data[-_CRC_BYTES:]:
        return None
    kind, epoch, seq, ack, credit = _HEADER.unpack_from(body)
    return Frame(kind, epoch, seq, ack, credit, body[_HEADER.size :])


class Splitter:
    """Finds frames in bytes from a line; keeps at most the bytes of one frame.

    ``damaged``: pieces between zeros that were no frame. ``first``: the first bytes that came, at most 256.
    """

    __slots__ = ("_overflows", "_rest", "damaged", "first")

    def __init__(self) -> None:
        self._rest = b""
        self._overflows = False
        self.damaged = 0
        self.first = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Return the frames that have become complete."""
        if len(self.first) < 256:
            self.first += data[: 256 - len(self.first)]
        *pieces, rest = data.split(b"\0")
        for piece in pieces:
            whole = self._rest + piece
            self._rest = b""
            if whole or self._overflows:
                frame = None if self._overflows or len(whole) > _LONGEST_CODED else decode(whole)
                self._overflows = False
                if frame is None:
                    self.damaged += 1
                else:
                    yield frame
        self._rest += rest
        if len(self._rest) > _LONGEST_CODED:
            self._rest, self._overflows = b"", True
