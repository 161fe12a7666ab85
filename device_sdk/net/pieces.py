"""Binary WebSocket messages that are larger than one may be, in pieces.

MQTT is a stream of bytes: it does not matter where a message begins (MQTT 5.0 §6.0, [MQTT-6.0.0-2]). So a
frame need not be kept until it is complete, and a server that puts a large packet into one frame, as
Mosquitto does, does not end the connection with it.

Source: RFC 6455 §5.2, §5.4. Threads: the caller serialises all calls.
"""

from __future__ import annotations

__all__ = ["Pieces"]

_FINAL, _OPCODE, _MASKED = 0x80, 0x0F, 0x80
_CONTINUATION, _BINARY = 0x0, 0x2
_EXTENDED = {126: 2, 127: 8}  # bytes of the length behind the first two of a header
_LONGEST = 1 << 63
_OUT_OF_PLACE = b"\x80\x00"  # a continuation of nothing, for a message that begins within another one


class Pieces:
    """The frames of one server on their way to a parser that keeps each until it is complete.

    Binary frames of more than ``largest`` bytes, and those of fragmented messages, are handed on as messages
    of what has arrived of them. Everything else is handed on as it is, also what breaks the rules.
    """

    __slots__ = ("_head", "_in_message", "_is_cut", "_largest", "_left")

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._head = b""  # the beginning of a header that is not complete
        self._left = 0  # bytes of the present frame that are still to come
        self._is_cut = False  # whether it is handed on in pieces
        self._in_message = False  # whether the next data frame goes on with a message of several

    def feed(self, data: bytes) -> bytes:
        """Return what the parser gets for these bytes."""
        parts: list[bytes] = []
        position = 0
        while position < len(data):
            if self._left:
                piece = data[position : position + min(self._left, self._largest)]
                self._left -= len(piece)
                position += len(piece)
                if self._is_cut:
                    parts.append(_header(len(piece)))
                parts.append(piece)
            else:
                position = self._read_header(data, position, parts)
        return b"".join(parts)

    def _read_header(self, data: bytes, position: int, parts: list[bytes]) -> int:
        """Take up a header, as far as it is there; return the position behind it."""
        began = len(self._head)
        head = self._head + data[position : position + 10 - began]
        size = 2 + _EXTENDED.get(head[1] & 127, 0) if len(head) > 1 else 2
        if len(head) < size:
            self._head = head
            return len(data)
        head, self._head = head[:size], b""
        length = int.from_bytes(head[2:], "big") if size > 2 else head[1] & 127
        self._begin(head, length, parts)
        return position + size - began

    def _begin(self, head: bytes, length: int, parts: list[bytes]) -> None:
        kind = head[0] & ~_FINAL
        is_data = kind in (_BINARY, _CONTINUATION) and not head[1] & _MASKED and length < _LONGEST
        goes_on = self._in_message
        if is_data and kind == _BINARY and goes_on:
            parts.append(_OUT_OF_PLACE)
        is_last = bool(head[0] & _FINAL)
        is_ours = is_data and goes_on == (kind == _CONTINUATION)
        self._is_cut = is_ours and (goes_on or not is_last or length > self._largest)
        if self._is_cut:
            self._in_message = not is_last
        else:
            parts.append(head)
        self._left = length


def _header(length: int) -> bytes:
    """The header of a whole binary message."""
    if length < 126:
        return bytes((_FINAL | _BINARY, length))
    if length < 1 << 16:
        return bytes((_FINAL | _BINARY, 126)) + length.to_bytes(2, "big")
    return bytes((_FINAL | _BINARY, 127)) + length.to_bytes(8, "big")
