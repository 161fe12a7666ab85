"""A serial line in memory between two ends of a link, with a rate, faults, and a clock set by hand."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from device_sdk.net.link.answerer import Answerer
from device_sdk.net.link.caller import Caller
from device_sdk.net.link.stream import LinkStream

# What a port of Linux takes before it says that there is no room: one page.
PORT_BYTES = 4095


class Half(Protocol):
    """An end of the link, as its owner sees it."""

    stream: LinkStream | None

    def receive(self, data: bytes, now: float) -> None: ...
    def next_frame(self, now: float) -> bytes: ...
    def next_deadline(self, *, blocked: bool) -> float | None: ...
    def handle_deadline(self, now: float) -> None: ...


class Faults:
    """Flips, drops and repeats bytes, each with its probability per byte."""

    def __init__(self, seed: int, flip: float = 0.0, drop: float = 0.0, repeat: float = 0.0) -> None:
        self._random = random.Random(seed)
        self._flip, self._drop, self._repeat = flip, drop, repeat

    def __call__(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            draw = self._random.random()
            if draw < self._flip:
                out.append(byte ^ 1 << self._random.randrange(8))
            elif draw < self._flip + self._drop:
                continue
            elif draw < self._flip + self._drop + self._repeat:
                out += bytes((byte, byte))
            else:
                out.append(byte)
        return bytes(out)


class Wire:
    """One direction: bytes arrive in the order and at the rate at which they leave."""

    def __init__(self, byte_s: float) -> None:
        self._byte_s = byte_s
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0
        self.faults: Callable[[bytes], bytes] = bytes
        self.carried = 0

    def room_at(self) -> float:
        """Return from when on the port takes more."""
        return self._free_at - PORT_BYTES * self._byte_s

    def put(self, data: bytes, now: float) -> None:
        self._free_at = max(now, self._free_at) + len(data) * self._byte_s
        self.carried += len(data)
        self._under_way.append((self._free_at, self.faults(data)))

    def take(self, now: float) -> bytes:
        data = b""
        while self._under_way and self._under_way[0][0] <= now:
            data += self._under_way.popleft()[1]
        return data

    def next_arrival(self) -> float | None:
        return self._under_way[0][0] if self._under_way else None

    def cut(self) -> None:
        """Lose what is under way."""
        self._under_way.clear()


class Station:
    """An end, its owner, and the wire that it sends on. What it sends and receives is kept per epoch."""

    def __init__(self, half: Half, out: Wire) -> None:
        self.half = half
        self.out = out
        self.unsent = b""
        self.sent: dict[int, bytearray] = {}
        self.received: dict[int, bytearray] = {}
        self.reads = True

    def write(self, data: bytes) -> None:
        """Have data sent, as the stream takes it."""
        self.unsent += data

    def serve(self, incoming: bytes, now: float) -> None:
        half = self.half
        before = half.stream
        half.receive(incoming, now)
        half.handle_deadline(now)
        for stream in (before, half.stream):  # what came before an end still counts
            if stream is not None and self.reads and (data := stream.take()):
                self.received.setdefault(stream.epoch, bytearray()).extend(data)
        stream = half.stream
        if stream is not None and self.unsent:
            taken = stream.send(self.unsent, now)
            self.sent.setdefault(stream.epoch, bytearray()).extend(self.unsent[:taken])
            self.unsent = self.unsent[taken:]
        while not self.is_blocked(now) and (frame := half.next_frame(now)):
            self.out.put(frame, now)

    def is_blocked(self, now: float) -> bool:
        return now < self.out.room_at()

    def next_moment(self, now: float) -> list[float]:
        blocked = self.is_blocked(now)
        due = self.half.next_deadline(blocked=blocked)
        stream = self.half.stream
        can_send = stream is not None and stream.end is None and stream.outbound.room() > 0
        ready = now if self.unsent and can_send else None
        moments = (due, ready, self.out.room_at() if blocked else None)
        return [moment for moment in moments if moment is not None]


class Line:
    """Two ends and the wires between them."""

    def __init__(self, baud: int = 115_200, frame: int = 256, window: int = 8, nonce: int = 1) -> None:
        self.baud, self.frame, self.window = baud, frame, window
        self.now = 100.0
        self.up, self.down = Wire(10 / baud), Wire(10 / baud)
        self.board = Station(Caller(baud, frame, window, nonce, self.now), self.up)
        self.gateway = Station(Answerer(baud, frame, window, 7), self.down)

    def disturb(self, seed: int, flip: float = 0.0, drop: float = 0.0, repeat: float = 0.0) -> None:
        """Disturb both directions."""
        self.up.faults = Faults(seed, flip, drop, repeat)
        self.down.faults = Faults(seed + 1, flip, drop, repeat)

    def restart_board(self, nonce: int) -> None:
        """Start the board again: its program has forgotten everything."""
        self.board.half = Caller(self.baud, self.frame, self.window, nonce, self.now)

    def restart_gateway(self, epoch: int) -> None:
        self.gateway.half = Answerer(self.baud, self.frame, self.window, epoch)

    def step(self) -> None:
        """Go to the next moment at which something happens, and let it happen."""
        moments = self.board.next_moment(self.now) + self.gateway.next_moment(self.now)
        moments += [at for wire in (self.up, self.down) if (at := wire.next_arrival()) is not None]
        # The clock of a computer does not stand still: what is overdue and not done is looked at again.
        self.now = now = max(min(moments, default=self.now + 1.0), self.now + 1e-6)
        self.board.serve(self.down.take(now), now)
        self.gateway.serve(self.up.take(now), now)

    def run(self, until: Callable[[], bool], seconds: float = 600.0) -> bool:
        """Run until something is true; return whether that was so within the time."""
        end = self.now + seconds
        while not until():
            if self.now > end:
                return False
            self.step()
        return True

    def connect(self) -> tuple[LinkStream, LinkStream]:
        """Run until both ends have a stream."""
        board, gateway = self.board.half, self.gateway.half
        assert self.run(lambda: board.stream is not None and gateway.stream is not None)
        assert board.stream is not None
        assert gateway.stream is not None
        return board.stream, gateway.stream
