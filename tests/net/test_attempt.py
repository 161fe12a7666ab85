"""The life of a stream and one attempt to open it, by themselves: what every transport relies on."""

from __future__ import annotations

import errno
import os
import select
import threading
from typing import TYPE_CHECKING

import pytest

from device_sdk.errors import ConnectFailedError, TransportClosedError, TransportError
from device_sdk.net.attempt import StreamLife
from tests.net.transport_contract import PATIENCE, open_files, soon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WHAT = "tcp broker.example:1883"


@pytest.fixture
def life() -> StreamLife:
    return StreamLife()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def abort(life: StreamLife) -> None:
    with life.lock:
        life.abort()


def close(life: StreamLife) -> None:
    with life.lock:
        life.close()


def test_only_one_attempt_goes_on_at_a_time(life: StreamLife) -> None:
    with life.begin(WHAT), pytest.raises(TransportError, match=f"{WHAT} is open or being opened"):
        life.begin(WHAT)
    life.begin(WHAT).__exit__()


def test_an_open_stream_is_not_opened_again_until_it_is_closed(life: StreamLife) -> None:
    with life.begin(WHAT) as attempt, attempt.lock:
        attempt.succeed()
    with pytest.raises(TransportError, match="is open"):
        life.begin(WHAT)
    close(life)
    life.begin(WHAT).__exit__()


def test_an_abort_holds_until_close(life: StreamLife) -> None:
    abort(life)
    for _ in range(2):
        with pytest.raises(TransportClosedError, match=f"{WHAT} was aborted before it was opened"):
            life.begin(WHAT)
    close(life)
    life.begin(WHAT).__exit__()


@pytest.mark.parametrize("end", [abort, close])
def test_an_attempt_that_was_cancelled_cannot_succeed(
    life: StreamLife, end: Callable[[StreamLife], None]
) -> None:
    with life.begin(WHAT) as attempt:
        end(life)
        with pytest.raises(TransportClosedError, match=f"{WHAT} was aborted while it was opened"):
            attempt.succeed()
        assert attempt.is_abandoned == (end is close)
    assert not life.is_open


def test_a_stream_that_was_closed_meanwhile_is_opened_beside_the_attempt_left_behind(
    life: StreamLife,
) -> None:
    with life.begin(WHAT) as left_behind:
        close(life)
        with life.begin(WHAT) as attempt:
            abort(life)
            assert attempt.is_cancelled
            close(life)
        with life.begin(WHAT) as attempt:
            left_behind.cancel()
            assert not attempt.is_cancelled


def test_an_attempt_that_is_over_does_not_end_the_next_one(life: StreamLife) -> None:
    left_behind = life.begin(WHAT)
    close(life)
    with life.begin(WHAT) as attempt:
        left_behind.__exit__()
        abort(life)
        assert attempt.is_cancelled


def test_waiting_ends_with_what_came(life: StreamLife, pipe: tuple[int, int]) -> None:
    with life.begin(WHAT) as attempt:
        assert attempt.poll(pipe[1], select.POLLOUT, soon()) == select.POLLOUT
        assert attempt.wait(pipe[1], select.POLLOUT, soon()) == 0


def test_waiting_ends_at_the_deadline(life: StreamLife, pipe: tuple[int, int]) -> None:
    with life.begin(WHAT) as attempt:
        assert attempt.poll(pipe[0], select.POLLIN, 0.0) == 0
        assert attempt.wait(pipe[0], select.POLLIN, 0.0) == errno.ETIMEDOUT


@pytest.mark.parametrize("end", [abort, close])
def test_waiting_ends_when_the_attempt_is_cancelled(
    life: StreamLife, pipe: tuple[int, int], end: Callable[[StreamLife], None]
) -> None:
    with life.begin(WHAT) as attempt:
        canceller = threading.Thread(target=end, args=(life,))
        canceller.start()
        assert attempt.wait(pipe[0], select.POLLIN, soon()) == errno.ECANCELED
        canceller.join(PATIENCE)
        assert attempt.poll(pipe[1], select.POLLOUT, soon()) == 0, "cancelled goes before ready"


@pytest.mark.parametrize("order", ["before", "after"])
def test_somebody_else_who_waits_is_told_of_the_end(life: StreamLife, order: str) -> None:
    told = threading.Event()
    with life.begin(WHAT) as attempt:
        if order == "before":
            abort(life)
        attempt.when_cancelled(told.set)
        assert told.is_set() == (order == "before")
        abort(life)
        assert told.is_set()


def test_no_descriptor_is_left_behind(life: StreamLife, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    before = open_files()
    with pytest.raises(ZeroDivisionError), life.begin(WHAT):
        raise ZeroDivisionError
    with monkeypatch.context() as patch:
        patch.setattr(os, "eventfd", exhausted)
        with pytest.raises(ConnectFailedError, match=f"{WHAT}: Too many open files"):
            life.begin(WHAT)
    life.begin(WHAT).__exit__()
    assert open_files() == before
