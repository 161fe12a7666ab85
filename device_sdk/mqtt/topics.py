"""Topic names and topic filters: validity, matching, and a look-up over many filters.

Source: MQTT 5.0 §4.7 (names, wildcards), §4.8.2 (shared subscriptions).
"""

from __future__ import annotations

from device_sdk.errors import ArgumentError, ArgumentTypeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "MAX_LEVELS",
    "FilterTree",
    "filter_problem",
    "shared_filter",
    "topic_matches",
    "topic_problem",
    "validate_filter",
    "validate_topic",
]

#: More levels than this are refused: no real topic has them, and a server that recurses over them dies.
MAX_LEVELS = 200

_MAX_BYTES = 65_535


def topic_problem(topic: str) -> str | None:
    """Return the fault of a topic name, or ``None``. Does not check its length in bytes.

    Source: MQTT 5.0 §4.7.1 [MQTT-3.3.2-2], §4.7.3 [MQTT-4.7.3-1] [MQTT-4.7.3-2].
    """
    if not topic:
        return "must have at least one character"
    if "#" in topic or "+" in topic:
        return f"{_shown(topic)} has a wildcard; '#' and '+' belong in topic filters"
    if "\0" in topic:
        return f"{_shown(topic)} has a NUL character (U+0000)"
    return None


def filter_problem(topic_filter: str) -> str | None:
    """Return the fault of a topic filter, or ``None``. Does not check its length in bytes.

    Source: MQTT 5.0 §4.7.1 [MQTT-4.7.1-1] [MQTT-4.7.1-2], §4.8.2 [MQTT-4.8.2-1] [MQTT-4.8.2-2].
    """
    if not topic_filter:
        return "must have at least one character"
    if "\0" in topic_filter:
        return f"{_shown(topic_filter)} has a NUL character (U+0000)"
    levels = topic_filter.split("/")
    if levels[0] == "$share" and len(levels) > 1:
        if len(levels) < 3 or not levels[1] or levels[2:] == [""]:
            return f"{_shown(topic_filter)} must have the form $share/name/filter"
        if "#" in levels[1] or "+" in levels[1]:
            return f"{_shown(topic_filter)} has a wildcard in its share name"
    for level in levels[:-1]:
        if "#" in level:
            return f"{_shown(topic_filter)} has a '#' that is not its last level"
        if "+" in level and level != "+":
            return f"{_shown(topic_filter)} has a '+' that does not fill its level"
    last = levels[-1]
    if ("#" in last or "+" in last) and len(last) > 1:
        return f"{_shown(topic_filter)} has a wildcard that does not fill its level"
    return None


def validate_topic(topic: str, argument: str = "topic") -> bytes:
    """Check a topic name to publish to and return it as UTF-8.

    Raises: ArgumentTypeError: not a str. ArgumentError: empty, longer than 65,535 bytes, more than 200
    levels, a wildcard, a NUL or a surrogate; ``argument`` is the name that the error shows.
    """
    return _validated(topic, topic_problem, argument)


def validate_filter(topic_filter: str, argument: str = "topic") -> bytes:
    """Check a topic filter to subscribe to and return it as UTF-8.

    ``$share/name/filter`` is checked as a shared subscription.
    Raises: ArgumentTypeError and ArgumentError as :func:`validate_topic` does, and for a misplaced wildcard.
    """
    return _validated(topic_filter, filter_problem, argument)


def _validated(text: str, problem_of: Any, argument: str) -> bytes:
    if not isinstance(text, str):
        raise ArgumentTypeError(argument, f"must be a str, not {type(text).__name__}")
    problem = problem_of(text)
    if problem is not None:
        raise ArgumentError(argument, problem)
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise ArgumentError(argument, f"{_shown(text)} has a surrogate, which UTF-8 cannot hold") from None
    if len(encoded) > _MAX_BYTES:
        raise ArgumentError(argument, f"is {len(encoded):,} bytes long; the limit is {_MAX_BYTES:,}")
    if text.count("/") >= MAX_LEVELS:
        raise ArgumentError(argument, f"has {text.count('/') + 1} levels; the limit is {MAX_LEVELS}")
    return encoded


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")


def shared_filter(topic_filter: str) -> str:
    """Return the filter that messages are matched against: ``$share/name/a/#`` gives ``a/#``.

    A filter that is not shared comes back as it is. Source: MQTT 5.0 §4.8.2.
    """
    if not topic_filter.startswith("$share/"):
        return topic_filter
    return topic_filter.split("/", 2)[-1]


def topic_matches(topic_filter: str, topic: str) -> bool:
    """Return whether a topic filter matches a topic name.

    A wildcard in the first level never matches a topic that begins with ``$``.
    Source: MQTT 5.0 §4.7.1, §4.7.2 [MQTT-4.7.2-1].
    """
    topic_filter = shared_filter(topic_filter)
    if topic[:1] == "$" and topic_filter[:1] in ("#", "+"):
        return False
    levels = topic.split("/")
    wanted = topic_filter.split("/")
    if wanted[-1] == "#":
        # "a/#" also matches "a" itself, the parent level.
        del wanted[-1]
        if len(levels) < len(wanted):
            return False
    elif len(levels) != len(wanted):
        return False
    return all(want in ("+", have) for want, have in zip(wanted, levels, strict=False))


class _Node:
    """One level of the trie: children by level, the values of filters that end here, or here with ``#``."""

    __slots__ = ("children", "ending", "rest")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.ending: dict[int, Any] = {}
        self.rest: dict[int, Any] = {}


class FilterTree:
    """Values by topic filter; finds those whose filters match a topic name.

    The same value may be inserted more than once, under one filter or several. Shared subscriptions
    (``$share/name/filter``) match by their inner filter. Filters must be valid. Not thread-safe.

    Cost: filters without wildcards are one dictionary look-up, however many there are; filters with
    wildcards cost about one look-up per level that some filter shares with the topic. Iterative, so the
    number of levels is no risk.
    """

    def __init__(self) -> None:
        self._exact: dict[str, dict[int, Any]] = {}
        self._root = _Node()
        self._sequence = 0

    def insert(self, topic_filter: str, value: object) -> None:
        """Add a value under a topic filter."""
        self._sequence += 1
        inner = shared_filter(topic_filter)
        if "#" not in inner and "+" not in inner:
            self._exact.setdefault(inner, {})[self._sequence] = value
            return
        node = self._root
        levels = inner.split("/")
        multi = levels[-1] == "#"
        for level in levels[:-1] if multi else levels:
            node = node.children.setdefault(level, _Node())
        (node.rest if multi else node.ending)[self._sequence] = value

    def remove(self, topic_filter: str, value: object) -> None:
        """Remove the oldest insertion of this value under this filter; an unknown one is ignored."""
        inner = shared_filter(topic_filter)
        if "#" not in inner and "+" not in inner:
            values = self._exact.get(inner)
            if values is not None:
                _discard(values, value)
                if not values:
                    del self._exact[inner]
            return
        levels = inner.split("/")
        multi = levels[-1] == "#"
        path = [self._root]
        for level in levels[:-1] if multi else levels:
            child = path[-1].children.get(level)
            if child is None:
                return
            path.append(child)
        _discard(path[-1].rest if multi else path[-1].ending, value)
        self._prune(path, levels)

    def match(self, topic: str) -> list[Any]:
        """Return the values of all filters that match, in the order in which they were inserted."""
        exact = self._exact.get(topic)
        root = self._root
        if not root.children and not root.rest:
            return list(exact.values()) if exact else []
        found = self._match_wildcards(topic)
        if exact:
            found.append(exact)
        if not found:
            return []
        if len(found) == 1:
            return list(found[0].values())
        merged: dict[int, Any] = {}
        for values in found:
            merged.update(values)
        return [merged[sequence] for sequence in sorted(merged)]

    def _match_wildcards(self, topic: str) -> list[dict[int, Any]]:
        levels = topic.split("/")
        root = self._root
        found: list[dict[int, Any]] = []
        if topic[:1] == "$":
            # [MQTT-4.7.2-1]: a leading wildcard does not match topics that begin with "$".
            first = root.children.get(levels.pop(0))
            nodes = [] if first is None else [first]
        else:
            nodes = [root]
        for level in levels:
            following = []
            for node in nodes:
                if node.rest:
                    found.append(node.rest)
                children = node.children
                child = children.get(level)
                if child is not None:
                    following.append(child)
                child = children.get("+")
                if child is not None:
                    following.append(child)
            if not following:
                return found
            nodes = following
        for node in nodes:
            if node.ending:
                found.append(node.ending)
            if node.rest:
                found.append(node.rest)
        return found

    @staticmethod
    def _prune(path: list[_Node], levels: list[str]) -> None:
        """Drop the branch that a removal left empty, from its leaf upwards."""
        for depth in range(len(path) - 1, 0, -1):
            node = path[depth]
            if node.children or node.ending or node.rest:
                return
            del path[depth - 1].children[levels[depth - 1]]


def _discard(values: dict[int, Any], value: object) -> None:
    for sequence, candidate in values.items():
        if candidate is value or candidate == value:
            del values[sequence]
            return
