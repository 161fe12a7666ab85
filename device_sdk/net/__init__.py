"""Byte streams: one contract, one file for each kind, chosen by URL."""

from device_sdk.net.base import ParsedUrl, Transport, open_transport, parse_url

__all__ = ["ParsedUrl", "Transport", "open_transport", "parse_url"]
