"""A whole client and a broker in one thread, with a clock that the test moves: hours pass in no time.

:class:`Scene` does for a :class:`~device_sdk.client.Client` what its two threads do, step by step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unittest.mock import patch

from device_sdk import Client, client_base
from device_sdk.engine.events import ClientEvent
from device_sdk.errors import TransportClosedError
from device_sdk.mqtt import Connack, Message, Packet
from device_sdk.net.base import Transport
from device_sdk.testing import ManualClock, ModelBroker, ScriptedBroker
from device_sdk.testing.broker_server import SansIoLink

__all__ = ["Scene", "Wire", "accept"]


class Wire(Transport):
    """A stream to a broker in the same thread; each ``open()`` is the broker's next network connection."""

    description = "scene"

    def __init__(self, broker: ScriptedBroker | ModelBroker, clock: ManualClock) -> None:
        self.broker = broker
        self.clock = clock
        self.link: SansIoLink | None = None
        self.ends = 0

    def open(self, deadline: float) -> None:
        """Reach the broker."""
        self.link = self.broker.connect()

    def fileno(self) -> int:
        return -1

    def recv(self) -> bytes | None:
        assert self.link is not None
        if self.link.reset:
            raise TransportClosedError("reset")
        data = self.link.data_to_send()
        if data:
            return data
        return b"" if self.link.closed else None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        assert self.link is not None
        self.link.receive_data(bytes(data), self.clock())
        return len(data)

    def abort(self) -> None:
        """Nothing here ever blocks."""

    def close(self) -> None:
        if self.link is not None:
            self.link.connection_lost(self.clock())
            self.ends += 1
        self.link = None


class Scene:
    """One client and its broker.

    ``events``, ``arrived``: what the application was told and given, in order. ``options`` are those of
    :class:`Client`. ``clock``: one that goes on from an earlier scene; ``wire``: another kind of stream.
    """

    def __init__(
        self,
        broker: ScriptedBroker | ModelBroker,
        *,
        client_id: str | None = "c",
        clock: ManualClock | None = None,
        wire: type[Wire] | None = None,
        **options: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        self.broker = broker
        self.wire = (wire or Wire)(broker, self.clock)
        self.events: list[ClientEvent] = []
        self.arrived: list[Message] = []
        hooks = {"on_event": self.events.append, "on_message": self.arrived.append}
        if isinstance(broker, ScriptedBroker) and options.get("version", "5.0") != "5.0":
            options.setdefault(
                "clean_start", False
            )  # a named client would begin with a connection that clears
        self.dice = 1.0  # what they show, for the back-off for example: always the longest delay
        with patch.object(client_base, "random_fraction", lambda: self.dice):
            self.client = Client(self.wire, client_id=client_id, **(hooks | options))
        self._engine = self.client._engine

    def start(self) -> Scene:
        """Connect, and let happen what follows at once."""
        with self._engine.lock:
            self._engine.life.start()
        self.run()
        return self

    def run(self) -> None:
        """Let everything happen that takes no time."""
        engine = self._engine
        while True:
            before = len(self.received), engine.stats().bytes_received, engine.life.state
            self.broker.handle_deadline(self.clock())
            if engine.wants_open:
                self.wire.open(self.clock())
                engine.on_open(self.clock())
            engine.flush(self.clock())
            if self.wire.link is not None and engine.has_connection():
                engine.on_readable(self.clock())
            busy = self._run_callbacks()
            if not busy and before == (len(self.received), engine.stats().bytes_received, engine.life.state):
                return

    def advance(self, seconds: float) -> None:
        """Let time pass: every deadline of client and broker is met when it is due."""
        end = self.clock() + seconds
        for _ in range(100_000):
            self.run()
            due = (self._engine.next_deadline(), self.broker.next_deadline())
            deadline = min((each for each in due if each is not None), default=end)
            if deadline >= end:
                break
            self.clock.advance_to(max(deadline, self.clock()))
            self._engine.on_deadline(self.clock())
        else:
            raise AssertionError("the deadlines stay in the past")
        self.clock.advance_to(end)
        self._engine.on_deadline(end)
        self.run()

    def close(self) -> None:
        """Say DISCONNECT and end; a scripted broker must have seen all it expected."""
        with self._engine.lock:
            self._engine.close_connection()
        self.run()
        self.client.close(0)
        if isinstance(self.broker, ScriptedBroker):
            self.broker.check()

    @property
    def received(self) -> list[Any]:
        """The packets that a scripted broker has taken."""
        return self.broker.received if isinstance(self.broker, ScriptedBroker) else []

    def types(self) -> list[str]:
        """The packets that a scripted broker has taken, by name, without PINGREQ."""
        return [packet.type for packet in self.received if packet.type != "pingreq"]

    def kinds(self) -> list[str]:
        """The events so far, by name."""
        return [event.kind for event in self.events]

    def _run_callbacks(self) -> bool:
        """Do what the callback thread does; whether there was something to do."""
        engine = self._engine
        with engine.lock:
            batch = engine.events.take()
        handled = 0
        for item in batch:
            if not isinstance(item, Message):
                item[0](item[1])
                continue
            default = (self.client.on_message,) if self.client.on_message is not None else ()
            self._handle(item, engine.incoming.router.route(item.topic) or default)
            handled += 1
        with engine.lock:
            engine.handled(handled)
        return bool(batch)

    def _handle(self, message: Message, handlers: Iterable[Any]) -> None:
        for handler in handlers:
            try:
                handler(message)
            except ZeroDivisionError as error:  # the one that tests raise
                with self._engine.lock:
                    self._engine.events.notify("handler_failed", str(error), error)
        message.handled = True


def accept(**properties: Any) -> Packet:
    """Return a CONNACK that opens the connection with a new session and these properties."""
    return Connack(False, 0, properties)
