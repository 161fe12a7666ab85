"""Receive messages with one call: connect, subscribe, and return messages or hand them to a callback."""

from __future__ import annotations

from device_sdk._printable import printable
from device_sdk.paho._oneshot import Task
from device_sdk.paho.client import MQTTv5, MQTTv311

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ssl import SSLContext
    from typing import Any

    from device_sdk.paho.client import Client, MQTTMessage
    from device_sdk.paho.enums import MQTTProtocolVersion

__all__ = ["callback", "simple"]


def callback(
    callback: Callable[[Client, Any, MQTTMessage], None],
    topics: str | list[str],
    qos: int = 0,
    userdata: Any = None,
    hostname: str = "localhost",
    port: int = 1883,
    client_id: str = "",
    keepalive: int = 60,
    will: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    tls: dict[str, Any] | SSLContext | None = None,
    protocol: MQTTProtocolVersion = MQTTv311,
    transport: str = "tcp",
    clean_session: bool | None = True,
    proxy_args: Mapping[str, Any] | None = None,
) -> None:
    """Subscribe to one topic filter or a list of them and call ``callback`` for each message, for ever.

    ``callback`` gets the client, ``userdata`` and the message; it ends the call with ``client.disconnect()``.
    ``qos`` 0..2 counts for all filters. ``clean_session`` False keeps the session at the broker; MQTT 5.0
    has no such flag, so it is ignored there. The other arguments are described at
    :func:`device_sdk.paho.publish.multiple`.

    Blocks; subscribes again after each reconnect.
    Raises: ValueError: ``qos`` or a filter is wrong. KeyError: ``auth`` has no username. MQTTException: the
    broker refused the connection. OSError: the first connection could not be opened. Exceptions of
    ``callback``.
    """
    if not 0 <= qos <= 2:
        raise ValueError(printable(f"qos must be 0, 1 or 2, not {qos}"))
    task = Task(
        client_id=client_id,
        userdata=userdata,
        protocol=protocol,
        transport=transport,
        clean_session=None if protocol == MQTTv5 else clean_session,
    )
    task.configure(will, auth, tls, proxy_args)
    client = task.client

    def subscribe() -> None:
        for topic in topics if isinstance(topics, list) else [topics]:
            client.subscribe(topic, qos)

    def on_message(client: Client, userdata: Any, message: MQTTMessage) -> None:
        task.step(callback, client, userdata, message)

    client.on_message = on_message
    task.when_connected(subscribe)
    task.run(hostname, port, keepalive)


def simple(
    topics: str | list[str],
    qos: int = 0,
    msg_count: int = 1,
    retained: bool = True,
    hostname: str = "localhost",
    port: int = 1883,
    client_id: str = "",
    keepalive: int = 60,
    will: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    tls: dict[str, Any] | SSLContext | None = None,
    protocol: MQTTProtocolVersion = MQTTv311,
    transport: str = "tcp",
    clean_session: bool | None = True,
    proxy_args: Mapping[str, Any] | None = None,
) -> MQTTMessage | list[MQTTMessage]:
    """Subscribe, wait for ``msg_count`` messages, disconnect and return them: one message, or a list.

    With ``retained`` False retained messages do not count. The other arguments, and the errors, are described
    at :func:`callback`; a ``msg_count`` below 1 is a ValueError too.
    """
    if msg_count < 1:
        raise ValueError(printable(f"msg_count must be 1 or more, not {msg_count}"))
    messages: list[MQTTMessage] = []

    def collect(client: Client, userdata: Any, message: MQTTMessage) -> None:
        # More may arrive between the last one wanted and the end of the connection.
        if len(messages) == msg_count or (message.retain and not retained):
            return
        messages.append(message)
        if len(messages) == msg_count:
            client.disconnect()

    callback(
        collect, topics, qos, None, hostname, port, client_id, keepalive, will, auth, tls,
        protocol, transport, clean_session, proxy_args,
    )  # fmt: skip
    return messages[0] if msg_count == 1 else messages
