"""The tables of a node's configuration: their keys, types, bounds and defaults."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from device_sdk.config.convert import Meta, Table
from device_sdk.config.vocabulary import (
    File,
    Name,
    NotEmpty,
    above,
    seconds,
    text_like,
    url_like,
    whole_number,
    whole_seconds,
)
from device_sdk.drivers.base import DRIVERS
from device_sdk.drivers.bus import check_bus_name
from device_sdk.errors import ArgumentError
from device_sdk.net.base import parse_url
from device_sdk.node.driver_options import default_address, default_of, takes_option
from device_sdk.node.sensor import READ_TIMEOUT_S

__all__ = ["BrokerTable", "ClockTable", "NodeConfig", "NodeTable", "QueueTable", "SensorTable", "TlsTable"]

_DAY = 86_400
_WITHOUT_WIRES = ("function", "host")
_DRIVER = Meta(
    description=f"a driver: {', '.join(sorted(DRIVERS))}", extra_json_schema={"enum": sorted(DRIVERS)}
)

Topic = Annotated[str, Meta(description="a topic name, {node} and {sensor} are filled in")]


class NodeTable(Table, frozen=True, kw_only=True):
    """``[node]``: the node itself. ``drain``: seconds that a stop may wait for acknowledgements."""

    id: Name
    availability: Topic = "{node}/status"
    drain: Annotated[float, seconds("10s", 0, 600)] = 10.0


class BrokerTable(Table, frozen=True, kw_only=True):
    """``[broker]``: the connection, as for :class:`device_sdk.Client`. Its repr has no password."""

    url: Annotated[str, url_like("mqtt://127.0.0.1")]
    user_name: Annotated[str | None, Meta(description="a text")] = None
    password: Annotated[str | None, Meta(description="a text")] = None
    password_file: Annotated[str | None, Meta(description="the path of a file")] = None
    proxy: Annotated[NotEmpty | None, url_like("socks5://proxy:1080")] = None
    client_id: Annotated[NotEmpty | None, Meta(description="a text, not empty")] = None
    version: Literal["5.0", "3.1.1", "3.1", "auto"] = "5.0"
    keep_alive: Annotated[int, whole_seconds("60s", 0, 0xFFFF)] = 60
    session_expiry: Annotated[int, whole_seconds("1d", 0, 0xFFFFFFFF)] = _DAY
    connect_timeout: Annotated[float, seconds("10s", 1, 600)] = 10.0
    reconnect_longest: Annotated[float, seconds("60s", 1, _DAY)] = 60.0
    on_poison: Literal["shelve", "keep"] = "shelve"

    def __repr__(self) -> str:
        return f"BrokerTable({parse_url(self.url)!r})"


class TlsTable(Table, frozen=True, kw_only=True):
    """``[tls]``: as :class:`device_sdk.TLSOptions`; the files are read again for each connection."""

    ca_file: File | None = None
    certificate: File | None = None
    key: File | None = None
    key_password_file: File | None = None
    server_name: Annotated[NotEmpty | None, Meta(description="a host name")] = None
    check_hostname: Annotated[bool | None, Meta(description="true or false")] = None
    crl_file: File | None = None
    psk_file: File | None = None


class QueueTable(Table, frozen=True, kw_only=True):
    """``[queue]``: messages waiting for the broker; bounds as in :class:`device_sdk.StorePolicy`."""

    file: File | None = None
    max_messages: Annotated[int, whole_number(1)] | None = None
    max_bytes: Annotated[int, whole_number(1)] | None = None
    max_age: Annotated[float, seconds("7d", 1, 3650 * _DAY)] | None = None
    overflow: Literal["reject", "drop_oldest", "drop_newest"] = "reject"
    keep_last: Annotated[list[str], Meta(description="a list of topic filters")] = []
    replay: Literal["history", "live"] = "history"
    replay_rate: Annotated[float, above(0, "messages a second")] | None = None
    unsendable: Literal["hold", "drop", "lower_qos"] = "hold"
    durability: Literal["batch", "sync", "os"] = "batch"
    open_timeout: Annotated[float, seconds("10s", 0.1, 600)] = 10.0


class ClockTable(Table, frozen=True, kw_only=True):
    """``[clock]``: what may tell the time, and how long samples wait for it."""

    wait: Annotated[float, seconds("10m", 0, 31 * _DAY, "never")] | Literal["never"] = 600.0
    rtc: bool = False
    topic: Annotated[str, Meta(description="a topic name")] | None = None
    sensor: Annotated[NotEmpty | None, Meta(description="the name of a sensor")] = None
    channel: NotEmpty = "time"
    announce: Topic = "{node}/clock"
    max_samples: Annotated[int, whole_number(1, 1_000_000)] = 10_000
    max_bytes: Annotated[int, whole_number(1024, 1 << 30)] = 4 * 1024 * 1024

    @property
    def patience(self) -> float:
        """Seconds that samples wait for the time; infinite for ``never``."""
        return math.inf if self.wait == "never" else self.wait


class SensorTable(Table, frozen=True, kw_only=True):
    """``[[sensor]]``: driver, schedule and topics. Topics are filled in by :func:`load_config`.

    ``read_timeout``: so long may one read take; a sensor that hangs is told within a minute.
    """

    name: Name
    driver: Annotated[str, _DRIVER]
    interval: Annotated[float, seconds("10s", 0.01, 31 * _DAY)]
    bus: Annotated[str, text_like("a bus", "i2c-1")] | None = None
    read_timeout: Annotated[float, seconds("30s", 0.1, 50)] = READ_TIMEOUT_S
    topic: Topic = "{node}/{sensor}"
    availability: Topic = "{node}/{sensor}/status"
    qos: Annotated[int, whole_number(0, 2)] = 1
    retain: bool = False
    unchanged_after: Annotated[float, seconds("1h", 0, 31 * _DAY)] | None = None
    options: dict[str, Any] = {}

    @property
    def driver_options(self) -> dict[str, Any]:
        """The arguments of the driver's constructor: the options, and the bus if it has one."""
        has_bus = self.bus is not None and takes_option(self.driver, "bus")
        return {**self.options, "bus": self.bus} if has_bus else self.options

    @property
    def bus_name(self) -> str:
        """The name of its bus: the driver's default, if there is none in the file; may be empty."""
        if self.bus is None and takes_option(self.driver, "bus"):
            return str(default_of(self.driver, "bus"))
        return self.bus or ""

    @property
    def place(self) -> str:
        """Driver, bus and address in words, for the log."""
        bus, address = self.bus_name, self.options.get("address", default_address(self.driver))
        where = f"{self.driver} on {bus}" if bus else self.driver
        return f"{where} at {address:#04x}" if isinstance(address, int) else where

    @property
    def advice(self) -> str:
        """What to do if its calls hang, for the log."""
        wires = self.driver not in _WITHOUT_WIRES
        first = "check supply and wires of the device" if wires else "give what it waits for a time-out"
        thread = "" if self.bus_name else ', give it a thread of its own with bus = "any name"'
        return f"{first}{thread}, or give it a longer read_timeout"

    @property
    def worker(self) -> str:
        """The name of the thread that reads it: its bus, or else its driver."""
        bus = self.bus_name
        if not bus:
            return self.driver
        try:
            return check_bus_name(bus).removeprefix("/dev/")
        except ArgumentError:
            return bus  # of a driver without buses: the name only makes it share a thread


class NodeConfig(Table, frozen=True, kw_only=True):
    """A whole configuration without faults."""

    node: NodeTable
    broker: BrokerTable
    sensor: Annotated[list[SensorTable], Meta(min_length=1, description="at least one [[sensor]]")]
    queue: QueueTable = QueueTable()
    tls: TlsTable = TlsTable()
    clock: ClockTable = ClockTable()
