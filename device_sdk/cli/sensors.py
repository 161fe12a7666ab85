"""``device-sdk sensors``: list the drivers, find sensors, read one as a table or as JSON lines."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
import tomllib
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from device_sdk.cli.common import (
    ExitCode,
    Ticker,
    add_log_level,
    command_parser,
    positive_int,
    positive_seconds,
)
from device_sdk.cli.terminal import say, say_json
from device_sdk.drivers import DRIVERS, discover, driver_class, open_driver
from device_sdk.drivers.bus import list_buses
from device_sdk.errors import ArgumentError, DriverError
from device_sdk.node.driver_options import option_problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.drivers import Driver, Reading

    Show = Callable[[str, tuple[Reading, ...]], None]

__all__ = ["sensors"]


def sensors(argv: list[str]) -> int:
    """Run ``sensors list``, ``sensors discover`` or ``sensors read KIND``."""
    arguments = _parser().parse_args(argv)
    action = {"list": _list, "discover": _discover, "read": _read}[arguments.action]
    action(arguments)
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sensors", "List the sensor drivers, find and read sensors.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="show which drivers there are")
    find = actions.add_parser("discover", help="show the sensors that the kernel reads, and the I2C buses")
    find.add_argument(
        "--root", default="/", metavar="PATH", help="folder that holds sys/ and dev/ (default: /)"
    )
    find.add_argument("--json", action="store_true", help="one JSON object per sensor and line")
    read = actions.add_parser("read", help="read a sensor and print its values with their units")
    read.add_argument("kind", metavar="KIND", help=f"driver: {', '.join(sorted(DRIVERS))}")
    read.add_argument(
        "-o", dest="options", action="append", default=[], type=_option, metavar="NAME=VALUE",
        help="option of the driver, a value as in TOML or plain text; may be given several times",
    )  # fmt: skip
    read.add_argument("--json", action="store_true", help="one JSON object per sample and line")
    read.add_argument("--interval", type=positive_seconds, metavar="S", help="go on reading every S seconds")
    read.add_argument("--count", type=positive_int, metavar="N", help="stop after N samples")
    read.add_argument(
        "--unchanged-after", type=positive_seconds, metavar="S",
        help="with --interval: a number that stays exactly the same for S seconds is uncertain",
    )  # fmt: skip
    read.add_argument("--root", metavar="PATH", help="the same as -o root=PATH")
    for action in (find, read):
        add_log_level(action, default=argparse.SUPPRESS)
    return parser


def _option(text: str) -> tuple[str, object]:
    """Argument type: ``address=0x76`` is a number, ``bus=i2c-1`` a text, ``loopback=true`` a bool."""
    name, equals, value = text.partition("=")
    if not (equals and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name, value


def _list(arguments: argparse.Namespace) -> None:
    width = max(map(len, DRIVERS))
    for kind in sorted(DRIVERS):
        summary = (driver_class(kind).__doc__ or "").strip().splitlines()[0]
        say(f"{kind:<{width}}  {summary}")


def _discover(arguments: argparse.Namespace) -> None:
    found = discover(arguments.root)
    for sensor in found:
        channels = [channel.name for channel in sensor.channels]
        if arguments.json:
            shown = {"driver": sensor.kind, "options": dict(sensor.options), "channels": channels}
            say_json({**shown, "description": sensor.description, "reason": sensor.reason})
            continue
        if sensor.reason:
            say(f"not proposed: {sensor.description}: {', '.join(channels)}", f"    {sensor.reason}")
            continue
        options = " ".join(f"-o {shlex.quote(f'{name}={value}')}" for name, value in sensor.options.items())
        say(f"{sensor.kind} {options}", f"    {sensor.description}: {', '.join(channels)}")
    if not arguments.json:
        count = "1 sensor" if len(found) == 1 else f"{len(found) or 'no'} sensors"
        buses = ", ".join(list_buses(arguments.root)) or "none"
        say(f"The kernel reads {count}. I2C buses: {buses}; their chips are not probed.")
        words = "the words above" if found else "host"
        say(f"Next: 'device-sdk sensors read' and {words}; 'device-sdk sensors list' names the drivers.")


def _read(arguments: argparse.Namespace) -> None:
    options = dict(arguments.options)
    if arguments.kind == "function":
        # A function beside the user, as beside a node's configuration. Behind all that is installed.
        sys.path.append(os.getcwd())
    if arguments.root is not None:
        options["root"] = arguments.root
    problems = [f"{name}: {problem}" for name, problem in option_problems(arguments.kind, options)]
    if problems:
        raise ArgumentError("-o", "; ".join(problems))
    show = _print_json if arguments.json else _print_table
    # One sample, unless an interval asks for more: then until --count or Ctrl-C.
    count = arguments.count or (None if arguments.interval else 1)
    # Without a count Ctrl-C is the way to end it.
    until_interrupted = suppress(KeyboardInterrupt) if count is None else nullcontext()
    driver = open_driver(arguments.kind, unchanged_after=arguments.unchanged_after, **options)
    with driver, until_interrupted:
        last = _sample(driver, arguments.kind, show, arguments.interval or 1.0, count)
        if all(reading.quality == "bad" for reading in last):
            reason = last[0].reason if last else "it has none"
            raise DriverError(
                f"no channel of {arguments.kind} could be measured" + (reason and f": {reason}")
            )


def _sample(driver: Driver, kind: str, show: Show, interval: float, count: int | None) -> tuple[Reading, ...]:
    """Read and show every ``interval`` seconds, ``count`` times or for ever; return the last readings."""
    ticker = Ticker(interval)
    begin = time.monotonic()
    done = 0
    readings: tuple[Reading, ...] = ()
    while done != count:
        time.sleep(max(0.0, begin + ticker.next - time.monotonic()))
        ticker.due(time.monotonic() - begin)
        readings = driver.read()
        show(kind, readings)
        sys.stdout.flush()
        done += 1
    return readings


def _print_json(kind: str, readings: tuple[Reading, ...]) -> None:
    sample = {
        "driver": kind,
        "time": readings[0].time if readings else None,
        "readings": {
            r.channel: {"value": r.value, "unit": r.unit, "quality": r.quality}
            | ({"reason": r.reason} if r.reason else {})
            for r in readings
        },
    }
    say_json(sample)


def _print_table(kind: str, readings: tuple[Reading, ...]) -> None:
    reason = "REASON" if any(r.reason for r in readings) else ""
    rows = [("CHANNEL", "VALUE", "UNIT", "QUALITY", reason)]
    rows += [
        (r.channel, "-" if r.value is None else str(r.value), r.unit, r.quality, r.reason) for r in readings
    ]
    name, value, unit, quality, _ = (max(len(row[column]) for row in rows) for column in range(5))
    for row in rows:
        line = f"{row[0]:<{name}}  {row[1]:>{value}}  {row[2]:<{unit}}  {row[3]:<{quality}}  {row[4]}"
        say(line.rstrip())
