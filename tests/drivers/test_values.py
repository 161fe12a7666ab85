"""From a result to a reading: what is possible, what the sensor can measure, which digits are measured."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.drivers import Channel
from device_sdk.drivers.values import clean, measured

TEMPERATURE = Channel("t", "Cel", "of the test", -55, 125, 2)


@pytest.mark.parametrize(
    ("unit", "number"),
    [("Cel", -273.2), ("Cel", -274), ("%RH", 250), ("%RH", -7), ("ppm", -1), ("lx", -0.1), ("Ohm", -1)],
)
def test_a_number_that_is_not_possible_in_its_unit_is_bad_and_has_no_value(unit: str, number: float) -> None:
    reading = measured(Channel("c", unit, "of the test"), number, 5.0)
    assert (reading.value, reading.quality) == (None, "bad")
    assert f"{number:g} is not possible" in reading.reason
    assert unit in reading.reason


@pytest.mark.parametrize(("unit", "number"), [("Pa", -12.5), ("V", -3.3), ("1", -1e9), ("m", -430)])
def test_a_unit_without_a_lowest_number_takes_negative_ones(unit: str, number: float) -> None:
    assert measured(Channel("c", unit, "of the test"), number, 0.0).quality == "good"


def test_the_limits_of_the_possible_are_possible() -> None:
    channel = Channel("c", "Cel", "of the test")
    assert measured(channel, -273.15, 0.0).quality == "good"


@pytest.mark.parametrize(("number", "words"), [(127.94, "ends at 125 Cel"), (-55.01, "begins at -55 Cel")])
def test_a_number_outside_the_sensors_range_is_uncertain_and_keeps_its_value(
    number: float, words: str
) -> None:
    reading = measured(TEMPERATURE, number, 0.0)
    assert (reading.value, reading.quality) == (number, "uncertain")
    assert words in reading.reason


def test_humidity_outside_0_to_100_is_uncertain_unless_the_channel_says_otherwise() -> None:
    assert measured(Channel("h", "%RH", ""), 101.0, 0.0).quality == "uncertain"
    assert measured(Channel("h", "%RH", "", -6, 119), 101.0, 0.0).quality == "good"


@pytest.mark.parametrize(
    ("number", "precision", "shown"),
    [
        (0.23099999999999998, None, "0.231"),
        (21.4872, 2, "21.49"),
        (101325.4, -1, "101330.0"),
        (4294967295.0, None, "4294967295.0"),
        (5e-324, None, "5e-324"),
        (-0.001, 1, "0.0"),
    ],
)
def test_a_number_has_the_digits_that_are_measured(number: float, precision: int | None, shown: str) -> None:
    assert repr(clean(number, precision)) == shown


def test_a_number_at_the_edge_is_judged_as_it_is_published() -> None:
    assert measured(TEMPERATURE, 125.004, 0.0).quality == "good"


def test_whole_numbers_of_any_size_stay_whole() -> None:
    reading = measured(Channel("c", "1", ""), 2**63 + 1, 0.0)
    assert reading.value == 2**63 + 1


@pytest.mark.parametrize("value", [True, "open"])
def test_text_and_truth_values_are_good_in_the_unit_one(value: object) -> None:
    assert measured(Channel("c", "1", ""), value, 0.0).value == value


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("21.5", "the text '21.5'"),
        ("hello", "the text 'hello'"),
        (True, "the truth value True"),
        ("\x1b[2J", r"the text '\x1b[2J'"),
    ],
)
@pytest.mark.parametrize("unit", ["Cel", "V", "count"])
def test_text_and_truth_values_are_no_measurement_in_a_physical_unit(
    value: object, found: str, unit: str
) -> None:
    reading = measured(Channel("c", unit, ""), value, 0.0)
    assert (reading.value, reading.quality) == (None, "bad")
    assert reading.reason == f"expected a number for {unit}, found {found}"


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_no_number_is_bad(value: object) -> None:
    reading = measured(TEMPERATURE, value, 0.0)
    assert (reading.value, reading.quality) == (None, "bad")
    assert reading.reason


class Level(Enum):
    LOW = 1


class LevelNumber(IntEnum):
    HIGH = 2


class Text(str):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Fraction(1, 4), 0.25),
        (Decimal("21.5"), 21.5),
        (Level.LOW, "LOW"),
        (LevelNumber.HIGH, "HIGH"),
        (Text("open"), "open"),
    ],
)
def test_numbers_texts_and_enumerations_of_any_class_come_out_plain(value: object, plain: object) -> None:
    reading = measured(Channel("c", "1", ""), value, 0.0)
    assert (reading.value, type(reading.value), reading.quality) == (plain, type(plain), "good")


class Hostile:
    def __float__(self) -> float:
        raise RuntimeError("the chip is gone")


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1], "expected a number, text or bool, found [1]"),
        (b"21.5", "found b'21.5'"),
        (1j, "found 1j"),
        (Mute(), "found a Mute"),
        (Hostile(), "RuntimeError: the chip is gone"),
        (2**64, "more than 64 bits"),
        pytest.param(-(10**5000), "more than 64 bits", id="5000 digits"),
        (Decimal("1e400"), "the value was inf"),
        ("x" * 1001, "a text of 1001 characters"),
        ("\ud800", "not Unicode"),
    ],
)
def test_what_cannot_be_published_is_bad_with_a_short_reason(value: object, words: str) -> None:
    reading = measured(TEMPERATURE, value, 0.0)
    assert (reading.value, reading.quality) == (None, "bad")
    assert words in reading.reason
    assert len(reading.reason) < 200


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals()
    | st.fractions() | st.complex_numbers() | st.datetimes() | st.characters(categories=["Cs"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=5,
)  # fmt: skip


@given(ANYTHING, st.sampled_from(["Cel", "%RH", "ppm", "V", "1", "count"]), st.integers(-20, 20) | st.none())
def test_whatever_a_device_returns_can_be_published_and_only_a_bad_reading_has_no_value(
    value: object, unit: str, precision: int | None
) -> None:
    reading = measured(Channel("c", unit, "", precision=precision), value, 1.0)
    text = json.dumps([reading.value, reading.reason], ensure_ascii=False, allow_nan=False).encode()
    assert json.loads(text)[0] == reading.value
    assert (reading.value is None) == (reading.quality == "bad")
    assert bool(reading.reason) == (reading.quality != "good")
