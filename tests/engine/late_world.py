"""A client and brokers whose answers are late, so that much is sent before an end is known."""

from __future__ import annotations

from typing import Any

from device_sdk.engine.incoming.subscribe_request import SubscribeRequest
from device_sdk.errors import TransportClosedError
from device_sdk.mqtt.message import Subscription
from tests.engine.poison_world import PoisonPlace, PoisonTransport, PoisonWorld, Reaction

__all__ = ["LateTransport", "LateWorld"]

LATE = 0.3  # seconds from a packet to its answer


class LateTransport(PoisonTransport):
    """Everything of the broker arrives after a while, its end as well; what is sent meanwhile is lost."""

    late = LATE
    loses_answers = False  # a reset overtakes what was on the way

    def open(self, deadline: float) -> None:
        super().open(deadline)
        self._coming: list[tuple[float, bytes | None]] = []  # None: the end
        self._has_ended = False
        self._sent_after = 0

    def _collect(self) -> None:
        link = self.link
        if link is None or self._has_ended:
            return
        due = self.clock() + self.late
        if data := link.data_to_send():
            self._coming.append((due, data))
        if self.is_reset or link.closed:
            if self.is_reset and self.loses_answers:
                self._coming.clear()
            self._coming.append((due, None))
            self._has_ended = True

    def send(self, data: bytes | bytearray | memoryview) -> int:
        link = self._usable()
        if self.is_reset or link.closed:
            self._collect()
            self._sent_after += len(data)
            return len(data)
        try:
            return super().send(data)
        finally:
            self._collect()

    @property
    def is_readable(self) -> bool:
        self._collect()
        if self.link is None:
            return False
        return self.is_aborted or bool(self._coming and self._coming[0][0] <= self.clock())

    def recv(self) -> bytes | None:
        link = self._usable()
        self._collect()
        if not self._coming or self._coming[0][0] > self.clock():
            return None
        data = self._coming[0][1]
        if data is not None:
            del self._coming[0]
            return data
        if self.is_reset:
            by_peer = None if self.breaks == "link" else "reset"
            raise TransportClosedError.ended(f"{self.description}: reset", by_peer)
        assert link.closed
        return b""

    def next_deadline(self) -> float | None:
        self._collect()
        if self.link is None or not self._coming or self._coming[0][0] <= self.clock():
            return None
        return self._coming[0][0]

    def handle_deadline(self, now: float) -> None:
        pass

    def bytes_held(self, *, unconfirmed: bool) -> int:
        return self._sent_after if unconfirmed else 0


class LateWorld(PoisonWorld):
    """As :class:`PoisonWorld`, with several brokers."""

    def __init__(self, reacts: Any = None, *, brokers: int = 1, late: float = LATE, **options: Any) -> None:
        self.brokers, self.late = brokers, late
        super().__init__(reacts, **options)

    def begin(self) -> None:
        self.places = []
        for number in range(self.brokers):
            place = PoisonPlace(f"b{number}", self.clock, self.version)
            place.transport = LateTransport(place, self.clock)
            place.transport.late = self.late
            self.places.append(place)
        super().begin()

    def subscribe(self, *filters: str, qos: int = 1) -> SubscribeRequest:
        with self.engine.lock:
            request = self.engine.incoming.subscribe([Subscription(one, qos) for one in filters], print)
        self.turn()
        return request

    def unsubscribe(self, *filters: str) -> SubscribeRequest:
        with self.engine.lock:
            request = self.engine.incoming.unsubscribe(list(filters))
        self.turn()
        return request

    def asked(self, number: int) -> list[list[str]]:
        """The filters of each SUBSCRIBE that the broker read on one connection."""
        packets = self.place.connections[number]
        return [[each.topic for each in one.subscriptions] for one in packets if one.type == "subscribe"]

    @property
    def connections(self) -> int:
        """How many there were, at all brokers together."""
        return sum(len(place.connections) for place in self.places)

    @property
    def here(self) -> PoisonPlace:
        """The place of the present connection, or of the last one."""
        transport: Any = self.engine.transport
        return transport.place  # type: ignore[no-any-return]

    def end(self, how: str | int) -> None:
        transport: Any = self.engine.transport
        transport.end(how)
        self.turn()


def ends_on_filter(*filters: str, how: Reaction = "closed") -> Any:
    """End the connection on each SUBSCRIBE with one of these filters."""

    def reacts(packet: Any) -> Reaction:
        if packet.type != "subscribe":
            return None
        return how if any(one.topic in filters for one in packet.subscriptions) else None

    return reacts
