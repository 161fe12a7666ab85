"""Test doubles for programs that use device_sdk, and for device_sdk itself.

The names below are loaded when they are first used.

===================================  ==============================================================
``model_broker.py``                  a whole broker that keeps the rules and watches its clients
``model_link.py``                    one connection to it: bytes in and out, ends
``model_conversation.py``            what it does with a packet
``model_book.py``                    what a client may send next: identifiers, aliases, repetitions
``model_session.py``                 what it keeps for a client
``model_limits.py``                  what it announces and allows
``scripted_broker.py``               a broker that says what you write down
``broker_server.py``                 the network below either: a socket, or memory
``broker_process.py``, ``guard.py``  real brokers as child processes, and what ends them
``fault_proxy.py``, ``relay.py``     a bad network: what is said to it, and what forwards
``pty_line.py``, ``pty_gateway.py``  a serial line, and the gateway at its far end
``fake_i2c.py``                      a bus; ``fake_bme280.py``, ``fake_sht4x.py``: chips on it
``fake_sysfs.py``                    the kernel's sensors
``certificates.py``                  certificates of every kind
``clock.py``                         a clock that a test turns
===================================  ==============================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_sdk._load import load

if TYPE_CHECKING:
    from device_sdk.testing.broker_server import BrokerServer, MemoryBrokerServer
    from device_sdk.testing.certificates import Certificates
    from device_sdk.testing.clock import ManualClock
    from device_sdk.testing.fake_bme280 import FakeBME280
    from device_sdk.testing.fake_i2c import FakeI2CBus, FakeI2CDevice, FakeRegisterDevice
    from device_sdk.testing.fake_sht4x import FakeSHT4x
    from device_sdk.testing.fake_sysfs import FakeSysfs
    from device_sdk.testing.fault_proxy import FaultProxy
    from device_sdk.testing.model_broker import ModelBroker
    from device_sdk.testing.pty_line import PtyLine
    from device_sdk.testing.scripted_broker import ScriptedBroker

__all__ = [
    "BrokerServer",
    "Certificates",
    "FakeBME280",
    "FakeI2CBus",
    "FakeI2CDevice",
    "FakeRegisterDevice",
    "FakeSHT4x",
    "FakeSysfs",
    "FaultProxy",
    "ManualClock",
    "MemoryBrokerServer",
    "ModelBroker",
    "PtyLine",
    "ScriptedBroker",
]

_HOME = {
    "BrokerServer": "device_sdk.testing.broker_server",
    "Certificates": "device_sdk.testing.certificates",
    "FakeBME280": "device_sdk.testing.fake_bme280",
    "FakeI2CBus": "device_sdk.testing.fake_i2c",
    "FakeI2CDevice": "device_sdk.testing.fake_i2c",
    "FakeRegisterDevice": "device_sdk.testing.fake_i2c",
    "FakeSHT4x": "device_sdk.testing.fake_sht4x",
    "FakeSysfs": "device_sdk.testing.fake_sysfs",
    "FaultProxy": "device_sdk.testing.fault_proxy",
    "ManualClock": "device_sdk.testing.clock",
    "MemoryBrokerServer": "device_sdk.testing.broker_server",
    "ModelBroker": "device_sdk.testing.model_broker",
    "PtyLine": "device_sdk.testing.pty_line",
    "ScriptedBroker": "device_sdk.testing.scripted_broker",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(f"{_HOME[name]}:{name}")
