"""Loggers that load :mod:`logging` when there is something to say: it is half of the import budget."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Log", "is_debugged"]

_DEBUG, _INFO, _WARNING = 10, 20, 30


class Log:
    """The few methods of :class:`logging.Logger` that the package uses.

    While a program has not imported :mod:`logging`, nothing below a warning can be visible to it.
    """

    __slots__ = ("_logger", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._logger: Any = None

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
        if self._logger is not None:
            self._logger.log(level, text, *values, exc_info=error)


def is_debugged(name: str) -> bool:
    """Whether somebody wants to see the debug messages of this logger. Waits for nobody."""
    logger = _find(name)
    return logger is not None and bool(logger.isEnabledFor(_DEBUG))


def _find(name: str) -> Any:
    """Return the logger, ``None`` as long as :mod:`logging` is not imported.

    A module is in ``sys.modules`` from the beginning of its import, in another thread or, seen from the
    handler of a signal, in this one. Nobody can have set a level before its end. ``getLogger`` comes after
    everything that a logger needs.
    """
    get_logger = getattr(sys.modules.get("logging"), "getLogger", None)
    return None if get_logger is None else get_logger(name)
