"""The wait before the next attempt: exponential back-off with full jitter, as a pure function."""

from __future__ import annotations

from device_sdk._arguments import LONGEST_SECONDS, explained
from device_sdk.errors import ArgumentError, ConnectRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.errors import DeviceSdkError

__all__ = ["LATER", "NEVER", "SOON", "TAKEN_OVER", "ReconnectPolicy", "classify"]

#: When the same attempt can succeed: soon, when a busy server has had time, or only after somebody has
#: changed something. The attribute ``retry`` of an error is one of these.
SOON, LATER, NEVER = "soon", "later", "never"

#: The reason code of a server at which another client has connected with our name.
TAKEN_OVER = 0x8E

_FIRST_FAILURE = 0x80
# Reason codes of CONNACK and DISCONNECT. NEVER: unsupported version, client identifier, password,
# authorization, banned, bad authentication method, session taken over, and what MQTT 3.x has of these.
_BY_REASON_CODE = {
    **dict.fromkeys((0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, TAKEN_OVER, 1, 2, 4, 5), NEVER),
    **dict.fromkeys((0x88, 0x89, 0x97, 0x9F, 3), LATER),
}


def classify(error: DeviceSdkError, reason_code: int | None) -> str:
    """Return ``SOON``, ``LATER`` or ``NEVER`` for the end of an attempt or of a connection.

    ``reason_code`` is what the server said in CONNACK or DISCONNECT, if it said something.
    """
    if reason_code is not None and (reason_code >= _FIRST_FAILURE or isinstance(error, ConnectRefused)):
        return _BY_REASON_CODE.get(reason_code, SOON)
    return error.retry if reason_code is None else SOON  # DISCONNECT 4 of MQTT 5.0 is not CONNACK 4 of 3.1.1


class ReconnectPolicy:
    """Bounds of the back-off, in seconds.

    The n-th delay in a row is drawn evenly from 0 to ``min(longest, first * 2**n)``: full jitter, so that a
    fleet that lost its broker together does not come back together. Failures that will not change by
    themselves and take-overs by another client wait from half of ``longest`` to ``longest`` each time; a busy
    server counts as three failures more. A connection that lasted ``stable`` seconds begins a new row.
    """

    __slots__ = ("first", "longest", "stable")

    @explained
    def __init__(self, first: float = 1.0, longest: float = 60.0, stable: float = 30.0) -> None:
        if not 0 < first <= longest:
            raise ArgumentError("first", f"must be above 0 and at most longest, not {first!r}")
        for name, span in (("longest", longest), ("stable", stable)):
            if not 0 <= span <= LONGEST_SECONDS:
                raise ArgumentError(name, f"must be at most {LONGEST_SECONDS} s, not {span!r}")
        self.first = first
        self.longest = longest
        self.stable = stable

    def delay(self, failures: int, retry: str, draw: float) -> float:
        """Return the seconds to wait before the next attempt.

        ``failures`` counts the failed attempts in a row, from 0; ``retry`` is what :func:`classify` said;
        ``draw`` is a random number from 0 to 1.
        """
        if retry == NEVER:
            return self.longest * (0.5 + draw / 2)
        if retry == LATER:
            failures += 3
        return min(self.longest, self.first * 2.0 ** min(failures, 32)) * draw
