"""One run of one Python client in a process of its own: ``peers.py PEER '{"port": ..., "qos": ...}'``.

Prints one JSON object: ``cpu`` and ``wall`` in seconds, from the first publish (or SUBSCRIBE) until the last
message is acknowledged (published), or handled and acknowledged (received), or at QoS 0 has arrived. CPU is
user and system time of all threads of this process.

Every client is used as its documentation shows, and every publisher has the same loop: it publishes without
pause and waits only for a message that lies several thousand back, as a program with bounded memory does.
Messages beyond the in-flight window wait in the client's own queue.
"""

from __future__ import annotations

import json
import mmap
import resource
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

TOPIC = "site/42/node/17/temperature"
PAYLOAD = b"x" * 64
BLOCK = 1_000  # messages between two looks at how far the broker is
BLOCKS_AHEAD = 4  # so many of them may be unacknowledged
DEADLINE = 30.0


class DeviceSdkPeer:
    """The client of the checkout with its two threads and the default bounds of its queue."""

    def __init__(self, port: int, inflight: int) -> None:
        from device_sdk import Client

        self.client = Client(f"mqtt://127.0.0.1:{port}", version="3.1.1", inflight=inflight)
        self.client.connect(DEADLINE)

    def publish(self, count: int, qos: int) -> None:
        """Publish, and wait for the last acknowledgement."""
        from device_sdk.errors import QueueFullError

        publish = self.client.publish
        ends: deque[Any] = deque()
        for start in range(0, count, BLOCK):
            for _ in range(min(BLOCK, count - start)):
                try:
                    end = publish(TOPIC, PAYLOAD, qos=qos)
                except QueueFullError:  # QoS 0 is faster than the network: let it catch up
                    time.sleep(0.01)
                    end = publish(TOPIC, PAYLOAD, qos=qos)
            ends.append(end)
            if len(ends) > BLOCKS_AHEAD:
                ends.popleft().wait(DEADLINE)
        for end in ends:
            end.wait(DEADLINE)

    def receive(self, count: int, qos: int) -> None:
        """Subscribe and take so many messages in a handler."""
        received, done = 0, threading.Event()

        def on_message(message: object) -> None:
            nonlocal received
            received += 1
            if received == count:
                done.set()

        self.client.subscribe(TOPIC, qos=qos, on_message=on_message)
        if not done.wait(DEADLINE):
            raise TimeoutError(f"{received} of {count} messages")

    def close(self) -> None:
        """End the connection in order."""
        self.client.close()


class PahoPeer:
    """paho-mqtt with its network thread, as installed from PyPI."""

    def __init__(self, port: int, inflight: int) -> None:
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        connected = threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self.client.on_connect = lambda *_: connected.set()
        self.client.max_inflight_messages_set(inflight)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        if not connected.wait(DEADLINE):
            raise TimeoutError("paho did not connect")

    def publish(self, count: int, qos: int) -> None:
        """Publish, and wait for the last acknowledgement."""
        publish = self.client.publish
        ends: deque[Any] = deque()
        for start in range(0, count, BLOCK):
            for _ in range(min(BLOCK, count - start)):
                end = publish(TOPIC, PAYLOAD, qos=qos)
            ends.append(end)
            if len(ends) > BLOCKS_AHEAD:
                ends.popleft().wait_for_publish(DEADLINE)
        for end in ends:
            end.wait_for_publish(DEADLINE)

    def receive(self, count: int, qos: int) -> None:
        """Subscribe and take so many messages in a handler."""
        received, done = 0, threading.Event()

        def on_message(client: object, data: object, message: object) -> None:
            nonlocal received
            received += 1
            if received == count:
                done.set()

        self.client.on_message = on_message
        self.client.subscribe(TOPIC, qos)
        if not done.wait(DEADLINE):
            raise TimeoutError(f"{received} of {count} messages")

    def close(self) -> None:
        """End the connection in order."""
        self.client.disconnect()
        self.client.loop_stop()


class SinkCounter:
    """One counter of the sink, read from the shared file: what has really arrived there."""

    def __init__(self, path: str, word: int) -> None:
        with open(path, "rb") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)).cast("Q")
        self._word = word

    def reached(self, count: int) -> bool:
        """Whether so many have arrived."""
        return self._words[self._word] >= count

    def wait_for(self, count: int) -> None:
        """Look once a millisecond, which costs less than one message in a hundred."""
        deadline = time.monotonic() + DEADLINE
        while not self.reached(count):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the sink counted {self._words[self._word]} of {count}")
            time.sleep(0.001)


PEERS: dict[str, type[DeviceSdkPeer] | type[PahoPeer]] = {"device_sdk": DeviceSdkPeer, "paho": PahoPeer}


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run once and print the result."""
    job = json.loads(sys.argv[2])
    peer = PEERS[sys.argv[1]](job["port"], job["inflight"])
    work = peer.publish if job["direction"] == "publish" else peer.receive
    counter = SinkCounter(job["shared"], job["counter"])
    cpu, wall = cpu_seconds(), time.perf_counter()
    work(job["count"], job["qos"])
    counter.wait_for(job["count"])
    wall = time.perf_counter() - wall
    cpu = cpu_seconds() - cpu
    peer.close()
    print(json.dumps({"cpu": cpu, "wall": wall}))


if __name__ == "__main__":
    main()
