"""Runs that are always the same: client, threads and a small broker in one process, see against_commit.py.

Threads take turns in virtual time (tests/same_as/strands.py). That is what makes calls and instructions
countable.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.asyncio_clients import AsyncClientPeer
from benchmarks.peers import DEADLINE, PAYLOAD, TOPIC, DeviceSdkPeer, PahoPeer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

__all__ = ["count_calls"]

ROOT = Path(__file__).resolve().parent.parent
_OURS = (str(ROOT / "benchmarks"), str(ROOT / "tests"))
_PIECE = 1 << 15  # bytes that the broker sends at a time


class Calls:
    """Counts Python calls of all threads, but not those of benchmarks/ and tests/."""

    def __init__(self) -> None:
        self.count = 0
        self._counted: dict[CodeType, bool] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """What ``sys.setprofile`` calls."""
        if event == "call":
            code = frame.f_code
            counted = self._counted.get(code)
            if counted is None:
                counted = self._counted[code] = not code.co_filename.startswith(_OURS)
            self.count += counted

    def watch(self) -> None:
        """Count in this thread and in those that begin later."""
        threading.setprofile(self)
        sys.setprofile(self)


#: What is answered to what: PUBACK, PUBREC, PUBREL and PUBCOMP.
_ANSWERS = {0x32: 0x40, 0x34: 0x50, 0x62: 0x70, 0x50: 0x62}


def _runs(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield runs of equal packets: the first byte, where they begin, the size of each, how many there are.

    Hardly anything is done for one packet, as this is to measure the client. A rest that is no whole packet
    is left out.
    """
    place = 0
    while place + 2 <= len(data):
        kind, length, header = data[place], data[place + 1], 2
        if length & 0x80:
            if place + 3 > len(data):
                return
            length, header = (length & 0x7F) | data[place + 2] << 7, 3
        size = header + length
        count = (len(data) - place) // size
        first_bytes = data[place : place + count * size : size]
        count -= len(first_bytes.lstrip(data[place : place + 1]))
        if not count:
            return
        yield kind, place, size, count
        place += count * size


def _acknowledgements(kind: int, packet_ids: tuple[bytes, bytes]) -> bytearray:
    """Return packets of four bytes with these packet identifiers, high bytes and low ones."""
    count = len(packet_ids[0])
    packets = bytearray(4 * count)
    packets[0::4], packets[1::4] = bytes((kind,)) * count, b"\2" * count
    packets[2::4], packets[3::4] = packet_ids
    return packets


class Broker:
    """A broker as small as can be, for MQTT 3.1.1. ``order``: how many messages it sends, at which QoS."""

    def __init__(self, order: tuple[int, int]) -> None:
        self.output = bytearray()
        self._left, self._qos = order
        self._packet_id = 0

    def take(self, data: bytes) -> int:
        """Answer; return the bytes of whole packets."""
        taken = 0
        for kind, place, size, count in _runs(data):
            taken = place + size * count
            if kind == 0x10:
                self.output += b"\x20\x02\x00\x00"
            elif kind == 0x82:
                self.output += b"\x90\x03" + data[place + 2 : place + 4] + data[taken - 1 : taken]
                self._send(1_000 if self._qos else self._left)
            elif kind in _ANSWERS:
                at = 2 if size == 4 else 4 + len(TOPIC)
                columns = (data[place + at + one : taken : size] for one in (0, 1))
                self.output += _acknowledgements(_ANSWERS[kind], (next(columns), next(columns)))
            elif kind in (0x40, 0x70):
                self._send(count)
        return taken

    def _send(self, most: int) -> None:
        count = min(most, self._left)
        self._left -= count
        identifier = 2 if self._qos else 0
        body = len(TOPIC).to_bytes(2) + TOPIC.encode() + bytes(identifier) + PAYLOAD
        packet = bytes((0x30 | self._qos << 1, len(body))) + body
        packets = bytearray(packet * count)
        if self._qos:
            numbers = [self._packet_id + one for one in range(1, count + 1)]
            at = 4 + len(TOPIC)
            packets[at :: len(packet)] = bytes(number >> 8 & 0xFF for number in numbers)
            packets[at + 1 :: len(packet)] = bytes(number & 0xFF for number in numbers)
            self._packet_id += count
        self.output += packets


def _memory_transport(broker: Broker) -> Any:
    """Return a transport with that broker behind it, and a descriptor that the selectors of strands know."""
    from device_sdk.net.base import Transport
    from tests.same_as.strands import PORTS, STRANDS

    class MemoryTransport(Transport):
        description = "memory"
        writable = True

        @property
        def readable(self) -> bool:
            return bool(broker.output)

        def open(self, deadline: float) -> None:
            PORTS[self.fileno()] = self

        def fileno(self) -> int:
            return 1 << 20

        def recv(self) -> bytes | None:
            data = bytes(broker.output[: 1 << 16])
            del broker.output[: 1 << 16]
            return data or None

        def send(self, data: bytes | bytearray | memoryview) -> int:
            broker.take(bytes(data))
            STRANDS.poke()
            return len(data)

        def abort(self) -> None: ...
        def close(self) -> None: ...

    return MemoryTransport()


class _World:
    """Nothing happens by itself."""

    now = 1000.0

    def next_due(self) -> float:
        """When the next thing happens."""
        return float("inf")

    def go_to(self, moment: float) -> None:
        """Let it happen."""
        self.now = moment


class _SocketWorld(_World):
    """The broker reads and writes a Unix socket when the client waits."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._folder = tempfile.TemporaryDirectory(prefix="device-sdk-bench-")
        self.path = os.path.join(self._folder.name, "broker")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._end: socket.socket | None = None
        self._rest = bytearray()

    def __enter__(self) -> _SocketWorld:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listener, self._end):
            if one is not None:
                one.close()
        self._folder.cleanup()

    def _readable(self) -> bool:
        return bool(select.select([self._end or self._listener], [], [], 0)[0])

    def next_due(self) -> float:
        """When the next thing happens."""
        return self.now if self._broker.output or self._readable() else float("inf")

    def go_to(self, moment: float) -> None:
        """Let it happen."""
        self.now = max(self.now, moment)
        if self._end is None:
            if self._readable():
                self._end, _ = self._listener.accept()
                self._end.setblocking(False)
            return
        if self._readable():
            self._rest += self._end.recv(1 << 20)
            del self._rest[: self._broker.take(bytes(self._rest))]
        output = self._broker.output
        if output:
            try:
                del output[: self._end.send(output[:_PIECE])]
            except OSError:  # the client has left
                output.clear()


def count_calls(shell: str, job: dict[str, Any], *, watched: bool) -> int:
    """Run once; return the calls. :mod:`tests.same_as.strands` is installed; the process ends after it.

    ``watched``: without it nothing is counted, by somebody who counts something else.
    """
    from tests.same_as.strands import STRANDS
    from tests.same_as.virtual import CLOCK

    calls = Calls()
    broker = Broker((job["count"] if job["direction"] == "receive" else 0, job["qos"]))
    world = _SocketWorld(broker) if shell == "drop-in" else _World()
    CLOCK.show = lambda: world.now
    STRANDS.begin(world, lambda: None)
    if watched:
        calls.watch()
    if isinstance(world, _SocketWorld):
        _use_drop_in(job, world)
    elif shell == "async":
        _use_async_client(job, _memory_transport(broker))
    else:
        _use_client(job, _memory_transport(broker))
    sys.setprofile(None)
    return calls.count


def _use_client(job: dict[str, Any], transport: Any) -> None:
    from device_sdk import Client

    class Peer(DeviceSdkPeer):
        def __init__(self) -> None:
            self.client = Client(transport, version="3.1.1", inflight=job["inflight"])
            self.client.connect(DEADLINE)

    peer = Peer()
    (peer.publish if job["direction"] == "publish" else peer.receive)(job["count"], job["qos"])
    peer.close()


def _use_async_client(job: dict[str, Any], transport: Any) -> None:
    from device_sdk import AsyncClient
    from tests.same_as.clients import StrandLoop

    class Peer(AsyncClientPeer):
        def __init__(self) -> None:
            self._client = AsyncClient(transport, version="3.1.1", inflight=job["inflight"])
            self._pulls = False

    async def work() -> None:
        peer = Peer()
        await peer.open()
        await (peer.publish if job["direction"] == "publish" else peer.receive)(job["count"], job["qos"])
        await peer.close()

    StrandLoop().run_until_complete(work())


def _use_drop_in(job: dict[str, Any], world: _SocketWorld) -> None:
    from device_sdk.paho import client as mqtt

    class Peer(PahoPeer):
        def __init__(self) -> None:
            connected = threading.Event()
            self.client = mqtt.Client(
                mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311, transport="unix"
            )  # type: ignore[assignment]
            self.client.on_connect = lambda *_: connected.set()
            self.client.max_inflight_messages_set(job["inflight"])
            self.client.connect(world.path)
            self.client.loop_start()
            if not connected.wait(DEADLINE):
                raise TimeoutError("the drop-in did not connect")

    with world:
        peer = Peer()
        (peer.publish if job["direction"] == "publish" else peer.receive)(job["count"], job["qos"])
        peer.close()
