"""The ``device-sdk`` command.

A command is a function ``(arguments) -> exit code`` in a module that is imported only when it is used.

===================  ====================================================================
``common.py``        exit codes, argument types, the parser with its global options
``terminal.py``      everything that is printed
``output.py``        standard output and standard error that may be closed or full
``connection.py``    options for the connection to the broker, and the client from them
``pubsub.py``        ``pub``, ``sub``
``queue.py``         ``queue``
``node.py``          ``run``, ``config``
``sensors.py``       ``sensors``
``demo/``            ``demo``
``stop_signals.py``  Ctrl-C as an event; only in the main thread
===================  ====================================================================
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from device_sdk._load import load
from device_sdk._version import __version__
from device_sdk.cli.common import ExitCode, add_log_level, exit_code_for, set_up_logging
from device_sdk.cli.output import drop_errors, lost_output, watch_output
from device_sdk.cli.terminal import SafeParser, complain, show_defects_safely

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_sdk.cli.output import WatchedOutput

__all__ = ["COMMANDS", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": (
        "device_sdk.cli.demo.command:demo",
        "publish this machine's sensors through a network outage, lose nothing",
    ),
    "pub": ("device_sdk.cli.pubsub:pub", "publish a message and wait for its acknowledgement"),
    "sub": ("device_sdk.cli.pubsub:sub", "subscribe and print messages as they arrive"),
    "queue": ("device_sdk.cli.queue:queue", "look into the queue that a client keeps in a file"),
    "run": ("device_sdk.cli.node:run", "run a sensor node until SIGTERM or Ctrl-C"),
    "config": ("device_sdk.cli.node:config", "check a node's configuration, print an example"),
    "sensors": ("device_sdk.cli.sensors:sensors", "list the sensor drivers, find and read sensors"),
}
"""Every command: name -> (``"module:function"``, one line of help)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; see :class:`~device_sdk.cli.common.ExitCode`.

    An expected error becomes one line on standard error. Only a defect of the program shows a traceback.
    """
    output = watch_output()
    set_up_logging("warning")
    show_defects_safely()
    try:
        return _watched(argv, output)
    finally:
        drop_errors()


def _watched(argv: Sequence[str] | None, output: WatchedOutput | None) -> int:
    try:
        code = _run(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        expected = exit_code_for(error)
        if expected is not None:
            complain(error)
            return expected
        if output is None or output.failure is None:
            raise
    if output is not None and output.failure is not None:  # argparse has no word about it
        return lost_output(output.failure)
    return code


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(argv)
        return int(_command(arguments.command)(arguments.arguments))
    except SystemExit as end:
        # argparse has printed the error or the help.
        return end.code if isinstance(end.code, int) else ExitCode.USAGE


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS))
    parser = SafeParser(
        prog="device-sdk",
        description="MQTT device SDK for Raspberry Pi and Linux single-board computers.",
        epilog="commands:\n"
        + "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
        + "\n\n'device-sdk COMMAND --help' shows the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"device-sdk {__version__}")
    add_log_level(parser, default=None)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="of the command")
    return parser


def _command(name: str) -> Callable[[list[str]], int]:
    command: Callable[[list[str]], int] = load(COMMANDS[name][0])
    return command
