"""Text from outside, made safe for a log line, an error, an event or a terminal.

A broker, a proxy, a sensor, a file name: whoever chose such a text may have put a line end into it, and
behind it a line of the log that never was, or the sequences with which a terminal moves its cursor, or
characters that reverse the order of what follows. :func:`printable` is the one place that
knows about it. Errors, events and ``_log.py`` call it, so others need not.
"""

from __future__ import annotations

__all__ = ["LONGEST", "printable"]

LONGEST = 2_000
"""Characters at most; a longer text keeps its beginning, and its end, where errors have their advice."""


def printable(text: str, longest: int = LONGEST) -> str:
    r"""Return the text in one line of at most ``longest`` characters (100 or more), safe to show anywhere.

    What :meth:`str.isprintable` denies is written as in a Python literal (``\n``, ``\x1b``, ``\u202e``): line
    ends, control characters, those that change the direction or have no width, lone surrogates. Its own
    result stays as it is.
    """
    whole = len(text)
    if whole <= longest:
        if text.isprintable():
            return text
        shown = _escaped(text)
        if len(shown) <= longest:
            return shown
    mark = f" ... ({whole:,} characters) ... "
    tail = longest // 4
    head = longest - tail - len(mark)
    return _escaped(text[:head])[:head] + mark + _escaped(text[-tail:])[-tail:]


def _escaped(text: str) -> str:
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text])
