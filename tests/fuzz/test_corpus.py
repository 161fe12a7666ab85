"""Every seed of the corpus, as a plain test; and the corpus is what its script makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import make_corpus
from tests.fuzz.run import CORPUS, read_corpus
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_holds_the_invariants_of_its_target(name: str) -> None:
    corpus = read_corpus(name)
    assert corpus
    for seed, data in corpus.items():
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name}/{seed}: {error!r}\n  bytes: {data.hex()}") from error


def test_the_corpus_is_what_its_script_makes(tmp_path: Path) -> None:
    make_corpus.write(tmp_path)
    made = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    kept = {
        path.relative_to(CORPUS): path.read_bytes()
        for path in CORPUS.glob("*/*")
        if not path.name.startswith(make_corpus.FOUND)
    }
    assert kept == made


def test_every_folder_of_the_corpus_has_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} == set(TARGETS)
