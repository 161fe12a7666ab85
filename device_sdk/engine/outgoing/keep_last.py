"""Topics of which only the newest message waits (``StorePolicy.keep_last``)."""

from __future__ import annotations

from device_sdk.mqtt.topics import topic_matches, validate_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KeepLast"]

_CACHE_SIZE = 1_000


class KeepLast:
    """Which message waits on each of the topics that match one of the filters. Not thread-safe.

    Raises: ArgumentError: a topic filter that is not one.
    """

    __slots__ = ("_applies", "_filters", "_waiting")

    def __init__(self, topic_filters: tuple[str, ...]) -> None:
        for topic_filter in topic_filters:
            validate_filter(topic_filter)
        self._filters = topic_filters
        self._applies: dict[bytes, bool] = {}
        self._waiting: dict[bytes, tuple[int, int]] = {}

    def applies(self, topic_field: bytes) -> bool:
        """Whether one of the filters matches the topic."""
        known = self._applies.get(topic_field)
        if known is None:
            topic = topic_field[2:].decode()
            if len(self._applies) >= _CACHE_SIZE:
                self._applies.clear()
            known = self._applies[topic_field] = any(topic_matches(one, topic) for one in self._filters)
        return known

    def put(self, topic_field: bytes, sequence: int, size: int) -> None:
        """Note that this message of so many bytes waits now."""
        self._waiting[topic_field] = (sequence, size)

    def get(self, topic_field: bytes) -> tuple[int, int] | None:
        """Return sequence number and bytes of what waits on the topic."""
        return self._waiting.get(topic_field)

    def pop(self, topic_field: bytes) -> tuple[int, int] | None:
        """Forget what waits on the topic and return its sequence number and bytes."""
        return self._waiting.pop(topic_field, None)

    def discard(self, topic_field: bytes, sequence: int) -> None:
        """Forget this message, if it is the one that waits."""
        if self._waiting.get(topic_field, (0, 0))[0] == sequence:
            del self._waiting[topic_field]

    def forget(self, kept: set[int], through: int) -> None:
        """Forget the messages up to this sequence number, but for those that are kept."""
        self._waiting = {
            topic_field: found
            for topic_field, found in self._waiting.items()
            if found[0] > through or found[0] in kept
        }

    def restore(self, waiting: Mapping[bytes, tuple[int, int]]) -> None:
        """Take over what waits since an earlier process."""
        self._waiting.update(waiting)
