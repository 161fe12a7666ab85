"""Callbacks that do not keep their object alive: a dropped client is freed at once, without the collector."""

from __future__ import annotations

from weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["weakly"]


def weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a callable that calls the method while its object is there, and returns ``None`` after that."""
    # A WeakMethod would be one call more each time.
    owner, function = ref(method.__self__), method.__func__  # type: ignore[attr-defined]

    def call(*arguments: Any) -> Any:
        alive = owner()
        return None if alive is None else function(alive, *arguments)

    return call
