"""Every line of the log goes through :class:`Folding`, or is listed with the reason why it cannot repeat.

DEBUG is left out: whoever asks for it wants each line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "device_sdk"

# File and function -> why its line cannot fill a log.
ONCE = {
    ("aio/callbacks.py", "_report"): "when the task of the handlers is cancelled",
    ("aio/callbacks.py", "_run_plain_hooks"): "at the end of the loop",
    ("aio/driver.py", "drop"): "at the end of the client",
    ("cli/node.py", "run"): "at the stop of the node",
    ("engine/events.py", "_log"): "the events are counted already, and few",
    ("engine/events.py", "_log_connected"): "only after a line that says the opposite",
    ("node/clock/gate.py", "_end"): "at the stop of the node",
    ("node/clock/gate.py", "_tell_patience"): "once: no sample waits any more",
    ("node/clock/gate.py", "_tell_time"): "once: the time is known then",
    ("node/clock/gate.py", "begin"): "at the start of the node",
    ("node/clock/waiting_room.py", "_all_messages"): "at the start of the node",
    ("node/clock/waiting_room.py", "open"): "at the start of the node",
    ("node/service.py", "_stop_workers"): "at the stop of the node",
    ("node/outlet.py", "_tell_lost"): "only after a line that says that samples are lost",
    ("node/service.py", "start"): "at the start of the node",
    ("node/uplink.py", "__init__"): "at the start of the node",
    ("node/uplink.py", "_change"): "once: the node has its file then",
    ("node/sensor.py", "_tell"): "only after a line that says the opposite",
    ("node/worker.py", "_fail"): "once: the bus has failed until a restart",
    ("store/sqlite.py", "_end"): "at the end of the store",
    ("store/sqlite.py", "close"): "at the end of the store",
    ("threads.py", "_end"): "at the end of the client",
}


def direct_lines(tree: ast.Module) -> Iterator[str]:
    """The functions that call a logger themselves."""
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="log" | "_log"), attr="info" | "warning")
                    ):
                        yield function.name


def test_a_line_that_does_not_go_through_the_folding_cannot_repeat() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), function)
        for path in PACKAGE.rglob("*.py")
        for function in direct_lines(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == ONCE.keys()


def test_the_rule_notices_a_small_bad_example() -> None:
    bad = "def f():\n    for m in messages:\n        log.warning('%s', m)\n        log.debug('%s', m)\n"
    assert list(direct_lines(ast.parse(bad))) == ["f"]
