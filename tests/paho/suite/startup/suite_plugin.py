"""pytest plugin for a run of paho-mqtt's suite on device_sdk: prepares each process, counts the results."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

OUTCOMES = ("passed", "skipped", "xfailed", "xpassed", "failed", "error")


def pytest_configure() -> None:
    """Check that it is our code which is tested, and let Ctrl-C reach the client programs."""
    import paho.mqtt.client

    if paho.mqtt.client.__name__ != "device_sdk.paho.client":
        raise pytest.UsageError(f"the suite would test {paho.mqtt.client.__file__} instead of device_sdk")
    # Workers of pytest-xdist ignore SIGINT and a subprocess would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write how many tests had which outcome to the file named by PAHO_SUITE_COUNTS."""
    counts = {name: len(terminalreporter.stats.get(name, ())) for name in OUTCOMES}
    Path(os.environ["PAHO_SUITE_COUNTS"]).write_text(json.dumps(counts), encoding="utf-8")
