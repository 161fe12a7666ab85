"""The timetable of a run of the demo, in seconds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DRAIN_S", "LONGEST_WAIT_S", "Plan", "make_plan"]

DRAIN_S = 60.0
# The demo's clients retry at least this often, as on a local network; the default is 60 s.
LONGEST_WAIT_S = 4.0

_MIN_OUTAGE_S = 8.0
_OUTAGE_SHARE = 0.25
# The clients take a moment to notice the outage; as they see it, it must not be shorter than promised.
_NOTICE_S = 0.25
_MIN_CALM_S = 2.0  # before and after the outage

_MAX_RATE_HZ = 10.0
# A long outage is sampled more slowly: a broker with usual settings keeps 1,000 messages per client.
_MAX_QUEUE = 500


@dataclass(frozen=True, slots=True)
class Plan:
    """The timetable, in seconds since the first sample. ``outage`` is the length of the outage."""

    seconds: float
    interval: float
    outage_begin: float
    outage: float

    @property
    def queue_expected(self) -> int:
        """How many samples the outage should hold up."""
        return max(20, round(self.outage / self.interval))


def make_plan(seconds: float, outage: bool) -> Plan:
    """Lay out a run: the network is away in the middle for 8 s or a quarter of the run, whichever is longer.

    A run that is too short for that is extended.
    """
    if not outage:
        return Plan(seconds, 1 / _MAX_RATE_HZ, seconds, 0.0)
    away = max(_MIN_OUTAGE_S, _OUTAGE_SHARE * seconds) + _NOTICE_S
    seconds = max(seconds, away + 2 * _MIN_CALM_S)
    return Plan(seconds, max(1 / _MAX_RATE_HZ, away / _MAX_QUEUE), (seconds - away) / 2, away)
