"""Values that never change: after an age they are doubtful, in a node and on the command line."""

from __future__ import annotations

import pytest

from device_sdk.drivers import Channel, Driver, Reading, Value, make_driver, open_driver
from device_sdk.drivers.function import FunctionDriver
from device_sdk.drivers.staleness import Aging
from device_sdk.errors import ArgumentError
from device_sdk.testing import ManualClock
from device_sdk.testing.fake_bme280 import FakeBME280
from device_sdk.testing.fake_i2c import FakeI2CBus


class Stuck(Driver):
    """A driver that gives what the test says."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def channels(self) -> tuple[Channel, ...]:
        return (Channel("t", "Cel", "of the test"),)

    def open(self) -> None:
        """Nothing is there."""

    def close(self) -> None:
        """Nothing is there."""

    def read(self) -> tuple[Reading, ...]:
        quality = "bad" if self.value is None else "good"
        return (Reading("t", self.value, "Cel", 0.0, quality),)  # type: ignore[arg-type]


def judge(driver: Driver) -> str:
    return driver.read()[0].quality


def test_a_number_that_stays_exactly_the_same_is_uncertain_after_an_age_and_good_when_it_moves() -> None:
    clock = ManualClock()
    stuck = Stuck(21.5)
    with Aging(stuck, 60, clock) as driver:
        assert judge(driver) == "good"
        clock.advance(59.9)
        assert judge(driver) == "good"
        clock.advance(0.1)
        (reading,) = driver.read()
        assert (reading.value, reading.quality) == (21.5, "uncertain")
        assert reading.reason == "exactly the same for 60 s: has the chip stopped?"
        stuck.value = 21.51
        assert judge(driver) == "good"
        assert driver.channels() == stuck.channels()


def test_a_failed_reading_in_between_is_no_change() -> None:
    clock = ManualClock()
    stuck = Stuck(21.5)
    driver = Aging(stuck, 60, clock)
    judge(driver)
    clock.advance(30)
    stuck.value = None
    assert judge(driver) == "bad"
    clock.advance(30)
    stuck.value = 21.5
    assert judge(driver) == "uncertain"


@pytest.mark.parametrize("value", ["open", True, None])
def test_texts_truth_values_and_nothing_may_stay(value: Value) -> None:
    clock = ManualClock()
    driver = Aging(Stuck(value), 60, clock)
    before = judge(driver)
    clock.advance(3600)
    assert judge(driver) == before


def test_a_driver_that_is_opened_again_begins_anew() -> None:
    clock = ManualClock()
    driver = Aging(Stuck(21.5), 60, clock)
    judge(driver)
    clock.advance(60)
    driver.close()
    driver.open()
    assert judge(driver) == "good"


def test_a_kind_has_an_age_of_its_own_which_can_be_set_and_switched_off() -> None:
    bus = FakeI2CBus()
    bus.add(0x76, FakeBME280())
    assert isinstance(make_driver("bme280", {"bus": bus}), Aging)
    assert not isinstance(make_driver("bme280", {"bus": bus}, 0), Aging)
    options = {"function": lambda: 5.0}
    assert isinstance(make_driver("function", options), FunctionDriver)
    with open_driver("function", unchanged_after=1e-9, **options) as driver:
        assert [judge(driver), judge(driver)] == ["good", "uncertain"]


@pytest.mark.parametrize("seconds", [-1, float("nan"), "1h"])
def test_an_age_that_is_none_is_an_argument_error(seconds: object) -> None:
    with pytest.raises(ArgumentError, match="unchanged_after: expected seconds, 0 or more"):
        open_driver("host", unchanged_after=seconds)
