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

    def _get(self) -> Any:
        if self._logger is None:
            import logging

            self._logger = logging.getLogger(self.name)
        return self._logger

    def _log(
        self, level: int, text: str, values: tuple[object, ...], error: BaseException | None = None
    ) -> None:
        if level >= _WARNING or "logging" in sys.modules:
            self._get().log(level, text, *values, exc_info=error)


def is_debugged(name: str) -> bool:
    """Whether somebody wants to see the debug messages of this logger."""
    logging = sys.modules.get("logging")
    return logging is not None and bool(logging.getLogger(name).isEnabledFor(_DEBUG))
