"""``python -m device_sdk.paho script.py``: an untouched program, and its libraries, get the drop-in."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [sys.executable, "-m", "device_sdk.paho", *arguments],
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        timeout=30,
    )


def output(folder: Path, script: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
    (folder / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
    done = run(folder, *options, "script.py", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_script_gets_the_drop_in_however_it_imports_paho(tmp_path: Path) -> None:
    script = """\
        import paho
        import paho.mqtt.client as mqtt
        import paho.mqtt.publish
        from paho import mqtt as package
        from paho.mqtt import client, matcher, subscribe
        from paho.mqtt.enums import CallbackAPIVersion
        from paho.mqtt.reasoncodes import ReasonCode

        assert mqtt is client is package.client is paho.mqtt.client
        assert mqtt.Client(CallbackAPIVersion.VERSION2).protocol == mqtt.MQTTv311
        print(mqtt.__name__, subscribe.__name__, ReasonCode.__module__, package.__version__)
    """
    names = "device_sdk.paho.client device_sdk.paho.subscribe device_sdk.paho.reasoncodes 2.2.0\n"
    assert output(tmp_path, script) == names


def test_the_classes_are_the_same_under_both_names(tmp_path: Path) -> None:
    script = """\
        import device_sdk.paho.client
        import paho.mqtt.client
        assert paho.mqtt.client.Client is device_sdk.paho.client.Client
    """
    assert output(tmp_path, script) == ""


def test_a_library_beside_the_script_gets_it_too(tmp_path: Path) -> None:
    (tmp_path / "library.py").write_text("from paho.mqtt.client import Client\n", encoding="utf-8")
    script = """\
        import library
        print(library.Client.__module__)
    """
    assert output(tmp_path, script) == "device_sdk.paho.client\n"


def test_version_1_is_the_interface_of_1_6(tmp_path: Path) -> None:
    script = """\
        import paho.mqtt as package
        import paho.mqtt.client as mqtt
        from paho.mqtt import publish
        from paho.mqtt.properties import Properties
        from paho.mqtt.packettypes import PacketTypes

        client = mqtt.Client("node", True, None, mqtt.MQTTv311)
        print(package.__version__, mqtt.__name__, publish.__name__)
        assert package.properties.Properties is Properties
    """
    shown = "1.6.1 device_sdk.paho.v1.client device_sdk.paho.v1.publish\n"
    assert output(tmp_path, script, options=("--v1",)) == shown


def test_a_module_that_paho_does_not_have_is_not_found(tmp_path: Path) -> None:
    script = """\
        try:
            import paho.mqtt.nothing
        except ModuleNotFoundError as error:
            print(error.name)
    """
    assert output(tmp_path, script) == "paho.mqtt.nothing\n"


def test_the_script_runs_as_if_python_had_been_given_it(tmp_path: Path) -> None:
    script = """\
        import sys
        if __name__ == "__main__":
            print(sys.argv, __file__, sys.path[0])
    """
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
    done = run(tmp_path, "programs/script.py", "--v1", "-x", "value")
    argv = ["programs/script.py", "--v1", "-x", "value"]
    assert done.stdout == f"{argv} programs/script.py {folder}\n"


@pytest.mark.parametrize(("end", "code"), [("sys.exit(7)", 7), ("raise LookupError", 1), ("pass", 0)])
def test_its_exit_code_is_ours(tmp_path: Path, end: str, code: int) -> None:
    (tmp_path / "script.py").write_text(f"import sys\n{end}\n", encoding="utf-8")
    assert run(tmp_path, "script.py").returncode == code


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "name a script, or -m and a module"),
        (("-m",), "name a script, or -m and a module"),
        (("missing.py",), "there is no file 'missing.py'"),
        (("-m", "missing"), "there is no module 'missing'"),
        (("-m", "missing.part"), "there is no module 'missing.part'"),
    ],
)
def test_wrong_usage_is_explained(tmp_path: Path, arguments: tuple[str, ...], problem: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert problem in done.stderr


@pytest.mark.parametrize("name", ["plain", "package", "package.part"])
def test_a_module_runs_as_if_python_had_been_given_it(tmp_path: Path, name: str) -> None:
    script = """\
        import sys
        import paho.mqtt.client as mqtt
        if __name__ == "__main__":
            print(sys.argv[1:], __spec__.name, mqtt.__name__)
    """
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    for file in ("plain.py", "package/__main__.py", "package/part.py"):
        (tmp_path / file).write_text(textwrap.dedent(script), encoding="utf-8")
    done = run(tmp_path, "-m", name, "--v1", "-m", "x")
    spec = "package.__main__" if name == "package" else name
    assert (done.stderr, done.stdout) == ("", f"['--v1', '-m', 'x'] {spec} device_sdk.paho.client\n")


def test_a_module_of_1_x_runs_with_v1(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("import paho.mqtt.client as mqtt\nprint(mqtt.Client('x').protocol)\n")
    done = run(tmp_path, "--v1", "-m", "old")
    assert (done.returncode, done.stdout) == (0, "4\n")


def test_a_module_that_lacks_another_one_says_which(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import not_installed\n")
    (tmp_path / "package" / "part.py").touch()
    assert "No module named 'not_installed'" in run(tmp_path, "-m", "package.part").stderr


def test_a_program_of_1_x_is_told_to_use_v1(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("import paho.mqtt.client as mqtt\nmqtt.Client('node-17', True)\n")
    done = run(tmp_path, "old.py")
    assert done.returncode == 1
    assert "run it with python -m device_sdk.paho --v1" in done.stderr
    assert run(tmp_path, "--v1", "old.py").returncode == 0
