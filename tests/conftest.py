"""Rules for every test: a skip has a reason, and what must run may not be skipped.

``DEVICE_SDK_REQUIRE`` is a comma-separated list of capabilities that this run promises to have, for example
``mosquitto,iotcore`` (scripts/test sets it). A test that cannot run without one skips with the reason
``needs mosquitto``; when the capability was promised, that skip is a failure. Hanging tests are ended by
pytest-timeout, see pyproject.toml.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Generator

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# No deadline per example: a busy board is slow without being wrong.
settings.register_profile("device_sdk", deadline=None)
settings.register_profile("long", deadline=None, max_examples=20_000)
# In CI Hypothesis has loaded a profile of its own, with a fixed seed.
if settings.get_current_profile_name() == "default":
    settings.load_profile("device_sdk")

# In the background of a shell script Ctrl-C is ignored, and every child process inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What pytest says when the author gave no reason.
NO_REASON = {"", "unconditional skip"}

# The files that take longest, in the order in which workers begin them (`scripts/test --workers`): those that
# compute in turn with those that wait. What is left for the end is short.
LONG_FILES = (
    "tests/simulation/test_lossy_network.py",
    "tests/paho/test_examples.py",
    "tests/simulation/test_engine_runs.py",
    "tests/system/test_broker_features.py",
    "tests/cli/test_cli_demo.py",
    "tests/faults/test_sample.py",
    "tests/system/test_broker_matrix.py",
    "tests/torture/test_power_cut.py",
    "tests/torture/test_kills.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the long files begin first where workers share the tests, which each of them collects."""
    if hasattr(config, "workerinput"):
        place = {config.rootpath / name: number for number, name in enumerate(LONG_FILES)}
        items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    return report if hasattr(report, "wasxfail") else _judge_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _judge_skip((yield))


def _judge_skip(report: Report) -> Report:
    """Turn a skip that the rules forbid into a failure."""
    if not report.skipped or not isinstance(report.longrepr, tuple):
        return report
    reason = report.longrepr[2].removeprefix("Skipped").lstrip(": ")
    required = {name.strip() for name in os.environ.get("DEVICE_SDK_REQUIRE", "").split(",")}
    if reason in NO_REASON:
        problem = "skipped without a reason; give one"
    elif reason.startswith("needs ") and required.intersection(reason.removeprefix("needs ").split()):
        problem = f"{reason}, and DEVICE_SDK_REQUIRE promises it"
    else:
        return report
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: {problem}"
    return report
