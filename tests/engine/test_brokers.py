"""Whose turn it is: rounds, rests, the way back to the first broker, and which one has the session."""

from __future__ import annotations

import pytest

from device_sdk.engine.connecting.back_off import LATER, NEVER, SOON, TAKEN_OVER, ReconnectPolicy
from device_sdk.engine.connecting.brokers import Broker, Brokers
from tests.engine.rig import HandTransport


def several(
    count: int, *, draw: float = 1.0, return_to_first: float | None = None, shared_session: bool = False
) -> Brokers:
    brokers = [Broker(HandTransport(), f"b{number}") for number in range(count)]
    return Brokers(
        brokers,
        ReconnectPolicy(first=1, longest=60, stable=30),
        lambda: draw,
        return_to_first=return_to_first,
        shared_session=shared_session,
    )


def current(brokers: Brokers) -> str:
    return brokers.current.address


def fail(brokers: Brokers, now: float = 0.0, retry: str = SOON) -> tuple[str, float | None, str]:
    """Who failed, the wait, and who is next."""
    failed = current(brokers)
    wait = brokers.attempt_failed(retry, now)
    return failed, wait, current(brokers)


def test_each_has_its_turn_at_once_before_anybody_waits() -> None:
    brokers = several(3)
    assert fail(brokers) == ("b0", None, "b1")
    assert fail(brokers) == ("b1", None, "b2")
    assert fail(brokers) == ("b2", 1, "b0")


def test_the_wait_grows_with_the_rounds_not_with_the_attempts() -> None:
    brokers = several(3)
    waits = [fail(brokers)[1] for _ in range(12)]
    assert [wait for wait in waits if wait is not None] == [1, 2, 4, 8]


def test_one_alone_waits_after_each_attempt() -> None:
    brokers = several(1)
    assert [fail(brokers) for _ in range(3)] == [("b0", 1, "b0"), ("b0", 2, "b0"), ("b0", 4, "b0")]


def test_one_that_was_stable_is_tried_first_again_and_then_the_others_by_preference() -> None:
    brokers = several(3)
    fail(brokers)
    brokers.accepted(0)
    assert brokers.connection_lost(SOON, None, 30, 100) == 1
    assert current(brokers) == "b1"
    assert fail(brokers, 101) == ("b1", None, "b0")
    assert fail(brokers, 101) == ("b0", None, "b2")
    assert fail(brokers, 101)[1] == 2


def test_one_that_lost_the_connection_early_counts_as_failed() -> None:
    brokers = several(2)
    brokers.accepted(0)
    assert brokers.connection_lost(SOON, None, 29, 29) == 1
    assert current(brokers) == "b1"


@pytest.mark.parametrize("reason_code", [0x89, 0x8B, 0x9C, 0x9D])
def test_a_server_that_sends_us_away_is_not_tried_first(reason_code: int) -> None:
    brokers = several(2)
    brokers.accepted(0)
    brokers.connection_lost(SOON, reason_code, 1000, 1000)
    assert current(brokers) == "b1"


def test_one_that_refused_is_passed_over_until_its_own_wait_is_over() -> None:
    brokers = several(2)
    assert fail(brokers, 0, NEVER) == ("b0", None, "b1")  # rests until 60
    now, attempts = 0.0, []
    for _ in range(6):
        name, wait, _ = fail(brokers, now)
        attempts.append((name, now))
        now += wait or 0
    assert attempts == [("b1", 0), ("b1", 1), ("b1", 3), ("b1", 7), ("b1", 15), ("b1", 31)]
    assert (current(brokers), now) == ("b0", 63)


def test_when_all_rest_the_wait_is_for_the_first_to_be_ready() -> None:
    brokers = several(2)
    fail(brokers, 0, NEVER)  # until 60
    assert fail(brokers, 0, LATER) == ("b1", 8, "b1")


def test_a_take_over_waits_long_and_nobody_else_is_tried() -> None:
    brokers = several(2)
    brokers.accepted(0)
    assert brokers.connection_lost(NEVER, TAKEN_OVER, 1000, 1000) == 60
    assert current(brokers) == "b0"


def test_start_over_forgets_failures_and_rests() -> None:
    brokers = several(2)
    for _ in range(5):
        fail(brokers, 0, NEVER)
    brokers.start_over()
    assert fail(brokers)[1] is None
    assert fail(brokers)[1] == 1


# The way back


def test_only_a_connection_to_another_one_looks_for_the_first() -> None:
    brokers = several(2, return_to_first=300)
    brokers.accepted(0)
    assert brokers.return_at is None
    fail(brokers)
    brokers.accepted(10)
    assert brokers.return_at == 310


def test_without_the_option_nobody_looks_for_the_first() -> None:
    brokers = several(2)
    fail(brokers)
    brokers.accepted(10)
    assert brokers.return_at is None


def test_a_first_one_that_rests_is_not_looked_for_before() -> None:
    brokers = several(2, return_to_first=10)
    fail(brokers, 0, NEVER)
    brokers.accepted(0)
    assert brokers.return_at == 60


def test_a_return_that_ends_in_a_refusal_comes_later_each_time() -> None:
    brokers = several(2, return_to_first=100)
    fail(brokers)
    waits = []
    for _ in range(12):
        brokers.accepted(0)
        assert brokers.return_at is not None
        waits.append(brokers.return_at)
        brokers.return_to_first()
        assert current(brokers) == "b0"
        fail(brokers)
    assert waits[:4] == [100, 200, 400, 800]
    assert waits[-1] == 86_400
    brokers.return_to_first()
    brokers.accepted(0)
    brokers.connection_lost(SOON, None, 30, 30)  # it was there for a while
    fail(brokers)
    brokers.accepted(0)
    assert brokers.return_at == 100


def test_a_return_that_does_not_last_counts_like_a_refusal() -> None:
    brokers = several(2, return_to_first=100)
    fail(brokers)
    brokers.accepted(0)
    brokers.return_to_first()
    brokers.accepted(100)
    brokers.connection_lost(SOON, None, 1, 101)
    assert current(brokers) == "b1"
    brokers.accepted(102)
    assert brokers.return_at == 302


def test_connections_that_end_do_not_put_the_look_for_the_first_off() -> None:
    brokers = several(2, return_to_first=100)
    fail(brokers)
    for now in (0, 40, 80):
        brokers.accepted(now)
        assert (current(brokers), brokers.return_at) == ("b1", 100)
        brokers.connection_lost(SOON, None, 35, now + 35)


def test_a_first_one_that_cannot_be_reached_is_looked_for_at_the_same_distance() -> None:
    brokers = several(2, return_to_first=100)
    fail(brokers)
    brokers.accepted(0)
    brokers.return_failed(100)
    assert brokers.return_at == 200


# The session


def test_the_session_is_at_the_server_that_accepted_it() -> None:
    brokers = several(2)
    assert not brokers.session_is_elsewhere("node")
    assert brokers.session_begins("node") == "node@b0"
    assert brokers.session_begins("node") is None
    assert not brokers.session_is_elsewhere("node")
    fail(brokers)
    assert brokers.session_is_elsewhere("node")


def test_another_client_identifier_is_another_session() -> None:
    brokers = several(1)
    brokers.restore("node@b0")
    assert not brokers.session_is_elsewhere("node")
    assert brokers.session_is_elsewhere("other")


def test_a_store_that_says_nothing_is_believed() -> None:
    brokers = several(1)
    brokers.restore(None)
    assert not brokers.session_is_elsewhere("node")


def test_a_shared_session_is_everywhere() -> None:
    brokers = several(2, shared_session=True)
    brokers.session_begins("node")
    fail(brokers)
    assert not brokers.session_is_elsewhere("node")
