"""Threads that import parts of the package at once: no deadlock, and no module that is not complete.

Importing ``package.module`` takes the lock of the module, then that of the package. A package that imports
its own modules takes them the other way round. Python notices, and one of the threads gets ``_DeadlockError``
or a module without its names.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import device_sdk

PACKAGE = Path(device_sdk.__file__).parent
ROOT = PACKAGE.parent

# Packages that are programs: nobody imports them but their own main thread.
PROGRAMS = {"cli"}

RACE = """
import importlib, sys, threading
sys.setswitchinterval(1e-6)
names = sys.argv[1:]
barrier, problems = threading.Barrier(len(names)), []

def run(name):
    module, _, attribute = name.partition(":")
    barrier.wait()
    try:
        found = importlib.import_module(module)
        if attribute:
            getattr(found, attribute)
    except BaseException as error:
        problems.append(f"{name}: {type(error).__name__}: {error}")

threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in names]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(30)
problems += ["a thread hangs" for thread in threads if thread.is_alive()]
sys.exit("; ".join(problems) or 0)
"""

AT_ONCE = {
    "clients": (
        "device_sdk:Client", "device_sdk:AsyncClient", "device_sdk:SqliteStore", "device_sdk:TLSOptions",
        "device_sdk.aio", "device_sdk.aio:AsyncInbox", "device_sdk.aio.client", "device_sdk.threads",
        "device_sdk:__version__", "device_sdk._version",
    ),
    "protocol": (
        "device_sdk.mqtt:Message", "device_sdk.mqtt:decode_packet", "device_sdk.mqtt.protocol",
        "device_sdk.mqtt.topics", "device_sdk.net:Transport", "device_sdk.net.base", "device_sdk.net.tcp",
    ),
    "drivers": (
        "device_sdk.drivers:open_driver", "device_sdk.drivers.base", "device_sdk.drivers:discover",
        "device_sdk.drivers.bus:open_bus", "device_sdk.drivers.bus.i2c", "device_sdk.drivers.sysfs",
        "device_sdk.testing:ModelBroker", "device_sdk.testing.broker_server",
    ),
    "drop-in": (
        "device_sdk.paho:MQTTException", "device_sdk.paho.exception", "device_sdk.paho.client",
        "device_sdk.paho.publish", "device_sdk.paho.v1.client", "device_sdk.paho.v1", "device_sdk.paho.alias",
    ),
}  # fmt: skip


def imports_at_run_time(body: list[ast.stmt]) -> Iterator[str]:
    """Dotted names that the statements of a module import when it is executed."""
    for node in body:
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                yield from (f"{module}.{name.name}" for name in names)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=otherwise):
                yield from imports_at_run_time(otherwise)
            case ast.If(body=then, orelse=otherwise):
                yield from imports_at_run_time([*then, *otherwise])
            case ast.Try(body=tried, handlers=handlers, orelse=otherwise, finalbody=final):
                caught = [statement for handler in handlers for statement in handler.body]
                yield from imports_at_run_time([*tried, *caught, *otherwise, *final])


def own_imports(init: Path) -> set[str]:
    """Modules below a package that its ``__init__.py`` imports."""
    package = ".".join(init.parent.relative_to(ROOT).parts)
    found = imports_at_run_time(ast.parse(init.read_text(encoding="utf-8")).body)
    below = {name for name in found if name.startswith(f"{package}.")}
    # "from device_sdk.mqtt import x" of another package is named like a module, too.
    return {name for name in below if (ROOT / name.replace(".", "/")).with_suffix(".py").exists()}


def test_no_package_imports_its_own_modules() -> None:
    packages = [init for init in PACKAGE.rglob("__init__.py") if init.parent.name not in PROGRAMS]
    assert len(packages) > 10
    found = {str(init.relative_to(PACKAGE)): own for init in packages if (own := own_imports(init))}
    assert found == {}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from a.b import c", {"a.b", "a.b.c"}),
        ("import a.b", {"a.b"}),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", {"b"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
        ("def f():\n    import a", set()),
    ],
)
def test_an_import_at_run_time_is_seen(source: str, found: set[str]) -> None:
    assert set(imports_at_run_time(ast.parse(source).body)) == found


@pytest.mark.parametrize("names", AT_ONCE.values(), ids=AT_ONCE)
def test_threads_import_at_once(names: tuple[str, ...]) -> None:
    """The race is real and rare: before the rule, one of three runs failed for some of these."""
    for _ in range(4):
        done = subprocess.run(
            [sys.executable, "-c", RACE, *names],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, done.stderr
