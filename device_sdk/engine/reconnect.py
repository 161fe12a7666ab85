"""When to try again: exponential back-off with full jitter, as a pure function."""

from __future__ import annotations

from device_sdk.errors import ArgumentError

__all__ = ["LATER", "NEVER_WORKS", "ReconnectPolicy"]

#: Reason codes after which only a person or another client can change the answer (MQTT 5.0, then 3.x return
#: codes): unsupported version, client identifier, password, authorization, banned, session taken over.
NEVER_WORKS = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x8E, 1, 2, 4, 5})

#: Reason codes by which a busy server asks for patience.
LATER = frozenset({0x88, 0x89, 0x97, 0x9F, 3})


class ReconnectPolicy:
    """Bounds of the back-off, in seconds.

    The n-th delay in a row is drawn evenly from 0 to ``min(longest, first * 2**n)``: full jitter, so that a
    fleet that lost its broker together does not come back together. Refusals that will not change by
    themselves and take-overs by another client start at ``longest`` at once. A connection that lasted
    ``stable`` seconds begins a new row.
    """

    __slots__ = ("first", "longest", "stable")

    def __init__(self, first: float = 1.0, longest: float = 60.0, stable: float = 30.0) -> None:
        if not 0 < first <= longest:
            raise ArgumentError("first", f"must be above 0 and at most longest, not {first!r}")
        self.first = first
        self.longest = longest
        self.stable = stable

    def delay(self, failures: int, reason_code: int | None, draw: float) -> float:
        """Return the seconds to wait before the next attempt.

        ``failures`` counts the failed attempts in a row, from 0; ``reason_code`` is what the server said, if
        it said something; ``draw`` is a random number from 0 to 1.
        """
        if reason_code in NEVER_WORKS:
            return self.longest * (0.5 + draw / 2)
        if reason_code in LATER:
            failures += 3
        return min(self.longest, self.first * 2.0 ** min(failures, 32)) * draw
