"""Row X04: the network or the process ends at every packet of a QoS 1 or QoS 2 exchange, in both directions.

Before every packet means after every one as well: behind a packet is before the next. The process that is
killed leaves nothing but its store; the next one opens it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from device_sdk import Message
from device_sdk.errors import TransportClosedError
from device_sdk.mqtt import decode_packet
from device_sdk.store.base import Store
from device_sdk.store.memory import MemoryStore
from device_sdk.testing import ManualClock, ModelBroker
from tests.conformance.scene import Scene, Wire
from tests.mqtt.peer import every_version

MESSAGES = 3
PAYLOADS = [b"%d" % number for number in range(MESSAGES)]


class Killed(BaseException):
    """The process is gone, in the middle of whatever it did."""


@dataclass
class Shelf:
    """What outlives a process: the broker, the store's data, and what the application did with messages."""

    version: str
    reopen: Callable[[], Store]
    cut_at: int
    kill: bool
    broker: ModelBroker = field(default_factory=lambda: ModelBroker(unique_messages=True))
    clock: ManualClock = field(default_factory=ManualClock)
    passed: int = 0
    before_goodbye: int = 0
    was_cut: bool = False
    published: list[bytes] = field(default_factory=list)
    arrived: list[bytes] = field(default_factory=list)

    def reaches_cut(self) -> bool:
        """Whether the next packet is the one before which everything ends; it counts as passed."""
        self.passed += 1
        if self.was_cut or self.passed <= self.cut_at:
            return False
        self.was_cut = True
        return True

    def life(self) -> Scene:
        """Start a process: a client that subscribes, and does not publish yet."""
        shelf = self

        class CutWire(Wire):
            """Loses everything from one packet on, once."""

            dying = False

            def open(self, deadline: float) -> None:
                super().open(deadline)
                self.dying = False

            def send(self, data: bytes | bytearray | memoryview) -> int:
                for packet in shelf.packets(bytes(data)):
                    if self.dying or shelf.reaches_cut():
                        self.end()
                    super().send(packet)
                return len(data)

            def recv(self) -> bytes | None:
                if self.dying:
                    self.end()
                data = super().recv()
                passed = []
                for packet in shelf.packets(data or b""):
                    self.dying = shelf.reaches_cut()
                    if self.dying:
                        break
                    passed.append(packet)
                if self.dying and not passed:
                    self.end()
                return b"".join(passed) or data

            def end(self) -> None:
                assert self.link is not None
                self.link.connection_lost(self.clock())
                if shelf.kill:
                    raise Killed
                raise TransportClosedError("cut")

        self.store = self.reopen()
        scene = Scene(
            self.broker,
            version=self.version,
            store=self.store,
            clock=self.clock,
            wire=CutWire,
            clean_start=False,
            session_expiry=3600,
            on_message=self.handle,
        )
        scene.client.subscribe("in", 2)
        return scene

    def handle(self, message: Message) -> None:
        self.arrived.append(message.payload)

    def packets(self, data: bytes) -> Iterator[bytes]:
        """Cut a piece of the stream into its packets."""
        while data:
            found = decode_packet(data, self.version)
            assert found is not None
            yield data[: found[1]]
            data = data[found[1] :]


def run(shelf: Shelf, act: Callable[[Shelf, Scene], None]) -> None:
    """Play the application, in a second life if the first one is killed."""
    for _ in range(2):
        scene = shelf.life()
        try:
            scene.start()
            act(shelf, scene)
            scene.advance(20)
        except Killed:
            shelf.store.close()  # as the kernel does with its locks; nothing more is written
            continue
        shelf.before_goodbye = shelf.passed
        stats = scene.client.stats
        assert (stats.queued, stats.in_flight, stats.acks_held) == (0, 0, 0)
        scene.close()
        break
    else:
        raise AssertionError("killed twice")
    assert shelf.broker.violations == []


def publishing(qos: int) -> Callable[[Shelf, Scene], None]:
    def act(shelf: Shelf, scene: Scene) -> None:
        for payload in PAYLOADS[len(shelf.published) :]:
            scene.client.publish("out", payload, qos=qos)
            shelf.published.append(payload)
        scene.run()

    return act


def receiving(qos: int) -> Callable[[Shelf, Scene], None]:
    def act(shelf: Shelf, scene: Scene) -> None:
        scene.advance(5)  # a cut during SUBSCRIBE is not the subject: the subscription is there
        for payload in PAYLOADS[len(shelf.published) :]:
            shelf.broker.publish("in", payload, qos=qos, now=shelf.clock())
            shelf.published.append(payload)
        scene.run()

    return act


def memory() -> Callable[[], Store]:
    store = MemoryStore()
    return lambda: store


#: Kind of store -> what makes a function that opens the same data again. A store with a thread of its own
#: needs a scene that waits for it.
STORES = {"memory": memory}

in_every_way = pytest.mark.parametrize("kill", [False, True], ids=["cut", "killed"])
with_every_store = pytest.mark.parametrize("store", STORES)


def packets_of(version: str, act: Callable[[Shelf, Scene], None]) -> int:
    """Return how many packets cross the wire when nothing happens."""
    shelf = Shelf(version, memory(), cut_at=10**6, kill=False)
    run(shelf, act)
    return shelf.before_goodbye


@pytest.mark.conformance("5.0", "MQTT-4.4.0-1", "MQTT-4.3.2-1", "MQTT-4.3.3-1", "MQTT-4.6.0-1")
@pytest.mark.conformance("3.1.1", "MQTT-4.4.0-1", "MQTT-4.3.2-1", "MQTT-4.3.3-1", "MQTT-4.6.0-1")
@pytest.mark.parametrize("qos", [1, 2])
@with_every_store
@in_every_way
@every_version
def test_what_is_published_survives_a_cut_at_every_packet(
    version: str, kill: bool, store: str, qos: int
) -> None:
    total = packets_of(version, publishing(qos))
    assert total >= 4 + MESSAGES * 2 * qos
    for cut_at in range(total):
        shelf = Shelf(version, STORES[store](), cut_at, kill)
        run(shelf, publishing(qos))
        accepted = shelf.broker.payloads("out")
        assert shelf.was_cut
        assert sorted(set(accepted)) == PAYLOADS, cut_at
        assert list(dict.fromkeys(accepted)) == PAYLOADS, f"cut at {cut_at}: the order changed"
        if qos == 2:
            assert accepted == PAYLOADS, f"cut at {cut_at}: more than once"


@pytest.mark.conformance("5.0", "MQTT-4.3.2-4", "MQTT-4.3.3-10", "MQTT-4.4.0-1")
@pytest.mark.conformance("3.1.1", "MQTT-4.3.2-2", "MQTT-4.3.3-2", "MQTT-4.4.0-1")
@pytest.mark.parametrize("qos", [1, 2])
@with_every_store
@in_every_way
@every_version
def test_what_is_received_survives_a_cut_at_every_packet(
    version: str, kill: bool, store: str, qos: int
) -> None:
    total = packets_of(version, receiving(qos))
    for cut_at in range(4, total):  # after CONNECT, CONNACK, SUBSCRIBE, SUBACK
        shelf = Shelf(version, STORES[store](), cut_at, kill)
        run(shelf, receiving(qos))
        assert shelf.was_cut
        assert list(dict.fromkeys(shelf.arrived)) == PAYLOADS, f"cut at {cut_at}"
        if qos == 2:
            assert shelf.arrived == PAYLOADS, f"cut at {cut_at}: more than once"
