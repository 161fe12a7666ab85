"""An engine, a few brokers, the shell that drives it, and all that can happen to them, without a thread.

:class:`LifeWorld` does one small thing at a time; the test decides which. After each step it checks what must
be true of a client at any moment, and :meth:`LifeWorld.settle` lets everything come to its good end.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from device_sdk.engine.connecting.attempt import Attempt
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.connecting.brokers import Broker
from device_sdk.engine.connecting.credentials import Credentials
from device_sdk.engine.engine import Engine
from device_sdk.engine.life_cycle import CLOSED, CONNECTED, CONNECTING, WAITING
from device_sdk.engine.outgoing.delivery import Delivery
from device_sdk.errors import ConnectFailedError, DeviceSdkError, TransportClosedError, TransportError
from device_sdk.mqtt.message import Message, Subscription, Will
from device_sdk.mqtt.options import ConnectOptions
from device_sdk.net.base import Transport
from device_sdk.store.base import StorePolicy
from device_sdk.store.memory import MemoryStore
from device_sdk.testing import ManualClock, ModelBroker
from device_sdk.testing.model_link import BrokerLink

__all__ = ["LifeWorld", "Place"]

CONNECT_SECONDS = 10.0
MOST_TURNS = 200  # of a shell at one moment, before that is a busy loop


class Place:
    """A host with a broker, and the stream to it."""

    def __init__(self, name: str, clock: ManualClock) -> None:
        self.name = name
        self.broker = ModelBroker(authorize_connect=lambda _: self.refusal, unique_messages=True)
        self.is_down = False
        self.is_deaf = False  # takes streams and answers nothing
        self.refusal = 0
        self.attempts = 0
        self.transport = LinkTransport(self, clock)


class LinkTransport(Transport):
    """A stream to the broker of a place, with the rules of the contract for its owner."""

    def __init__(self, place: Place, clock: ManualClock) -> None:
        self.description = f"tcp {place.name}"
        self.place = place
        self.clock = clock
        self.link: BrokerLink | None = None
        self.is_aborted = False
        self.is_reset = False
        self.has_bug = False
        self.is_heard = True
        self.room = 1 << 30

    def open(self, deadline: float) -> None:
        if self.link is not None:
            raise TransportError(f"{self.description} is open; close() it first")
        self.place.attempts += 1
        if self.is_aborted:
            raise TransportClosedError(f"{self.description} was aborted before it was opened")
        if self.place.is_down:
            raise ConnectFailedError(f"cannot connect to {self.place.name}: refused")
        self.is_reset, self.has_bug, self.room = False, False, 1 << 30
        self.is_heard = not self.place.is_deaf
        self.link = self.place.broker.connect()

    def fileno(self) -> int:
        return 7

    @property
    def is_readable(self) -> bool:
        link = self.link
        return link is not None and bool(
            self.is_reset or self.is_aborted or self.has_bug or link.closed or link._output
        )

    def recv(self) -> bytes | None:
        link = self._usable()
        if self.has_bug:
            raise ZeroDivisionError("a mistake in a stream")
        if data := link.data_to_send():
            return data
        if self.is_reset:
            raise TransportClosedError(f"{self.description}: reset")
        return b"" if link.closed else None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        link = self._usable()
        if self.is_reset or link.closed:
            raise TransportClosedError(f"{self.description}: reset")
        taken = min(self.room, len(data))
        self.room -= taken
        if self.is_heard:
            link.receive_data(bytes(data[:taken]), self.clock())
        return taken

    def wants_write(self) -> bool:
        return not self.room

    def flush(self) -> None:
        self.room = 1 << 30

    def abort(self) -> None:
        self.is_aborted = True

    def close(self) -> None:
        link, self.link, self.is_aborted = self.link, None, False
        if link is not None and not link.closed:
            link.connection_lost(self.clock())

    def _usable(self) -> BrokerLink:
        if self.link is None or self.is_aborted:
            raise TransportClosedError(f"{self.description} is not open")
        return self.link


class LifeWorld:
    """Everything that there is; payloads are unique.

    ``seed`` decides what is not given: how many brokers there are, and the options of the engine.
    """

    def __init__(self, seed: int, count: int = 0, **options: Any) -> None:
        self.dice = dice = random.Random(seed)
        self.clock = ManualClock()
        self.places = [Place(f"b{number}", self.clock) for number in range(count or dice.randint(1, 3))]
        self.options: dict[str, Any] = options or {
            "return_to_first": dice.choice((None, 5.0, 40.0)),
            "ack_timeout": dice.choice((None, 20.0)),
            "clean_start": dice.choice((None, None, False, True)),
            "shared_session": len(self.places) > 1 and dice.random() < 0.2,
        }
        if self.options.get("shared_session"):
            for place in self.places[1:]:
                place.broker = self.places[0].broker
        self.keeps = MemoryStore() if dice.random() < 0.5 else None
        self.deliveries: dict[bytes, Delivery] = {}
        self.inherited: list[bytes] = []  # stored by an earlier client
        self.count = 0
        self.handled: list[bytes] = []
        self.asking: Callable[[], None] | None = None  # what happens inside credentials= or will=
        self.ghosts: list[Attempt] = []
        self.events: list[str] = []
        self.session_at: Place | None = None
        self.begin()

    # The client

    def begin(self) -> None:
        """Make a client, and start it."""
        options = ConnectOptions("c", keep_alive=60, session_expiry=0xFFFF_FFFF)
        self.opening: Attempt | None = None
        self.give_up_at = 0.0
        self.turns = 0
        self.waiters: list[tuple[threading.Event, float]] = []
        self.engine = Engine(
            threading.RLock(),
            [Broker(place.transport, place.name) for place in self.places],
            options,
            policy=StorePolicy(),
            store=self.keeps,
            reconnect=ReconnectPolicy(),
            draw=self.dice.random,
            credentials=Credentials(options, self._credentials, self._will),
            inflight=4,
            **self.options,
        )
        if self.keeps is not None:
            self.engine.adopt(self.keeps.open(), self.keeps, self.clock(), lambda: None)
        with self.engine.lock:
            self.engine.incoming.subscribe([Subscription("cmd", 1)], None)
            self.engine.life.start()

    def _credentials(self) -> tuple[str, str]:
        if self.asking is not None:
            self.asking()
        return "c", "token"

    def _will(self) -> Will:
        return Will("gone", b"c")

    # Steps of the application

    def publish(self) -> None:
        """Publish a few messages."""
        for _ in range(self.dice.randint(1, 3)):
            self.count += 1
            payload = b"%d" % self.count
            qos = self.dice.randint(1, 2)
            with self.engine.lock:
                delivery = self.engine.outgoing.publish(
                    b"\0\1t", payload, qos << 1, b"\0", None, self.clock()
                )
            assert delivery is not None
            self.deliveries[payload] = delivery

    def want_outcome(self) -> None:
        """Call connect(), in a manner of speaking."""
        with self.engine.lock:
            if self.engine.life.state != CONNECTED and not self.waiters:
                event = self.engine.life.want_outcome(threading.Event)
                self.waiters.append((event, self.clock()))

    def reconnect_now(self) -> None:
        with self.engine.lock:
            self.engine.reactions.reconnect_now()

    def replace(self) -> None:
        with self.engine.lock:
            self.engine.connector.outdate()
            self.engine.reactions.replace(self.engine.connection, self.clock())
            self.engine.reactions.reconnect_now()

    def restart(self) -> None:
        """Close the client at this moment, and begin another one, perhaps with another order of brokers."""
        engine = self.engine
        with engine.lock:
            engine.close_connection()
        self.turn()
        if self.opening is not None:
            self._abandon()
        engine.drop_connection()
        engine.end()
        engine.close_store()
        for event, _ in self.waiters:
            assert event.is_set(), "connect() was not told of close()"
        assert engine.life.state == CLOSED
        self.assert_open(set())
        assert all(delivery.done for delivery in self.deliveries.values())
        if self.keeps is not None:
            self.inherited += self.deliveries
        else:
            self.session_at = None  # with clean_start=False the program vouches for it, wherever it is
        self.deliveries.clear()
        if self.keeps is not None and self.dice.random() < 0.5:
            self.places.reverse()
        self.begin()

    # Steps of the network and the brokers

    def stream_has_a_bug(self) -> None:
        """Something raises what nobody foresaw."""
        self.engine.transport.has_bug = True  # type: ignore[attr-defined]
        self.turn()

    def open_ends(self) -> None:
        """Let the attempt come to its end."""
        attempt = self.opening
        if attempt is None:
            return
        error: DeviceSdkError | None = None
        try:
            attempt.open(self.clock() + CONNECT_SECONDS)
        except DeviceSdkError as failure:
            error = failure
        self.opening = None
        if error is None:
            self.engine.on_open(self.clock())
        else:
            self.engine.on_open_failed(error, self.clock())
        self.turn()

    def open_hangs(self) -> None:
        """Leave the attempt behind, as a shell does after a while; :meth:`ghost_returns` goes on with it."""
        attempt = self.opening
        if attempt is None:
            return
        self.opening = None
        attempt.abort()
        attempt.close()
        self.ghosts.append(attempt)
        self.engine.on_open_failed(ConnectFailedError("open() did not return"), self.clock())
        self.turn()

    def credentials_hang(self) -> None:
        """The attempt is left behind while it asks the application, and goes on at some other time."""
        attempt = self.opening
        if attempt is None:
            return

        def hang() -> None:
            self.asking = None
            if self.opening is attempt:
                self.open_hangs()

        self.asking = hang
        try:
            attempt.open(self.clock() + CONNECT_SECONDS)
        except DeviceSdkError:
            pass
        self.ghosts.clear()

    def credentials_raise(self) -> None:
        def fail() -> None:
            self.asking = None
            raise KeyError("token")

        if self.opening is not None:
            self.asking = fail
            self.open_ends()

    def ghost_returns(self) -> None:
        """An ``open()`` that was left behind goes on."""
        if self.ghosts:
            try:
                self.ghosts.pop().open(self.clock())
            except DeviceSdkError:
                pass

    def place_changes(self) -> None:
        """A host goes down or up, a broker begins to refuse, or not to answer."""
        place = self.dice.choice(self.places)
        place.is_down = self.dice.random() < 0.3
        place.is_deaf = self.dice.random() < 0.1
        place.refusal = self.dice.choice((*[0] * 9, 0x87, 0x88, 0x97, 0x9C, 0x9D))

    def cut(self) -> None:
        """A connection is reset; what was on the way may still come."""
        for place in self.places:
            if place.transport.link is not None and self.dice.random() < 0.7:
                place.transport.is_reset = True
        self.turn()

    def link_goes_dead(self) -> None:
        """Nothing that is sent on this connection arrives any more."""
        self.engine.transport.is_heard = False  # type: ignore[attr-defined]
        self.publish()

    def broker_says_goodbye(self) -> None:
        self.dice.choice(self.places).broker.disconnect_all(
            self.clock(), self.dice.choice((0x8B, 0x8E, 0x89, 0x97, 0x98, 0x9C, 0x87))
        )
        self.turn()

    def sessions_are_lost(self) -> None:
        self.dice.choice(self.places).broker.forget_sessions(self.clock())
        self.turn()

    def stream_is_full(self) -> None:
        self.engine.transport.room = self.dice.randint(0, 40)  # type: ignore[attr-defined]
        self.publish()

    def time_passes(self) -> None:
        """Let time pass, sometimes a lot."""
        self.wait(self.dice.choice((0.1, 1.0, 5.0, 30.0, 100.0)))

    def wait(self, seconds: float) -> None:
        """Let so much time pass; the shell wakes up whenever it has to."""
        end = self.clock() + seconds
        while True:
            self.turn()
            due = [self.deadline(), self.give_up_at if self.opening is not None else None]
            moment = min((each for each in due if each is not None), default=end)
            if moment > end:
                break
            self.clock.advance_to(max(moment, self.clock()))
            if self.opening is not None and self.clock() >= self.give_up_at:
                self.open_hangs()
        self.clock.advance_to(end)
        for place in self.places:
            place.broker.handle_deadline(end)
        self.turn()

    # The shell

    def deadline(self) -> float | None:
        with self.engine.lock:
            return self.engine.next_deadline()

    def turn(self) -> None:
        """Do what a shell does at this moment, until there is nothing left to do."""
        now = self.clock()
        for _ in range(MOST_TURNS):
            try:
                busy = self._turn(now)
            except ZeroDivisionError as error:  # as a shell does
                if self.opening is not None:
                    self._abandon()
                self.engine.on_fault(error, now)
                busy = True
            self.turns += 1
            if not busy:
                break
        else:
            raise AssertionError(f"a busy loop in state {self.engine.life.state}")
        self.check()

    def _turn(self, now: float) -> bool:
        engine, busy = self.engine, False
        if engine.wants_open and self.opening is None:
            self.opening = engine.attempt()
            self.give_up_at = now + CONNECT_SECONDS + 1
            busy = True
        interest = engine.interest()
        transport: Any = engine.transport
        if interest is not None and interest[1] and transport.is_readable:
            engine.on_readable(now)
            busy = True
        if interest is not None and interest[2] and engine.has_connection():
            engine.on_writable(now)
            busy = True
        deadline = self.deadline()
        if deadline is not None and deadline <= now:
            engine.on_deadline(now)
            busy = True
        engine.flush(now)
        opens = engine.wants_open and self.opening is None
        return self._handle() or busy or opens

    def _handle(self) -> bool:
        """Run handlers and hooks."""
        engine = self.engine
        with engine.lock:
            batch = engine.events.take()
        messages = 0
        for item in batch:
            if isinstance(item, Message):
                self.handled.append(item.payload)
                item.handled = True
                messages += 1
            else:
                self._note(item[1])
        with engine.lock:
            engine.handled(messages)
        return bool(messages)

    def _note(self, event: Any) -> None:
        self.events.append(event.kind)
        assert event.kind != "handler_failed", event.text
        assert event.kind != "internal_error" or "ZeroDivisionError" in event.text, event.text
        if event.kind == "connected" and self.engine.life.state == CONNECTED:
            here = next(place for place in self.places if place.transport.description == event.value)
            if event.text.endswith("session present") and not self.options.get("shared_session"):
                known = self.session_at in (None, here)
                assert known, f"resumed at {here.name}, which is not where the session is"
            self.session_at = here

    def _abandon(self) -> None:
        assert self.opening is not None
        self.opening.abort()
        self.opening.close()
        self.ghosts.append(self.opening)
        self.opening = None

    # What must be true

    def assert_open(self, expected: set[str]) -> None:
        found = {place.name for place in self.places if place.transport.link is not None}
        assert found == expected, f"open: {found}, of use: {expected}"

    def check(self) -> None:
        """Say what must be true at every moment."""
        engine, now = self.engine, self.clock()
        self.assert_open({engine.connector.brokers.current.address} if engine.has_connection() else set())
        deadline = self.deadline()
        assert deadline is None or deadline > now, "a deadline in the past"
        if engine.life.state == WAITING:
            assert deadline is not None, "waits for nothing"
        elif engine.life.state == CONNECTING:
            assert engine.has_connection() or self.opening is not None, "connecting, and nobody does it"
        for event, since in list(self.waiters):
            if event.is_set():
                self.waiters.remove((event, since))
                engine.life.forget_outcome()
            else:
                rounds = len(self.places) + 2
                assert now - since < rounds * 120.0, f"connect() waits for {now - since:.0f} s"
        for place in self.places:
            assert place.broker.violations == [], place.broker.violations

    def settle(self) -> None:
        """Let everything work well; then all that was published has arrived."""
        for place in self.places:
            place.is_down = place.is_deaf = False
            place.refusal = 0
        for _ in range(100):
            self.turn()
            if self.opening is not None:
                self.open_ends()
            self.time_passes()
            if self._is_quiet():
                break
        else:
            raise AssertionError(f"no end in state {self.engine.life.state}: {self.events[-10:]}")
        journal = {payload for place in self.places for payload in place.broker.payloads("t")}
        for payload, delivery in self.deliveries.items():
            assert delivery.state == "acknowledged", f"{payload!r} is {delivery.state}"
        for payload in (*self.deliveries, *self.inherited):
            assert payload in journal, f"{payload!r} is lost"

    def _is_quiet(self) -> bool:
        engine = self.engine
        if engine.life.state != CONNECTED or engine.outgoing.outbox.queued or len(engine.session):
            return False
        here: Any = engine.transport
        return "cmd" in here.place.broker.sessions["c"].subscriptions
