"""What a sample looks like on the wire."""

from __future__ import annotations

import json

import pytest

from device_sdk.drivers import Reading
from device_sdk.node.encode import encode_json


def test_a_sample_is_one_compact_object_with_number_time_and_readings() -> None:
    readings = (
        Reading("temperature", 21.5, "Cel", 1795324828.10449),
        Reading("door", True, "1", 1795324828.10449),
    )
    assert encode_json(7, readings) == (
        b'{"seq":7,"time":1795324828.104,"readings":'
        b'{"temperature":{"value":21.5,"unit":"Cel"},"door":{"value":true,"unit":"1"}}}'
    )


def test_a_quality_other_than_good_is_visible_with_its_reason() -> None:
    readings = (
        Reading("a", None, "Cel", 0.0, "bad", "no value"),
        Reading("b", 86, "Cel", 0.0, "uncertain", "above 85 °C"),
        Reading("c", 1, "1", 0.0, "uncertain"),
    )
    assert json.loads(encode_json(0, readings))["readings"] == {
        "a": {"value": None, "unit": "Cel", "quality": "bad", "reason": "no value"},
        "b": {"value": 86, "unit": "Cel", "quality": "uncertain", "reason": "above 85 °C"},
        "c": {"value": 1, "unit": "1", "quality": "uncertain"},
    }


def test_what_json_cannot_say_is_an_error_and_not_a_payload_that_nobody_can_read() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_json(0, (Reading("a", float("nan"), "1", 0.0),))
