"""The judgement about messages on which a server ends connections, so that one does not stop all others.

A pure state machine for one server: it is told how connections end and what was acknowledged, and says how
the next connection is to go. :mod:`~device_sdk.engine.outgoing.careful` does what it says. The rule, and why
good messages survive it, are in docs/decisions/0024-a-message-that-ends-connections.md.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.outgoing.delivery import Delivery

__all__ = [
    "CAREFUL_AFTER", "ENOUGH_ENDS", "ENOUGH_NAMED", "LONGEST_LIFE", "OTHER_REASONS", "End", "Poison",
    "Suspect",
]  # fmt: skip

#: DISCONNECT for which no message of ours is the reason: our protocol error, the server is busy, shuts down
#: or saw nothing of us for too long, another client has our name, too many messages at once or too fast, a
#: quota, an administrator, another server, the rate of connections. Source: MQTT 5.0 §3.14.2.1.
OTHER_REASONS = frozenset({0x82, 0x89, 0x8B, 0x8D, 0x8E, 0x93, 0x96, 0x97, 0x98, 0x9C, 0x9D, 0x9F})
#: DISCONNECT that names a fault of a PUBLISH: topic, alias, size, payload format, RETAIN, QoS.
_NAMED_REASONS = frozenset({0x90, 0x94, 0x95, 0x99, 0x9A, 0x9B})

CAREFUL_AFTER = 2  # ends in a row
#: Ends with one message alone in flight that make it suspect; with a reason that names it; of a bad topic.
ENOUGH_ENDS, ENOUGH_NAMED, _ENOUGH_BAD_TOPIC = 3, 2, 1
_UNSENT_AFTER = 3  # verdicts on one topic
_HOUR = 3600.0
_HOURLY_PROBES = 24  # then daily
_SHORT_LIFE = 10.0  # seconds
LONGEST_LIFE = 60.0  # seconds that a connection of any age counts for, where another one has to live as long


class End:
    """The end of one accepted connection, for which a message may be the reason.

    ``reason``: in words; ``reason_code``: of DISCONNECT; ``lived``: seconds from CONNACK on; ``unanswered``:
    the messages of QoS 1 and 2 that had reached the server and were not answered; ``qos0``: whether there may
    have been messages of QoS 0; ``alone``: the message that was unanswered and nothing else, for ``since``
    seconds; ``greeted``: birth was unanswered; ``is_bare``: no message or SUBSCRIBE was; ``is_clear``: no
    message was, nor birth, and all that was sent had reached the server.
    """

    __slots__ = (
        "alone",
        "greeted",
        "is_bare",
        "is_clear",
        "lived",
        "qos0",
        "reason",
        "reason_code",
        "since",
        "unanswered",
    )

    def __init__(
        self, reason: str, reason_code: int | None, lived: float, unanswered: list[Delivery], *, qos0: bool
    ) -> None:
        self.reason = reason
        self.reason_code = reason_code
        self.lived = lived
        self.unanswered = unanswered
        self.qos0 = qos0
        self.alone: Delivery | None = None
        self.since = lived
        self.greeted = self.is_bare = self.is_clear = False


class Suspect:
    """A message that was alone in flight at the end of several connections.

    ``message`` is ``None`` at QoS 0, which is not repeated; ``lasted``: seconds that a connection without it
    has to live; ``is_proven``: no further end is needed, because the server itself named the fault, or there
    was a verdict on its topic; ``of_topic``: nothing speaks for its topic.
    """

    __slots__ = (
        "ends", "is_controlled", "is_proven", "lasted", "message", "named", "of_topic", "qos", "reason",
        "reason_code", "size", "topic_field",
    )  # fmt: skip

    def __init__(self, alone: Delivery, count: _Count, end: End, *, is_bad: bool) -> None:
        self.message = alone if alone.flags >= 2 else None
        self.topic_field = alone.topic_field
        self.qos = alone.qos
        self.size = len(alone.payload)
        self.ends = count.ends
        self.named = count.named >= ENOUGH_NAMED
        self.is_proven = self.named or is_bad or self.message is None
        self.is_controlled = False  # a connection without it was well
        self.of_topic = True
        self.lasted = count.lasted
        self.reason = end.reason
        self.reason_code = end.reason_code

    @property
    def topic(self) -> str:
        """The topic name."""
        return self.topic_field[2:].decode()

    def witness(self, message: Delivery) -> None:
        """The server has answered this one, on a connection without the suspect."""
        if message.topic_field == self.topic_field:
            self.of_topic = False

    def control(self) -> None:
        """A connection without the suspect was well."""
        self.is_controlled = True

    def begin(self) -> None:
        """Another connection begins, and not because the suspect has ended the last one."""
        self.is_controlled = self.is_proven and self.is_controlled

    def prove(self) -> None:
        """The suspect has ended the connection that was well without it."""
        self.ends += 1
        self.is_proven = True


class _Count:
    """Ends of connections with one message alone in flight."""

    __slots__ = ("ends", "lasted", "named")

    def __init__(self) -> None:
        self.ends = self.named = 0
        self.lasted = 0.0


class _BadTopic:
    """A topic with verdicts. ``probe_at``: from then on one message of it is sent again."""

    __slots__ = ("probe_at", "probes", "unsent", "verdicts")

    def __init__(self) -> None:
        self.verdicts = self.probes = self.unsent = 0
        self.probe_at = 0.0


class Poison:
    """What is known of one server's ends of connections.

    ``suspect``: the message that the present or next connection has to do without; ``excluded``: topics that
    such a connection leaves out as well, because the last one ended on them; ``candidates``: the messages
    that were unanswered at the last end; ``watches_qos0``: whether QoS 0 is to be sent one by one.
    """

    __slots__ = (
        "_bad_topics", "_counts", "_ends", "_qos0_counts", "_qos0_ends", "_qos0_lived",
        "candidates", "excluded", "suspect", "watches_qos0",
    )  # fmt: skip

    def __init__(self) -> None:
        self.suspect: Suspect | None = None
        self.excluded: set[bytes] = set()
        self.candidates: list[Delivery] = []
        self.watches_qos0 = False
        self._ends = 0  # that count, in a row, without an acknowledgement
        self._counts: dict[Delivery, _Count] = {}
        self._bad_topics: dict[bytes, _BadTopic] = {}
        self._qos0_ends = 0  # in a row, with nothing sent but QoS 0
        self._qos0_lived = 0.0
        self._qos0_counts: dict[bytes, _Count] = {}  # by topic

    # Questions

    @property
    def is_watchful(self) -> bool:
        """Whether the next connection has to go carefully in any way."""
        return self.is_careful or bool(self.suspect or self._bad_topics) or self.watches_qos0

    @property
    def is_careful(self) -> bool:
        """Whether the messages that the last connections left unanswered are to be sent one by one."""
        return self._ends >= CAREFUL_AFTER

    def is_bad(self, topic_field: bytes) -> bool:
        """Whether there was a verdict on the topic: its messages are sent one by one."""
        return topic_field in self._bad_topics

    def is_unsendable(self, topic_field: bytes, now: float) -> bool:
        """Whether a message of the topic is not even to be sent: it is not time to probe."""
        bad = self._bad_topics.get(topic_field)
        return bad is not None and bad.verdicts >= _UNSENT_AFTER and now < bad.probe_at

    def count_unsent(self, topic_field: bytes) -> int:
        """Count a message of the topic that is not sent; return how many there were since the last probe."""
        bad = self._bad_topics[topic_field]
        bad.unsent += 1
        return bad.unsent

    @property
    def qos0_life(self) -> float:
        """Seconds after which a connection on which QoS 0 goes one by one has proved itself."""
        return 2 * self._qos0_lived + _SHORT_LIFE

    # What has happened

    def ended(self, end: End) -> Suspect | None:
        """A connection has ended for which a message may be the reason. Returns: the new suspect, if any."""
        self.candidates = end.unanswered
        if end.unanswered:
            self._ends += 1
        if end.qos0:
            self._qos0_ends += 1
            self._qos0_lived = max(self._qos0_lived, min(end.lived, LONGEST_LIFE))
            self.watches_qos0 = self._qos0_ends >= CAREFUL_AFTER
        alone = end.alone
        if alone is None:
            return None
        if alone.flags >= 2:
            count = self._counts.setdefault(alone, _Count())
        else:
            count = self._qos0_counts.setdefault(alone.topic_field, _Count())
        count.ends += 1
        count.named += end.reason_code in _NAMED_REASONS
        count.lasted = max(count.lasted, min(end.since, LONGEST_LIFE))
        is_bad = self.is_bad(alone.topic_field)
        needed = _ENOUGH_BAD_TOPIC if is_bad else ENOUGH_ENDS
        if count.ends >= needed or count.named >= ENOUGH_NAMED:
            self.suspect = Suspect(alone, count, end, is_bad=is_bad)
        return self.suspect

    def acknowledged(self) -> None:
        """The server has acknowledged a message: no count of messages survives."""
        self._ends = 0
        self._counts.clear()
        self.candidates = []
        self.excluded.clear()

    def answered(self, message: Delivery) -> None:
        """The server has answered a message that was sent alone: nothing is wrong with its topic."""
        self._bad_topics.pop(message.topic_field, None)
        self._qos0_counts.pop(message.topic_field, None)
        if message.flags >= 2:
            self.acknowledged()

    def qos0_proved(self) -> None:
        """A connection on which QoS 0 went one by one has lived long enough."""
        self.watches_qos0 = False
        self._qos0_ends = 0
        self._qos0_lived = 0.0
        self._qos0_counts.clear()

    # The control: a connection without the suspect

    def begin(self) -> None:
        """A connection begins: that an earlier one was well without the suspect says nothing for this one."""
        if self.suspect is not None:
            self.suspect.begin()

    def control_ended(self, end: End | None) -> None:
        """A connection without the suspect is over, or one on which it came again; ``end``: it counts."""
        suspect = self.suspect
        if end is None or suspect is None or not suspect.is_controlled or end.alone is not suspect.message:
            self.acquit(end)
        else:
            suspect.prove()

    def acquit(self, end: End | None = None) -> None:
        """The connection without the suspect was no better; ``end``: of it, if it counts."""
        self.suspect = None
        self._counts.clear()
        self._qos0_counts.clear()
        if end is not None:
            self.candidates = end.unanswered
            if end.alone is not None:
                self.excluded.add(end.alone.topic_field)

    def convict(self, now: float) -> None:
        """Nothing is left that speaks for the suspect."""
        suspect, self.suspect = self.suspect, None
        self.acknowledged()
        if suspect is None or not suspect.of_topic:
            return
        self._qos0_counts.pop(suspect.topic_field, None)
        bad = self._bad_topics.setdefault(suspect.topic_field, _BadTopic())
        bad.verdicts += 1
        if bad.verdicts >= _UNSENT_AFTER:
            bad.probes += 1
            bad.unsent = 0
            bad.probe_at = now + (_HOUR if bad.probes <= _HOURLY_PROBES else 24 * _HOUR)
