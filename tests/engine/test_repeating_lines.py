"""Lines of the log that a fault can repeat: few in the log, while ``on_event`` gets each event."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from device_sdk._folding import QUIET_S
from device_sdk.engine.events import ClientEvent, Events, Reporter
from device_sdk.errors import ConnectFailedError, DroppedError, TlsError, TransportClosedError
from device_sdk.mqtt.packets import Puback, Publish
from device_sdk.store.base import StorePolicy
from device_sdk.testing import ManualClock
from tests.engine.rig import Rig


class Bench:
    """A reporter with a clock of its own. ``seen``: what ``on_event`` got."""

    def __init__(self, log: pytest.LogCaptureFixture) -> None:
        log.set_level(logging.INFO, "device_sdk.engine")
        self.log = log
        self.clock = ManualClock()
        self.seen: list[ClientEvent] = []
        self.reporter = Reporter(self.seen.append, self.clock)

    def report(self, kind: str, text: str = "a sentence", error: BaseException | None = None) -> None:
        self.reporter.report(ClientEvent(kind, text, error))
        self.clock.advance(1.0)

    def lines(self) -> list[str]:
        found = list(self.log.messages)
        self.log.clear()
        return found


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    return Bench(caplog)


KINDS = [
    "dropped", "expired", "refused", "subscribe_refused", "handler_failed", "no_handler", "store_failed",
    "store_recovered", "store_replaced", "session_lost", "auth", "server_reference", "unexpected_response",
    "invalid_payload", "internal_error", "disconnected", "connect_failed",
]  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS, "a kind of the future"])
def test_whatever_repeats_has_a_dozen_lines_in_two_thousand_and_every_event(kind: str, bench: Bench) -> None:
    for number in range(2_000):
        bench.report(kind, f"topic/{number}: it happened", DroppedError(f"the queue is full: {number} bytes"))
    lines = bench.lines()
    assert len(lines) == 11
    assert lines[0] == f"{kind}: topic/0: it happened"
    assert lines[-1].endswith(" (1,024 times in 17 min)")
    assert len(bench.seen) == 2_000
    bench.reporter.sum_up()
    (total,) = bench.lines()
    assert total.endswith(" (2,000 times in 33 min)")


def test_another_reason_is_another_fault(bench: Bench) -> None:
    for _ in range(3):
        bench.report("connect_failed", "a: refused", ConnectFailedError("refused"))
        bench.report("connect_failed", "a: no address", ConnectFailedError("no address"))
    assert [line.partition(" (")[0] for line in bench.lines()] == [
        "connect_failed: a: refused", "connect_failed: a: no address",
        "connect_failed: a: refused", "connect_failed: a: no address",
    ]  # fmt: skip


def fail(_: object) -> None:
    raise ValueError("a handler")


def fail_as_well(_: object) -> None:
    raise ValueError("another handler")


def raised(function: Callable[[object], None]) -> BaseException:
    try:
        function(None)
    except ValueError as error:
        return error
    raise AssertionError


def test_two_handlers_that_fail_are_two_faults_whatever_their_texts(bench: Bench) -> None:
    for number in range(16):
        for handler in (fail, fail_as_well):
            bench.report("handler_failed", f"{handler.__name__} raised: {number}", raised(handler))
    assert len(bench.lines()) == 2 * 5


def test_on_event_that_raises_is_logged_few_times(bench: Bench) -> None:
    bench.reporter.on_event = fail
    for _ in range(1_000):
        bench.report("dropped")
    assert sum("on_event raised" in line for line in bench.lines()) == 10


def test_a_connection_that_comes_and_goes_all_day_leaves_the_log_small_and_its_last_line_true(
    bench: Bench,
) -> None:
    lost = TransportClosedError("the server closed the connection")
    state = ""
    for _ in range(10_000):
        bench.report("connected", "connected to tcp b0, session new")
        bench.report("disconnected", "tcp b0: closed; next attempt in 1.0 s", lost)
        bench.report(
            "connect_failed", "tcp b0: refused; next attempt in 2.0 s", ConnectFailedError("refused")
        )
    lines = bench.lines()
    assert len(lines) < 200
    bench.report("connected", "connected to tcp b0, session new")
    lines += bench.lines()
    for line in lines:
        kind = line.partition(":")[0]
        if "times in" not in line or kind == "connected":
            state = kind
    assert state == "connected"


def test_an_outage_now_and_then_is_told_each_time(bench: Bench) -> None:
    for _ in range(5):
        bench.report("connected")
        bench.clock.advance(3_600)
        bench.report("disconnected", error=TransportClosedError("reset"))
        bench.clock.advance(QUIET_S)
    kinds = [line.partition(":")[0] for line in bench.lines()]
    assert kinds == ["connected", "disconnected"] * 5


def test_the_levels_are_those_of_one_line(bench: Bench) -> None:
    bench.report("connect_failed", error=ConnectFailedError("refused"))
    bench.report("connect_failed", error=TlsError("expired"))
    bench.report("dropped")
    bench.report("connected")
    assert [record.levelname for record in bench.log.records] == ["INFO", "WARNING", "WARNING", "INFO"]


def test_events_that_are_counted_already_are_all_logged(bench: Bench) -> None:
    for number in range(5):
        bench.report("skipped", f"'t': skipped ({2**number} messages skipped so far)")
    assert len(bench.lines()) == 5


# With a whole engine


def offline(policy: StorePolicy, seen: list[ClientEvent]) -> Rig:
    return Rig(policy=policy, on_event=seen.append)


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        (StorePolicy(max_messages=10, overflow="drop_oldest"), "dropped"),
        (StorePolicy(keep_last=["#"]), "dropped"),
        (StorePolicy(max_age=0.5), "expired"),
    ],
    ids=["drop_oldest", "keep_last", "max_age"],
)
def test_two_thousand_samples_that_end_offline_take_a_dozen_lines(
    policy: StorePolicy, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[ClientEvent] = []
    rig = offline(policy, seen)
    for number in range(2_010):
        rig.publish(b"%d" % number)
        rig.advance(0.1)
    rig.handle()
    ended = [event for event in seen if event.kind == kind]
    assert len(ended) >= 1_990
    assert len(caplog.messages) <= 11
    rig.connect()
    rig.handle()
    with caplog.at_level(logging.INFO):
        rig.engine.end()
        rig.engine.close_store()
        rig.handle()
    assert any(f"{len(ended):,} times" in line for line in caplog.messages), "the sum comes at the end"


def test_refusals_and_responses_that_nobody_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.connect()
    for number in range(1, 300):
        rig.publish(b"x", topic=f"t/{number}")
        rig.sent()
        rig.feed(Puback(number, 0x87, {"reason_string": f"quota of {number}"}))
        rig.feed(Publish(f"t/{number}", b"\xff", properties={"payload_format_indicator": 1}))
    rig.handle()
    assert len(caplog.messages) < 25


def test_events_reach_the_last_line_through_the_queue() -> None:
    events = Events()
    events.end()
    ((function, argument),) = events.take()
    function(argument)
