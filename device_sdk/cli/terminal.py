"""Output of the commands. Nothing else in ``cli`` prints, so that each text from outside is made safe here.

A line is one line without control characters, wherever it goes: a topic name, an error or the name of a file
cannot forge a second line, nor move the cursor of a terminal. JSON is ASCII, and complete.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

from device_sdk._printable import printable
from device_sdk._traceback import safe_traceback
from device_sdk.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "LogFormatter",
    "SafeParser",
    "as_json",
    "ask",
    "complain",
    "say",
    "say_json",
    "say_message",
    "say_text",
    "show_defects_safely",
]

_LONGEST_MESSAGE = 100_000  # characters of a message on a terminal; a pipe gets it as it is


def say(*lines: str, flush: bool = False) -> None:
    """Print lines on standard output."""
    for line in lines:
        print(printable(line), flush=flush)


def say_text(text: str) -> None:
    """Print a text of this package, with its line ends."""
    print(text, end="")


def say_json(value: object, *, indent: int | None = None, flush: bool = False) -> None:
    """Print a value as JSON."""
    print(as_json(value, indent), flush=flush)


def as_json(value: object, indent: int | None = None) -> str:
    """Return a value as JSON, in ASCII; what JSON does not know becomes text."""
    return json.dumps(value, indent=indent, default=str)


def say_message(content: bytes, topic: bytes = b"") -> None:
    """Print a message, behind its topic name if that is given: byte for byte, on a terminal as safe text."""
    line = topic + b" " + content if topic else content
    if sys.stdout.isatty():
        line = printable(line.decode("utf-8", "backslashreplace"), _LONGEST_MESSAGE).encode()
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def complain(problem: object, who: str = "device-sdk") -> None:
    """Print a problem, a text or an error, on standard error, if that can be written."""
    lines = str(problem).split("\n") if isinstance(problem, ConfigError) else [str(problem)]
    try:
        print(f"{who}: " + "\n".join(map(printable, lines)), file=sys.stderr, flush=True)
    except OSError:  # full, or closed: there is nobody to tell
        pass


def ask(question: str) -> str:
    """Ask the user of a terminal and return the answer."""
    return input(f"{printable(question)} ").strip().lower()


class SafeParser(argparse.ArgumentParser):
    """A parser whose complaints quote arguments safely."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit."""
        super().error(printable(message))


class LogFormatter(logging.Formatter):
    """Writes each record in one line, also those of other packages; tracebacks have no foreign line ends."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """Return the traceback of a record."""
        error = ei[1] if isinstance(ei, tuple) else None
        return "" if error is None else safe_traceback(error)


def show_defects_safely() -> None:
    """Print the traceback of an exception that nothing catches as the log does. Hooks of others stay."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _show_defect
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _show_defect_of_thread


def _show_defect(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
    print(safe_traceback(error), file=sys.stderr)


def _show_defect_of_thread(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_value is not None and arguments.exc_type is not SystemExit:
        name = "a thread" if arguments.thread is None else arguments.thread.name
        text = f"Exception in thread {printable(name)}:\n{safe_traceback(arguments.exc_value)}"
        print(text, file=sys.stderr)
