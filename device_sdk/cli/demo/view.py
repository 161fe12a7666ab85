"""The display of the demo: a live table on a terminal, one line per second otherwise."""

from __future__ import annotations

import importlib.util
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from device_sdk.cli.terminal import say

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LiveView", "PlainView", "Snapshot", "View", "bar", "make_view"]

_BAR_WIDTH = 30
_PLAIN_HEADING = "  time  network  node        subscriber  published  acknowledged  received  queue"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the demo at one moment. Times in seconds since the first sample."""

    elapsed: float
    seconds: float
    phase: str
    network_up: bool
    node_state: str
    subscriber_state: str
    published: int
    acknowledged: int
    queue: int
    queue_expected: int
    peak_queue: int
    received: int
    duplicates: int
    sample: str


class View(ABC):
    """Shows snapshots and remarks. ``interval`` is how often it wants a snapshot, in seconds."""

    interval: float

    @abstractmethod
    def show(self, snapshot: Snapshot) -> None:
        """Show the present state."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Show a remark that stays, for example that the network is gone."""

    @abstractmethod
    def close(self) -> None:
        """Leave the last state on the screen and give the terminal back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def make_view() -> View:
    """Return the live table if rich is installed and standard output is a terminal, else plain lines."""
    if sys.stdout.isatty() and importlib.util.find_spec("rich"):
        return LiveView()
    return PlainView()


def bar(value: int, full: int, width: int = _BAR_WIDTH) -> str:
    """Draw ``value`` as a bar whose whole width means ``full``. Anything above 0 shows at least one mark."""
    marks = min(width, -(-value * width // max(full, 1)))
    return "#" * marks + "." * (width - marks)


class PlainView(View):
    """One line per second, for logs, pipes and terminals without rich."""

    interval = 1.0

    def __init__(self) -> None:
        self._heading_due = True

    def show(self, snapshot: Snapshot) -> None:
        """Print one line, under a heading the first time."""
        if self._heading_due:
            self._heading_due = False
            say(_PLAIN_HEADING)
        s = snapshot
        network = "up" if s.network_up else "DOWN"
        say(
            f"{s.elapsed:4.0f} s  {network:<7}  {s.node_state:<10}  {s.subscriber_state:<10}"
            f"  {s.published:9}  {s.acknowledged:12}  {s.received:8}"
            f"  {s.queue:5} {bar(s.queue, s.queue_expected, 10)}  {s.sample}",
            flush=True,
        )

    def note(self, text: str) -> None:
        """Print the remark on a line of its own."""
        say(f"---- {text}", flush=True)

    def close(self) -> None:
        """Nothing to give back."""


class LiveView(View):
    """A table that is redrawn in place, four times per second."""

    interval = 0.25

    def __init__(self) -> None:
        from rich.live import Live

        # Without a thread of its own: the demo's loop redraws it.
        self._live = Live(auto_refresh=False)
        self._live.start()

    def show(self, snapshot: Snapshot) -> None:
        """Redraw the table."""
        self._live.update(_table(snapshot), refresh=True)

    def note(self, text: str) -> None:
        """Print the remark above the table."""
        self._live.console.print(f"[bold]{text}[/bold]", highlight=False)

    def close(self) -> None:
        """Keep the last table and show the cursor again."""
        self._live.stop()


def _table(s: Snapshot) -> Table:
    from rich.table import Table

    table = Table(title=f"{s.phase}, {s.elapsed:.0f} of {s.seconds:.0f} s", show_header=False, min_width=72)
    table.add_column(style="bold")
    table.add_column(min_width=54)
    table.add_row("network", "[green]up[/green]" if s.network_up else "[bold red]DOWN[/bold red]")
    table.add_row("node", f"{_coloured(s.node_state)}   {s.sample}")
    table.add_row("subscriber", _coloured(s.subscriber_state))
    table.add_row("published", f"{s.published}")
    table.add_row("acknowledged", f"{s.acknowledged}")
    table.add_row(
        "queue", f"{s.queue:4}  [yellow]{bar(s.queue, s.queue_expected)}[/yellow]  peak {s.peak_queue}"
    )
    table.add_row("received", f"{s.received}" + (f"  ({s.duplicates} twice)" if s.duplicates else ""))
    return table


def _coloured(state: str) -> str:
    colour = "green" if state == "connected" else "red"
    return f"[{colour}]{state:<12}[/{colour}]"
