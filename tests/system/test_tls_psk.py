"""TLS with a key that both sides have (PSK) and a real Mosquitto.

Python 3.13 can do it. If the tests run on an older one, a Python 3.13 of this machine runs the client.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk.testing import Certificates
from device_sdk.testing.broker_process import MosquittoBroker

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
IDENTITY, KEY = "sensor-17", "00112233445566778899aabbccddeeff"
HAS_PSK = "import ssl; assert ssl.HAS_PSK"

# What the client does; the last line is its result as JSON.
PROGRAM = """
import json, ssl, sys, threading
from device_sdk import Client, TLSOptions
url, psk, again, version = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "again", sys.argv[4]
def pair():
    return psk["identity"], bytes.fromhex(psk["key"])
tls = TLSOptions(psk_file=psk["file"]) if "file" in psk else TLSOptions(psk=pair)
if version:
    tls.current_context().maximum_version = getattr(ssl.TLSVersion, version.replace(".", "_"))
connected = threading.Semaphore(0)
told = {}
client = Client(url, tls=tls, on_connect=lambda _: connected.release())
try:
    client.connect(10)
    if again:
        assert connected.acquire(timeout=10)
        client._engine.transport.abort()
        assert connected.acquire(timeout=10)
    told["version"] = client._engine.transport.ssl_object.version()
    for topic in ("allowed/t", "other/t"):  # Mosquitto may end the connection at the second one
        delivery = client.publish(topic, b"x", qos=1)
        try:
            delivery.wait(10)
        except Exception as error:
            told["error"] = str(error)
        told[topic] = delivery.reason_code
except Exception as error:
    told["error"], told["kind"] = str(error), type(error).__name__
client.close(1)
print(json.dumps(told))
"""


@cache
def python_with_psk() -> str:
    """Return a Python that has TLS-PSK, this one or a newer one of the machine; skips if there is none."""
    homes = (Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions").glob(
        "3.1[3-9]*/bin/python3"
    )
    newer = [found for minor in range(13, 20) if (found := shutil.which(f"python3.{minor}"))]
    for python in (sys.executable, *newer, *map(str, sorted(homes))):
        if not subprocess.run([python, "-c", HAS_PSK], capture_output=True, timeout=20).returncode:
            return python
    pytest.skip("needs Python 3.13 with TLS-PSK")


class PskMosquitto(MosquittoBroker):
    """Mosquitto that also listens for clients with a PSK, and with a certificate."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self.certificates = certificates
        self.psk_port, self.certificate_port = (self._reserve_port() for _ in range(2))

    def _ports(self) -> tuple[int, ...]:
        return (*super()._ports(), self.psk_port, self.certificate_port)

    def _command(self, folder: Path) -> list[str]:
        command = super()._command(folder)
        (folder / "keys").write_text(f"{IDENTITY}:{KEY}\n")
        (folder / "acl").write_text(f"user {IDENTITY}\ntopic readwrite allowed/#\n")
        server = self.certificates.server
        psk = ["psk_hint broker", "use_identity_as_username true"]
        lines = [
            f"acl_file {folder}/acl",
            f"psk_file {folder}/keys",
            f"listener {self.psk_port} {HOST}", *psk,
            f"listener {self.certificate_port} {HOST}",
            f"certfile {server.certificate}", f"keyfile {server.key}",
        ]  # fmt: skip
        with (folder / "mosquitto.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        return command


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PskMosquitto]:
    if not PskMosquitto.available():
        pytest.skip("needs mosquitto")
    python_with_psk()
    with PskMosquitto(Certificates(tmp_path_factory.mktemp("certificates"))) as broker:
        yield broker


def run(port: int, *, again: bool = False, version: str = "", **psk: Any) -> dict[str, Any]:
    """Run the program; return what it has told."""
    arguments = [f"mqtts://{HOST}:{port}", json.dumps(psk), "again" if again else "once", version]
    ended = subprocess.run(
        [python_with_psk(), "-W", "error", "-c", PROGRAM, *arguments],
        capture_output=True, timeout=60, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return {**told, "log": ended.stderr}


@pytest.mark.parametrize("version", ["TLSv1.3", "TLSv1.2"])
def test_the_broker_knows_the_client_by_its_identity(broker: PskMosquitto, version: str) -> None:
    told = run(broker.psk_port, version=version, identity=IDENTITY, key=KEY)
    assert (told["version"], told["allowed/t"], told["other/t"]) == (version, 0x10, 0x87)
    assert "INSECURE" not in told["log"]


@pytest.mark.parametrize("version", ["TLSv1.3", "TLSv1.2"])
def test_a_connection_that_is_cut_comes_back_with_the_key(broker: PskMosquitto, version: str) -> None:
    told = run(broker.psk_port, again=True, version=version, identity=IDENTITY, key=KEY)
    assert (told.get("version"), told.get("allowed/t")) == (version, 0x10), told


def test_a_file_has_identity_and_key(broker: PskMosquitto, tmp_path: Path) -> None:
    file = tmp_path / "device.psk"
    file.write_text(f"# of sensor 17\n{IDENTITY}:{KEY.upper()}\n")
    assert run(broker.psk_port, file=str(file))["allowed/t"] == 0x10


@pytest.mark.parametrize("version", ["TLSv1.3", "TLSv1.2"])
@pytest.mark.parametrize(("identity", "key"), [(IDENTITY, "ff" * 16), ("nobody", KEY)])
def test_another_key_or_identity_is_refused_in_words(
    broker: PskMosquitto, version: str, identity: str, key: str
) -> None:
    told = run(broker.psk_port, version=version, identity=identity, key=key)
    assert told["kind"] == "TlsError"
    assert "does not accept the PSK: look at identity and key" in told["error"]


def test_a_server_with_a_certificate_instead_of_the_key_is_not_trusted(broker: PskMosquitto) -> None:
    """Nothing checks its certificate: whoever is on the way could show one."""
    told = run(broker.certificate_port, identity=IDENTITY, key=KEY)
    assert told["kind"] == "TlsError"
    assert "has not proved that it has our PSK" in told["error"]


def test_the_command_takes_the_file(broker: PskMosquitto, tmp_path: Path) -> None:
    file = tmp_path / "device.psk"
    file.write_text(f"{IDENTITY}:{KEY}\n")
    ended = subprocess.run(
        [python_with_psk(), "-m", "device_sdk", "pub", "--url", f"mqtts://{HOST}:{broker.psk_port}",
         "--psk-file", str(file), "-t", "allowed/t", "-m", "x", "-q", "1"],
        capture_output=True, timeout=60, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
