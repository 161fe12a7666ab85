"""The node's configuration: what may stand in the TOML file, and what must be true beyond its types."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from device_sdk._text import did_you_mean
from device_sdk.drivers.base import DRIVERS
from device_sdk.drivers.bus import check_bus_name
from device_sdk.errors import ArgumentError, ConfigError, MissingDependency
from device_sdk.mqtt.topics import validate_filter, validate_topic
from device_sdk.net.base import open_transport, parse_url
from device_sdk.node.config_errors import ConfigFaults, Fault, Faults, line_numbers, mismatch, shown
from device_sdk.node.convert import DURATION, Meta, Struct, convert_table, replace
from device_sdk.node.driver_options import default_of, option_problems, takes_option
from device_sdk.node.link import open_broker

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BrokerTable",
    "NodeConfig",
    "NodeTable",
    "QueueTable",
    "SensorTable",
    "TlsTable",
    "load_config",
    "parse_config",
]

_MAX_FILE_BYTES = 1 << 20
_MAX_SECRET_BYTES = 65_535

_TLS_FILES = ("ca_file", "certificate", "key", "key_password_file")

# Argument of an ArgumentError -> key of the file; the others are those of TLSOptions.
_PLACES = {"url": "broker.url", "proxy": "broker.proxy", "tls": "broker.url", "topic": "queue.keep_last"}

_NAME = "a name of 1 to 64 letters, digits, '_', '-' and '.'"


Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description=_NAME)]
NotEmpty = Annotated[str, Meta(min_length=1)]
Age = Annotated[
    float, Meta(ge=1, le=3650 * 86_400, extra=DURATION, description='seconds or "7d", "1s" to "3650d"')
]
File = Annotated[str, Meta(min_length=1, description="the path of a file")]
Topic = Annotated[str, Meta(description="a topic name, {node} and {sensor} are filled in")]


class NodeTable(Struct, frozen=True, kw_only=True):
    """``[node]``: who this is. ``drain`` is how long a stop may wait for acknowledgements, in seconds."""

    id: Name
    availability: Topic = "{node}/status"
    drain: Annotated[
        float, Meta(ge=0, le=600, extra=DURATION, description='seconds or "10s", at most "10m"')
    ] = 10.0


class BrokerTable(Struct, frozen=True, kw_only=True):
    """``[broker]``: where the messages go, as for :class:`device_sdk.Client`. Its repr has no password."""

    url: Annotated[str, Meta(description='a URL such as "mqtt://127.0.0.1"')]
    user_name: Annotated[str | None, Meta(description="a text")] = None
    password: Annotated[str | None, Meta(description="a text")] = None
    password_file: Annotated[str | None, Meta(description="the path of a file")] = None
    proxy: Annotated[NotEmpty | None, Meta(description='a URL such as "socks5://proxy:1080"')] = None
    client_id: Annotated[NotEmpty | None, Meta(description="a text, not empty")] = None
    version: Literal["5.0", "3.1.1", "3.1"] = "5.0"
    keep_alive: Annotated[
        int, Meta(ge=0, le=65_535, extra=DURATION, description='whole seconds or "60s", 0 to 65535')
    ] = 60
    session_expiry: Annotated[
        int, Meta(ge=0, le=0xFFFFFFFF, extra=DURATION, description='whole seconds or "1d", 0 to 4294967295')
    ] = 86_400
    connect_timeout: Annotated[
        float, Meta(ge=1, le=600, extra=DURATION, description='seconds or "10s", "1s" to "10m"')
    ] = 10.0
    reconnect_longest: Annotated[
        float, Meta(ge=1, le=86_400, extra=DURATION, description='seconds or "60s", "1s" to "1d"')
    ] = 60.0

    def __repr__(self) -> str:
        return f"BrokerTable({parse_url(self.url)!r})"


class TlsTable(Struct, frozen=True, kw_only=True):
    """``[tls]``: as :class:`device_sdk.TLSOptions`; the files are read again for each connection."""

    ca_file: File | None = None
    certificate: File | None = None
    key: File | None = None
    key_password_file: File | None = None
    server_name: Annotated[NotEmpty | None, Meta(description="a host name")] = None


class QueueTable(Struct, frozen=True, kw_only=True):
    """``[queue]``: where messages wait for the broker; bounds as in :class:`device_sdk.StorePolicy`."""

    file: File | None = None
    max_messages: Annotated[int, Meta(ge=1, description="a whole number from 1")] | None = None
    max_bytes: Annotated[int, Meta(ge=1, description="a whole number from 1")] | None = None
    max_age: Age | None = None
    overflow: Literal["reject", "drop_oldest", "drop_newest"] = "reject"
    keep_last: Annotated[list[str], Meta(description="a list of topic filters")] = []
    replay: Literal["history", "live"] = "history"
    replay_rate: Annotated[float, Meta(gt=0, description="messages a second, above 0")] | None = None
    durability: Literal["batch", "sync", "os"] = "batch"


class SensorTable(Struct, frozen=True, kw_only=True):
    """``[[sensor]]``: what is read, when, and where it goes. Topics are filled in by :func:`load_config`."""

    name: Name
    driver: Annotated[str, Meta(description=f"a driver: {', '.join(sorted(DRIVERS))}")]
    interval: Annotated[
        float, Meta(ge=0.01, le=31 * 86_400, extra=DURATION, description='seconds or "10s", "10ms" to "31d"')
    ]
    bus: Annotated[NotEmpty | None, Meta(description='a bus such as "i2c-1"')] = None
    topic: Topic = "{node}/{sensor}"
    availability: Topic = "{node}/{sensor}/status"
    qos: Annotated[int, Meta(ge=0, le=2, description="0, 1 or 2")] = 1
    retain: bool = False
    options: dict[str, Any] = {}

    @property
    def driver_options(self) -> dict[str, Any]:
        """What the driver's constructor is called with: the options, and the bus if it has one."""
        has_bus = self.bus is not None and takes_option(self.driver, "bus")
        return {**self.options, "bus": self.bus} if has_bus else self.options

    @property
    def worker(self) -> str:
        """The name of the thread that reads it: its bus, or else its driver."""
        bus = self.bus
        if bus is None and takes_option(self.driver, "bus"):
            bus = str(default_of(self.driver, "bus"))
        if bus is None:
            return self.driver
        try:
            return check_bus_name(bus).removeprefix("/dev/")
        except ArgumentError:
            return bus  # of a driver that does not know buses: a name to share a thread by


class NodeConfig(Struct, frozen=True, kw_only=True):
    """A whole configuration without faults."""

    node: NodeTable
    broker: BrokerTable
    sensor: Annotated[list[SensorTable], Meta(description="at least one [[sensor]]")]
    queue: QueueTable = QueueTable()
    tls: TlsTable = TlsTable()


def load_config(path: str | Path) -> NodeConfig:
    """Read a configuration file.

    Raises: ConfigFaults: everything that is wrong with it. ConfigError: it cannot be read.
    MissingDependency: the broker's URL needs an extra that is not installed.
    """
    path = Path(path)
    return parse_config(_read_text(path, _MAX_FILE_BYTES), path.name, path.parent)


def parse_config(text: str, name: str = "the configuration", folder: str | Path = ".") -> NodeConfig:
    """Return the configuration that a TOML text describes. ``folder`` is what relative paths begin at.

    Raises: as :func:`load_config`; ``name`` is what the errors call it.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ConfigFaults(name, [Fault("", f"not TOML: {error}", int(line[1]) if line else 0)]) from None
    faults = Faults(line_numbers(text))
    config = convert_table(tables, NodeConfig, "", faults)
    # On the tables as they are, so that a wrong interval does not hide a wrong topic.
    topics = _check_topics(tables, faults)
    for index, sensor in enumerate(_sensors(tables)):
        _check_driver(sensor, f"sensor[{index}]", faults)
    broker = _table(tables, "broker")
    password = _check_password(broker, Path(folder), faults)
    if config is not None:
        config = _with_paths(config, Path(folder))
        _check_broker(config, faults)
    elif isinstance(broker.get("url"), str):
        _check_url(broker["url"], faults)
    faults.raise_if_any(name)
    assert config is not None
    return _filled_in(config, password, topics)


def _filled_in(config: NodeConfig, password: str | None, topics: dict[str, str]) -> NodeConfig:
    return replace(
        config,
        node=replace(config.node, availability=topics["node.availability"]),
        broker=config.broker if password is None else replace(config.broker, password=password),
        sensor=[
            replace(
                sensor,
                topic=topics[f"sensor[{index}].topic"],
                availability=topics[f"sensor[{index}].availability"],
            )
            for index, sensor in enumerate(config.sensor)
        ],
    )


def _with_paths(config: NodeConfig, folder: Path) -> NodeConfig:
    """Let relative paths begin at the folder of the configuration."""
    queue, tls = config.queue, config.tls
    if queue.file is not None:
        queue = replace(queue, file=str(folder / queue.file))
    paths = {name: getattr(tls, name) for name in _TLS_FILES}
    tls = replace(tls, **{name: str(folder / path) for name, path in paths.items() if path is not None})
    return replace(config, queue=queue, tls=tls)


def _check_broker(config: NodeConfig, faults: Faults) -> None:
    """Look at the broker after everything else: a missing extra is told when nothing is wrong in the file."""
    try:
        open_broker(config)
        for topic_filter in config.queue.keep_last:
            validate_filter(topic_filter)
    except ArgumentError as error:
        place = _PLACES.get(error.argument, f"tls.{error.argument}")
        faults.add(place, str(error).removeprefix(f"{error.argument}: "))
    except MissingDependency:
        if not len(faults):
            raise


def _check_url(url: str, faults: Faults) -> None:
    try:
        open_transport(url)
    except ArgumentError as error:
        faults.add("broker.url", str(error).removeprefix("url: "))
    except MissingDependency:
        pass  # there are faults already


def _check_password(broker: Mapping[str, Any], folder: Path, faults: Faults) -> str | None:
    """Return the content of the password file."""
    file = broker.get("password_file")
    if not isinstance(file, str):
        return None
    if "password" in broker:
        faults.add("broker.password_file", "expected one of password and password_file, found both")
    try:
        return _read_text(folder / file, _MAX_SECRET_BYTES).rstrip("\r\n")
    except ConfigError as error:
        faults.add("broker.password_file", str(error))
        return None


def _check_topics(tables: Mapping[str, Any], faults: Faults) -> dict[str, str]:
    """Fill in every topic; names and topics must be there once."""
    words = {"node": _text(_table(tables, "node").get("id"))}
    wanted: list[tuple[str, object, dict[str, str]]] = [
        ("node.availability", _table(tables, "node").get("availability", "{node}/status"), words)
    ]
    names: dict[str, str] = {}
    for index, sensor in enumerate(_sensors(tables)):
        path = f"sensor[{index}]"
        name = _text(sensor.get("name"))
        is_new = _once(names, name, f"{path}.name", faults)
        both = {**words, "sensor": name if name and is_new else path}  # or its topics would say it again
        wanted.append((f"{path}.topic", sensor.get("topic", "{node}/{sensor}"), both))
        wanted.append((f"{path}.availability", sensor.get("availability", "{node}/{sensor}/status"), both))
    topics: dict[str, str] = {}
    seen: dict[str, str] = {}
    for path, template, words in wanted:
        if isinstance(template, str):
            topics[path] = _fill(template, words, path, faults)
            _once(seen, topics[path], path, faults)
    return topics


def _fill(template: str, words: Mapping[str, str], path: str, faults: Faults) -> str:
    for word in re.findall(r"\{[^{}]*\}", template):
        if word[1:-1] not in words:
            known = [f"{{{name}}}" for name in words]
            hint = did_you_mean(word, known) or f"; there is: {', '.join(known)}"
            faults.add(path, f"nothing is called {word}{hint}")
            return ""
    topic = re.sub(r"\{(\w+)\}", lambda match: words[match[1]], template)
    try:
        validate_topic(topic)
    except ArgumentError as error:
        faults.add(path, mismatch("a topic name", topic, hint=f": {str(error).removeprefix('topic: ')}"))
        return ""
    return topic


def _once(seen: dict[str, str], text: str, path: str, faults: Faults) -> bool:
    """Note where a text stands; twice is a fault. An empty text is no text."""
    if text and seen.setdefault(text, path) != path:
        faults.add(path, f"expected another one than {seen[text]} has, found {shown(text)} again")
        return False
    return True


def _check_driver(sensor: Mapping[str, Any], path: str, faults: Faults) -> None:
    kind, options, bus = sensor.get("driver"), sensor.get("options", {}), sensor.get("bus")
    if not isinstance(kind, str) or not isinstance(options, dict):
        return
    if kind not in DRIVERS:
        known = f"one of {', '.join(sorted(DRIVERS))}"
        faults.add(f"{path}.driver", mismatch(known, kind, hint=did_you_mean(kind, DRIVERS)))
        return
    if "bus" in options and takes_option(kind, "bus"):
        faults.add(f"{path}.options.bus", 'write it beside the driver: bus = "i2c-1"')
        return
    if isinstance(bus, str) and takes_option(kind, "bus"):
        options = {**options, "bus": bus}
    for name, problem in option_problems(kind, options):
        place = f"{path}.bus" if name == "bus" else f"{path}.options" + (f".{name}" if name else "")
        faults.add(place, problem)


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tables.get(name)
    return found if isinstance(found, dict) else {}


def _sensors(tables: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = tables.get("sensor")
    return [table if isinstance(table, dict) else {} for table in found] if isinstance(found, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _read_text(path: Path, limit: int) -> str:
    """Return a small UTF-8 file. Raises: ConfigError: why not."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise ConfigError(f"{path} is longer than {limit} bytes")
        return data.decode()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None
