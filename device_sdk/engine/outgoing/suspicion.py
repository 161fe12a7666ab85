"""The ends of connections as far as messages may be their reason: whom to tell, and how to go on."""

from __future__ import annotations

from device_sdk.engine.outgoing.careful import Careful
from device_sdk.engine.outgoing.greetings import Greeting
from device_sdk.engine.outgoing.outbox import CAREFUL
from device_sdk.engine.outgoing.poison import OTHER_REASONS, End, Poison
from device_sdk.errors import ArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.engine.events import Events
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.engine.outgoing.outbox import Outbox
    from device_sdk.mqtt.events import ConnectionEnded
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Session

__all__ = ["Suspicion", "suspicion_for"]


class Suspicion:
    """The judgement about each server of one client, and the careful connection if there is one.

    ``careful`` is ``None`` as long as nothing is suspect; then everything here costs nothing. The caller of
    every method holds the engine's lock.
    """

    __slots__ = ("_acknowledged", "_by_server", "_events", "_outbox", "_poison", "_published", "_session",
                 "careful")  # fmt: skip

    def __init__(self, session: Session, outbox: Outbox, events: Events) -> None:
        self.careful: Careful | None = None
        self._session = session
        self._outbox = outbox
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

    def prepare(self, protocol: Protocol, server: str) -> None:
        """A connection to this server is about to begin."""
        self._poison = self._by_server.setdefault(server, Poison())
        if self._poison.is_watchful:
            protocol.outbound.pace()

    def connected(self, protocol: Protocol, now: float) -> None:
        """The server has accepted the connection."""
        self._published = self._events.stats.published
        if self._poison.is_watchful:
            self.careful = Careful(self._poison, protocol, self._session, self._outbox, self._events, now)
            self._outbox.detour(CAREFUL, True)

    def step(self, now: float) -> list[Delivery]:
        """Go on with a careful connection; return the messages that ended."""
        careful = self.careful
        if careful is None:
            return []
        ended = careful.step(now)
        if careful.is_over:
            self.relax()
        return ended

    def relax(self) -> None:
        """The connection is over, or has become like any other."""
        if self.careful is not None:
            self.careful.end()
            self.careful = None
            self._outbox.detour(CAREFUL, False)

    def ended(
        self, protocol: Protocol, event: ConnectionEnded, accepted_at: float, now: float, held: int | None
    ) -> None:
        """An accepted connection is over.

        ``held``: how many of the bytes that were sent last have not reached the server's host; ``None``: it
        was not the server that ended the connection.
        """
        poison = self._poison
        if self._events.stats.acknowledged != self._acknowledged:
            self._acknowledged = self._events.stats.acknowledged
            poison.acknowledged()
        end = None
        if held is not None and event.reason_code not in OTHER_REASONS:
            end = self._describe(protocol, event, accepted_at, now, held)
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

    def _describe(
        self, protocol: Protocol, event: ConnectionEnded, accepted_at: float, now: float, held: int
    ) -> End:
        session, careful = self._session, self.careful
        left = protocol.outbound.repeats.keys() | protocol.outbound.left_out
        greeted = any(type(message) is Greeting for message in session.in_flight.values())
        unanswered: list[Any] = [
            message
            for packet_id, message in session.in_flight.items()
            if packet_id not in left and message.packet is not None and type(message) is not Greeting
        ]
        qos0 = self._events.stats.published > self._published
        end = End(str(event.error), event.reason_code, now - accepted_at, unanswered, qos0=qos0)
        if not (held or greeted or session.requests or session.released):
            if careful is not None and careful.alone is not None:
                end.alone, end.since = careful.alone, now - careful.alone_since
            elif len(unanswered) == 1:
                end.alone, end.since = unanswered[0], min(end.lived, now - protocol.output.last_sent)
        while unanswered and held > 0:  # what was sent last is here still
            held -= len(unanswered.pop().packet or b"")
        return end


def suspicion_for(on_poison: str, session: Session, outbox: Outbox, events: Events) -> Suspicion | None:
    """Return what is asked for: ``"shelve"``; ``"keep"``: nothing. Raises: ArgumentError."""
    if on_poison not in ("shelve", "keep"):
        raise ArgumentError("on_poison", f'must be "shelve" or "keep", not {on_poison!r}')
    return None if on_poison == "keep" else Suspicion(session, outbox, events)
