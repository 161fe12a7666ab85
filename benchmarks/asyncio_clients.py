"""CPU time per message of the asyncio client against paho-mqtt, gmqtt and aiomqtt, measured in turns.

``python benchmarks/asyncio_clients.py [--quick] [--only CELL ...] [--uvloop] [--json]``. Exit code 1: at
least one cell is above its "must" by more than noise. 2: something needed is missing.

One run is one process, as in peers.py: ``asyncio_clients.py --child PEER JOB``. Publishers have one loop for
all: publish without pause, and wait only for a message several thousand back. gmqtt and aiomqtt have no
window of their own at QoS 1, so theirs is kept as their documentation suggests: gmqtt sends as many as the
window has and waits until all are acknowledged; with aiomqtt, where publish() waits for the acknowledgement,
so many tasks publish.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import statistics
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import harness
from benchmarks.cpu_per_message import OURS, PAHO, Bench, Cell, Run, ratios
from benchmarks.harness import Sink, summary, verdict
from benchmarks.peers import BLOCK, BLOCKS_AHEAD, DEADLINE, PAYLOAD, TOPIC, SinkCounter, cpu_seconds

CELLS = (
    Cell("pub-q0", "publish QoS 0", "publish", 0, 20, 0.20, 0.10),
    Cell("pub-q1", "publish QoS 1, 20 in flight", "publish", 1, 20, 0.35, 0.25),
    Cell("recv-q0", "receive QoS 0", "receive", 0, 1000, 0.40, 0.25),
    Cell("recv-q1", "receive QoS 1", "receive", 1, 1000, 0.25, 0.15),
)
PEERS = [OURS, "device_sdk inbox", PAHO, "gmqtt", "aiomqtt"]
PULLS = "device_sdk inbox"  # measured where it differs: on receive


class AsyncClientPeer:
    """The asyncio client of the checkout; handlers, or the inbox with ``pulls``."""

    def __init__(self, port: int, inflight: int, *, pulls: bool) -> None:
        from device_sdk import AsyncClient

        self._client = AsyncClient(f"mqtt://127.0.0.1:{port}", version="3.1.1", inflight=inflight)
        self._pulls = pulls

    async def open(self) -> None:
        """Connect."""
        await self._client.connect(DEADLINE)

    async def publish(self, count: int, qos: int) -> None:
        """Publish, and wait for the last acknowledgement."""
        from device_sdk.errors import QueueFullError

        publish = self._client.publish
        ends: deque[Any] = deque()
        for start in range(0, count, BLOCK):
            for _ in range(min(BLOCK, count - start)):
                try:
                    end = await publish(TOPIC, PAYLOAD, qos=qos)
                except QueueFullError:  # QoS 0 is faster than the network: let it catch up
                    await asyncio.sleep(0.01)
                    end = await publish(TOPIC, PAYLOAD, qos=qos)
            ends.append(end)
            if len(ends) > BLOCKS_AHEAD:
                await ends.popleft().wait(DEADLINE)
        for end in ends:
            await end.wait(DEADLINE)

    async def receive(self, count: int, qos: int) -> None:
        """Subscribe and take so many messages."""
        if self._pulls:
            # A task of its own: its end finishes with the last message.
            await asyncio.create_task(self._pull(count, qos))
            return
        counter = Counter(count)
        self._client.subscribe(TOPIC, qos, on_message=counter.on_message)
        await counter.done.wait()

    async def _pull(self, count: int, qos: int) -> None:
        inbox = self._client.messages()
        self._client.subscribe(TOPIC, qos)
        received = 0
        async for _ in inbox:
            received += 1
            if received == count:
                return

    async def close(self) -> None:
        """End the connection in order."""
        await self._client.close()


class GmqttPeer:
    """gmqtt as installed from PyPI."""

    def __init__(self, port: int, inflight: int) -> None:
        import gmqtt

        self._client = gmqtt.Client("benchmark")
        self._port, self._inflight = port, inflight

    async def open(self) -> None:
        """Connect."""
        from gmqtt.mqtt.constants import MQTTv311

        await self._client.connect("127.0.0.1", self._port, version=MQTTv311)

    async def publish(self, count: int, qos: int) -> None:
        """Publish a window full of messages, wait until they are acknowledged, and so on."""
        publish, unacknowledged = self._client.publish, self._client._persistent_storage
        burst = self._inflight if qos else BLOCK
        for start in range(0, count, burst):
            for _ in range(min(burst, count - start)):
                publish(TOPIC, PAYLOAD, qos=qos)
            if qos:
                await unacknowledged.wait_empty()
            else:
                await asyncio.sleep(0)

    async def receive(self, count: int, qos: int) -> None:
        """Subscribe and take so many messages in a handler."""
        counter = Counter(count)
        self._client.on_message = counter.on_message
        self._client.subscribe(TOPIC, qos)
        await counter.done.wait()

    async def close(self) -> None:
        """End the connection in order."""
        await self._client.disconnect()


class AiomqttPeer:
    """aiomqtt as installed from PyPI."""

    def __init__(self, port: int, inflight: int) -> None:
        import aiomqtt

        self._client = aiomqtt.Client(
            "127.0.0.1", port, max_inflight_messages=inflight, protocol=aiomqtt.ProtocolVersion.V311
        )
        self._client.pending_calls_threshold = inflight + 1  # it warns above
        self._inflight = inflight

    async def open(self) -> None:
        """Connect."""
        await self._client.__aenter__()

    async def publish(self, count: int, qos: int) -> None:
        """Publish from as many tasks as the window has places."""
        left = count

        async def work() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await self._client.publish(TOPIC, PAYLOAD, qos=qos, timeout=DEADLINE)

        if not qos:
            await work()
            return
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._inflight):
                tasks.create_task(work())

    async def receive(self, count: int, qos: int) -> None:
        """Subscribe and pull so many messages."""
        await self._client.subscribe(TOPIC, qos)
        received = 0
        async for _ in self._client.messages:
            received += 1
            if received == count:
                return

    async def close(self) -> None:
        """End the connection in order."""
        await self._client.__aexit__(None, None, None)


class Counter:
    """Counts messages in a handler, whatever its arguments are."""

    def __init__(self, count: int) -> None:
        self.done = asyncio.Event()
        self._left = count

    def on_message(self, *_: object) -> None:
        """One more."""
        self._left -= 1
        if not self._left:
            self.done.set()


async def run_once(name: str, job: dict[str, Any]) -> None:
    """Run one peer in this process and print the result."""
    port, inflight = job["port"], job["inflight"]
    peer: AsyncClientPeer | GmqttPeer | AiomqttPeer
    if name == "gmqtt":
        peer = GmqttPeer(port, inflight)
    elif name == "aiomqtt":
        peer = AiomqttPeer(port, inflight)
    else:
        peer = AsyncClientPeer(port, inflight, pulls=name == PULLS)
    await peer.open()
    work = peer.publish if job["direction"] == "publish" else peer.receive
    counter = SinkCounter(job["shared"], job["counter"])
    cpu, wall = cpu_seconds(), time.perf_counter()
    async with asyncio.timeout(DEADLINE):
        await work(job["count"], job["qos"])
        while not counter.reached(job["count"]):
            await asyncio.sleep(0.001)
    wall = time.perf_counter() - wall
    cpu = cpu_seconds() - cpu
    await peer.close()
    print(json.dumps({"cpu": cpu, "wall": wall}))


def child(name: str, job: dict[str, Any]) -> None:
    """The work of one process."""
    if job["uvloop"]:
        import uvloop

        uvloop.run(run_once(name, job))
    else:
        asyncio.run(run_once(name, job))


class AsyncBench(Bench):
    """Runs the asyncio peers with this file, and paho with its network thread."""

    uvloop = False

    def _command(self, peer: str, cell: Cell, count: int) -> list[str]:
        if peer == PAHO:
            return super()._command(peer, cell, count)
        job = {**self._job(cell, count), "uvloop": self.uvloop}
        return [sys.executable, str(Path(__file__).resolve()), "--child", peer, json.dumps(job)]


def judge(cell: Cell, runs: dict[str, list[Run]]) -> dict[str, Any]:
    """The figures of one cell, by name."""
    shares = {
        peer: statistics.median(
            [mine.cpu_us / paho.cpu_us for mine, paho in zip(these, runs[PAHO], strict=True)]
        )
        for peer, these in runs.items()
    }
    ratio = statistics.median(ratios(runs, PAHO))
    return {
        "cell": cell.name,
        "title": cell.title,
        "ratio": ratio,
        "ratios": shares,
        "must": cell.must,
        "aim": cell.aim,
        "verdict": verdict(ratio, cell.must, cell.aim),
        "cpu_us": {peer: [run.cpu_us for run in these] for peer, these in runs.items()},
        "messages_per_s": {peer: [run.rate for run in these] for peer, these in runs.items()},
    }


def print_row(result: dict[str, Any]) -> None:
    """One line of the table: CPU and share of paho's for every peer."""
    cells = [
        f"{summary(result['cpu_us'][peer])} [{result['ratios'][peer]:.2f}]"
        if peer in result["cpu_us"]
        else "-"
        for peer in PEERS
    ]
    bounds = f"{result['must']:.2f} | {result['aim']:.2f} | {result['verdict']}"
    print(f"| {result['title']} | {' | '.join(cells)} | {bounds} |", flush=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="CPU time per message of asyncio clients")
    parser.add_argument("--quick", action="store_true", help="3 repetitions of 0.15 s, not 5 of 0.4 s")
    parser.add_argument("--repetitions", type=int, help="runs of each client and cell")
    names = [cell.name for cell in CELLS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="CELL", help=f"of {', '.join(names)}")
    parser.add_argument("--uvloop", action="store_true", help="all but paho on uvloop")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    if arguments.repetitions is not None and arguments.repetitions < 1:
        parser.error("--repetitions must be at least 1")
    return arguments


def main() -> int:
    """Measure the chosen cells; return the exit code."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], json.loads(sys.argv[3]))
        return 0
    arguments = parse_arguments()
    needed = ["paho", "gmqtt", "aiomqtt", *(["uvloop"] if arguments.uvloop else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{', '.join(missing)} missing: pip install -e '.[bench]'", file=sys.stderr)
        return 2
    repetitions = arguments.repetitions or (3 if arguments.quick else 5)
    loop = "uvloop" if arguments.uvloop else "asyncio"
    if not arguments.json:
        print(
            f"{harness.describe_machine()}; {loop}; MQTT 3.1.1, {len(PAYLOAD)} bytes; "
            f"{repetitions} runs in turns, median (min-max)"
        )
        print(f"\n| CPU us per message [share of paho's] | {' | '.join(PEERS)} | must | aim | verdict |")
        print("|---" * (len(PEERS) + 4) + "|")
    results = []
    with Sink() as sink:
        for cell in (cell for cell in CELLS if arguments.only is None or cell.name in arguments.only):
            peers = [peer for peer in PEERS if peer != PULLS or cell.direction == "receive"]
            bench = AsyncBench(sink, peers, 0.15 if arguments.quick else 0.4)
            bench.uvloop = arguments.uvloop
            results.append(judge(cell, bench.measure(cell, repetitions)))
            if not arguments.json:
                print_row(results[-1])
    if arguments.json:
        machine = harness.describe_machine()
        print(json.dumps({"machine": machine, "loop": loop, "repetitions": repetitions, "cells": results}))
    return int(any(result["verdict"] == "MISSED" for result in results))


if __name__ == "__main__":
    sys.exit(main())
