"""An engine without threads: a transport that the test holds in its hands, and a clock that it moves."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pytest

from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.connecting.brokers import Broker
from device_sdk.engine.connecting.credentials import Credentials
from device_sdk.engine.engine import Engine
from device_sdk.engine.events import ClientEvent
from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.outgoing.greetings import Greetings
from device_sdk.errors import ConnectFailedError, StoreError, TransportClosedError
from device_sdk.mqtt.decode import decode_packet
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Message, Will
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.packets import Connack, Packet
from device_sdk.net.base import Transport
from device_sdk.store.base import SavedMessage, SavedSession, Store, StorePolicy
from device_sdk.store.memory import MemoryStore
from device_sdk.testing import ManualClock

Change = tuple[Any, ...]
Packets = list[Any]  # of any kind: a test knows which fields they have


class HandTransport(Transport):
    """Delivers ``incoming``, keeps what is sent, and takes at most ``room`` bytes more (``None``: all)."""

    description = "hand made"

    def __init__(self) -> None:
        self.incoming: deque[bytes] = deque()
        self.sent = bytearray()
        self.room: int | None = None
        self.broken = False
        self.closes = 0

    def open(self, deadline: float) -> None:
        """The rig calls on_open() itself."""

    def fileno(self) -> int:
        return 99

    def recv(self) -> bytes | None:
        if self.broken:
            raise TransportClosedError("broken")
        return self.incoming.popleft() if self.incoming else None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        if self.broken:
            raise TransportClosedError("broken")
        taken = len(data) if self.room is None else min(self.room, len(data))
        if self.room is not None:
            self.room -= taken
        self.sent += bytes(data[:taken])
        return taken

    def wants_write(self) -> bool:
        return self.room == 0

    def abort(self) -> None:
        self.broken = True

    def close(self) -> None:
        self.closes += 1
        self.broken = False
        self.incoming.clear()


class SlowStore(Store):
    """Keeps changes for as long as the test wants before they are durable, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryStore()
        self.changes: list[Change] = []
        self.submitted = 0
        self.expedited = 0
        self.closed = False

    def open(self) -> SavedSession:
        return self.memory.open()

    def submit(self, changes: Sequence[Change], number: int) -> None:
        self.changes += changes
        self.memory.submit(changes, number)
        self.submitted = number

    def expedite(self, number: int) -> None:
        self.expedited = max(self.expedited, number)

    def request_page(self, after: int) -> None:
        self.memory.request_page(after)

    def take_page(self) -> list[SavedMessage] | None:
        return self.memory.take_page()

    def close(self) -> None:
        self.closed = True
        self.memory.close()

    def commit(self) -> None:
        """Everything so far is durable now."""
        self.durable_through = self.submitted
        if self.on_progress is not None:
            self.on_progress()

    def fail(self) -> None:
        """The disk is gone."""
        self.failure = StoreError("no space left on device")
        if self.on_progress is not None:
            self.on_progress()


class Rig:
    """One engine, driven by hand. ``draw``: what the dice show, 0 to 1; ``ask`` returns credentials."""

    def __init__(
        self,
        *,
        version: str = "5.0",
        policy: StorePolicy | None = None,
        store: Store | None = None,
        draw: float = 1.0,
        keep_alive: int = 60,
        receive_maximum: int = 65_535,
        reconnect: ReconnectPolicy | None = None,
        ask: Callable[[], object] | None = None,
        greetings: Greetings | None = None,
        will: Will | None = None,
        ask_will: Callable[[], Will | None] | None = None,
        **options: Any,
    ) -> None:
        self.version = version
        self.clock = ManualClock()
        self.transport = HandTransport()
        self.draw = draw
        self.wakes = 0
        self.answers_pings = False
        fields = ConnectOptions(
            "rig",
            version=version,
            keep_alive=keep_alive,
            session_expiry=600,
            receive_maximum=receive_maximum,
            will=will,
        )
        self.engine = Engine(
            threading.RLock(),
            self.places(),
            fields,
            credentials=Credentials(fields, ask, ask_will, greetings=greetings),
            greetings=greetings,
            policy=policy or StorePolicy(),
            store=store,
            reconnect=reconnect or ReconnectPolicy(),
            draw=lambda: self.draw,
            **options,
        )
        self.hooks: list[object] = []
        if store is not None:
            self.engine.adopt(store.open(), store, self.clock(), self._wake)
        with self.engine.lock:
            self.engine.life.start()

    def places(self) -> Transport | list[Broker]:
        """Where the engine connects to."""
        return self.transport

    def _wake(self) -> None:
        self.wakes += 1

    # Network

    def open(self) -> Packets:
        """The transport is open; the packets that leave. A connection that only clears is passed over."""
        sent = self.opened()
        if self.engine.connector.clears:
            assert types(sent + self.feed(Connack())) == ["connect", "disconnect"]
            self.transport.closes -= 1
            sent = self.opened()
        return sent

    def opened(self) -> Packets:
        """The transport is open, whatever for; the packets that leave."""
        self.engine.on_open(self.clock())
        return self.sent()

    def connect(self, *, session_present: bool = False, **properties: Any) -> Packets:
        """Open, and accept the connection; the packets that leave after CONNECT."""
        assert self.open()[0].type == "connect"
        return self.feed(Connack(session_present, 0, properties if self.version == "5.0" else {}))

    def feed(self, *packets: Packet | bytes) -> Packets:
        """Receive these in one piece; the packets that leave."""
        data = b"".join(p if isinstance(p, bytes) else encode_packet(p, self.version) for p in packets)
        self.transport.incoming.append(data)
        self.engine.on_readable(self.clock())
        return self.sent()

    def lose(self) -> None:
        """The broker closes the stream."""
        self.transport.incoming.append(b"")
        self.engine.on_readable(self.clock())
        self.transport.sent.clear()

    def refuse(self) -> None:
        """The transport cannot be opened."""
        self.engine.on_open_failed(ConnectFailedError("connection refused"), self.clock())

    def sent(self) -> Packets:
        """Whole packets that have left since the last look."""
        self.engine.flush(self.clock())
        found: Packets = []
        while decoded := decode_packet(bytes(self.transport.sent), self.version):
            found.append(decoded[0])
            del self.transport.sent[: decoded[1]]
        if self.answers_pings and any(packet.type == "pingreq" for packet in found):
            found += self.feed(b"\xd0\x00")
        return found

    # Time

    def advance(self, seconds: float) -> Packets:
        """Let time pass, with a look at the deadline as a shell does; the packets that leave."""
        end = self.clock() + seconds
        while (deadline := self.deadline()) is not None and deadline <= end:
            self.clock.advance_to(max(deadline, self.clock()))
            self.engine.on_deadline(self.clock())
        self.clock.advance_to(end)
        return self.sent()

    def deadline(self) -> float | None:
        with self.engine.lock:
            return self.engine.next_deadline()

    def retry_delay(self) -> float:
        """Seconds until the next attempt, counted from now."""
        assert self.engine.life.state == "waiting"
        deadline = self.deadline()
        assert deadline is not None
        return deadline - self.clock()

    # Application

    def publish(
        self,
        payload: bytes,
        qos: int = 1,
        *,
        topic: str = "t",
        retain: bool = False,
        expiry: float | None = None,
    ) -> Delivery:
        """Publish; where the policy would block this fails."""
        name = topic.encode()
        field = len(name).to_bytes(2, "big") + name
        now = self.clock()
        with self.engine.lock:
            delivery = self.engine.outgoing.publish(
                field,
                payload,
                qos << 1 | retain,
                b"\0" if self.version == "5.0" else b"",
                None if expiry is None else now + expiry,
                now,
            )
        assert delivery is not None
        return delivery

    def handle(self) -> list[Message]:
        """Do what the callback thread does, without handlers; the messages that were handled."""
        with self.engine.lock:
            batch = self.engine.events.take()
        messages = []
        for item in batch:
            if isinstance(item, Message):
                item.handled = True
                messages.append(item)
            else:
                item[0](item[1])
        with self.engine.lock:
            self.engine.handled(len(messages))
        return messages

    def events(self) -> list[str]:
        """Kinds of the events since the last look; messages among them stay unhandled and are lost."""
        return [event.kind for event in self.event_objects()]

    def event_objects(self) -> list[ClientEvent]:
        with self.engine.lock:
            batch = self.engine.events.take()
        return [item[1] for item in batch if isinstance(item, tuple) and isinstance(item[1], ClientEvent)]


def set_pages(patch: pytest.MonkeyPatch, *, store: bool = True, **constants: int) -> None:
    """Set PAGE_MESSAGES and the like wherever the queue has them, and in the store unless it is ``False``."""
    names = [f"engine.outgoing.{name}" for name in ("backlog", "bounds", "outbox", "replay")]
    for name in (*names, "store.base") if store else names:
        module = import_module(f"device_sdk.{name}")
        for constant, value in constants.items():
            if hasattr(module, constant):
                patch.setattr(module, constant, value)


def payloads(packets: Packets) -> list[bytes]:
    """The payloads of the PUBLISH packets among these."""
    return [packet.payload for packet in packets if packet.type == "publish"]


def types(packets: Packets) -> list[str]:
    return [packet.type for packet in packets]
