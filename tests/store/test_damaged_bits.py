"""Flipped bits anywhere in the file and its log: nothing altered is sent, and no loss is silent."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from device_sdk.errors import StoreError
from device_sdk.store.base import SavedMessage, SavedSession
from tests.store.contract import message, shelved
from tests.store.sqlite_rig import Rig

Facts = tuple[bytes, bytes, int, bytes, float | None]

SEEDS = int(os.environ.get("DAMAGED_STORES", "150"))


@pytest.fixture
def folder(tmp_path: Path) -> Generator[Path]:
    """A folder where a flush takes no time, if there is one."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


def facts(saved: SavedMessage) -> Facts:
    return saved.topic_field, saved.payload, saved.flags, saved.properties, saved.expires_at


def published(number: int) -> tuple[Any, ...]:
    """A message of which every part tells its number."""
    topic = b"site/%d/value" % number
    return message(
        number,
        b"reading %d " % number * (200 if number % 13 == 0 else 1 + number % 7),
        1 + number % 2,
        topic_field=len(topic).to_bytes(2, "big") + topic,
        properties=b"\5\x0b\x01\x23\x00\x01" if number % 3 else b"\0",
        expires_at=1e6 + number if number % 4 == 0 else None,
        keep_last=number % 10 == 9,
    )


def filled(rig: Rig, *, in_log: int) -> None:
    """Fill a store: messages in each state, and the last commits only in the log."""
    rig.write(
        *(published(number) for number in range(1, 121)),
        ("subscribed", "cmd/#", 1, False, False, 0), ("fact", "client_id", "node"),
        ("fact", "session", "node"), ("received", 9), ("withheld", 77), ("reserved", 64),
    )  # fmt: skip
    rig.write(("sent", 2, 5), ("sent", 3, 6), ("released", 3), ("sent", 4, 7), ("done", 1, "acknowledged"))
    rig.write(shelved(8))
    rig.reopen()  # all of it is in the file now
    for number in range(121, 121 + in_log):
        rig.write(published(number), ("sent", number - 60, number), ("received", number))


def everything(rig: Rig) -> tuple[SavedSession, dict[int, SavedMessage]]:
    """Open the store and read all of its queue."""
    saved = rig.open()
    found = {each.sequence: each for each in saved.messages}
    after = max((each.sequence for each in saved.messages if not each.packet_id), default=0)
    while page := rig.page(after):
        found.update((each.sequence, each) for each in page)
        after = page[-1].sequence
    return saved, found


def told(rig: Rig) -> list[str]:
    """What the store has said of itself."""
    notice = [] if rig.store.notice is None else [rig.store.notice]
    return [text for kind, text, _ in rig.store.reports if kind == "store_damaged"] + notice


class Original:
    """A store, and what is right about it."""

    def __init__(self, folder: Path, *, in_log: int) -> None:
        self.rig = Rig(folder, durability="os")
        self.rig.open()
        filled(self.rig, in_log=in_log)
        self.files = {suffix: Path(f"{self.rig.path}{suffix}").read_bytes() for suffix in ("", "-wal")}
        self.last = 120 + in_log
        copy = self.copy(folder / "whole", self.files)
        self.saved, found = everything(copy)
        self.sequences = found.keys()
        self.packet_ids = {sequence: (each.packet_id, each.released) for sequence, each in found.items()}
        assert not told(copy)
        copy.store.close()
        assert len(found) == self.last - 2
        self.rig.store.close()

    def copy(self, folder: Path, files: dict[str, bytes]) -> Rig:
        """Return a store with these files."""
        folder.mkdir()
        rig = Rig(folder, durability="os")
        for suffix, data in files.items():
            Path(f"{rig.path}{suffix}").write_bytes(data)
        Path(f"{rig.path}.lock").touch()
        return rig

    def judge(self, folder: Path, files: dict[str, bytes]) -> str | None:
        """Open these files; return what is wrong with the behaviour, ``None`` if nothing is."""
        rig = self.copy(folder, files)
        try:
            saved, found = everything(rig)
        except StoreError:
            return None  # nothing is sent, and the start says why
        try:
            return self._problem(rig, saved, found)
        finally:
            rig.store.close()
            shutil.rmtree(folder)

    def _problem(self, rig: Rig, saved: SavedSession, found: dict[int, SavedMessage]) -> str | None:
        for sequence, each in found.items():
            if facts(each) != published(sequence)[2:]:
                return f"message {sequence} was altered: {facts(each)}"
            if each.packet_id and self.packet_ids.get(sequence) != (each.packet_id, each.released):
                return f"the state of message {sequence} was altered: {each.packet_id}, {each.released}"
        if told(rig):
            return None
        waiting = [each for each in found.values() if not each.packet_id]
        missing = self.sequences - found.keys()
        if len(missing) != saved.waiting - len(waiting):  # else the engine tells it at the end of the queue
            return f"messages {sorted(missing)} are missing without a word"
        for name in (
            "received", "withheld", "subscriptions", "facts", "shelved", "last_packet_id", "next_sequence",
        ):  # fmt: skip
            if getattr(saved, name) != getattr(self.saved, name):
                return f"{name}: {getattr(saved, name)}, and not {getattr(self.saved, name)}, without a word"
        return None


def flipped(data: bytes, places: list[int]) -> bytes:
    changed = bytearray(data)
    for place in places:
        changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@pytest.mark.parametrize("in_log", [0, 12])
@pytest.mark.parametrize("bits", [1, 3])
def test_no_flipped_bit_alters_a_message_or_loses_one_without_a_word(
    folder: Path, in_log: int, bits: int
) -> None:
    original = Original(folder, in_log=in_log)
    dice = random.Random(f"{in_log} {bits}")
    problems = []
    for number in range(SEEDS):
        suffix = dice.choice(("", "-wal")) if in_log else ""
        data = original.files[suffix]
        places = [dice.randrange(8 * len(data)) for _ in range(bits)]
        files = {**original.files, suffix: flipped(data, places)}
        problem = original.judge(folder / f"{number}", files)
        if problem is not None:
            problems.append(f"bits {places} of {suffix or 'the file'}: {problem}")
    assert not problems, f"{len(problems)} of {SEEDS}:\n" + "\n".join(problems[:20])
