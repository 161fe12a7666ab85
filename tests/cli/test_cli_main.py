"""The command itself: its options, its exit codes, what it imports."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from device_sdk import errors
from device_sdk._version import __version__
from device_sdk.cli import COMMANDS, main
from device_sdk.cli.common import ExitCode, Ticker, exit_code_for


@pytest.fixture(autouse=True)
def log_level_as_before() -> Iterator[None]:
    level = logging.getLogger().level
    yield
    logging.getLogger().setLevel(level)


def test_version_prints_the_version_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out == f"device-sdk {__version__}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["dance"],
        ["--log-level", "loud", "sensors", "list"],
        ["sensors"],
        ["sensors", "paint"],
        ["sensors", "read"],
        ["sensors", "read", "host", "--count", "0"],
        ["sensors", "read", "host", "--count", "x"],
        ["sensors", "read", "host", "--interval", "0"],
        ["sensors", "read", "host", "--interval", "nan"],
        ["sensors", "read", "host", "--interval", "1e300"],
        ["sensors", "read", "hots"],
    ],
)
def test_wrong_arguments_end_with_the_usage_code_and_a_reason(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == ExitCode.USAGE
    assert capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["--log-level", "info", "sensors", "list"],
        ["sensors", "--log-level", "INFO", "list"],
        ["sensors", "read", "host", "--log-level", "info"],
    ],
)
def test_log_level_is_understood_before_and_after_the_command(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == ExitCode.OK
    assert logging.getLogger().level == logging.INFO
    capsys.readouterr()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ArgumentError("qos", "3"), ExitCode.USAGE),
        (errors.ConfigError("x"), ExitCode.USAGE),
        (errors.MissingDependency("x", "broker"), ExitCode.MISSING),
        (errors.DeviceNotFoundError("x"), ExitCode.SENSOR),
        (errors.ReadTimeoutError("x"), ExitCode.SENSOR),
        (errors.BusError("x"), ExitCode.SENSOR),
        (errors.ConnectRefused("x", 0x86), ExitCode.REFUSED),
        (errors.PublishRefused("x", 0x87), ExitCode.REFUSED),
        (errors.ConnectFailedError("x"), ExitCode.NO_CONNECTION),
        (errors.TransportClosedError("x"), ExitCode.NO_CONNECTION),
        (TimeoutError("x"), ExitCode.TIMEOUT),
        (errors.DroppedError("x"), ExitCode.FAILED),
        (errors.QueueFullError("x"), ExitCode.FAILED),
    ],
)
def test_the_exit_code_says_the_cause(error: Exception, code: ExitCode) -> None:
    assert exit_code_for(error) is code


def test_a_defect_of_the_program_has_no_exit_code_and_keeps_its_traceback() -> None:
    assert exit_code_for(ZeroDivisionError()) is None


def test_ticks_do_not_drift_and_missed_ones_are_skipped() -> None:
    ticker = Ticker(0.5)
    assert ticker.due(0.0)
    assert not ticker.due(0.4)
    assert ticker.due(0.53)
    assert ticker.next == 1.0
    assert ticker.due(2.7)
    assert ticker.next == 3.0


def test_a_tick_at_its_exact_time_is_one_tick_in_spite_of_rounding() -> None:
    ticker = Ticker(0.1)
    assert all(ticker.due(ticker.next) for _ in range(1000))
    assert ticker.next == pytest.approx(100.0)


def test_a_command_is_imported_only_when_it_is_used() -> None:
    program = (
        "import sys, device_sdk.cli as cli; cli.main(['--version']);"
        "print(sorted(m for m in sys.modules if m.startswith('device_sdk.')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    loaded = run.stdout.splitlines()[-1]
    assert loaded == str(
        [
            "device_sdk._load",
            "device_sdk._printable",
            "device_sdk._traceback",
            "device_sdk._version",
            "device_sdk.cli",
            "device_sdk.cli.common",
            "device_sdk.cli.output",
            "device_sdk.cli.terminal",
            "device_sdk.errors",
        ]
    )


def test_python_dash_m_device_sdk_is_the_same_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "device_sdk", "--version"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, f"device-sdk {__version__}\n")
