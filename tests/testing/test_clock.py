"""ManualClock: time that moves when told to."""

from __future__ import annotations

import pytest

from device_sdk.errors import ArgumentError
from device_sdk.testing import ManualClock


def test_time_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(5)
    assert [clock(), clock()] == [5.0, 5.0]
    assert clock.advance(0.5) == clock() == 5.5
    assert clock.advance_to(8) == clock() == 8.0
    assert isinstance(clock(), float)


def test_no_time_may_pass() -> None:
    clock = ManualClock(5)
    clock.advance(0)
    clock.advance_to(5)
    assert clock() == 5.0


@pytest.mark.parametrize("seconds", [-0.1, float("nan")])
def test_it_never_goes_back(seconds: float) -> None:
    clock = ManualClock(5)
    with pytest.raises(ArgumentError, match="seconds"):
        clock.advance(seconds)
    with pytest.raises(ArgumentError, match="moment"):
        clock.advance_to(clock() + seconds)
    assert clock() == 5.0


def test_the_package_of_doubles_has_no_other_names() -> None:
    import device_sdk.testing as doubles

    assert all(getattr(doubles, name) is not None for name in doubles.__all__)
    with pytest.raises(AttributeError, match="ManualClok"):
        getattr(doubles, "ManualClok")  # noqa: B009 - the point is that it is looked up at run time
