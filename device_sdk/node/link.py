"""The node's client and its stream to the broker, made from the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_sdk import Client, Message, ReconnectPolicy, StorePolicy, TLSOptions, Will
from device_sdk.engine.build import store_for
from device_sdk.net.base import open_transport, parse_url
from device_sdk.node.availability import OFFLINE, ONLINE

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.engine.events import ClientEvent
    from device_sdk.net.base import Transport
    from device_sdk.node.tables import NodeConfig, QueueTable, TlsTable
    from device_sdk.store.base import Store

__all__ = ["make_client", "make_store", "open_broker"]


def open_broker(config: NodeConfig) -> Transport:
    """Return the stream to the broker, not opened.

    Raises: ArgumentError: of a key of ``[broker]`` or ``[tls]``. MissingDependency: it needs a package.
    """
    options: dict[str, Any] = {}
    if config.broker.proxy is not None:
        options["proxy"] = config.broker.proxy
    if any(getattr(config.tls, name) is not None for name in config.tls.__struct_fields__):
        options["tls"] = _tls_options(config.tls)
    return open_transport(config.broker.url, **options)


def make_client(
    config: NodeConfig, on_event: Callable[[ClientEvent], object] | None = None, *, store: Store | None = None
) -> tuple[Client, Transport]:
    """Return a client that is not started, and its transport: ``abort()`` makes the broker send the will.

    ``store``: for the queue, see :func:`make_store`; without one the file of the configuration is left alone.

    Raises: ArgumentError: values that cannot work together. MissingDependency: the URL needs a package.
    StoreError: the store cannot be opened.
    """
    broker = config.broker
    url = parse_url(broker.url)
    transport = open_broker(config)
    availability = config.node.availability
    client = Client(
        transport,
        client_id=broker.client_id or config.node.id,
        version=None if broker.version == "auto" else broker.version,
        user_name=url.user_name if broker.user_name is None else broker.user_name,
        password=url.password if broker.password is None else broker.password,
        keep_alive=broker.keep_alive,
        session_expiry=broker.session_expiry,
        connect_timeout=broker.connect_timeout,
        will=Will(availability, OFFLINE, qos=1, retain=True),
        birth=Message(availability, ONLINE, qos=1, retain=True),
        farewell=Message(availability, OFFLINE, qos=1, retain=True),
        store=store,
        policy=_policy(config.queue),
        reconnect=ReconnectPolicy(longest=broker.reconnect_longest),
        on_poison=broker.on_poison,
        on_event=on_event,
    )
    return client, transport


def make_store(config: NodeConfig) -> Store | None:
    """Return the store of the queue's file, not opened; ``None``: the queue is in memory.

    Raises: StoreError: this Python has no module for it.
    """
    return None if config.queue.file is None else store_for(config.queue.file, _policy(config.queue))


def _policy(queue: QueueTable) -> StorePolicy:
    names = (name for name in queue.__struct_fields__ if name != "file")
    return StorePolicy(**{name: getattr(queue, name) for name in names})


def _tls_options(tls: TlsTable) -> TLSOptions:
    password_file = tls.key_password_file
    return TLSOptions(
        ca_file=tls.ca_file,
        certificate=tls.certificate,
        key=tls.key,
        key_password=None if password_file is None else lambda: _first_line(password_file),
        server_name=tls.server_name,
        check_hostname=tls.check_hostname is not False,
        crl_file=tls.crl_file,
        psk_file=tls.psk_file,
    )


def _first_line(path: str) -> str:
    """Read again for each connection, as the key is: both may have been replaced."""
    return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
