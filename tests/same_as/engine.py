"""The simulation with a note of everything: engine, broker and a bad network, see :mod:`tests.simulation`.

Of the runs with a store that takes time to write, every third has an SQLite file below it.
"""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from device_sdk import MemoryStore, SqliteStore, Store, StorePolicy
from device_sdk.store.base import SavedMessage
from tests.simulation.run import Run
from tests.simulation.tape import Note, facts_of

__all__ = ["run"]

_DISK_SECONDS = 30.0


class PromptSqliteStore(SqliteStore):
    """Has its page when it is asked for it: what its thread does takes no virtual time."""

    def __init__(self, path: Path) -> None:
        # Its clock stands still, so the thread writes when somebody waits for it, and at the end.
        super().__init__(path, StorePolicy(durability="os", min_free=0), monotonic=lambda: 0.0)
        self._told = threading.Event()
        self.on_progress = self._told.set

    def request_page(self, after: int) -> None:
        """Wait for the page."""
        self._told.clear()
        super().request_page(after)
        self._prompt: list[SavedMessage] | None = None
        while (page := super().take_page()) is None:
            if not self._told.wait(_DISK_SECONDS):
                raise TimeoutError("the store does not answer")
            self._told.clear()
        self._prompt = page

    def take_page(self) -> list[SavedMessage] | None:
        """Return the page, once."""
        page, self._prompt = self._prompt, None
        return page


def run(seed: int, note: Note) -> None:
    """Do one run. Raises: SimulationFailure: an invariant does not hold."""
    with tempfile.TemporaryDirectory(prefix="device-sdk-same-as-") as folder:

        def durable() -> Store:
            return PromptSqliteStore(Path(folder) / "queue.db") if seed % 3 == 0 else MemoryStore()

        simulation = Run(seed, note, durable)
        try:
            simulation.go()
        finally:
            if simulation.process is not None and simulation.process.store is not None:
                simulation.process.store.close()
        note("end", facts_of(simulation.figures.messages), simulation.figures.turns)
