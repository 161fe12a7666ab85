"""What the server said before its stream broke: read although the stream takes nothing any more."""

from __future__ import annotations

from typing import Any

import pytest

from device_sdk.errors import RefusedError, TransportClosedError
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.packets import Connack, Disconnect, Puback, Publish
from device_sdk.net.base import Transport
from tests.engine.rig import HandTransport, Rig


class HalfDead(HandTransport):
    """Takes nothing any more, and still has what the peer sent before it was gone."""

    dead = False

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if self.dead:
            raise TransportClosedError("hand made: Broken pipe (EPIPE)")
        return super().send(data)

    def flush(self) -> None:
        if self.dead:
            raise TransportClosedError("hand made: Broken pipe (EPIPE)")

    def recv(self) -> bytes | None:
        if self.dead and not self.incoming:
            raise TransportClosedError("hand made: Connection reset by peer (ECONNRESET)")
        return super().recv()


class HalfDeadRig(Rig):
    def places(self) -> Transport:
        self.transport: HandTransport = HalfDead()
        return self.transport

    def die(self, *last_words: Any) -> None:
        """The peer says this and is gone; we notice when we send, or when the stream was full before."""
        self.transport.incoming += [encode_packet(packet, self.version) for packet in last_words]
        self.transport.dead = True  # type: ignore[attr-defined]


def connected(**options: Any) -> HalfDeadRig:
    rig = HalfDeadRig(**options)
    rig.connect()
    rig.events()
    return rig


def test_a_disconnect_just_before_a_reset_tells_the_reason() -> None:
    rig = connected()
    rig.die(Disconnect(0x97, {"reason_string": "too many messages"}))
    rig.publish(b"x")
    rig.engine.flush(rig.clock())
    [event] = rig.event_objects()
    assert isinstance(event.error, RefusedError)
    assert event.error.reason_code == 0x97
    assert "too many messages" in event.text
    assert rig.transport.closes == 1


def test_a_connack_that_refuses_just_before_a_reset_tells_the_reason() -> None:
    rig = HalfDeadRig()
    rig.die(Connack(False, 0x87))
    rig.engine.on_open(rig.clock())
    [event] = rig.event_objects()
    assert isinstance(event.error, RefusedError)
    assert 30 <= rig.retry_delay() <= 60


def test_a_stream_that_breaks_in_flush_is_read_as_well() -> None:
    rig = connected()
    rig.die(Disconnect(0x8B))
    rig.engine.on_writable(rig.clock())
    [event] = rig.event_objects()
    assert isinstance(event.error, RefusedError)


def test_acknowledgements_and_messages_before_a_reset_count() -> None:
    rig = connected()
    delivery = rig.publish(b"x")
    rig.sent()
    rig.die(Puback(delivery.packet_id), Publish("in", b"last"))
    rig.publish(b"y")
    rig.engine.flush(rig.clock())
    assert delivery.state == "acknowledged"
    assert [message.payload for message in rig.handle()] == [b"last"]
    assert rig.engine.life.state == "waiting"


def test_without_last_words_the_error_is_that_of_the_send() -> None:
    rig = connected()
    rig.die()
    rig.publish(b"x")
    rig.engine.flush(rig.clock())
    [event] = rig.event_objects()
    assert "EPIPE" in event.text


def test_a_peer_that_never_stops_talking_does_not_keep_a_dead_stream() -> None:
    rig = connected()
    rig.die(*[Publish("in", b"%d" % number) for number in range(100)])
    rig.publish(b"x")
    rig.engine.flush(rig.clock())
    assert rig.engine.life.state == "waiting"
    assert len(rig.handle()) < 100


@pytest.mark.parametrize("closing", [False, True])
def test_a_connection_that_dies_while_it_is_closed_stays_closed(closing: bool) -> None:
    rig = connected()
    rig.die(Disconnect(0x8B))
    with rig.engine.lock:
        rig.engine.close_connection()
    if not closing:
        rig.engine.flush(rig.clock())
    rig.engine.drop_connection()
    assert rig.engine.life.state == "idle"
