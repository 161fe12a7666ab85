"""Parts of error texts that several rooms use. Not on the way of a client: it costs an import of difflib."""

from __future__ import annotations

import difflib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(wrong: str, known: Iterable[str]) -> str:
    """Return the known name that is near, in upper or lower case, ``""`` if none is."""
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(wrong.casefold(), list(folded), n=1)
    return folded[near[0]] if near else ""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'right'?"`` when one of the known names is near, else an empty text."""
    near = nearest(wrong, known)
    return f"; did you mean {near!r}?" if near else ""
