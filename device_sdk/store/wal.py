"""The write-ahead log after a crash: will SQLite take all of it that was committed?

SQLite reads the log up to the first frame whose checksum is wrong. What lies behind is dropped without a word
and written over. A power cut leaves such an end, of a transaction that was not flushed; a bit that flipped
leaves one too, and everything behind it had counted as stored.

The log is read here before SQLite opens it. Its index (``-shm``) is never opened: closing that again would
end the locks of every connection in this process.

Source: https://www.sqlite.org/fileformat2.html, 4 "The Write-Ahead Log".
"""

from __future__ import annotations

import os
from struct import unpack

from device_sdk.store.schema import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_sdk.store.files import Reserve

__all__ = ["KEPT_BYTES", "LogDamage", "examine"]

#: The most of a damaged log that is kept. A log is about 1 MiB, and more after one large commit.
KEPT_BYTES = 16 * 1024 * 1024

_HEADER, _FRAME_HEADER = 32, 24
_MAGIC = b"\x37\x7f\x06"
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LogDamage:
    """What SQLite does not take of the log: ``frames`` of ours from the first bad one on.

    ``commits`` of them end a commit. ``kept``: where the copy of the log is, or why there is none.
    """

    __slots__ = ("commits", "frames", "kept")

    def __init__(self, frames: int, commits: int, kept: str) -> None:
        self.frames = frames
        self.commits = commits
        self.kept = kept

    @property
    def is_certain(self) -> bool:
        """Whether it was no power cut: that spoils at most the commit that was being written."""
        return self.commits > 1

    def __str__(self) -> str:
        lost = "messages that counted as stored may be lost"
        if not self.is_certain:
            lost = f"if a power cut has torn it, nothing is missing that counted as stored, else {lost}"
        text = f"the end of the write-ahead log is damaged and left out, {self.frames} pages in "
        return f"{text}{self.commits} commits: {lost}{self.kept}"


def examine(path: str, reserve: Reserve | None = None) -> LogDamage | None:
    """Return what SQLite does not take of the log of this database; with a reserve, keep a copy of it.

    Nobody writes meanwhile. Raises: OSError.
    """
    try:
        fd = os.open(f"{path}-wal", _FLAGS)
    except FileNotFoundError:
        return None
    try:
        frames, commits = _left_out(fd)
        if not commits:
            return None  # what was not committed had never counted as stored
        return LogDamage(frames, commits, "" if reserve is None else _keep(fd, path, reserve))
    finally:
        os.close(fd)


def _keep(fd: int, path: str, reserve: Reserve) -> str:
    """Copy the log; the last two copies are kept. Returns: words about it."""
    size = min(os.fstat(fd).st_size, KEPT_BYTES)
    shortage = reserve.shortage(size)
    if shortage is not None:
        return f"; it could not be kept: {shortage}"
    first, target = f"{path}.damaged-log-1", f"{path}.damaged-log-2"
    try:
        if not os.path.exists(first):
            target = first
        elif os.path.exists(target):
            os.replace(target, first)
        copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            at = 0
            while at < size:
                at += os.sendfile(copy, fd, at, size - at)
            os.fsync(copy)
        finally:
            os.close(copy)
    except OSError as error:
        return f"; it could not be kept: {error.strerror}"
    return f"; a copy of the log is {target}"


def _left_out(fd: int) -> tuple[int, int]:
    """Return the frames of our log from the first bad one on, and how many of them end a commit."""
    header = os.pread(fd, _HEADER, 0)
    if len(header) < _HEADER:
        return 0, 0
    order = ">" if header[3] & 1 else "<"
    sums = _sums(header[:24], (0, 0), order)
    is_sound = header.startswith(_MAGIC) and sums == unpack(">II", header[24:32])
    size = int.from_bytes(header[8:12], "big") if is_sound else PAGE_SIZE
    salts = header[16:24] if is_sound else os.pread(fd, 8, _HEADER + 8)
    frames = commits = 0
    for frame in _frames(fd, _FRAME_HEADER + size):
        if frame[8:12] != salts[:4] and frame[12:16] != salts[4:]:
            if is_sound or not any(frame):
                continue  # of an earlier log, or of none
        elif is_sound and not frames and frame[8:16] == salts and any(frame[:4]):
            sums = _sums(frame[_FRAME_HEADER:], _sums(frame[:8], sums, order), order)
            if sums == unpack(">II", frame[16:24]):
                continue
        frames += 1
        commits += any(frame[4:8])
    return frames, commits


def _frames(fd: int, size: int) -> Iterator[bytes]:
    at = _HEADER
    while len(frame := os.pread(fd, size, at)) == size:
        yield frame
        at += size


def _sums(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    """Continue the checksum of the log over this data."""
    first, second = sums
    words = unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = first + even + second & 0xFFFFFFFF
        second = second + odd + first & 0xFFFFFFFF
    return first, second
