"""What the history of the project keeps to, from the commit on with which these tests begin."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START = "a5c5d20bafc576a1157f495bc21002684aaf7ce5"
LONGEST_SUBJECT = 72
VECTORS = "tests/vectors/"
CODEC = "device_sdk/mqtt/"


def git(*arguments: str, root: Path = ROOT) -> str | None:
    """Return what git prints, None if it fails."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


@pytest.fixture(scope="module")
def commits() -> dict[str, tuple[str, list[str]]]:
    """Return subject and files of each commit since the start, merges left out, by its hash."""
    if shutil.which("git") is None or git("merge-base", "--is-ancestor", START, "HEAD") is None:
        pytest.skip("needs the project's git history")
    log = git("log", "--no-merges", "--name-only", "--format=%x00%H%n%s", f"{START}..HEAD")
    assert log is not None
    found = {}
    for entry in log.split("\0")[1:]:
        commit, subject, *files = entry.splitlines()
        found[commit[:9]] = (subject, [file for file in files if file])
    return found


def too_long(subjects: list[str]) -> list[str]:
    return [subject for subject in subjects if len(subject) > LONGEST_SUBJECT]


def fits_its_vectors(files: list[str]) -> bool:
    """Whether a commit changes the codec together with the vectors that judge it (decision 0005)."""
    vectors = any(file.startswith(VECTORS) and file.endswith(".json") for file in files)
    return vectors and any(file.startswith(CODEC) for file in files)


def test_a_subject_has_at_most_72_characters(commits: dict[str, tuple[str, list[str]]]) -> None:
    assert not too_long([subject for subject, _ in commits.values()])


def test_vectors_and_the_codec_change_in_different_commits(commits: dict[str, tuple[str, list[str]]]) -> None:
    assert not [commit for commit, (_, files) in commits.items() if fits_its_vectors(files)]


def test_the_checks_notice_a_bad_commit() -> None:
    assert too_long(["x" * 72, "x" * 73]) == ["x" * 73]
    assert fits_its_vectors(["tests/vectors/mqtt/vectors.json", "device_sdk/mqtt/decode.py"])
    assert not fits_its_vectors(["tests/vectors/mqtt/vectors.json", "tests/mqtt/test_codec.py"])
    assert not fits_its_vectors(["device_sdk/mqtt/decode.py"])
