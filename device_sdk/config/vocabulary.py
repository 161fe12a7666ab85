"""The types of the values in a configuration.

Each function returns the ``Meta`` of a type, and each bound is written there once: the check, the "expected"
of a fault and the JSON Schema are made from it::

    class Broker(Table, kw_only=True):
        connect_timeout: Annotated[float, seconds("10s", 1, 600)] = 10.0
        keep_alive: Annotated[int, whole_seconds("60s", 0, 65_535)] = 60

    # connect_timeout: expected seconds or "10s", "1s" to "10m", found "soon"
"""

from __future__ import annotations

from typing import Annotated

from device_sdk.config.convert import DURATION, Meta
from device_sdk.config.durations import DURATION_PATTERN, spell_duration

__all__ = [
    "File",
    "Name",
    "NotEmpty",
    "above",
    "bus_address",
    "name_of",
    "seconds",
    "text_like",
    "url_like",
    "whole_number",
    "whole_seconds",
]

# The beginning of a URL. The transport checks the rest of it, with better words than "expected".
_URL_PATTERN = "^[A-Za-z][A-Za-z0-9+.-]*:"
# If the bounds are this close, the numbers between them are listed.
_FEW = range(1, 4)


def seconds(example: str, lowest: float, highest: float, word: str = "") -> Meta:
    """Of a ``float``: seconds, or a text such as the example; ``word``: one that the type allows too."""
    bounds = f'"{spell_duration(lowest)}" to' if lowest else "at most"
    description = f'seconds or "{example}", {bounds} "{spell_duration(highest)}"'
    if word:
        description += f'; or "{word}"'
    return _duration(example, lowest, highest, description)


def whole_seconds(example: str, lowest: int, highest: int) -> Meta:
    """Of an ``int``: whole seconds, or a text such as the example."""
    description = f'whole seconds or "{example}", {lowest} to {highest}'
    return _duration(example, lowest, highest, description)


def _duration(example: str, lowest: float, highest: float, description: str) -> Meta:
    schema = {"pattern": DURATION_PATTERN, "examples": [example]}
    return Meta(ge=lowest, le=highest, description=description, extra=DURATION, extra_json_schema=schema)


def whole_number(lowest: int, highest: int | None = None) -> Meta:
    """Of an ``int``."""
    if highest is None:
        description = f"a whole number from {lowest}"
    elif highest - lowest in _FEW:
        description = f"{', '.join(map(str, range(lowest, highest)))} or {highest}"
    else:
        description = f"a whole number from {lowest} to {highest}"
    return Meta(ge=lowest, le=highest, description=description)


def above(bound: float, what: str) -> Meta:
    """Of a ``float``: more than ``bound``. ``what``: "messages a second"."""
    return Meta(gt=bound, description=f"{what}, above {bound:g}")


def bus_address(lowest: int, highest: int) -> Meta:
    """Of an ``int``: an address on a bus."""
    return Meta(ge=lowest, le=highest, description=f"an address from {lowest:#04x} to {highest:#04x}")


def name_of(longest: int, characters: str, words: str) -> Meta:
    """Of a ``str``: from 1 up to ``longest`` of the ``characters``, which ``words`` are for people."""
    pattern = f"^[{characters}]{{1,{longest}}}$"
    return Meta(pattern=pattern, description=f"a name of 1 to {longest} {words}")


def url_like(example: str) -> Meta:
    """Of a ``str``; the transport checks it more closely."""
    schema = {"pattern": _URL_PATTERN, "examples": [example]}
    return Meta(description=f'a URL such as "{example}"', extra_json_schema=schema)


def text_like(what: str, example: str) -> Meta:
    """Of a ``str`` that is not empty: ``what`` it is, "a bus", and an example."""
    return Meta(min_length=1, description=f'{what} such as "{example}"', examples=[example])


Name = Annotated[str, name_of(64, "A-Za-z0-9_.-", "letters, digits, '_', '-' and '.'")]
NotEmpty = Annotated[str, Meta(min_length=1)]
File = Annotated[str, Meta(min_length=1, description="the path of a file")]
