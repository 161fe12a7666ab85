"""The tables of docs/api.md and docs/limits.md say what the source says."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from device_sdk import Client
from device_sdk.engine import arguments, connection, events, stream
from device_sdk.engine.connecting import authentication
from device_sdk.engine.incoming import router
from device_sdk.engine.outgoing import backlog, bounds
from device_sdk.mqtt import aliasing, framing, handshake, inbound, protocol, skipping, topics
from device_sdk.net import sockets, srv, tcp, websocket
from device_sdk.store import access, base, database, files, pending, sqlite, wal
from device_sdk.store.base import StorePolicy

ROOT = Path(__file__).resolve().parent.parent
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
LIMITS = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")

# Kinds of events that no call spells out: they are the states of messages that ended.
ENDS = {"dropped", "expired", "refused"}


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the tables between a heading and the next one."""
    section = page.partition(f"\n{heading}\n")[2].partition("\n#")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert lines, f"no table under {heading}"
    return lines


def named(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def value_of(cell: str) -> object:
    """Return what a cell shows as a default: `code`, 86,400 or 16 MiB; the class that is made: None."""
    if cell.startswith("`"):
        code = cell.strip("`")
        return None if code.endswith("()") else ast.literal_eval(code)
    number, _, unit = cell.partition(" ")
    return ast.literal_eval(number.replace(",", "")) * {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}[unit]


def test_the_constructor_table_has_every_argument_with_its_default_in_their_order() -> None:
    written = [
        (name, value_of(default))
        for option, default, *_ in rows(API, "## Constructor")[1:]
        for name in named(option)
    ]
    parameters = inspect.signature(Client).parameters
    assert written == [(one.name, one.default) for one in parameters.values() if one.name != "url"]


@pytest.mark.parametrize(
    "method",
    ["connect", "close", "reauthenticate", "publish", "request", "subscribe", "unsubscribe", "reconnect_now"],
)
def test_a_method_is_shown_with_its_arguments_and_defaults(method: str) -> None:
    parameters = list(inspect.signature(getattr(Client, method)).parameters.values())[1:]
    bare = inspect.Signature([one.replace(annotation=inspect.Parameter.empty) for one in parameters])
    assert re.search(rf"`(client\.)?{method}{re.escape(str(bare).replace(chr(39), chr(34)))}`", API)


def test_the_policy_table_has_every_argument() -> None:
    table = rows(API, "### StorePolicy")
    end = next(index for index, row in enumerate(table) if row[0] == "`overflow`")
    written = {name for option, *_ in table[:end] for name in named(option)}
    assert written == set(inspect.signature(StorePolicy).parameters)


def test_the_statistics_are_those_that_are_counted() -> None:
    written = [name for counter, _ in rows(API, "## Statistics") for name in named(counter)]
    assert sorted(written) == sorted(events.Stats.__slots__)


def test_the_events_are_those_that_are_reported_on_the_page_and_in_the_docstring() -> None:
    table = rows(API, "## Hooks")
    begin = next(index for index, row in enumerate(table) if row[0] == "event")
    on_the_page = {name for event, *_ in table[begin + 1 :] for name in named(event)}
    docstring = inspect.getdoc(events.ClientEvent) or ""
    assert set(re.findall(r"``(\w+)``", docstring.partition("Kinds:")[2])) == on_the_page
    reported = {*ENDS, *base.REPORTS}
    for room in ("engine", "aio", "threads.py"):
        place = ROOT / "device_sdk" / room
        for path in place.rglob("*.py") if place.is_dir() else [place]:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(
                        func=ast.Attribute(attr="notify"), args=[ast.Constant(value=str(kind)), *_]
                    ):
                        reported.add(kind)
    assert reported == on_the_page


def size(count: int) -> str:
    """Return bytes as the page writes them."""
    for unit, bits in (("MiB", 20), ("KiB", 10)):
        if count >= 1 << bits and not count % (1 << bits):
            return f"{count >> bits} {unit}"
    return f"{count:,} bytes"


@pytest.mark.parametrize(
    ("what", "shown"),
    [
        ("messages that wait", f"{bounds._MEMORY_MESSAGES:,} in memory"),
        ("bytes that wait", f"{size(bounds._MEMORY_BYTES)} in memory, {size(bounds._DISK_BYTES)} on disk"),
        ("QoS 0 bytes that the network", f"at most {size(bounds._MEMORY_BYTES)}"),
        ("wait for room under `block`", f"{StorePolicy().block_timeout:g} s"),
        ("payload ", size(arguments.LARGEST_PAYLOAD)),
        ("topic name, topic filter", f"{topics._MAX_BYTES:,} bytes, {topics.MAX_LEVELS} levels"),
        ("topic aliases that we use", f"{aliasing.MOST_ALIASES:,}"),
        ("filters in one repeated SUBSCRIBE", f"{router._FILTERS_PER_PACKET}"),
        ("unanswered SUBSCRIBE and UNSUBSCRIBE", f"{router._UNANSWERED:,}"),
        ("bytes joined for one `send()`", size(stream._SEND_SIZE)),
        ("sends before the next read", f"{connection._SENDS_PER_FLUSH}"),
        ("waiting messages in memory", f"{backlog.PAGES_IN_MEMORY} pages of {base.PAGE_MESSAGES} messages"),
        ("waiting messages in memory", size(base.PAGE_BYTES)),
        ("messages that are not committed", f"{pending.BATCH_MESSAGES}, {size(pending.BATCH_BYTES)}"),
        ("messages that are not committed", f"{StorePolicy().linger:g} s"),
        ("acknowledgements, subscriptions and", f"{pending.LAZY_CHANGES} or {pending.LAZY_S:g} s"),
        ("the same while the disk fails", f"{bounds._MEMORY_MESSAGES:,} messages"),
        ("pause before the next attempt", f"{sqlite.RETRY_S[0]:g} s, doubled up to {sqlite.RETRY_S[1]:g} s"),
        ("free space on the file system", size(StorePolicy().min_free)),
        ("messages on the [shelf]", f"{StorePolicy().max_shelf_messages:,}"),
        ("bytes of them", size(StorePolicy().max_shelf_bytes)),
        ("copies of damaged logs", f"2 of {size(wal.KEPT_BYTES)}"),
        ("damaged messages named", f"{database.NAMED}"),
        ("free space on the file system", f"{size(files.RESERVE_BYTES)} in `queue.db.reserve`"),
        ("waiting for another program", f"{access.BUSY_S:g} s"),
        ("waiting for a disk that hangs", f"{StorePolicy().open_timeout:g} s"),
        ("the same, `close()`", f"{sqlite._CLOSE_S:g} s"),
        ("the same, the end of the process", f"{sqlite._EXIT_S:g} s"),
        ("room for the index of the log", size(access.INDEX_BYTES)),
        ("our answers that it does not read", f"{protocol.MOST_ANSWERS:,}"),
        ("repetitions of QoS 2 messages", f"{inbound._MOST_HELD:,}"),
        ("AUTH rounds of one exchange", f"{authentication._MOST_ROUNDS}"),
        ("assigned client identifier", f"{handshake.LONGEST_CLIENT_ID:,} characters"),
        ("a message with such a text", f"{skipping.IN_A_ROW - 1} connections"),
        (
            "decoded topic names kept",
            f"{inbound._TOPIC_CACHE_SIZE:,} of up to {inbound._LONGEST_CACHED_TOPIC}",
        ),
        ("routes kept", f"{router._ROUTE_CACHE_SIZE:,}"),
        ("one read", size(sockets.RECV_BYTES)),
        ("bytes of a WebSocket message", size(websocket.MAX_MESSAGE_BYTES)),
        ("one WebSocket frame from us", size(websocket.FRAME_BYTES)),
        ("brokers that the DNS names", f"{srv.MAX_SERVERS}"),
        ("reads from a stream that has ended", f"{stream.LAST_READS} of"),
        (
            "a packet that has begun to arrive",
            f"{framing._PATIENCE:g} s, and 1 s for each {framing._SLOWEST}",
        ),
        ("data that the peer's host", f"{tcp.USER_TIMEOUT_S:g} s"),
    ],
)
def test_a_limit_is_the_constant_of_the_source(what: str, shown: str) -> None:
    (default,) = [line.split(" | ")[1] for line in LIMITS.splitlines() if line.startswith(f"| {what}")]
    assert re.search(rf"(?<![\d,]){re.escape(shown)}(?!\d|,\d)", default)


def test_a_default_is_read_as_it_is_meant() -> None:
    cells = ("`None`", "`StorePolicy()`", '`"5.0"`', "86,400", "10.0", "16 MiB")
    assert [value_of(cell) for cell in cells] == [None, None, "5.0", 86_400, 10.0, 16 * 1024 * 1024]
