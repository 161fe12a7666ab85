"""The caller's end of the link (docs/link.md) for MicroPython and Python 3: a reliable stream of bytes.

One object per line, without I/O: bytes and the time (milliseconds that never go back) go in, frames come out.
"""

import struct
from binascii import crc32

HELLO, WELCOME, DATA, ACK, CLOSE = 1, 2, 3, 4, 5
DONE, VERSION, TERMS, VIOLATION, STALLED, SILENT, RESTARTED = 0, 3, 4, 6, 7, 254, 255  # reasons for the end


def encode(kind: int, epoch: int, seq: int, ack: int, credit: int, payload: bytes) -> bytes:
    """Return a frame as it goes over the line."""
    body = struct.pack("<BHBBB", kind, epoch, seq, ack, credit) + payload
    body += struct.pack("<I", crc32(body) & 0xFFFFFFFF) + b"\0"  # the zero that COBS thinks behind the data
    out, start, step = bytearray(1), 0, 0
    while start < len(body) - (step == 254):  # a full block at the end needs no empty one behind it
        step = min(body.find(b"\0", start) - start, 254)
        out.append(step + 1)
        out.extend(body[start : start + step])
        start += step + (step < 254)
    return bytes(out) + b"\0"


def decode(coded: bytes) -> "tuple[int, int, int, int, int, bytes] | None":
    """Return the fields of what was between two zeros; None: it is no frame."""
    body, at = bytearray(), 0
    while at < len(coded):
        code = coded[at]
        body.extend(coded[at + 1 : at + code])
        at += code
        if code < 255 and at < len(coded):
            body.append(0)
    data, crc = bytes(body[:-4]), bytes(body[-4:])
    if at != len(coded) or len(body) < 10 or struct.pack("<I", crc32(data) & 0xFFFFFFFF) != crc:
        return None
    kind, epoch, seq, ack, credit = struct.unpack("<BHBBB", data[:6])
    return kind, epoch, seq, ack, credit, data[6:]


class Sent:
    """A frame until it is acknowledged. ``order``: its last transmission; ``held``: there, beyond a gap."""

    def __init__(self, payload: bytes) -> None:
        self.payload, self.order, self.due, self.now, self.held = payload, 0, 0, True, False


class Link:
    """Calls until the gateway answers, then carries one stream. ``reason`` is not None once it has ended."""

    def __init__(self, baud: int, frame: int, window: int, nonce: int, now: int) -> None:
        self.baud, self.frame, self.window, self.nonce = baud, frame, window, nonce
        self.is_open = self.ack_now = False
        self.reason = self.closing = self.ack_at = None  # type: int | None
        self.epoch = self.base = self.expected = self.credit = self.orders = self.doublings = self.unacked = 0
        self.sent: list[Sent] = []
        self.early: dict[int, bytes] = {}
        self.hello_at = self.heard_at = self.sent_at = self.free_at = self.progress_at = now
        self.rest = self.ready = b""

    def _ms(self, count: int) -> int:
        return (count * 10000 + self.baud - 1) // self.baud

    def _times(self) -> "tuple[int, int, int]":
        """Return frame, answer and heartbeat."""
        frame = self._ms(self.frame + self.frame // 254 + 3)
        return frame, (100 + 4 * frame) << self.doublings, max(1000, 4 * frame)

    def receive(self, data: bytes, now: int) -> None:
        """Take bytes from the line."""
        pieces = (self.rest + data).split(b"\0")
        self.rest = pieces.pop()[: self.frame + self.frame // 254 + 2]  # one that is longer is no frame
        for piece in pieces:
            found = decode(piece) if piece else None
            if found is not None and self.reason is None:
                self._on_frame(found, now)

    def _on_frame(self, found: "tuple[int, int, int, int, int, bytes]", now: int) -> None:
        kind, epoch, seq, ack, credit, payload = found
        if kind == WELCOME and len(payload) >= 9:
            self._on_welcome(epoch, payload, now)
        elif not self.is_open and kind == CLOSE and payload[2:6] == struct.pack("<I", self.nonce):
            self.reason = payload[0]
        elif self.is_open and DATA <= kind <= CLOSE and epoch == self.epoch:
            self.heard_at = now
            self._acknowledge(ack, credit, payload if kind == ACK else b"", now)
            if kind == DATA:
                self._on_data(seq, payload, now)
            elif kind == CLOSE:
                self.reason = payload[0] if payload else DONE

    def _on_welcome(self, epoch: int, payload: bytes, now: int) -> None:
        version, _, frame, window, nonce = struct.unpack("<BBHBI", payload[:9])
        if nonce != self.nonce or (self.is_open and epoch == self.epoch):
            return
        if self.is_open:
            self.reason = RESTARTED
        elif version != 1:
            self.reason = VERSION
        elif not (64 <= frame <= self.frame and 1 <= window <= self.window):
            self.reason = TERMS
        else:
            self.is_open = self.ack_now = True
            self.epoch, self.frame, self.window, self.credit = epoch, frame, window, window
            self.heard_at = now

    def _acknowledge(self, ack: int, credit: int, bitmap: bytes, now: int) -> None:
        count, latest = (ack - self.base) & 255, 0
        if count > len(self.sent) or (count and not self.sent[count - 1].order):
            return
        for index, frame in enumerate(self.sent):
            bit = index - count - 1
            if index < count or (0 <= bit < 8 * len(bitmap) and bitmap[bit // 8] >> bit % 8 & 1):
                if not frame.held:
                    latest = max(latest, frame.order)
                frame.held = frame.order > 0
        self.sent = self.sent[count:]
        self.base, self.credit = ack, credit
        if latest or count:
            self.progress_at, self.doublings = now, 0
        for frame in self.sent:  # the line keeps the order: what was sent before is lost
            if 0 < frame.order < latest and not frame.held:
                frame.now = True

    def _on_data(self, seq: int, payload: bytes, now: int) -> None:
        if not 0 < len(payload) <= self.frame - 10:
            return self.close(VIOLATION)
        if (seq - self.expected) & 255 >= self.window or seq in self.early:
            self.ack_now = True  # a repeat
            return None
        self.early[seq] = payload
        before = self.expected
        while self.expected in self.early:
            self.ready += self.early.pop(self.expected)
            self.expected = (self.expected + 1) & 255
            self.unacked += 1
        if (self.expected - before) & 255 != 1 or self.unacked * 2 >= self.window:
            self.ack_now = True  # a gap, one that has closed, or half a window
        elif self.ack_at is None:
            self.ack_at = now + min(self._times()[0], 100)

    def take(self) -> bytes:
        """Return what has come in order; call it after each receive(): the gateway is promised a window."""
        self.ready, data = b"", self.ready
        return data

    def send(self, data: bytes, now: int) -> int:
        """Take bytes from the front of the data; return how many. next_frame() has them then."""
        taken = 0
        while self.is_open and taken < len(data) and len(self.sent) < min(self.window, self.credit):
            if not self.sent:
                self.progress_at = now
            self.sent.append(Sent(data[taken : taken + self.frame - 10]))
            taken += len(self.sent[-1].payload)
        return taken

    def close(self, reason: int) -> None:
        """End the stream by a CLOSE, the last frame; what is not acknowledged is left."""
        self.closing = reason

    def next_frame(self, now: int) -> bytes:
        """Do what is due, and return the next frame for the line; b"": none now."""
        _, answer, heartbeat = self._times()
        if self.is_open and self.reason is None and now >= self.heard_at + 4 * heartbeat:
            self.reason = SILENT
        if self.reason is not None or (not self.is_open and now < self.hello_at):
            return b""
        if not self.is_open:
            self.hello_at = now + 200 + self._ms(176)
            return encode(HELLO, 0, 0, 0, 0, struct.pack("<BBHBI", 1, 0, self.frame, self.window, self.nonce))
        if self.sent and now >= self.progress_at + 32 * heartbeat:
            self.close(STALLED)
        after = self.base + len(self.sent)
        if self.closing is not None:
            self.reason = self.closing
            return self._frame(CLOSE, after, bytes((self.closing, 1)), now)
        if any(now >= frame.due for frame in self.sent if not (frame.now or frame.held)):
            self.doublings, self.sent[0].now = min(self.doublings + 1, 3), True
            answer = self._times()[1]
            for frame in self.sent:
                frame.due = max(frame.due, now + answer)
        for index, frame in enumerate(self.sent):
            if frame.now and not frame.held and not self.ack_now:
                data = self._frame(DATA, self.base + index, frame.payload, now)
                self.orders += 1
                frame.order, frame.due, frame.now = self.orders, self.free_at + answer, False
                return data
        overdue = self.ack_at is not None and now >= self.ack_at
        if self.ack_now or overdue or now >= self.sent_at + heartbeat:
            self.ack_now = False
            bits = sum([1 << ((seq - self.expected - 1) & 255) for seq in self.early])
            return self._frame(ACK, after, bits.to_bytes(8, "little").rstrip(b"\0"), now)
        return b""

    def _frame(self, kind: int, seq: int, payload: bytes, now: int) -> bytes:
        self.ack_at, self.unacked = None, 0
        data = encode(kind, self.epoch, seq & 255, self.expected, self.window, payload)
        self.sent_at, self.free_at = now, max(now, self.free_at) + self._ms(len(data))
        return data
