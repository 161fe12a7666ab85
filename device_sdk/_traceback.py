"""Tracebacks in which the text of an exception is one line. Loads :mod:`traceback`."""

from __future__ import annotations

from traceback import TracebackException
from typing import TYPE_CHECKING, Any

from device_sdk._printable import printable

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["safe_traceback"]


class _Safe(TracebackException):
    """Without the line ends and control characters that the text of an exception brings along."""

    def format_exception_only(self, **options: Any) -> Generator[str, None, None]:
        indent = ""
        for line in super().format_exception_only(**options):
            yield f"{indent}{printable(line.removesuffix(chr(10)))}\n"
            indent = "    "  # a note of the exception; at the left margin it could be a line of the log


def safe_traceback(error: BaseException) -> str:
    """Return the traceback of an exception and of those that led to it, as Python prints it."""
    whole = TracebackException.from_exception(error)
    each = [whole]
    for found in each:
        found.__class__ = _Safe  # the constructor makes the causes of its own class, whatever ours is
        each += [cause for cause in (found.__cause__, found.__context__) if cause is not None]
        each += found.exceptions or ()
    return "".join(whole.format()).rstrip("\n")
