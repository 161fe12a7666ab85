"""What drivers return: whatever passes the check can be encoded, the rest costs one sample and one line."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.drivers import Reading
from device_sdk.errors import DriverError
from device_sdk.node.encode import encode_json
from device_sdk.node.readings import MAX_READINGS, checked
from device_sdk.node.sample import Sample, pack, unpack
from device_sdk.node.schedule import Schedule
from device_sdk.node.sensor import Sensor
from device_sdk.testing import ManualClock
from tests.node.fakes import GOOD, FakeDriver, reading


def encoded(readings: tuple[Reading, ...]) -> Any:
    return json.loads(encode_json(Sample("n1/climate", 1, False, 0, "", 12.5, readings), 2.5))


def made(**fields: Any) -> Reading:
    values: dict[str, Any] = {"channel": "a", "value": 1.5, "unit": "Cel", "time": 1000.25}
    return Reading(**{**values, **fields})


def endless() -> Iterator[Reading]:
    number = 0
    while True:
        number += 1
        yield made(channel=str(number))


def broken() -> Iterator[Reading]:
    yield made()
    raise ZeroDivisionError


GARBAGE = {
    "nothing": (None, "no readings but None"),
    "a number": (17, "no readings but 17"),
    "a text": ("21.5", "no readings but '21.5'"),
    "a table": ({"a": 1}, "no readings but {'a': 1}"),
    "one reading": (made(), "no readings but Reading("),
    "no reading": ((), "it gave no readings"),
    "numbers": ([21.5], "21.5 in place 0, expected a Reading"),
    "something behind a reading": ((made(), None), "None in place 1"),
    "readings without end": (endless(), f"more than {MAX_READINGS}"),
    "a generator that raises": (broken(), "ZeroDivisionError"),
    "one channel twice": ((made(), made(value=2)), "for the channel 'a' a second reading"),
    "NaN": ((made(value=float("nan")),), "the value nan"),
    "infinity": ((made(value=float("-inf")),), "the value -inf"),
    "a huge number": ((made(value=1 << 1_000_000),), "the value of the type int, which cannot be shown"),
    "bytes": ((made(value=b"\x15"),), "the value b'\\x15'"),
    "a list": ((made(value=[1]),), "the value [1]"),
    "an object": ((made(value=object()),), "the value <object object"),
    "half a character": ((made(value="\ud800"),), "the value '\\ud800'"),
    "no value that is good": ((made(value=None),), "no value, and the quality is not bad"),
    "no time": ((made(time=None),), "the time None"),
    "no time that is": ((made(time=float("nan")),), "the time nan"),
    "a time of another kind": ((made(time="now"),), "the time 'now'"),
    "a channel that is none": ((made(channel=7),), "the channel 7"),
    "half a channel": ((made(channel="\udfff"),), "the channel '\\udfff'"),
    "a unit that is none": ((made(unit=None),), "the unit None"),
    "a quality that is none": ((made(quality="fine"),), "the quality 'fine'"),
    "a quality that cannot be looked up": ((made(quality=[]),), "the quality []"),
    "a reason that is none": ((made(value=None, quality="bad", reason=OSError()),), "the reason OSError()"),
}


@pytest.mark.parametrize(("result", "words"), GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_costs_the_sample_and_one_line_and_the_next_one_is_fine(
    result: object, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, samples = ManualClock(), []
    driver = FakeDriver()
    results: Iterator[Any] = iter([GOOD, result, GOOD])
    driver.read = lambda: next(results)  # type: ignore[method-assign]
    sensor = Sensor(
        "climate",
        lambda: driver,
        Schedule(10, clock(), 10),
        on_readings=lambda readings, _: samples.append(readings),
        on_online=lambda _: None,
        place="bme280 on i2c-1 at 0x76",
        clock=clock,
    )
    states = []
    for _ in range(3):
        clock.advance_to(max(clock(), sensor.due))
        sensor.run()
        states.append(str(sensor.state))
    assert (states, samples) == (["ok", "degraded", "ok"], [GOOD, GOOD])
    (line,) = caplog.messages
    assert line.startswith("sensor climate: degraded: ")
    assert words in line
    assert line.endswith(" (bme280 on i2c-1 at 0x76)")
    assert len(line) < 300


@pytest.mark.parametrize(
    "value", [0, -1, True, 1.5, 1e300, 1 << 1000, "", "21", "°é", None], ids=lambda value: f"{value!r:.10}"
)
def test_every_value_that_a_reading_may_have_passes(value: Any) -> None:
    quality: Any = "bad" if value is None else "uncertain"
    sample = (made(value=value, quality=quality, reason="why"), reading())
    assert checked(iter(sample)) == sample


class Half(float):
    """A float as the libraries of scientists have them, with a mind of its own."""

    def __round__(self, *_: object) -> Any:
        raise AssertionError("code of others behind the check")


class Level(enum.IntEnum):
    HIGH = 3


class Word(str):
    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        raise AssertionError("code of others behind the check")


class Turning(Reading):
    """Another value each time."""

    @property
    def value(self) -> Any:
        return next(VALUES)


VALUES = iter([1.5, float("nan")])


def test_what_passes_has_no_code_of_others_in_it() -> None:
    turning = object.__new__(Turning)
    for name, value in {"channel": "b", "unit": "1", "time": 1.0, "quality": "good", "reason": ""}.items():
        object.__setattr__(turning, name, value)
    sample = checked(
        [
            made(channel=Word("a"), value=Half(1.5), time=Half(2.5)),
            turning,
            made(channel="c", value=Level.HIGH),
        ]
    )
    assert encoded(sample) == {
        "seq": 0,
        "time": 2.5,
        "readings": {
            "a": {"value": 1.5, "unit": "Cel"},
            "b": {"value": 1.5, "unit": "1"},
            "c": {"value": 3, "unit": "Cel"},
        },
    }
    assert {type(each) for each in sample} == {Reading}
    assert [type(each.value) for each in sample] == [float, float, int]


def test_a_text_that_a_subclass_pretends_to_be_fine_is_looked_at_itself() -> None:
    class Fine(str):
        __slots__ = ()

        def encode(self, *_: object) -> bytes:
            return b"fine"

    with pytest.raises(DriverError, match="the unit"):
        checked([made(unit=Fine("\ud800"))])


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=1 << 1020, max_value=1 << 14_000),
    st.floats(),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.lists(st.integers()),
)


@given(
    st.lists(
        st.builds(
            Reading,
            channel=ANYTHING,
            value=ANYTHING,
            unit=ANYTHING,
            time=ANYTHING,
            quality=st.sampled_from(["good", "uncertain", "bad"]),
        )
        | ANYTHING,
        max_size=3,
    )
)
def test_what_passes_can_be_encoded_and_what_does_not_is_a_driver_error(readings: list[Any]) -> None:
    try:
        passed = checked(readings)
    except DriverError:
        return
    assert encoded(passed)["readings"].keys() == {each.channel for each in readings}
    packed = pack(Sample("t", 1, False, 0, "boot", 1.0, passed))
    assert [each.value for each in unpack("t", 1, False, packed).readings] == [each.value for each in passed]
