"""``device-sdk queue``: inspect the queue file of a client, even while the client is running."""

from __future__ import annotations

import argparse
import base64
import sys
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING

from device_sdk._clock import boottime
from device_sdk.cli.common import ExitCode, add_log_level, command_parser, positive_int
from device_sdk.cli.terminal import ask, complain, say, say_json
from device_sdk.errors import DeviceSdkError
from device_sdk.mqtt.wire import decode_properties
from device_sdk.store.base import SHELVED
from device_sdk.store.inspect import QueueReader, check, purge, purge_shelf, retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from device_sdk.store.inspect import StoredMessage

__all__ = ["queue"]

_DEFAULT_COUNT = 10
_SHOWN_BYTES = 60

# The output of `stat`, in this order: field of QueueReader.stat() -> words.
_FIGURES = {
    "waiting": "messages waiting",
    "in_flight": "sent, not acknowledged",
    "released": "taken over, not completed (QoS 2)",
    "bytes": "bytes of these messages",
    "file_bytes": "bytes on disk",
    "free_bytes": "of them unused",
    "accepted": "messages ever stored",
    "acknowledged": "of them acknowledged",
    "refused": "refused by the broker",
    "expired": "expired",
    "dropped": "dropped",
    "damaged": "damaged on the disk",
    "received": "incoming QoS 2 exchanges",
}
# The same for the shelf.
_SHELF_FIGURES = {
    "refused": "refused by the broker",
    "damaged": "damaged on the disk",
    "bytes": "bytes of these messages",
    "pushed_off": "no room on the shelf, deleted",
    "withheld": "packet identifiers withheld",
}


def queue(argv: list[str]) -> int:
    """Run ``queue stat``, ``peek``, ``export``, ``check``, ``retry`` or ``purge`` on a file."""
    arguments = _parser().parse_args(argv)
    action: Callable[[argparse.Namespace], int] = arguments.run
    return action(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("queue", "Look into the queue that a client keeps in a file (store=...).")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        ("stat", _stat, "how much waits, and what became of the rest"),
        ("peek", _peek, "the oldest messages"),
        ("export", _export, "all messages, one JSON object per line"),
        ("check", _check, "read the whole file and list its faults"),
        ("retry", _retry, "put refused messages back into the queue; the client must not be running"),
        ("purge", _purge, "delete the messages that wait; the client must not be running"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(run=run)
        action.add_argument("path", metavar="FILE", help="the client's store, for example queue.db")
        if name in ("stat", "peek", "export", "retry", "purge"):
            action.add_argument(
                "--refused", action="store_true", required=name == "retry",
                help="the shelf: messages that are not sent any more, refused or damaged",
            )  # fmt: skip
        if name in ("stat", "peek"):
            action.add_argument("--json", action="store_true", help="JSON instead of text")
        if name == "peek":
            action.add_argument(
                "-n", "--count", type=positive_int, default=_DEFAULT_COUNT,
                help=f"how many (default: {_DEFAULT_COUNT})",
            )  # fmt: skip
        if name == "purge":
            action.add_argument("--yes", action="store_true", help="do not ask")
        add_log_level(action, default=argparse.SUPPRESS)
    return parser


def _stat(arguments: argparse.Namespace) -> int:
    with QueueReader(arguments.path) as reader:
        figures = reader.stat()
    if arguments.json:
        say_json(figures["shelf"] if arguments.refused else figures)
        return ExitCode.OK
    use = "a client has it open" if figures["in_use"] else "no client has it open"
    name = figures["facts"].get("client_id", "unknown")
    say(f"{figures['path']}: {use}; client identifier {name}")
    if not arguments.refused:
        _print_figures(_FIGURES, figures)
        for topic_filter in figures["subscriptions"]:
            say(f"  subscribed to {topic_filter}")
        say("on the shelf, not sent any more:")
    _print_figures(_SHELF_FIGURES, figures["shelf"])
    return ExitCode.OK


def _print_figures(table: dict[str, str], figures: dict[str, Any]) -> None:
    width = max(map(len, _FIGURES.values()))
    for name, words in table.items():
        say(f"  {words:<{width}}  {figures[name]:>12,}")


def _peek(arguments: argparse.Namespace) -> int:
    with QueueReader(arguments.path) as reader:
        shelf = arguments.refused
        messages = list(islice(reader.shelf(), arguments.count)) if shelf else reader.peek(arguments.count)
    if arguments.json:
        _print_json(messages)
        return ExitCode.OK
    for message in messages:
        payload = message.payload[:_SHOWN_BYTES]
        more = f" ... ({len(message.payload)} bytes)" if len(message.payload) > _SHOWN_BYTES else ""
        text = payload.decode("utf-8", "backslashreplace")
        shown = text if text.isprintable() else repr(payload)
        say(f"{message.sequence} {message.state} qos={message.qos} {message.topic} {shown}{more}")
        if message.status is not None:
            say(f"    {_time(message.at)}: {message.reason}")
    return ExitCode.OK


def _time(at: float) -> str:
    """Return Unix time as ISO 8601, UTC."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    except (OverflowError, OSError, ValueError):
        return f"{at} s"


def _export(arguments: argparse.Namespace) -> int:
    with QueueReader(arguments.path) as reader:
        _print_json(reader.shelf() if arguments.refused else reader.export())
    return ExitCode.OK


def _check(arguments: argparse.Namespace) -> int:
    problems = check(arguments.path)
    for problem in problems:
        say(f"{arguments.path}: {problem}")
    if not problems:
        say(f"{arguments.path}: everything is in order")
    return ExitCode.FAILED if problems else ExitCode.OK


def _retry(arguments: argparse.Namespace) -> int:
    say(f"{retry(arguments.path)} messages are in the queue again")
    return ExitCode.OK


def _purge(arguments: argparse.Namespace) -> int:
    if not arguments.yes and not _confirmed(arguments.path, shelf=arguments.refused):
        complain("nothing was deleted")
        return ExitCode.FAILED
    deleted = (purge_shelf if arguments.refused else purge)(arguments.path)
    say(f"{deleted} messages deleted")
    return ExitCode.OK


def _confirmed(path: str, *, shelf: bool) -> bool:
    if not sys.stdin.isatty():
        complain("standard input is no terminal; repeat the command with --yes")
        return False
    with QueueReader(path) as reader:
        figures = reader.stat()
    what = f"{figures['waiting']} messages that wait in"
    if shelf:
        what = f"{sum(figures['shelf'][name] for name in SHELVED)} messages that are not sent any more from"
    return ask(f"Delete {what} {path}? [y/N]") in ("y", "yes")


def _print_json(messages: Iterable[StoredMessage]) -> None:
    for message in messages:
        say_json(_fields(message))


def _fields(message: StoredMessage) -> dict[str, object]:
    """Return a message for JSON; a payload that is not UTF-8 text goes into ``payload_base64`` instead."""
    shown: dict[str, object] = {
        "sequence": message.sequence,
        "state": message.state,
        "topic": message.topic,
        "qos": message.qos,
        "retain": message.retain,
    }
    if message.packet_id:
        shown["packet_id"] = message.packet_id
    if message.expires_at is not None:
        shown["expires_in"] = round(message.expires_at - boottime(), 3)
    if len(message.properties) > 1:
        shown["properties"] = _properties(message.properties)
    if message.status is not None:
        shown["reason"] = message.reason
        shown["at"] = message.at
    try:
        shown["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        shown["payload_base64"] = base64.b64encode(message.payload).decode()
    return shown


def _properties(block: bytes) -> dict[str, object]:
    """Return the properties of a stored property block; bytes as ``hex:``, a damaged block as a whole."""
    try:
        properties, _ = decode_properties(block, 0, len(block), "publish")
    except DeviceSdkError:
        return {"damaged": f"hex:{block.hex()}"}
    return {
        name: f"hex:{value.hex()}" if type(value) is bytes else value for name, value in properties.items()
    }
