"""The package's log while :mod:`logging` is not imported, is being imported, and is there."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from device_sdk._log import Log, is_debugged

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(params=["missing", "forbidden", "begun"])
def unfinished(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """``logging`` as another thread, or the code that a signal has interrupted, may have left it."""
    match request.param:
        case "missing":
            monkeypatch.delitem(sys.modules, "logging")
        case "forbidden":
            monkeypatch.setitem(sys.modules, "logging", None)
        case "begun":
            monkeypatch.setitem(sys.modules, "logging", ModuleType("logging"))
    return str(request.param)


def test_nobody_wants_debug_messages_before_logging_is_imported(unfinished: str) -> None:
    assert not is_debugged("device_sdk.packets")


def test_information_is_dropped_before_logging_is_imported(unfinished: str) -> None:
    log = Log("device_sdk.test")
    log.info("nobody can see this")
    assert log._logger is None


def test_a_warning_in_the_middle_of_the_import_of_logging_raises_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log("device_sdk.test")
    with monkeypatch.context() as begun:
        begun.setitem(sys.modules, "logging", ModuleType("logging"))
        log.warning("lost: %s", "a signal has interrupted the import")
    log.warning("seen: %s", "it has ended")
    assert caplog.messages == ["seen: it has ended"]


def test_a_level_that_was_set_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("device_sdk.test"), "level", logging.DEBUG)
    assert is_debugged("device_sdk.test")
    assert not is_debugged("device_sdk.test_of_another_name")


# The import of `logging` stands still after its first line, in a thread of its own.
IMPORTING = """
import sys, threading
from importlib.machinery import PathFinder
from device_sdk._log import Log, is_debugged

begun, go_on = threading.Event(), threading.Event()

class Slow:
    @staticmethod
    def find_spec(name, path, target=None):
        if name != "logging":
            return None
        spec = PathFinder.find_spec(name, path)
        run = spec.loader.exec_module
        def slowly(module):
            begun.set()
            assert go_on.wait(20)
            run(module)
        spec.loader.exec_module = slowly
        return spec

assert "logging" not in sys.modules
sys.meta_path.insert(0, Slow)
importing = threading.Thread(target=Log("device_sdk.one").warning, args=("one",))
importing.start()
assert begun.wait(20)
assert not is_debugged("device_sdk.packets")
Log("device_sdk.two").info("dropped")
warning = threading.Thread(target=Log("device_sdk.two").warning, args=("two",))
warning.start()
go_on.set()
importing.join(20), warning.join(20)
"""


def test_other_threads_may_log_while_one_imports_logging() -> None:
    run = subprocess.run(
        [sys.executable, "-S", "-E", "-c", IMPORTING],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert sorted(run.stderr.split()) == ["one", "two"]
