"""Keep alive: deadlines of PINGREQ, and the silence after which the server counts as gone.

Source: MQTT 5.0 §3.1.2.10, §3.12.4; MQTT 3.1.1 §3.1.2.10.
"""

from __future__ import annotations

__all__ = ["DEAD", "KeepAlive"]

#: The answers of :meth:`KeepAlive.act` if the server has not answered in time, and if it was not asked in
#: time: the machine slept, or the process was stopped, until the server must have ended the connection.
DEAD, MISSED = "dead", "missed"

_MARGIN = (
    1.0  # seconds by which PINGREQ is early, so that it leaves in time on a busy machine; a tenth at most
)
_PATIENCE = 0.5  # time allowed for PINGRESP, as a fraction of the keep alive
_SERVERS_PATIENCE = 1.5  # MQTT 5.0 §3.1.2.10 [MQTT-3.1.2-22]


class KeepAlive:
    """The silence of both directions of one network connection, in seconds of the caller's clock.

    PINGREQ leaves before either direction has been silent for ``interval`` (0 is off); PINGRESP may take half
    of it. A dead link is therefore noticed within one and a half intervals of the last byte received, as a
    server notices a dead client. The clock goes on in suspend: who wakes up after that time needs no PINGREQ
    to know. While reading is ``paused`` silence proves nothing: PINGREQ goes on and no
    answer is expected.

    ``sent``, ``received``: when the last bytes left and arrived.
    """

    __slots__ = ("_answer_due", "_is_asked", "_paused", "_unanswered", "interval")

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._answer_due: float | None = None  # after PINGREQ: when the server counts as gone
        self._paused = False
        self._unanswered = 0  # PINGREQ without PINGRESP: the server answers them in order
        self._is_asked = False  # one of them was asked for

    def agree(self, interval: float) -> None:
        """Use the server's interval (Server Keep Alive). Source: MQTT 5.0 §3.2.2.3.14."""
        self.interval = interval

    @property
    def paused(self) -> bool:
        """Whether our side has stopped reading."""
        return self._paused

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on."""
        if self._paused and not paused:
            self._answer_due = None  # the PINGRESP may wait unread: ask again before judging
        self._paused = paused

    @property
    def patience(self) -> float:
        """Seconds that PINGRESP may take."""
        return self.interval * _PATIENCE

    def deadline(self, sent: float, received: float) -> float | None:
        """When to call :meth:`act`; ``None``: keep alive is off."""
        if not self.interval:
            return None
        period = self.interval - min(_MARGIN, self.interval / 10)
        if self._answer_due is None:
            return min(sent, received) + period
        # While PINGRESP is awaited only our own silence counts: the server still measures it.
        repeat = sent + period
        return repeat if self._paused else min(repeat, self._dead_at(self._answer_due, received))

    def act(self, now: float, sent: float, received: float) -> str:
        """React to the deadline: return :data:`DEAD`, :data:`MISSED`, or ``"ping"``: send PINGREQ."""
        if self._answer_due is None:
            if now - max(sent, received) >= self.interval * _SERVERS_PATIENCE:
                return MISSED
            self._answer_due = now + self.patience
        elif not self._paused and now >= self._dead_at(self._answer_due, received):
            return DEAD
        return "ping"

    def pinged(self, *, asked: bool) -> None:
        """Note a PINGREQ; ``asked``: not for keep alive, and no answer is due before keep alive wants one."""
        self._unanswered += 1
        self._is_asked |= asked

    def answered(self) -> bool:
        """Note that PINGRESP has arrived; return whether a PINGREQ that was asked for is answered by now."""
        self._answer_due = None
        self._unanswered = max(0, self._unanswered - 1)
        if self._unanswered:
            return False
        was_asked, self._is_asked = self._is_asked, False
        return was_asked

    def output_drains(self, now: float) -> None:
        """Note that a blocked stream takes bytes again: a late PINGRESP proves nothing yet."""
        if self._answer_due is not None:
            self._answer_due = now + self.patience

    def _dead_at(self, answer_due: float, received: float) -> float:
        """When an unanswered PINGREQ is fatal. Arriving bytes of a long packet count as an answer."""
        return max(answer_due, received + self.patience)
