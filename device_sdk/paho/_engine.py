"""The engine as the façade drives it: connections are begun and ended by the façade, nothing is automatic.

Callbacks wait in the engine's list in the order in which things happened; the façade runs them in its loops.
"""

from __future__ import annotations

import weakref

from device_sdk.engine.engine import CONNECTING, IDLE, Engine
from device_sdk.engine.manual_ack import ManualAcks
from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.engine.reconnect import ReconnectPolicy
from device_sdk.errors import DroppedError
from device_sdk.mqtt.events import (
    ConnectAcknowledged,
    ConnectionEnded,
    SubscribeAcknowledged,
    UnsubscribeAcknowledged,
)
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.protocol import Protocol
from device_sdk.paho._protocol import DISCONNECT, LOGGED, RULES, PacketNotes
from device_sdk.paho._stream import NoStream
from device_sdk.paho.enums import MQTTErrorCode
from device_sdk.store.base import StorePolicy

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from typing import Any

    from device_sdk.mqtt.message import Message
    from device_sdk.net.base import Transport
    from device_sdk.paho._message import MQTTMessageInfo
    from device_sdk.store.base import Store

__all__ = ["PahoEngine"]

_UNLIMITED = 1 << 61
_HIGHEST_MID = 65_535
_TOLD_OTHERWISE = frozenset({"connected", "disconnected", "connect_failed", "session_lost", "auth"})


def _no_draw() -> float:
    return 0.0


def _weakly(method: Callable[[str], object]) -> Callable[[str], object]:
    """Return a function that calls the method for as long as somebody else keeps its object."""
    reference = weakref.WeakMethod(method)

    def call(text: str) -> None:
        found = reference()
        if found is not None:
            found(text)

    return call


class PahoEngine(Engine):
    """An engine whose connections come from :meth:`begin` and end with :meth:`leave` or by themselves.

    ``tell``: called under the lock with what the program should hear of: an event, or the
    :class:`MQTTMessageInfo` of a message that was published, or a text for the log; it returns the pair
    (function, argument) that the façade is to run, or ``None``. ``wants_log``: whether anybody reads the log.
    """

    def __init__(
        self,
        lock: threading.Lock,
        store: Store | None,
        tell: Callable[[Any], Any],
        wants_log: Callable[[], bool],
    ) -> None:
        super().__init__(
            lock,
            NoStream(),
            ConnectOptions("nobody", announces_limits=False),
            policy=StorePolicy(max_messages=_UNLIMITED, max_bytes=_UNLIMITED),
            store=store,
            reconnect=ReconnectPolicy(),
            draw=_no_draw,
            inbox_limit=1_000_000,
        )
        self._to_tell = tell
        self._wants_log = wants_log
        self._notes = PacketNotes(_weakly(self.tell))
        self._logs_packets = False
        self.unsent: list[MQTTMessageInfo] = []  # QoS 0, among the output of the protocol
        self._leaving: list[MQTTMessageInfo] = []  # QoS 0, handed to the stream
        self._source: Protocol | None = None  # the connection whose bytes are being taken in

    # Connections

    def begin(
        self, transport: Transport, options: ConnectOptions, *, clean_start: bool, inflight: int, now: float
    ) -> None:
        """A stream is open: CONNECT is the first packet on it. Takes the lock."""
        with self.lock:
            self._use(transport)
            self.stream.reset()
            self.options = options
            self._clean_start = clean_start
            self.state = CONNECTING
            protocol = Protocol(
                self.session, options, inflight=inflight or _HIGHEST_MID, vouched=True, rules=RULES
            )
            self._notes = PacketNotes(_weakly(self.tell))
            self._watch(protocol)
            protocol.connect(now, clean_start=clean_start)
            self._protocol = protocol

    def _watch(self, protocol: Protocol) -> None:
        """Look at the packets of a connection: as many of them as somebody wants to hear of."""
        self._logs_packets = self._wants_log()
        if self._logs_packets:
            protocol.watch(self._notes.on_packet, received=LOGGED, sent=LOGGED)
        else:
            protocol.watch(self._notes.on_packet, received=(DISCONNECT,), sent=())

    def leave(self) -> None:
        """Forget the connection as it is, without a word to the broker or the program. Takes the lock."""
        with self.lock:
            if self._protocol is not None:
                self._retired = self._protocol
            self._protocol = self._online = None
            self.state = IDLE

    def take_retired(self) -> Protocol | None:
        """Return the connection that has ended and whose stream is still open; the caller closes it."""
        with self.lock:
            retired, self._retired = self._retired, None
            if retired is not None:
                self._lose_unsent()
                self.session.requests.clear()
                self.outbox.disconnected()
        return retired

    def _lose_unsent(self) -> None:
        """Messages of QoS 0 that have not left will not leave any more. The lock is held."""
        for info in (*self._leaving, *self.unsent):
            info.lose(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        self._leaving, self.unsent = [], []

    @property
    def open_connection(self) -> Protocol | None:
        """The protocol of the open stream, unless DISCONNECT is on its way. The lock is held."""
        protocol = self._protocol
        return protocol if protocol is not None and protocol.is_open else None

    # Messages

    def next_mid(self) -> int:
        """Return a message identifier for what has no packet identifier of its own. The lock is held."""
        session = self.session
        session.last_packet_id = mid = session.last_packet_id % _HIGHEST_MID + 1
        return mid

    @property
    def outstanding(self) -> int:
        """Messages of QoS 1 and 2 that the broker has not acknowledged. The lock is held."""
        return len(self.session) + self.outbox.queued

    @property
    def idle(self) -> bool:
        """Whether nothing waits to leave or to be acknowledged. The lock is held."""
        protocol = self._protocol
        if protocol is None:
            return True
        return not (self.outstanding or self.stream.pending or protocol.has_output)

    @property
    def goodbye_size(self) -> int:
        """Bytes of the body of the DISCONNECT with which the broker ended the last connection, or 0."""
        return self._notes.goodbye_size

    def drop_outgoing(self) -> list[Delivery]:
        """Forget what the broker has not acknowledged; return it. The lock is held."""
        if self._protocol is not None:
            self._protocol.forget_repeats()
        dropped = self.outbox.end_all(DroppedError("drop_out_messages() was called"))
        for delivery in dropped:
            self.session.record(("done", delivery.sequence, "dropped"))
        return dropped

    def acknowledge_by_hand(self, acknowledge: Callable[[Message], None] | None) -> None:
        """Let the program acknowledge messages, or not any more. The lock is held."""
        self._manual = None if acknowledge is None else ManualAcks(acknowledge)
        self._sorts_received = acknowledge is not None

    def tell(self, event: Any) -> bool:
        """Let the program hear of it, in its turn; return whether it wants to. The lock is held."""
        told = self._to_tell(event)
        if told is not None:
            self._callbacks.append(told)
        return told is not None

    # What the base class leaves to its shells

    def notify(
        self, kind: str, text: str, error: BaseException | None = None, value: str | None = None
    ) -> None:
        """As the base class, without what the program hears of by its callbacks and its own log."""
        if kind not in _TOLD_OTHERWISE:
            super().notify(kind, text, error, value)

    def _schedule(self, delay: float, now: float) -> str:
        """The façade knows when to try again."""
        self.state = IDLE
        return ""

    def _bury(self, now: float) -> None:
        """The façade closes the stream, after the callbacks that want to see it open."""

    def _take_in(self, protocol: Protocol, data: bytes, now: float) -> None:
        self._source = protocol
        try:
            super()._take_in(protocol, data, now)
        finally:
            self._source = None

    def _is_left(self) -> bool:
        """Whether another thread has left the connection after its bytes were read. The lock is held."""
        return self._source is not None and self._source is not self._protocol

    def _tell_accepted(self, event: ConnectAcknowledged, now: float) -> None:
        if self._is_left():
            return
        self._on_connected(event, now)
        self.tell(event)

    def _tell_ended(self, event: ConnectionEnded, now: float) -> None:
        if self._is_left():
            return
        self._lose_unsent()
        self._on_ended(event, now)
        self.tell(event)

    def _tell_answer(self, event: SubscribeAcknowledged, now: float) -> None:
        self.tell(event)

    def _take_output(self, protocol: Protocol, now: float) -> list[bytes]:
        # Called when the stream has nothing left, so what was handed to it before is on its way.
        if self._leaving:
            self._left()
        self._leaving, self.unsent = self.unsent, []
        if not (self._logs_packets or protocol.output.is_empty) and self._wants_log():
            self._watch(protocol)
        chunks = super()._take_output(protocol, now)
        if not chunks and self._leaving:
            self._left()
        return chunks

    def _left(self) -> None:
        """Messages of QoS 0 have been handed to the network."""
        left, self._leaving = self._leaving, []
        with self.lock:
            for info in left:
                info.set()


PahoEngine.reactions = {
    **Engine.reactions,
    ConnectAcknowledged: PahoEngine._tell_accepted,
    ConnectionEnded: PahoEngine._tell_ended,
    SubscribeAcknowledged: PahoEngine._tell_answer,
    UnsubscribeAcknowledged: PahoEngine._tell_answer,
}
