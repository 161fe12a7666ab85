"""Runs link.py on a computer, for tests: ``python3 host.py play``, ``micropython host.py echo DEVICE BAUD``.

``play``: a line "ms received sent" in, what was delivered and each frame that left out. ``echo``: send back
whatever comes over a port, until the stream ends.
"""

import select
import sys
import time
from binascii import hexlify, unhexlify

from link import Link  # type: ignore[import-not-found]


def text(data: bytes) -> str:
    """Return hexadecimal digits."""
    return hexlify(data).decode()


def say(line: str) -> None:
    """Write a line."""
    sys.stdout.write(line + "\n")


def play() -> None:
    """Play docs/link_vectors.json."""
    link = Link(115200, 64, 4, 0x12345678, 0)
    while True:
        words = sys.stdin.readline().split()
        if not words:
            break
        received, sent = [unhexlify(word.replace("-", "")) for word in words[1:]]
        now = int(words[0])
        link.receive(received, now)
        answer = [text(link.take())]
        assert link.send(sent, now) == len(sent)
        while True:
            frame = link.next_frame(now)
            if not frame:
                break
            answer.append(text(frame))
        say(" ".join(answer))
    say(f"{1 + (link.reason is not None)} {link.reason}")


def echo(device: str, baud: int) -> None:
    """Send back what comes."""
    port = open(device, "r+b", buffering=0)  # noqa: SIM115 - MicroPython's has no name for everything
    poll = select.poll()
    poll.register(port, select.POLLIN)
    link = Link(baud, 128, 4, 0x12345678, time.time_ns() // 1000000)
    held = b""
    while link.reason is None:
        received = b""
        while poll.poll(0 if received else 2) and len(received) < 256:
            received += port.read(1)  # MicroPython waits for as many as it is asked for
        now = time.time_ns() // 1000000
        link.receive(received, now)
        held += link.take()
        held = held[link.send(held, now) :]
        while True:
            frame = link.next_frame(now)
            if not frame:
                break
            port.write(frame)
    say(str(link.reason))


if sys.argv[1] == "play":
    play()
else:
    echo(sys.argv[2], int(sys.argv[3]))
