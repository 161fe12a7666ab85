"""Readings as a payload: one JSON object per sample."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_sdk.drivers import Reading

__all__ = ["encode_json"]


def encode_json(seq: int, readings: Sequence[Reading]) -> bytes:
    """Return a sample of at least one reading as UTF-8 JSON without spaces::

        {"seq":7,"time":1795324828.104,"readings":{"temperature":{"value":21.5,"unit":"Cel"},
         "humidity":{"value":null,"unit":"%RH","quality":"bad","reason":"no value"}}}

    ``time`` is the time of measurement, in seconds since 1970-01-01 UTC, to the millisecond. ``quality`` and
    ``reason`` are present only if the quality is not ``good``.
    """
    sample = {
        "seq": seq,
        "time": round(readings[0].time, 3),
        "readings": {reading.channel: _reading(reading) for reading in readings},
    }
    return json.dumps(sample, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _reading(reading: Reading) -> dict[str, object]:
    fields: dict[str, object] = {"value": reading.value, "unit": reading.unit}
    if reading.quality != "good":
        fields["quality"] = reading.quality
        if reading.reason:
            fields["reason"] = reading.reason
    return fields
