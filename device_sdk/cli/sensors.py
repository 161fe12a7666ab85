"""``device-sdk sensors``: list the drivers, read one as a table or as JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
import time
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
from device_sdk.drivers import DRIVERS, driver_class, open_driver

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.drivers import Driver, Reading

    Show = Callable[[str, tuple[Reading, ...]], None]

__all__ = ["sensors"]


def sensors(argv: list[str]) -> int:
    """Run ``sensors list`` or ``sensors read KIND``."""
    arguments = _parser().parse_args(argv)
    action = {"list": _list, "read": _read}[arguments.action]
    action(arguments)
    return ExitCode.OK


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("sensors", "List the sensor drivers, read a sensor.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="show which drivers there are")
    read = actions.add_parser("read", help="read a sensor and print its values with their units")
    read.add_argument("kind", metavar="KIND", help=f"driver: {', '.join(sorted(DRIVERS))}")
    read.add_argument("--json", action="store_true", help="one JSON object per sample and line")
    read.add_argument("--interval", type=positive_seconds, metavar="S", help="go on reading every S seconds")
    read.add_argument("--count", type=positive_int, metavar="N", help="stop after N samples")
    read.add_argument(
        "--root", metavar="PATH", help="folder that holds proc/, for the host driver (default: /)"
    )
    add_log_level(read, default=argparse.SUPPRESS)
    return parser


def _list(arguments: argparse.Namespace) -> None:
    width = max(map(len, DRIVERS))
    for kind in sorted(DRIVERS):
        summary = (driver_class(kind).__doc__ or "").strip().splitlines()[0]
        print(f"{kind:<{width}}  {summary}")


def _read(arguments: argparse.Namespace) -> None:
    options = {} if arguments.root is None else {"root": arguments.root}
    show = _print_json if arguments.json else _print_table
    # One sample, unless an interval asks for more: then until --count or Ctrl-C.
    count = arguments.count or (None if arguments.interval else 1)
    # Without a count Ctrl-C is the way to end it.
    until_interrupted = suppress(KeyboardInterrupt) if count is None else nullcontext()
    with open_driver(arguments.kind, **options) as driver, until_interrupted:
        _sample(driver, arguments.kind, show, arguments.interval or 1.0, count)


def _sample(driver: Driver, kind: str, show: Show, interval: float, count: int | None) -> None:
    """Read and show every ``interval`` seconds, ``count`` times or for ever."""
    ticker = Ticker(interval)
    begin = time.monotonic()
    done = 0
    while done != count:
        time.sleep(max(0.0, begin + ticker.next - time.monotonic()))
        ticker.due(time.monotonic() - begin)
        show(kind, driver.read())
        sys.stdout.flush()
        done += 1


def _print_json(kind: str, readings: tuple[Reading, ...]) -> None:
    sample = {
        "driver": kind,
        "time": readings[0].time,
        "readings": {r.channel: {"value": r.value, "unit": r.unit, "quality": r.quality} for r in readings},
    }
    print(json.dumps(sample))


def _print_table(kind: str, readings: tuple[Reading, ...]) -> None:
    rows = [("CHANNEL", "VALUE", "UNIT", "QUALITY")]
    rows += [(r.channel, "-" if r.value is None else str(r.value), r.unit, r.quality) for r in readings]
    name, value, unit, _ = (max(len(row[column]) for row in rows) for column in range(4))
    for row in rows:
        print(f"{row[0]:<{name}}  {row[1]:>{value}}  {row[2]:<{unit}}  {row[3]}")
