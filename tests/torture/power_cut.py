"""Power cuts: is everything that the store called durable still there, and nothing else?

    python -m tests.torture.power_cut [--mode sync] [--points 200] [--changes 600] [--seed 1]

A child process feeds a store on a recorded disk with the changes of a client, and notes after each batch what
the store calls durable. Then the power goes at random moments. What a new process finds has to be the state
after *some* number of changes, in their order: not fewer than were durable, not more than were submitted.

The mode ``os`` never flushes: it is the control that has to lose something, or the harness shows nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from device_sdk.store.base import SavedSession, Store, StorePolicy
from device_sdk.store.memory import MemoryStore
from device_sdk.store.sqlite import SqliteStore
from tests.store.contract import STEPS, History, saved_facts
from tests.torture.crash_disk import MEMORY, HarnessError, Recording, mounted, recorded_disk, what_is_missing

__all__ = ["MODES", "Result", "cut_power"]

MODES = ("sync", "batch", "os")
_BATCH = 6
_DEADLINE_S = 60.0

Change = tuple[Any, ...]


class Result:
    """What the power cuts of one mode showed."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.points = 0
        self.lost = 0  # cuts after which something durable was missing
        self.impossible = 0  # cuts after which the state was none that there had been
        self.unopened = 0  # cuts after which the store could not be opened
        self.empty = 0  # cuts after which there was nothing, although changes had been submitted
        self.examples: list[str] = []

    def __str__(self) -> str:
        return (
            f"{self.mode}: {self.points} power cuts; something durable missing after {self.lost}, "
            f"impossible state after {self.impossible}, not to be opened after {self.unopened}, "
            f"empty after {self.empty}"
        )


def batches(seed: int, count: int) -> list[list[Change]]:
    """Return the changes of a client with this seed, in the batches in which they are submitted."""
    dice = random.Random(seed)
    history = History()
    made: list[list[Change]] = []
    total = 0
    while total < count:
        batch = [
            change
            for _ in range(dice.randint(1, _BATCH))
            for change in history.changes(dice.choice(STEPS), dice.randint(0, 50))
        ]
        total += len(batch)
        if batch:
            made.append(batch)
    return made


def work(mode: str, folder: str, log: str, seed: int, count: int) -> None:
    """Feed a store, and print [size of the log, durable changes, submitted changes] after each batch."""
    store = SqliteStore(Path(folder) / "queue.db", StorePolicy(durability=mode, linger=0.02, min_free=0))
    store.open()
    dice = random.Random(seed)
    steps: list[tuple[int, int, int]] = []
    submitted = 0
    for batch in batches(seed, count):
        submitted += len(batch)
        store.submit(batch, submitted)
        if dice.random() < 0.3:
            _wait_durable(store, submitted)
        durable = (
            store.durable_through
        )  # before the size: what is durable now, is in what was written till now
        steps.append((os.stat(log).st_size, durable, submitted))
    print(json.dumps(steps), flush=True)
    os._exit(0)  # no close(): the power goes


def _wait_durable(store: Store, number: int) -> None:
    store.expedite(number)
    deadline = time.monotonic() + _DEADLINE_S
    while store.durable_through < number:
        if store.failure is not None:
            raise store.failure
        if time.monotonic() > deadline:
            raise TimeoutError(f"durable through {store.durable_through} of {number}")
        time.sleep(0.0005)


def facts(saved: SavedSession) -> str:
    """Return a session as text that can be compared; the order of dicts and the clock do not count.

    Nor does the next sequence number: a message that was acknowledged before its commit was never written,
    and its number may be given again.
    """
    for message in saved.messages:
        message.expires_at = None
    assert all(message.sequence < saved.next_sequence for message in saved.messages)
    *parts, _next_sequence, last_packet_id, withheld, shelved = saved_facts(saved)
    return repr([*map(_sorted, parts), last_packet_id, sorted(withheld), shelved])


def _sorted(part: Any) -> Any:
    if isinstance(part, dict):
        return sorted(part.items())
    return sorted(part) if isinstance(part, set) else part


def states(changes: list[Change]) -> list[str]:
    """Return the state after each number of changes, from 0."""
    store = MemoryStore()
    found = [facts(store.open())]
    for number, change in enumerate(changes, 1):
        store.submit([change], number)
        store.close()
        found.append(facts(store.open()))
    return found


def without_ended(changes: list[Change], durable: int, submitted: int, found: set[int]) -> str:
    """Return the state after the durable changes, without messages that are not found and had ended since.

    A message that ends before it was written leaves nothing, and does not hold up what counts as durable. Nor
    does one that was put on the shelf and taken from it.
    """
    later = changes[durable:submitted]
    taken = {change[1] for change in later if change[0] == "unshelved"}
    ends = [
        change
        for change in later
        if (change[0] == "done" and change[1] not in found)
        or (change[0] in ("shelved", "unshelved") and change[1] in taken)
    ]
    store = MemoryStore()
    store.open()
    store.submit(changes[:durable] + ends, durable + len(ends))
    store.close()
    return facts(store.open())


def cut_power(mode: str, points: int, *, changes: int = 600, seed: int = 1) -> Result:
    """Run the changes once, and cut the power at so many moments."""
    result = Result(mode)
    with tempfile.TemporaryDirectory(prefix="device-sdk-power-", dir=MEMORY) as name:
        folder = Path(name)
        steps, first = _record(mode, folder, changes, seed)
        recording = Recording(folder / "disk.log")
        moments = [index for index, end in enumerate(recording.ends) if first <= end <= steps[-1][0]]
        history = [change for batch in batches(seed, changes) for change in batch]
        expected = states(history)
        dice = random.Random(seed)
        for _ in range(points):
            moment = dice.choice(moments)
            image = folder / "cut.img"
            image.unlink(missing_ok=True)  # a file of its own: somebody may still look at the one before
            image.write_bytes(recording.image(moment, dice))
            durable = max((step[1] for step in steps if step[0] <= recording.ends[moment]), default=0)
            submitted = next((step[2] for step in steps if step[0] > recording.ends[moment]), steps[-1][2])
            _judge(result, folder, history, expected, durable, submitted)
    return result


def _record(mode: str, folder: Path, changes: int, seed: int) -> tuple[list[list[int]], int]:
    """Let a child process work on a recorded disk; return its notes and the size of the log at its start."""
    with recorded_disk(folder) as disk:
        log = folder / "disk.log"
        first = log.stat().st_size
        command = [sys.executable, "-m", "tests.torture.power_cut", "--child", mode, str(disk), str(log)]
        command += ["--seed", str(seed), "--changes", str(changes)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S * 2)
        if done.returncode:
            raise RuntimeError(f"the child failed: {done.stderr}")
    return json.loads(done.stdout), first


def _judge(
    result: Result, folder: Path, history: list[Change], expected: list[str], durable: int, submitted: int
) -> None:
    result.points += 1
    try:
        with mounted(folder / "cut.img", folder / "cut") as disk:
            store = SqliteStore(disk / "queue.db", StorePolicy(min_free=0))
            try:
                saved = store.open()
                sequences = {message.sequence for message in saved.messages}
                found = facts(saved)
            finally:
                store.close()
    except HarnessError:
        raise
    except Exception as error:
        result.unopened += 1
        result.examples.append(f"{type(error).__name__}: {error}")
        return
    if found == expected[0] and submitted:
        result.empty += 1
    if found in expected[durable : submitted + 1]:
        return
    if found == without_ended(history, durable, submitted, sequences):
        return
    if found in expected:
        result.lost += 1
        result.examples.append(f"state {expected.index(found)}, of {durable} durable changes")
    else:
        result.impossible += 1
        result.examples.append(f"found {found}\nat {durable}: {expected[durable]}")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--changes", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        mode, folder, log = arguments.child
        work(mode, folder, log, arguments.seed, arguments.changes)
    missing = what_is_missing()
    if missing is not None:
        parser.error(f"power cuts need {missing}")
    failed = False
    for mode in arguments.mode or MODES:
        result = cut_power(mode, arguments.points, changes=arguments.changes, seed=arguments.seed)
        print(result, *result.examples[:3], sep="\n    ")
        failed |= bool(result.impossible or result.unopened) or (mode != "os" and bool(result.lost))
        failed |= mode == "os" and not result.lost
    return failed


if __name__ == "__main__":
    sys.exit(main())
