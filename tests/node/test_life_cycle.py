"""The table of the life cycle of a sensor, and the page that draws it."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.node.life_cycle import (
    CLOSE,
    HOLD_S,
    LONGEST_RETRY_S,
    ONLINE,
    RENEW,
    TRANSITIONS,
    WAIT,
    LifeCycle,
    State,
)

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "node.md").read_text(encoding="utf-8")


def test_the_page_draws_every_transition_of_the_table_and_no_other() -> None:
    (drawing,) = re.findall(r"^```mermaid\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    drawn = re.findall(r"^    (\w+) --> (\w+): (.+)$", drawing, re.MULTILINE)
    found = [(before, after, event) for before, after, events in drawn for event in events.split(", ")]
    table = [
        (str(before), str(step.state), event)
        for event, row in TRANSITIONS.items()
        for before, step in row.items()
        if event not in ("move", "fail")  # from every state; the page says it in words
    ]
    assert sorted(found) == sorted(table)
    assert re.findall(r"\[\*\] --> (\w+)", drawing) == ["absent"]


def test_the_page_has_every_state_and_event() -> None:
    section = PAGE.partition("\n## States of a sensor\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == [str(state) for state in State]
    assert set(re.findall(r"\*(\w+)\*:", section)) == set(TRANSITIONS)


def test_from_a_failed_bus_there_is_no_way_back() -> None:
    life = LifeCycle(0)
    life.enter("fail", 0)
    assert [life.enter(event, 1) for event in TRANSITIONS] == [None] * len(TRANSITIONS)
    assert life.state is State.FAILED


def test_a_sensor_that_is_closed_waits_and_one_that_stays_in_use_does_not() -> None:
    for event, row in TRANSITIONS.items():
        for before, step in row.items():
            closed = (State.ABSENT, State.BACKOFF, State.FAILED)
            leaves = before not in closed and step.state in (State.ABSENT, State.BACKOFF)
            if event != "move":
                assert (WAIT in step.actions) == (leaves or event in ("hang", "stick")), (event, before)
            assert not {CLOSE, RENEW} <= set(step.actions), "a driver that hangs cannot be closed"


@given(st.lists(st.sampled_from(sorted(TRANSITIONS)), max_size=60))
def test_no_order_of_events_leads_to_a_wait_that_is_too_long_or_to_a_state_that_is_none(
    events: list[str],
) -> None:
    life, now = LifeCycle(0.0), 0.0
    for event in events:
        now += 1
        before = life.state
        step = life.enter(event, now)
        assert life.state in State
        assert life.state is State.FAILED or life.retry_at <= now + max(HOLD_S, LONGEST_RETRY_S)
        if step is None:
            assert life.state is before
        if event == "measure" and step is not None:
            assert life.state in ONLINE


@pytest.mark.parametrize(("misses", "state"), [(1, "degraded"), (2, "degraded"), (3, "backoff")])
def test_the_third_miss_in_a_row_gives_up(misses: int, state: str) -> None:
    life = LifeCycle(0)
    for event in ("open", "measure", "miss", "miss", "measure", *["miss"] * misses):
        life.enter(event, 0)
    assert str(life.state) == state


def test_a_sensor_whose_call_hangs_is_held_until_the_return_or_ten_minutes() -> None:
    life = LifeCycle(0)
    assert life.enter("hang", 100) is not None
    assert (life.state, life.retry_at) == (State.BACKOFF, 100 + HOLD_S)
    assert life.enter("return", 100.25) is not None
    assert (life.state, life.retry_at) == (State.BACKOFF, 101), "the usual wait, from the hang on"
    assert life.enter("hang", 200) is not None
    assert life.enter("return", 300) is not None
    assert life.retry_at == 300


def test_the_second_call_that_hangs_beside_the_first_fails_the_sensor_until_both_return() -> None:
    life = LifeCycle(0)
    for event in ("hang", "open", "measure", "hang"):
        life.enter(event, 700)
    assert (life.state, life.retry_at) == (State.FAILED, math.inf)
    assert life.enter("return", 800) is None
    assert (life.state, life.retry_at) == (State.FAILED, math.inf)
    assert life.enter("return", 900) is not None
    assert (life.state, life.retry_at) == (State.BACKOFF, 900)


def test_two_calls_that_hang_one_after_the_other_do_not_fail_the_sensor() -> None:
    life = LifeCycle(0)
    for _ in range(9):
        for event in ("hang", "open", "measure", "return"):
            life.enter(event, 700)
    assert life.state is State.OK
