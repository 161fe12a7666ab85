"""Many runs, one seed after the other, and how many of them it takes to find a planted bug."""

from __future__ import annotations

import itertools
import time

from tests.simulation.history import SimulationFailure
from tests.simulation.planted import PlantedBug
from tests.simulation.run import Figures, simulate

__all__ = ["describe", "run_until", "seeds_to_find"]


def run_until(
    figures: Figures, first_seed: int, *, messages: int = 0, faults: int = 0, seconds: float = float("inf")
) -> None:
    """Add runs to the figures until they have so many messages and faults, or the time is over.

    Raises: SimulationFailure: a run found something.
    """
    end = time.monotonic() + seconds
    for seed in itertools.count(first_seed):
        enough = figures.messages >= messages and figures.faults.total() >= faults
        if enough or time.monotonic() >= end:
            return
        figures.add(simulate(seed))


def seeds_to_find(bug: PlantedBug, first: int, most: int) -> tuple[int, str] | None:
    """Return how many seeds from ``first`` on find the bug, and what was found; ``None``: not ``most``."""
    with bug.planted():
        for count in range(most):
            try:
                simulate(first + count)
            except SimulationFailure as failure:
                return count + 1, str(failure).partition("\n")[0]
    return None


def describe(figures: Figures, seconds: float) -> str:
    """Return the figures as lines for a terminal."""
    total = figures.faults.total()
    hours = figures.virtual_seconds / 3600
    lines = [
        f"{figures.runs:,} runs in {seconds:.1f} s: {figures.messages:,} messages, {total:,} faults",
        f"{hours:,.0f} virtual hours (no leaps), {figures.connects:,} connections, {figures.turns:,} turns",
        *(f"{count:9,}  {name}" for name, count in figures.faults.most_common()),
    ]
    return "\n".join(lines)
