"""Reason codes under the name that paho-mqtt 1.x gives the class."""

from __future__ import annotations

from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.reasoncodes import ReasonCode as ReasonCodes

__all__ = ["PacketTypes", "ReasonCodes"]
