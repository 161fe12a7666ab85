"""Waiting in a test until something is so: looked at after every step of a client, never by the clock.

Whatever a client, a store or the drop-in changes, it changes under a lock of its own. The fixture
:func:`steps` (autouse in the conftest.py of a room) hands modules of ``device_sdk`` locks that tell when they
are let go, and :func:`eventually` looks again then. What happens outside, in a thread or a process of the
test itself, has something real to wait for: a thread is joined, a file of lines is followed.
"""

from __future__ import annotations

import _thread
import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

__all__ = ["eventually", "eventually_in_loop", "join_threads", "sdk_threads", "step", "steps"]

SECONDS = 10.0

_lock_of_python, _rlock_of_python = threading.Lock, threading.RLock
_changed = threading.Condition()
_count = 0
_waiting: list[Callable[[], object]] = []
"""What is called after a step: there is nothing to do while nobody waits."""
_looking: set[int] = set()
"""Threads that look whether it is so: the locks that they take for that are no steps."""


class TellingLock:
    """A lock of Python that reports a step when it has been let go."""

    def __init__(self) -> None:
        self._lock = _lock_of_python()
        self.acquire, self.locked = self._lock.acquire, self._lock.locked

    def release(self) -> None:
        """Let go, and tell."""
        self._lock.release()
        step()

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()  # type: ignore[attr-defined]


class TellingRLock(_thread.RLock):  # type: ignore[misc]  # final in typeshed alone
    """The same for an RLock, also where a condition lets go of it."""

    def release(self) -> None:
        """Let go, and tell."""
        super().release()
        step()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _release_save(self) -> object:
        state = super()._release_save()  # type: ignore[misc]
        step()
        return state


def step() -> None:
    """Have whoever waits look again. Any thread."""
    global _count
    if not _waiting or threading.get_ident() in _looking:
        return
    with _changed:
        _count += 1
        for tell in _waiting:
            tell()


def eventually(predicate: Callable[[], object], timeout: float = SECONDS) -> None:
    """Wait until the predicate is true. Raises: AssertionError: not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    with _changed:
        _waiting.append(_changed.notify_all)
    try:
        while True:
            before = _count
            if _look(predicate):
                return
            assert _step_after(before, deadline - time.monotonic()), f"still not true after {timeout} s"
    finally:
        with _changed:
            _waiting.remove(_changed.notify_all)


async def eventually_in_loop(predicate: Callable[[], object], timeout: float = SECONDS) -> None:
    """Wait as :func:`eventually` does, in a task of a running event loop."""
    loop, again = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(again.set)

    with _changed:
        _waiting.append(tell)
    try:
        async with asyncio.timeout(timeout):
            while not _look(predicate):
                await again.wait()
                again.clear()
    except TimeoutError:
        raise AssertionError(f"still not true after {timeout} s") from None
    finally:
        with _changed:
            _waiting.remove(tell)


def _step_after(count: int, seconds: float) -> bool:
    """Wait for the next step after that one; ``False``: there was none in so many seconds."""

    def later() -> bool:
        return _count != count

    with _changed:
        return _changed.wait_for(later, seconds)


def _look(predicate: Callable[[], object]) -> object:
    me = threading.get_ident()
    _looking.add(me)
    try:
        return predicate()
    finally:
        _looking.discard(me)


@pytest.fixture(scope="module", autouse=True)
def steps() -> Iterator[None]:
    """Locks that modules of ``device_sdk`` make from now on tell of each step."""

    def maker(telling: Callable[[], Any], plain: Callable[[], Any]) -> Callable[[], Any]:
        def make() -> Any:
            whose = sys._getframe(1).f_globals["__name__"]
            return telling() if whose.startswith("device_sdk.") else plain()

        return make

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "Lock", maker(TellingLock, _lock_of_python))
        patch.setattr(threading, "RLock", maker(TellingRLock, _rlock_of_python))
        yield


def _in_a_child() -> None:
    """After a fork the other threads, which may have been in the middle of a step, are gone."""
    global _changed
    _changed = threading.Condition()
    _waiting.clear()


os.register_at_fork(after_in_child=_in_a_child)


def sdk_threads(prefix: str = "device-sdk ") -> list[str]:
    """Names of the threads that clients have started and that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(prefix)]


def join_threads(prefix: str = "device-sdk ", timeout: float = SECONDS) -> None:
    """Wait until no thread with such a name is alive. Raises: AssertionError: one still is."""
    deadline = time.monotonic() + timeout
    for thread in threading.enumerate():
        if thread.name.startswith(prefix):
            thread.join(max(0.0, deadline - time.monotonic()))
    assert sdk_threads(prefix) == [], f"still alive after {timeout} s"
