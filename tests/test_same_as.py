"""``python -m tests.same_as``: the package is the same as itself, and the smallest change is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.against_commit import TASKS, Bench, Package
from tests.same_as.__main__ import main
from tests.same_as.child import PARTS, ROOT
from tests.same_as.compare import checkout, compare

pytestmark = pytest.mark.timeout(120)

SEEDS = 3

MISSING_WAKE_UP = """
_overslept = []

def _sleepy(self, unpark=Engine.unpark):
    wakes = unpark(self)
    if wakes and not _overslept:
        _overslept.append(True)
        return False
    return wakes

Engine.unpark = _sleepy
"""

ONE_CALL_MORE = """
def _publish(self, *arguments, publish=Publisher.publish):
    return publish(self, *arguments)

Publisher.publish = _publish
"""

#: Name -> (part that shows it, file of the package, what is added to its end).
CHANGES = {
    "two events change places": (
        "engine",
        "engine/events.py",
        """
def _swapped(self, take=Events.take):
    items = take(self)
    items[:2] = items[1::-1]
    return items

Events.take = _swapped
""",
    ),
    "a packet identifier is one further": (
        "engine",
        "mqtt/session.py",
        """
def _further(self, allocate=Session.allocate):
    self.last_packet_id += self.last_packet_id == 20
    return allocate(self)

Session.allocate = _further
""",
    ),
    "a wake-up is missing": ("engine", "engine/engine.py", MISSING_WAKE_UP),
    "a wake-up of a thread is missing": ("clients", "engine/engine.py", MISSING_WAKE_UP),
    "a return code is another one": (
        "drop-in",
        "paho/client.py",
        """
_calls = []

def _again(self, loop_read=Client.loop_read):
    _calls.append(loop_read(self))
    return MQTT_ERR_AGAIN if len(_calls) == 9 else _calls[-1]

Client.loop_read = _again
""",
    ),
}


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the package, to be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "device_sdk", tmp_path / "device_sdk", ignore=ignored)
    return tmp_path


@pytest.mark.parametrize("part", PARTS)
def test_the_package_is_the_same_as_itself(part: str) -> None:
    comparison = compare(part, ROOT, ROOT, 0, SEEDS)
    assert comparison.difference is None
    assert comparison.seeds == SEEDS
    assert comparison.counts.total() > 100 * SEEDS
    assert "failed" not in comparison.counts


@pytest.mark.parametrize("name", CHANGES)
def test_a_small_change_is_found(name: str, changed: Path) -> None:
    part, file, addition = CHANGES[name]
    with (changed / "device_sdk" / file).open("a", encoding="utf-8") as source:
        source.write(addition)
    difference = compare(part, ROOT, changed, 0, SEEDS).difference
    assert difference is not None
    assert f"seed {difference.seed}, note " in difference.text
    assert "\n  + failed" not in difference.text  # it still works, which is what makes it small
    assert "\n  - " in difference.text
    assert "\n  + " in difference.text


def test_words_may_differ_when_they_are_not_asked_for(changed: Path) -> None:
    reports = changed / "device_sdk" / "engine" / "reactions.py"
    reports.write_text(reports.read_text(encoding="utf-8").replace('f"connected to ', 'f"now at '), "utf-8")
    assert compare("engine", ROOT, changed, 0, 1).difference is not None
    assert compare("engine", ROOT, changed, 0, 1, texts=False).difference is None


def test_a_call_more_for_each_message_is_counted(changed: Path) -> None:
    """The counting of benchmarks/against_commit.py, which compares what two packages cost."""
    with (changed / "device_sdk/engine/outgoing/publisher.py").open("a", encoding="utf-8") as source:
        source.write(ONE_CALL_MORE)
    (task,) = (one for one in TASKS if one.name == "client/pub-q0")
    bench = Bench("calls", None)
    before = bench.per_message(Package("before", str(ROOT)), task)
    assert bench.per_message(Package("now", str(ROOT)), task) == before
    assert bench.per_message(Package("now", str(changed)), task) == pytest.approx(before + 1, abs=0.01)


def test_a_run_that_fails_is_an_error_and_nobody_waits_for_its_threads(changed: Path) -> None:
    with (changed / "device_sdk/engine/engine.py").open("a", encoding="utf-8") as source:
        source.write("\nraise RuntimeError('broken on purpose')\n")
    with pytest.raises(RuntimeError, match="broken on purpose"):
        Bench("calls", None).per_message(Package("now", str(changed)), TASKS[0])


def test_the_package_of_a_commit_is_taken_from_git_and_cleared_away() -> None:
    with checkout("HEAD") as folder:
        assert (folder / "device_sdk" / "client.py").is_file()
    assert not folder.exists()


def test_a_commit_that_git_does_not_know_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-commit", "--seeds", "1"]) == 2
    assert "no-such-commit" in capsys.readouterr().err
