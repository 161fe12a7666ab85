"""JSON Schema of a node's configuration, with the options of each driver: ``device-sdk config schema``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_sdk.config.schema import json_schema
from device_sdk.drivers.base import DRIVERS
from device_sdk.node.driver_options import options_schema
from device_sdk.node.tables import NodeConfig, SensorTable

if TYPE_CHECKING:
    from typing import Any

__all__ = ["node_schema"]

# The options that stand beside the driver instead of in its table of options.
_BESIDE = {"bus"}


def node_schema() -> dict[str, Any]:
    """Return the schema, as data for :func:`json.dumps`. If a driver's extra is missing, its options are
    unchecked.
    """
    schema = json_schema(NodeConfig, "Configuration of a device-sdk node")
    rules = [_rule(kind, options_schema(kind)) for kind in sorted(DRIVERS)]
    schema["$defs"][SensorTable.__name__]["allOf"] = [rule for rule in rules if rule]
    return schema


def _rule(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the rule for a sensor with this kind of driver."""
    if not options:
        return {}
    inside = {name: each for name, each in options["properties"].items() if name not in _BESIDE}
    needed = [name for name in options["required"] if name not in _BESIDE]
    table = {**options, "properties": inside, "required": needed}
    rule = {"properties": {"options": table}, "required": ["options"]}
    if not needed:
        del table["required"], rule["required"]  # draft 4, see config/schema.py
    return {"if": {"properties": {"driver": {"const": kind}}}, "then": rule}
