"""Raises an exception where the handler of a signal could: after any call, at any start and in any loop.

Python looks for signals when it enters a function, after a call of something written in C, and when it jumps
back. A trace function sees the same places, each time in the same order, so that a test can have the handler
of a signal raise at the first, the second, ... the last of them.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import device_sdk

__all__ = ["Interrupter", "in_another_thread", "places"]

_PACKAGE = str(Path(device_sdk.__file__).parent)
_CALLS = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "PRECALL"}


def in_another_thread(function: Callable[[], object]) -> None:
    """Call it there, where a lock is missed that this thread has kept; it must end within 5 s."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "it hangs"
    assert not failures, failures


def _after_calls(code: CodeType) -> frozenset[int]:
    """Return the offsets of instructions before which Python looks for signals."""
    found, before = set(), ""
    for instruction in dis.get_instructions(code):
        if before in _CALLS and instruction.opname not in _CALLS:
            found.add(instruction.offset)
        before = instruction.opname
    found.update(
        instruction.argval for instruction in dis.get_instructions(code) if "BACKWARD" in instruction.opname
    )
    return frozenset(found)


class Interrupter:
    """Calls ``handler`` at one place of what :meth:`run` runs, as if a signal had come there.

    ``reached`` says whether there was such a place, ``seen`` which one it was.
    """

    def __init__(self, place: int, handler: Callable[[], None]) -> None:
        self.reached = False
        self.seen = ""
        self._left = place
        self._handler = handler
        self._places: dict[CodeType, frozenset[int]] = {}
        self._called: set[FrameType | None] = set()  # frames whose last call was of something in Python

    def run(self, function: Callable[[], Any]) -> Any:
        """Call the function in this thread, and interrupt it."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            return function()
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        self._called.add(frame.f_back)
        goes_nowhere = code.co_name in ("<genexpr>", "__del__")  # what is raised where an object is finalized
        if self.reached or goes_nowhere or not code.co_filename.startswith(_PACKAGE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if code not in self._places:
            self._places[code] = _after_calls(code)
        self._look(frame)
        return self._step

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            returned = frame in self._called
            self._called.discard(frame)
            if not returned and frame.f_lasti in self._places[frame.f_code]:
                self._look(frame)
        return self._step

    def _look(self, frame: FrameType) -> None:
        if self.reached:
            return
        self._left -= 1
        if self._left:
            return
        self.reached = True
        self.seen = f"{frame.f_code.co_qualname}, line {frame.f_lineno}"
        trace, local = sys.gettrace(), frame.f_trace
        sys.settrace(None)
        try:
            self._handler()
        finally:
            sys.settrace(trace)
            frame.f_trace = local


def places(
    run: Callable[[Interrupter], object], handler: Callable[[], None], *, stride: int = 1
) -> list[str]:
    """Call ``run`` with an interrupter for the first place, then the second, ... until there are no more.

    ``stride``: only for each so-manieth place. Returns: where they were.
    """
    found: list[str] = []
    while True:
        interrupter = Interrupter(len(found) * stride + 1, handler)
        run(interrupter)
        if not interrupter.reached:
            return found
        found.append(interrupter.seen)
