"""Let ``import paho.mqtt.client`` find the drop-in in this process, whether paho-mqtt is installed or not."""

from __future__ import annotations

import sys
from types import ModuleType

import device_sdk.paho as v2
from device_sdk.paho import (
    client,
    enums,
    exception,
    matcher,
    packettypes,
    properties,
    publish,
    reasoncodes,
    subscribe,
    subscribeoptions,
    v1,
)
from device_sdk.paho.v1 import client as v1_client
from device_sdk.paho.v1 import publish as v1_publish
from device_sdk.paho.v1 import reasoncodes as v1_reasoncodes
from device_sdk.paho.v1 import subscribe as v1_subscribe

__all__ = ["install"]

_BOTH = {
    "matcher": matcher,
    "packettypes": packettypes,
    "properties": properties,
    "subscribeoptions": subscribeoptions,
}
_V2 = {
    **_BOTH,
    "client": client,
    "enums": enums,
    "exception": exception,
    "publish": publish,
    "reasoncodes": reasoncodes,
    "subscribe": subscribe,
}
_V1 = {
    **_BOTH,
    "client": v1_client,
    "publish": v1_publish,
    "reasoncodes": v1_reasoncodes,
    "subscribe": v1_subscribe,
}


def install(*, version1: bool = False) -> None:
    """Enter the drop-in's modules into ``sys.modules`` under paho-mqtt's names.

    Call it before anything imports paho. ``version1``: the interface of paho-mqtt 1.6 instead of 2.x. The
    modules are the same objects under both names, so ``isinstance`` holds across them. All of them are
    complete and entered in one step: another thread finds none or all.
    """
    package: ModuleType = v1 if version1 else v2
    root = ModuleType("paho", "The namespace package of paho-mqtt, here in front of device_sdk.paho.")
    root.__path__ = []
    vars(root)["mqtt"] = package
    below = {f"paho.mqtt.{name}": module for name, module in (_V1 if version1 else _V2).items()}
    sys.modules.update({"paho": root, "paho.mqtt": package, **below})
