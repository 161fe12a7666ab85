"""CPU time per message of ``device_sdk.paho`` and of paho-mqtt: the same program on either, in turns.

``python benchmarks/paho_facade.py [--quick] [--only CELL ...] [--json]``. Exit code 1: a cell is above its
"must" by more than noise. 2: something needed is missing. See README.md.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import cpu_per_message, harness, peers
from benchmarks.cpu_per_message import CELLS, Bench, Cell, parse_arguments, print_rates
from benchmarks.harness import Sink, summary, verdict

FACADE, PAHO = "device_sdk.paho", "paho"
MUST, AIM = 0.35, 0.20


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
    """Be one run of the façade."""
    del sys.argv[1]
    peers.PEERS[FACADE] = FacadePeer
    peers.main()


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
    if arguments.json:
        print(json.dumps({"machine": machine, "repetitions": repetitions, "cells": results}))
    else:
        print_rates(results, [FACADE, PAHO])
    return int(any(result["verdict"] == "MISSED" for result in results))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child()
    else:
        sys.exit(main())
