"""Few lines in the log for a fault that repeats: the first, then counted, then summed up."""

from __future__ import annotations

from time import monotonic

from device_sdk._log import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk._log import Log

__all__ = ["AGAIN_S", "QUIET_S", "Folding", "without_numbers"]

QUIET_S = 600.0
"""A fault that did not come again for so long is over."""

AGAIN_S = 3_600.0
"""A fault that goes on is logged at least so often."""

_MOST_DETAILS = 8  # of one kind are told apart; the others share a count
_OTHERS = ""
_NO_DIGITS = dict.fromkeys(map(ord, "0123456789"))


class Folding:
    """Writes to a log, and leaves lines out that say what was said before.

    Of the lines about one fault the 1st, 2nd, 4th, 8th ... are written, and one when an hour has passed since
    the last; from the second on with the sum: ``(4 times in 12 s)``. What was left out is summed up when the
    fault is over, as soon as any line is due after that, and by :meth:`sum_up`.

    ``kind`` and ``detail`` say what a fault is: a kind has up to eight that are told apart, and it is over
    when none of them came for ten minutes. One thread at a time; two can at worst miscount.

    Args:
        log: where the lines go.
        clock: seconds, monotonic.
        growth: the next line of a fault comes when it came so many times as often, 2 or more.
        again: or when so many seconds have passed since the last line.
        quiet: seconds after which a kind that did not come is over.
    """

    __slots__ = ("_again", "_clock", "_growth", "_kinds", "_log", "_quiet")

    def __init__(
        self,
        log: Log,
        clock: Callable[[], float] = monotonic,
        *,
        growth: int = 2,
        again: float = AGAIN_S,
        quiet: float = QUIET_S,
    ) -> None:
        self._log = log
        self._clock = clock
        self._growth = growth
        self._again = again
        self._quiet = quiet
        self._kinds: dict[str, dict[str, _Fault]] = {}

    def warning(
        self, kind: str, detail: str, text: str, *values: object, error: BaseException | None = None
    ) -> bool:
        """Log a warning, with the traceback of ``error`` if there is one. Returns: whether it was written."""
        fault, sum_ = self._count(kind, detail)
        if fault is None:
            return False
        fault.wrote(self._log.warning, text, values)
        self._log.warning(text + sum_, *values, error=error)
        return True

    def info(self, kind: str, detail: str, text: str, *values: object) -> bool:
        """Log a change of state. Returns: whether it was written."""
        fault, sum_ = self._count(kind, detail)
        if fault is None:
            return False
        fault.wrote(self._log.info, text, values)
        self._log.info(text + sum_, *values)
        return True

    def count(self, kind: str, detail: str) -> None:
        """Count one more of a fault whose line is the last that was written: it goes on."""
        self._fault(kind, detail).goes_on(self._clock())

    def sum_up(self) -> None:
        """Log the sum of each fault of which lines were left out: at an end, or where a reader asks."""
        for faults in list(self._kinds.values()):
            for fault in list(faults.values()):
                fault.sum_up()

    def _count(self, kind: str, detail: str) -> tuple[_Fault | None, str]:
        """Count one more; return the fault and what its line ends with, ``None`` if the line is left out."""
        now = self._clock()
        fault = self._fault(kind, detail)
        return (fault, fault.words()) if fault.came(now, self._growth, self._again) else (None, "")

    def _fault(self, kind: str, detail: str) -> _Fault:
        now = self._clock()
        self._forget_quiet(now)
        faults = self._kinds.setdefault(kind, {})
        if detail not in faults and len(faults) >= _MOST_DETAILS:
            detail = _OTHERS
        fault = faults.get(detail)
        if fault is None:
            fault = faults[detail] = _Fault(now)
        return fault

    def _forget_quiet(self, now: float) -> None:
        for kind, faults in list(self._kinds.items()):
            if all(now - fault.last > self._quiet for fault in list(faults.values())):
                del self._kinds[kind]
                for fault in faults.values():
                    fault.sum_up()


class _Fault:
    """One fault: how often it came, and how much of that is in the log."""

    __slots__ = ("_count", "_first", "_line", "_say", "_written", "_written_at", "last")

    def __init__(self, now: float) -> None:
        self.last = now
        self._first = now
        self._count = 0
        self._written = 0  # the count that the last line gave
        self._written_at = now
        self._say: Callable[..., None] | None = None
        self._line = ""

    def came(self, now: float, growth: int, again: float) -> bool:
        """Count one more; return whether it is to be logged."""
        self.goes_on(now)
        if self._count < growth * self._written and now - self._written_at < again:
            return False
        self._written, self._written_at = self._count, now
        return True

    def goes_on(self, now: float) -> None:
        """Count one more that is not to be logged."""
        self.last = now
        self._count += 1

    def words(self) -> str:
        """Return the sum, to stand behind a line; nothing while there is one occurrence."""
        if self._count == 1:
            return ""
        return f" ({self._count:,} times in {_duration(self.last - self._first)})"

    def wrote(self, say: Callable[..., None], text: str, values: tuple[object, ...]) -> None:
        """Keep the line for the sum at the end."""
        self._say = say
        self._line = str(shown(text % tuple(map(shown, values))))

    def sum_up(self) -> None:
        """Log the sum, if there is more than the log has."""
        if self._say is not None and self._count != self._written:
            self._written = self._count
            self._say("%s" + self.words(), self._line)


def without_numbers(text: str) -> str:
    """Return a text as a detail: two that differ in a number alone are one fault."""
    return text.translate(_NO_DIGITS)


def _duration(seconds: float) -> str:
    for unit, name in ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
