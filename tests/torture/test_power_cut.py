"""What the store calls durable survives power cuts; the control that never flushes does not."""

from __future__ import annotations

import pytest

from tests.torture.crash_disk import what_is_missing
from tests.torture.power_cut import cut_power

POINTS = 200
MISSING = what_is_missing()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(MISSING is not None, reason=f"needs power-cuts ({MISSING} is missing)"),
]


@pytest.mark.parametrize("mode", ["sync", "batch"])
def test_nothing_durable_is_lost_in_a_power_cut(mode: str) -> None:
    result = cut_power(mode, POINTS)
    assert result.points == POINTS
    assert (result.lost, result.impossible, result.unopened) == (0, 0, 0), result.examples[:3]


def test_a_store_that_never_flushes_loses_data_and_still_opens() -> None:
    result = cut_power("os", POINTS)
    assert result.lost > 0, "the harness shows no difference: it proves nothing"
    assert result.unopened == 0, result.examples[:3]
