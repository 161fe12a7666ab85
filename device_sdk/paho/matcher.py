"""Values by topic filter, found by topic name."""

from __future__ import annotations

from device_sdk.mqtt.topics import FilterTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["MQTTMatcher"]


class _Entry:
    """One filter's value. The tree finds entries by identity, whatever their values are equal to."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value: Any = value


class MQTTMatcher:
    """A mapping from topic filters to values, with a look-up of all filters that match a topic name.

    ``matcher[filter] = value``, ``matcher[filter]`` and ``del matcher[filter]`` work as in a dict. A shared
    subscription, ``$share/name/filter``, matches what its filter matches. Not thread-safe.

    Source: MQTT 5.0 §4.7, §4.8.2. Cost of a look-up: that of :class:`device_sdk.mqtt.topics.FilterTree`.
    """

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._tree = FilterTree()

    def __setitem__(self, key: str, value: object) -> None:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(value)
            self._tree.insert(key, entry)
        entry.value = value

    def __getitem__(self, key: str) -> Any:
        return self._entries[key].value

    def __delitem__(self, key: str) -> None:
        self._tree.remove(key, self._entries.pop(key))

    def iter_match(self, topic: str) -> Iterator[Any]:
        """Return an iterator over the values of all filters that match, in the order of their insertion.

        The values are those of now: changes of the matcher do not disturb an iteration.
        """
        return iter([entry.value for entry in self._tree.match(topic)])
