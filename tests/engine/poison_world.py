"""A client and a broker that ends connections because of what it is sent, in virtual time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.connecting.brokers import Broker
from device_sdk.engine.connecting.credentials import Credentials
from device_sdk.engine.engine import Engine
from device_sdk.engine.events import ClientEvent
from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import ConnectFailedError, TransportClosedError
from device_sdk.mqtt.decode import decode_packet
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.packets import Packet
from device_sdk.store.base import Store, StorePolicy
from device_sdk.testing import ManualClock
from tests.engine.life_world import LifeWorld, LinkTransport, Place

#: What the broker does about a packet: as the model does; ``"deaf"``: nothing; ``"closed"``: FIN,
#: ``"reset"``: RST, a number: DISCONNECT. ``"link"``: the stream breaks, and nobody knows why.
Reaction = str | int | None

FORBIDDEN = "site/forbidden"


class PoisonTransport(LinkTransport):
    """A stream to a broker that looks at each packet before the model does."""

    held_bytes = 0
    is_stuck = False  # takes no more than there was room for
    breaks: str | int = "reset"

    def open(self, deadline: float) -> None:
        super().open(deadline)
        self._arrived = bytearray()
        self.place.connections.append([])  # type: ignore[attr-defined]

    def send(self, data: bytes | bytearray | memoryview) -> int:
        link = self._usable()
        if self.is_reset or link.closed:
            raise TransportClosedError.ended(f"{self.description}: broken pipe", "closed")
        taken = min(self.room, len(data))
        self.room -= taken
        self._arrived += data[:taken]
        place: Any = self.place
        while not (self.is_reset or link.closed) and (found := self._next()):
            packet, raw = found
            place.connections[-1].append(packet)
            how = place.reacts(packet)
            if how is None:
                link.receive_data(raw, self.clock())
            elif how != "deaf":
                self.end(how)
        return taken

    def _next(self) -> tuple[Packet, bytes] | None:
        decoded = decode_packet(bytes(self._arrived), self.place.version)  # type: ignore[attr-defined]
        if decoded is None:
            return None
        raw = bytes(self._arrived[: decoded[1]])
        del self._arrived[: decoded[1]]
        return decoded[0], raw

    def wants_write(self) -> bool:
        return not (self.room or self.is_stuck)

    def end(self, how: str | int) -> None:
        """The broker ends the connection."""
        link = self.link
        if link is None:
            return
        if how in ("reset", "link"):
            self.is_reset = True
            self.breaks = how
        elif how == "closed":
            link.close(self.clock(), with_will=True)
        else:
            assert isinstance(how, int)
            link.end(how, self.clock())

    def recv(self) -> bytes | None:
        link = self._usable()
        if data := link.data_to_send():
            return data
        if self.is_reset:
            by_peer = None if self.breaks == "link" else "reset"
            raise TransportClosedError.ended(f"{self.description}: reset", by_peer)
        return b"" if link.closed else None

    def bytes_held(self, *, unconfirmed: bool) -> int:
        return self.held_bytes


class PoisonPlace(Place):
    """A host whose broker has a mind of its own. ``connections``: the packets of each, as it read them."""

    def __init__(self, name: str, clock: ManualClock, version: str) -> None:
        super().__init__(name, clock)
        self.version = version
        self.connections: list[list[Any]] = []
        self.reacts: Callable[[Any], Reaction] = lambda packet: None
        self.transport = PoisonTransport(self, clock)

    def published(self, number: int) -> list[tuple[str, bytes]]:
        """Topic and payload of the PUBLISH packets that the broker read on one connection."""
        return [(one.topic, one.payload) for one in self.connections[number] if one.type == "publish"]


def ends_on(*topics: str, how: Reaction = "closed") -> Callable[[Any], Reaction]:
    """End the connection on each PUBLISH to one of these topics."""
    return lambda packet: how if packet.type == "publish" and packet.topic in topics else None


class PoisonWorld(LifeWorld):
    """One client, one broker, and as much time as it takes: :meth:`wait` opens streams by itself."""

    def __init__(
        self,
        reacts: Callable[[Any], Reaction] | None = None,
        *,
        version: str = "5.0",
        store: Store | None = None,
        inflight: int = 20,
        session_expiry: int = 0xFFFF_FFFF,
        **options: Any,
    ) -> None:
        self.version, self.store, self.inflight = version, store, inflight
        self.session_expiry = session_expiry
        self.told: list[ClientEvent] = []
        self.clock = ManualClock()
        super().__init__(1, 1, **{"clean_start": None, **options})
        for place in self.places:
            place.reacts = reacts or place.reacts

    def begin(self) -> None:
        if not isinstance(self.places[0], PoisonPlace):
            self.places: list[Any] = [PoisonPlace("b0", self.clock, self.version)]
        self.keeps = self.store  # type: ignore[assignment]
        options = ConnectOptions("c", version=self.version, keep_alive=60, session_expiry=self.session_expiry)
        self.opening = None
        self.give_up_at = 0.0
        self.turns = 0
        self.waiters = []
        self.engine = Engine(
            threading.RLock(),
            [Broker(place.transport, place.name) for place in self.places],
            options,
            policy=StorePolicy(),
            store=self.store,
            reconnect=ReconnectPolicy(),
            draw=lambda: 0.5,
            credentials=Credentials(options),
            inflight=self.inflight,
            **self.options,
        )
        if self.store is not None:
            self.engine.adopt(self.store.open(), self.store, self.clock(), lambda: None)
        with self.engine.lock:
            self.engine.life.start()

    @property
    def place(self) -> PoisonPlace:
        return self.places[0]  # type: ignore[no-any-return]

    @property
    def lost(self) -> int:
        """Connections that have ended."""
        return self.events.count("disconnected")

    def send(self, topic: str, payload: bytes, qos: int = 1, *, expires_at: float | None = None) -> Delivery:
        """Publish a message."""
        field = len(topic).to_bytes(2, "big") + topic.encode()
        with self.engine.lock:
            delivery = self.engine.outgoing.publish(
                field, payload, qos << 1, b"\0" if self.version == "5.0" else b"", expires_at, None
            )
        assert delivery is not None
        self.turn()
        return delivery

    def wait(self, seconds: float) -> None:
        end = self.clock() + seconds
        while True:
            self.turn()
            while self.opening is not None:
                self.open_ends()
            due = self.deadline()
            if due is None or due > end:
                break
            self.clock.advance_to(max(due, self.clock()))
        self.clock.advance_to(end)
        self.turn()

    def until(self, condition: Callable[[], object], seconds: float = 3600.0) -> None:
        """Let time pass until it is so."""
        end = self.clock() + seconds
        while not condition():
            assert self.clock() < end, f"not within {seconds} s; {self.events[-20:]}"
            self.wait(0.25)

    def _note(self, event: Any) -> None:
        self.events.append(event.kind)
        if isinstance(event, ClientEvent):
            self.told.append(event)
        assert event.kind not in ("handler_failed", "internal_error"), event.text

    def end(self, how: str | int) -> None:
        """The broker ends the connection, or ``"link"`` breaks."""
        transport: Any = self.place.transport
        transport.end(how)
        self.turn()

    def texts(self, kind: str) -> list[str]:
        return [event.text for event in self.told if event.kind == kind]


__all__ = ["FORBIDDEN", "ConnectFailedError", "PoisonPlace", "PoisonTransport", "PoisonWorld", "ends_on"]
