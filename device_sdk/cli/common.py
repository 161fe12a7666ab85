"""Shared by all commands: exit codes, argument types, the parser with its global options."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NoReturn

from device_sdk.cli.terminal import LogFormatter, SafeParser
from device_sdk.errors import (
    ArgumentError,
    ConfigError,
    ConnectFailedError,
    DeviceSdkError,
    DriverError,
    MissingDependency,
    NotConnectedError,
    RefusedError,
    TransportError,
)

__all__ = [
    "LOG_LEVELS",
    "ExitCode",
    "Parser",
    "Ticker",
    "add_log_level",
    "command_parser",
    "exit_code_for",
    "non_negative_int",
    "positive_int",
    "positive_seconds",
    "set_up_logging",
]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")

# Longest wait of a command without a timeout (a year): Python's waits overflow beyond it.
_MAX_SECONDS = 366 * 86400.0


class ExitCode(IntEnum):
    """Exit status of every command: the cause, so that a shell script can distinguish them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_CONNECTION = 3
    REFUSED = 4
    TIMEOUT = 5
    SENSOR = 6
    MISSING = 69
    INTERRUPTED = 130


# The first class that fits decides, so a subclass stands before its base.
_CODE_OF_ERROR: tuple[tuple[type[Exception], ExitCode], ...] = (
    (ArgumentError, ExitCode.USAGE),
    (ConfigError, ExitCode.USAGE),
    (MissingDependency, ExitCode.MISSING),
    (DriverError, ExitCode.SENSOR),
    (RefusedError, ExitCode.REFUSED),
    (ConnectFailedError, ExitCode.NO_CONNECTION),
    (NotConnectedError, ExitCode.NO_CONNECTION),
    (TransportError, ExitCode.NO_CONNECTION),
    (TimeoutError, ExitCode.TIMEOUT),
    (DeviceSdkError, ExitCode.FAILED),
)


def exit_code_for(error: Exception) -> ExitCode | None:
    """Return the exit code of an expected error, ``None`` for a defect of the program."""
    return next((code for kind, code in _CODE_OF_ERROR if isinstance(error, kind)), None)


class Parser(SafeParser):
    """The parser of a command that explains options of other commands.

    ``foreign``: option, as other commands spell it -> what to write.
    """

    foreign: Mapping[str, str] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, as argparse does; ``-h HOST`` of mosquitto_pub, for one, must not look like success."""
        words = list(sys.argv[1:] if args is None else args)
        for word, following in zip(words, [*words, "-"][1:], strict=True):
            value = word[2:] or ("" if following.startswith("-") else following)
            if word.startswith("-h") and value and "-h" in self.foreign:
                self.error(f"-h {value}: -h shows the help and takes no value")
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """End with the usage and the message, with advice for the options in it."""
        options = [word.partition("=")[0] for word in message.split() if word.startswith("-")]
        known = [f"{option} is {self.foreign[option]} here" for option in options if option in self.foreign]
        super().error("; ".join([message, *known]))


def command_parser(name: str, description: str) -> Parser:
    """Return the parser of one command, with the options that every command has."""
    parser = Parser(
        prog=f"device-sdk {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_log_level(parser, default=argparse.SUPPRESS)
    return parser


def add_log_level(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add ``--log-level``; it is understood before and after the command's name."""
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        metavar="LEVEL",
        type=str.lower,
        default=default,
        action=_SetLogLevel,
        help=f"log to standard error: {', '.join(LOG_LEVELS)} (default: warning)",
    )


class _SetLogLevel(argparse.Action):
    """Takes effect while the arguments are read, so both places of the option work alike."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        set_up_logging(str(values))


def set_up_logging(level: int | str, who: str = "") -> None:
    """Send log records of ``level`` and above to standard error. Later calls change the level.

    ``who``: the process, if it is not the command itself.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(
        LogFormatter(f"%(asctime)s %(levelname)-7s {who and who + ' '}%(name)s: %(message)s")
    )
    logging.basicConfig(handlers=[handler])
    logging.getLogger().setLevel(level.upper() if isinstance(level, str) else level)


class Ticker:
    """The points in time 0, 1, 2, ... times ``interval``; anchored, so that they do not drift.

    ``next`` is the next one. Missed ticks are skipped, not made up for.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.next = 0.0
        self._tick = 0

    def due(self, now: float) -> bool:
        """Return whether the next tick is due; if so, move on to the first one after ``now``."""
        if now < self.next:
            return False
        self._tick = max(self._tick + 1, math.ceil(now / self.interval))
        self.next = self._tick * self.interval
        return True


def positive_int(text: str) -> int:
    """Argument type: an integer of at least 1."""
    number = non_negative_int(text)
    if number == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def non_negative_int(text: str) -> int:
    """Argument type: an integer of at least 0."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def positive_seconds(text: str) -> float:
    """Argument type: seconds, above 0 and at most a year."""
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 < seconds <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most {_MAX_SECONDS:.0f} seconds")
    return seconds
