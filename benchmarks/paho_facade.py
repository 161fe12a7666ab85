"""CPU time per message of ``device_sdk.paho`` and of paho-mqtt: the same program on either, in turns.

Then the time from publish() to one's own message, and to on_publish.

``python benchmarks/paho_facade.py [--quick] [--only CELL ...] [--json]``; with ``--only`` no round trips.
Exit code 1: a cell is above its "must" by more than noise. 2: something needed is missing. See README.md.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import cpu_per_message, harness, peers
from benchmarks.cpu_per_message import CELLS, Bench, Cell, parse_arguments, print_rates
from benchmarks.harness import Sink, summary, verdict
from device_sdk.testing import BrokerServer, ModelBroker

FACADE, PAHO = "device_sdk.paho", "paho"
MUST, AIM = 0.35, 0.20
ROUND_TRIPS = {
    "echo QoS 0": (0, 0.9, 0.7),
    "echo QoS 1": (1, 0.02, 0.01),
    "on_publish QoS 1": (1, 0.02, 0.01),
}
TRIPS = 50


class FacadePeer(peers.PahoPeer):
    """The program of the paho-mqtt peer, whose imports find the façade."""

    def __init__(self, port: int, inflight: int) -> None:
        for name in ("", ".client", ".enums"):
            sys.modules[f"paho.mqtt{name}"] = importlib.import_module(f"device_sdk.paho{name}")
        vars(importlib.import_module("paho"))["mqtt"] = sys.modules["paho.mqtt"]
        super().__init__(port, inflight)


class FacadeBench(Bench):
    """Runs the children of this file."""

    def _command(self, peer: str, cell: Cell, count: int) -> list[str]:
        if peer == PAHO:
            return super()._command(peer, cell, count)
        return [sys.executable, __file__, "--child", peer, json.dumps(self._job(cell, count))]


def child() -> None:
    """Be one run of the façade, or the round trips of either."""
    del sys.argv[1]
    peers.PEERS[FACADE] = FacadePeer
    job = json.loads(sys.argv[2])
    if "trips" not in job:
        peers.main()
        return
    peer = peers.PEERS[sys.argv[1]](job["port"], inflight=20)
    assert isinstance(peer, peers.PahoPeer)
    print(json.dumps(round_trips(peer.client, job["qos"], job["trips"])))
    peer.close()


def round_trips(client: Any, qos: int, count: int) -> dict[str, float]:
    """Median seconds from publish() to the message itself (``echo``) and to ``on_publish``, one at a time."""
    ready, echoed, told = threading.Event(), threading.Event(), threading.Event()
    ends = {"echo": 0.0, "on_publish": 0.0}
    taken: dict[str, list[float]] = {name: [] for name in ends}

    def finish(name: str, event: threading.Event) -> None:
        ends[name] = time.perf_counter()
        event.set()

    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda *_: finish("echo", echoed)
    client.on_publish = lambda *_: finish("on_publish", told)
    client.subscribe(peers.TOPIC, qos)
    arrived = ready.wait(peers.DEADLINE)
    for _ in range(count):
        echoed.clear()
        told.clear()
        began = time.perf_counter()
        client.publish(peers.TOPIC, peers.PAYLOAD, qos)
        arrived = arrived and echoed.wait(peers.DEADLINE) and told.wait(peers.DEADLINE)
        if not arrived:
            raise TimeoutError("a message did not come back")
        for name, end in ends.items():
            taken[name].append(end - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def judge(cell: Cell, runs: dict[str, list[cpu_per_message.Run]]) -> dict[str, Any]:
    """The figures of one cell, by name."""
    pairs = zip(runs[FACADE], runs[PAHO], strict=True)
    ratio = statistics.median(ours.cpu_us / theirs.cpu_us for ours, theirs in pairs)
    return {
        "cell": cell.name,
        "ratio": ratio,
        "must": MUST,
        "aim": AIM,
        "verdict": verdict(ratio, MUST, AIM),
        "cpu_us": {peer: [run.cpu_us for run in these] for peer, these in runs.items()},
        "messages_per_s": {peer: [run.rate for run in these] for peer, these in runs.items()},
    }


def measure_round_trips(repetitions: int) -> list[dict[str, Any]]:
    """The figures of the round trips, the two in turns.

    With this broker paho waits 44 ms at QoS 1, with Mosquitto seldom. It is likely that the kernel delays the
    TCP acknowledgement of PUBACK, and a client with Nagle's algorithm waits for that.
    """
    runs: dict[tuple[str, int], list[dict[str, float]]] = {
        (peer, qos): [] for peer in (FACADE, PAHO) for qos in (0, 1)
    }
    with BrokerServer(ModelBroker()) as server:
        for _ in range(repetitions):
            for (peer, qos), found in runs.items():
                job = json.dumps({"port": server.port, "qos": qos, "trips": TRIPS})
                found.append(harness.run_child([sys.executable, __file__, "--child", peer, job]))
    results = []
    for title, (qos, must, aim) in ROUND_TRIPS.items():
        name = title.split()[0]
        took = {peer: [run[name] * 1e6 for run in runs[peer, qos]] for peer in (FACADE, PAHO)}
        ratio = statistics.median(ours / theirs for ours, theirs in zip(*took.values(), strict=True))
        bounds = {"must": must, "aim": aim, "verdict": verdict(ratio, must, aim)}
        results.append({"cell": title, "ratio": ratio, **bounds, "microseconds": took})
    return results


def print_round_trips(results: list[dict[str, Any]]) -> None:
    """One row for each."""
    print("\n| round trip, us | façade | paho 2.2.0 | ratio | must | aim | verdict |\n" + "|---" * 7 + "|")
    for result in results:
        ours, theirs = (summary(result["microseconds"][peer]) for peer in (FACADE, PAHO))
        figures = f"{result['ratio']:.4f} | {result['must']} | {result['aim']} | {result['verdict']}"
        print(f"| {result['cell']} | {ours} | {theirs} | {figures} |")


def main() -> int:
    """Measure the chosen cells; return the exit code."""
    arguments = parse_arguments()
    cpu_per_message.available_peers()  # ends the program if paho-mqtt is missing
    repetitions = arguments.repetitions or (3 if arguments.quick else 5)
    cells = [cell for cell in CELLS if arguments.only is None or cell.name in arguments.only]
    machine = harness.describe_machine()
    if not arguments.json:
        print(f"{machine}; MQTT 3.1.1, {len(peers.PAYLOAD)} bytes; {repetitions} runs in turns\n")
        print(
            "| CPU us per message | façade | paho 2.2.0 | ratio | must | aim | verdict |\n" + "|---" * 7 + "|"
        )
    results = []
    with Sink() as sink:
        bench = FacadeBench(sink, [FACADE, PAHO], 0.15 if arguments.quick else 0.4)
        for cell in cells:
            result = judge(cell, bench.measure(cell, repetitions))
            results.append(result)
            if not arguments.json:
                ours, theirs = (summary(result["cpu_us"][peer]) for peer in (FACADE, PAHO))
                figures = f"{result['ratio']:.3f} | {MUST:.2f} | {AIM:.2f} | {result['verdict']}"
                print(f"| {cell.title} | {ours} | {theirs} | {figures} |", flush=True)
    trips = [] if arguments.only else measure_round_trips(repetitions)
    if arguments.json:
        found = {"machine": machine, "repetitions": repetitions, "cells": results, "round_trips": trips}
        print(json.dumps(found))
    else:
        print_rates(results, [FACADE, PAHO])
        if trips:
            print_round_trips(trips)
    return int(any(result["verdict"] == "MISSED" for result in [*results, *trips]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child()
    else:
        sys.exit(main())
