"""Name look-ups that end in time: each in a thread of its own, and few for one name.

``getaddrinfo()`` can neither be interrupted nor bounded: a name server that does not answer holds it for up
to minutes, another source of names for ever. So its caller waits until a deadline or an abort and leaves the
thread behind. While :data:`MOST_FOR_ONE_NAME` of them hang no other begins: the next callers wait for the
youngest.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

from device_sdk._weak import fresh, unframed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.net.attempt import StreamAttempt

    Question = tuple[bytes, int, int]

__all__ = ["MOST_FOR_ONE_NAME", "LookUpTimeout", "look_up"]

MOST_FOR_ONE_NAME = 4

_lock = threading.Lock()
_running: dict[Question, list[_LookUp]] = {}


class LookUpTimeout(Exception):
    """A look-up that has not ended in time; its text says since when."""


def look_up(host: bytes, port: int, family: int, attempt: StreamAttempt, deadline: float) -> list[Any]:
    """Return the addresses of a host as :func:`socket.getaddrinfo` does, for stream sockets.

    Raises: OSError, UnicodeError: as that. LookUpTimeout: not by ``deadline``, or the attempt was cancelled.
    """
    if _is_address(host):
        return socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    over = threading.Event()
    attempt.when_cancelled(over.set)
    current = _join_or_begin((host, port, family), over)
    over.wait(max(deadline - time.monotonic(), 0.0))
    if current.error is not None:
        raise fresh(current.error)
    if current.found is None:
        raise LookUpTimeout(f"{time.monotonic() - current.began:.0f} s")
    return current.found


class _LookUp:
    """One call of getaddrinfo(): ``found`` or ``error`` are set, then everybody in ``waiting`` is told."""

    __slots__ = ("began", "error", "found", "question", "waiting")

    def __init__(self, question: Question) -> None:
        self.question = question
        self.began = time.monotonic()
        self.found: list[Any] | None = None
        self.error: Exception | None = None
        self.waiting: list[threading.Event] = []

    def run(self) -> None:
        host, port, family = self.question
        try:
            self.found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        except Exception as error:
            self.error = unframed(error)
        with _lock:
            running = _running.get(self.question, [])
            if self in running:  # not after a fork
                running.remove(self)
            if not running:
                _running.pop(self.question, None)
            waiting = list(self.waiting)
        for over in waiting:
            over.set()


def _join_or_begin(question: Question, over: threading.Event) -> _LookUp:
    with _lock:
        running = _running.setdefault(question, [])
        if len(running) >= MOST_FOR_ONE_NAME:
            running[-1].waiting.append(over)
            return running[-1]
        begun = _LookUp(question)
        begun.waiting.append(over)
        running.append(begun)
    try:
        threading.Thread(target=begun.run, name="device-sdk look-up", daemon=True).start()
    except RuntimeError:  # no more threads
        begun.error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        with _lock:
            running.remove(begun)
        over.set()
    return begun


def _is_address(host: bytes) -> bool:
    """Whether this needs no look-up: then it cannot hang either."""
    text = host.decode("ascii", "replace").partition("%")[0]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _forget_all() -> None:
    """In a forked child the threads are gone."""
    global _lock
    _lock = threading.Lock()
    _running.clear()


os.register_at_fork(after_in_child=_forget_all)
