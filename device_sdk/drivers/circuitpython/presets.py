"""Facts about chips that are often used: their ranges, how they are started, how a restart is noticed.

They stand in for options and ranges that a user does not give. Sources: the data sheets of the chips, their
operating ranges and registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from device_sdk.drivers.circuitpython.channels import STANDARD_PROPERTIES, PropertyChannel, Source

__all__ = ["PRESETS", "Preset", "preset_for"]


class Preset(NamedTuple):
    """What is known about a chip.

    ``ranges``: property -> what it can measure, in our unit; ``invalid``: property -> what it gives when it
    could not measure; ``start``, ``ready``, ``watch`` as of the driver.
    """

    ranges: Mapping[str, tuple[float, float]] = {}
    invalid: Mapping[str, tuple[float, ...]] = {}
    start: tuple[str, ...] = ()
    ready: str | None = None
    watch: tuple[str | int, ...] = ()

    def applied(self, sources: tuple[Source, ...]) -> tuple[Source, ...]:
        """Return sources with the ranges of the chip where they have none, in the standard unit only."""
        return tuple(
            Source(source.read, tuple(self._filled(source, each) for each in source.channels), *source[2:])
            for source in sources
        )

    def _filled(self, source: Source, channel: PropertyChannel) -> PropertyChannel:
        low, high = self.ranges.get(source.read, (None, None))
        standard = STANDARD_PROPERTIES.get(source.read, (channel,))
        if source.via or channel.unit != standard[0].unit:
            return channel
        return replace(
            channel,
            min=low if channel.min is None else channel.min,
            max=high if channel.max is None else channel.max,
            invalid=channel.invalid or self.invalid.get(source.read, ()),
        )


# What a converter of 16 bits says when there is more than it can measure.
_FULL = 65_535

_PRESSURE = (30_000, 110_000)

PRESETS: dict[str, Preset] = {
    "adafruit_adt7410:ADT7410": Preset({"temperature": (-55, 150)}),
    "adafruit_ahtx0:AHTx0": Preset({"temperature": (-40, 85)}),
    # In both of the driver's resolutions; no other count gives these numbers.
    "adafruit_bh1750:BH1750": Preset({"lux": (0, 54_612)}, {"lux": (_FULL / 1.2, _FULL / 1.2 / 2)}),
    "adafruit_bme680:Adafruit_BME680_I2C": Preset({"temperature": (-40, 85), "pressure": _PRESSURE}),
    "adafruit_bmp280:Adafruit_BMP280_I2C": Preset({"temperature": (-40, 85), "pressure": _PRESSURE}),
    "adafruit_hts221:HTS221": Preset({"temperature": (-40, 120)}),
    "adafruit_htu21d:HTU21D": Preset({"temperature": (-40, 125)}),
    # The calibration: without it current and power are 0.
    "adafruit_ina219:INA219": Preset({"bus_voltage": (0, 26)}, watch=(0x05,)),
    "adafruit_ina260:INA260": Preset({"voltage": (0, 36)}),
    # The registers of the rate, 0 after a restart: switched off.
    "adafruit_lps2x:LPS22": Preset({"temperature": (-40, 85), "pressure": (26_000, 126_000)}, watch=(0x10,)),
    "adafruit_lps2x:LPS25": Preset({"temperature": (-30, 105), "pressure": (26_000, 126_000)}, watch=(0x20,)),
    "adafruit_mcp9808:MCP9808": Preset({"temperature": (-40, 125)}),
    "adafruit_scd4x:SCD4X": Preset(
        {"CO2": (400, 5000), "temperature": (-10, 60)},
        start=("start_periodic_measurement",),
        ready="data_ready",
    ),
    "adafruit_sht31d:SHT31D": Preset({"temperature": (-40, 125)}),
    "adafruit_si7021:SI7021": Preset({"temperature": (-40, 125)}),
    "adafruit_tmp117:TMP117": Preset({"temperature": (-55, 150)}),
    # The registers that switch them on: else it is dark.
    "adafruit_tsl2591:TSL2591": Preset({"lux": (0, 88_000)}, watch=(0xA0,)),
    # lx per count with the highest gain and the longest time, by the age of the driver; each step of either
    # doubles it.
    "adafruit_veml7700:VEML7700": Preset(
        {"lux": (0, 140_000)},
        {
            "lux": tuple(_FULL * (most * 2**step) for most in (0.0036, 0.0042) for step in range(10)),
            "light": (_FULL,),
        },
        watch=("light_shutdown",),
    ),
    # 8190 mm and more stand for an error; in cm.
    "adafruit_vl53l0x:VL53L0X": Preset({"distance": (0, 2)}, {"distance": (819.0, 819.1)}),
}
"""Path of a driver's class -> what is known about its chip."""


def preset_for(path: object) -> Preset:
    """Return what is known about the chip of a driver, mostly nothing."""
    return PRESETS.get(path, Preset()) if isinstance(path, str) else Preset()
