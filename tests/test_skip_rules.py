"""The rules of tests/conftest.py, run on small test files of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
