"""The whole engine against a broker model and everything that can go wrong: no promise is broken.

What a run is: tests/simulation/run.py. For its figures: ``python -m tests.simulation --help``.
"""

from __future__ import annotations

import pytest

from tests.simulation.__main__ import main
from tests.simulation.campaign import run_until
from tests.simulation.faults import FAULTS
from tests.simulation.planted import PLANTED
from tests.simulation.run import Figures, simulate
from tests.simulation.seeds import SEEDS

MESSAGES, FAULT_COUNT = 200_000, 20_000


@pytest.mark.timeout(300)
def test_two_hundred_thousand_messages_and_twenty_thousand_faults_break_no_promise() -> None:
    figures = Figures()
    run_until(figures, 0, messages=MESSAGES, faults=FAULT_COUNT)
    assert figures.messages >= MESSAGES
    assert figures.faults.total() >= FAULT_COUNT
    assert {name for name, count in figures.faults.items() if count} == set(FAULTS)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_seed_has_found_stays_away(seed: int) -> None:
    simulate(seed)


def test_a_seed_is_always_the_same_run() -> None:
    assert simulate(3) == simulate(3)
    assert simulate(3) != simulate(4)


def test_a_seed_that_fails_is_printed_with_the_command_that_repeats_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bug = next(each for each in PLANTED if each.name == "there is no back-off")
    with bug.planted():
        assert main(["--messages", "20000"]) == 1
        found = capsys.readouterr().out
        seed = found.partition("--seed ")[2].split()[0]
        assert f"repeat it: python -m tests.simulation --seed {seed}\n" in found
        assert main(["--seed", seed]) == 1
        assert capsys.readouterr().out.splitlines()[0] == found.splitlines()[0]
    assert main(["--seed", seed]) == 0
