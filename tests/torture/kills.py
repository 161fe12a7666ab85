"""Kill torture: publisher, subscriber and broker are killed at random, and nothing stored may be missing.

    python -m tests.torture.kills [--kills 50] [--seed 1] [--durability batch] [--kill-broker]

A publisher and a subscriber, each with a store on disk, exchange numbered messages at QoS 1 and 2 through
Mosquitto (persistence on). They get SIGKILL at random moments, the broker SIGTERM and a restart. Proxies on
both sides are the witnesses. With ``--kill-broker`` it gets SIGKILL instead, after which Mosquitto 2.0 has
lost messages that it had acknowledged: then only those that it never acknowledged count.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from device_sdk import Client
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.mqtt.message import Message
from device_sdk.store.base import StorePolicy
from device_sdk.testing.broker_process import MosquittoBroker
from tests.torture.witness import Seen, Witness

__all__ = ["Report", "torture"]

_FAST = ReconnectPolicy(first=0.02, longest=0.2)
_TOPICS = 3
_FINISH_S = 60.0
# Mosquitto 2.0 gives a packet identifier to a second message while the first is not through, once more than
# 65,535 went to a subscriber: so the publisher takes its time, and a long torture has several rounds.
_PAUSE_S = 0.02
_KILLS_PER_ROUND = 100
_QUIET_S = 5.0  # nothing more arrived for so long: what is missing now stays missing


class Note:
    """A file of lines that survive SIGKILL as soon as they are written."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *fields: object) -> None:
        """Append one line."""
        os.write(self._fd, (" ".join(map(str, fields)) + "\n").encode())


def read_notes(path: Path) -> list[list[str]]:
    """Return the fields of each line."""
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


# The two programs that are killed


def publisher(url: str, folder: Path, durability: str) -> None:
    """Publish numbers, and note which were tried and which the store has; at the end of input, finish."""
    tried, stored = Note(folder / "tried"), Note(folder / "stored")
    earlier = read_notes(folder / "tried")
    number = int(earlier[-1][0]) if earlier else 0
    client = Client(
        url, client_id="torture-publisher", store=folder / "publisher.db", reconnect=_FAST,
        policy=StorePolicy(durability=durability, linger=0.02, min_free=0),
    )  # fmt: skip
    client.start()
    stop = folder / "stop"
    while not stop.exists():
        deliveries = []
        for _ in range(4):
            number += 1
            qos = 1 + number % 2
            tried.write(number, qos)
            topic = f"torture/{qos}/{number // 2 % _TOPICS}"
            deliveries.append((number, client.publish(topic, b"%d" % number, qos=qos)))
        for published, delivery in deliveries:
            delivery.wait_stored(30)
            stored.write(published)
        time.sleep(_PAUSE_S)
    client.close(drain=_FINISH_S)
    (folder / "finished").write_text(str(client.stats.queued))


def subscriber(url: str, folder: Path, durability: str) -> None:
    """Note what arrives until the process is killed."""
    received = Note(folder / "received")
    life = os.getpid()

    def note(message: Message) -> None:
        received.write(message.payload.decode(), message.qos, message.topic, life, message.packet_id)

    client = Client(
        url, client_id="torture-subscriber", store=folder / "subscriber.db", reconnect=_FAST,
        policy=StorePolicy(durability=durability, min_free=0), on_message=note,
    )  # fmt: skip
    subscribed = client.subscribe("torture/#", qos=2)
    with client:
        if not (folder / "subscribed").exists():
            subscribed.wait(30)
            (folder / "subscribed").touch()
        signal.pause()


# Who kills them


class Report:
    """What a run showed; every number but the first four has to be 0."""

    def __init__(self) -> None:
        self.kills = 0
        self.restarts = 0
        self.stored = 0
        self.arrived = 0
        self.lost = 0  # reported stored, never arrived
        self.sent_twice = 0  # QoS 2: begun as a new exchange twice
        self.handed_twice = 0  # QoS 2: handed to the application again although PUBREC had left
        self.out_of_order = 0  # first arrivals on a topic
        self.left = 0  # in the publisher's queue at the end
        self.examples: list[str] = []

    def add(self, other: Report) -> None:
        """Count another round in."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def faults(self) -> int:
        """How many things went wrong."""
        return self.lost + self.sent_twice + self.handed_twice + self.out_of_order + self.left

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.restarts} restarts of the broker; {self.stored} messages stored, "
            f"{self.arrived} arrived; lost {self.lost}, sent twice {self.sent_twice}, handed over twice "
            f"{self.handed_twice}, out of order {self.out_of_order}, left in the queue {self.left}"
        )


class Scene:
    """The broker, its witnesses, and the two programs."""

    def __init__(self, folder: Path, durability: str) -> None:
        self.folder = folder
        self.durability = durability
        self.broker = MosquittoBroker()
        self.programs: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, kills: int, dice: random.Random, kill_broker: bool) -> Report:
        """Torture, let everything finish, and judge."""
        report = Report()
        with self.broker:
            port = int(self.broker.url().rpartition(":")[2])
            with Witness(port) as up, Witness(port) as down:
                self.ports = {"publisher": up.port, "subscriber": down.port}
                try:
                    self._torture(report, kills, dice, kill_broker)
                    self._finish()
                finally:
                    for program in self.programs.values():
                        program.kill()
                        program.wait(10)
                judge(report, self.folder, up.seen, down.seen, forgiving=kill_broker)
        return report

    def _torture(self, report: Report, kills: int, dice: random.Random, kill_broker: bool) -> None:
        self._start("subscriber")
        _wait((self.folder / "subscribed").exists, "the subscription")
        self._start("publisher")
        self._await_progress()
        while report.kills < kills:
            time.sleep(dice.uniform(0.02, 0.3))
            victims = dice.choices(
                [["publisher"], ["subscriber"], ["publisher", "subscriber"], ["broker"]], [5, 5, 1, 1]
            )[0]
            for victim in victims:
                if victim == "broker":
                    self._restart_broker(kill_broker)
                    report.restarts += 1
                    continue
                self.programs[victim].kill()
                self.programs[victim].wait(10)
                report.kills += 1
            for victim in set(victims) - {"broker"}:
                self._start(victim)
            if dice.random() < 0.5:
                self._await_progress()

    def _start(self, name: str) -> None:
        command = [sys.executable, "-m", "tests.torture.kills", "--child", name]
        command += [f"mqtt://127.0.0.1:{self.ports[name]}", str(self.folder), "--durability", self.durability]
        self.programs[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def _restart_broker(self, kill: bool) -> None:
        guard = self.broker.pid
        if kill and guard is not None:
            for child in Path(f"/proc/{guard}/task/{guard}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
        self.broker.restart()

    def _await_progress(self) -> None:
        """Wait until the publisher stores and the subscriber receives: killing only starts shows nothing."""
        for name in ("stored", "received"):
            path = self.folder / name
            before = path.stat().st_size if path.exists() else 0
            _wait(lambda path=path, before=before: path.exists() and path.stat().st_size > before, name)

    def _finish(self) -> None:
        """Let the publisher empty its queue, and the subscriber receive what is left."""
        (self.folder / "stop").touch()
        _wait(lambda: (self.folder / "finished").exists(), "the publisher's end")
        wanted = {line[0] for line in read_notes(self.folder / "stored")}
        received = self.folder / "received"
        size, quiet_since = -1, time.monotonic()
        while time.monotonic() - quiet_since < _QUIET_S:
            if wanted <= {line[0] for line in read_notes(received)}:
                return
            if received.stat().st_size != size:
                size, quiet_since = received.stat().st_size, time.monotonic()
            time.sleep(0.1)


def _wait(condition: object, what: str) -> None:
    deadline = time.monotonic() + _FINISH_S
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_FINISH_S:g} s for {what}")
        time.sleep(0.02)


# Judging


def judge(report: Report, folder: Path, up: list[Seen], down: list[Seen], *, forgiving: bool) -> None:
    """Compare what was promised with what the witnesses saw and what arrived."""
    stored = {int(line[0]) for line in read_notes(folder / "stored")}
    arrivals = [(int(line[0]), int(line[1]), line[2]) for line in read_notes(folder / "received")]
    arrived = {number for number, _, _ in arrivals}
    report.stored, report.arrived = len(stored), len(arrived)
    report.left = int((folder / "finished").read_text())
    lost = stored - arrived
    if forgiving:
        lost -= acknowledged(up)
    report.lost = len(lost)
    report.examples += [f"lost: {number}" for number in sorted(lost)[:5]]
    begun: dict[bytes, int] = defaultdict(int)
    for seen in up:
        if seen.upwards and seen.kind == "publish" and seen.qos == 2 and not seen.dup:
            begun[seen.payload] += 1
    if not forgiving:  # a broker without its sessions has every exchange begun anew
        twice = [payload.decode() for payload, count in begun.items() if count > 1]
        report.sent_twice = len(twice)
        report.examples += [f"sent twice: {payload}" for payload in twice[:5]]
        handed: dict[bytes, int] = defaultdict(int)
        for number, qos, _ in arrivals:
            handed[b"%d" % number] += qos == 2
        too_often = handed_too_often(down, handed)
        report.handed_twice = len(too_often)
        report.examples += [f"handed over after its PUBREC: {payload.decode()}" for payload in too_often[:5]]
        # Mosquitto 2.0 mixes the order itself when a subscriber comes back: each side is judged by its own.
        report.out_of_order = out_of_order(first_sent(up, upwards=True), report.examples)


def acknowledged(up: list[Seen]) -> set[int]:
    """Return the numbers that the broker had taken over."""
    open_exchanges: dict[int, int] = {}
    found = set()
    for seen in up:
        if seen.upwards and seen.kind == "publish" and seen.qos:
            open_exchanges[seen.packet_id] = int(seen.payload)
        elif not seen.upwards and seen.kind in ("puback", "pubrec") and seen.packet_id in open_exchanges:
            found.add(open_exchanges[seen.packet_id])
    return found


def handed_too_often(down: list[Seen], handed: dict[bytes, int]) -> list[bytes]:
    """Return the QoS 2 messages that the application got more often than is allowed.

    A repetition may be handed over only when the process was killed before its PUBREC left: at most as often
    as the broker sent the message before it was given a PUBREC. Mosquitto 2.0, ended by SIGTERM between its
    PUBREL and our PUBCOMP, begins the exchange anew after its restart: that is not counted against us.
    """
    payloads: dict[int, bytes] = {}  # by packet identifier, of the exchange that is going on
    allowed: dict[bytes, int] = defaultdict(int)
    answered: set[bytes] = set()
    for seen in down:
        if not seen.upwards and seen.kind == "pubrel" and seen.packet_id in payloads:
            answered.discard(payloads[seen.packet_id])
        if not seen.upwards and seen.kind == "publish" and seen.qos == 2:
            payloads[seen.packet_id] = seen.payload
            if seen.payload not in answered:
                allowed[seen.payload] += 1
        elif seen.upwards and seen.kind == "pubrec" and seen.packet_id in payloads:
            answered.add(payloads[seen.packet_id])
    return [payload for payload, count in handed.items() if count > allowed[payload]]


def first_sent(seen: list[Seen], *, upwards: bool) -> list[tuple[int, str]]:
    """Return number and topic of each message when it was sent for the first time."""
    found: dict[int, str] = {}
    for one in seen:
        if one.upwards is upwards and one.kind == "publish":
            found.setdefault(int(one.payload), one.topic)
    return list(found.items())


def out_of_order(messages: list[tuple[int, str]], examples: list[str]) -> int:
    """Count the messages that come after a later number of their topic."""
    newest: dict[str, int] = defaultdict(int)
    faults = 0
    for number, topic in messages:
        if number < newest[topic]:
            faults += 1
            examples.append(f"{topic}: {number} came after {newest[topic]}")
        newest[topic] = max(newest[topic], number)
    return faults


def torture(kills: int, *, seed: int = 1, durability: str = "batch", kill_broker: bool = False) -> Report:
    """Run the torture, each round in a temporary folder."""
    dice, total = random.Random(seed), Report()
    while total.kills < kills:
        with tempfile.TemporaryDirectory(prefix="device-sdk-torture-") as name:
            count = min(_KILLS_PER_ROUND, kills - total.kills)
            total.add(Scene(Path(name), durability).run(count, dice, kill_broker))
    return total


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--durability", choices=("sync", "batch", "os"), default="batch")
    parser.add_argument("--kill-broker", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, url, folder = arguments.child
        {"publisher": publisher, "subscriber": subscriber}[name](url, Path(folder), arguments.durability)
        return 0
    report = torture(
        arguments.kills,
        seed=arguments.seed,
        durability=arguments.durability,
        kill_broker=arguments.kill_broker,
    )
    print(report, *report.examples[:10], sep="\n    ")
    return bool(report.faults)


if __name__ == "__main__":
    sys.exit(main())
