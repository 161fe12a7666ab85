"""Loggers that load :mod:`logging` when there is something to say: it is half of the import budget.

Every line that the package logs goes through :class:`Log`, which makes the values in it safe to show.
"""

from __future__ import annotations

import sys

from device_sdk._printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Log", "is_debugged", "shown"]

_DEBUG, _INFO, _WARNING = 10, 20, 30
_CALLER = 3  # frames above Logger.log() is the function that logs


class Log:
    """The few methods of :class:`logging.Logger` that the package uses.

    While a program has not imported :mod:`logging`, nothing below a warning can be visible to it.
    A line is one line: its values may come from outside, see :func:`~device_sdk._printable.printable`. So may
    the texts of the exceptions in a traceback; of those each is one line too.
    """

    __slots__ = ("_logger", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._logger: Any = None

    def debug(self, text: str, *values: object, error: BaseException | None = None) -> None:
        """Log a detail, with the traceback of ``error`` if there is one."""
        self._log(_DEBUG, text, values, error)

    def info(self, text: str, *values: object) -> None:
        """Log a change of state."""
        self._log(_INFO, text, values)

    def warning(self, text: str, *values: object, error: BaseException | None = None) -> None:
        """Log what needs attention, with the traceback of ``error`` if there is one."""
        self._log(_WARNING, text, values, error)

    def _log(
        self, level: int, text: str, values: tuple[object, ...], error: BaseException | None = None
    ) -> None:
        if self._logger is None:
            if level >= _WARNING:
                import logging  # noqa: F401 (waits for another thread that is at it)
            self._logger = _find(self.name)
        logger = self._logger
        if logger is None or not logger.isEnabledFor(level):
            return
        safe = tuple(map(shown, values))
        if error is None:
            logger.log(level, text, *safe, stacklevel=_CALLER)
            return
        where = logger.findCaller(False, _CALLER)[:3]
        reason = (type(error), error, error.__traceback__)
        record = logger.makeRecord(self.name, level, *where[:2], text, safe, reason, where[2])
        record.exc_text = _traceback(error)  # or each formatter would write one, with line ends from outside
        logger.handle(record)


def shown(value: object) -> object:
    """Return a value as a line of the log has it: a number, or one line of text. Never raises."""
    if isinstance(value, (int, float)):
        return value
    try:
        return printable(str(value))
    except Exception:
        return f"<{type(value).__name__}>"


def is_debugged(name: str) -> bool:
    """Whether somebody wants to see the debug messages of this logger. Waits for nobody."""
    logger = _find(name)
    return logger is not None and bool(logger.isEnabledFor(_DEBUG))


def _traceback(error: BaseException) -> str:
    try:
        from device_sdk._traceback import safe_traceback

        return safe_traceback(error)
    except Exception:  # the interpreter is ending, and cannot import any more
        return type(error).__name__


def _find(name: str) -> Any:
    """Return the logger, ``None`` as long as :mod:`logging` is not imported.

    A module is in ``sys.modules`` from the beginning of its import, in another thread or, seen from the
    handler of a signal, in this one. Nobody can have set a level before its end. ``getLogger`` comes after
    everything that a logger needs.
    """
    get_logger = getattr(sys.modules.get("logging"), "getLogger", None)
    return None if get_logger is None else get_logger(name)
