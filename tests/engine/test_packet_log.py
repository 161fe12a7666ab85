"""The packet log: what is shown, what is never shown, and that it costs nothing unless it is asked for."""

from __future__ import annotations

import logging

import pytest

from device_sdk.engine.packet_log import PacketLog, describe
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Subscription, Will
from device_sdk.mqtt.packets import Auth, Connack, Connect, Packet, Puback, Publish, Subscribe
from device_sdk.mqtt.wire import read_length
from tests.engine.rig import Rig

SECRETS = Connect(
    "node",
    user_name="token-in-the-name",
    password=b"hunter2",
    will=Will("w", b"will payload"),
    properties={"authentication_method": "M", "authentication_data": b"proof"},
)


def logged(caplog: pytest.LogCaptureFixture, *packets: bytes) -> list[str]:
    """Return the log when these packets are received, each with a fixed header of two to five bytes."""
    packet_log = PacketLog("a stream", "5.0")
    with caplog.at_level(logging.DEBUG, "device_sdk.packets"):
        for packet in packets:
            length = read_length(packet, 1, len(packet))
            assert length is not None
            packet_log.on_packet("received", packet[0], packet, length[1], len(packet))
        packet_log.write()
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


def test_of_a_packet_that_is_too_large_the_length_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    fits, too_large = (encoded(Publish("t", bytes((1 << 20) - 4 + more))) for more in (0, 1))
    lines = logged(caplog, fits, too_large, encoded(Puback(2)))
    assert [line.split()[3] for line in lines] == ["PUBLISH", "a", "PUBACK"]
    assert lines[1] == "a stream <- a packet of 1048577 bytes, too large to show"


def test_a_malformed_packet_is_logged_as_such_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    lines = logged(caplog, b"\x30\x03\x00\x09t", encoded(Puback(2)))
    assert lines[0].startswith("a stream <- no packet: ")
    assert lines[1] == "a stream <- PUBACK packet_id=2"


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
    assert len(lines) == 3
    assert "private" not in caplog.text


def test_a_client_that_nobody_watches_sends_as_it_is() -> None:
    rig = Rig()
    rig.connect()
    assert rig.engine.connection is not None
    protocol = rig.engine.connection.protocol
    assert protocol.data_to_send == protocol.output.data_to_send


def test_the_next_connection_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    with caplog.at_level(logging.DEBUG, "device_sdk.packets"):
        for _ in range(3):
            rig.open()
            rig.feed(Connack(False, 0x88))
            rig.advance(rig.retry_delay())
    assert len(caplog.messages) == 6
