"""The client for programs with an event loop: asyncio, or uvloop in its place.

::

    async with AsyncClient("mqtt://broker.example") as client:
        delivery = await client.publish("site/17/temperature", b"21.5", qos=1)
        await delivery.wait(10)
        await client.subscribe("cmd/17/#", qos=1)
        async for message in client.messages():
            ...

================  =======================================================================
``client.py``     :class:`AsyncClient`; owns the engine and the parts below
``driver.py``     drives the engine from the loop: readers, writers, one timer; no thread
``callbacks.py``  the one task that runs handlers and hooks
``inbox.py``      messages for tasks that pull
``handles.py``    awaitable handles of a delivery and of a SUBSCRIBE or UNSUBSCRIBE
``waits.py``      waits of tasks for deliveries
``events.py``     events that tasks wait for; records which tasks handle messages
================  =======================================================================

All of it belongs to the thread of the loop, except for the methods that say "any thread". To understand it,
read ``client.py``, then ``driver.py``.
"""

from __future__ import annotations

from device_sdk._load import export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.aio.client import AsyncClient
    from device_sdk.aio.handles import AsyncDelivery, AsyncRequest
    from device_sdk.aio.inbox import AsyncInbox

__all__ = ["AsyncClient", "AsyncDelivery", "AsyncInbox", "AsyncRequest"]

_HOMES = {
    "AsyncClient": "client",
    "AsyncDelivery": "handles",
    "AsyncInbox": "inbox",
    "AsyncRequest": "handles",
}


def __getattr__(name: str) -> object:
    return export(globals(), _HOMES, name)
