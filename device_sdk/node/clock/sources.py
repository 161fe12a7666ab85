"""Times from elsewhere: a message of the broker's, or a sensor that receives GPS."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from device_sdk._clock import boottime
from device_sdk._folding import Folding
from device_sdk._log import Log
from device_sdk.node.clock.wall_clock import parse_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk import Message
    from device_sdk.drivers import Reading

    Offer = Callable[[float, float, str], bool]
    Take = Callable[[tuple[Reading, ...], float], object]

__all__ = ["from_message", "from_sensor"]

log = Log("device_sdk.node")


def from_message(offer: Offer, topic: str) -> Callable[[Message], None]:
    """Return the handler of a topic on which somebody publishes the time. A retained message is no time."""
    folding = Folding(log)

    def take(message: Message) -> None:
        if message.retain:
            text = "topic %s: a retained message is no time, it may be old: publish it without retain"
            folding.warning("retained", "", text, topic)
            return
        utc = parse_time(message.payload.decode("utf-8", "replace"))
        if utc is None or not offer(utc, boottime(), f"topic {topic}"):
            text = "topic %s: expected seconds since 1970 or RFC 3339, and a time that can be, found %s"
            folding.warning(
                "time", "", text, topic, json.dumps(message.payload[:40].decode("utf-8", "replace"))
            )

    return take


def from_sensor(offer: Offer, name: str, channel: str, take: Take) -> Take:
    """Return ``take``, and offer the time in its readings before."""

    def look(readings: tuple[Reading, ...], uptime: float) -> None:
        for reading in readings:
            if reading.channel == channel and reading.quality == "good":
                utc = parse_time(reading.value)
                if utc is not None:
                    offer(utc, uptime, f"sensor {name}")
        take(readings, uptime)

    return look
