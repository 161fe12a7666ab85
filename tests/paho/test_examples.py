"""paho-mqtt's own example programs, as they are, on device_sdk: they print what they print on paho-mqtt.

Each is run twice at the same time, with paho-mqtt and with ``python -m device_sdk.paho``, each with a
Mosquitto of its own. A startup module takes them from the public broker they name to that one. The programs
come out of the source distributions, which are fetched from PyPI once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from device_sdk import Client, Message
from device_sdk.testing.broker_process import MosquittoBroker
from tests.paho.suite.run import fetch
from tests.steps import eventually, step

pytestmark = [pytest.mark.system, pytest.mark.flaky(reruns=1)]

STARTUP = Path(__file__).parent / "examples" / "startup"
CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = {"2": "paho_mqtt-2.2.0", "1": "paho-mqtt-1.6.1"}
SECONDS = 15.0
#: The last of the messages that Mosquitto has for whoever subscribes to $SYS/#.
LAST_SYS = "$SYS/broker/bytes/sent"

Pair = tuple[str, bytes]


@dataclass
class Program:
    """How one example is run, and what shows that it has done its work."""

    name: str
    arguments: Sequence[str] = ()
    #: It runs for ever: what it prints last. Empty: it ends by itself.
    last: str = ""
    retained: Sequence[Pair] = ()
    #: Published as soon as the program has subscribed.
    messages: Sequence[Pair] = ()
    #: An example that has to run beside it.
    partner: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    versions: str = "12"
    #: Two threads print, each when it comes to it.
    threads: bool = False
    #: Lines that tell how the operating system cut the bytes, and come out differently each time.
    chance: str = ""


SOCKET_LINES = r"(Socket is|Watching|Stop watching|Selecting|misc_loop).*\n"
PROGRAMS = [
    Program("client_logger", last=LAST_SYS),
    Program("client_mqtt_clear_retain", ("-v", "-t", "old/#"), retained=[("old/a", b"1")]),
    Program("client_pub-wait", threads=True),
    Program("client_pub_opts", ("-q", "2", "-N", "3", "-t", "opts/a", "-c", "opts", "-D"), threads=True),
    Program("client_rpc_math", ("mult", "3", "4.5"), partner="server_rpc_math"),
    Program("client_session_present"),
    Program("client_sub", last=LAST_SYS),
    Program("client_sub-class", last=LAST_SYS),
    Program("client_sub-multiple-callback", last=LAST_SYS),
    # connect_srv() of 1.6.1 always raises: it hands its arguments on in the wrong order.
    Program("client_sub-srv", last="$SYS/broker/version", environment={"EXAMPLE_SRV": "1"}, versions="2"),
    Program("client_sub-ws", last="$SYS/broker/version 0 b"),
    Program(
        "client_sub_opts",
        ("-t", "fed/+", "-q", "2"),
        last="fed/b",
        messages=[("fed/a", b"1"), ("fed/b", b"")],
    ),
    # Slow, and with 1.x no different.
    Program("loop_asyncio", chance=SOCKET_LINES, environment={"EXAMPLE_ASYNCIO": "1"}, versions="2"),
    Program("loop_select", chance=SOCKET_LINES, versions="2"),
    Program("publish_multiple"),
    Program("publish_single"),
    Program("publish_utf8-27"),
    Program("publish_utf8-3"),
    Program("subscribe_callback", last="fed/b", messages=[("fed/a", b"1"), ("fed/b", b"\xff")]),
    Program("subscribe_simple", messages=[("fed/a", b"1"), ("fed/b", b"2")]),
]
LEFT_OUT = {
    "aws_iot": "needs an account with Amazon; it only defines functions",
    "context": "no program, the others import it",
    "loop_trio": "needs trio, a third event loop",
    "server_rpc_math": "runs beside client_rpc_math",
}
#: What is different each time, on paho-mqtt as well.
CHANCE = [
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>"),
    (r"auto-[0-9A-F-]{36}", "<assigned>"),
    # An error that paho-mqtt's one-shot helpers log at the end of every call, although nothing is wrong.
    (r"Client is not connected\. Socket: None.*\n?", ""),
]


class ExampleBroker(MosquittoBroker):
    """Mosquitto with a WebSocket port, constant $SYS messages, and a client that notes every message."""

    def __init__(self) -> None:
        super().__init__()
        self.web_port = self._reserve_port()
        self.seen: list[tuple[str, bytes, int, bool]] = []

    def _ports(self) -> tuple[int, ...]:
        return (*super()._ports(), self.web_port)

    def _command(self, folder: Path) -> list[str]:
        command = super()._command(folder)
        # It publishes them at once when its clock is past the interval, and then not again for so long.
        lines = [f"sys_interval {min(65535, int(time.monotonic()) - 1)}", "log_type all"]
        lines += [f"listener {self.web_port} 127.0.0.1", "protocol websockets"]
        with (folder / "mosquitto.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        return command

    def note(self, message: Message) -> None:
        """Keep what has been published."""
        self.seen.append((message.topic, bytes(message.payload), message.qos, message.retain))


class Followed:
    """What a process prints, taken by a thread as it comes: each line is a step."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.text = ""
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.text += line.decode(errors="replace")
            step()

    def finish(self) -> int:
        """Wait until the process has ended by itself and everything is here; return its exit code."""
        code = self.process.wait(SECONDS)
        self._thread.join(SECONDS)
        return code

    def end(self) -> int | None:
        """End it if it still runs; return its exit code, ``None`` for one that had to be ended."""
        code = self.process.poll()
        self.process.kill()
        self.finish()
        with self.process:
            return code


class Side:
    """One of the two implementations: how it runs a program, its broker, and what that has seen."""

    def __init__(self, command: Sequence[str], path: Sequence[Path], broker: ExampleBroker) -> None:
        self.command = [sys.executable, *command]
        self.path = os.pathsep.join(map(str, [STARTUP, *path]))
        self.broker = broker
        self.watcher = Client(broker.url(), client_id="watcher", on_message=broker.note)
        self.watcher.connect(SECONDS)
        self.watcher.subscribe("#", qos=2).wait(SECONDS)
        assert broker.folder is not None
        self.log = broker.folder / broker.log_name
        self.follower = _follow("tail", "-n", "0", "-f", str(self.log))
        self.programs: list[Followed] = []
        self.seen_before = 0

    def subscriptions(self) -> int:
        """Return how many SUBSCRIBE packets the broker has logged."""
        return self.log.read_text(errors="replace").count("Received SUBSCRIBE")

    def start(self, script: Path, program: Program) -> None:
        """Start a program; what it prints, on stderr too, is kept."""
        web = self.broker.web_port
        ports = f"1883={self.broker._port},80={web},8080={web}"
        python = {"PYTHONPATH": self.path, "PYTHONWARNINGS": "ignore"}
        environment = {**python, **program.environment, "EXAMPLE_PORTS": ports}
        self.programs.append(_follow(*self.command, str(script), *program.arguments, **environment))

    def publish(self, messages: Sequence[Pair], retain: bool = False) -> None:
        """Publish what the program is to get."""
        for topic, payload in messages:
            self.watcher.publish(topic, payload, qos=1, retain=retain).wait(SECONDS)

    def printed(self, program: Program) -> list[str]:
        """Return the whole lines that the program has printed, without what is different each time."""
        text = self.programs[-1].text.rpartition("\n")[0]
        lines = [line for line in _settled(text, program.chance).split("\n") if line]
        return sorted(lines) if program.threads else lines

    def take(self) -> list[tuple[str, bytes, int, bool]]:
        """Return what has been published since the last call, once all of it is here."""
        self.watcher.publish("end", b"", qos=1).wait(SECONDS)
        eventually(lambda: self.broker.seen and self.broker.seen[-1][0] == "end", SECONDS)
        seen = [entry for entry in self.broker.seen if entry[0] != "end"]
        self.broker.seen.clear()
        return [(_settled(topic), payload, qos, retain) for topic, payload, qos, retain in seen]

    def end(self) -> list[int | None]:
        """End what still runs; return the exit codes, ``None`` for what had to be ended."""
        codes = [program.end() for program in self.programs]
        self.programs.clear()
        return codes

    def close(self) -> None:
        """End everything."""
        self.end()
        self.follower.end()
        self.watcher.close(0.0)
        self.broker.stop()


def _follow(*command: str, **environment: str) -> Followed:
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return Followed(subprocess.Popen(command, env={**os.environ, **environment}, **pipes))


def _settled(text: str, chance: str = "") -> str:
    """Return the text without what is different each time."""
    for pattern, instead in [*CHANCE, (chance, "")]:
        text = re.sub(pattern, instead, text) if pattern else text
    return text


@pytest.fixture(scope="module", params=SOURCES)
def version(request: pytest.FixtureRequest) -> str:
    """Return the interface that the programs were written for."""
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def source(version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the unpacked paho-mqtt of that version."""
    try:
        return fetch(SOURCES[version], tmp_path_factory.mktemp("paho"))
    except subprocess.CalledProcessError:
        pytest.skip("needs PyPI")


@pytest.fixture(scope="module")
def sides(version: str, source: Path) -> Iterator[list[Side]]:
    """Return paho-mqtt and us, each with a running broker."""
    if not MosquittoBroker.available():
        pytest.skip("needs mosquitto")
    ours = ["-m", "device_sdk.paho", *(["--v1"] if version == "1" else [])]
    with ExampleBroker() as one, ExampleBroker() as other:
        both = [Side([], [source / "src"], one), Side(ours, [CHECKOUT], other)]
        yield both
        for side in both:
            side.close()


@pytest.fixture
def both(sides: list[Side]) -> Iterator[list[Side]]:
    """Return the two sides; what still runs after the test is ended, what was published is forgotten."""
    yield sides
    for side in sides:
        side.end()
        side.take()


def run(program: Program, examples: Path, side: Side) -> None:
    """Start a program, and what has to be there for it."""
    side.publish(program.retained, retain=True)
    if program.partner:
        count = side.subscriptions()
        side.start(examples / f"{program.partner}.py", Program(""))
        eventually(lambda: side.subscriptions() > count, SECONDS)
    side.seen_before = side.subscriptions()
    side.start(examples / f"{program.name}.py", program)


def finish(program: Program, side: Side) -> None:
    """Give a program what it waits for, and wait until it has done everything."""
    if program.messages:
        eventually(lambda: side.subscriptions() > side.seen_before, SECONDS)
        side.publish(program.messages)
    if program.last:
        eventually(lambda: program.last in "".join(side.printed(program)[-1:]), SECONDS)
    else:
        side.programs[-1].finish()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_an_example_does_the_same_on_both(
    program: Program, version: str, source: Path, both: list[Side]
) -> None:
    if version not in program.versions:
        return
    for side in both:
        run(program, source / "examples", side)
    for side in both:
        finish(program, side)
    printed, printed_here = [side.printed(program) for side in both]
    assert printed_here == printed
    codes, codes_here = [side.end() for side in both]
    assert codes_here == codes
    assert codes[-1] == (None if program.last else 0)
    seen, seen_here = [side.take() for side in both]
    assert seen_here == seen


def test_every_example_is_run_or_left_out_for_a_reason(source: Path) -> None:
    there = {path.stem for path in (source / "examples").glob("*.py")}
    assert there == {program.name for program in PROGRAMS} | set(LEFT_OUT)
