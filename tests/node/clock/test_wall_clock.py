"""The time of a moment, by who vouches for it."""

from __future__ import annotations

import time

import pytest

from device_sdk._clock import EARLIEST
from device_sdk.node.clock.wall_clock import WallClock, parse_time

NOW = EARLIEST + 1_000_000.0


class Machine:
    """Two clocks and a piece of evidence."""

    def __init__(self) -> None:
        self.uptime = 60.0
        self.wall = 12.0  # 1970
        self.ntp = False
        evidence = (("NTP", lambda: self.ntp), ("a fake", lambda: False))
        self.clock = WallClock(evidence, uptime=lambda: self.uptime, wall=lambda: self.wall)


def test_nothing_vouches_for_a_clock_however_credible_it_looks() -> None:
    machine = Machine()
    machine.wall = NOW  # as fake-hwclock leaves it
    assert not machine.clock.look()
    assert machine.clock.utc(60.0) is None
    assert machine.clock.source == ""


def test_with_evidence_the_kernels_clock_gives_the_time_of_earlier_moments() -> None:
    machine = Machine()
    machine.wall, machine.ntp = NOW, True
    assert machine.clock.look()
    assert machine.clock.source == "NTP"
    assert machine.clock.utc(45.5) == NOW - 14.5


def test_a_clock_before_this_package_was_made_is_wrong_whoever_vouches_for_it() -> None:
    machine = Machine()
    machine.wall, machine.ntp = EARLIEST - 1.0, True
    assert not machine.clock.look()
    machine.wall = EARLIEST
    assert machine.clock.look()
    machine.wall = 0.0  # somebody has set it back
    assert machine.clock.utc(1.0) is None


def test_a_clock_that_was_right_stays_right_when_the_network_goes() -> None:
    machine = Machine()
    machine.wall, machine.ntp = NOW, True
    machine.clock.look()
    machine.ntp = False
    assert machine.clock.look()


def test_an_offer_gives_the_time_until_the_kernels_clock_is_right() -> None:
    machine = Machine()
    assert machine.clock.offer(NOW, 50.0, "topic t")
    assert machine.clock.utc(40.0) == NOW - 10
    assert machine.clock.source == "topic t"
    assert machine.clock.look()
    machine.wall, machine.ntp = NOW + 11.0, True
    machine.clock.look()
    assert machine.clock.utc(60.0) == NOW + 11
    assert machine.clock.offer(NOW, 60.0, "topic t")
    assert (machine.clock.utc(60.0), machine.clock.source) == (NOW + 11, "NTP")


@pytest.mark.parametrize("utc", [0.0, EARLIEST - 1.0, 4_000_000_000.0, float("nan"), float("inf")])
def test_an_offer_that_cannot_be_is_not_taken(utc: float) -> None:
    machine = Machine()
    assert not machine.clock.offer(utc, 50.0, "topic t")
    assert machine.clock.utc(50.0) is None


def test_an_offer_that_moves_the_time_is_told(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    machine.clock.offer(NOW, 50.0, "topic t")
    machine.clock.offer(NOW + 61.0, 60.0, "topic t")  # 51 s of drift are none to talk about
    assert not caplog.messages
    machine.clock.offer(NOW + 1000.0, 61.0, "topic t")
    assert "topic t moves the time of samples by +938 s" in caplog.text
    assert machine.clock.utc(61.0) == NOW + 1000.0


@pytest.mark.parametrize(
    ("value", "utc"),
    [
        (1_800_000_000, 1_800_000_000.0),
        ("1800000000.25\n", 1_800_000_000.25),
        (1_800_000_000_250, 1_800_000_000.25),
        ("2027-01-15T08:00:00Z", 1_800_000_000.0),
        ("2027-01-15T09:00:00.5+01:00", 1_800_000_000.5),
    ],
)
def test_a_time_is_a_number_or_rfc_3339(value: object, utc: float) -> None:
    assert parse_time(value) == utc


@pytest.mark.parametrize("value", [None, True, "", "soon", "2027-01-15T08:00:00", b"1800000000", [1]])
def test_what_is_no_time(value: object) -> None:
    assert parse_time(value) is None


def test_the_time_at_which_this_package_was_made_has_passed() -> None:
    assert time.time() > EARLIEST
