"""The rig file: the hardware, virtual or real, and its capabilities.

::

    [rig]
    name = "bench-1"

    [serial_line]
    driver = "port"                  # "pty": a virtual one
    url = "serial:///dev/serial/by-id/usb-FTDI_A50285BI-if00-port0?baud=115200"

    [broker]
    driver = "url"                   # "local": a Mosquitto or iotcore of the test's own
    url = "mqtt://192.168.1.10"
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import pytest

from device_sdk.config.convert import Meta, Table, convert_table
from device_sdk.config.faults import Faults, mismatch, not_one_of, one_of, suggestion, unknown
from device_sdk.config.toml import line_numbers, parse_toml, read_text
from device_sdk.config.vocabulary import bus_address, name_of, seconds, text_like, url_like
from device_sdk.drivers.bus import check_bus_name
from device_sdk.errors import ArgumentError, MissingDependency
from device_sdk.mqtt.topics import validate_filter
from device_sdk.net.base import parse_url
from device_sdk.testing.broker_process import find_broker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["CAPABILITIES", "VIRTUAL_RIG", "Rig", "load_rig", "unknown_capability"]

VIRTUAL_RIG = Path(__file__).with_name("rigs") / "virtual.toml"
"""The default rig: it needs no hardware."""

CAPABILITIES: dict[str, str] = {
    "broker": "a broker, with a listener that no fault reaches",
    "serial_line": "a serial line from the DUT to the broker",
    "serial_line.unplug": "its adapter can be pulled out and put back",
    "serial_line.throttle": "it can be slowed down",
    "serial_line.noise": "its bits can be flipped",
    "sensor_bus": "an I2C bus that the DUT can read",
    "sensor_bus.bme280": "with a BME280",
    "sensor_bus.sht4x": "with an SHT4x",
    "sensor_bus.set": "the test says what the chips measure",
    "sensor_bus.unplug": "chips can be taken off the bus",
    "sensor_bus.nack": "chips can be made not to acknowledge",
    "sensor_bus.stuck": "the bus can be blocked",
    "sensor_bus.crc": "the checksum of the SHT4x can be wrong",
}
"""Everything that a test can need: name -> what it means."""

_NEEDS_SERIAL = str(MissingDependency("a serial line", "serial"))
_NEEDS_BLINKA = str(MissingDependency("each chip of the bus", "blinka"))
_Command = Annotated[list[str], Meta(description="a command as an array of texts")]


class RigTable(Table, frozen=True, kw_only=True):
    """``[rig]``: its name, and the seconds that tests wait for anything."""

    name: Annotated[str, name_of(64, r"\w.-", "letters, digits, '_', '-' and '.'")]
    patience: Annotated[float, seconds("20s", 1, 600)] = 20.0


class PtyTable(Table, frozen=True, kw_only=True):
    """``[serial_line]`` with the driver ``pty``: a pseudo-terminal, and a gateway to the broker behind it."""

    driver: Literal["pty"]
    verbs: ClassVar[frozenset[str]] = frozenset({"unplug", "throttle", "noise"})

    def obstacle(self) -> str:
        """Why it cannot be used on this machine; empty if it can."""
        return "" if importlib.util.find_spec("serial") else _NEEDS_SERIAL


class PortTable(Table, frozen=True, kw_only=True):
    """``[serial_line]`` with the driver ``port``: a real one, with a gateway to the broker at its far end.

    ``unplug`` and ``plug`` are commands that cut and restore the adapter's power, both or neither.
    """

    driver: Literal["port"]
    url: Annotated[str, url_like("serial:///dev/ttyUSB0?baud=115200")]
    unplug: _Command = []
    plug: _Command = []

    @property
    def path(self) -> str:
        """The device."""
        return parse_url(self.url).path

    @property
    def verbs(self) -> frozenset[str]:
        """What it can do besides carrying bytes."""
        return frozenset({"unplug"} if self.unplug else ())

    def obstacle(self) -> str:
        """Why it cannot be used on this machine; empty if it can."""
        if not importlib.util.find_spec("serial"):
            return _NEEDS_SERIAL
        return "" if os.path.exists(self.path) else f"there is no {self.path}"


class ChipTable(Table, frozen=True, kw_only=True):
    """One of the ``chips`` of ``[sensor_bus]``."""

    chip: Literal["bme280", "sht4x"]
    address: Annotated[int, bus_address(0x08, 0x77)]


Chips = Annotated[
    list[ChipTable], Meta(min_length=1, description='at least one { chip = "bme280", address = 0x76 }')
]


class FakeBusTable(Table, frozen=True, kw_only=True):
    """``[sensor_bus]`` with the driver ``fake``: chips in software, for the real drivers."""

    driver: Literal["fake"]
    chips: Chips
    bus: ClassVar[str] = ""

    @property
    def verbs(self) -> frozenset[str]:
        """What it can do besides being read."""
        chips: set[str] = {chip.chip for chip in self.chips}
        crc = {"crc"} if "sht4x" in chips else set()  # the BME280 has none
        return frozenset({"set", "unplug", "nack", "stuck"} | chips | crc)

    def obstacle(self) -> str:
        """Why it cannot be used on this machine; empty if it can."""
        return "" if importlib.util.find_spec("adafruit_bus_device") else _NEEDS_BLINKA


class I2CTable(Table, frozen=True, kw_only=True):
    """``[sensor_bus]`` with the driver ``i2c``: a bus of Linux with real chips, which are only read."""

    driver: Literal["i2c"]
    bus: Annotated[str, text_like("a bus", "i2c-1")]
    chips: Chips

    @property
    def verbs(self) -> frozenset[str]:
        """The chips; nothing here can make them fail."""
        return frozenset(chip.chip for chip in self.chips)

    def obstacle(self) -> str:
        """Why it cannot be used on this machine; empty if it can."""
        path = check_bus_name(self.bus)
        if not importlib.util.find_spec("adafruit_bus_device"):
            return _NEEDS_BLINKA
        if not os.path.exists(path):
            return f"there is no {path}"
        return "" if os.access(path, os.R_OK | os.W_OK) else f"no permission for {path}, see its group"


class LocalBrokerTable(Table, frozen=True, kw_only=True):
    """``[broker]`` with the driver ``local``: a broker for each test, which ends with it."""

    driver: Literal["local"]
    program: Annotated[
        Literal["mosquitto", "iotcore"] | None, Meta(description='one of "mosquitto", "iotcore"')
    ] = None
    watch: ClassVar[str] = "#"
    verbs: ClassVar[frozenset[str]] = frozenset()

    def obstacle(self) -> str:
        """Why it cannot be used on this machine; empty if it can."""
        try:
            find_broker(self.program)
        except MissingDependency as error:
            return str(error)
        return ""


class UrlBrokerTable(Table, frozen=True, kw_only=True):
    """``[broker]`` with the driver ``url``: one that runs already. The tests listen to ``watch``."""

    driver: Literal["url"]
    url: Annotated[str, url_like("mqtt://192.168.1.10")]
    watch: Annotated[str, Meta(description="a topic filter")] = "#"
    verbs: ClassVar[frozenset[str]] = frozenset()

    def obstacle(self) -> str:
        """Always empty: whether it answers shows when it is used."""
        return ""


_TABLES: dict[str, dict[str, type[Table]]] = {
    "serial_line": {"pty": PtyTable, "port": PortTable},
    "sensor_bus": {"fake": FakeBusTable, "i2c": I2CTable},
    "broker": {"local": LocalBrokerTable, "url": UrlBrokerTable},
}
# Checks that msgspec cannot do, after its own: section and key -> a function that raises ArgumentError.
_CHECKS: dict[tuple[str, str], Callable[[str], object]] = {
    ("serial_line", "url"): lambda url: _check_scheme(url, ("serial",)),
    ("sensor_bus", "bus"): check_bus_name,
    ("broker", "url"): lambda url: _check_scheme(url, ("mqtt",)),
    ("broker", "watch"): validate_filter,
}


class Rig:
    """A rig and its capabilities.

    ``serial_line``, ``sensor_bus`` and ``broker`` are their tables, ``None`` if the rig has none.

    Args:
        required: the capabilities that ``--rig-require`` promises.
    """

    def __init__(self, rig: RigTable, tables: Mapping[str, Any], required: Iterable[str] = ()) -> None:
        self.name = rig.name
        self.patience = rig.patience
        self.serial_line: PtyTable | PortTable | None = tables.get("serial_line")
        self.sensor_bus: FakeBusTable | I2CTable | None = tables.get("sensor_bus")
        self.broker: LocalBrokerTable | UrlBrokerTable | None = tables.get("broker")
        self._required = frozenset(required)

    def missing(self, capability: str) -> str:
        """Return why the rig does not have a capability here and now; empty if it has it."""
        section, _, verb = capability.partition(".")
        table = getattr(self, section)
        if table is None:
            return f"the rig {self.name} has no [{section}]"
        if verb and verb not in table.verbs:
            return f"[{section}] of the rig {self.name} cannot do it"
        return str(table.obstacle())

    def require(self, *capabilities: str) -> None:
        """Skip the running test if the rig lacks one of the capabilities; fail it if that was promised."""
        __tracebackhide__ = True
        for capability in capabilities:
            if capability not in CAPABILITIES:
                pytest.fail(unknown_capability(capability), pytrace=False)
            why = self.missing(capability)
            if why and capability in self._required:
                pytest.fail(f"needs {capability} ({why}), and --rig-require promises it", pytrace=False)
            if why:
                pytest.skip(f"needs {capability} ({why})")


def unknown_capability(name: str) -> str:
    """Return the error text for a capability that does not exist."""
    return f"no rig has {name!r}{suggestion(name, CAPABILITIES)}"


def load_rig(path: str | Path, required: Iterable[str] = ()) -> Rig:
    """Read a rig file.

    Raises: ConfigFaults: every fault in it. ConfigError: it cannot be read.
    """
    path = Path(path)
    text = read_text(path, what="the rig file ")
    found = parse_toml(text, str(path))
    faults = Faults(line_numbers(text))
    known = ["rig", *_TABLES]
    for name in found.keys() - set(known):
        faults.add(name, unknown(name, known, what="table"))
    if "rig" not in found:
        faults.add("", "expected a table [rig] with its name, but it is missing")
    rig = convert_table(found.get("rig", {}), RigTable, "rig", faults) if "rig" in found else None
    tables = {name: _convert(found[name], name, faults) for name in _TABLES if name in found}
    faults.raise_if_any(str(path))
    assert rig is not None
    return Rig(rig, tables, required)


def _convert(table: object, section: str, faults: Faults) -> Table | None:
    """Return the table as the type for its ``driver``."""
    kinds = _TABLES[section]
    if not isinstance(table, dict):
        faults.add(section, mismatch(f"a table [{section}]", table))
        return None
    if "driver" not in table:
        faults.add(f"{section}.driver", f"expected {one_of(kinds)}, but it is missing")
        return None
    driver = table["driver"]
    if not isinstance(driver, str) or driver not in kinds:
        faults.add(f"{section}.driver", not_one_of(kinds, driver))
        return None
    converted = convert_table(table, kinds[driver], section, faults)
    if converted is not None:
        _check(converted, section, faults)
    return converted


def _check(table: Any, section: str, faults: Faults) -> None:
    """Check the rules beyond the types."""
    for (wanted, key), check in _CHECKS.items():
        value = getattr(table, key, "")
        if wanted == section and value:
            try:
                check(value)
            except ArgumentError as error:
                faults.add(f"{section}.{key}", str(error).partition(": ")[2])
    if isinstance(table, PortTable) and bool(table.unplug) != bool(table.plug):
        faults.add(section, "expected both of the commands unplug and plug or none, found one")
    for key in ("chip", "address"):
        values = [getattr(chip, key) for chip in getattr(table, "chips", ())]
        if len(set(values)) < len(values):
            faults.add(f"{section}.chips", f"expected every {key} once, found one twice")


def _check_scheme(url: str, schemes: tuple[str, ...]) -> None:
    found = parse_url(url).scheme
    if found not in schemes:
        raise ArgumentError("url", f"expected {' or '.join(schemes)}://..., found {found}://...")
