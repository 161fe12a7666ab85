"""MQTT device SDK for Raspberry Pi and Linux single-board computers.

::

    from device_sdk import Client

    with Client("mqtt://127.0.0.1") as client:
        client.publish("site/17/temperature", b"21.5", qos=1).wait(10)

Public names are loaded when they are first used (PEP 562), so importing the package costs next to nothing.

``client.py`` and ``threads.py`` are the client with threads, ``client_base.py`` is its base and that of the
asyncio client, ``errors.py`` has every error. ``_arguments.py``, ``_clock.py``, ``_folding.py``,
``_load.py``, ``_log.py``, ``_peers.py``, ``_printable.py``, ``_text.py``, ``_traceback.py``, ``_weak.py``,
``_words.py`` and ``_version.py`` are small tools of all rooms, ``__main__.py`` is the command.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk._version import __version__
    from device_sdk.aio.client import AsyncClient
    from device_sdk.client import Client
    from device_sdk.engine.connecting.authentication import Authenticator
    from device_sdk.engine.connecting.back_off import ReconnectPolicy
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.mqtt.message import Message, Subscription, Will
    from device_sdk.net.tls import TLSOptions
    from device_sdk.store.base import Store, StorePolicy
    from device_sdk.store.memory import MemoryStore
    from device_sdk.store.sqlite import SqliteStore

__all__ = [
    "AsyncClient",
    "Authenticator",
    "Client",
    "Delivery",
    "MemoryStore",
    "Message",
    "ReconnectPolicy",
    "SqliteStore",
    "Store",
    "StorePolicy",
    "Subscription",
    "TLSOptions",
    "Will",
    "__version__",
]

_HOMES = {
    "AsyncClient": "device_sdk.aio.client",
    "Authenticator": "device_sdk.engine.connecting.authentication",
    "Client": "device_sdk.client",
    "Delivery": "device_sdk.engine.outgoing.delivery",
    "MemoryStore": "device_sdk.store.memory",
    "Message": "device_sdk.mqtt.message",
    "ReconnectPolicy": "device_sdk.engine.connecting.back_off",
    "SqliteStore": "device_sdk.store.sqlite",
    "Store": "device_sdk.store.base",
    "StorePolicy": "device_sdk.store.base",
    "Subscription": "device_sdk.mqtt.message",
    "TLSOptions": "device_sdk.net.tls",
    "Will": "device_sdk.mqtt.message",
    "__version__": "device_sdk._version",
}


def __getattr__(name: str) -> object:
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module 'device_sdk' has no attribute {name!r}") from None
    from importlib import import_module

    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
