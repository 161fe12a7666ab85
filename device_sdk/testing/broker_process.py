"""A real MQTT broker as a child process, for the demo and for tests: Mosquitto or iotcore.

::

    with find_broker() as broker:
        client = Client(broker.url("5.0"))

Both listen on 127.0.0.1 only, on ports reserved for the life of the object, keep their data in a temporary
folder, and end with the process that started them, even if that is killed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from device_sdk.errors import ArgumentError, DeviceSdkError, MissingDependency

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "BROKERS",
    "ChildBroker",
    "IotcoreBroker",
    "MosquittoBroker",
    "find_broker",
    "iotcore_command",
    "mosquitto_path",
]

_GUARD = Path(__file__).with_name("guard.py")
_STOP_S = 8.0  # the guard itself waits 5 s before it kills
_POLL_S = 0.02

# Debian installs brokers into a folder that is not on the PATH of ordinary users.
_ADMIN_FOLDERS = ("/usr/sbin", "/usr/local/sbin")


class ChildBroker(ABC):
    """A broker process that belongs to this one. Not thread-safe.

    Use it as a context manager, or call :meth:`start` and :meth:`stop`.
    """

    name: ClassVar[str]
    log_name: ClassVar[str] = "broker.log"
    start_s: ClassVar[float] = 10.0

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._reservations: list[_Reservation] = []

    @classmethod
    @abstractmethod
    def available(cls) -> bool:
        """Return whether this broker is installed."""

    @abstractmethod
    def url(self, version: str = "5.0") -> str:
        """Return the URL for a client of this MQTT version.

        Raises: ArgumentError: the broker does not speak this version.
        """

    @abstractmethod
    def _ports(self) -> tuple[int, ...]: ...

    @abstractmethod
    def _command(self, folder: Path) -> list[str]:
        """Write the configuration into the folder and return the command line."""

    @property
    def pid(self) -> int | None:
        """Process identifier of the guard that runs the broker, ``None`` when it is stopped."""
        return self._guard.pid if self._guard is not None else None

    @property
    def folder(self) -> Path | None:
        """Folder of configuration, log and data; ``None`` before the first start and after :meth:`stop`."""
        return self._folder

    def start(self) -> None:
        """Start the broker, with the data of its last run if there was one, and wait until it listens.

        Raises: DeviceSdkError: it ended at once or does not listen after ``start_s`` seconds; with the end
        of its log.
        """
        if self._guard is not None:
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="device-sdk-broker-"))
        try:
            command = self._command(self._folder)
            with (self._folder / self.log_name).open("ab") as log:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", str(_GUARD), str(self._folder), *command],
                    stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            self._wait_until_listening(self._guard)
        except BaseException:
            self.stop()
            raise

    def terminate(self) -> None:
        """End the broker with SIGTERM and keep its data for the next :meth:`start`."""
        self._end_guard(keep_folder=True)

    def restart(self) -> None:
        """SIGTERM, wait, start again with the same data on the same port."""
        self.terminate()
        self.start()

    def stop(self) -> None:
        """End the broker and remove its folder. Takes 8 s at most; does nothing when it is stopped."""
        self._end_guard(keep_folder=False)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _reserve_port(self) -> int:
        """Return a port of 127.0.0.1 that no other process gets, even between two runs of the broker."""
        self._reservations.append(_Reservation())
        return self._reservations[-1].port

    def _end_guard(self, keep_folder: bool) -> None:
        guard, self._guard = self._guard, None
        if guard is None or guard.stdin is None:
            return
        if keep_folder:
            guard.terminate()
        else:
            guard.stdin.close()
        try:
            guard.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            # The kernel kills the broker together with its guard.
            guard.kill()
            guard.wait()
        guard.stdin.close()

    def _wait_until_listening(self, guard: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self.start_s
        for port in self._ports():
            while not _listens(port):
                if guard.poll() is not None:
                    raise DeviceSdkError(
                        f"{self.name} ended with status {guard.returncode}: {self._log_end()}"
                    )
                if time.monotonic() > deadline:
                    raise DeviceSdkError(f"{self.name} does not listen on port {port}: {self._log_end()}")
                time.sleep(_POLL_S)

    def _log_end(self) -> str:
        assert self._folder is not None
        lines = (self._folder / self.log_name).read_text(errors="replace").splitlines()
        return " | ".join(lines[-3:]) or "it logged nothing"


class MosquittoBroker(ChildBroker):
    """Mosquitto with persistence: MQTT 3.1, 3.1.1 and 5.0 on one port, queues and sessions survive a restart.

    It writes its database when it ends, so :meth:`ChildBroker.terminate` loses nothing; a killed one loses
    the messages since its start (or the last autosave, every 30 minutes). Its limit of 1,000 queued messages
    per client is lifted.
    """

    name = "mosquitto"

    def __init__(self) -> None:
        super().__init__()
        self._port = self._reserve_port()

    @classmethod
    def available(cls) -> bool:
        """Return whether a ``mosquitto`` is on the PATH or in the folders for system programs."""
        return mosquitto_path() is not None

    def url(self, version: str = "5.0") -> str:
        """Return the one URL for all three versions."""
        _check_version(version, ("3.1", "3.1.1", "5.0"))
        return f"mqtt://127.0.0.1:{self._port}"

    def _ports(self) -> tuple[int, ...]:
        return (self._port,)

    def _command(self, folder: Path) -> list[str]:
        path = mosquitto_path()
        if path is None:
            raise MissingDependency(_NO_BROKER, "broker")
        lines = [
            f"listener {self._port} 127.0.0.1",
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {folder}/",
            "max_queued_messages 0",
            "set_tcp_nodelay true",
            "log_dest stderr",
        ]
        if os.geteuid() == 0:
            # It would switch to the user mosquitto, which may not enter our folder.
            lines.append("user root")
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        return [path, "-c", str(folder / "mosquitto.conf")]


class IotcoreBroker(ChildBroker):
    """The rumqttd broker of the package ``iotcore``: no system install, nothing kept over a restart.

    MQTT 3.1.1 and 5.0 on a port each, because the broker cannot distinguish them on one. Now and then iotcore
    0.4.0 closes a fresh connection when one on the other port has just ended; the client connects again.
    """

    name = "iotcore"

    def __init__(self) -> None:
        super().__init__()
        self._port_of = {"3.1.1": self._reserve_port(), "5.0": self._reserve_port()}

    @classmethod
    def available(cls) -> bool:
        """Return whether the package is installed."""
        return importlib.util.find_spec("iotcore") is not None

    def url(self, version: str = "5.0") -> str:
        """Return the URL for this version."""
        _check_version(version, tuple(self._port_of))
        return f"mqtt://127.0.0.1:{self._port_of[version]}"

    def _ports(self) -> tuple[int, ...]:
        return tuple(self._port_of.values())

    def _command(self, folder: Path) -> list[str]:
        if not self.available():
            raise MissingDependency(_NO_BROKER, "broker")
        listeners = [("v4", self._port_of["3.1.1"], ""), ("v5", self._port_of["5.0"], "")]
        return iotcore_command(folder, listeners)


_IOTCORE_ROUTER = """\
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
"""

_IOTCORE_LISTENER = """\
[{kind}.1]
name = "{kind}"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[{kind}.1.connections]
connection_timeout_ms = 60000
max_payload_size = 2097152
max_inflight_count = 100
dynamic_filters = true
"""

_NO_BROKER = "No MQTT broker found. Install Mosquitto (sudo apt install mosquitto); the built-in one"

BROKERS: dict[str, type[ChildBroker]] = {"mosquitto": MosquittoBroker, "iotcore": IotcoreBroker}
"""Every broker that can be a child, the preferred one first."""


def find_broker(preferred: str | None = None) -> ChildBroker:
    """Return a broker that is installed, not started yet: Mosquitto before iotcore, or the preferred one.

    Raises: MissingDependency: none is installed, or not the preferred one; the message says what to install.
    ArgumentError: the preferred one is unknown.
    """
    if preferred is not None and preferred not in BROKERS:
        raise ArgumentError("preferred", f"{preferred!r} is not one of {', '.join(BROKERS)}")
    for kind in [BROKERS[preferred]] if preferred else BROKERS.values():
        if kind.available():
            return kind()
    raise MissingDependency(_NO_BROKER, "broker")


def iotcore_command(folder: Path, listeners: Iterable[tuple[str, int, str]]) -> list[str]:
    """Write iotcore's configuration into the folder and return the command line.

    A listener: its kind (``v4``, ``v5``, ``ws``), of which there is one each, its port on 127.0.0.1, and the
    tables of its own that it has besides, as TOML.
    """
    config = folder / "iotcore.toml"
    config.write_text(
        _IOTCORE_ROUTER
        + "".join(_IOTCORE_LISTENER.format(kind=kind, port=port) + more for kind, port, more in listeners)
    )
    # At any lower level it logs several lines for every packet.
    return [sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL"]


def mosquitto_path() -> str | None:
    """Return the path of the ``mosquitto`` program, ``None`` when it is not installed."""
    folders = (os.environ.get("PATH", os.defpath), *_ADMIN_FOLDERS)
    return shutil.which("mosquitto", path=os.pathsep.join(folders))


def _check_version(version: str, known: tuple[str, ...]) -> None:
    if version not in known:
        raise ArgumentError("version", f"{version!r} is not spoken by this broker, only {', '.join(known)}")


class _Reservation:
    """A port of 127.0.0.1 that stays ours as long as this object lives, without listening.

    The kernel does not give it to a process that asks for any port. A server can still listen on it with
    SO_REUSEADDR, which servers usually set.
    """

    def __init__(self) -> None:
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", 0))
            self.port: int = holder.getsockname()[1]
            self._fd = holder.detach()

    def __del__(self) -> None:
        os.close(self._fd)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return True
    except OSError:
        return False
