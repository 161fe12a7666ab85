"""The record of a test, and the verdict on its faults."""

from __future__ import annotations

import json
import threading
from functools import partial

import pytest

from device_sdk_hil.timeline import Timeline


def kinds(timeline: Timeline) -> list[str]:
    return [json.loads(line)["kind"] for line in timeline.path.read_text().splitlines()]


def test_an_event_is_in_the_file_at_once(events: Timeline) -> None:
    event = events.record("dut", "log", line="ready: 21 °C")
    assert json.loads(events.path.read_text()) == {
        "time": event.time, "source": "dut", "kind": "log", "data": {"line": "ready: 21 °C"},
    }  # fmt: skip


def test_an_event_wakes_whoever_waits(events: Timeline) -> None:
    seen: list[str] = []

    def happen() -> None:
        seen.append("x")
        events.record("test", "mark")

    thread = threading.Thread(target=happen)
    waiting = iter([False])

    def predicate() -> bool:
        if not next(waiting, True):
            thread.start()  # only now: the wait has begun, and the event needs the lock that it holds
        return bool(seen) and thread.ident is not None

    events.wait_until(predicate, timeout=10)
    thread.join(10)


def test_waiting_in_vain_says_for_what(events: Timeline) -> None:
    with pytest.raises(TimeoutError, match=r"waited 0.01 s in vain for the end of the world"):
        events.wait_until(lambda: False, "the end of the world", timeout=0.01)


def test_a_fault_is_judged_at_the_end_unless_it_was_before(events: Timeline) -> None:
    effective: set[str] = set()
    early, late, never, told = (
        events.fault("line", name, effect=partial(effective.__contains__, name), expected="it")
        for name in ("early", "late", "never", "told")
    )
    effective.add("early")
    assert early.conclude()
    effective.clear()
    effective.add("late")
    told.seen("smoke")
    assert events.without_effect() == [never]
    assert str(never).startswith("line.never at 0.")
    assert kinds(events).count("effect") == 3
    assert kinds(events).count("no effect") == 1
    assert late.conclude()


def test_an_event_after_the_end_is_not_in_the_file(events: Timeline) -> None:
    events.record("test", "end")
    events.close()
    events.record("dut", "log", line="late")
    assert kinds(events) == ["end"]
