"""Message expiry, by clocks that jump and machines that reboot."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from device_sdk._clock import EARLIEST
from device_sdk.store.clock import ExpiryClock
from device_sdk.testing.clock import ManualClock
from tests.store.contract import message
from tests.store.sqlite_rig import Rig

LIFE_S = 600.0
YEARS = 10 * 365 * 86_400.0


@pytest.fixture
def rig(tmp_path: Path) -> Generator[Rig]:
    rig = Rig(tmp_path)
    rig.open()
    yield rig
    rig.store.close()


def reboot(rig: Rig, *, off: float, wall: float | None = None) -> float:
    """Switch off and on again; return the life that the message has left then."""
    rig.store.close()
    wall = rig.wall() + off if wall is None else wall
    rig.clock, rig.wall, rig.boot = ManualClock(3.0), ManualClock(wall), "second boot"
    (saved,) = rig.open().messages
    assert saved.expires_at is not None
    return saved.expires_at - rig.clock()


def test_a_restarted_program_knows_the_exact_moment(rig: Rig) -> None:
    expires_at = rig.clock() + LIFE_S
    rig.write(message(1, expires_at=expires_at))
    rig.advance(100.0)
    assert [each.expires_at for each in rig.reopen().messages] == [expires_at]


@pytest.mark.parametrize("step", [YEARS, -YEARS])
def test_a_step_of_the_clock_changes_nothing_until_the_next_boot(rig: Rig, step: float) -> None:
    expires_at = rig.clock() + LIFE_S
    rig.write(message(1, expires_at=expires_at))
    rig.wall = ManualClock(rig.wall() + step)
    assert [each.expires_at for each in rig.reopen().messages] == [expires_at]


def test_time_without_power_counts_if_the_clock_is_right(rig: Rig) -> None:
    rig.write(message(1, expires_at=rig.clock() + LIFE_S))
    assert reboot(rig, off=200.0) == pytest.approx(LIFE_S - 200.0)


def test_a_message_that_expired_without_power_comes_back_as_expired(rig: Rig) -> None:
    rig.write(message(1, expires_at=rig.clock() + LIFE_S))
    assert reboot(rig, off=LIFE_S + 1.0) == pytest.approx(-1.0)


def test_time_without_power_does_not_count_while_the_clock_is_not_set(rig: Rig) -> None:
    rig.write(message(1, expires_at=rig.clock() + LIFE_S))
    assert reboot(rig, off=200.0, wall=12.0) == pytest.approx(LIFE_S)


def test_a_message_stored_before_the_clock_was_set_keeps_its_life(rig: Rig) -> None:
    rig.wall = ManualClock(60.0)
    rig.reopen()
    rig.write(message(1, expires_at=rig.clock() + LIFE_S))
    assert reboot(rig, off=0.0, wall=EARLIEST + YEARS) == pytest.approx(LIFE_S)


def test_a_clock_that_went_back_gives_no_longer_life(rig: Rig) -> None:
    rig.write(message(1, expires_at=rig.clock() + LIFE_S))
    assert reboot(rig, off=-5_000.0) == pytest.approx(LIFE_S)


def test_a_message_without_expiry_has_none_after_a_reboot() -> None:
    before, after = ExpiryClock(boot="first"), ExpiryClock(boot="second")
    assert after.from_row(*before.to_row(None)) is None


def test_this_machine_knows_its_boot() -> None:
    row = ExpiryClock().to_row(5.0)
    assert ExpiryClock().from_row(*row) == 5.0
