"""Whether a server refuses CONNECT because of the will: found out by asking once without it."""

from __future__ import annotations

from device_sdk.errors import TransportClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.mqtt.events import ConnectionEnded
    from device_sdk.mqtt.message import Will

__all__ = ["WillTrial"]

# CONNACK: not authorized (0x87, 5 in MQTT 3.x), and what only the will of a CONNECT can be the reason for:
# topic name, size, payload format, RETAIN, QoS. Source: MQTT 5.0 §3.2.2.2, MQTT 3.1.1 §3.2.2.3.
_SUSPICIOUS = frozenset({0x87, 0x90, 0x95, 0x99, 0x9A, 0x9B, 5})
_ENOUGH_ENDS = 3  # in a row before CONNACK, without a word
_PAUSE_S = 3600.0  # before a will that is left out is tried again, or one that is innocent left out

_WITH, _TRIES_WITHOUT, _WITHOUT = range(3)


class WillTrial:
    """The judgement about the will at one server. A pure state machine; the engine's lock guards it.

    ``is_trial``: the next CONNECT is that of the refused attempt, without its will.
    """

    __slots__ = ("_again_at", "_ends", "_reason", "_state", "_topic")

    def __init__(self) -> None:
        self._state = _WITH
        self._ends = 0
        self._again_at = 0.0
        self._topic = self._reason = ""

    @property
    def is_trial(self) -> bool:
        """Whether the next CONNECT is to differ from the last one in nothing but the will."""
        return self._state == _TRIES_WITHOUT

    def leaves_out(self, will: Will | None, now: float) -> bool:
        """Whether the next CONNECT goes without this will."""
        if self._state == _WITHOUT and (now >= self._again_at or will is None or will.topic != self._topic):
            self._state = _WITH
            self._ends = _ENOUGH_ENDS - 1  # one more is enough
            self._again_at = 0.0
        return self._state != _WITH

    def failed(self, event: ConnectionEnded, will: Will | None, now: float) -> bool:
        """The server has not accepted a CONNECT with this will; return whether to ask at once without it."""
        closed = isinstance(event.error, TransportClosedError) and event.error.by_peer is not None
        speaks = closed if event.reason_code is None else event.reason_code in _SUSPICIOUS
        if self._state == _TRIES_WITHOUT:
            self._state = _WITH
            self._ends = 0
            if speaks:  # it was something else
                self._again_at = now + _PAUSE_S
            return False
        if self._state != _WITH or will is None or now < self._again_at:
            return False
        if not speaks:
            self._ends = 0
            return False
        if event.reason_code is None:
            self._ends += 1
            if self._ends < _ENOUGH_ENDS:
                return False
        self._state = _TRIES_WITHOUT
        self._topic, self._reason = will.topic, str(event.error)
        return True

    def unreached(self) -> None:
        """There was no CONNECT, because the server could not be reached: nothing is on trial any more."""
        if self._state == _TRIES_WITHOUT:
            self._state = _WITH

    def accepted(self, now: float) -> tuple[str, str] | None:
        """The server has accepted a CONNECT; return topic and text if the will was what it refused."""
        self._ends = 0
        if self._state == _WITH:
            self._again_at = 0.0
        if self._state != _TRIES_WITHOUT:
            return None
        self._state = _WITHOUT
        self._again_at = now + _PAUSE_S
        text = (
            f"{self._topic}: the broker refuses CONNECT with a will on this topic, and accepts it without; "
            f"this connection has no will, and the first one after an hour tries it again ({self._reason})"
        )
        return self._topic, text
