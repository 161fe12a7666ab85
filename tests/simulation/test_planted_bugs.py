"""The simulation finds each bug that we plant. ``--junit-xml`` says how many seeds it took."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.campaign import seeds_to_find
from tests.simulation.planted import PLANTED, PlantedBug
from tests.simulation.run import simulate

MOST_SEEDS = 120

pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found(bug: PlantedBug, record_property: Callable[[str, object], None]) -> None:
    found = seeds_to_find(bug, bug.first_seed, MOST_SEEDS)
    assert found is not None, f"{MOST_SEEDS} seeds do not show it"
    record_property("seeds", found[0])
    record_property("found", found[1])
    simulate(bug.first_seed + found[0] - 1)  # it was the bug: without it the seed passes


def test_a_bug_whose_text_has_gone_is_stale() -> None:
    stale = PlantedBug("stale", PLANTED[0].where, PLANTED[0].function, "no such text", "")
    with pytest.raises(ValueError, match="stale"), stale.planted():
        pass
