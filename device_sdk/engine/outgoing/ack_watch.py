"""A window that the server no longer acknowledges, noticed without a timer per message."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container

    from device_sdk.mqtt.session import Outgoing, Session

__all__ = ["AckWatch"]

_LOOKS = 4  # in the time of one timeout


class AckWatch:
    """Looks from time to time whether the oldest message in flight is still the same one.

    A server acknowledges in the order of receipt [MQTT-4.6.0-2], so the oldest speaks for all. ``seconds``
    without an answer count as stuck; that is noticed half of that time later at most.
    """

    __slots__ = ("_interval", "_look_at", "_oldest", "_since", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._interval = seconds / _LOOKS
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """A connection begins."""
        self._oldest: list[Outgoing | None] = [None, None]  # before and after PUBREC
        self._since = [now, now]
        self._look_at = now + self._interval

    def deadline(self, session: Session) -> float | None:
        """When to look; ``None`` while nothing is in flight."""
        return self._look_at if len(session) else None

    def is_stuck(self, session: Session, left_out: Container[int], now: float, *, excused: bool) -> bool:
        """Look. ``excused``: the server cannot have answered, or we have not read what it says.

        ``left_out``: packet identifiers of messages that were not sent on this connection.
        """
        if not len(session) or now < self._look_at:
            return False
        self._look_at = now + self._interval
        sent = (  # without those that are held
            one
            for packet_id, one in session.in_flight.items()
            if one.packet is not None and packet_id not in left_out
        )
        for index, unanswered in enumerate((sent, iter(session.released.values()))):
            oldest = next(unanswered, None)
            if excused or oldest is None or oldest is not self._oldest[index]:
                self._oldest[index] = oldest
                self._since[index] = now
            elif now - self._since[index] >= self.seconds:
                return True
        return False
