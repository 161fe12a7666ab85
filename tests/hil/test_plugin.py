"""The plugin from the outside: small test files, run by a pytest of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
BARE_RIG = """
[rig]
name = "bare"
patience = 5
[sensor_bus]
driver = "fake"
chips = [{ chip = "bme280", address = 0x76 }]
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """An empty test project with a rig that has nothing but a BME280."""
    pytester.makefile(".toml", bare=BARE_RIG)
    return pytester


def run(project: pytest.Pytester, body: str, *options: str) -> pytest.RunResult:
    project.makepyfile(f"import pytest\n{body}")
    plugin = ("-p", "device_sdk_hil.plugin", "-p", "no:cacheprovider", "-rsfE")
    return project.runpytest_inprocess(*plugin, "--rig", "bare.toml", *options)


NEEDS_LINE = {
    "fixture": "def test_it(serial_line): pass",
    "mark": "@pytest.mark.rig_needs('serial_line')\ndef test_it(): pass",
}


@pytest.mark.parametrize("body", NEEDS_LINE.values(), ids=NEEDS_LINE)
def test_a_missing_capability_skips_with_a_reason_that_names_it(project: pytest.Pytester, body: str) -> None:
    result = run(project, body)
    result.assert_outcomes(skipped=1)
    capability = "broker" if "test_it(serial" in body else "serial_line"  # the line's fixture needs a broker
    result.stdout.fnmatch_lines([f"SKIPPED*needs {capability} (the rig bare has no [[]{capability}])"])


def test_a_verb_that_the_rig_lacks_skips_the_test_when_it_is_used(project: pytest.Pytester) -> None:
    result = run(project, "def test_it(sensor_bus): sensor_bus.corrupt_crc()")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        ["SKIPPED*needs sensor_bus.crc ([[]sensor_bus] of the rig bare cannot do it)"]
    )


@pytest.mark.parametrize("required", ["serial_line, broker", "all"])
@pytest.mark.parametrize("body", NEEDS_LINE.values(), ids=NEEDS_LINE)
def test_a_missing_capability_that_is_required_fails(
    project: pytest.Pytester, body: str, required: str
) -> None:
    result = run(project, body, "--rig-require", required)
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    result.stdout.fnmatch_lines(["*needs * (the rig bare has no *), and --rig-require promises it"])


def test_a_capability_that_is_there_and_required_changes_nothing(project: pytest.Pytester) -> None:
    body = "@pytest.mark.rig_needs('sensor_bus')\ndef test_it(): pass"
    run(project, body, "--rig-require", "sensor_bus").assert_outcomes(passed=1)


def test_requiring_what_no_rig_has_is_a_usage_error_with_a_suggestion(project: pytest.Pytester) -> None:
    result = run(project, "def test_it(): pass", "--rig-require", "serial_lane")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--rig-require: no rig has 'serial_lane'; did you mean 'serial_line'?"])


def test_a_mark_with_a_capability_that_no_rig_has_fails_the_test(project: pytest.Pytester) -> None:
    result = run(project, "@pytest.mark.rig_needs('sensor_bus.bme281')\ndef test_it(): pass")
    assert not result.parseoutcomes().get("passed")
    result.stdout.fnmatch_lines(["*no rig has 'sensor_bus.bme281'; did you mean 'sensor_bus.bme280'?"])


def test_every_error_of_a_rig_file_is_told_before_any_test_runs(project: pytest.Pytester) -> None:
    project.makefile(
        ".toml",
        bad='[rig]\nname = "a b"\n[serial_line]\ndriver = "ptty"\n[brokers]\n[broker]\ndriver = "url"\n',
    )
    result = run(project, "def test_it(): pass", "--rig", "bad.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*bad.toml has 4 errors:",
            '*line 2: rig.name: expected a name *, found "a b"',
            '*line 4: serial_line.driver: expected one of "pty", "port", found "ptty"; did you mean *',
            "*line 5: brokers: there is no such table; did you mean 'broker'[?]",
            "*line 6: broker.url: expected a URL such as *, but it is missing",
        ]
    )


def test_a_rig_file_that_is_not_there_is_a_usage_error(project: pytest.Pytester) -> None:
    result = run(project, "def test_it(): pass", "--rig", "absent.toml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*the rig file absent.toml cannot be read: No such file or directory"])


IDLE_FAULT = "def test_it(sensor_bus):\n    sensor_bus.nack('bme280')\n"


def test_a_fault_that_nobody_notices_is_an_error_of_the_test(project: pytest.Pytester) -> None:
    result = run(project, IDLE_FAULT)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*fault not effective, so the test proves nothing:", "*sensor_bus.nack at *expected a failed*0x76"]
    )


def test_a_fault_whose_effect_the_test_saw_is_fine(project: pytest.Pytester) -> None:
    body = IDLE_FAULT.replace("sensor_bus.nack('bme280')", "sensor_bus.nack('bme280').seen('the LED is red')")
    run(project, body).assert_outcomes(passed=1)


def test_a_failed_test_is_not_blamed_for_its_faults_as_well(project: pytest.Pytester) -> None:
    run(project, IDLE_FAULT + "    assert False\n").assert_outcomes(failed=1)


def test_a_failed_test_shows_its_timeline(project: pytest.Pytester) -> None:
    result = run(project, "def test_it(timeline):\n    timeline.mark('here we are')\n    assert False\n")
    result.stdout.fnmatch_lines(["*- timeline *test_it.jsonl -*", "*test*mark*text=here we are"])


def test_each_test_leaves_a_timeline_in_the_report_folder(project: pytest.Pytester) -> None:
    body = "@pytest.mark.parametrize('n', [1, 2])\ndef test_it(timeline, n): timeline.mark(f'number {n}')"
    run(project, body, "--hil-report", "report").assert_outcomes(passed=2)
    files = sorted((project.path / "report").iterdir())
    assert len(files) == 2
    begin, mark, end = map(json.loads, files[0].read_text().splitlines())
    assert (begin["source"], begin["kind"], begin["data"]["rig"]) == ("test", "begin", "bare")
    assert mark["data"] == {"text": "number 1"}
    assert end["data"] == {"passed": True}
    assert 0 <= begin["time"] <= mark["time"] <= end["time"]


@pytest.mark.parametrize(("ini", "expected"), [("", "120"), ("timeout = 7", "None")])
def test_a_test_on_the_rig_has_a_time_limit_even_if_the_project_has_none(
    project: pytest.Pytester, ini: str, expected: str
) -> None:
    project.makeini(f"[pytest]\n{ini}")
    body = (
        "def limit(request):\n"
        "    mark = request.node.get_closest_marker('timeout')\n"
        "    return str(mark and mark.args[0])\n"
        f"def test_on_the_rig(request, timeline): assert limit(request) == '{expected}'\n"
        "def test_elsewhere(request): assert limit(request) == 'None'\n"
    )
    run(project, body).assert_outcomes(passed=2)


def test_a_run_without_a_rig_loads_nothing_of_it(tmp_path: Path) -> None:
    """The plugin is loaded in every run of pytest wherever device_sdk is installed."""
    test = tmp_path / "test_nothing.py"
    test.write_text(
        "import sys\n"
        "def test_it():\n"
        "    ours = sorted(name for name in sys.modules if name.startswith('device_sdk'))\n"
        "    assert ours == ['device_sdk_hil', 'device_sdk_hil.plugin']\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "device_sdk_hil.plugin", "-p", "no:cacheprovider", test],
        cwd=tmp_path, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'hil'}"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_virtual_rig_is_the_default(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(hil_rig): assert hil_rig.name == 'virtual'")
    result = pytester.runpytest_inprocess("-p", "device_sdk_hil.plugin", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
