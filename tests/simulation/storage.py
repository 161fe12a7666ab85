"""A store that takes virtual time to write, fails for a while, and loses power."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from device_sdk.errors import StoreError
from device_sdk.store.base import SavedMessage, Store
from tests.simulation.timeline import Timeline
from tests.store.doubles import SlowStore

__all__ = ["SimulatedStore"]

Watch = Callable[[int, tuple[Any, ...]], None]


class SimulatedStore(SlowStore):
    """Commits in batches, some time after it was handed the changes.

    ``watch`` is told each change and its number.
    """

    on_disk = True

    def __init__(
        self,
        timeline: Timeline,
        dice: Random,
        delay: float,
        watch: Watch,
        durable: Store | None = None,
    ) -> None:
        super().__init__(durable)
        self.delay = delay
        self._timeline = timeline
        self._dice = dice
        self._watch = watch
        self._over = False
        self._planned = False
        self._page_after: int | None = None
        self._page_ready = False

    def submit(self, changes: Sequence[tuple[Any, ...]], number: int) -> None:
        """Take changes."""
        first = self.submitted + 1
        super().submit(changes, number)
        for index, change in enumerate(changes):
            self._watch(first + index, change)
        self._plan(self.delay)

    def request_page(self, after: int) -> None:
        """Read a little later, when everything handed over before is durable."""
        self._page_after, self._page_ready = after, False
        self._timeline.after(self.delay * self._dice.random(), self._read_page)

    def take_page(self) -> list[SavedMessage] | None:
        """Return the page once it was read."""
        return super().take_page() if self._page_ready else None

    def fail(self, seconds: float) -> None:
        """Write nothing for a while."""
        self.failure = StoreError("no space left on device")
        self._progress()
        self._timeline.after(seconds, self.recover)

    def recover(self) -> None:
        """Write everything that was kept in memory."""
        if self._over or self.failure is None:
            return
        self.commit()
        self.failure = None
        self._progress()
        if self._page_after is not None:
            self._read_page()

    def cut_power(self) -> Store:
        """Forget what is not durable; return the store that the next process finds."""
        self._over = True
        return super().cut_power()

    def close(self) -> None:
        """Make everything durable."""
        self._over = True
        super().close()

    def _plan(self, delay: float) -> None:
        if not (self._planned or self._over):
            self._planned = True
            self._timeline.after(delay, self._write)

    def _write(self) -> None:
        """Make a part of what waits durable, from the front."""
        self._planned = False
        if self._over or self.failure is not None:
            return
        waiting = self.submitted - self.durable_through
        self.commit(waiting if self._dice.random() < 0.7 else self._dice.randint(0, waiting))
        if self.durable_through < self.submitted:
            self._plan(self.delay)
        self._progress()

    def _read_page(self) -> None:
        if self._over or self.failure is not None or self._page_after is None:
            return
        after, self._page_after = self._page_after, None
        super().request_page(after)
        self._page_ready = True
        self._progress()

    def _progress(self) -> None:
        if self.on_progress is not None:
            self.on_progress()
