"""The driver contract: the table of kinds, opening by kind, values without behaviour."""

from __future__ import annotations

import dataclasses

import pytest

from device_sdk.drivers import DRIVERS, Driver, Reading, driver_class, open_driver
from device_sdk.drivers.host import HostDriver
from device_sdk.errors import ArgumentError


@pytest.mark.parametrize("kind", sorted(DRIVERS))
def test_every_kind_in_the_table_is_a_driver_with_a_first_line_of_documentation(kind: str) -> None:
    found = driver_class(kind)
    assert issubclass(found, Driver)
    assert (found.__doc__ or "").strip()


def test_an_unknown_kind_lists_what_there_is_and_suggests_the_nearest() -> None:
    with pytest.raises(ArgumentError, match=r"'hots'.*there is: .*host.*; did you mean 'host'\?") as caught:
        open_driver("hots")
    assert caught.value.argument == "kind"


def test_a_kind_that_resembles_nothing_gets_no_suggestion() -> None:
    with pytest.raises(ArgumentError) as caught:
        driver_class("thermocouple")
    assert "did you mean" not in str(caught.value)


def test_open_driver_returns_a_driver_that_is_ready_to_read() -> None:
    driver = open_driver("host")
    try:
        assert isinstance(driver, HostDriver)
        assert len(driver.read()) == len(driver.channels())
    finally:
        driver.close()


def test_an_option_that_the_driver_does_not_have_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        open_driver("host", colour="blue")


def test_a_reading_cannot_be_changed_and_compares_by_value() -> None:
    reading = Reading("uptime", 1.0, "s", 0.0)
    assert reading == Reading("uptime", 1.0, "s", 0.0, "good")
    with pytest.raises(dataclasses.FrozenInstanceError):
        reading.value = 2.0  # type: ignore[misc]
