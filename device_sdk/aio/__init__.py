"""The client for programs with an event loop: asyncio, or uvloop in its place.

::

    async with AsyncClient("mqtt://broker.example") as client:
        delivery = await client.publish("site/17/temperature", b"21.5", qos=1)
        await delivery.wait(10)
        await client.subscribe("cmd/17/#", qos=1)
        async for message in client.messages():
            ...
"""

from __future__ import annotations

from device_sdk.aio.client import AsyncClient
from device_sdk.aio.handles import AsyncDelivery, AsyncRequest
from device_sdk.aio.inbox import AsyncInbox

__all__ = ["AsyncClient", "AsyncDelivery", "AsyncInbox", "AsyncRequest"]
