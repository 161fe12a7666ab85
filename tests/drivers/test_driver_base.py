"""The driver contract: the table of kinds, opening by kind, values without behaviour."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from device_sdk.drivers import DRIVERS, Driver, Reading, driver_class, open_driver
from device_sdk.drivers.host import HostDriver
from device_sdk.drivers.kinds import CIRCUITPYTHON
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


def test_a_kind_that_resembles_nothing_gets_a_way_and_no_suggestion() -> None:
    with pytest.raises(
        ArgumentError, match=r"read by 'circuitpython' if .*, anything else by 'function'"
    ) as caught:
        driver_class("thermocouple")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("BME280", "did you mean 'bme280'?"),
        ("bme-280", "did you mean 'bme280'?"),
        ("bmee280", "did you mean 'bme280'?"),
        ("bme28", "did you mean 'bme280'?"),
        ("bme20", "anything else by 'function'"),
        ("SHT45", "the kind 'sht4x' reads it"),
        ("bme680", "driver = 'adafruit_bme680:Adafruit_BME680_I2C'"),
        ("bmp280", "driver = 'adafruit_bmp280:Adafruit_BMP280_I2C'"),
        ("SCD-41", "driver = 'adafruit_scd4x:SCD4X'"),
        ("dht22", "dtoverlay=dht11,gpiopin=4"),
        ("DS18B20", "dtoverlay=w1-gpio"),
        ("bme999", "anything else by 'function'"),
    ],
)
def test_the_name_of_a_chip_leads_to_what_reads_it(kind: str, words: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        driver_class(kind)
    hint = str(caught.value).partition("sysfs; ")[2]
    assert words in hint
    assert hint.count("did you mean") == words.count("did you mean"), "and to nothing else"


@pytest.mark.parametrize("path", sorted(set(CIRCUITPYTHON.values())))
def test_a_driver_that_is_advised_exists(path: str) -> None:
    module, _, name = path.partition(":")
    pytest.importorskip(module, reason=f"needs {module}")
    assert hasattr(sys.modules[module], name)


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
