"""The wheel as a user gets it: built from the sources, installed into an empty environment."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["device_sdk", "hil", "pyproject.toml", "README.md", "LICENSE"]
MAX_INSTALLED_KIB = 2600  # docs/decisions/0014

INSTALLED = """
import importlib.metadata as metadata, json
files = metadata.files("device-sdk")
print(json.dumps({
    "distributions": [found.name for found in metadata.distributions()],
    "bytes": sum(file.locate().stat().st_size for file in files),
}))
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no earlier build in the checkout can leak into it."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "dist", cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that was empty, not even pip in it, before the wheel was installed."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder / "bin" / "python")
    run(*pip, "install", "--quiet", "--no-compile", wheel, cwd=folder)
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    info = next(name for name in names if name.endswith("/METADATA")).partition("/")[0]
    assert {name.partition("/")[0] for name in names} == {"device_sdk", "device_sdk_hil", info}
    assert "device_sdk/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    assert not [name for name in names if "test_" in name or "/tests/" in name]


def test_every_module_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "device_sdk").rglob("*.py")}
    assert modules <= set(ZipFile(wheel).namelist())


def test_it_installs_alone_and_within_its_size(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(environment / "bin" / "python", "-I", "-c", INSTALLED, cwd=environment))
    installed_kib = found["bytes"] / 1024
    with capsys.disabled():
        print(f" {installed_kib:.0f} KiB installed ", end="")
    assert found["distributions"] == ["device-sdk"]
    assert installed_kib <= MAX_INSTALLED_KIB


def test_the_console_command_says_its_version(environment: Path) -> None:
    version = run(environment / "bin" / "device-sdk", "--version", cwd=environment)
    assert version.split()[0] == "device-sdk"
    assert version.split()[1][0].isdigit()


def test_the_client_can_be_imported_without_any_extra(environment: Path) -> None:
    run(
        environment / "bin" / "python",
        "-I",
        "-W",
        "error",
        "-c",
        "import device_sdk; device_sdk.Client",
        cwd=environment,
    )
