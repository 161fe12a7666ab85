"""Checksums of rows: what the disk gives back is what was written, or it is told.

SQLite checks the frames of its log and nothing in the database itself, so a flipped bit in a reading would
be sent as the reading. CRC-32 finds every flipped bit, every burst of 32, and all but one in four thousand
million of other changes. It is no defence against somebody who may write the file.
"""

from __future__ import annotations

from struct import Struct, error
from zlib import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


__all__ = ["is_message", "of_message", "of_row"]

_HEAD = Struct("<qqqqII").pack
_TIMES = Struct("<dddq").pack
_NO_WALL_CLOCK = float("-inf")


def of_row(*values: object) -> int:
    """Return the checksum of a row of anything but messages: numbers, texts, bytes and ``None``."""
    return crc32(repr(values).encode("utf-8", "surrogatepass"))


def of_message(
    sequence: int,
    flags: int,
    written: int,
    written_bytes: int,
    topic: bytes,
    properties: bytes,
    payload: bytes,
    times: Sequence[Any],
) -> int:
    """Return the checksum of a message's row; ``times``: expires_at, life, wall_expiry, boot."""
    head = _HEAD(sequence, flags, written, written_bytes, len(topic), len(properties)) + topic + properties
    if times[0] is not None:
        head += _times(*times)
    return crc32(payload, crc32(head))


def is_message(row: Sequence[Any], checked_from: int) -> Any:
    """Whether a row is what was written; it has MESSAGE_COLUMNS and MESSAGE_CHECK.

    Rows below ``checked_from`` are of an older schema and may have no checksum.
    """
    sequence, topic, payload, flags, properties, *times, written, written_bytes, checksum = row
    if checksum is None:
        return sequence < checked_from and type(topic) is type(payload) is type(properties) is bytes
    try:
        # of_message() written out: this runs once a message that is read.
        head = (
            _HEAD(sequence, flags, written, written_bytes, len(topic), len(properties)) + topic + properties
        )
        if times[0] is not None:
            head += _times(*times)
        return crc32(payload, crc32(head)) == checksum
    except (error, TypeError):  # something is no number or no bytes any more
        return False


def _times(expires_at: float, life: float, wall_expiry: float | None, boot: int) -> bytes:
    return _TIMES(expires_at, life, _NO_WALL_CLOCK if wall_expiry is None else wall_expiry, boot)
