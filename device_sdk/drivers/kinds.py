"""Chips that people ask for by name although they are no kind of driver, and what to write for each.

The names are folded: lower case, without spaces, hyphens and underscores.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from device_sdk._text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CIRCUITPYTHON", "KERNEL", "kind_hint", "what_to_write"]

CIRCUITPYTHON: dict[str, str] = {
    "ads1015": "adafruit_ads1x15:ADS1015",
    "ads1115": "adafruit_ads1x15:ADS1115",
    **dict.fromkeys(("aht10", "aht20", "aht21", "ahtx0"), "adafruit_ahtx0:AHTx0"),
    "bh1750": "adafruit_bh1750:BH1750",
    **dict.fromkeys(("bme680", "bme688"), "adafruit_bme680:Adafruit_BME680_I2C"),
    "bmp280": "adafruit_bmp280:Adafruit_BMP280_I2C",
    "ina219": "adafruit_ina219:INA219",
    **dict.fromkeys(("lps22", "lps22hb"), "adafruit_lps2x:LPS22"),
    **dict.fromkeys(("lps25", "lps25hb"), "adafruit_lps2x:LPS25"),
    "mcp9808": "adafruit_mcp9808:MCP9808",
    **dict.fromkeys(("pm25", "pmsa003i"), "adafruit_pm25.i2c:PM25_I2C"),
    **dict.fromkeys(("scd40", "scd41", "scd43", "scd4x"), "adafruit_scd4x:SCD4X"),
    "sgp40": "adafruit_sgp40:SGP40",
    **dict.fromkeys(("sht30", "sht31", "sht31d", "sht35", "sht3x"), "adafruit_sht31d:SHT31D"),
    "si7021": "adafruit_si7021:SI7021",
    **dict.fromkeys(("tmp117", "tmp119"), "adafruit_tmp117:TMP117"),
    "tsl2591": "adafruit_tsl2591:TSL2591",
    "veml7700": "adafruit_veml7700:VEML7700",
    "vl53l0x": "adafruit_vl53l0x:VL53L0X",
}
"""Chip on I2C -> the class of its CircuitPython driver."""

_DHT = (
    "a DHT sensor is read by the kernel: dtoverlay=dht11,gpiopin=4 in /boot/firmware/config.txt, and the kind"
    " 'sysfs' with what 'device-sdk sensors discover' shows"
)
_ONE_WIRE = (
    "a 1-wire thermometer is read by the kernel: dtoverlay=w1-gpio in /boot/firmware/config.txt, and the kind"
    " 'sysfs' with what 'device-sdk sensors discover' shows, such as device = 'w1:28-0316a2795f12'"
)
KERNEL: dict[str, str] = {
    **dict.fromkeys(("dht", "dht11", "dht21", "dht22", "am2301", "am2302"), _DHT),
    **dict.fromkeys(("ds18b20", "ds18s20", "ds1820", "ds18x20", "max31850", "w1"), _ONE_WIRE),
}
"""Chip that the kernel of a Raspberry Pi reads -> how."""

_SAME: dict[str, str] = dict.fromkeys(("sht40", "sht41", "sht43", "sht45"), "sht4x")
_ELSE = (
    "a chip on I2C is read by 'circuitpython' if it has such a driver, by 'sysfs' if the kernel reads it"
    " ('device-sdk sensors discover'), anything else by 'function'"
)


def what_to_write(chip: str) -> str:
    """Return how a chip is read, for people; empty if it is not known here."""
    name = _folded(chip)
    if name == "bme280" or name in _SAME:
        return f"the kind {_SAME.get(name, name)!r} reads it"
    if path := CIRCUITPYTHON.get(name):
        return f"it has a CircuitPython driver: the kind 'circuitpython' with driver = '{path}'"
    return KERNEL.get(name, "")


def kind_hint(wrong: str, kinds: Iterable[str]) -> str:
    """Return what to write instead of a kind that there is not; begins with ``; ``."""
    name = _folded(wrong)
    known = list(kinds)
    if name in known:
        return f"; did you mean {name!r}?"
    if known_chip := what_to_write(wrong):
        return f"; {known_chip}"
    # Of two names with other numbers each is a chip of its own, and no misspelling of the other.
    return did_you_mean(name, [kind for kind in known if _may_be_meant(name, kind)]) or f"; {_ELSE}"


def _may_be_meant(name: str, kind: str) -> bool:
    number, other = (re.sub(r"\D", "", each) for each in (name, kind))
    return number.startswith(other) or other.startswith(number)


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower())
