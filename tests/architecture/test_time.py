"""The time of day moves no timer: it is set back and forth by people, NTP and a board without a battery."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import device_sdk

PACKAGE = Path(device_sdk.__file__).parent

# They write a time for people, or keep one over the end of the process.
WRITERS = {"cli/demo/command.py", "cli/pubsub.py", "engine/outgoing/endings.py", "store/clock.py"}
ROOMS_OF_READINGS = ("drivers", "testing")


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
