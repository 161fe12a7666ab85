"""The brokers themselves, asked with bytes written by hand: a failure here is not the client's."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from device_sdk.testing.broker_process import ChildBroker

# CONNECT with clean session (clean start), keep alive 60 and the client identifier "raw".
CONNECT = {
    "3.1": bytes.fromhex("10 11  0006 4d5149736470 03 02 003c  0003 726177"),
    "3.1.1": bytes.fromhex("10 0f  0004 4d515454 04 02 003c  0003 726177"),
    "5.0": bytes.fromhex("10 10  0004 4d515454 05 02 003c 00  0003 726177"),
}


def connack(broker: ChildBroker, version: str) -> bytes:
    """Connect once; the packet type, the remaining length, the flags and the code of the answer."""
    url = urlsplit(broker.url(version))
    assert url.hostname == "127.0.0.1"
    with socket.create_connection((url.hostname, url.port or 0), timeout=5) as stream:
        stream.sendall(CONNECT[version])
        return stream.recv(4, socket.MSG_WAITALL)


@pytest.mark.parametrize("version", ["3.1.1", "5.0"])
def test_a_broker_accepts_a_connect(broker: ChildBroker, version: str) -> None:
    answer = connack(broker, version)
    assert (answer[0], answer[2], answer[3]) == (0x20, 0, 0)


def test_mosquitto_speaks_mqtt_3_1_as_well(mosquitto: ChildBroker) -> None:
    assert connack(mosquitto, "3.1") == bytes.fromhex("20 02 00 00")


def test_a_terminated_broker_is_gone_and_comes_back_at_the_same_address(broker: ChildBroker) -> None:
    before = broker.url()
    broker.terminate()
    with pytest.raises(ConnectionRefusedError):
        connack(broker, "5.0")
    broker.start()
    assert broker.url() == before
    assert connack(broker, "5.0")[0] == 0x20
