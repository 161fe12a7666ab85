"""The far end of a virtual serial line: from a pseudo-terminal to a TCP connection and back.

The gateway's rule: bytes after an open of the device go to a new connection. Otherwise a CONNECT would
complete half a packet before it. It opens a connection for the first byte, ends it when the device is closed,
and hangs up the line when the broker has ended it, or when the device was closed and opened again too quickly
to separate old bytes from new ones.
"""

from __future__ import annotations

import ctypes
import os
import random
import select
import selectors
import socket
import struct
import time
import tty
from pathlib import Path

__all__ = ["Gateway", "Wire"]

READ_BYTES = 4096
# Linux inotify(7). Opening for reading only counts as well.
IN_OPEN = 0x20
IN_CLOSE = 0x08 | 0x10
# In each direction, besides the 13,824 bytes of Linux's pty buffer; beyond that the sender has to wait.
BUFFER_BYTES = 4096
# After the broker has closed, so that the device reads the broker's last bytes before the line goes dead.
HANG_UP_S = 0.1
CONNECT_S = 5.0
# With throttle(): bytes cross the wire in portions of this much time.
PORTION_S = 0.01


class Gateway:
    """Carries bytes between a device and ``target``. Not thread-safe: the line has a lock.

    ``up`` and ``down`` are the wires, ``counts`` the bytes they have carried since the start. While
    ``is_stalled`` they carry none.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.up = Wire()
        self.down = Wire()
        self.counts = {"connections": 0, "up": 0, "down": 0}
        self.is_stalled = False
        self._target = target
        self._path: Path
        self._selector: selectors.BaseSelector
        self._master = -1
        self._openings: _Openings
        self._is_open = False  # a program has the device open, as far as we know
        self._closed = False  # it was closed, and data sent before that is still unread
        self._broker: socket.socket | None = None
        self._hang_up_at: float | None = None

    def begin(self, path: Path, selector: selectors.BaseSelector) -> None:
        """Make the device appear at ``path``; register its events and the broker's with ``selector``."""
        self._path = path
        self._selector = selector
        self.plug()

    def watch(self, now: float) -> None:
        """Hang up if that is due, and register the events that each end waits for."""
        if self._hang_up_at is not None and now >= self._hang_up_at and not self.is_stalled:
            self._hang_up()
        running = not self.is_stalled
        up, down = self.up, self.down
        if self._master >= 0:
            self._watch_one(self._openings.fd, selectors.EVENT_READ * running)
            # A master whose device is not open is always ready, without data.
            events = selectors.EVENT_READ * (up.may_read(now) and self._is_open)
            events |= selectors.EVENT_WRITE * (bool(down.data) and down.is_due(now) and self._is_open)
            self._watch_one(self._master, events * running)
        if self._broker is not None:
            events = selectors.EVENT_READ * (len(down.data) < BUFFER_BYTES and self._hang_up_at is None)
            events |= selectors.EVENT_WRITE * bool(up.data)
            self._watch_one(self._broker, events * running)

    def _watch_one(self, end: int | socket.socket, events: int) -> None:
        key = self._selector.get_map().get(end)
        if not events:
            if key is not None:
                self._selector.unregister(end)
        elif key is None:
            self._selector.register(end, events)
        elif key.events != events:
            self._selector.modify(end, events)

    def timeout(self, now: float) -> float | None:
        """Seconds until the next deadline."""
        if self._master < 0 or self.is_stalled:
            return None
        moments = [wire.free_at for wire in (self.up, self.down) if wire.free_at > now]
        if self._hang_up_at is not None:
            moments.append(self._hang_up_at)
        return max(0.0, min(moments) - now) if moments else None

    def serve(self, ready: dict[int, int]) -> None:
        """Carry bytes as far as possible; ``ready``: descriptor -> events."""
        if self.is_stalled:
            return
        now = time.monotonic()
        if self._master >= 0 and (
            self._openings.fd in ready or ready.get(self._master, 0) & selectors.EVENT_READ
        ):
            self._read_device(now)
        if self._broker is not None:
            self._serve_broker(ready.get(self._broker.fileno(), 0))
        if self._is_open and self._master >= 0 and self.down.data and self.down.is_due(now):
            self._write_device(now)

    # The device's side.

    def _read_device(self, now: float) -> None:
        """Take data from the device, and find out which program sent it.

        Data is read before the openings and closings: without any of these, all of it is from the program
        that has had the device open.
        """
        data, nobody, reopened = b"", False, False
        try:
            data = os.read(self._master, self.up.portion())
        except BlockingIOError:
            pass
        except OSError:  # EIO: no program has the device open, and all data has been read
            nobody = True
        news = self._openings.read()
        for event in news:
            reopened |= self._closed and event == IN_OPEN
            self._closed = event == IN_CLOSE
        self._is_open = not nobody or IN_OPEN in news
        if reopened and (data or self._has_input()):
            self._hang_up()  # it may be of the old program, of the new one, or of both
            return
        if reopened or nobody:
            self._end_session()
        if IN_OPEN not in news and (nobody or not (data or news)):
            self._closed = False  # all was read; if it is still readable, another program has it open
        if data and self._hang_up_at is None:
            if self._broker is None:
                self._connect()
            self.up.put(data, now)

    def _has_input(self) -> bool:
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        return any(found & select.POLLIN for _, found in poll.poll(0))

    def _write_device(self, now: float) -> None:
        try:
            sent = os.write(self._master, self.down.data[: self.down.portion()])
        except BlockingIOError:
            return
        self.down.took(sent, now)
        self.counts["down"] += sent

    def plug(self) -> None:
        """Make a new device appear under the path. Plugged in already: nothing happens."""
        if self._master >= 0:
            return
        self._master, slave = os.openpty()
        os.set_blocking(self._master, False)
        # Raw from the start: data that arrives before a program has configured it would be echoed.
        tty.setraw(slave)
        name = os.ttyname(slave)
        os.close(slave)
        self._openings = _Openings(name)
        self._is_open = self._closed = False
        # The name never dangles, not even for a moment during a hang-up.
        link = self._path.with_name(self._path.name + ".new")
        link.symlink_to(name)
        link.replace(self._path)

    def unplug(self) -> None:
        """Hang the device up and remove its name; data under way is lost."""
        if self._master >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._release_device())

    def _hang_up(self) -> None:
        """End the stream for the device, as a modem does by dropping the carrier: the name stays."""
        old = self._release_device()
        self.plug()
        os.close(old)

    def _release_device(self) -> int:
        """Drop the device and data under way; return its descriptor, to be closed."""
        master, self._master = self._master, -1
        self._watch_one(master, 0)
        self._watch_one(self._openings.fd, 0)
        self._openings.close()
        self.up.data.clear()
        self._end_session()
        return master

    # The broker's side.

    def _connect(self) -> None:
        """Begin a session; without a broker the device is hung up."""
        self.counts["connections"] += 1
        try:
            self._broker = socket.create_connection(self._target, CONNECT_S)
        except OSError:
            self._hang_up_at = time.monotonic()
            return
        self._broker.setblocking(False)
        self._broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _serve_broker(self, events: int) -> None:
        broker = self._broker
        assert broker is not None
        try:
            if events & selectors.EVENT_WRITE:
                sent = broker.send(self.up.data)
                del self.up.data[:sent]
                self.counts["up"] += sent
            if events & selectors.EVENT_READ:
                data = broker.recv(READ_BYTES)
                self.down.data += self.down.disturbed(data)
                if not data:
                    self._broker_ended()
        except BlockingIOError:
            pass
        except OSError:  # reset
            self._broker_ended()

    def _broker_ended(self) -> None:
        """Hang up soon: the broker's last bytes have to be delivered and read first."""
        self.up.data.clear()
        if self._hang_up_at is None:
            wire_s = len(self.down.data) / (self.down.rate or float("inf"))
            self._hang_up_at = time.monotonic() + wire_s + HANG_UP_S

    def _end_session(self) -> None:
        """Pass on delivered data, close the connection to the broker, drop the rest."""
        broker, self._broker = self._broker, None
        self._hang_up_at = None
        if broker is not None:
            self._watch_one(broker, 0)
            try:
                broker.settimeout(CONNECT_S)
                broker.sendall(self.up.data)
                self.counts["up"] += len(self.up.data)
            except OSError:
                pass
            broker.close()
        self.up.data.clear()
        self.down.data.clear()


class _Openings:
    """Reports the openings and closings of a device in order (Linux inotify(7)).

    The master of a pseudo-terminal cannot: it only shows whether the device is open now, so that a quick
    close and open goes unnoticed.
    """

    def __init__(self, path: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0 or libc.inotify_add_watch(self.fd, path.encode(), IN_OPEN | IN_CLOSE) < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)

    def read(self) -> list[int]:
        """Return the IN_OPEN and IN_CLOSE events since the last call, in order."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return []
        masks = (mask for _, mask, _, _ in struct.iter_unpack("iIII", data))
        return [IN_CLOSE if mask & IN_CLOSE else IN_OPEN for mask in masks if mask & (IN_OPEN | IN_CLOSE)]

    def close(self) -> None:
        os.close(self.fd)


class Wire:
    """One direction: bytes on their way, speed, and noise."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.rate: float | None = None
        self.free_at = 0.0
        self._probability = 0.0
        self._random = random.Random(0)

    def disturb(self, probability: float, seed: int) -> None:
        """Flip one bit of a byte with this probability from now on."""
        self._probability = probability
        self._random = random.Random(seed)

    def disturbed(self, data: bytes) -> bytes:
        """Return the data as it arrives."""
        if not self._probability:
            return data
        draw, probability = self._random, self._probability
        return bytes(b ^ 1 << draw.randrange(8) if draw.random() < probability else b for b in data)

    def is_due(self, now: float) -> bool:
        """Whether the next portion may go."""
        return now >= self.free_at

    def may_read(self, now: float) -> bool:
        """Whether the next portion may go, and there is room for it."""
        return self.is_due(now) and len(self.data) < BUFFER_BYTES

    def portion(self) -> int:
        """Bytes that may go at once."""
        return READ_BYTES if self.rate is None else min(READ_BYTES, max(1, int(self.rate * PORTION_S)))

    def put(self, data: bytes, now: float) -> None:
        """Take data off the wire."""
        self.data += self.disturbed(data)
        self._occupy(len(data), now)

    def took(self, count: int, now: float) -> None:
        """Note that the wire has taken ``count`` bytes of the data."""
        del self.data[:count]
        self._occupy(count, now)

    def _occupy(self, count: int, now: float) -> None:
        if self.rate is not None:
            # From when it was free, if that was just now: a late clock must not slow the line down.
            self.free_at = max(self.free_at, now - PORTION_S) + count / self.rate
