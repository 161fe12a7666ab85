"""The counterpart of the will: a connection begins with its birth, and close() ends it with a farewell.

Both are of one connection. Nothing is kept of them: the next connection begins with a birth of its own, and
without a connection the server publishes the will. Why: docs/decisions/0022-birth-and-farewell.md.
"""

from __future__ import annotations

from device_sdk.engine.outgoing.birth_trial import AT_ONCE, LATE, BirthTrial
from device_sdk.engine.outgoing.greetings import Greetings
from device_sdk.engine.outgoing.outbox import BIRTH
from device_sdk.errors import DeviceSdkError, LocalProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.events import Events
    from device_sdk.engine.outgoing.greetings import Greeting
    from device_sdk.engine.outgoing.outbox import Outbox
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Session

__all__ = ["Presence"]

_SHORT_LIFE = 10.0  # seconds; a connection that lived longer has not ended because of its birth of QoS 0


class Presence:
    """Says birth and farewell. The caller of every method holds the engine's lock.

    ``said``: this connection has its farewell. ``due``: when :meth:`on_deadline` is to say birth late.
    """

    __slots__ = (
        "_answer", "_asked_through", "_birth", "_events", "_greetings", "_outbox", "_place",
        "_replaced_through", "_session", "_trial", "_trials", "_unanswered", "_unproved",
        "due", "said",
    )  # fmt: skip

    def __init__(
        self, session: Session, outbox: Outbox, events: Events, greetings: Greetings | None = None
    ) -> None:
        self.said = False
        self.due: float | None = None
        self._trials: dict[str, BirthTrial] = {}  # by server
        self._trial = BirthTrial()
        self._place = AT_ONCE
        # Birth of QoS 0, when it was said, and how many messages had been sent before it and acknowledged.
        self._unproved: tuple[Greeting, float, int] | None = None
        self._greetings = greetings or Greetings("5.0")
        self._session = session
        self._outbox = outbox
        self._events = events
        self._answer: Greeting | DeviceSdkError | None = None  # of the application, for the next connection
        self._asked_through = 0  # the last message that was published before it was asked
        self._birth: Greeting | None = None  # that this connection has not said yet
        self._replaced_through = 0  # the last message that it replaces
        self._unanswered: list[Greeting] = []

    # Before the connection

    def ask_now(self) -> None:
        """The application is about to be asked: messages that it publishes from now on are newer."""
        self._asked_through = self._outbox.next_sequence - 1

    def prepare(self, answer: Greeting | DeviceSdkError | None, server: str = "") -> None:
        """Take the answer of the application for the connection that begins; ``None``: it was not asked."""
        self._answer = answer
        self._trial = self._trials.setdefault(server, BirthTrial())

    # The connection

    def connected(self, protocol: Protocol, now: float = 0.0) -> None:
        """The server has accepted the connection: hold back everything that waits until birth is said."""
        self.said = False
        self._place = self._trial.place(now)
        if self._place not in (AT_ONCE, LATE):
            return
        birth, self._replaced_through = self._greetings.birth, self._outbox.next_sequence - 1
        if birth is None:
            answer, self._answer = self._answer, None
            if isinstance(answer, DeviceSdkError):
                self._events.notify("no_birth", str(answer), answer)
                return
            birth, self._replaced_through = answer, self._asked_through
        self._birth = None if birth is None else self._fitted(birth, protocol)
        if self._birth is not None:
            if self._place == LATE:
                self.due = now + self._trial.wait
            else:
                self._outbox.detour(BIRTH, True)

    def on_deadline(self, now: float) -> None:
        """Hold back everything until birth is said, if it is time to say it late."""
        if self.due is not None and now >= self.due:
            self.due = None
            self._outbox.detour(BIRTH, True)

    def begin(self, protocol: Protocol, now: float, *, alone: bool) -> bool:
        """Say birth as soon as everything is repeated and the window has room; then what waits may follow.

        ``alone``: nothing else may be unanswered then. What is in flight with QoS 2 on its topic comes first:
        servers publish that when PUBREL arrives. Returns: whether it was said, and has no answer.
        """
        birth, session, outbound = self._birth, self._session, protocol.outbound
        if birth is None or self.due is not None or outbound.repeats:
            return False
        sent = [
            one
            for packet_id, one in session.in_flight.items()
            if one.packet is not None and packet_id not in outbound.left_out
        ]
        if birth.flags >= 2 and not outbound.has_room:
            return False
        if (alone and (sent or session.requests)) or any(
            one.flags >= 4 and one.topic_field == birth.topic_field for one in sent
        ):
            return False
        self._birth = None
        if self._say(birth, protocol):
            if birth.flags < 2:
                self._unproved = birth, now, self._events.stats.acknowledged + len(session)
            self._outbox.replay.outdate(birth.topic_field, self._replaced_through)
        self._outbox.detour(BIRTH, False)
        return birth.flags < 2

    def take_leave(self, protocol: Protocol | None) -> bool:
        """Say the farewell as the last message of this connection, if there is one.

        Returns: whether DISCONNECT may follow, after which the server discards the will.
        """
        farewell = self._greetings.farewell
        if farewell is None or protocol is None or self.said:
            return True
        fitted = self._fitted(farewell, protocol)
        if fitted is None:
            return False
        if protocol.gate:
            self._tell(farewell, LocalProtocolError("what is to be sent before it waits for the store"))
            return False
        if not protocol.outbound.has_room:
            fitted.flags &= 1  # QoS 0 needs no room in the window, and DISCONNECT follows it
        self.said = self._say(fitted, protocol)
        return self.said

    def answered(self, greeting: Greeting) -> None:
        """The server has acknowledged or refused it."""
        self._unanswered.remove(greeting)
        if greeting.name == "birth":
            self._trial.answered()
        if greeting.error is not None:
            self._tell(greeting, greeting.error)

    def refused(self, greeting: Greeting, error: DeviceSdkError) -> None:
        """The server does not take it now (0x97); the next connection says its own."""
        greeting.error = error
        self.answered(greeting)

    def ended_by_server(
        self, lived: float, error: DeviceSdkError, now: float, *, is_found: bool = False
    ) -> None:
        """The server has ended the connection after ``lived`` seconds, for a reason that may be birth.

        ``is_found``: one message or topic filter alone was unanswered.
        """
        on = next((one for one in self._unanswered if one.name == "birth"), None)
        if self._unproved is not None:
            if self.is_unproved(now):
                on = self._unproved[0]
            else:
                self._trial.answered()
        if on is None:
            if self.due is not None and not is_found:
                self._trial.ended_before()
        elif self._trial.ended_on(lived, now, late=self._place == LATE):
            text = f"the broker ended connections while it was unanswered ({error}), and not without it"
            self._tell(on, DeviceSdkError(f"{text}; it is left out for an hour or more"))

    def is_unproved(self, now: float) -> bool:
        """Whether birth of QoS 0 was said, and nothing shows that the server has taken it."""
        if self._unproved is None:
            return False
        _, said_at, before = self._unproved
        return self._events.stats.acknowledged <= before and now < said_at + _SHORT_LIFE

    def disconnected(self) -> None:
        """The connection is over, and with it everything that was said on it."""
        self.due = self._unproved = None
        if self._birth is not None:
            self._birth = None
            self._outbox.detour(BIRTH, False)
        for greeting in self._unanswered:
            self._session.in_flight.pop(greeting.packet_id, None)
        self._unanswered.clear()
        self.said = False

    # Helpers

    def _fitted(self, greeting: Greeting, protocol: Protocol) -> Greeting | None:
        """Return it with the highest QoS that the server accepts; ``None``: beyond another limit, told."""
        fitted = greeting.renewed(protocol.output.lowered(greeting.flags), protocol.version)
        if protocol.output.negotiated:
            fitted.properties = protocol.output.fitted(fitted.properties)
        try:
            protocol.output.check(fitted.flags, len(fitted.encode(fitted.qos, 0.0)))
        except LocalProtocolError as error:
            self._tell(greeting, error)
            return None
        return fitted

    def _say(self, greeting: Greeting, protocol: Protocol) -> bool:
        session, output = self._session, protocol.output
        try:
            if greeting.flags < 2:
                output.publish_qos0(
                    greeting.topic_field, greeting.payload, greeting.flags, greeting.properties
                )
            else:
                output.publish(greeting, session.allocate(), 0.0, session.in_flight)
                self._unanswered.append(greeting)
        except LocalProtocolError as error:
            self._tell(greeting, error)
            return False
        return True

    def _tell(self, greeting: Greeting, error: DeviceSdkError) -> None:
        text, topic = f"{greeting.topic}: {error}", greeting.topic
        if greeting.name == "birth":
            self._events.notify("no_birth", text, error, topic)
        else:
            self._events.notify("no_farewell", text, error, topic)
