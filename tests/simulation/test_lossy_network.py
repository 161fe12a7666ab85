"""Any number of cuts, crashes and delays: nothing is lost, nothing comes twice at QoS 2, order is kept.

The number of runs is that of the Hypothesis profile (tests/conftest.py) times :data:`RUNS_PER_EXAMPLE`: one
run is small. ``--hypothesis-profile=long`` is for a night. Hypothesis prints what reproduces a failure.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.world import Config, World

RUNS_PER_EXAMPLE = 40
RUNS = settings().max_examples * RUNS_PER_EXAMPLE
TIMEOUT_S = max(60, RUNS // 15)  # 300 runs in a second, a twentieth of that on a busy machine

# Named as often as it should happen.
STEPS = [
    *["publish"] * 4,
    *["flush", "carry_up", "carry_down"] * 4,
    *["connect", "trade", "command", "handle", "commit"] * 3,
    *["cut", "crash"] * 2,
    *["wait", "lose_session", "leave", "wind", "change_receive_maximum"],
]

runs = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 255)), min_size=10, max_size=100)
configs = st.builds(
    Config,
    version=st.sampled_from(["5.0", "5.0", "3.1.1", "3.1"]),
    inflight=st.integers(1, 4),
    receive_maximum=st.integers(1, 4),
    our_receive_maximum=st.integers(1, 3),
)

pytestmark = pytest.mark.timeout(TIMEOUT_S)


def run(config: Config, warm: bool, steps: list[tuple[str, int]]) -> None:
    world = World(config)
    if warm:
        world.connect()
        world.trade()
        world.trade()
    for name, choice in steps:
        getattr(world, name)(choice)
    world.settle()
    world.check()


@settings(max_examples=RUNS)
@given(configs, st.booleans(), runs)
def test_a_client_with_a_store_survives_everything(
    config: Config, warm: bool, steps: list[tuple[str, int]]
) -> None:
    run(config, warm, steps)


@settings(max_examples=RUNS)
@given(configs, st.booleans(), runs)
def test_a_client_without_a_store_survives_every_network(
    config: Config, warm: bool, steps: list[tuple[str, int]]
) -> None:
    run(replace(config, stored=False), warm, steps)


@pytest.mark.parametrize("version", ["3.1", "3.1.1", "5.0"])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_cut_after_every_byte_in_either_direction_loses_nothing(version: str, qos: int) -> None:
    for up in range(160):
        for crash in (False, True):
            world = World(Config(version=version))
            world.connect()
            world.trade()
            world.publish(2 * qos - 2)
            world.trade()
            world.command(2 * qos - 2)
            world.flush()
            world.carry_up(up % 16)
            world.carry_down(up // 16 * 4)
            world.handle(0)
            world.commit(up % 3)
            world.flush()
            (world.crash if crash else world.cut)(up)
            world.settle()
            world.check()


def test_a_simulation_that_stops_early_has_not_passed() -> None:
    """The checks see a message that never arrived, and one that arrived twice."""
    world = World(Config())
    world.publish(2)
    with pytest.raises(AssertionError, match="lost"):
        world.check()
    world.settle()
    world.check()
    world.broker.journal *= 2
    with pytest.raises(AssertionError, match="came twice"):
        world.check()
