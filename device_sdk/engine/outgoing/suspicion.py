"""The ends of connections as far as messages may be their reason: whom to tell, and how to go on."""

from __future__ import annotations

from device_sdk.engine.incoming.filter_judge import FilterJudge
from device_sdk.engine.outgoing.careful import Careful
from device_sdk.engine.outgoing.greetings import Greeting
from device_sdk.engine.outgoing.outbox import CAREFUL
from device_sdk.engine.outgoing.poison import OTHER_REASONS, End, Poison
from device_sdk.errors import ArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.engine.events import Events
    from device_sdk.engine.incoming.asking import Asking
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.engine.outgoing.outbox import Outbox
    from device_sdk.engine.outgoing.presence import Presence
    from device_sdk.mqtt.events import ConnectionEnded
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Session

__all__ = ["Suspicion", "suspicion_for"]


class Suspicion:
    """The judgement about each server of one client, and the careful connection if there is one.

    ``careful`` is ``None`` as long as nothing is suspect; then everything here costs nothing. ``filters``:
    the judgement about topic filters. The caller of every method holds the engine's lock.
    """

    __slots__ = ("_acknowledged", "_asking", "_by_server", "_events", "_poison", "_published",
                 "_session", "careful", "filters", "outbox")  # fmt: skip

    def __init__(self, session: Session, outbox: Outbox, events: Events) -> None:
        self.careful: Careful | None = None
        self.filters = FilterJudge(events.stats)
        self._asking: Asking | None = None
        self._session = session
        self.outbox = outbox
        self._events = events
        self._by_server: dict[str, Poison] = {}
        self._poison = Poison()
        self._acknowledged = 0  # messages, at the last end that counts
        self._published = 0  # messages, when the connection began

    @property
    def deadline(self) -> float | None:
        """When :meth:`step` wants to be called."""
        return None if self.careful is None else self.careful.deadline

    @property
    def is_judging(self) -> bool:
        """Whether one message has to be in flight and nothing else."""
        return self.careful is not None and self.careful.alone is not None

    @property
    def is_watchful(self) -> bool:
        """Whether the next connection has to go carefully in any way."""
        return self._poison.is_watchful or (self._asking is not None and self.filters.is_watchful)

    def attend(self, asking: Asking) -> None:
        """Judge topic filters, too: this is where they are asked for."""
        self._asking = asking

    def prepare(self, protocol: Protocol, server: str) -> None:
        """A connection to this server is about to begin."""
        self._poison = self._by_server.setdefault(server, Poison())
        self.filters.prepare(server)
        if self.is_watchful:
            protocol.outbound.pace()

    def connected(self, protocol: Protocol, now: float) -> None:
        """The server has accepted the connection."""
        self._published = self._events.stats.published
        self._poison.begin()
        self.filters.begin(now)
        if self.is_watchful:
            self.careful = Careful(self._poison, protocol, self.outbox, self._events, now, self._asking)
            self.outbox.detour(CAREFUL, True)

    def step(self, protocol: Protocol, presence: Presence, now: float) -> list[Delivery]:
        """Say birth if it is time, and go on with a careful connection; return the messages that ended."""
        careful, asking = self.careful, self._asking
        if presence.begin(protocol, now, alone=careful is not None) and asking is not None:
            asking.doubt()
        if careful is None:
            return []
        ended = careful.step(now)
        if careful.is_over:
            self.relax()
            if asking is not None:
                asking.go_on()
        if presence.begin(protocol, now, alone=True) and asking is not None:
            asking.doubt()
        return ended

    def relax(self) -> None:
        """The connection is over, or has become like any other."""
        if self.careful is not None:
            self.careful.end()
            self.careful = None
            self.outbox.detour(CAREFUL, False)

    def ended(
        self, protocol: Protocol, presence: Presence, event: ConnectionEnded, accepted_at: float, now: float,
        held: int | None,
    ) -> None:  # fmt: skip
        """An accepted connection is over, because of a message, a topic filter, birth or something else.

        ``held``: how many of the bytes that were sent last have not reached the server's host; ``None``: it
        was not the server that ended the connection. An end is of one kind, and what is known of the others
        stays.
        """
        end = None
        greeted = presence.is_unproved(now)
        if held is not None and event.reason_code not in OTHER_REASONS:
            end = self._describe(protocol, event, accepted_at, now, held, greeted=greeted)
        is_found = self._judge(end, event, now, greeted=greeted)
        if end is not None:
            presence.ended_by_server(now - accepted_at, event.error, now, is_found=is_found)

    def _judge(self, end: End | None, event: ConnectionEnded, now: float, *, greeted: bool) -> bool:
        """Tell the judges; return whether one message or filter alone was unanswered."""
        poison, asking = self._poison, self._asking
        if self._events.stats.acknowledged != self._acknowledged:
            self._acknowledged = self._events.stats.acknowledged
            poison.acknowledged()
        if end is not None and (greeted or end.greeted) and end.is_bare:  # because of birth
            if end.qos0 and poison.suspect is None:
                poison.ended(end)
            return False
        if asking is not None and asking.ended(end, now, is_careful=self.careful is not None):
            return True
        if poison.suspect is not None:
            poison.control_ended(end)
        elif end is not None and (suspect := poison.ended(end)) is not None:
            kind = "message" if suspect.message is not None else "message of QoS 0"
            text = (
                f"{suspect.topic}: a {kind} of {suspect.size} bytes alone was unanswered when the broker "
                f"ended {suspect.ends} of the last connections ({suspect.reason}); the next one goes "
                "without it"
            )
            self._events.notify("suspect", text, event.error, suspect.topic)
        return end is not None and end.alone is not None

    def _describe(
        self, protocol: Protocol, event: ConnectionEnded, accepted_at: float, now: float, held: int,
        *, greeted: bool,
    ) -> End:  # fmt: skip
        session, careful = self._session, self.careful
        left = protocol.outbound.repeats.keys() | protocol.outbound.left_out
        is_unproved = greeted  # birth of QoS 0
        greeted = any(type(message) is Greeting for message in session.in_flight.values())
        unanswered: list[Any] = [
            message
            for packet_id, message in session.in_flight.items()
            if packet_id not in left and message.packet is not None and type(message) is not Greeting
        ]
        qos0 = self._events.stats.published > self._published
        end = End(str(event.error), event.reason_code, now - accepted_at, unanswered, qos0=qos0)
        is_clear = not (held or greeted or session.released)
        end.greeted = greeted
        end.is_clear = is_clear and not unanswered
        end.is_bare = not (unanswered or session.requests or (careful is not None and careful.alone))
        if is_clear and not session.requests:
            if careful is not None and careful.alone is not None:
                end.alone, end.since = careful.alone, now - careful.alone_since
            elif len(unanswered) == 1 and not is_unproved:
                end.alone, end.since = unanswered[0], min(end.lived, now - protocol.output.last_sent)
        while unanswered and held > 0:  # what was sent last is here still
            held -= len(unanswered.pop().packet or b"")
        return end


def suspicion_for(on_poison: str, session: Session, outbox: Outbox, events: Events) -> Suspicion | None:
    """Return what is asked for: ``"shelve"``; ``"keep"``: nothing. Raises: ArgumentError."""
    if on_poison not in ("shelve", "keep"):
        raise ArgumentError("on_poison", f'must be "shelve" or "keep", not {on_poison!r}')
    return None if on_poison == "keep" else Suspicion(session, outbox, events)
