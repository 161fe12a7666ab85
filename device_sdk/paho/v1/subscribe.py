"""Receive with one call, as in paho-mqtt 1.x: the functions are the same in 2.x."""

from __future__ import annotations

from device_sdk.paho.subscribe import callback, simple

__all__ = ["callback", "simple"]
