"""How much may wait."""

from __future__ import annotations

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

    __slots__ = ("_backlog", "_max_unwritten", "_store", "max_buffered", "max_bytes", "max_messages")

    def __init__(self, policy: StorePolicy, store: Store | None, backlog: Backlog) -> None:
        on_disk = store is not None and store.on_disk
        self.max_messages = policy.max_messages or (_NO_BOUND if on_disk else _MEMORY_MESSAGES)
        self.max_bytes = policy.max_bytes or (_DISK_BYTES if on_disk else _MEMORY_BYTES)
        self.max_buffered = min(self.max_bytes, _MEMORY_BYTES)  # bytes that may wait for the network
        # Bytes that may wait for the store. A smaller queue needs no second bound: they are a part of it.
        self._max_unwritten = _MEMORY_BYTES if self.max_bytes > _MEMORY_BYTES else _NO_BOUND
        self._store = store
        self._backlog = backlog

    def is_full(self, size: int, topic_field: bytes, *, in_memory: bool = True) -> bool:
        """Whether there is no room for a message of ``size`` bytes, in the place of the one it replaces.

        ``in_memory``: and not for what the store has not written.
        """
        backlog = self._backlog
        messages, total = backlog.messages, backlog.bytes + size
        if backlog.keep_last is not None and (older := backlog.keep_last.get(topic_field)) is not None:
            messages -= 1
            total -= older[1]
        if messages >= self.max_messages or total > self.max_bytes:
            return True
        store = self._store  # asked here first: a call more would be noticed in publish()
        may_be_behind = store is not None and (
            store.failure or store.backlog_bytes + size > self._max_unwritten
        )
        return bool(may_be_behind) and in_memory and self.store_is_behind(size, topic_field)

    def store_is_behind(self, size: int, topic_field: bytes) -> bool:
        """Whether the store, too slow or unable to write, would hold more in memory than it may.

        One message is always allowed: the bound of the queue is that of a large one.
        """
        store, keep_last = self._store, self._backlog.keep_last
        if store is None:
            return False
        messages, others = 1, store.backlog_bytes
        older = None if keep_last is None else keep_last.get(topic_field)
        if older is not None and store.first_unwritten(older[0] - 1) == older[0]:
            messages -= 1
            others -= older[1]
        if others > 0 and others + size > self._max_unwritten:
            return True
        return store.failure is not None and store.backlog_messages() + messages > _MEMORY_MESSAGES

    def first_unwritten(self, after: int) -> int:
        """As :meth:`Store.first_unwritten`; 0 without a store."""
        return 0 if self._store is None else self._store.first_unwritten(after)

    def text(self, hint: str) -> str:
        """Say how full the queue is, for an error; the hint comes last."""
        messages = "any number of" if self.max_messages == _NO_BOUND else self.max_messages
        return (
            f"the queue holds {self._backlog.messages} of {messages} messages and "
            f"{self._backlog.bytes} of {self.max_bytes} bytes; {hint}"
        )
