"""Samples in the order in which they were taken, in a store that survives a kill and a power cut.

The store is that of the queue, in a file of its own: it brings its checksums, its care for full and broken
disks, and ``device-sdk queue peek``. A sample is in the file until the queue has it safely, so a kill in
between repeats it and never loses it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from device_sdk._folding import Folding
from device_sdk._log import Log
from device_sdk.errors import StoreError
from device_sdk.node.sample import unpack
from device_sdk.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_sdk import Delivery
    from device_sdk.node.sample import Sample
    from device_sdk.store.base import SavedMessage, Store

__all__ = ["WaitingRoom"]

# How long a page of the file may take.
_PAGE_S = 10.0

log = Log("device_sdk.node")


class WaitingRoom:
    """A queue of samples. One thread.

    It holds everything in memory as well, so its bounds are bounds of memory too.

    Args:
        make_store: of its file, not opened; it is called by :meth:`open` with whether samples have to wait.
            Else the file matters only if some wait since the last run.
        max_samples, max_bytes: bounds of what :meth:`is_over` calls too much.
    """

    def __init__(self, make_store: Callable[[bool], Store], max_samples: int, max_bytes: int) -> None:
        self._make_store = make_store
        self._max_samples = max_samples
        self._max_bytes = max_bytes
        self._store: Store = MemoryStore()
        self._waiting: deque[tuple[int, int, Sample]] = deque()  # sequence number, bytes, sample
        self._leaving: deque[tuple[int, Delivery]] = (
            deque()
        )  # are in the file, until the queue has stored them
        self._bytes = 0
        self._sequence = 0
        self._number = 0  # of the last change

    def open(self, wanted: bool = True) -> None:
        """Take over what waits in the file; ``wanted``: samples have to wait.

        If it cannot be opened, the log says so and memory has to do.
        """
        try:
            store = self._make_store(wanted)
            saved = store.open()
        except StoreError as error:
            log.warning("%s; samples that wait for the time are kept in memory", error)
            store = MemoryStore()
            saved = store.open()
        self._store = store
        self._sequence = saved.next_sequence - 1
        folding = Folding(log)
        for message in _all_messages(store, saved.messages):
            try:
                self._recover(message)
            except ValueError as error:
                text = "a sample that waited for the time cannot be read and is lost: %s"
                folding.warning("unreadable", "", text, error)
                self._submit("done", message.sequence, "dropped")
        folding.sum_up()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def head(self) -> Sample:
        """The sample that has waited the longest."""
        return self._waiting[0][2]

    @property
    def keeps(self) -> bool:
        """Whether what waits is there after a restart."""
        return self._store.on_disk

    @property
    def is_over(self) -> bool:
        """Whether more wait than the bounds allow."""
        return len(self._waiting) > self._max_samples or self._bytes > self._max_bytes

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left in the file."""
        return not self._waiting and not self._leaving

    def add(self, sample: Sample, body: bytes) -> None:
        """Append a sample; ``body`` is the sample packed."""
        self._sequence += 1
        topic = sample.topic.encode()
        field = len(topic).to_bytes(2, "big") + topic
        flags = sample.qos << 1 | sample.retain
        self._submit("message", self._sequence, field, body, flags, b"\0", None)
        self._append(sample, len(field) + len(body))

    def leave(self, delivery: Delivery | None) -> None:
        """Take the first sample away. It stays in the file until its ``delivery`` is stored or done.

        ``None``: the sample is of no use any more, or the queue is in memory.
        """
        sequence, size, _ = self._waiting.popleft()
        self._bytes -= size
        if delivery is None:
            self._submit("done", sequence, "acknowledged")
        else:
            self._leaving.append((sequence, delivery))

    def settle(self) -> None:
        """Take out of the file what the queue has stored by now."""
        while self._leaving and self._leaving[0][1].state != "queued":
            self._submit("done", self._leaving.popleft()[0], "acknowledged")

    def close(self) -> None:
        """Write what is not written yet, and close the file."""
        self.settle()
        self._store.close()

    def _submit(self, *change: object) -> None:
        self._number += 1
        self._store.submit([change], self._number)

    def _append(self, sample: Sample, size: int) -> None:
        self._waiting.append((self._sequence, size, sample))
        self._bytes += size

    def _recover(self, message: SavedMessage) -> None:
        field, body = message.topic_field, message.payload
        sample = unpack(field[2:].decode(), message.flags >> 1 & 3, bool(message.flags & 1), body)
        self._waiting.append((message.sequence, len(field) + len(body), sample))
        self._bytes += len(field) + len(body)


def _all_messages(store: Store, page: list[SavedMessage]) -> Iterator[SavedMessage]:
    """Go through the first page and those behind it."""
    turned = threading.Event()
    store.on_progress = turned.set
    while page:
        yield from page
        store.request_page(page[-1].sequence)
        while (following := store.take_page()) is None:
            if not turned.wait(_PAGE_S):
                log.warning("the disk does not answer: samples that wait for the time are left in their file")
                return
            turned.clear()
        page = following
    store.on_progress = None
