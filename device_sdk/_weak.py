"""References that keep nothing alive: a dropped client is freed at once, without the collector."""

from __future__ import annotations

from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Raised = TypeVar("Raised", bound=BaseException)

__all__ = ["fresh", "unframed", "weakly"]


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callable that calls the method while its object is there, and returns ``None`` after that."""
    # A WeakMethod would be one call more each time.
    owner, function = ref(method.__self__), method.__func__  # type: ignore[attr-defined]

    def call(*arguments: Any) -> Any:
        alive = owner()
        return None if alive is None else function(alive, *arguments)

    return call


def fresh(error: Raised) -> Raised:
    """Return a copy of an error that is kept, to be raised: the frames that it passes stay with the copy.

    An instance that is raised again and again collects the frames of each time, and keeps their variables.
    """
    kind = type(error)
    copy = kind.__new__(kind, *error.args)  # without __init__: its arguments are not those of every class
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    copy.__suppress_context__ = error.__suppress_context__
    return copy


def unframed(error: Raised) -> Raised:
    """Return an error that is to be kept, without the frames that it and its causes have passed.

    A frame refers to the variables of a call, and to the frame of its caller.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error
