"""Lines that a fault repeats: the first, then counted, then summed up. The clock is the test's."""

from __future__ import annotations

import pytest

from device_sdk._folding import QUIET_S, Folding
from device_sdk._log import Log
from device_sdk.testing import ManualClock


class Bench:
    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.clock = ManualClock()
        self.caplog = caplog
        self.folding = Folding(Log("device_sdk.test"), self.clock)

    def fail(self, times: int = 1, *, every: float = 1.0, kind: str = "dropped", detail: str = "") -> None:
        for _ in range(times):
            self.folding.warning(kind, detail, "%s: %s", kind, detail or "a sample")
            self.clock.advance(every)

    def lines(self) -> list[str]:
        """The lines since the last look."""
        found = list(self.caplog.messages)
        self.caplog.clear()
        return found


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    return Bench(caplog)


def test_the_first_line_stands_as_it_is_and_the_next_have_the_sum(bench: Bench) -> None:
    bench.fail(5)
    assert bench.lines() == [
        "dropped: a sample",
        "dropped: a sample (2 times in 1 s)",
        "dropped: a sample (4 times in 3 s)",
    ]


def test_two_thousand_samples_take_a_dozen_lines_and_the_last_has_the_sum(bench: Bench) -> None:
    bench.fail(2_000)
    assert len(bench.lines()) == 11
    bench.folding.sum_up()
    assert bench.lines() == ["dropped: a sample (2,000 times in 33 min)"]
    bench.folding.sum_up()
    assert bench.lines() == []


def test_a_fault_that_is_over_is_summed_up_with_the_next_line_and_begins_anew(bench: Bench) -> None:
    bench.fail(7)
    bench.lines()
    bench.clock.advance(QUIET_S)
    bench.fail(kind="refused")
    assert bench.lines() == ["dropped: a sample (7 times in 6 s)", "refused: a sample"]
    bench.fail()
    assert bench.lines() == ["dropped: a sample"]


def test_a_fault_that_goes_on_for_days_has_a_line_each_hour_at_least(bench: Bench) -> None:
    bench.fail(1_440 * 4, every=60)
    lines = bench.lines()
    assert 4 * 23 <= len(lines) <= 4 * 24 + 12
    bench.folding.sum_up()
    assert bench.lines()[-1].endswith(" times in 4 days)")


def test_different_faults_are_counted_apart(bench: Bench) -> None:
    for _ in range(4):
        bench.fail(detail="full")
        bench.fail(detail="expired")
    assert bench.lines() == [
        "dropped: full",
        "dropped: expired",
        "dropped: full (2 times in 2 s)",
        "dropped: expired (2 times in 2 s)",
        "dropped: full (4 times in 6 s)",
        "dropped: expired (4 times in 6 s)",
    ]


def test_a_text_that_is_different_each_time_fills_neither_log_nor_memory(bench: Bench) -> None:
    for number in range(10_000):
        bench.fail(detail=f"reason {number:x}", every=0.1)
    assert len(bench.lines()) < 25
    bench.folding.sum_up()
    (total,) = bench.lines()
    assert "9,992 times" in total


def test_whether_a_line_was_written_is_told(bench: Bench) -> None:
    written = [bench.folding.info("flap", "", "%s", "up") for _ in range(5)]
    assert written == [True, True, False, True, False]


def test_a_fault_that_may_be_rare_grows_by_more_and_is_over_later(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(caplog)
    day = 86_400.0
    bench.folding = Folding(Log("device_sdk.test"), bench.clock, growth=10, again=day, quiet=day)
    bench.fail(2_000, every=700)
    assert len(bench.lines()) == 3 + 15, "the 1st, 10th and 100th, and one a day"
    bench.clock.advance(day)
    bench.fail(kind="refused")
    assert bench.lines() == ["dropped: a sample (2,000 times in 16 days)", "refused: a sample"]


def test_a_fault_that_goes_on_is_counted_without_a_line(bench: Bench) -> None:
    bench.fail()
    for _ in range(98):
        bench.folding.count("dropped", "")
    assert bench.lines() == ["dropped: a sample"]
    bench.fail()
    assert bench.lines() == ["dropped: a sample (100 times in 1 s)"]
