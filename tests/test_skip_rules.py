"""What tests/conftest.py does, shown on small test files of their own: rules for skips, order of workers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LONG_FILES

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent
CONFTEST = Path(__file__).with_name("conftest.py").read_text()


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty test project under our rules, in an environment that requires nothing."""
    monkeypatch.delenv("DEVICE_SDK_REQUIRE", raising=False)
    pytester.makeconftest(CONFTEST)
    return pytester


def outcomes(project: pytest.Pytester, body: str) -> dict[str, int]:
    """Run one test file; pytest's counts, with errors in set-up or collection counted as failed.

    Warnings do not count: pytest warns of plugins that the outer run has imported already.
    """
    project.makepyfile(f"import pytest\n{body}")
    counts = project.runpytest_inprocess("-p", "no:cacheprovider").parseoutcomes()
    counts.pop("warnings", None)
    return {"failed" if name == "errors" else name: count for name, count in counts.items()}


NEEDS_MOSQUITTO = "def test_it(): pytest.skip('needs mosquitto')"


def test_a_skip_for_want_of_something_optional_is_a_skip(project: pytest.Pytester) -> None:
    assert outcomes(project, NEEDS_MOSQUITTO) == {"skipped": 1}


@pytest.mark.parametrize(
    "body",
    [
        NEEDS_MOSQUITTO,
        "pytest.skip('needs mosquitto', allow_module_level=True)",
        "@pytest.fixture\ndef broker(): pytest.skip('needs mosquitto')\ndef test_it(broker): pass",
        "@pytest.mark.skipif(True, reason='needs mosquitto')\ndef test_it(): pass",
    ],
    ids=["in the test", "whole module", "in a fixture", "by mark"],
)
def test_a_skip_for_want_of_something_promised_fails(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setenv("DEVICE_SDK_REQUIRE", "iotcore, mosquitto")
    assert outcomes(project, body) == {"failed": 1}


def test_a_promise_of_something_else_leaves_the_skip_alone(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICE_SDK_REQUIRE", "iotcore")
    assert outcomes(project, NEEDS_MOSQUITTO) == {"skipped": 1}


@pytest.mark.parametrize("body", ["def test_it(): pytest.skip()", "@pytest.mark.skip\ndef test_it(): pass"])
def test_a_skip_without_a_reason_always_fails(project: pytest.Pytester, body: str) -> None:
    assert outcomes(project, body) == {"failed": 1}


def test_an_expected_failure_is_not_a_skip(project: pytest.Pytester) -> None:
    body = "@pytest.mark.xfail(reason='known')\ndef test_it(): assert False"
    assert outcomes(project, body) == {"xfailed": 1}


def test_a_machine_without_libfuse_skips_the_power_cuts(tmp_path: Path) -> None:
    (tmp_path / "mfusepy.py").write_text('raise OSError("Unable to find libfuse")\n')
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "DEVICE_SDK_REQUIRE": ""}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/torture/test_power_cut.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert "3 skipped" in run.stdout
    assert "needs power-cuts" in run.stdout


def test_the_rules_hold_where_workers_share_the_tests(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICE_SDK_REQUIRE", "mosquitto")
    project.makepyfile(f"import pytest\n{NEEDS_MOSQUITTO}")
    run = project.runpytest_subprocess("--numprocesses=2", "--dist=loadfile", "-p", "no:cacheprovider")
    assert run.parseoutcomes() == {"failed": 1}


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_begin_with_the_longest_file(project: pytest.Pytester, workers: int) -> None:
    short, longest = Path("tests/a/test_a.py"), Path(LONG_FILES[0])
    for path in (short, longest):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("def test_it(): pass\n")
    options = [f"--numprocesses={workers}", "--dist=loadfile", "--no-loadscope-reorder", "--verbose"]
    run = project.runpytest_subprocess(*options, "-p", "no:cacheprovider", "--import-mode=importlib")
    done = [line for line in run.outlines if "PASSED" in line]
    order = [path for line in done for path in (short, longest) if str(path) in line]
    assert order == ([longest, short] if workers else [short, longest])


def test_every_file_that_is_called_long_is_there() -> None:
    root = Path(__file__).parents[1]
    assert [name for name in LONG_FILES if not (root / name).is_file()] == []
