"""The packet trace: what is shown, what is never shown, and that it costs nothing unless it is asked for."""

from __future__ import annotations

import logging

import pytest

from device_sdk.engine.trace import TracedTransport, describe
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Subscription, Will
from device_sdk.mqtt.packets import Auth, Connack, Connect, Packet, Puback, Publish, Subscribe
from tests.engine.rig import HandTransport, Rig

SECRETS = Connect(
    "node",
    user_name="token-in-the-name",
    password=b"hunter2",
    will=Will("w", b"will payload"),
    properties={"authentication_method": "M", "authentication_data": b"proof"},
)


def traced(caplog: pytest.LogCaptureFixture, *pieces: bytes) -> list[str]:
    """What the log says when these are sent in turn."""
    stream = TracedTransport(HandTransport(), "5.0")
    with caplog.at_level(logging.DEBUG, "device_sdk.packets"):
        for piece in pieces:
            stream.send(piece)
    return list(caplog.messages)


def encoded(*packets: Packet) -> bytes:
    return b"".join(encode_packet(packet, "5.0") for packet in packets)


def test_secrets_and_contents_are_not_shown() -> None:
    line = describe(SECRETS)
    assert line.startswith("CONNECT ")
    for secret in ("token-in-the-name", "hunter2", "will payload", "proof"):
        assert secret not in line
    assert "password=***" in line
    assert "payload=12 bytes" in line


def test_a_payload_is_its_length() -> None:
    packet = Publish("a/b", b"private", qos=1, packet_id=7, properties={"correlation_data": b"who"})
    line = describe(packet)
    assert (
        line == "PUBLISH packet_id=7 payload=7 bytes properties={correlation_data=3 bytes} qos=1 topic='a/b'"
    )


def test_subscriptions_are_shown() -> None:
    assert "topic='a/#'" in describe(Subscribe(1, [Subscription("a/#", 1)]))


def test_auth_is_shown_without_its_data() -> None:
    properties = {"authentication_method": "M", "authentication_data": b"proof"}
    assert "proof" not in describe(Auth(0x18, properties))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_packets_are_found_in_pieces_of_any_size(size: int, caplog: pytest.LogCaptureFixture) -> None:
    data = encoded(Puback(1), Publish("t", b"x" * 300), Puback(2))
    lines = traced(caplog, *(data[start : start + size] for start in range(0, len(data), size)))
    assert [line.split()[3] for line in lines] == ["PUBACK", "PUBLISH", "PUBACK"]


def test_a_packet_too_large_to_keep_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    data = encoded(Publish("t", bytes(2 << 20)), Puback(2))
    lines = traced(caplog, *(data[start : start + 100_000] for start in range(0, len(data), 100_000)))
    assert "too large to show" in lines[0]
    assert [line.split()[3] for line in lines[1:]] == ["PUBACK"]


@pytest.mark.parametrize("garbage", [b"\x00\x00", b"\x30\xff\xff\xff\xff\x01", b"HTTP/1.1 400"])
def test_what_is_no_packet_ends_the_trace_and_nothing_else(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    lines = traced(caplog, encoded(Puback(1)), garbage, encoded(Puback(2)))
    assert "the trace of this direction ends" in lines[1]
    assert len(lines) == 2


def test_both_directions_of_a_connection_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    with caplog.at_level(logging.DEBUG, "device_sdk.packets"):
        rig.connect()
        rig.publish(b"private")
        rig.sent()
        rig.lose()
    lines = caplog.messages
    assert [line.split()[2:4] for line in lines[:3]] == [
        ["->", "CONNECT"],
        ["<-", "CONNACK"],
        ["->", "PUBLISH"],
    ]
    assert lines[3] == "hand made <- end of stream"
    assert "private" not in caplog.text


def test_a_client_that_is_not_traced_uses_its_stream_as_it_is() -> None:
    rig = Rig()
    rig.connect()
    assert rig.engine.transport is rig.transport


def test_the_next_connection_is_traced_once(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    with caplog.at_level(logging.DEBUG, "device_sdk.packets"):
        for _ in range(3):
            rig.open()
            rig.feed(Connack(False, 0x88))
            rig.advance(rig.retry_delay())
    assert len(caplog.messages) == 6
