"""The JSON Schema of a node's configuration: what the documentation shows is valid, mistakes are not."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pytest_mock import MockerFixture

from device_sdk.drivers.base import DRIVERS
from device_sdk.errors import MissingDependency
from device_sdk.node import driver_options
from device_sdk.node.example import EXAMPLE
from device_sdk.node.schema import node_schema

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = node_schema()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def problems(text: str, schema: dict[str, Any] = SCHEMA) -> list[str]:
    """Path and message of everything that the schema does not allow."""
    found = jsonschema.Draft202012Validator(schema).iter_errors(tomllib.loads(text))
    return [f"{error.json_path}: {error.message}" for error in found]


def blocks() -> list[Any]:
    """The parts of a node's configuration in the documentation, by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            tables = tomllib.loads(match[1])
            if tables.keys() <= SCHEMA["properties"].keys():
                line = text.count("\n", 0, match.start()) + 1
                found.append(pytest.param(match[1], id=f"{page.name}:{line}"))
    return found


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_documentation_has_configurations_to_look_at() -> None:
    assert len(blocks()) >= 3


@pytest.mark.parametrize("text", blocks())
def test_every_configuration_in_the_documentation_is_valid(text: str) -> None:
    whole = {"node", "broker", "sensor"} <= tomllib.loads(text).keys()
    part = {name: value for name, value in SCHEMA.items() if name != "required"}
    assert problems(text, SCHEMA if whole else part) == []


def test_the_examples_are_valid() -> None:
    assert problems(EXAMPLE) == []
    environment = ROOT / "firmware_examples" / "environment_node" / "node.toml"
    assert problems(environment.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('id = "greenhouse-1"', 'id = "green house"', "$.node.id"),
        ('id = "greenhouse-1"', "", "'id' is a required property"),
        ('url = "mqtt://127.0.0.1"', "url = 1883", "$.broker.url"),
        ('url = "mqtt://127.0.0.1"', 'url = "mqtt://127.0.0.1"\npasword = "x"', "'pasword' was unexpected"),
        ('overflow = "drop_oldest"', 'overflow = "drop_oldst"', "$.queue.overflow"),
        ('interval = "10s"', 'interval = "soon"', "$.sensor[0].interval"),
        ('interval = "10s"', "interval = 0", "$.sensor[0].interval"),
        ('driver = "host"', 'driver = "hots"', "$.sensor[1].driver"),
        ('driver = "host"', 'driver = "host"\noptions = { lopback = true }', "'lopback' was unexpected"),
        ('driver = "host"', 'driver = "host"\noptions = { loopback = 1 }', "$.sensor[1].options.loopback"),
        ('driver = "host"', 'driver = "sysfs"', "'options' is a required property"),
        ('driver = "host"', 'driver = "sysfs"\noptions = {}', "'device' is a required property"),
        ("options = { address = 0x76 }", 'options = { bus = "i2c-1" }', "'bus' was unexpected"),
        ("qos = 1", "qos = 3", "$.sensor[1].qos"),
        ("[[sensor]]", "[sensors]", "'sensor' is a required property"),
    ],
)
def test_a_mistake_is_not_valid(old: str, new: str, problem: str) -> None:
    text = EXAMPLE.replace(old, new, 1) if old != "[[sensor]]" else EXAMPLE.partition(old)[0]
    assert text != EXAMPLE
    assert problem in " ".join(problems(text))


def test_the_options_of_each_driver_are_those_of_its_constructor() -> None:
    rules = {
        rule["if"]["properties"]["driver"]["const"]: rule["then"]["properties"]["options"]["properties"]
        for rule in SCHEMA["$defs"]["SensorTable"]["allOf"]
    }
    assert rules.keys() == DRIVERS.keys()
    assert rules["host"].keys() == {"root", "loopback", "disks"}
    assert rules["bme280"].keys() == {"address"}, "its bus stands beside the driver"


def test_the_options_of_a_driver_that_is_not_installed_are_open(mocker: MockerFixture) -> None:
    missing = MissingDependency("the driver", "blinka")
    mocker.patch.object(driver_options, "driver_class", side_effect=missing)
    schema = node_schema()
    assert schema["$defs"]["SensorTable"]["allOf"] == []
    assert problems(EXAMPLE, schema) == []
