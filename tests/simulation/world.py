"""A client, a broker and the bad network between them, in one thread and without a clock of its own.

:class:`World` plays the engine around our Protocol and Session: queue, window, reconnect, store. Every step
is one small event; the test decides which, and :meth:`World.settle` lets everything come to its good end.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Any

from device_sdk.errors import RefusedError, TransportClosedError
from device_sdk.mqtt.events import ConnectAcknowledged, ConnectionEnded, SubscribeAcknowledged
from device_sdk.mqtt.message import Message, Subscription
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.mqtt.protocol import CLOSED, CONNECTED, DISCONNECTING, Protocol
from device_sdk.mqtt.session import ACKNOWLEDGED, Outgoing, Session
from device_sdk.testing.model_broker import ModelBroker
from device_sdk.testing.model_link import BrokerLink
from device_sdk.testing.model_session import ModelSession
from tests.store.doubles import SlowStore, restored

__all__ = ["Config", "World"]

OPEN = 1 << 62
TOPICS = ("a", "b")
COMMANDS = ("cmd/x", "cmd/y")
NEVER = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class Config:
    """What stays the same through one run."""

    version: str = "5.0"
    stored: bool = True
    inflight: int = 3
    receive_maximum: int = 2  # of the broker
    our_receive_maximum: int = 2


@dataclass(slots=True)
class Connection:
    """The two ends of a stream and the bytes on their way."""

    protocol: Protocol
    link: BrokerLink
    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)
    accepted: bool = False


class World:
    """Everything that there is. Payloads are unique, so that a message is known by its payload."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.now = 1000.0
        self.broker = ModelBroker(unique_messages=True)
        self.next_receive_maximum = config.receive_maximum
        self.store = SlowStore() if config.stored else None
        self.session = Session(journal=config.stored)
        if self.store is not None:
            self.store.open()
        self.waiting: deque[Outgoing] = deque()
        self.connection: Connection | None = None
        self.subscribed = False  # SUBACK came, and the session is still the same for all we know
        # Change number -> the broker's session that packet identifiers received since then belong to.
        self.epochs: list[tuple[int, ModelSession | None]] = [(0, None)]
        self.unnoticed = 0  # identifiers of a session whose end no CONNACK told us
        self.crashed = False
        self.accepted: dict[bytes, Outgoing] = {}  # what the application published and no crash forgot
        self.published_on: dict[str, list[bytes]] = defaultdict(list)
        self.sequence = 0
        self.commands = 0
        self.commanded_on: dict[str, list[bytes]] = defaultdict(list)
        self.exactly_once: set[bytes] = set()  # commands at QoS 2
        self.expected: set[bytes] = set()  # commands that the application must handle
        self.arrived: list[Message] = []
        self.first_arrivals: dict[bytes, str] = {}
        self.handled: list[bytes] = []
        self.stored_at: dict[bytes, int] = {}  # payload -> number of its "message" change
        self.payload_of: dict[int, bytes] = {}  # packet identifier -> QoS 2 payload that arrived with it last
        self.received_at: dict[bytes, int] = {}  # QoS 2 payload -> number of its "received" change
        self.may_repeat_up: set[bytes] = set()
        self.may_repeat_down: set[bytes] = set()

    # The application

    def publish(self, choice: int) -> None:
        """Publish a few QoS 1 or 2 messages."""
        for _ in range(1 + choice // 4 % 3):
            self._publish(choice)

    def _publish(self, choice: int) -> None:
        topic, qos = TOPICS[choice % 2], 1 + choice // 2 % 2
        self.sequence += 1
        payload = b"%d" % self.sequence
        field = len(topic).to_bytes(2) + topic.encode()
        properties = b"\0" if self.config.version == "5.0" else b""
        message = Outgoing(field, payload, qos << 1, properties)
        message.sequence = self.sequence
        self.session.record(("message", self.sequence, field, payload, qos << 1, properties, None))
        self.waiting.append(message)
        self.accepted[payload] = message
        self.published_on[topic].append(payload)

    def wind(self, _: int) -> None:
        """Let so many messages have passed that packet identifiers begin at 1 again."""
        self.session.last_packet_id = 0

    def handle(self, choice: int) -> None:
        """Finish with one of the messages that arrived, in any order."""
        if not self.arrived:
            return
        message = self.arrived.pop(choice % len(self.arrived))
        message.handled = True
        self.handled.append(message.payload)
        if self.connection is not None:
            self.connection.protocol.acknowledge_handled()

    # The network

    def connect(self, _: int = 0) -> None:
        """Open a new connection, if there is none."""
        if self.connection is not None:
            return
        options = ConnectOptions(
            "c",
            version=self.config.version,
            keep_alive=60,
            session_expiry=NEVER,
            receive_maximum=self.config.our_receive_maximum,
        )
        self.session.requests.clear()
        if self.config.version == "5.0":
            self.broker.receive_maximum = self.next_receive_maximum
        protocol = Protocol(self.session, options, inflight=self.config.inflight, vouched=True)
        self.connection = Connection(protocol, self.broker.connect())
        protocol.connect(self.now, clean_start=False)

    def flush(self, _: int = 0) -> None:
        """Fill the window from the queue, write ahead, and put on the wire what may leave."""
        if self.connection is None:
            self._hand_over()
            return
        protocol = self.connection.protocol
        while protocol.state == CONNECTED and self.waiting and len(self.session) < protocol.outbound.window:
            protocol.publish(self.waiting.popleft(), self.now)
        self._hand_over()
        durable = OPEN if self.store is None else self.store.durable_through
        before = protocol.can_send(durable)
        chunks = protocol.data_to_send(durable, self.now)
        assert before == bool(chunks), "can_send() and data_to_send() disagree"
        self.connection.up += b"".join(chunks)

    def carry_up(self, choice: int) -> None:
        """Let the first bytes on their way reach the broker."""
        connection = self.connection
        if connection is None:
            return
        taken = bytes(connection.up[: 1 + choice])
        del connection.up[: len(taken)]
        if not connection.link.closed:
            connection.link.receive_data(taken, self.now)
        connection.down += connection.link.data_to_send()
        assert connection.link.in_flight_peak <= self.config.inflight

    def carry_down(self, choice: int) -> None:
        """Let the first bytes on their way reach the client, or the end of the stream."""
        connection = self.connection
        if connection is None:
            return
        connection.down += connection.link.data_to_send()
        taken = bytes(connection.down[: 1 + choice])
        del connection.down[: len(taken)]
        if taken:
            self._react(connection.protocol.receive_data(taken, self.now))
        elif connection.link.closed:
            self._react(connection.protocol.receive_eof(self.now))

    def trade(self, _: int = 0) -> None:
        """Let the network and the store work well for a moment."""
        for step in (self.flush, self.commit, self.flush):
            step(255)
        self.carry_up(1 << 20)
        self.carry_down(1 << 20)

    def cut(self, choice: int) -> None:
        """Break the stream; each end still gets some of what was on its way."""
        connection = self.connection
        if connection is None:
            return
        self.carry_up(choice % 16 * 4)
        self.carry_down(choice // 16 * 4)
        if self.connection is not connection:
            return  # the client has seen the end already
        connection.link.connection_lost(self.now)
        self._react(connection.protocol.receive_eof(self.now))

    def leave(self, _: int) -> None:
        """Disconnect in good order."""
        if self.connection is not None:
            self.connection.protocol.disconnect()

    def wait(self, choice: int) -> None:
        """Let time pass."""
        self.now += choice
        self.broker.handle_deadline(self.now)
        if self.connection is not None:
            deadline = self.connection.protocol.next_deadline()
            if deadline is not None and deadline <= self.now:
                self._react(self.connection.protocol.handle_deadline(self.now))

    # The broker

    def command(self, choice: int) -> None:
        """Publish to the client, if it is subscribed."""
        topic, qos = COMMANDS[choice % 2], 1 + choice // 2 % 2
        self.commands += 1
        payload = b"c%d" % self.commands
        if qos == 2:
            self.exactly_once.add(payload)
        if self.broker.sessions.get("c") and self.broker.sessions["c"].subscriptions:
            self.expected.add(payload)
            self.commanded_on[topic].append(payload)
        self.broker.publish(topic, payload, qos=qos, now=self.now)

    def change_receive_maximum(self, choice: int) -> None:
        """Let the broker announce another receive maximum on the next connection."""
        self.next_receive_maximum = 1 + choice % 4

    def lose_session(self, _: int) -> None:
        """Let the broker forget the session: what was not through may be lost below, repeated above."""
        if self.config.version == "3.1":
            return  # MQTT 3.1 cannot tell the client
        done = {payload for payload, message in self.accepted.items() if message.status == ACKNOWLEDGED}
        self.may_repeat_up |= set(self.broker.payloads()) - done
        self.expected &= set(self.handled)
        self.broker.forget_sessions(self.now)

    # The client's computer

    def commit(self, choice: int) -> None:
        """Let the store make some changes durable."""
        if self.store is not None:
            self._hand_over()
            self.store.commit(1 + choice % 8)

    def crash(self, choice: int) -> None:
        """Kill the client; the next one finds what was durable."""
        if self.store is None:
            return
        self._hand_over()
        durable_through = self.store.durable_through
        self.may_repeat_down |= {
            payload for payload in self.handled if self.received_at.get(payload, OPEN) > durable_through
        }
        self.crashed = True
        durable_epochs = [session for number, session in self.epochs if number <= durable_through]
        self.epochs = [(0, durable_epochs[-1])]
        self._abandon(choice)
        self.store = SlowStore(self.store.cut_power())
        self.session, waiting = restored(self.store.open(), self.now)
        self.waiting = deque(waiting)
        self.arrived = []
        self.subscribed = False
        self.received_at = dict.fromkeys(self.received_at, 0)
        known = [*self.session.in_flight.values(), *self.session.released.values(), *waiting]
        survivors = {message.payload: message for message in known}
        for payload, message in list(self.accepted.items()):
            if payload in survivors:
                self.accepted[payload] = survivors[payload]
            elif message.status != ACKNOWLEDGED:
                self._never_stored(payload, durable_through)

    def _abandon(self, choice: int) -> None:
        """Close the stream without anybody at our end to read it."""
        connection = self.connection
        if connection is None:
            return
        rest = bytes(connection.up[: choice * 4])
        if not connection.link.closed:
            connection.link.receive_data(rest, self.now)
        connection.link.connection_lost(self.now)
        self.connection = None

    def _never_stored(self, payload: bytes, durable_through: int) -> None:
        """A message may be forgotten only while it was not stored."""
        number = self.stored_at[payload]
        assert number > durable_through, f"message {payload!r} was stored and is lost"
        del self.accepted[payload]

    # Reactions, as the engine's

    def _hand_over(self) -> None:
        changes = self.session.take_changes()
        if not changes:
            return
        assert self.store is not None
        number = self.session.change_number - len(changes)
        for kind, *fields in changes:
            number += 1
            if kind == "message":
                self.stored_at[fields[2]] = number
            elif kind == "received" and fields[0] in self.payload_of:
                self.received_at.setdefault(self.payload_of[fields[0]], number)
        self.store.submit(changes, self.session.change_number)

    def _react(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Message):
                self._arrived(event)
            elif isinstance(event, Outgoing):
                assert event.status == ACKNOWLEDGED, (event.payload, event.status, event.error)
            elif isinstance(event, SubscribeAcknowledged):
                self.subscribed = True
            elif isinstance(event, ConnectAcknowledged):
                self._connected(event)
            elif isinstance(event, ConnectionEnded):
                self._ended(event)

    def _arrived(self, message: Message) -> None:
        self._hand_over()
        self.arrived.append(message)
        self.first_arrivals.setdefault(message.payload, message.topic)
        if message.qos == 2:
            self.payload_of[message.packet_id] = message.payload

    def _connected(self, event: ConnectAcknowledged) -> None:
        assert self.connection is not None
        self.connection.accepted = True
        self.waiting.extendleft(reversed(event.republish))
        link_session = self.connection.link.session
        if not event.session_present or self.config.version == "3.1":
            self.subscribed = False
        elif link_session is not None and link_session is not self.epochs[-1][1]:
            self.unnoticed += len(self.session.received)
        if link_session is not None:
            self.epochs.append((self.session.change_number, link_session))
        if not self.subscribed:
            self.connection.protocol.subscribe([Subscription("cmd/#", 2)])

    def _ended(self, event: ConnectionEnded) -> None:
        """The connection is over; only the network or a broker that left may be to blame."""
        assert isinstance(event.error, (TransportClosedError, RefusedError)), event.error
        assert self.connection is not None
        assert self.connection.protocol.state == CLOSED
        if not self.connection.accepted:
            self.subscribed = False  # a CONNACK that was lost may have said that the session is new
        assert self.connection.protocol.data_to_send(OPEN, self.now) == []
        self.connection.link.connection_lost(self.now)
        self.connection = None

    # The end

    def settle(self) -> None:
        """Let everything work well until nothing is left to do."""
        for _ in range(400):
            if self._is_quiet():
                return
            if self.connection is not None and self.connection.protocol.state == DISCONNECTING:
                self.flush()
                self.cut(255)
            self.connect()
            self.trade()
            while self.arrived:
                self.handle(0)
        raise AssertionError(f"no end: {len(self.waiting)} wait, in flight {list(self.session.in_flight)}")

    def _is_quiet(self) -> bool:
        session = self.broker.sessions.get("c")
        if self.connection is None or session is None or not session.subscriptions:
            return False
        open_ends: tuple[Sized, ...] = (
            self.waiting,
            self.session,
            self.session.requests,
            self.arrived,
            self.connection.up,
        )
        theirs: tuple[Sized, ...] = (self.connection.down, session.queue, session.in_flight)
        return not any(map(len, (*open_ends, *theirs))) and not self.connection.protocol.has_output

    def check(self) -> None:
        """Say what must be true after every run."""
        violations = self.broker.violations
        if self.crashed:
            # Only QoS 2 remembers its first transmission in time; a QoS 1 message may go as a new one.
            violations = [text for text in violations if not text.endswith("sent again without DUP")]
        assert violations == [], violations
        self._check_up()
        self._check_down()
        assert len(self.session.received) <= self.unnoticed, "identifiers of finished messages are still kept"

    def _check_up(self) -> None:
        journal = self.broker.payloads()
        for payload, message in self.accepted.items():
            assert payload in journal, f"message {payload!r} is lost"
            assert message.status == ACKNOWLEDGED, f"message {payload!r} is {message.status}"
        exactly_once = [entry.payload for entry in self.broker.journal if entry.qos == 2]
        for payload in set(exactly_once) - self.may_repeat_up:
            assert exactly_once.count(payload) == 1, f"QoS 2 message {payload!r} came twice"
        for topic, payloads in self.published_on.items():
            first = list(dict.fromkeys(self.broker.payloads(topic)))
            assert first == [payload for payload in payloads if payload in first], f"order on {topic}"

    def _check_down(self) -> None:
        missing = self.expected - set(self.handled)
        # MQTT's own gap: when the CONNACK that says "new session" is lost, no later one says so.
        assert len(missing) <= self.unnoticed, f"commands {missing} were never handled"
        exactly_once = [payload for payload in self.handled if payload in self.exactly_once]
        for payload in set(exactly_once) - self.may_repeat_down:
            assert exactly_once.count(payload) == 1, f"QoS 2 command {payload!r} was handled twice"
        for topic, payloads in self.commanded_on.items():
            first = [payload for payload, on in self.first_arrivals.items() if on == topic]
            assert first == [payload for payload in payloads if payload in first], f"order on {topic}"
