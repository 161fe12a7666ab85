"""A node under systemd itself, in namespaces of its own: it is ready, tells how it is, and is restarted."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = Path("/usr/lib/systemd/systemd")
# In a control group of its own, which is removed with all that systemd makes below it.
GROUP = """\
set -e
mkdir -p "$1/groups"
mount -t cgroup2 cgroup2 "$1/groups"
group="$1/groups/device-sdk-test-$$"
mkdir "$group"
trap 'find "$group" -depth -type d -exec rmdir {} +' EXIT
(
    echo $BASHPID > "$group/cgroup.procs"
    exec unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup bash -c "$2" boot "$@"
) || echo "systemd ended with $?"
"""
PATIENCE_S = 60.0

NODE = """\
[node]
id = "n1"
drain = 0
[broker]
url = "mqtt://127.0.0.1:1"
"""
SENSOR = """\
[[sensor]]
name = "{name}"
driver = "function"
interval = "50ms"
options = {{ function = "lamp:brightness", units = "lx" }}
read_timeout = "100ms"
"""
LAMP = """\
import time
reads = 0
def brightness():
    global reads
    reads += 1
    time.sleep(0 if reads < 30 else 3600)
    return 320
"""
UNIT = """\
[Unit]
DefaultDependencies=no
[Service]
Type=notify
WatchdogSec=1s
Restart=on-failure
RestartSec=100ms
WorkingDirectory=/out
Environment=PYTHONPATH={root}
ExecStart={python} -m device_sdk run node.toml
StandardError=append:/out/node.log
"""
# The first unit of the machine: it starts the node, notes what systemd knows of it, and ends the machine.
JUDGE = """\
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/bash /out/judge.sh
StandardOutput=append:/out/judge.log
"""
SCRIPT = """\
systemctl start node.service && echo started
for look in $(seq 100); do
    known=$(systemctl show node.service -p StatusText -p NRestarts -p SubState)
    echo "$known"
    case "$known" in *NRestarts=1*SubState=running*) break; esac
    sleep 0.2
done
systemctl stop node.service && echo stopped
systemctl poweroff --force --force
"""
BOOT = """\
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
cd "$1"
shift 2
for place; do
    mkdir -p ".$place"
    mount --bind "$place" ".$place"
done
mkdir -p proc sys run dev old
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
for device in null zero random urandom; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
pivot_root . old
umount -l /old
exec env -i container=test PATH=/usr/bin:/usr/sbin /usr/lib/systemd/systemd --system --unit=judge.service
"""


def run_apart(*arguments: str) -> tuple[int, str]:
    """Run a script of bash where its mounts are seen by nobody else; return exit code and output."""
    command = ["unshare", "--mount", "bash", "-c", arguments[0], "bash", *arguments[1:]]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the first process of the namespace all in it end
        raise
    return process.returncode, output


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root folder of a machine with nothing but systemd, Python and this package."""
    if os.geteuid() or not SYSTEMD.exists() or not shutil.which("unshare"):
        pytest.skip("needs root and systemd's program: it runs in namespaces of its own")
    if run_apart(GROUP, str(tmp_path), "true")[0]:
        pytest.skip("needs namespaces and cgroup2")
    units, out = tmp_path / "etc/systemd/system", tmp_path / "out"
    units.mkdir(parents=True)
    out.mkdir()
    for folder in ("bin", "sbin", "lib", "lib64"):
        (tmp_path / folder).symlink_to(f"usr/{folder}")
    (tmp_path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef" * 2)
    (units / "node.service").write_text(UNIT.format(root=ROOT, python=sys.executable))
    (units / "judge.service").write_text(JUDGE)
    # One sensor that hangs does not make its bus fail.
    node = NODE + "".join(SENSOR.format(name=name) for name in ("lamp", "door", "rain"))
    for name, text in {"node.toml": node, "lamp.py": LAMP, "judge.sh": SCRIPT}.items():
        (out / name).write_text(text)
    return tmp_path


def test_systemd_starts_a_node_knows_how_it_is_and_restarts_it_when_a_bus_has_failed(machine: Path) -> None:
    places = {Path("/usr"), ROOT, Path(sys.prefix), Path(sys.base_prefix)}
    inner = {place for place in places if not any(other in place.parents for other in places)}
    _, output = run_apart(GROUP, str(machine), BOOT, *map(str, sorted(inner)))
    judge, log = ((machine / "out" / name).read_text() for name in ("judge.log", "node.log"))
    told = f"{judge}\n{log}\n{output}"
    assert judge.startswith("started\n"), told
    texts = re.findall(r"^StatusText=(.+)$", judge, re.MULTILINE)
    assert any(text.startswith("3 of 3 sensors online") for text in texts), told
    assert any("function has failed: restart the node" in text for text in texts), told
    assert "\nstopped\n" in judge, told
    assert log.count("node n1: 3 sensors on function") == 2, told
