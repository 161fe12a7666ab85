"""Subscription identifiers: the broker says for which of our subscriptions it sends a message.

Source: MQTT 5.0 §3.8.2.1.2, §3.3.4 [MQTT-3.3.4-3].
"""

from __future__ import annotations

import os

from device_sdk.mqtt.topics import topic_matches

__all__ = ["SubscriptionIds"]

_HIGHEST = 268_435_455


class SubscriptionIds:
    """Which identifier stands for which topic filters, by the last SUBSCRIBE of each. Not thread-safe.

    They begin at a random number: a broker that kept the session still uses those of an earlier process.
    """

    def __init__(self) -> None:
        self._last = int.from_bytes(os.urandom(3), "big")
        self._filters: dict[int, list[str]] = {}
        self._by_filter: dict[str, int] = {}

    def new(self) -> int:
        """Return an identifier for the next SUBSCRIBE."""
        self._last = self._last % _HIGHEST + 1
        return self._last

    def assign(self, identifier: int, topic_filters: list[str]) -> None:
        """A SUBSCRIBE with this identifier has been sent: it replaces what the filters had."""
        for topic_filter in topic_filters:
            self.forget(topic_filter)
            self._by_filter[topic_filter] = identifier
        self._filters[identifier] = list(topic_filters)

    def forget(self, topic_filter: str) -> None:
        """The filter is not wanted any more, or gets another identifier."""
        identifier = self._by_filter.pop(topic_filter, None)
        if identifier is not None and identifier in self._filters:
            self._filters[identifier].remove(topic_filter)
            if not self._filters[identifier]:
                del self._filters[identifier]

    def matching(self, identifiers: tuple[int, ...], topic: str) -> list[str]:
        """Return the filters that a message is for; none if an identifier is not one of ours."""
        found: list[str] = []
        for identifier in identifiers:
            topic_filters = self._filters.get(identifier)
            if topic_filters is None:
                return []
            found += [one for one in topic_filters if topic_matches(one, topic)]
        return found
