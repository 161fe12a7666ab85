"""The bottom of a stack of streams."""

from __future__ import annotations

from device_sdk.net.base import ParsedUrl
from device_sdk.net.stack import tcp_stream
from device_sdk.net.tcp import TcpTransport


def test_without_a_proxy_the_bottom_of_a_stack_is_a_tcp_connection() -> None:
    assert type(tcp_stream(ParsedUrl("mqtt", "broker.example", 1883))) is TcpTransport
