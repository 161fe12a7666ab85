"""The judgement about topic filters for which a server ends connections, so that one stops no other.

A pure state machine, as :mod:`~device_sdk.engine.outgoing.poison` is for messages, with the same rule: see
docs/decisions/0024-a-message-that-ends-connections.md. :mod:`~device_sdk.engine.incoming.asking` does what it
says.
"""

from __future__ import annotations

from device_sdk.engine.outgoing.poison import CAREFUL_AFTER, ENOUGH_ENDS, ENOUGH_NAMED, LONGEST_LIFE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_sdk.engine.events import Stats
    from device_sdk.engine.outgoing.poison import End

__all__ = ["AGAIN", "REFUSE", "WAIT", "FilterJudge", "SuspectFilter"]

#: DISCONNECT that names a fault of a SUBSCRIBE: topic filter, shared subscriptions, identifiers, wildcards.
_NAMED_REASONS = frozenset({0x8F, 0x9E, 0xA1, 0xA2})
_UNSPECIFIED_ERROR = 0x80
_MOST_FAILURES = 5  # connections without the suspect that end for another reason
_FIRST = 1 << 30  # the rank of a suspect

# What becomes of a connection without the suspect: it goes on; the suspect is asked for again; or refused.
WAIT, AGAIN, REFUSE = range(3)


class SuspectFilter:
    """A topic filter whose SUBSCRIBE was alone unanswered at the end of several connections.

    ``lasted``: seconds that a connection without it has to live; ``is_controlled``: this one did, and the
    filter is asked for once more; ``is_proven``: the server has ended that connection, too.
    """

    __slots__ = (
        "ends", "is_controlled", "is_proven", "lasted", "named", "reason", "reason_code", "topic_filter",
    )  # fmt: skip

    def __init__(self, topic_filter: str, count: _Count, end: End) -> None:
        self.topic_filter = topic_filter
        self.ends = count.ends
        self.lasted = count.lasted
        self.named = count.named >= ENOUGH_NAMED
        self.reason = end.reason
        self.reason_code = end.reason_code or _UNSPECIFIED_ERROR
        self.is_controlled = False
        self.is_proven = False

    def control(self, was_well: bool) -> None:
        """A connection without it was well, or another one begins."""
        self.is_controlled = was_well

    def prove(self) -> None:
        """It has ended the connection that was well without it."""
        self.ends += 1
        self.is_proven = True

    @property
    def suspicion(self) -> str:
        """What the event ``suspect`` says."""
        return (
            f"{self.topic_filter}: SUBSCRIBE with this topic filter alone was unanswered when the broker "
            f"ended {self.ends} of the last connections ({self.reason}); the next one goes without it"
        )

    @property
    def verdict(self) -> str:
        """What the error of its SUBSCRIBE says."""
        plural = "s" if self.ends > 1 else ""
        return (
            f"{self.topic_filter}: the broker ended {self.ends} connection{plural} while SUBSCRIBE with "
            f"this topic filter alone was unanswered ({self.reason}), and kept one without it"
        )


class _Count:
    """Ends of connections with one SUBSCRIBE alone unanswered."""

    __slots__ = ("ends", "lasted", "named")

    def __init__(self) -> None:
        self.ends = self.named = 0
        self.lasted = 0.0

    def add(self, end: End, since: float) -> None:
        self.ends += 1
        self.named += end.reason_code in _NAMED_REASONS
        self.lasted = max(self.lasted, min(since, LONGEST_LIFE))


class _Record:
    """What is known of one server.

    ``unanswered``: at how many ends in a row a filter was; ``counts``: at which of them it was alone;
    ``excluded``: what a connection without the suspect does without as well, because one has ended on it;
    ``failures``: how many of those have ended otherwise; ``refused``: filters with a verdict.
    """

    __slots__ = ("counts", "excluded", "failures", "refused", "suspect", "unanswered")

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.clear()

    def clear(self) -> None:
        """Begin anew: the suspect is innocent, or nothing can be found out."""
        self.suspect: SuspectFilter | None = None
        self.unanswered: dict[str, int] = {}
        self.counts: dict[str, _Count] = {}
        self.excluded: set[str] = set()
        self.failures = 0

    def forget(self, topic_filter: str) -> None:
        """Nothing is held against this filter any more."""
        self.unanswered.pop(topic_filter, None)
        self.counts.pop(topic_filter, None)
        self.excluded.discard(topic_filter)

    def acquit(self) -> None:
        """There is no suspect any more: go on with the others."""
        self.suspect = None
        self.excluded.clear()
        self.failures = 0

    def refuse(self, topic_filter: str) -> None:
        """There is a verdict."""
        self.forget(topic_filter)
        self.acquit()
        self.refused.add(topic_filter)

    def fail(self) -> None:
        """A connection without the suspect has ended for another reason."""
        self.failures += 1
        if self.failures >= _MOST_FAILURES:
            self.clear()

    def count(self, topic_filter: str, end: End, since: float) -> None:
        """An end with this filter alone; while there is a suspect, it is left out of the next one as well."""
        count = self.counts.setdefault(topic_filter, _Count())
        count.add(end, since)
        if self.suspect is not None:
            self.excluded.add(topic_filter)
        elif count.ends >= ENOUGH_ENDS or count.named >= ENOUGH_NAMED:
            self.suspect = SuspectFilter(topic_filter, count, end)


class FilterJudge:
    """Says how SUBSCRIBE goes on each connection. The caller of every method holds the engine's lock.

    ``is_control``: this connection goes without the suspect.
    """

    __slots__ = (
        "_accepted_at", "_acknowledged", "_by_server", "_has_answer", "_record", "_stats", "is_control",
    )  # fmt: skip

    def __init__(self, stats: Stats) -> None:
        self.is_control = False
        self._stats = stats
        self._by_server: dict[str, _Record] = {}
        self._record = _Record()
        self._has_answer = False  # to a SUBSCRIBE
        self._accepted_at = 0.0
        self._acknowledged = 0  # messages, when the connection began

    # Questions

    @property
    def suspect(self) -> SuspectFilter | None:
        """The filter that the present or next connection has to do without."""
        return self._record.suspect

    @property
    def is_watchful(self) -> bool:
        """Whether one topic filter is to be asked for at a time on the next connection."""
        record = self._record
        doubts = record.suspect or record.counts
        return bool(doubts) or any(ends >= CAREFUL_AFTER for ends in record.unanswered.values())

    @property
    def wants_answer(self) -> bool:
        """Whether a filter is to be asked for whose answer speaks for the server."""
        return self.is_control and not self._has_answer

    @property
    def highest_rank(self) -> int:
        """What :meth:`rank` returns at most."""
        if self._record.suspect is not None:
            return _FIRST
        return max(self._record.unanswered.values(), default=0)

    def rank(self, topic_filters: Iterable[str]) -> int:
        """Return how doubtful these are: the most doubtful ones are asked for first."""
        suspect, ends = self._record.suspect, self._record.unanswered
        return max(
            _FIRST if suspect is not None and one == suspect.topic_filter else ends.get(one, 0)
            for one in topic_filters
        )

    def leaves_out(self, topic_filter: str) -> bool:
        """Whether this connection goes without it."""
        suspect = self._record.suspect
        if suspect is None:
            return False
        if topic_filter == suspect.topic_filter:
            return self.is_control
        return topic_filter in self._record.excluded

    def is_refused(self, topic_filter: str) -> bool:
        """Whether there is a verdict on it for this server: it is not asked for again by itself."""
        return topic_filter in self._record.refused

    def holds_messages(self, now: float) -> bool:
        """Whether messages have to wait: the server is well without the suspect, if it goes on like this."""
        suspect = self._record.suspect
        return (
            self.is_control
            and self._has_answer
            and suspect is not None
            and now < self._accepted_at + suspect.lasted
        )

    def deadline(self, now: float) -> float | None:
        """Return when :meth:`decide` wants to be called, if not because of an answer."""
        suspect = self._record.suspect
        if suspect is None or not self.is_control:
            return None
        moments = (self._accepted_at + suspect.lasted, self._accepted_at + LONGEST_LIFE)
        return min((moment for moment in moments if moment > now), default=None)

    # What has happened

    def prepare(self, server: str) -> None:
        """A connection to this server is about to begin."""
        self._record = self._by_server.setdefault(server, _Record())

    def begin(self, now: float) -> None:
        """The server has accepted it."""
        suspect = self._record.suspect
        self._has_answer = False
        self._accepted_at = now
        self._acknowledged = self._stats.acknowledged
        self.is_control = suspect is not None
        if suspect is not None:
            suspect.control(False)

    def want(self, topic_filter: str) -> None:
        """The application asks for it: a verdict from before counts no more."""
        for record in (self._record, *self._by_server.values()):
            record.refused.discard(topic_filter)

    def answered(self, topic_filters: list[str]) -> None:
        """The server has answered a SUBSCRIBE."""
        self._has_answer = True
        record, suspect = self._record, self._record.suspect
        for one in topic_filters:
            record.forget(one)
        if suspect is not None and suspect.topic_filter in topic_filters:  # once more, and all is well
            record.clear()
            self.is_control = False

    def keep(self, asked: set[str]) -> None:
        """Forget what is held against filters that are not asked for: somebody has unsubscribed."""
        record = self._record
        for one in {*record.unanswered, *record.counts} - asked:
            record.forget(one)
        if record.suspect is not None and record.suspect.topic_filter not in asked:
            record.acquit()
            self.is_control = False

    def ended(self, end: End | None, asked: list[str], alone: str | None, since: float) -> bool:
        """An accepted connection is over; ``end``: something of ours may be the reason.

        ``asked``: filters that were unanswered; ``alone``: the one that was, for ``since`` seconds, and
        nothing else. Returns: whether that is the reason, if anything of ours is.
        """
        record, suspect = self._record, self._record.suspect
        if end is not None:
            for one in asked:
                record.unanswered[one] = record.unanswered.get(one, 0) + 1
            if alone is not None:
                if suspect is not None and alone == suspect.topic_filter:
                    suspect.prove()
                else:
                    record.count(alone, end, since)
                return True
        if suspect is not None:
            record.fail()
        return False

    def decide(self, now: float, *, can_ask: bool) -> int:
        """Return what becomes of this connection, and of the suspect that it goes without.

        ``can_ask``: other filters are still to be asked for; else messages may speak for the server.
        """
        record, suspect = self._record, self._record.suspect
        if suspect is None or not self.is_control:
            return WAIT
        if not suspect.is_proven:
            if now < self._accepted_at + suspect.lasted:
                return WAIT
            if not (self._has_answer or (self._stats.acknowledged != self._acknowledged and not can_ask)):
                if can_ask or not (suspect.named or now >= self._accepted_at + LONGEST_LIFE):
                    return WAIT
                if not suspect.named:  # nothing speaks for the server
                    self.is_control = False
                    record.clear()
                    return AGAIN
        self.is_control = False
        if suspect.is_proven or suspect.named:
            record.refuse(suspect.topic_filter)
            return REFUSE
        suspect.control(True)  # once more: the server may have become well just now
        return AGAIN
