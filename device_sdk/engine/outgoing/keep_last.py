"""Topics of which only the newest message waits (``StorePolicy.keep_last``)."""

from __future__ import annotations

from device_sdk.mqtt.topics import topic_matches, validate_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KeepLast"]

_CACHE_SIZE = 1_000
_SIZE_BITS = (
    32  # of the number that a topic has, behind its sequence number: a pair would take twice the memory
)


class KeepLast:
    """Which message waits on each of the topics that match one of the filters. Not thread-safe.

    ``by_sequence``: it is asked by sequence number too, see :meth:`discard_sequence`.

    Raises: ArgumentError: a topic filter that is not one.
    """

    __slots__ = ("_applies", "_filters", "_topics", "_waiting")

    def __init__(self, topic_filters: tuple[str, ...], *, by_sequence: bool = False) -> None:
        for topic_filter in topic_filters:
            validate_filter(topic_filter)
        self._filters = topic_filters
        self._applies: dict[bytes, bool] = {}
        self._waiting: dict[bytes, int] = {}  # sequence number and bytes in one
        self._topics: dict[int, bytes] | None = {} if by_sequence else None

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
        self._waiting[topic_field] = sequence << _SIZE_BITS | size
        if self._topics is not None:
            self._topics[sequence] = topic_field

    def get(self, topic_field: bytes) -> tuple[int, int] | None:
        """Return sequence number and bytes of what waits on the topic."""
        found = self._waiting.get(topic_field)
        return None if found is None else _pair(found)

    def pop(self, topic_field: bytes) -> tuple[int, int] | None:
        """Forget what waits on the topic and return its sequence number and bytes."""
        packed = self._waiting.pop(topic_field, None)
        if packed is None:
            return None
        found = _pair(packed)
        if self._topics is not None:
            self._topics.pop(found[0], None)
        return found

    def discard(self, topic_field: bytes, sequence: int) -> None:
        """Forget this message, if it is the one that waits."""
        if self._waiting.get(topic_field, 0) >> _SIZE_BITS == sequence:
            self.pop(topic_field)

    def discard_sequence(self, sequence: int) -> None:
        """As :meth:`discard`, for a message whose topic the caller does not know."""
        topic_field = None if self._topics is None else self._topics.get(sequence)
        if topic_field is not None:
            self.discard(topic_field, sequence)

    def forget(self, kept: set[int], through: int) -> None:
        """Forget the messages up to this sequence number, but for those that are kept."""
        self._waiting = {
            topic_field: found
            for topic_field, found in self._waiting.items()
            if found >> _SIZE_BITS > through or found >> _SIZE_BITS in kept
        }
        self._index()

    def restore(self, waiting: Mapping[bytes, tuple[int, int]]) -> None:
        """Take over what waits since an earlier process."""
        for topic_field, (sequence, size) in waiting.items():
            self._waiting[topic_field] = sequence << _SIZE_BITS | size
        self._index()

    def _index(self) -> None:
        if self._topics is not None:
            self._topics = {found >> _SIZE_BITS: topic for topic, found in self._waiting.items()}


def _pair(packed: int) -> tuple[int, int]:
    return packed >> _SIZE_BITS, packed & (1 << _SIZE_BITS) - 1
