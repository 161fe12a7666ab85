"""Publish one message or several with one call: connect, publish, disconnect."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from device_sdk.paho._oneshot import Task
from device_sdk.paho.client import MQTTv311

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ssl import SSLContext
    from typing import Any

    from device_sdk.paho.client import PayloadType
    from device_sdk.paho.enums import MQTTProtocolVersion

__all__ = ["multiple", "single"]


def multiple(
    msgs: Sequence[Mapping[str, Any] | tuple[Any, ...] | list[Any]],
    hostname: str = "localhost",
    port: int = 1883,
    client_id: str = "",
    keepalive: int = 60,
    will: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    tls: dict[str, Any] | SSLContext | None = None,
    protocol: MQTTProtocolVersion = MQTTv311,
    transport: str = "tcp",
    proxy_args: Mapping[str, Any] | None = None,
) -> None:
    """Publish messages to a broker, one after the other, and return when the last one is delivered.

    A message is a dict of the arguments of ``Client.publish``, of which only ``topic`` must be there, or a
    tuple ``(topic, payload, qos, retain)`` that may be shorter. ``will`` is such a dict too. ``auth`` is
    ``{"username": ..., "password": ...}``, the password optional. ``tls`` is an SSLContext or a dict of the
    arguments of ``Client.tls_set``, and ``insecure`` True to take any host name. ``keepalive`` in seconds.
    ``transport`` is tcp, websockets or unix; ``proxy_args`` are the arguments of ``Client.proxy_set``.

    Blocks; reconnects when a connection is lost on the way.
    Raises: TypeError: ``msgs`` is not iterable, or a message neither dict nor tuple. ValueError: ``msgs`` is
    empty, or a message is wrong. KeyError: ``auth`` has no username. MQTTException: the broker refused the
    connection. OSError: the first connection could not be opened.
    """
    if not isinstance(msgs, Iterable):
        raise TypeError(f"msgs must be a list of messages, not {type(msgs).__name__}")
    if len(msgs) == 0:
        raise ValueError("msgs is empty")
    waiting = deque(msgs)
    task = Task(client_id=client_id, userdata=waiting, protocol=protocol, transport=transport)
    task.configure(will, auth, tls, proxy_args)
    client = task.client

    def publish_next() -> None:
        if waiting:
            _publish(client, waiting.popleft())

    def on_publish(client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        if waiting:
            task.step(publish_next)
        else:
            client.disconnect()

    client.on_publish = on_publish
    task.when_connected(publish_next)
    task.run(hostname, port, keepalive)


def _publish(client: Any, message: Any) -> None:
    if isinstance(message, dict):
        client.publish(**message)
    elif isinstance(message, (tuple, list)):
        client.publish(*message)
    else:
        raise TypeError(f"a message must be a dict or a tuple, not {type(message).__name__}")


def single(
    topic: str,
    payload: PayloadType = None,
    qos: int = 0,
    retain: bool = False,
    hostname: str = "localhost",
    port: int = 1883,
    client_id: str = "",
    keepalive: int = 60,
    will: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    tls: dict[str, Any] | SSLContext | None = None,
    protocol: MQTTProtocolVersion = MQTTv311,
    transport: str = "tcp",
    proxy_args: Mapping[str, Any] | None = None,
) -> None:
    """Publish one message to a broker and return when it is delivered.

    The first four arguments are those of ``Client.publish``; the others, and the errors, are described at
    :func:`multiple`.
    """
    message = {"topic": topic, "payload": payload, "qos": qos, "retain": retain}
    multiple(
        [message], hostname, port, client_id, keepalive, will, auth, tls, protocol, transport, proxy_args
    )
