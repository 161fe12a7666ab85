"""The node's client, made from its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_sdk import Client, ReconnectPolicy, StorePolicy, Will
from device_sdk.net.base import open_transport, parse_url
from device_sdk.node.availability import OFFLINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.engine.report import ClientEvent
    from device_sdk.net.base import Transport
    from device_sdk.node.config import NodeConfig

__all__ = ["make_client"]


def make_client(
    config: NodeConfig, on_event: Callable[[ClientEvent], object] | None = None
) -> tuple[Client, Transport]:
    """Return a client that is not started, and its transport: ``abort()`` makes the broker send the will.

    Raises: ArgumentError: values that cannot work together. MissingDependency: the URL needs an extra.
    """
    broker, queue = config.broker, config.queue
    url = parse_url(broker.url)
    transport = open_transport(url)
    client = Client(
        transport,
        client_id=broker.client_id or config.node.id,
        version=broker.version,
        user_name=url.user_name if broker.user_name is None else broker.user_name,
        password=url.password if broker.password is None else broker.password,
        keep_alive=broker.keep_alive,
        session_expiry=broker.session_expiry,
        connect_timeout=broker.connect_timeout,
        will=Will(config.node.availability, OFFLINE, qos=1, retain=True),
        policy=StorePolicy(
            max_messages=queue.max_messages, max_bytes=queue.max_bytes, overflow=queue.overflow
        ),
        reconnect=ReconnectPolicy(longest=broker.reconnect_longest),
        on_event=on_event,
    )
    return client, transport
