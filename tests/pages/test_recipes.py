"""Every program of docs/recipes.md runs, with the model broker and Mosquitto, and so do the bad cases."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from device_sdk import Client, Message
from device_sdk.errors import ArgumentError, StoreError
from device_sdk.mqtt import Connect
from device_sdk.testing import BrokerServer, Certificates, ModelBroker
from device_sdk.testing.broker_process import ChildBroker, MosquittoBroker
from tests.pages.page import DOCS, blocks
from tests.pages.program import SECONDS, Places, Program

BLOCKS = blocks("recipes.md")
CHECKOUT = DOCS.parent


def block(heading: str, language: str = "python", number: int = 0) -> str:
    """Return one block of a recipe."""
    found = [each.text for each in BLOCKS if (each.heading, each.language) == (heading, language)]
    return found[number]


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Each program runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    return Places(monkeypatch)


class Running(NamedTuple):
    """A broker: its port, and how to end it."""

    port: int
    stop: Callable[[], None]


def model() -> Iterator[Running]:
    with BrokerServer(ModelBroker()) as server:
        yield Running(server.port, server.stop)
        assert server.broker.violations == []


def mosquitto() -> Iterator[Running]:
    if not MosquittoBroker.available():
        pytest.skip("needs mosquitto")
    with MosquittoBroker() as broker:
        yield Running(port_of(broker), broker.terminate)


def port_of(broker: ChildBroker) -> int:
    return int(broker.url().rpartition(":")[2])


@pytest.fixture(params=[model, pytest.param(mosquitto, marks=pytest.mark.system)])
def broker(request: pytest.FixtureRequest) -> Iterator[Running]:
    """Return the model broker, then a real one."""
    start: Callable[[], Iterator[Running]] = request.param
    yield from start()


@pytest.fixture
def there(broker: Running, places: Places) -> Running:
    """Return a broker that the programs of the page find."""
    places.ports["broker.example", 1883] = broker.port
    return broker


class Watcher:
    """A client of the test at a broker."""

    def __init__(self, port: int, topic_filter: str = "") -> None:
        self.client = Client(f"mqtt://127.0.0.1:{port}", client_id="watcher")
        self._inbox = self.client.messages()
        self.client.connect(SECONDS)
        if topic_filter:
            self.client.subscribe(topic_filter, qos=1).wait(SECONDS)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close(1)

    def next(self) -> Message:
        return self._inbox.get(SECONDS)

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish; what is retained arrives at a program as soon as it has subscribed."""
        self.client.publish(topic, payload, qos=1, retain=retain).wait(SECONDS)


def test_the_page_has_eleven_recipes_and_no_other_blocks() -> None:
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    headings = list(dict.fromkeys(each.heading for each in BLOCKS))
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == headings
    assert (len(headings), text.count("**When it goes wrong.**")) == (11, 11)
    others = [(each.heading, each.language) for each in BLOCKS if each.language != "python"]
    assert (len(BLOCKS), others) == (17, [(TLS, "sh"), (TLS, "conf")])


# Encrypt with a CA of your own

TLS = "Encrypt with a CA of your own"


class TlsMosquitto(MosquittoBroker):
    """Mosquitto with the lines of the page in its configuration, on a free port."""

    def __init__(self, certificates: Path) -> None:
        super().__init__()
        self._certificates = certificates
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.tls_port = int(probe.getsockname()[1])

    def _ports(self) -> tuple[int, ...]:
        return (*super()._ports(), self.tls_port)

    def _command(self, folder: Path) -> list[str]:
        command = super()._command(folder)
        lines = block(TLS, "conf").replace("/etc/mosquitto/certs", str(self._certificates))
        with (folder / "mosquitto.conf").open("a") as file:
            file.write(lines.replace("listener 8883", f"listener {self.tls_port} 127.0.0.1"))
        return command


@pytest.fixture
def tls_broker(folder: Path, places: Places) -> Iterator[TlsMosquitto]:
    """Return a broker with the certificates that the commands of the page make."""
    if not TlsMosquitto.available():
        pytest.skip("needs mosquitto")
    made = subprocess.run(["sh", "-ec", block(TLS, "sh")], capture_output=True, text=True, timeout=60)
    if made.returncode == 127:
        pytest.skip("needs openssl")
    assert made.returncode == 0, made.stderr
    with TlsMosquitto(folder) as running:
        places.ports["broker.example", 8883] = running.tls_port
        yield running


@pytest.mark.system
def test_a_client_with_our_ca_and_a_certificate_of_its_own_connects(tls_broker: TlsMosquitto) -> None:
    with Watcher(port_of(tls_broker), "#") as watcher:
        assert Program(block(TLS)).join() == ["sent, encrypted"]
        assert watcher.next().payload == b"online"


@pytest.mark.system
def test_a_broker_of_another_ca_gets_nothing(tls_broker: TlsMosquitto, folder: Path) -> None:
    (folder / "other").mkdir()
    other = Certificates(folder / "other")
    (folder / "ca.pem").write_bytes(Path(other.ca).read_bytes())
    (line,) = Program(block(TLS)).join()
    assert re.match("nothing was sent: .* from a CA that is not trusted", line), line


@pytest.mark.system
def test_a_device_with_a_certificate_of_another_ca_is_told_that_it_was_rejected(
    tls_broker: TlsMosquitto, folder: Path
) -> None:
    (folder / "other").mkdir()
    other = Certificates(folder / "other").client
    (folder / "node-17.pem").write_bytes(Path(other.certificate).read_bytes())
    (folder / "node-17.key").write_bytes(Path(other.key).read_bytes())
    (line,) = Program(block(TLS)).join()
    assert re.match("nothing was sent: .* the broker does not trust our certificate", line), line


@pytest.mark.system
def test_a_broker_of_another_name_gets_nothing(tls_broker: TlsMosquitto, places: Places) -> None:
    places.ports["other.example", 8883] = tls_broker.tls_port
    (line,) = Program(block(TLS).replace("broker.example", "other.example")).join()
    assert re.match("nothing was sent: .* does not name ", line), line


def test_a_missing_file_is_an_error_at_once() -> None:
    with pytest.raises(ArgumentError, match=r"cannot read .*: No such file"):
        Program(block(TLS)).join()


# Keep a reading over a reboot

STORED = "Keep a reading over a reboot"


def test_a_reading_of_a_run_without_a_broker_is_sent_by_the_next(broker: Running, places: Places) -> None:
    assert Program(block(STORED)).join() == ["safe: stored"]
    places.ports["broker.example", 1883] = broker.port
    with Watcher(broker.port, "#") as watcher:
        (line,) = Program(block(STORED)).join()
        arrived = [watcher.next() for _ in range(2)]
    assert line in ("safe: stored", "safe: sent", "safe: acknowledged")  # how far it has come by then
    for message in arrived:
        assert message.topic == "site/17/load"
        assert re.fullmatch(rb"\d+\.\d\d", message.payload)


def test_a_second_program_with_the_same_file_is_told_so(places: Places) -> None:
    client = Client("mqtt://broker.example", store="queue.db")
    with pytest.raises(StoreError):
        Program(block(STORED)).join()
    client.close(0)


# Say whether the device is there

PRESENCE = "Say whether the device is there"


def test_it_is_online_first_and_offline_last(there: Running) -> None:
    with Watcher(there.port, "#") as watcher:
        assert Program(block(PRESENCE)).join() == ["the device has left"]
        arrived = [watcher.next() for _ in range(3)]
    assert [message.topic for message in arrived] == ["site/17/state", "site/17/load", "site/17/state"]
    assert [arrived[0].payload, arrived[2].payload] == [b"online", b"offline"]


def test_nothing_is_kept_of_the_presence_in_a_run_without_a_broker(places: Places) -> None:
    Program(block(PRESENCE)).join()
    with BrokerServer(ModelBroker()) as server:
        places.ports["broker.example", 1883] = server.port
        Program(block(PRESENCE)).join()
        topics = [message.topic for message in server.broker.journal]
    assert topics == ["site/17/state", "site/17/load", "site/17/load", "site/17/state"]


# Receive commands and answer

COMMANDS = "Receive commands and answer"


def test_a_command_is_obeyed_and_answered(there: Running) -> None:
    with Watcher(there.port) as watcher:
        watcher.send("site/17/valve/set", b"nonsense", retain=True)
    device = Program(block(COMMANDS))
    device.wait_for('nonsense -> {"ok": false, "error": "JSONDecodeError')
    assert Program(block(COMMANDS, number=1)).join() == ['{"ok": true, "open": true}']
    device.wait_for('{"open": true} -> {"ok": true, "open": true}')
    device.names["client"].close(1)
    device.join()


def test_without_a_device_a_request_times_out_and_the_command_is_not_kept(there: Running) -> None:
    asked = block(COMMANDS, number=1)
    assert "timeout=10" in asked
    with pytest.raises(TimeoutError):
        Program(asked.replace("timeout=10", "timeout=0.2")).join()


# Work slowly on what arrives

SLOW = "Work slowly on what arrives"


def test_two_threads_do_the_jobs(there: Running) -> None:
    with Watcher(there.port) as watcher:
        watcher.send("jobs/1", b"one", retain=True)
        watcher.send("jobs/2", b"two", retain=True)
    program = Program(block(SLOW))
    program.wait_for(r"worker [12] has done (one|two): [0-9a-f]{8}")
    program.wait_for(r"worker [12] has done (one|two): [0-9a-f]{8}")
    program.names["client"].close(1)
    program.join()


def test_a_job_that_was_killed_in_the_middle_is_done_by_the_next_run(broker: Running) -> None:
    with Watcher(broker.port) as watcher:
        watcher.send("jobs/1", b"one", retain=True)
        first = started(SLOW, broker.port, "1_000_000", "1_000_000_000")
        assert first.stdout is not None
        assert "begins one" in first.stdout.readline()
        first.kill()
        first.communicate(timeout=SECONDS)
        watcher.send("jobs/1", b"", retain=True)  # retained no more: only the session can have it still
    again = started(SLOW, broker.port, "1_000_000", "1_000")
    deadline = threading.Timer(SECONDS, again.kill)
    deadline.start()
    try:
        assert again.stdout is not None
        assert any("begins one" in line for line in again.stdout)  # the workers begin in any order
    finally:
        deadline.cancel()
        again.kill()
        again.communicate(timeout=SECONDS)


def started(heading: str, port: int, what: str, instead: str) -> subprocess.Popen[str]:
    """Start a program of the page as a process of its own."""
    code = block(heading).replace("broker.example", f"127.0.0.1:{port}")
    assert what in code
    return subprocess.Popen(
        [sys.executable, "-u", "-c", code.replace(what, instead)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
    )


# Use two brokers

TWO = "Use two brokers"


def test_readings_go_to_the_far_broker_when_the_near_one_is_gone(broker: Running, places: Places) -> None:
    with BrokerServer(ModelBroker()) as far:
        places.ports["near.example", 1883] = broker.port
        places.ports["far.example", 1883] = far.port
        program = Program(block(TWO))
        program.wait_for("connected tcp near.example:1883")
        broker.stop()
        program.wait_for("disconnected ")
        program.wait_for("connected tcp far.example:1883")
        far.wait_for(lambda: far.broker.payloads("site/17/uptime"), SECONDS)
        program.names["stop"].set()
        program.join()


# Test without hardware

HARDWARE = "Test without hardware"


def test_the_tests_of_the_page_pass(folder: Path) -> None:
    pytest.importorskip("adafruit_bme280", reason="needs adafruit-circuitpython-bme280")
    for number, name in enumerate(["node.py", "test_node.py"]):
        text = block(HARDWARE, number=number)
        assert text.startswith(f"# {name}\n")
        (folder / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


# Send many readings in bounded memory

MANY = "Send many readings in bounded memory"


def test_the_newest_readings_wait_and_arrive_in_order(broker: Running, places: Places) -> None:
    with Watcher(broker.port, "#") as watcher:
        program = Program(block(MANY))
        program.wait_for("1000 wait, 4000 were dropped, 0 have arrived")
        places.ports["broker.example", 1883] = broker.port
        program.join()
        assert [int(watcher.next().payload) for _ in range(1_000)] == list(range(4_000, 5_000))


def test_a_full_queue_is_an_error_by_default() -> None:
    (line,) = Program(block(MANY, number=1).replace("broker.example", "127.0.0.1:1")).join()
    assert line.startswith("sample 100 does not fit: ")


# Use credentials that rotate

TOKENS = "Use credentials that rotate"


def test_each_attempt_reads_the_token_anew(folder: Path) -> None:
    secret = ["first"]
    token = folder / "token"

    def judge(connect: Connect) -> int:
        return 0 if (connect.user_name, connect.password) == ("node-17", secret[0].encode()) else 0x86

    with BrokerServer(ModelBroker(authorize_connect=judge)) as server:
        program = Program(block(TOKENS).replace("mqtts://broker.example", server.url))
        program.wait_for("connect_failed .*credentials: the callable raised .*token")
        token.write_text("first\n")
        program.wait_for("connected ")
        secret[0] = "second"
        token.write_text("second\n")
        server.disconnect_all()
        program.wait_for("disconnected ")
        program.wait_for("connected ")
        secret[0] = "third"
        server.disconnect_all()
        program.wait_for("connect_failed .*bad user name or password")
        token.write_text("third\n")
        program.names["client"].reconnect_now()
        program.wait_for("connected ")
        program.names["stop"].set()
        shown = "\n".join(program.join())
    assert not re.search("first|second|third", shown), "a token is not to be seen"


# Do it in asyncio, beside other work

ASYNCIO = "Do it in asyncio, beside other work"


def test_it_measures_and_obeys_in_one_loop(there: Running) -> None:
    with Watcher(there.port, "site/17/load") as watcher:
        watcher.send("site/17/cmd", b"hello", retain=True)
        program = Program(block(ASYNCIO))
        program.wait_for("told to hello")
        assert re.fullmatch(rb"\d+\.\d\d", watcher.next().payload)
        watcher.send("site/17/cmd", b"stop")
        assert program.join() == ["told to hello", "told to stop"]


# Come from a paho program

PAHO = "Come from a paho program"


@pytest.mark.parametrize("number", [0, 1], ids=["drop-in", "our own client"])
def test_both_programs_publish_and_receive(there: Running, number: int) -> None:
    with Watcher(there.port, "site/17/state") as watcher:
        watcher.send("cmd/17/valve", b"open", retain=True)
        assert Program(block(PAHO, number=number)).join() == ["cmd/17/valve open"]
        assert watcher.next().payload == b"online"


def test_without_a_broker_the_drop_in_raises_as_paho_does(places: Places) -> None:
    with pytest.raises(ConnectionRefusedError):
        Program(block(PAHO)).join()
