"""Test doubles for programs that use device_sdk, and for device_sdk itself.

The names below are loaded when they are first used.

=========================  =====================================================================
``clock.py``               a clock that a test moves by hand
``fake_i2c.py``            an I2C bus and its chips; ``fake_bme280.py``, ``fake_sht4x.py``: two chips
``fake_sysfs.py``          a ``/sys`` with sensors
``model_broker.py``        a whole broker, sans-IO: ``model_link.py`` is one connection,
                           ``model_conversation.py`` its packets, ``model_session.py`` and
                           ``model_book.py`` its state, ``model_limits.py`` its limits
``scripted_broker.py``     a broker that plays a script, sans-IO
``broker_server.py``       puts either on a socket, with one thread and one lock, or in memory
``fault_proxy.py``         a TCP proxy with faults; ``relay.py`` forwards, in the proxy's thread
``pty_line.py``            a virtual serial line, with one thread and one lock; ``pty_gateway.py``
                           carries its bytes, under that lock
``certificates.py``        certificates for TLS, good and bad
``broker_process.py``      a real broker as a child process; ``guard.py`` ends it with its parent
=========================  =====================================================================
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
