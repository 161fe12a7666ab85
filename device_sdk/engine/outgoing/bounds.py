"""How much may wait."""

from __future__ import annotations

from device_sdk.store.base import PAGE_BYTES, PAGE_MESSAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.outgoing.backlog import Backlog
    from device_sdk.store.base import Store, StorePolicy

__all__ = ["Bounds"]

_MEMORY_MESSAGES, _MEMORY_BYTES = 10_000, 16 * 1024 * 1024
_DISK_BYTES = 64 * 1024 * 1024
_NO_BOUND = 1 << 62


class Bounds:
    """The bounds of a backlog and of what the store has not written yet. Not thread-safe."""

    __slots__ = ("_backlog", "_store", "max_buffered", "max_bytes", "max_messages")

    def __init__(self, policy: StorePolicy, store: Store | None, backlog: Backlog) -> None:
        on_disk = store is not None and store.on_disk
        self.max_messages = policy.max_messages or (_NO_BOUND if on_disk else _MEMORY_MESSAGES)
        self.max_bytes = policy.max_bytes or (_DISK_BYTES if on_disk else _MEMORY_BYTES)
        self.max_buffered = min(self.max_bytes, _MEMORY_BYTES)  # bytes on their way to network or store
        self._store = store
        self._backlog = backlog

    def is_full(self, size: int, topic_field: bytes) -> bool:
        """Whether there is no room for a message of ``size`` bytes, in the place of the one it replaces."""
        backlog = self._backlog
        messages, total = backlog.messages, backlog.bytes + size
        if backlog.keep_last is not None and (older := backlog.keep_last.get(topic_field)) is not None:
            messages -= 1
            total -= older[1]
        if messages >= self.max_messages or total > self.max_bytes:
            return True
        store = self._store  # asked here first: a call more would be noticed in publish()
        suspect = store is not None and (store.failure or store.backlog_bytes > self.max_buffered)
        return bool(suspect) and self.store_is_behind()

    def store_is_behind(self) -> bool:
        """Whether the store holds as much in memory as is allowed, being too slow or unable to write."""
        store = self._store
        if store is None:
            return False
        failing = store.failure is not None and store.backlog_messages() >= _MEMORY_MESSAGES
        return failing or store.backlog_bytes > self.max_buffered

    def is_far_over(self) -> bool:
        """Whether more than a page waits above the bounds: more than the next page can bring back to them."""
        messages = self._backlog.messages - self.max_messages
        return messages >= PAGE_MESSAGES or self._backlog.bytes - self.max_bytes > PAGE_BYTES

    def text(self, hint: str) -> str:
        """Say how full the queue is, for an error; the hint comes last."""
        messages = "any number of" if self.max_messages == _NO_BOUND else self.max_messages
        return (
            f"the queue holds {self._backlog.messages} of {messages} messages and "
            f"{self._backlog.bytes} of {self.max_bytes} bytes; {hint}"
        )
