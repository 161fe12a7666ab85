"""One connection on which messages go one by one, as far as the judgement about the server asks for it."""

from __future__ import annotations

from device_sdk.engine.outgoing.endings import TOO_LATE
from device_sdk.engine.outgoing.outbox import BIRTH, detours
from device_sdk.engine.outgoing.stepped_over import SteppedOver
from device_sdk.errors import DeliveryExpiredError, PublishRefused
from device_sdk.mqtt.session import EXPIRED, QUEUED, REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.events import Events
    from device_sdk.engine.incoming.asking import Asking
    from device_sdk.engine.incoming.subscribe_request import SubscribeRequest
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.engine.outgoing.outbox import Outbox
    from device_sdk.engine.outgoing.poison import Poison, Suspect
    from device_sdk.mqtt.protocol import Protocol

__all__ = ["Careful"]

_PINGREQ = b"\xc0\x00"
_UNSPECIFIED_ERROR = 0x80
_MOST_STEPPED_OVER = 1_000
_MOST_WAITING_FOR_QOS0 = 1_000  # more, and one message per round trip is too slow for this client

# What becomes of the next message: sent beside others, sent alone, left where it is, or refused unsent.
_TOGETHER, _ALONE, _LEFT, _REFUSED = range(4)
# When the PINGREQ before a message that is sent alone counts as answered.
_NOT_ASKED, _ANSWERED = float("inf"), float("-inf")
_PATIENCE = 30.0  # seconds for PINGRESP, if keep alive leaves as many: some servers never answer


class _Control:
    """A connection without the suspect. ``asks_topic``: other messages of its topic are let through.

    ``excluded``: the topics that it leaves out as well, to its end: else a message would overtake those of
    its topic that were left out before.
    """

    __slots__ = ("asks_topic", "excluded", "has_answer", "suspect")

    def __init__(self, suspect: Suspect, excluded: set[bytes]) -> None:
        self.suspect = suspect
        self.excluded = frozenset(excluded)
        self.has_answer = False
        self.asks_topic = False


class Careful:
    """Decides about each message of one connection, from the repeats to what is published meanwhile.

    ``alone``: the message that is in flight and nothing else, since ``alone_since``. ``deadline``: when
    :meth:`step` wants to be called. The caller of every method holds the engine's lock.
    """

    __slots__ = (
        "_accepted_at", "_acknowledged", "_answered_at", "_asking", "_candidates", "_control", "_events",
        "_is_careful", "_outbox", "_poison", "_protocol", "_stepped_over",
        "alone", "alone_since", "deadline",
    )  # fmt: skip

    def __init__(
        self,
        poison: Poison,
        protocol: Protocol,
        outbox: Outbox,
        events: Events,
        now: float,
        asking: Asking | None = None,
    ) -> None:
        self.alone: Delivery | None = None
        self.alone_since = now
        self.deadline: float | None = None
        self._poison = poison
        self._protocol = protocol
        self._outbox = outbox
        self._stepped_over = SteppedOver(outbox.backlog)
        self._events = events
        self._asking = asking
        self._accepted_at = now
        self._acknowledged = events.stats.acknowledged
        self._is_careful = poison.is_careful
        self._candidates = {id(message): message for message in poison.candidates}
        self._control = None if poison.suspect is None else _Control(poison.suspect, poison.excluded)
        self._answered_at = _NOT_ASKED

    @property
    def is_over(self) -> bool:
        """Whether everything can go its usual way again."""
        if self.alone is not None or self._control is not None or self._poison.is_watchful:
            return False
        if self._asking is not None and not self._asking.is_over:
            return False
        first = self._stepped_over.first()
        return not (self._protocol.outbound.repeats or (first is not None and id(first) in self._candidates))

    def ping_answered(self) -> None:
        """The server has answered PINGREQ."""
        if self._answered_at != _NOT_ASKED:
            self._answered_at = _ANSWERED

    def step(self, now: float) -> list[Delivery]:
        """Send what may be sent now; return the messages that ended instead."""
        ended: list[Delivery] = []
        poison = self._poison
        self._note_answers(now)
        self._drop_ended_suspect()
        control = self._control
        if control is not None and self._is_passed(control, now):
            self._end_control(control, now, ended)
        if self._asking is not None:
            self._asking.decide(now)
        if poison.watches_qos0 and self._has_proved_qos0(now):
            poison.qos0_proved()
        while self.alone is None and self._advance(now, ended):
            self._drop_ended_suspect()
        if self.alone is None and now >= self._answered_at:
            self._answered_at = _NOT_ASKED  # the next message wants an answer of its own
        self.deadline = self._next_deadline(now)
        return ended

    def end(self) -> None:
        """The connection is over, or needs no care any more: what was left out is part of the rest again."""
        self._stepped_over.rejoin()

    def _is_passed(self, control: _Control, now: float) -> bool:
        suspect = control.suspect
        if suspect.is_controlled:
            return True  # on an earlier connection; the suspect has ended it, too
        return control.has_answer and now >= self._accepted_at + suspect.lasted

    # Answers

    def _note_answers(self, now: float) -> None:
        poison, control, alone = self._poison, self._control, self.alone
        if alone is not None:
            if alone.flags >= 2:
                # One that exceeded the server's quota is still in flight, without a packet.
                sent = self._protocol.session.in_flight.get(alone.packet_id)
                answered = sent is not alone or alone.packet is None
            else:
                answered = now >= self._answered_at
            if answered:
                self.alone = None
                poison.answered(alone)
                if control is not None:
                    control.has_answer = True
                    control.suspect.witness(alone)
                elif poison.suspect is not None:
                    poison.acquit()  # it was the suspect, once more
        acknowledged = self._events.stats.acknowledged
        if acknowledged != self._acknowledged:
            self._acknowledged = acknowledged
            poison.acknowledged()

    def _drop_ended_suspect(self) -> None:
        """Nothing is to be found out about a message that has expired, or that nobody wants any more."""
        suspect = self._poison.suspect
        if suspect is not None and suspect.message is not None and suspect.message.done:
            self._poison.acquit()
            self._control = None
            self._bring_back()

    def _has_proved_qos0(self, now: float) -> bool:
        waiting = self._outbox.backlog.messages > _MOST_WAITING_FOR_QOS0
        return waiting or now >= self._accepted_at + self._poison.qos0_life

    def _next_deadline(self, now: float) -> float | None:
        moments = [] if self._answered_at == _NOT_ASKED else [self._answered_at]
        if self._control is not None:
            moments.append(self._accepted_at + self._control.suspect.lasted)
        if self._poison.watches_qos0:
            moments.append(self._accepted_at + self._poison.qos0_life)
        if self._asking is not None and (due := self._asking.deadline(now)) is not None:
            moments.append(due)
        return min((moment for moment in moments if moment > now), default=None)

    # The next message

    def _advance(self, now: float, ended: list[Delivery]) -> bool:
        """Do something about the next message; return whether there may be more to do now."""
        asking = self._asking
        if asking is not None:
            if asking.is_waiting(now):
                return False
            if (request := asking.next()) is not None:
                return self._is_quiet() and self._ask_for(asking, request, now)
            if asking.holds_messages(now):
                return False
        repeat = next(iter(self._protocol.outbound.repeats.values()), None)
        if repeat is None and detours(self._outbox) & BIRTH:
            return False
        message: Delivery | None = repeat or self._stepped_over.first()  # type: ignore[assignment]
        if message is None:
            return self._rest(now, ended)
        fate = self._fate(message, now, is_repeat=repeat is not None)
        if fate == _LEFT:
            return self._leave(message, is_repeat=repeat is not None) or self._rest(now, ended)
        if fate == _REFUSED:
            self._refuse_unsent(message, is_repeat=repeat is not None)
            return True
        if fate == _ALONE:
            return self._is_free() and self._send_alone(message, now, ended, is_repeat=repeat is not None)
        return self._send(message, now, ended, is_repeat=repeat is not None)

    def _fate(self, message: Delivery, now: float, *, is_repeat: bool) -> int:
        poison, control, topic_field = self._poison, self._control, message.topic_field
        if not is_repeat and message.expires_at is not None and message.expires_at <= now:
            return _TOGETHER  # its end needs no answer of the server
        if control is not None:
            suspect = control.suspect
            same_topic = topic_field == suspect.topic_field
            if message is suspect.message or topic_field in control.excluded:
                return _LEFT
            if same_topic and not control.asks_topic:
                return _LEFT
        if poison.is_unsendable(topic_field, now):
            return _REFUSED
        if control is not None or poison.is_bad(topic_field) or id(message) in self._candidates:
            return _ALONE
        if poison.suspect is not None and message is poison.suspect.message:
            return _ALONE  # once more, on whatever connection since it was found
        if (is_repeat and self._is_careful) or (message.flags < 2 and poison.watches_qos0):
            return _ALONE
        return _TOGETHER

    def _leave(self, message: Delivery, *, is_repeat: bool) -> bool:
        if is_repeat:
            self._protocol.outbound.leave_out(message)
            return True
        if len(self._stepped_over) >= _MOST_STEPPED_OVER:
            return False
        self._stepped_over.add_first()
        return True

    def _refuse(self, message: Delivery, error: PublishRefused, ended: list[Delivery]) -> None:
        if self._protocol.session.in_flight.get(message.packet_id) is message:
            self._protocol.outbound.give_up(message)
        elif message.status == QUEUED:
            self._stepped_over.take_out(message)
        else:
            return  # it has ended meanwhile
        self._outbox.end(message, REFUSED, error)
        ended.append(message)

    def _refuse_unsent(self, message: Delivery, *, is_repeat: bool) -> None:
        """Refuse a message of a bad topic; the 1st, 2nd, 4th, 8th ... of them is an event."""
        fate = "not sent again; it may have been received" if is_repeat else "not sent"
        text = f"the broker ended connections on messages of this topic again and again; {fate}"
        error = PublishRefused(f"{_about(message)}{text}", _UNSPECIFIED_ERROR)
        self._refuse(message, error, [])
        self._events.stats.refused += 1
        count = self._poison.count_unsent(message.topic_field)
        if not count & (count - 1):
            which = "" if count == 1 else f" (message {count} of these)"
            self._events.notify("refused", f"{message.topic}: {error}{which}", error, message.topic)

    # Sending

    def _is_free(self) -> bool:
        """Whether nothing is unanswered on this connection."""
        return self._is_quiet() and not self._protocol.session.requests

    def _is_quiet(self) -> bool:
        """Whether no message is unanswered."""
        session, outbound = self._protocol.session, self._protocol.outbound
        waiting = len(session.in_flight) - len(outbound.held) - len(outbound.left_out) - len(outbound.repeats)
        return not (waiting or session.released)

    def _ask_for(self, asking: Asking, request: SubscribeRequest, now: float) -> bool:
        """Send a SUBSCRIBE or UNSUBSCRIBE; return whether it was possible now."""
        if asking.wants_ping and not self._ask(now):
            return False
        self._answered_at = _NOT_ASKED
        asking.send(request, now)
        return True

    def _ask(self, now: float) -> bool:
        """Return whether the server has answered a PINGREQ, and send one if none was sent."""
        if self._answered_at == _NOT_ASKED:
            keep_alive = self._protocol.keep_alive
            self._answered_at = now + min(_PATIENCE, keep_alive.patience or _PATIENCE)
            self._protocol.output.add(_PINGREQ)
            keep_alive.pinged(asked=True)
        return now >= self._answered_at

    def _send_alone(self, message: Delivery, now: float, ended: list[Delivery], *, is_repeat: bool) -> bool:
        if not self._ask(now):
            return False
        if not self._send(message, now, ended, is_repeat=is_repeat):
            return False
        if message in ended or _is_held(message):
            return True
        self.alone = message
        # A repeat belongs to the connection from its beginning: another one has to live as long.
        self.alone_since = self._accepted_at if is_repeat else now
        self._answered_at = _NOT_ASKED
        if message.flags < 2:
            self._ask(now)  # its answer is the only one that QoS 0 has
        return False

    def _send(self, message: Delivery, now: float, ended: list[Delivery], *, is_repeat: bool) -> bool:
        """Send a message, or end it if its time is over; return whether it was possible now."""
        outbox, protocol, session = self._outbox, self._protocol, self._protocol.session
        if is_repeat:
            outbound = protocol.outbound
            if len(session) - len(outbound.left_out) - len(outbound.repeats) >= outbound.window:
                return False
            if message.expires_at is not None and message.expires_at <= now:
                outbound.give_up(message)
                outbox.end(message, EXPIRED, DeliveryExpiredError(TOO_LATE))
                ended.append(message)
            else:
                outbound.repeat_one(message, now)
            return True
        ended += outbox.fill(protocol, now, 1)
        return self._stepped_over.first() is not message

    # Nothing is left to send

    def _rest(self, now: float, ended: list[Delivery]) -> bool:
        control = self._control
        if control is None:
            return self._bring_back()
        suspect = control.suspect
        if control.has_answer or not self._is_free():
            return False
        if not control.asks_topic and suspect.message is not None:
            control.asks_topic = True  # nothing else can speak for the server
            if self._bring_back():
                return True
        if now < self._accepted_at + suspect.lasted or not self._ask(now):
            return False
        self._answered_at = _NOT_ASKED
        if suspect.named:  # the server itself said so: that it answers at all is enough
            self._end_control(control, now, ended)
        else:
            self._poison.acquit()
            self._poison.excluded.clear()  # nobody is left to ask: the next control asks all of them again
            self._control = None
            self._bring_back()
        return True

    def _bring_back(self) -> bool:
        """Take up again what was left out; return whether there was anything."""
        found = bool(self._protocol.outbound.left_out or self._stepped_over)
        if self._protocol.outbound.left_out:
            self._protocol.outbound.take_up()
        self._stepped_over.rejoin()
        return found

    def _end_control(self, control: _Control, now: float, ended: list[Delivery]) -> None:
        """The server is well without the suspect: refuse that, or send it once more.

        Once more, because the server may have become well just now, after ends that had another reason.
        """
        suspect = control.suspect
        self._control = None
        if suspect.is_proven:
            self._poison.convict(now)
            self._refuse_suspect(suspect, ended)
        suspect.control()
        self._bring_back()

    def _refuse_suspect(self, suspect: Suspect, ended: list[Delivery]) -> None:
        error = PublishRefused(_verdict(suspect), suspect.reason_code or _UNSPECIFIED_ERROR)
        if suspect.message is not None:
            self._refuse(suspect.message, error, ended)
        else:
            self._events.stats.refused += 1
            self._events.notify("refused", f"{suspect.topic}: {error}", error, suspect.topic)


def _is_held(message: Delivery) -> bool:
    """Whether a message that was to be sent is beyond a limit of the server, and waits for another one."""
    return message.status == QUEUED or (message.flags >= 2 and message.packet is None)


def _about(message: Delivery) -> str:
    return f"{len(message.payload)} bytes, QoS {message.qos}: "


def _verdict(suspect: Suspect) -> str:
    plural = "s" if suspect.ends > 1 else ""
    return (
        f"{suspect.size} bytes, QoS {suspect.qos}: the broker ended {suspect.ends} connection{plural} while "
        f"this message alone was unanswered ({suspect.reason}), and kept one without it; it may have been "
        "received"
    )
