"""Chips that need no configuration but the bus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from device_sdk.drivers.bus import I2CBus
from device_sdk.drivers.circuitpython.channels import PropertyChannel, Source
from device_sdk.drivers.circuitpython.driver import CircuitPythonDriver
from device_sdk.drivers.circuitpython.making import check_address, listed
from device_sdk.errors import ArgumentError

__all__ = ["BME280Driver", "SHT4xDriver"]


@dataclass(frozen=True, slots=True)
class _Chip:
    driver: str
    sources: tuple[Source, ...]


class _ChipDriver(CircuitPythonDriver):
    """A chip that needs no configuration but the bus; a subclass only sets ``chip`` and ``addresses``."""

    # The noise of each of these is several of its digits.
    unchanged_after = 3600.0
    chip: ClassVar[_Chip]

    def __init__(self, bus: str | I2CBus = "i2c-1", address: int | None = None) -> None:
        possible = self.addresses
        check_address(address)
        if address is not None and address not in possible:
            raise ArgumentError("address", f"expected {listed(possible)}, found {address:#x}")
        super().__init__(self.chip.driver, bus, possible[0] if address is None else address)
        self._sources = self.chip.sources


class BME280Driver(_ChipDriver):
    """Bosch BME280 on I2C: temperature, relative humidity, pressure.

    Units: temperature ``Cel`` (-40 to 85, resolution 0.01), humidity ``%RH`` (0 to 100, 0.008), pressure
    ``Pa`` (30000 to 110000, 0.18). Duration of one ``read()``: about 0.15 s.

    Args:
        bus: ``"i2c-1"``, ``"fake:module:name"``, or a bus object.
        address: 0x76 (default, SDO low) or 0x77 (SDO high, Adafruit's and SparkFun's boards).

    Source: Bosch BST-BME280-DS001 rev. 1.23, sections 1.2 to 1.4 and 6.2.
    """

    addresses = (0x76, 0x77)
    chip = _Chip(
        "adafruit_bme280.basic:Adafruit_BME280_I2C",
        (
            Source("temperature", (PropertyChannel("temperature", "Cel", 1, -40, 85, 2),)),
            Source("relative_humidity", (PropertyChannel("humidity", "%RH", 1, 0, 100, 2),)),
            Source("pressure", (PropertyChannel("pressure", "Pa", 100, 30_000, 110_000, 1),)),
        ),
    )


class SHT4xDriver(_ChipDriver):
    """Sensirion SHT40, SHT41, SHT43, SHT45 on I2C: temperature, relative humidity.

    Units: temperature ``Cel`` (-40 to 125, resolution 0.01), humidity ``%RH`` (0 to 100, 0.01). Both come
    from one measurement and have a CRC. Duration of one ``read()``: about 11 ms.

    Args:
        bus: ``"i2c-1"``, ``"fake:module:name"``, or a bus object.
        address: 0x44 (default), 0x45 or 0x46, by the letter in the part number.

    Source: Sensirion SHT4x datasheet, sections 2 to 4.
    """

    addresses = (0x44, 0x45, 0x46)
    chip = _Chip(
        "adafruit_sht4x:SHT4x",
        (
            Source(
                "measurements",
                (
                    PropertyChannel("temperature", "Cel", 1, -40, 125, 2),
                    PropertyChannel("humidity", "%RH", 1, 0, 100, 2),
                ),
            ),
        ),
    )
