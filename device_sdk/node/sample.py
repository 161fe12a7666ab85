"""A sample: what one read of a sensor gave, where it goes, and when it was taken."""

from __future__ import annotations

import json
from dataclasses import dataclass

from device_sdk.drivers.base import Reading

__all__ = ["Sample", "pack", "unpack"]


@dataclass(frozen=True, slots=True)
class Sample:
    """The readings of one read, not encoded.

    ``seq``: its number for this sensor. ``boot``: the identifier of the machine's start; ``uptime``: seconds
    of ``CLOCK_BOOTTIME`` since then, just before the read.
    """

    topic: str
    qos: int
    retain: bool
    seq: int
    boot: str
    uptime: float
    readings: tuple[Reading, ...]


def pack(sample: Sample) -> bytes:
    """Return what a sample is besides its topic, QoS and retain flag.

    Raises: ValueError, TypeError: a value is none that JSON has.
    """
    readings = [[each.channel, each.value, each.unit, each.quality, each.reason] for each in sample.readings]
    body = [sample.seq, sample.boot, sample.uptime, readings]
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def unpack(topic: str, qos: int, retain: bool, body: bytes) -> Sample:
    """Return the sample that :func:`pack` has packed. Its readings have the time 0.

    Raises: ValueError: it is none.
    """
    try:
        seq, boot, uptime, readings = json.loads(body)
        values = tuple(
            Reading(channel, value, unit, 0.0, quality, reason)
            for channel, value, unit, quality, reason in readings
        )
        return Sample(topic, qos, retain, int(seq), str(boot), float(uptime), values)
    except TypeError as error:
        raise ValueError("it is no sample") from error
