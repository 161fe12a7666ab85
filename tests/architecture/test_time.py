"""The time of day moves no timer: it is set back and forth by people, NTP and a board without a battery."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import device_sdk

PACKAGE = Path(device_sdk.__file__).parent

# They write a time for people, keep one over the end of the process, or judge and give the time of samples.
WRITERS = {
    "cli/demo/command.py",
    "cli/pubsub.py",
    "engine/outgoing/endings.py",
    "net/tls_reasons.py",
    "node/clock/wall_clock.py",
    "store/clock.py",
}
ROOMS_OF_READINGS = ("drivers", "testing")

# Monotonic time stands still in suspend. It bounds work (opening a stream, a write to disk) and waits of the
# program; whatever a broker measures as well, and the life of a message, is in CLOCK_BOOTTIME.
BOUNDS_WORK = {
    "_clock.py",
    "_folding.py",
    "aio/callbacks.py",
    "cli/demo/node.py",
    "cli/demo/scene.py",
    "cli/pubsub.py",
    "cli/sensors.py",
    "client.py",
    "engine/connecting/attempt.py",
    "engine/events.py",
    "engine/incoming/calls.py",
    "net/attempt.py",
    "net/layer.py",
    "net/link/layer.py",
    "net/lookup.py",
    "net/memory.py",
    "net/serial.py",
    "net/srv.py",
    "net/tcp.py",
    "net/unix.py",
    "node/sensor.py",
    "node/service.py",
    "node/systemd.py",
    "node/watch.py",
    "node/worker.py",
    "paho/_connection.py",
    "paho/_core.py",
    "paho/_loop.py",
    "paho/_message.py",
    "paho/_runner.py",
    "paho/_stream.py",
    "paho/client.py",
    "store/sqlite.py",
    "threads.py",
}


def asks_for_the_time_of_day(source: str) -> bool:
    """Tell whether a module calls ``time.time()``, ``time.time_ns()`` or ``datetime.now()``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr="time" | "time_ns"):
                return True
            case ast.ImportFrom(module="time", names=names):
                if any(name.name in ("time", "time_ns") for name in names):
                    return True
            case ast.Attribute(attr="now" | "utcnow", value=ast.Name(id="datetime")):
                return True
    return False


def asks_for_monotonic_time(source: str) -> bool:
    """Tell whether a module names ``time.monotonic`` or ``time.monotonic_ns``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="time"), attr="monotonic" | "monotonic_ns"):
                return True
            case ast.ImportFrom(module="time", names=names):
                if any(name.name.startswith("monotonic") for name in names):
                    return True
    return False


def test_who_uses_a_clock_that_stands_still_in_suspend_is_known() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in ROOMS_OF_READINGS
        and asks_for_monotonic_time(path.read_text())
    }
    assert found == BOUNDS_WORK


def test_the_time_of_day_moves_no_timer() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in ROOMS_OF_READINGS
        and asks_for_the_time_of_day(path.read_text())
    }
    assert found == WRITERS


@pytest.mark.parametrize(
    "source",
    ["import time\nx = time.time()", "from time import time", "f = time.time_ns", "datetime.now(tz)"],
)
def test_a_question_for_the_time_of_day_is_seen(source: str) -> None:
    assert asks_for_the_time_of_day(source)


def test_monotonic_time_is_none() -> None:
    assert not asks_for_the_time_of_day("import time\nfrom time import monotonic\nx = time.monotonic()")
