"""``device-sdk run`` and ``device-sdk config``: the daemon, and the check of its configuration."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from device_sdk._log import Log
from device_sdk.cli.common import ExitCode, add_log_level, command_parser, exit_code_for, set_up_logging
from device_sdk.cli.stop_signals import StopSignals
from device_sdk.cli.terminal import complain, say, say_json, say_text
from device_sdk.node.config import load_config
from device_sdk.node.example import EXAMPLE
from device_sdk.node.link import make_client
from device_sdk.node.schema import node_schema
from device_sdk.node.service import Service
from device_sdk.node.systemd import Notifier
from device_sdk.node.tables import NodeConfig

__all__ = ["config", "run"]

# The main thread looks how the node is, and tells systemd: soon after the start, and then so often.
_FIRST_LOOK_S, _LOOK_S = 1.0, 60.0

log = Log("device_sdk.node")


def run(argv: list[str]) -> int:
    """Run a node in the foreground: 0 after a stop that lost nothing, else the cause of the loss."""
    if logging.getLogger().level == logging.WARNING:
        set_up_logging("info")  # the log of a daemon should show its changes of state
    parser = command_parser(
        "run", "Run a sensor node until SIGTERM or Ctrl-C; a second one does not wait for the broker."
    )
    parser.add_argument("config", metavar="CONFIG", type=Path, help="TOML file, see 'device-sdk config'")
    arguments = parser.parse_args(argv)
    service = Service(_load(arguments.config))
    notifier = Notifier()
    with StopSignals() as signals:
        service.start()
        notifier.ready()
        pause = _FIRST_LOOK_S
        while not signals.count and service.is_alive:
            notifier.status(service.status)
            if service.healthy:
                notifier.alive()
            signals.wait(min(pause, notifier.interval or pause))
            pause = min(2 * pause, _LOOK_S)
        alive = service.is_alive
        notifier.stopping()
        log.info("stopping: waiting up to %g s for the broker", service.config.node.drain)
        lost = service.stop(hurry=lambda: _in_a_hurry(signals, notifier))
    if not alive:
        complain("a worker ended by itself, its traceback is above")
        return ExitCode.FAILED
    if lost:
        complain(f"{lost} messages are lost: {service.error}")
        return _cause(service.error)
    log.info("stopped, the broker has everything")
    return ExitCode.OK


def config(argv: list[str]) -> int:
    """Run ``config check FILE``, ``config schema`` or ``config example``."""
    parser = command_parser("config", "Check a node's configuration, print its JSON Schema or an example.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="look for every error without running anything")
    check.add_argument("config", metavar="FILE", type=Path)
    schema = actions.add_parser("schema", help="print a JSON Schema, for editors")
    example = actions.add_parser("example", help="print a configuration to start from")
    for action in (check, schema, example):
        add_log_level(action, default=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.action == "example":
        say_text(EXAMPLE)
        return ExitCode.OK
    if arguments.action == "schema":
        say_json(node_schema(), indent=2)
        return ExitCode.OK
    checked = _load(arguments.config)
    _, transport = make_client(checked)
    count = len(checked.sensor)
    sensors = "1 sensor" if count == 1 else f"{count} sensors"
    say(f"{arguments.config}: no errors; node {checked.node.id}, {sensors}, {transport.description}")
    return ExitCode.OK


def _in_a_hurry(signals: StopSignals, notifier: Notifier) -> bool:
    notifier.alive()  # the drain may take longer than the watchdog waits
    return signals.count > 1


def _load(path: Path) -> NodeConfig:
    # A function beside the configuration can be a sensor: driver = "function".
    sys.path.append(str(path.parent.resolve()))
    return load_config(path)


def _cause(error: BaseException | None) -> ExitCode:
    known = exit_code_for(error) if isinstance(error, Exception) else None
    return ExitCode.FAILED if known is None else known
