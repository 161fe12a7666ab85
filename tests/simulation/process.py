"""The client's program: an engine, driven as its shells drive it, in virtual time and without a thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from device_sdk import Message, ReconnectPolicy, Store, Subscription
from device_sdk.errors import ConnectFailedError, DeviceSdkError
from tests.simulation.history import History, Promise, SimulationFailure
from tests.simulation.layout import (
    CONNECTED,
    DrivenAttempt,
    EngineOptions,
    begins_clean,
    make_engine,
    number_from_one,
    numbers_of,
    session_facts,
)
from tests.simulation.network import Network, SimulatedTransport
from tests.simulation.tape import Deliveries, Note, RecordedStore, facts_of
from tests.simulation.timeline import Timeline

__all__ = ["CLIENT_ID", "Process", "ProcessOptions"]

CLIENT_ID = "node-17"
_OPEN_SECONDS = 10.0  # as the shells: what open() is given, and how late it may be
_GRACE_SECONDS = 1.0
#: Turns in which nothing happens that are allowed within one virtual second, one for each wake-up besides.
_IDLE_TURNS = 20


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How the client is set up. ``handler_seconds``: the longest that a handler takes."""

    version: str
    keep_alive: int
    session_expiry: int
    receive_maximum: int
    inflight: int
    inbox_limit: int
    ack_timeout: float | None
    handler_seconds: float
    first_delay: float
    longest_delay: float


class Process:
    """One life of the program, from its start to its end or crash.

    ``ahead``: how far its monotonic clock has leapt before everybody else's.
    """

    def __init__(
        self,
        timeline: Timeline,
        network: Network,
        history: History,
        dice: Random,
        options: ProcessOptions,
        store: Store | None,
        ahead: float,
        note: Note | None = None,
    ) -> None:
        self.ahead = ahead
        self.store = store
        self.over = False
        self.turns = self.attempts = 0
        self._problem = ""
        self._timeline = timeline
        self._history = history
        self._network = network
        self._dice = dice
        self._options = options
        self.transport = SimulatedTransport(network)
        self._note = note
        self._deliveries = None if note is None else Deliveries(note)
        if note is not None and store is not None:
            store = RecordedStore(store, note)
        engine_options = EngineOptions(
            CLIENT_ID,
            version=options.version,
            keep_alive=options.keep_alive,
            session_expiry=options.session_expiry,
            receive_maximum=options.receive_maximum,
            inflight=options.inflight,
            inbox_limit=options.inbox_limit,
            ack_timeout=options.ack_timeout,
            reconnect=ReconnectPolicy(options.first_delay, options.longest_delay),
        )
        self.engine = engine = make_engine(self.transport, engine_options, store, dice.random)
        engine.on_event = self._on_event
        if note is not None:
            engine.on_connect = engine.on_disconnect = self._on_hook
        self._woken = False
        self._attempt: DrivenAttempt | None = None
        self._opened: tuple[DeviceSdkError | None] | None = None  # open() has returned, with this error
        self._handling = False
        self._connection: object = None
        self._generation = 0
        self._second = -1
        self._idle = 0
        self._expired = 0
        if store is not None:
            engine.adopt(store.open(), store, self.now, self.wake)
        with engine.lock:
            engine.subscribe([Subscription("cmd/#", 2)], None)
            engine.start(self.now)
        self.wake()

    @property
    def now(self) -> float:
        """The time on this computer."""
        return self._timeline.now + self.ahead

    @property
    def woken(self) -> bool:
        """Whether something has happened since its last turn."""
        return self._woken or self._opened is not None

    # What the run does to it

    def wake(self) -> None:
        """Let it look again."""
        self._woken = True
        self._idle -= 1
        if self._note is not None:
            self._note("wake")

    def publish(self, topic: str, payload: bytes, qos: int, index: int, expiry: float | None) -> None:
        """Publish as the application does."""
        field = len(topic).to_bytes(2, "big") + topic.encode()
        now = self.now
        expires_at = None if expiry is None else now + expiry
        properties = b"\0" if self._options.version == "5.0" else b""
        with self.engine.lock:
            delivery = self.engine.publish(field, payload, qos << 1, properties, expires_at, now)
            assert delivery is not None, "the policy does not block"
            if self._deliveries is not None:
                self._deliveries.published(delivery)
            # An application that keeps no delivery leaves it to the client to know what has ended.
            kept = delivery if self._dice.random() < 0.6 else None
            sequence, change = numbers_of(delivery)
            promise = Promise(payload, topic, qos, index, sequence, change, kept, expires_at)
            self._history.published(promise)
            if self.engine.wants_attention() and self.engine.unpark():
                self.wake()

    def wind(self) -> None:
        """Let so many messages have passed that packet identifiers begin at 1 again."""
        number_from_one(self.engine)

    def crash(self) -> None:
        """End without a word."""
        self.over = True

    def leave(self) -> None:
        """End in good order, with what has not been acknowledged left in the store."""
        engine = self.engine
        with engine.lock:
            engine.close_connection()
        engine.flush(self.now)
        self.over = True
        engine.drop_connection()
        engine.finish()

    # The shell

    def next_wake(self) -> float:
        """When it wants its next turn, on everybody's clock."""
        engine = self.engine
        if self.woken or (engine.wants_open and self._attempt is None):
            return self._timeline.now
        with engine.lock:
            if engine.has_output():
                return self._timeline.now
            deadline = engine.next_deadline()
        interest = engine.interest()
        if interest is not None and ((interest[1] and self.transport.readable) or self.transport.writable):
            return self._timeline.now
        return float("inf") if deadline is None else deadline - self.ahead

    def turn(self) -> None:
        """Do what the network thread and the callback thread do when something has happened."""
        self.turns += 1
        self._woken = False
        engine, now = self.engine, self.now
        before = self._progress()
        if engine.wants_open and self._attempt is None:
            self._open()
        if self._opened is not None:
            self._look_at_opening(*self._opened)
        interest = engine.interest()
        if interest is not None:
            if interest[1] and self.transport.readable:
                engine.on_readable(now)
            if self.transport.writable:
                engine.on_writable(now)
        with engine.lock:
            deadline = engine.next_deadline()
        if self._note is not None:
            self._note("turn", self._timeline.now, now, None if interest is None else interest[1:], deadline)
        if deadline is not None and now >= deadline:
            engine.on_deadline(now)
        engine.flush(now)
        self._look_at_connection()
        self._run_callbacks()
        if self._problem:
            raise SimulationFailure(self._problem)
        with engine.lock:
            engine.parked = not engine.has_output()
        stats = self._stats()
        if self._note is not None:
            assert self._deliveries is not None
            self._deliveries.look()
            self._note("turned", engine.state, engine.parked, facts_of(stats))
        expired = stats.expired
        if expired > self._expired:
            self._expired = expired
            self._history.check_expired(now)
        self._watch_for_idling(before)

    def _progress(self) -> tuple[Any, ...]:
        stats = self._stats()
        return stats.bytes_sent, stats.bytes_received, self.engine.state, self._attempt, self._handling

    def _stats(self) -> Any:
        with self.engine.lock:
            return self.engine.stats()

    def _watch_for_idling(self, before: tuple[Any, ...]) -> None:
        second = int(self._timeline.now)
        if second != self._second:
            self._second, self._idle = second, 0
        if before == self._progress():
            self._idle += 1
            if self._idle > _IDLE_TURNS:
                raise SimulationFailure(
                    f"busy loop: {self._idle} turns in one second in which nothing happened"
                )

    def _open(self) -> None:
        """Begin to open the transport; the network decides how long that takes, and how it ends."""
        self.attempts += 1
        self._history.attempted(self._timeline.now)
        attempt = self._attempt = self.engine.attempt()
        now, dice = self._timeline.now, self._dice
        hangs = now < self._network.hangs_until
        wait = _OPEN_SECONDS + _GRACE_SECONDS if hangs else self._network.latency * (1 + dice.random())

        def finish() -> None:
            if self._attempt is not attempt or self.over:
                return
            error: DeviceSdkError | None = None
            if hangs:
                attempt.abort()
                attempt.close()
                error = ConnectFailedError("open() did not return in time")
            else:
                try:
                    attempt.open(self.now + _OPEN_SECONDS)
                except DeviceSdkError as failure:
                    error = failure
            self._opened = (error,)

        self._timeline.after(wait, finish)

    def _look_at_opening(self, error: DeviceSdkError | None) -> None:
        self._attempt = self._opened = None
        if error is None:
            self.engine.on_open(self.now)
            if begins_clean(self.engine) and session_facts(self.engine).known:
                raise SimulationFailure("CONNECT with a clean start although the session is known")
        else:
            self.engine.on_open_failed(error, self.now)

    def _look_at_connection(self) -> None:
        """Note a connection that has begun."""
        engine = self.engine
        connection = engine.connection()
        if connection is self._connection:
            return
        self._connection = connection
        if connection is None:
            return
        session = session_facts(engine)
        resumed, self._generation = session.generation == self._generation, session.generation
        cable = self.transport.cable
        assert cable is not None
        self._history.connected(
            cable.epoch,
            session.changes,
            resumed=resumed,
            remembered=session.remembered,
        )

    def _run_callbacks(self) -> None:
        """Run hooks and events at once, and the handlers of messages after the time that they take."""
        if self._handling:
            return
        with self.engine.lock:
            batch = self.engine.take_callbacks()
        messages = []
        for item in batch:
            if isinstance(item, Message):
                self._history.delivered(item.payload, item.packet_id)
                if self._note is not None:
                    self._note("message", facts_of(item))
                messages.append(item)
            else:
                item[0](item[1])
        if not messages:
            return
        self._handling = True
        wait = self._options.handler_seconds * self._dice.random() ** 3
        self._timeline.after(wait, self._finisher(messages))

    def _finisher(self, messages: list[Message]) -> Callable[[], None]:
        def finish() -> None:
            if self.over:
                return
            self._handling = False
            for message in messages:
                self._history.handled(message.payload)
                message.handled = True
            with self.engine.lock:
                wanted = self.engine.handled(len(messages))
            if self._note is not None:
                self._note("handled", len(messages), wanted)
            self.wake()

        return finish

    def _on_hook(self, argument: object) -> None:
        if self._note is not None:
            self._note("hook", facts_of(argument))

    def _on_event(self, event: Any) -> None:
        if self._note is not None:
            self._note("event", facts_of(event))
        if event.kind in ("internal_error", "handler_failed"):
            self._problem = (
                f"{event.kind}: {event.text}"  # raised later: the engine survives hooks that raise
            )

    # Questions

    @property
    def connected(self) -> bool:
        """Whether the server has accepted the present connection."""
        return self.engine.state == CONNECTED

    def is_quiet(self) -> bool:
        """Whether it has nothing to do but to keep the connection alive."""
        with self.engine.lock:
            drained = self.engine.is_drained()
        return drained and self.connected and not (self._handling or session_facts(self.engine).asks)
