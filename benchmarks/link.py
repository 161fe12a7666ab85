"""The cost of the link on a serial line: share of the rate, bytes per message, time to notice a cut.

See README.md.

``python benchmarks/link.py [--json]``. Both ends, and a line with a rate and a clock that is set by hand: the
figures are exact and the same on every machine. Exit code 1: a figure misses its "must".
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness import describe_machine
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.packets import Puback, Publish
from tests.net.link_line import Line, Station

BAUD = 115_200
TOPIC = "site/17/air"


class Row(NamedTuple):
    """One row of the table; ``must``, ``aim``: at least, or at most where ``most``."""

    title: str
    value: float
    unit: str
    must: float | None = None
    aim: float | None = None
    most: bool = False

    def meets(self, bound: float | None) -> bool:
        """Tell whether the value is on the right side of a bound."""
        return bound is None or (self.value <= bound if self.most else self.value >= bound)

    @property
    def row(self) -> str:
        """The row in Markdown."""
        word = "aim" if self.meets(self.aim) else "must" if self.meets(self.must) else "MISSED"
        bounds = ["" if bound is None else f"{bound:g}" for bound in (self.must, self.aim)]
        word = word if self.must is not None else ""
        return f"| {self.title} | {self.value:.1f} | {self.unit} | {bounds[0]} | {bounds[1]} | {word} |"


def talk(size: int, count: int, inflight: int, flip: float = 0.0, frame: int = 256) -> tuple[float, int, int]:
    """Publish at QoS 1; return seconds, and bytes on the line up and down, heart-beats included."""
    line = Line(BAUD, frame)
    line.connect()
    line.run(lambda: False, 0.5)
    if flip:
        line.disturb(1, flip)
    packet = encode_packet(Publish(TOPIC, bytes(size), qos=1, packet_id=1), "5.0")
    puback = encode_packet(Puback(1), "5.0")
    answered = asked = 0
    start, up, down = line.now, line.up.carried, line.down.carried

    def received(station: Station) -> int:
        return sum(map(len, station.received.values()))

    while (acknowledged := received(line.board) // len(puback)) < count:
        while asked < min(count, acknowledged + inflight):
            line.board.write(packet)
            asked += 1
        if answered < received(line.gateway) // len(packet):
            line.gateway.write(puback)
            answered += 1
        line.step()
    return line.now - start, line.up.carried - up, line.down.carried - down


def share(flip: float = 0.0, frame: int = 256) -> float:
    """Return how many percent of the bytes that the line can carry are payload, 16 KiB a message."""
    seconds, _, _ = talk(16384, 20, 4, flip, frame)
    return 20 * 16384 / (seconds * BAUD / 10) * 100


def notice() -> float:
    """Return the seconds from a cut, just after a heart-beat, until both ends know."""
    line = Line(BAUD)
    board, gateway = line.connect()
    line.run(lambda: False, 10)
    line.up.faults = line.down.faults = lambda data: b""
    start = line.now
    line.run(lambda: board.end is not None and gateway.end is not None)
    return line.now - start


def measure() -> list[Row]:
    """Return all rows."""
    packet = len(encode_packet(Publish(TOPIC, bytes(64), qos=1, packet_id=1), "5.0"))
    puback = len(encode_packet(Puback(1), "5.0"))
    rows = [
        Row("share of the line, 16 KiB messages, 256-byte frames", share(), "%", 80, 85),
        Row("the same, 64-byte frames", share(frame=64), "%"),
        Row("the same, 1024-byte frames", share(frame=1024), "%"),
        Row("256-byte frames, 1 error in 5,000 bytes", share(1 / 5000), "%"),
        Row("256-byte frames, 1 error in 500 bytes", share(1 / 500), "%"),
        Row("64-byte frames, 1 error in 500 bytes", share(1 / 500, 64), "%"),
    ]
    for inflight in (1, 20):
        _, up, down = talk(64, 500, inflight)
        title = f"64-byte message at QoS 1, {inflight} in flight"
        rows.append(Row(f"{title}: bytes up (raw: {packet})", up / 500, "bytes"))
        rows.append(Row(f"{title}: bytes down (raw: {puback})", down / 500, "bytes"))
    rows.append(Row("time to notice a cut cable", notice(), "s", 6, 4.1, most=True))
    return rows


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    rows = measure()
    if parser.parse_args().json:
        print(json.dumps([row._asdict() for row in rows]))
    else:
        print(f"{describe_machine()}; simulated line, {BAUD} baud\n")
        print("| | value | unit | must | aim | verdict |\n|---|---|---|---|---|---|")
        print("\n".join(row.row for row in rows))
    return int(not all(row.meets(row.must) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
