"""Runs at the start of every Python of the suite, the client programs in subprocesses included."""

from __future__ import annotations

from device_sdk.paho import alias

alias.install()
