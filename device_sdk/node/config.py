"""The node's configuration file: read, checked, and filled in. Its keys are in tables.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_sdk.config.convert import convert_table, replace
from device_sdk.config.faults import Faults, mismatch, shown, suggestion
from device_sdk.config.toml import line_numbers, parse_toml, read_text
from device_sdk.drivers.base import DRIVERS
from device_sdk.drivers.kinds import kind_hint
from device_sdk.errors import ArgumentError, ConfigError, MissingDependency
from device_sdk.mqtt.topics import validate_filter, validate_topic
from device_sdk.net.base import open_transport
from device_sdk.node.driver_options import option_problems, takes_option
from device_sdk.node.link import open_broker
from device_sdk.node.tables import NodeConfig, SensorTable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["load_config", "parse_config"]

_MAX_SECRET_BYTES = 65_535

_TLS_FILES = ("ca_file", "certificate", "key", "key_password_file", "crl_file", "psk_file")

# Argument of an ArgumentError -> key of the file; the others are those of TLSOptions.
_PLACES = {"url": "broker.url", "proxy": "broker.proxy", "tls": "broker.url", "topic": "queue.keep_last"}


def load_config(path: str | Path) -> NodeConfig:
    """Read a configuration file.

    Raises: ConfigFaults: every fault in it. ConfigError: it cannot be read.
    MissingDependency: the broker's URL needs a package that is not installed.
    """
    path = Path(path)
    return parse_config(read_text(path), path.name, path.parent)


def parse_config(text: str, name: str = "the configuration", folder: str | Path = ".") -> NodeConfig:
    """Return the configuration in a TOML text. Relative paths begin at ``folder``.

    Raises: as :func:`load_config`; the errors call the text ``name``.
    """
    tables = parse_toml(text, name)
    faults = Faults(line_numbers(text))
    config = convert_table(tables, NodeConfig, "", faults)
    # On the raw tables, so that a wrong interval does not hide a wrong topic.
    topics = _check_topics(tables, faults)
    for index, sensor in enumerate(_sensors(tables)):
        _check_driver(sensor, f"sensor[{index}]", faults)
    _check_clock(tables, faults)
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
        clock=replace(config.clock, announce=topics["clock.announce"]),
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
    """Check the broker last: a missing extra is reported only if the file has no fault."""
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
        return read_text(folder / file, _MAX_SECRET_BYTES).rstrip("\r\n")
    except ConfigError as error:
        faults.add("broker.password_file", str(error))
        return None


def _check_topics(tables: Mapping[str, Any], faults: Faults) -> dict[str, str]:
    """Fill in every topic; names and topics must be there once."""
    words = {"node": _text(_table(tables, "node").get("id"))}
    wanted: list[tuple[str, object, dict[str, str]]] = [
        ("node.availability", _table(tables, "node").get("availability", "{node}/status"), words),
        ("clock.announce", _table(tables, "clock").get("announce", "{node}/clock"), words),
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
            faults.add(path, f"nothing is called {word}{suggestion(word, known)}")
            return ""
    topic = re.sub(r"\{(\w+)\}", lambda match: words[match[1]], template)
    try:
        validate_topic(topic)
    except ArgumentError as error:
        faults.add(path, mismatch("a topic name", topic, hint=f": {str(error).removeprefix('topic: ')}"))
        return ""
    return topic


def _once(seen: dict[str, str], text: str, path: str, faults: Faults) -> bool:
    """Note the place of a text; a second place is a fault. Empty texts are ignored."""
    if text and seen.setdefault(text, path) != path:
        faults.add(path, f"expected another one than {seen[text]} has, found {shown(text)} again")
        return False
    return True


def _check_clock(tables: Mapping[str, Any], faults: Faults) -> None:
    """The sensor that gives the time must be there; the topic is one to subscribe to."""
    clock = _table(tables, "clock")
    name, topic = clock.get("sensor"), clock.get("topic")
    names = [_text(sensor.get("name")) for sensor in _sensors(tables)]
    if isinstance(name, str) and name and name not in names:
        faults.add("clock.sensor", f"no sensor is called {shown(name)}{suggestion(name, names)}")
    if isinstance(topic, str):
        try:
            validate_topic(topic)
        except ArgumentError as error:
            problem = str(error).removeprefix("topic: ")
            faults.add("clock.topic", mismatch("a topic name", topic, hint=f": {problem}"))


def _check_driver(sensor: Mapping[str, Any], path: str, faults: Faults) -> None:
    kind, options, bus = sensor.get("driver"), sensor.get("options", {}), sensor.get("bus")
    if not isinstance(kind, str) or not isinstance(options, dict):
        return
    if kind not in DRIVERS:
        known = f"one of {', '.join(sorted(DRIVERS))}"
        faults.add(f"{path}.driver", mismatch(known, kind, hint=kind_hint(kind, DRIVERS)))
        return
    for key in sensor.keys() - set(SensorTable.__struct_fields__):
        if takes_option(kind, key):
            words = f"this is an option of {kind}: write it as options.{key}, or into options = {{ ... }}"
            faults.reword(f"{path}.{key}", words)
    if isinstance(bus, int) and not isinstance(bus, bool) and takes_option(kind, "bus"):
        faults.reword(f"{path}.bus", mismatch("a text", bus, hint=f'; did you mean "i2c-{bus}"?'))
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
