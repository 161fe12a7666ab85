"""``device-sdk pub`` and ``device-sdk sub``."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

from device_sdk.cli.common import ExitCode, command_parser, positive_int, positive_seconds
from device_sdk.cli.connection import add_connection, connect_once, one_time_client
from device_sdk.cli.terminal import complain, say_json, say_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from device_sdk import Message
    from device_sdk.engine.incoming.inbox import Inbox
    from device_sdk.engine.outgoing.delivery import Delivery

    Show = Callable[[Message], None]

__all__ = ["pub", "sub"]

_DEFAULT_TIMEOUT_S = 10.0

# Lines from standard input that may wait for their acknowledgement at once.
_MAX_WAITING = 1000


def pub(argv: list[str]) -> int:
    """Connect, publish, wait for every acknowledgement, close."""
    parser = command_parser("pub", "Publish one message, or one per line of standard input.")
    parser.add_argument("-t", "--topic", required=True, help="topic name")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("-m", "--message", help="payload")
    what.add_argument("--stdin-lines", action="store_true", help="publish each line of standard input")
    parser.add_argument("-q", "--qos", type=int, choices=(0, 1, 2), default=0, help="default: 0")
    parser.add_argument("-r", "--retain", action="store_true", help="the broker keeps the message")
    parser.add_argument(
        "--timeout", type=positive_seconds, default=_DEFAULT_TIMEOUT_S, metavar="S",
        help="how long the connection, and each acknowledgement, may take (default: 10)",
    )  # fmt: skip
    add_connection(parser)
    arguments = parser.parse_args(argv)
    if arguments.stdin_lines:
        payloads: Iterable[bytes] = (line.rstrip(b"\r\n") for line in sys.stdin.buffer)
    else:
        # fsencode returns the exact bytes of the command line.
        payloads = [os.fsencode(arguments.message)]
    client = one_time_client(arguments)
    try:
        connect_once(client, arguments.timeout)
        waiting: deque[Delivery] = deque()
        for payload in payloads:
            if len(waiting) == _MAX_WAITING:
                waiting.popleft().wait(arguments.timeout)
            waiting.append(
                client.publish(arguments.topic, payload, qos=arguments.qos, retain=arguments.retain)
            )
        for delivery in waiting:
            delivery.wait(arguments.timeout)
    finally:
        client.close()
    return ExitCode.OK


def sub(argv: list[str]) -> int:
    """Subscribe and print messages until the count, the timeout or Ctrl-C."""
    parser = command_parser("sub", "Subscribe to topic filters and print the payloads as they arrive.")
    parser.add_argument(
        "-t", "--topic", dest="filters", action="append", required=True, metavar="FILTER",
        help="topic filter; may be given several times",
    )  # fmt: skip
    parser.add_argument("-q", "--qos", type=int, choices=(0, 1, 2), default=0, help="default: 0")
    parser.add_argument("-n", "--count", type=positive_int, help="end after this many messages")
    parser.add_argument("--timeout", type=positive_seconds, metavar="S", help="end after S seconds")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("-v", "--verbose", action="store_true", help="print the topic before the payload")
    how.add_argument("--json", action="store_true", help="print one JSON object per message")
    add_connection(parser)
    arguments = parser.parse_args(argv)
    show = _print_json if arguments.json else _print_with_topic if arguments.verbose else _print_payload
    client = one_time_client(arguments)
    try:
        # The inbox before the subscriptions, or retained messages would be lost.
        inbox = client.messages()
        connect_once(client, _DEFAULT_TIMEOUT_S)
        for topic_filter in arguments.filters:
            client.subscribe(topic_filter, qos=arguments.qos).wait(_DEFAULT_TIMEOUT_S)
        return _print_messages(inbox, show, arguments.count, arguments.timeout)
    finally:
        client.close()


def _print_messages(inbox: Inbox, show: Show, count: int | None, timeout: float | None) -> int:
    """Print ``count`` messages (else return TIMEOUT or INTERRUPTED); without a count any end is OK."""
    deadline = None if timeout is None else time.monotonic() + timeout
    shown = 0
    try:
        while shown != count:
            message = inbox.get(None if deadline is None else max(0.0, deadline - time.monotonic()))
            show(message)
            shown += 1
    except (TimeoutError, KeyboardInterrupt) as end:
        if count is not None:
            complain(f"{shown} of {count} messages arrived")
            return ExitCode.TIMEOUT if isinstance(end, TimeoutError) else ExitCode.INTERRUPTED
    return ExitCode.OK


def _print_payload(message: Message) -> None:
    say_message(message.payload)


def _print_with_topic(message: Message) -> None:
    say_message(message.payload, message.topic.encode())


def _print_json(message: Message) -> None:
    """One JSON object; a payload that is not UTF-8 text goes into ``payload_base64`` instead."""
    shown: dict[str, object] = {
        "time": round(time.time(), 3),
        "topic": message.topic,
        "qos": message.qos,
        "retain": message.retain,
    }
    try:
        shown["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        shown["payload_base64"] = base64.b64encode(message.payload).decode()
    say_json(shown, flush=True)
