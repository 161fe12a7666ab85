"""Arguments of a program: the longest time span, and calls whose wrong argument names are explained.

The latter by a decorator that costs one Python call, for what a program calls once, such as a constructor.
``help()`` and :func:`inspect.signature` show the bare function.
"""

from __future__ import annotations

from device_sdk._load import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Call = TypeVar("Call", bound=Callable[..., Any])

__all__ = ["LONGEST_SECONDS", "explained"]

#: Seconds of the longest time span: what the intervals of MQTT 5.0 hold, 136 years. A lock can wait for it.
LONGEST_SECONDS = 0xFFFF_FFFF

_EXPLAIN = "device_sdk._words:explain_arguments"  # only for an error: it imports inspect and difflib
_SAME = ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__")


def explained(call: Call) -> Call:
    """Decorate a function: where its arguments do not fit, the TypeError says what to write instead."""

    def checked(*arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except TypeError as error:
            traceback = error.__traceback__
            if traceback is None or traceback.tb_next is not None:  # raised inside, not by the call itself
                raise
            problem = load(_EXPLAIN)(call, arguments, options)
            if problem is None:
                raise
        raise problem

    for name in _SAME:
        setattr(checked, name, getattr(call, name))
    checked.__wrapped__ = call  # type: ignore[attr-defined]  # for inspect.signature()
    return checked  # type: ignore[return-value]
