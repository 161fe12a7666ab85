"""Writes docs/link_vectors.json: ``python -m tests.net.link_vectors``. The test compares it with the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from device_sdk.net.link.caller import Caller
from device_sdk.net.link.frame import ACK, CLOSE, DATA, HELLO, WELCOME, Hello, cobs_encode, encode

PATH = Path(__file__).resolve().parents[2] / "docs" / "link_vectors.json"
NONCE = 0x12345678
COBS = [b"", b"\0", b"\0\0", b"\x11\x22\0\x33", b"\x11\0\0\0", b"\1" * 253, b"\1" * 254, b"\1" * 255,
        b"\1" * 254 + b"\0", b"\1" * 508, b"\0" + b"\2" * 254 + b"\0\3"]  # fmt: skip
# Kind, epoch, seq, ack, credit, payload.
FRAMES = [
    (HELLO, 0, 0, 0, 0, Hello(1, 64, 4, NONCE).pack()),
    (WELCOME, 0x0102, 0, 0, 4, Hello(1, 64, 4, NONCE).pack()),
    (DATA, 0x0102, 0, 0, 4, b"hello"),
    (DATA, 0xFFFF, 255, 254, 64, bytes(54)),
    (DATA, 1, 2, 3, 4, bytes(range(1, 255)) * 3 + b"\0" * 252),
    (ACK, 0x0102, 3, 7, 2, b""),
    (ACK, 0x0102, 3, 7, 4, b"\x05\x80"),
    (CLOSE, 0x0102, 9, 7, 4, b"\2\1"),
    (CLOSE, 0, 0, 0, 0, b"\3\2" + NONCE.to_bytes(4, "little")),
    (DATA, 0x0102, 0, 0, 4, b""),
]  # fmt: skip


def _dialogue() -> list[dict[str, Any]]:
    """Play a caller against frames that are written by hand; note what leaves it."""
    end = Caller(115_200, 64, 4, NONCE, 0.0)
    welcome = Hello(1, 64, 4, NONCE).pack()
    stale = Hello(1, 64, 4, 1).pack()

    def data(seq: int, payload: bytes, ack: int = 0) -> bytes:
        return encode(DATA, 7, seq, ack, 4, payload)

    def acked(ack: int, bitmap: bytes = b"", credit: int = 4) -> bytes:
        return encode(ACK, 7, 0, ack, credit, bitmap)

    broken = bytearray(data(1, b"never"))
    broken[7] ^= 4
    script: list[tuple[str, float, bytes, bytes]] = [
        ("the first HELLO", 0, b"", b""),
        ("no answer: HELLO again", 216, b"", b""),
        ("noise, a WELCOME for another HELLO, then the right one: an ACK", 300,
         b"\x55\xaa\0" + encode(WELCOME, 6, 0, 0, 4, stale) + encode(WELCOME, 7, 0, 0, 4, welcome), b""),
        ("data in two frames", 310, b"", b"A" * 54 + b"BC"),
        ("both acknowledged with data; its own ACK waits", 320, data(0, b"one", 2), b""),
        ("the ACK is due", 326, b"", b""),
        ("a damaged frame: nothing", 330, bytes(broken), b""),
        ("one beyond a gap: an ACK with a bitmap", 331, data(2, b"three", 2), b""),
        ("another one", 332, data(3, b"four", 2), b""),
        ("a repeat of the first: an ACK", 333, data(0, b"one", 2), b""),
        ("the gap closes", 334, data(1, b"two", 2), b""),
        ("three frames to send", 340, b"", b"D" * 54 + b"E" * 54 + b"F"),
        ("the first is lost, the others are there: it is repeated at once", 355, acked(2, b"\3"), b""),
        ("all there", 361, acked(5), b""),
        ("one frame without an answer ...", 400, b"", b"G"),
        ("... is repeated after the time-out", 526, b"", b""),
        ("and there, without room for more", 530, acked(6, credit=0), b""),
        ("room again", 540, acked(6), b"H"),
        ("a frame of another epoch: nothing", 545, encode(ACK, 8, 0, 7, 4), b""),
        ("acknowledged", 546, acked(7), b""),
        ("nothing to say: a heart-beat", 1541, acked(7), b""),
        ("the gateway's broker is away: the end", 1550, encode(CLOSE, 7, 4, 7, 4, b"\2\1"), b""),
    ]  # fmt: skip
    steps = []
    for note, ms, incoming, outgoing in script:
        now = ms / 1000
        end.receive(incoming, now)
        end.handle_deadline(now)
        stream = end.stream
        delivered = b"" if stream is None else stream.take()
        if stream is not None:
            assert stream.send(outgoing, now) == len(outgoing), note
        left = []
        while frame := end.next_frame(now):
            left.append(frame.hex())
        step: dict[str, Any] = {"note": note, "ms": ms, "receive": incoming.hex(), "send": outgoing.hex()}
        steps.append({**step, "expect": left, "delivered": delivered.hex()})
    assert end.stream is not None
    assert end.stream.end == 2
    return steps


def vectors() -> dict[str, Any]:
    """Return what the file has to hold."""
    names = ("kind", "epoch", "seq", "ack", "credit")
    good = encode(*FRAMES[2])
    damaged = [
        good[:5] + bytes((good[5] ^ 1,)) + good[6:],
        good[:6] + good[7:],
        b"\0\1\1\0",
        b"\0\xff\1\0",
        b"\0" * 9,
    ]
    return {
        "version": 1,
        "cobs": [{"data": data.hex(), "coded": cobs_encode(data).hex()} for data in COBS],
        "frames": [
            {
                **dict(zip(names, fields, strict=False)),
                "payload": fields[-1].hex(),
                "line": encode(*fields).hex(),
            }
            for fields in FRAMES
        ],
        "damaged": [line.hex() for line in damaged],
        "dialogue": _dialogue(),
    }  # fmt: skip


def text() -> str:
    """Return the text of the file."""
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
