"""The table of the life cycle of a sensor, and the page that draws it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.node.life_cycle import (
    CLOSE,
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
            leaves = before not in (State.ABSENT, State.BACKOFF) and step.state in (
                State.ABSENT,
                State.BACKOFF,
            )
            if event != "move":
                assert (WAIT in step.actions) == (leaves or event == "hang"), (event, before)
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
        assert life.retry_at <= now + LONGEST_RETRY_S
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
