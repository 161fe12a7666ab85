"""A sample as a payload: one JSON object."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device_sdk.drivers import Reading
    from device_sdk.node.sample import Sample

__all__ = ["encode_json"]


def encode_json(sample: Sample, utc: float | None) -> bytes:
    """Return a sample of at least one reading as UTF-8 JSON without spaces::

        {"seq":7,"time":1795324828.104,"readings":{"temperature":{"value":21.5,"unit":"Cel"},
         "humidity":{"value":null,"unit":"%RH","quality":"bad","reason":"no value"}}}

    ``time`` is the time of measurement, in seconds since 1970-01-01 UTC, to the millisecond; if it is not
    known, ``"time":null,"boot":"6f1c...","uptime":12.345``. ``quality`` and ``reason`` are present only if
    the quality is not ``good``.
    """
    time: dict[str, object] = {"time": None, "boot": sample.boot, "uptime": round(sample.uptime, 3)}
    if utc is not None:
        time = {"time": round(utc, 3)}
    readings = {reading.channel: _reading(reading) for reading in sample.readings}
    payload = {"seq": sample.seq, **time, "readings": readings}
    return json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _reading(reading: Reading) -> dict[str, object]:
    fields: dict[str, object] = {"value": reading.value, "unit": reading.unit}
    if reading.quality != "good":
        fields["quality"] = reading.quality
        if reading.reason:
            fields["reason"] = reading.reason
    return fields
