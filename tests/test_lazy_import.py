"""What `import device_sdk` may cost: the modules it loads, counted in a bare interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Imported only by what needs them: together they cost more than the whole client (docs/decisions/0004).
HEAVY = {
    "asyncio", "ctypes", "dataclasses", "email", "http", "inspect", "json", "logging", "multiprocessing",
    "random", "sqlite3", "ssl", "typing", "urllib",
}  # fmt: skip

# No site-packages, no .pth files, no environment: only what the statement itself loads is left.
PROBE = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
exec(sys.argv[2])
print("\\n".join(sorted(set(sys.modules) - before)))
"""


def loaded_by(statement: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-E", "-c", PROBE, str(ROOT), statement],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize("name", ["Client", "Message", "Subscription", "Will"])
def test_a_thread_client_loads_nothing_heavy_and_no_third_party(name: str) -> None:
    loaded = {module.partition(".")[0] for module in loaded_by(f"from device_sdk import {name}")}
    assert "device_sdk" in loaded
    assert not loaded & HEAVY
    assert not loaded - set(sys.stdlib_module_names) - {"device_sdk"}


def test_the_package_alone_loads_none_of_its_rooms() -> None:
    ours = {module for module in loaded_by("import device_sdk") if module.startswith("device_sdk")}
    assert ours <= {"device_sdk", "device_sdk._version"}


def test_the_probe_sees_a_heavy_import() -> None:
    assert json.__name__ in loaded_by("import json")
