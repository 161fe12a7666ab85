"""A Python function as a sensor."""

from __future__ import annotations

import math
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any

import pytest

from device_sdk.drivers import Reading, open_driver
from device_sdk.drivers.function import FunctionDriver
from device_sdk.errors import ArgumentError, BusError, ChecksumError, DriverError, ReadTimeoutError


@dataclass
class Weather:
    temperature: float
    humidity: float


Point = namedtuple("Point", "x y")


def readings(function: Callable[..., object], units: Any = None, **options: Any) -> list[Reading]:
    with FunctionDriver(function, units, **options) as driver:
        got = driver.read()
        assert [(c.name, c.unit) for c in driver.channels()] == [(r.channel, r.unit) for r in got]
        return list(got)


def shown(function: Callable[..., object], units: Any = None) -> list[tuple[str, object, str]]:
    return [(reading.channel, reading.value, reading.unit) for reading in readings(function, units)]


@pytest.mark.parametrize(
    ("result", "units", "expected"),
    [
        (21.5, None, [("value", 21.5, "1")]),
        (21.5, "Cel", [("value", 21.5, "Cel")]),
        (21, {"temperature": "Cel"}, [("temperature", 21, "Cel")]),
        (True, {"door": "1"}, [("door", True, "1")]),
        ("open", None, [("value", "open", "1")]),
        (Fraction(1, 2), None, [("value", 0.5, "1")]),
        ({"a": 1, "b": 2.5}, None, [("a", 1, "1"), ("b", 2.5, "1")]),
        ({"b": 2.5, "a": 1}, {"a": "V", "b": "A"}, [("a", 1, "V"), ("b", 2.5, "A")]),
        ({"a": 1, "extra": 2}, {"a": "V"}, [("a", 1, "V")]),
        (Weather(21.5, 43.0), None, [("temperature", 21.5, "1"), ("humidity", 43.0, "1")]),
        (Weather(21.5, 43.0), {"humidity": "%RH"}, [("humidity", 43.0, "%RH")]),
        (Point(1, 2), None, [("x", 1, "1"), ("y", 2, "1")]),
        ((1, 2), None, [("value0", 1, "1"), ("value1", 2, "1")]),
        ([1, 2], {"a": "V", "b": "A"}, [("a", 1, "V"), ("b", 2, "A")]),
    ],
)  # fmt: skip
def test_what_a_function_returns_becomes_channels(
    result: object, units: Any, expected: list[tuple[str, object, str]]
) -> None:
    assert shown(lambda: result, units) == expected


def test_a_missing_or_empty_value_is_bad_and_the_others_are_good() -> None:
    units = {"a": "V", "b": "V", "c": "V"}
    got = readings(lambda: {"a": 1.0, "b": None}, units)
    assert [(r.value, r.quality) for r in got] == [(1.0, "good"), (None, "bad"), (None, "bad")]
    assert [r.quality for r in readings(lambda: None, units)] == ["bad", "bad", "bad"]


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_what_is_no_number_is_bad(value: float | None) -> None:
    (got,) = readings(lambda: value)
    assert (got.value, got.quality) == (None, "bad")


def test_with_units_open_does_not_call_the_function() -> None:
    calls: list[int] = []

    def measure() -> float:
        calls.append(1)
        return 5.0

    with FunctionDriver(measure, "V") as driver:
        assert calls == []
        driver.read()
        assert calls == [1]


def test_arguments_are_passed_each_time() -> None:
    (got,) = readings(lambda pin, gain: pin * gain, arguments={"pin": 4, "gain": 2.5})
    assert got.value == 10.0


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (OSError(5, "Input/output error"), BusError),
        (TimeoutError("too slow"), ReadTimeoutError),
        (ChecksumError("crc"), ChecksumError),
        (ZeroDivisionError("division by zero"), DriverError),
    ],
)
def test_what_a_function_raises_becomes_our_error(raised: Exception, expected: type[DriverError]) -> None:
    def broken() -> float:
        raise raised

    with FunctionDriver(broken, "V") as driver:
        with pytest.raises(DriverError) as caught:
            driver.read()
        assert type(caught.value) is expected
        assert str(raised) in str(caught.value)


@pytest.mark.parametrize(
    ("results", "units", "words"),
    [
        ([{"a": 1}, {"a": 1, "b": 2}], None, r"new values \['b'\]: name all of them in units"),
        ([(1, 2, 3)], {"a": "V", "b": "V"}, r"expected 2 values \(a, b\), found \(1, 2, 3\)"),
        ([5.0], {"a": "V", "b": "V"}, "expected a, b, found 5.0"),
        ([{}], None, "returned nothing to name channels after"),
        ([()], None, "returned nothing to name channels after"),
    ],
)
def test_a_result_that_does_not_fit_says_what_was_expected(
    results: list[object], units: Any, words: str
) -> None:
    left = iter(results)
    with pytest.raises(DriverError, match=words), FunctionDriver(lambda: next(left), units) as driver:
        driver.read()


def test_a_value_of_an_unsupported_type_costs_its_channel_and_not_the_sample() -> None:
    with FunctionDriver(lambda: {"a": [1, 2], "b": 5.0, "c": object()}) as driver:
        got = {reading.channel: reading for reading in driver.read()}
    assert (got["a"].quality, got["b"].quality, got["c"].quality) == ("bad", "good", "bad")
    assert got["a"].reason == "expected a number, text or bool, found [1, 2]"


class Key:
    def __str__(self) -> str:
        raise ValueError("no name")


def leave() -> None:
    sys.exit(3)


def hand_over() -> dict[object, float]:
    return {Key(): 1.0}


@pytest.mark.parametrize(("call", "words"), [(leave, "SystemExit: 3"), (hand_over, "ValueError: no name")])
def test_what_a_function_does_to_end_the_program_is_an_error_of_its_own(
    call: Callable[[], object], words: str
) -> None:
    with pytest.raises(DriverError, match=words):
        FunctionDriver(call).open()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("my_sensors")
    module.temperature = lambda: 21.5  # type: ignore[attr-defined]
    module.limit = 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_sensors", module)
    return module


def test_a_function_is_found_by_its_path(module: ModuleType) -> None:
    with open_driver("function", function="my_sensors:temperature", units="Cel") as driver:
        (got,) = driver.read()
    assert (got.channel, got.value, got.unit, got.quality) == ("value", 21.5, "Cel", "good")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("my_sensors", "expected 'package.module:name'"),
        ("my_sensors:temprature", r"has no 'temprature'; did you mean 'temperature'\?"),
        ("my_sensors:limit", "is no function but a int"),
        ("no_such_sensors:read", "no_such_sensors:read cannot be imported: No module named"),
    ],
)
def test_a_wrong_path_is_an_argument_error(module: ModuleType, path: str, words: str) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        FunctionDriver(path).open()
    assert caught.value.argument == "function"


def test_something_that_is_no_function_is_an_argument_error() -> None:
    with pytest.raises(ArgumentError, match="expected a function"):
        FunctionDriver(5)  # type: ignore[arg-type]


def test_a_driver_that_is_not_open_says_so() -> None:
    driver = FunctionDriver(lambda: 1.0)
    with driver:
        driver.open()
        driver.read()
    driver.close()
    for use in (driver.read, driver.channels):
        with pytest.raises(DriverError, match="not open"):
            use()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"units": ["Cel"]}, r"units: expected a unit, or a table of units, found \['Cel'\]"),
        ({"units": {"a": 5}}, "units.a: expected the name of a unit, found 5"),
        ({"units": ""}, "units.value: expected the name of a unit, found ''"),
        ({"units": "Ω"}, "units.value: the SenML name of 'Ω' is 'Ohm'"),
        ({"units": "C"}, "units.value: the SenML name of 'C' is 'Cel'"),
        ({"units": "lux"}, "units.value: the SenML name of 'lux' is 'lx'"),
        ({"units": "ppms"}, r"units.value: 'ppms' is no SenML unit; did you mean 'ppm'\?"),
        ({"units": "widgets"}, "units.value: 'widgets' is no SenML unit; a number without a unit has the"),
        ({"function": "funcs.py"}, "function: expected 'package.module:name', .*without .py: funcs:name"),
        ({"function": "funcs:"}, "function: expected 'package.module:name', found 'funcs:'"),
        ({"units": {"a": "celsius"}}, "units.a: the SenML name of 'celsius' is 'Cel'"),
        ({"arguments": "x"}, "arguments: expected a table, found 'x'"),
    ],
)
def test_an_option_of_a_wrong_type_or_unit_says_so(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        FunctionDriver(**{"function": lambda: 5.0, **options})


def test_a_result_without_any_of_the_names_says_which_it_has() -> None:
    words = "the function returned temp, hum; units names value"
    with pytest.raises(DriverError, match=words):
        readings(lambda: {"temp": 3, "hum": 4}, "Cel")
    units = {"temperature": "Cel", "humidity": "%RH"}
    temperature, humidity = readings(lambda: {"temp": 3, "humidity": 4}, units)
    assert (temperature.quality, humidity.quality) == ("bad", "good")
    assert temperature.reason == "no value: the function returned temp, humidity"
