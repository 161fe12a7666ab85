"""Watching the packets of a connection, and that a connection goes with the last reference to it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from device_sdk.mqtt import Subscription
from device_sdk.mqtt.packets import Connack, Pingreq, Puback, Publish, Pubrec
from tests.mqtt.peer import Peer, connected, end_of, every_version

Told = list[tuple[str, int, bytes]]


def watch(peer: Peer, **types: tuple[int, ...]) -> Told:
    told: Told = []

    def on_packet(direction: str, first: int, data: bytes, start: int, stop: int) -> None:
        told.append((direction, first >> 4, data[start:stop]))

    peer.protocol.watch(on_packet, **types)
    return told


@every_version
def test_every_packet_of_both_directions_is_told_as_it_passes(version: str) -> None:
    peer = Peer(version)
    told = watch(peer)
    peer.connect()
    peer.receive(Connack(False, 0))
    message = peer.publish(b"x" * 300, qos=2)
    assert told[2:] == []  # not before it leaves
    peer.sent()
    peer.receive(Pubrec(message.packet_id))
    peer.sent()
    assert [(direction, number) for direction, number, _ in told] == [
        ("sent", 1),
        ("received", 2),
        ("sent", 3),
        ("received", 5),
        ("sent", 6),
    ]
    assert told[2][2].endswith(b"x" * 300)
    assert told[2][2].startswith(b"\0\1t\0\1")
    assert [body for _, _, body in told[3:]] == [b"\0\1", b"\0\1"]


def test_packets_of_other_types_are_not_told() -> None:
    peer = connected()
    told = watch(peer, received=(4,), sent=(8,))
    message = peer.publish()
    peer.protocol.subscribe([Subscription("t")])
    peer.sent()
    peer.receive(Publish("t"), Puback(message.packet_id))
    assert [(direction, number) for direction, number, _ in told] == [("sent", 8), ("received", 4)]


def test_watching_begins_and_changes_in_the_middle_of_a_connection() -> None:
    peer = connected()
    first = watch(peer)
    peer.receive(Publish("t", b"1"))
    second = watch(peer, sent=())
    peer.receive(Publish("t", b"2"))
    peer.publish()
    peer.sent()
    assert [body[-1:] for _, _, body in first] == [b"1"]
    assert [body[-1:] for _, _, body in second] == [b"2"]


def test_a_packet_that_must_not_come_is_told_too() -> None:
    peer = connected()
    told = watch(peer)
    end_of(peer.receive(Pingreq()))
    assert told == [("received", 12, b"")]
    peer.sent()
    assert [(direction, number) for direction, number, _ in told[1:]] == [("sent", 14)]


def test_a_watched_connection_refuses_as_early_as_another() -> None:
    peer = connected()
    watch(peer)
    end_of(peer.receive_bytes(b"\xc0\x05"))  # PINGREQ has no body to wait for


# Nothing keeps a connection but those who use it


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _as_it_is(peer: Peer) -> None:
    peer.publish(qos=2)


def _watched(peer: Peer) -> None:
    watch(peer)


def _broken(peer: Peer) -> None:
    end_of(peer.receive(Pingreq()))


def _malformed(peer: Peer) -> None:
    end_of(peer.receive_bytes(b"\x30\x03\x00\x09t"))


def _silent(peer: Peer) -> None:
    end_of(peer.advance(1_000))


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("end", [_as_it_is, _watched, _broken, _malformed, _silent])
@pytest.mark.parametrize("use_aliases", [False, True])
def test_a_connection_that_nobody_refers_to_is_freed_at_once(
    end: Callable[[Peer], None], use_aliases: bool
) -> None:
    peer = connected(use_aliases=use_aliases)
    end(peer)
    connection = weakref.ref(peer.protocol)
    del peer
    assert connection() is None
