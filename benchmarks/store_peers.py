"""One run of one queue in a process of its own: ``store_peers.py JOB name=value ...``.

Prints one JSON object. Memory is measured in here, so nothing is imported that the job does not need; the
parent runs it with ``-I -S -E`` and names the directories to import from in ``path``.

A message is 200 bytes. ``commit`` messages are stored together, and the job goes on when they are; 0 stands
for a program that publishes without pause and waits only for what lies several thousand back.
"""

from __future__ import annotations

import sys
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from device_sdk import Client
    from device_sdk.store.base import SavedMessage

    class Queue(Protocol):
        """What a queue has to be able to do; ``put`` returns when all of it is stored."""

        def put(self, payloads: list[bytes]) -> None:
            """Store these messages."""

        def take(self, count: int) -> None:
            """Take the oldest messages out and acknowledge them."""

        def close(self) -> None:
            """Let go of the file."""


TOPIC = "site/42/node/17/temperature"
SIZE = 200
BACKLOG = 1_000  # messages that a life cycle keeps in the queue
BLOCK, BLOCKS_AHEAD = 1_000, 4
DEADLINE = 120.0
NO_BOUND = 1 << 40


def payload(number: int) -> bytes:
    """Return a payload that is not shared with any other message."""
    return number.to_bytes(SIZE, "big")


class DeviceSdkQueue:
    """The store of the checkout through its contract, in the way in which the engine uses it."""

    def __init__(self, directory: str, durability: str) -> None:
        from device_sdk.store.base import StorePolicy
        from device_sdk.store.sqlite import SqliteStore

        self._store = SqliteStore(f"{directory}/queue.db", StorePolicy(durability=durability))
        self._moved = threading_event()
        self._store.on_progress = self._moved.set
        self._number = 0
        self._sequence = self._store.open().next_sequence - 1
        self._topic = len(TOPIC).to_bytes(2, "big") + TOPIC.encode()
        self._page: deque[SavedMessage] = deque()
        self._taken = 0

    def put(self, payloads: list[bytes]) -> None:
        """Write these messages and wait until they are durable."""
        first = self._sequence + 1
        self._sequence += len(payloads)
        self._submit(
            [("message", first + n, self._topic, each, 2, b"\0", None) for n, each in enumerate(payloads)]
        )
        self._store.expedite(self._number)
        self._wait(lambda: self._store.durable_through >= self._number)

    def take(self, count: int) -> None:
        """Read, send and acknowledge; nobody waits for an acknowledgement to be durable."""
        changes: list[tuple[Any, ...]] = []
        for _ in range(count):
            if not self._page:
                self._page.extend(self._read())
            sequence = self._taken = self._page.popleft().sequence
            changes += ("sent", sequence, 1 + sequence % 65_535), ("done", sequence, "acknowledged")
        self._submit(changes)

    def close(self) -> None:
        """Write what is left."""
        self._store.close()

    def _submit(self, changes: list[tuple[Any, ...]]) -> None:
        self._number += len(changes)
        self._store.submit(changes, self._number)

    def _read(self) -> list[SavedMessage]:
        self._store.request_page(self._taken)
        page: list[SavedMessage] | None = None

        def has_come() -> bool:
            nonlocal page
            page = self._store.take_page()
            return page is not None

        self._wait(has_come)
        assert page
        return page

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            if not self._moved.wait(deadline - time.monotonic()):
                raise TimeoutError("the store does not get on")
            self._moved.clear()


class LiteQueue:
    """litequeue; several messages are put in its ``transaction()`` block, taking has its own."""

    def __init__(self, directory: str, _: str) -> None:
        from litequeue import LiteQueue as Queue

        self._queue = Queue(f"{directory}/queue.db")
        self._steps = 0

    def put(self, payloads: list[bytes]) -> None:
        """It stores text."""
        with self._queue.transaction():
            for each in payloads:
                self._queue.put(each.decode("latin-1"))

    def take(self, count: int) -> None:
        """Rows stay until they are pruned."""
        for _ in range(count):
            self._queue.done(self._queue.pop().message_id)
        self._steps += count
        if self._steps >= BACKLOG:
            self._steps = 0
            self._queue.prune(include_failed=False)

    def close(self) -> None:
        """Close the file."""
        self._queue.close()


class DiskcacheQueue:
    """diskcache's Deque; several messages in its ``transact()`` block, which is its way of one commit."""

    def __init__(self, directory: str, _: str) -> None:
        from diskcache import Deque

        self._queue = Deque(directory=directory)

    def put(self, payloads: list[bytes]) -> None:
        """Append, in one transaction if it is more than one."""
        with self._queue.transact():
            for each in payloads:
                self._queue.append(each)

    def take(self, count: int) -> None:
        """Taking a message is acknowledging it."""
        with self._queue.transact():
            for _ in range(count):
                self._queue.popleft()

    def close(self) -> None:
        """Close the file."""
        self._queue._cache.close()


class PersistQueue:
    """persist-queue's SQLiteAckQueue, which commits each step."""

    def __init__(self, directory: str, _: str) -> None:
        from persistqueue import SQLiteAckQueue

        self._queue = SQLiteAckQueue(directory)
        self._steps = 0

    def put(self, payloads: list[bytes]) -> None:
        """Payloads are pickled."""
        for each in payloads:
            self._queue.put(each)

    def take(self, count: int) -> None:
        """Rows stay until they are cleared, a thousand of them at a time."""
        for _ in range(count):
            self._queue.ack(self._queue.get(block=False))
        self._steps += count
        if self._steps >= BACKLOG:
            self._steps = 0
            self._queue.clear_acked_data(keep_latest=0)

    def close(self) -> None:
        """Close the file."""
        self._queue.close()


class PahoQueue:
    """paho-mqtt without a connection: its queue is memory and ends at 65,535 messages."""

    def __init__(self, _: str, __: str) -> None:
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._full = mqtt.MQTT_ERR_QUEUE_SIZE

    def put(self, payloads: list[bytes]) -> None:
        """Raises: OverflowError: the queue is full."""
        for each in payloads:
            if self._client.publish(TOPIC, each, qos=1).rc == self._full:
                raise OverflowError("no room")

    def take(self, count: int) -> None:
        """Nothing leaves without a broker."""

    def close(self) -> None:
        """Nothing is open."""


QUEUES: dict[str, Callable[[str, str], Queue]] = {
    "device_sdk": DeviceSdkQueue,
    "litequeue": LiteQueue,
    "diskcache": DiskcacheQueue,
    "persist-queue": PersistQueue,
    "paho": PahoQueue,
}


def threading_event() -> Any:
    """Return an Event; the import is not at the top because it has a size."""
    import threading

    return threading.Event()


def memory_kib(name: str) -> int:
    """Return ``VmRSS`` or ``VmHWM`` (the most so far) of this process."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))


class Stopwatch:
    """Wall and processor time, all threads, since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return ``cpu`` and ``wall`` in seconds."""
        return {"cpu": time.process_time() - self._cpu, "wall": time.perf_counter() - self._wall}


def job_life(job: dict[str, str]) -> dict[str, float]:
    """Put, take and acknowledge ``count`` messages, with a backlog in between."""
    count, commit = int(job["count"]), int(job["commit"])
    queue = QUEUES[job["peer"]](job["directory"], job["durability"])
    watch = Stopwatch()
    taken = 0
    for start in range(0, count, commit):
        queue.put([payload(number) for number in range(start, start + commit)])
        if start + commit - taken > BACKLOG:
            queue.take(commit)
            taken += commit
    while taken < count:
        queue.take(commit)
        taken += commit
    queue.close()
    return watch.read()


def job_hold(job: dict[str, str]) -> dict[str, float]:
    """Put up to ``count`` messages within ``seconds``, a hundred at a time, and look at the memory."""
    count, end = int(job["count"]), time.monotonic() + float(job["seconds"])
    queue = QUEUES[job["peer"]](job["directory"], "batch")
    watch = Stopwatch()
    queued = 0
    try:
        while queued < count and time.monotonic() < end:
            for number in range(queued, queued + 100):
                queue.put([payload(number)])
                queued += 1
    except OverflowError:
        pass
    return watch.read() | {"queued": queued, "memory": memory_kib("VmRSS"), "peak": memory_kib("VmHWM")}


def client(job: dict[str, str]) -> Client:
    """Return a client with a store, or with its queue in memory if ``durability`` is that."""
    from device_sdk import Client
    from device_sdk.store.base import StorePolicy

    durability = job["durability"]
    url = f"mqtt://127.0.0.1:{job.get('port', '1')}"
    inflight = int(job.get("inflight", "20"))
    if durability == "memory":
        return Client(url, version="3.1.1", inflight=inflight)
    policy = StorePolicy(durability=durability, max_bytes=NO_BOUND)
    path = f"{job['directory']}/queue.db"
    return Client(url, client_id="bench", version="3.1.1", inflight=inflight, store=path, policy=policy)


def job_fill(job: dict[str, str]) -> dict[str, float]:
    """Queue ``count`` messages through a client that has no connection."""
    offline = client(job)
    count, commit = int(job["count"]), int(job["commit"])
    publish = offline.publish
    watch = Stopwatch()
    ends: deque[Any] = deque()
    for start in range(0, count, commit or BLOCK):
        for number in range(start, min(count, start + (commit or BLOCK))):
            end = publish(TOPIC, payload(number), qos=1)
        ends.append(end)
        if commit or len(ends) > BLOCKS_AHEAD:
            ends.popleft().wait_stored(DEADLINE)
    for end in ends:
        end.wait_stored(DEADLINE)
    result = watch.read() | {"memory": memory_kib("VmRSS"), "peak": memory_kib("VmHWM")}
    result["queued"] = offline.stats.queued
    offline.close(0)
    return result


def job_drain(job: dict[str, str]) -> dict[str, float]:
    """Go on with the queue of an earlier process until ``count`` messages are acknowledged."""
    count = int(job["count"])
    watch = Stopwatch()
    online = client(job)
    online.start()
    wait_for(lambda: arrived(job) > 0)
    first = watch.read()["wall"]
    wait_for(lambda: online.stats.acknowledged >= count)
    result = watch.read() | {"first": first, "memory": memory_kib("VmRSS"), "peak": memory_kib("VmHWM")}
    online.close(0)
    return result


def job_online(job: dict[str, str]) -> dict[str, float]:
    """Publish with a connection: without pause, or ``rate`` messages a second."""
    from benchmarks.peers import DeviceSdkPeer, PahoPeer

    class StoredPeer(DeviceSdkPeer):
        """The same with a store."""

        def __init__(self) -> None:
            self.client = client(job)
            self.client.connect(DEADLINE)

    count, rate = int(job["count"]), float(job["rate"])
    stored = StoredPeer() if job["peer"] == "device_sdk" else None
    peer = stored or PahoPeer(int(job["port"]), int(job["inflight"]))
    watch = Stopwatch()
    if rate and stored:
        for number in range(count):
            stored.client.publish(TOPIC, payload(number), qos=1)
            time.sleep(1 / rate)
    else:
        peer.publish(count, 1)
    wait_for(lambda: arrived(job) >= count)
    result = watch.read()
    peer.close()
    return result


def arrived(job: dict[str, str]) -> int:
    """Return how many messages the sink has counted."""
    with open(job["shared"], "rb", buffering=0) as words:
        words.seek(int(job["counter"]) * 8)
        return int.from_bytes(words.read(8), "little")


def wait_for(condition: Callable[[], bool]) -> None:
    """Look once a millisecond. Raises: TimeoutError."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not finished after {DEADLINE:g} s")
        time.sleep(0.001)


JOBS: dict[str, Callable[[dict[str, str]], dict[str, float]]] = {
    "life": job_life,
    "hold": job_hold,
    "fill": job_fill,
    "drain": job_drain,
    "online": job_online,
}


def main() -> None:
    """Run the job and print the result."""
    job = dict(argument.split("=", 1) for argument in sys.argv[2:])
    sys.path[:0] = job["path"].split(":")
    result = JOBS[sys.argv[1]](job)
    print("{" + ", ".join(f'"{name}": {value}' for name, value in result.items()) + "}")


if __name__ == "__main__":
    main()
