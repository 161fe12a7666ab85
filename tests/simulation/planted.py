"""Bugs to plant in the product: a simulation that does not find them proves nothing.

Each is a change of the source of one function, in memory. The text that it replaces has to be there exactly
once, so that a bug cannot become stale without a word.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import ModuleType

__all__ = ["PLANTED", "PlantedBug"]

_SESSION, _PROTOCOL = "device_sdk.mqtt.session:Session", "device_sdk.mqtt.protocol:Protocol"
_HANDSHAKE, _KEEP_ALIVE = "device_sdk.mqtt.handshake:Handshake", "device_sdk.mqtt.keep_alive:KeepAlive"
_INBOUND, _OUTBOUND = "device_sdk.mqtt.inbound:Inbound", "device_sdk.mqtt.outbound:Outbound"
_BACKLOG, _REPLAY = "device_sdk.engine.outgoing.backlog:Backlog", "device_sdk.engine.outgoing.replay:Replay"
_ENGINE = "device_sdk.engine.engine:Engine"
_SUBSCRIBER = "device_sdk.engine.incoming.subscriber:Subscriber"
_PUBLISHER = "device_sdk.engine.outgoing.publisher:Publisher"
_OUTBOX, _PAGES = "device_sdk.engine.outgoing.outbox:Outbox", "device_sdk.engine.outgoing.pages:Pages"
_ROUTER = "device_sdk.engine.incoming.router:Router"
_POLICY = "device_sdk.engine.connecting.back_off:ReconnectPolicy"
_STREAM = "device_sdk.engine.stream:Stream"

# The new connection goes on with what the last one has not sent.
_LEFT_OVER = (
    "new = self.connection.stream; old = globals().get('_last_stream') or new; "
    "globals()['_last_stream'] = new; "
    "new.pending, new._buffer, new._chunks = old.pending, old._buffer, old._chunks"
)


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """One bug: in ``function`` of the class ``where`` the text ``old`` becomes ``new``.

    ``first_seed`` is where the tests begin to look, to spare them the seeds that are known not to show it.
    """

    name: str
    where: str
    function: str
    old: str
    new: str
    first_seed: int = 0

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Have the bug for a while. Raises: ValueError: the text is not there, or more than once."""
        module, owner = _owner(self.where)
        original = inspect.getattr_static(owner, self.function)
        source = _source(self.where, self.function)
        if source.count(self.old) != 1:
            count = source.count(self.old)
            raise ValueError(f"{self.name}: {self.where}.{self.function} has {self.old!r} {count} times")
        space: dict[str, object] = {}
        # Strings of annotations stay strings: the modules postpone them, and so does this.
        code = "from __future__ import annotations\n" + source.replace(self.old, self.new)
        exec(compile(code, f"<{self.name}>", "exec"), vars(module), space)
        setattr(owner, self.function, space[self.function])
        try:
            yield
        finally:
            setattr(owner, self.function, original)


def _owner(where: str) -> tuple[ModuleType, type]:
    module_name, _, class_name = where.partition(":")
    module = importlib.import_module(module_name)
    return module, getattr(module, class_name)


@cache
def _source(where: str, function: str) -> str:
    return textwrap.dedent(inspect.getsource(inspect.getattr_static(_owner(where)[1], function)))


PLANTED = (
    PlantedBug(
        "a packet identifier in flight is used again",
        _SESSION, "_search_packet_id",
        "packet_id not in self.in_flight", "True",
        first_seed=25,
    ),
    PlantedBug(
        "a packet identifier past PUBREC is used again",
        _SESSION, "allocate",
        "and packet_id not in self.released", "",
    ),
    PlantedBug(
        "PUBREC is not remembered by the next process: PUBLISH is repeated",
        _OUTBOX, "restore",
        "if message.released:", "if False:",
    ),
    PlantedBug(
        "PUBREL is forgotten with the connection",
        _SUBSCRIBER, "disconnected",
        "self._session.requests.clear()", "self._session.requests.clear(); self._session.released.clear()",
    ),
    PlantedBug(
        "PUBREL is not repeated after a reconnect",
        _OUTBOUND, "resume",
        "for packet_id in session.released:", "for packet_id in ():",
    ),
    PlantedBug(
        "what is repeated ignores the window",
        _OUTBOUND, "repeat",
        " and len(session) - len(repeats) < self.window:", ":",
    ),
    PlantedBug(
        "the server's receive maximum is ignored",
        _HANDSHAKE, "accept",
        'min(self._inflight, server.get("receive_maximum", 65_535))', "self._inflight",
    ),
    PlantedBug(
        "DUP is not set on what is repeated",
        _OUTBOUND, "_send_again",
        "packet[0] | _DUP", "packet[0]",
    ),
    PlantedBug(
        "what is repeated leaves in reverse order",
        _OUTBOUND, "repeat",
        "popitem(last=False)", "popitem(last=True)",
    ),
    PlantedBug(
        "new messages overtake those that are repeated",
        _REPLAY, "_plan",
        "- len(session)", "- (0 if protocol.outbound.repeats else len(session))",
    ),
    PlantedBug(
        "incoming QoS 2 identifiers are forgotten with the connection",
        _SUBSCRIBER, "disconnected",
        "self._session.requests.clear()", "self._session.requests.clear(); self._session.received.clear()",
    ),
    PlantedBug(
        "incoming QoS 2 identifiers of a lost session are kept",
        _SESSION, "lose",
        "    self.received.clear()\n", "",
        first_seed=58,
    ),
    PlantedBug(
        "a QoS 2 PUBLISH does not wait for the store",
        _OUTBOUND, "publish",
        "        if message.flags >= 4:\n            self._output.hold_last(number)\n", "",
        first_seed=25,
    ),
    PlantedBug(
        "PUBREL does not wait for the store",
        _OUTBOUND, "on_pubrec",
        "output.add(pubrel, change)", "output.add(pubrel)",
    ),
    PlantedBug(
        "PUBCOMP does not wait for the store",
        _INBOUND, "on_pubrel",
        "self._output.answer(pubcomp, session.change_number)", "self._output.answer(pubcomp)",
    ),
    PlantedBug(
        "messages are acknowledged before they were handled",
        _INBOUND, "acknowledge_handled",
        "while waiting and waiting[0].handled:", "while waiting:",
    ),
    PlantedBug(
        "a message handled offline is not noted for the next process",
        _SESSION, "note_handled",
        "message is not None and message.handled", "False",
    ),
    PlantedBug(
        "a page of the queue skips a message",
        _PAGES, "take",
        "self._cursor = page[-1].sequence", "self._cursor = page[-1].sequence + 1",
    ),
    PlantedBug(
        "new messages overtake those that only the store holds",
        _BACKLOG, "append",
        "pages.beyond and not overtaking", "False",
    ),
    PlantedBug(
        "sequence numbers begin at 1 in each process",
        _OUTBOX, "restore",
        "self.next_sequence = saved.next_sequence", "pass",
    ),
    PlantedBug(
        "messages of a lost session are dropped",
        _BACKLOG, "put_back",
        "reversed(list(messages))", "()",
    ),
    PlantedBug(
        "messages of a lost session are put behind the others",
        _BACKLOG, "put_back",
        "self.queue.appendleft(message)", "self.queue.append(message)",
    ),
    PlantedBug(
        "a message past PUBREC is repeated after the session was lost",
        _SESSION, "lose",
        "unfinished = list(self.in_flight.values())",
        "unfinished = [*self.in_flight.values(), *self.released.values()]",
    ),
    PlantedBug(
        "there is no back-off",
        _POLICY, "delay",
        "return min(self.longest, self.first * 2.0 ** min(failures, 32)) * draw", "return 0.0",
    ),
    PlantedBug(
        "the back-off does not grow",
        _POLICY, "delay",
        "2.0 ** min(failures, 32)", "1.0",
    ),
    PlantedBug(
        "keep alive never gives a dead connection up",
        _KEEP_ALIVE, "act",
        "return DEAD", "pass",
    ),
    PlantedBug(
        "no answer to PINGREQ is expected",
        _KEEP_ALIVE, "act",
        "self._answer_due = now + self.patience", "pass",
    ),
    PlantedBug(
        "messages without an expiry expire when the clock leaps",
        _BACKLOG, "take_expired",
        "item.expires_at is not None and item.expires_at <= now", "(item.expires_at or 1e6) <= now",
    ),
    PlantedBug(
        "subscriptions are not renewed in a new session",
        _ROUTER, "connected",
        "if session_present:", "if True:",
    ),
    PlantedBug(
        "an attempt to connect that hangs is never given up",
        _PROTOCOL, "next_deadline",
        "return self.handshake.deadline", "return None",
        first_seed=85,
    ),
    PlantedBug(
        "new messages overtake the queue",
        _PUBLISHER, "publish",
        "and not outbox.ahead", "and True",
    ),
    PlantedBug(
        "a partial send loses the rest of the packet",
        _STREAM, "send",
        'memoryview(self._buffer)[sent:] if self.blocked else b""', 'b""',
    ),
    PlantedBug(
        "the rest of a packet leaves on the next connection",
        _ENGINE, "on_open",
        "\n    self.flush(now)\n", f"\n    {_LEFT_OVER}\n    self.flush(now)\n",
    ),
)  # fmt: skip

# Read now what is imported now: somebody may edit a file while a long test runs.
for each in PLANTED:
    _source(each.where, each.function)
