"""What a sample looks like on the wire."""

from __future__ import annotations

import json

import pytest

from device_sdk.drivers import Reading
from device_sdk.node.encode import encode_json
from device_sdk.node.sample import Sample, pack, unpack

UTC = 1795324828.10449
BOOT = "6f1c0d5e-1c7a-4b42-9f0e-3a4f1d2c5b60"


def sample(*readings: Reading, seq: int = 0) -> Sample:
    return Sample("n1/climate", 1, False, seq, BOOT, 12.34567, readings)


def test_a_sample_is_one_compact_object_with_number_time_and_readings() -> None:
    readings = (Reading("temperature", 21.5, "Cel", UTC), Reading("door", True, "1", UTC))
    assert encode_json(sample(*readings, seq=7), UTC) == (
        b'{"seq":7,"time":1795324828.104,"readings":'
        b'{"temperature":{"value":21.5,"unit":"Cel"},"door":{"value":true,"unit":"1"}}}'
    )


def test_a_sample_whose_time_is_not_known_says_which_start_and_how_long_after_it() -> None:
    assert (
        encode_json(sample(Reading("t", 21.5, "Cel", 0.0)), None)
        == (
            f'{{"seq":0,"time":null,"boot":"{BOOT}","uptime":12.346,"readings":'
            '{"t":{"value":21.5,"unit":"Cel"}}}'
        ).encode()
    )


def test_a_quality_other_than_good_is_visible_with_its_reason() -> None:
    readings = (
        Reading("a", None, "Cel", 0.0, "bad", "no value"),
        Reading("b", 86, "Cel", 0.0, "uncertain", "above 85 °C"),
        Reading("c", 1, "1", 0.0, "uncertain"),
    )
    assert json.loads(encode_json(sample(*readings), UTC))["readings"] == {
        "a": {"value": None, "unit": "Cel", "quality": "bad", "reason": "no value"},
        "b": {"value": 86, "unit": "Cel", "quality": "uncertain", "reason": "above 85 °C"},
        "c": {"value": 1, "unit": "1", "quality": "uncertain"},
    }


@pytest.mark.parametrize("encode", [lambda one: encode_json(one, UTC), pack])
def test_what_json_cannot_say_is_an_error_and_not_a_payload_that_nobody_can_read(encode: object) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(sample(Reading("a", float("nan"), "1", 0.0)))  # type: ignore[operator]


def test_a_packed_sample_is_unpacked_as_it_was() -> None:
    readings = (
        Reading("text ü", "zu\n", "1", 0.0),
        Reading("large", 2**63, "B", 0.0),
        Reading("x", 0.1 + 0.2, "V", 0.0),
        Reading("none", None, "Cel", 0.0, "bad", "why"),
    )
    one = Sample("n1/ü", 2, True, 3, BOOT, 0.1 + 0.2, readings)
    assert unpack(one.topic, one.qos, one.retain, pack(one)) == one


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"7", b"\xff", b"[1]", b'[0,"b",1,[["t",1]]]', b'[0,"b","x",[]]', b"[0,1,2,3]"]
)
def test_a_body_that_is_no_sample_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        unpack("t", 0, False, body)
