"""What every byte stream must do, written once: subclass :class:`TransportContract` and give it a rig.

A rig makes transports and plays the place that they lead to. Everything waits with :data:`PATIENCE`.
"""

from __future__ import annotations

import os
import select
import threading
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import pytest

from device_sdk.errors import ConnectFailedError, TransportClosedError, TransportError
from device_sdk.net.base import Transport

PATIENCE = 10.0
MEBIBYTE = bytes(range(256)) * 4096


class Stream(Protocol):
    """What the suite needs of either end."""

    def fileno(self) -> int: ...
    def recv(self) -> bytes | None: ...
    def send(self, data: bytes, /) -> int: ...
    def wants_write(self) -> bool: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


class Peer(Stream, Protocol):
    """The other end; it can also reset the connection."""

    def reset(self) -> None: ...


@dataclass(frozen=True)
class Abilities:
    """What not every kind of stream can do. A test that asks for more than its rig can is skipped."""

    ends_in_order: bool = True  # what the peer sent before it closed is still delivered
    resets: bool = True  # a connection can break in a way that differs from its end
    waits_in_open: bool = True  # open() can take long, so that there is something to abort
    cheap_to_open: bool = True  # a thousand times in one test
    timers: bool = False  # it has work to do at times of its own
    lags: bool = False  # what happens at one end is seen a moment later at the other: a thread is between


class Rig(ABC):
    """A place that one transport leads to."""

    transport: Transport
    can = Abilities()

    def needs(self, ability: str) -> None:
        if not getattr(self.can, ability):
            pytest.skip(f"a {self.transport.description.split()[0]} stream cannot: {ability}")

    @abstractmethod
    def accept(self) -> Peer:
        """Return the other end of the connection that ``transport`` opened last."""

    @abstractmethod
    def unreachable(self) -> Transport:
        """Return a transport to where nobody listens."""

    @abstractmethod
    def unresponsive(self) -> AbstractContextManager[Transport]:
        """Give a transport whose open() blocks until the context ends, its deadline or an abort."""

    def connect(self) -> Peer:
        self.transport.open(soon())
        return self.accept()


def soon() -> float:
    return time.monotonic() + PATIENCE


def ready(stream: Stream, seconds: float = PATIENCE) -> bool:
    """Wait as an owner does: for reading, for writing while the stream wants it, and for its deadlines."""
    until = time.monotonic() + seconds
    while True:
        due = getattr(stream, "next_deadline", lambda: None)()
        now = time.monotonic()
        if due is not None and now >= due:
            stream.handle_deadline(now)  # type: ignore[attr-defined]
        events = select.POLLIN | (select.POLLOUT if stream.wants_write() else 0)
        poll = select.poll()
        poll.register(stream.fileno(), events)
        found = poll.poll(max(0.0, min(until, until if due is None else due) - now) * 1000)
        if found and found[0][1] & select.POLLOUT:
            stream.flush()
        if found or time.monotonic() >= until:
            return bool(found)


def send_all(stream: Stream, data: bytes) -> None:
    while data:
        data = data[stream.send(data) :]
        assert not data or ready(stream), "no room came"


def receive(stream: Stream, count: int) -> bytes:
    """Return exactly ``count`` bytes, or fewer when the stream ends."""
    received = b""
    while len(received) < count:
        data = stream.recv()
        if data == b"":
            break
        if data is None:
            assert ready(stream), f"only {len(received)} of {count} bytes came"
        received += data or b""
    return received


def receive_to_the_end(stream: Stream) -> bytes:
    return receive(stream, 1 << 30)


def fill(rig: Rig) -> tuple[int, memoryview]:
    """Send until there is no room; return how many bytes that took, and what has to come next."""
    accepted, rest = 0, memoryview(MEBIBYTE * 64)
    while True:
        while taken := rig.transport.send(rest):
            accepted, rest = accepted + taken, rest[taken:]
            assert rest, "an unbounded buffer"
        if not (rig.can.lags and ready(rig.transport, 0.2)):
            return accepted, rest


def drain(rig: Rig, peer: Stream) -> None:
    """Let the peer read what is under way, such as the first part of a record or frame."""
    while ready(peer, 0.2 if rig.can.lags else 0):
        peer.recv()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


class TransportContract:
    """The suite. A subclass, named ``Test...``, defines the fixture ``rig``."""

    def test_bytes_arrive_both_ways(self, rig: Rig) -> None:
        peer = rig.connect()
        send_all(rig.transport, b"ping")
        assert receive(peer, 4) == b"ping"
        send_all(peer, b"pong")
        assert receive(rig.transport, 4) == b"pong"

    def test_nothing_there_reads_as_none_and_does_not_wake(self, rig: Rig) -> None:
        rig.connect()
        assert rig.transport.recv() is None
        assert not rig.transport.wants_write()
        assert not ready(rig.transport, 0)

    def test_nothing_stays_inside_while_the_descriptor_is_silent(self, rig: Rig) -> None:
        peer = rig.connect()
        send_all(peer, b"x" * 10_000)
        assert receive(rig.transport, 10_000) == b"x" * 10_000
        assert rig.transport.recv() is None
        assert not ready(rig.transport, 0)

    def test_every_kind_of_buffer_can_be_sent(self, rig: Rig) -> None:
        peer = rig.connect()
        for data in (b"bytes", bytearray(b"array"), memoryview(b"viewed")[1:]):
            assert rig.transport.send(data) == len(data)
        assert rig.transport.send(b"") == 0
        assert receive(peer, 15) == b"bytesarrayiewed"

    def test_a_closed_peer_reads_as_empty_again_and_again(self, rig: Rig) -> None:
        peer = rig.connect()
        peer.close()
        assert ready(rig.transport)
        assert [rig.transport.recv() for _ in range(3)] == [b"", b"", b""]

    @pytest.mark.parametrize("count", range(9))
    def test_a_peer_that_closes_after_any_byte_has_delivered_those_before(self, rig: Rig, count: int) -> None:
        if count:
            rig.needs("ends_in_order")
        peer = rig.connect()
        send_all(rig.transport, b"request")
        assert receive(peer, 7) == b"request"
        send_all(peer, b"response"[:count])
        peer.close()
        assert receive_to_the_end(rig.transport) == b"response"[:count]

    def test_sending_to_a_closed_peer_fails_in_the_end(self, rig: Rig) -> None:
        rig.connect().close()
        until = soon()
        with pytest.raises(TransportClosedError, match=r".+: .+"):
            while time.monotonic() < until:
                rig.transport.send(b"x")

    def test_a_reset_is_an_error_that_says_so(self, rig: Rig) -> None:
        rig.needs("resets")
        peer = rig.connect()
        peer.reset()
        assert ready(rig.transport)
        with pytest.raises(TransportClosedError, match="reset by"):
            rig.transport.recv()

    def test_a_peer_that_does_not_read_stops_the_sender_and_frees_it_later(self, rig: Rig) -> None:
        peer = rig.connect()
        accepted, rest = fill(rig)
        assert not ready(rig.transport, 0), "woken although there is no room"
        assert len(receive(peer, accepted)) == accepted
        drain(rig, peer)
        assert ready(rig.transport), "not woken although there is room"
        until = soon()
        while not rig.transport.send(rest):  # a layer may need more room than there is now
            assert time.monotonic() < until
            drain(rig, peer)
            assert ready(rig.transport), "not woken although there is room"

    def test_room_is_not_announced_for_ever(self, rig: Rig) -> None:
        peer = rig.connect()
        receive(peer, fill(rig)[0])
        drain(rig, peer)
        assert ready(rig.transport)
        assert rig.transport.recv() is None  # the owner reads, and has nothing more to send
        assert not ready(rig.transport, 0)

    def test_a_large_payload_arrives_whole_through_small_buffers(self, rig: Rig) -> None:
        peer = rig.connect()
        sender = threading.Thread(target=send_all, args=(rig.transport, MEBIBYTE), daemon=True)
        sender.start()
        assert receive(peer, len(MEBIBYTE)) == MEBIBYTE
        sender.join(PATIENCE)
        assert not sender.is_alive()

    def test_a_flood_from_both_sides_at_once_arrives_whole(self, rig: Rig) -> None:
        peer = rig.connect()
        ends: tuple[Stream, Stream] = (rig.transport, peer)
        unsent, received = [MEBIBYTE, MEBIBYTE], [bytearray(), bytearray()]
        until = soon()
        while any(len(data) < len(MEBIBYTE) for data in received):
            assert time.monotonic() < until
            for index, end in enumerate(ends):
                unsent[index] = unsent[index][end.send(unsent[index]) :]
                received[index] += end.recv() or b""
        assert received == [MEBIBYTE, MEBIBYTE]

    def test_opening_towards_nobody_fails_with_the_place_in_words(self, rig: Rig) -> None:
        transport = rig.unreachable()
        before = open_files()
        with pytest.raises(ConnectFailedError) as caught:
            transport.open(soon())
        assert transport.description.split()[-1] in str(caught.value)
        assert open_files() == before

    def test_opening_after_the_deadline_fails(self, rig: Rig) -> None:
        with rig.unresponsive() as transport, pytest.raises(ConnectFailedError, match="timed out"):
            transport.open(time.monotonic() - 1)

    def test_opening_twice_is_an_error_and_leaves_the_stream_alone(self, rig: Rig) -> None:
        peer = rig.connect()
        with pytest.raises(TransportError, match="open"):
            rig.transport.open(soon())
        send_all(peer, b"still here")
        assert receive(rig.transport, 10) == b"still here"

    def test_an_abort_from_another_thread_ends_a_blocked_open(self, rig: Rig) -> None:
        rig.needs("waits_in_open")
        before = open_files()
        with rig.unresponsive() as transport:
            errors: list[Exception] = []
            opener = threading.Thread(target=_open_and_catch, args=(transport, errors), daemon=True)
            opener.start()
            opener.join(0.02)  # most likely inside open() by now; any moment must do
            transport.abort()
            opener.join(PATIENCE)
            assert [type(error) for error in errors] == [TransportClosedError]
            transport.close()
        until = soon()
        while rig.can.lags and open_files() > before:
            assert time.monotonic() < until
        assert open_files() == before

    def test_abort_and_close_abandon_a_blocked_open(self, rig: Rig) -> None:
        rig.needs("waits_in_open")
        until = soon()
        with rig.unresponsive() as transport:
            errors: list[Exception] = []
            opener = threading.Thread(target=_open_and_catch, args=(transport, errors), daemon=True)
            opener.start()
            while opener.is_alive():  # a close() before open() has begun forgets the abort
                assert time.monotonic() < until
                transport.abort()
                transport.close()
                opener.join(0.01)
            assert [type(error) for error in errors] == [TransportClosedError]
            with pytest.raises(TransportClosedError, match="not open"):
                transport.recv()

    def test_an_abort_before_open_makes_that_open_fail_until_close(self, rig: Rig) -> None:
        rig.transport.abort()
        for _ in range(2):
            with pytest.raises(TransportClosedError, match="aborted"):
                rig.transport.open(soon())
        rig.transport.close()
        rig.connect()

    def test_an_abort_of_an_open_stream_wakes_both_ends(self, rig: Rig) -> None:
        peer = rig.connect()
        aborter = threading.Thread(target=rig.transport.abort, daemon=True)
        aborter.start()
        assert ready(rig.transport)
        aborter.join(PATIENCE)
        rig.transport.abort()
        with pytest.raises(TransportClosedError, match="aborted"):
            rig.transport.recv()
        with pytest.raises(TransportClosedError, match="aborted"):
            rig.transport.send(b"x")
        assert receive_to_the_end(peer) == b""

    def test_the_same_object_is_reopened_after_an_abort(self, rig: Rig) -> None:
        for _ in range(3):
            peer = rig.connect()
            send_all(rig.transport, b"hello")
            assert receive(peer, 5) == b"hello"
            rig.transport.abort()
            rig.transport.close()
            peer.close()

    def test_close_and_abort_may_be_repeated_and_come_first(self, rig: Rig) -> None:
        rig.transport.close()
        rig.connect()
        for action in (rig.transport.close, rig.transport.close, rig.transport.abort, rig.transport.abort):
            action()
        rig.transport.close()
        for use in (rig.transport.recv, rig.transport.fileno, lambda: rig.transport.send(b"x")):
            with pytest.raises(TransportClosedError, match="not open"):
                use()

    def test_a_thousand_opens_leave_no_descriptor_behind(self, rig: Rig) -> None:
        rig.needs("cheap_to_open")
        rig.connect().close()
        rig.transport.close()
        before = open_files()
        for _ in range(1000):
            peer = rig.connect()
            peer.reset()
            peer.close()
            rig.transport.close()
        assert open_files() <= before

    def test_a_stream_without_timers_has_no_deadline(self, rig: Rig) -> None:
        if rig.can.timers:
            pytest.skip("this stream has timers")
        rig.connect()
        assert rig.transport.next_deadline() is None
        rig.transport.handle_deadline(0.0)

    def test_the_description_names_the_place(self, rig: Rig) -> None:
        assert " " in rig.transport.description


def _open_and_catch(transport: Transport, errors: list[Exception]) -> None:
    try:
        transport.open(soon())
    except Exception as error:
        errors.append(error)
