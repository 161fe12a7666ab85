"""What the parts of the rig are tested with: a timeline, and a rig that has everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_sdk_hil.rig import VIRTUAL_RIG, Rig, load_rig
from device_sdk_hil.timeline import Timeline


@pytest.fixture
def events(tmp_path: Path) -> Iterator[Timeline]:
    """A timeline whose faults nobody judges."""
    timeline = Timeline(tmp_path / "events.jsonl")
    yield timeline
    timeline.close()


@pytest.fixture
def rig() -> Rig:
    return load_rig(VIRTUAL_RIG)
