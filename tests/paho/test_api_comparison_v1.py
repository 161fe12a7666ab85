"""device_sdk.paho.v1 has every public name of paho-mqtt 1.6.1, with its signature and value.

``paho_1_6_1.json`` describes paho-mqtt 1.6.1, as it cannot be installed beside 2.2.0; a slow test makes that
description anew from PyPI. Every difference is in the table, with its reason.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.paho.api import describe
from tests.paho.suite.run import fetch

HERE = Path(__file__).parent
PAHO: dict[str, dict[str, str]] = json.loads((HERE / "paho_1_6_1.json").read_text(encoding="utf-8"))

# Modules that are the same in both versions.
SHARED = ("matcher", "packettypes", "properties", "subscribeoptions")

# Pattern of module.name -> why ours is not the same.
DIFFERENCES = {
    "client.Client": "ours has one keyword argument more, store",
    "client.Client.tls_set": "ours has alpn_protocols, after all the others",
    "client.WebsocketConnectionError": "a ConnectionError since 2.0; in 1.6 it was a ValueError",
    "client.WebsocketWrapper*": "inside of paho-mqtt's WebSocket transport; ours is device_sdk.net.websocket",
    "client.sockpair_data": "what paho-mqtt writes to wake its own loop",
    "*.MQTTMatcher.Node": "the nodes of paho-mqtt's tree; ours is in device_sdk.mqtt.topics",
    "properties.readBytes": "has the parameter maxlen since 2.2",
}


def our_module(name: str) -> Any:
    return importlib.import_module(
        f"device_sdk.paho.{name}" if name in SHARED else f"device_sdk.paho.v1.{name}"
    )


def differences(module: str) -> dict[str, tuple[str, str | None]]:
    name = module.rpartition(".")[2]
    theirs = PAHO[module]
    ours = describe(our_module(name), [known for known in theirs if "." not in known])
    return {
        f"{name}.{known}": (line, ours.get(known))
        for known, line in theirs.items()
        if ours.get(known) != line
    }


@pytest.mark.parametrize("module", PAHO)
def test_every_name_is_there_and_the_same(module: str) -> None:
    unexplained = {
        name: lines
        for name, lines in differences(module).items()
        if not any(fnmatchcase(name, pattern) for pattern in DIFFERENCES)
    }
    assert not unexplained


def test_every_explained_difference_exists() -> None:
    found = [name for module in PAHO for name in differences(module)]
    unused = [pattern for pattern in DIFFERENCES if not any(fnmatchcase(name, pattern) for name in found)]
    assert not unused


@pytest.mark.slow
def test_the_description_is_that_of_paho_1_6_1(tmp_path: Path) -> None:
    try:
        root = fetch("paho-mqtt-1.6.1", tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("needs PyPI")
    described = subprocess.run(
        [sys.executable, str(HERE / "api.py"), *PAHO],
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    ).stdout
    assert json.loads(described) == PAHO
