"""The only place of the simulation that knows how the inside of the package is laid out.

The simulation drives an engine through the methods that its shells use: :class:`DrivenEngine` names them.
What it needs besides, to make an engine and to ask about its session, is below. Where the package moves or
renames something, its new place becomes one more alternative here: ``python -m tests.same_as`` runs this
simulation on the package of another commit, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from operator import attrgetter
from typing import Any, NamedTuple, Protocol
from unittest import mock

from device_sdk import Delivery, ReconnectPolicy, Store, StorePolicy, Subscription
from device_sdk.errors import DeviceSdkError
from device_sdk.net.base import Transport

__all__ = [
    "ACKNOWLEDGED",
    "CONNECTED",
    "EXPIRED",
    "DrivenEngine",
    "EngineOptions",
    "SessionFacts",
    "begins_clean",
    "make_engine",
    "number_from_one",
    "numbers_of",
    "session_facts",
    "surroundings",
]

CONNECTED = "connected"  # Client.state
ACKNOWLEDGED, EXPIRED = "acknowledged", "expired"  # Delivery.state


def _there(*places: str) -> list[str]:
    """Return those of the places, each a "module:name", that this package has; at least one."""
    found = []
    for place in places:
        module, _, name = place.partition(":")
        try:
            if hasattr(import_module(module), name):
                found.append(place)
        except ModuleNotFoundError:
            continue
    if not found:
        raise ImportError(f"the package has none of {', '.join(places)}")
    return found


def _first(*places: str) -> str:
    """Return the first of the alternatives that this package has."""
    return _there(*places)[0]


def _found(*places: str) -> Any:
    module, _, name = _first(*places).partition(":")
    return getattr(import_module(module), name)


# How many messages fill a page, wherever that is read: each of these that the package has.
_PAGE_SIZES = (
    "device_sdk.engine.outbox:PAGE_MESSAGES",
    "device_sdk.engine.outgoing.backlog:PAGE_MESSAGES",
    "device_sdk.engine.outgoing.bounds:PAGE_MESSAGES",
    "device_sdk.engine.outgoing.outbox:PAGE_MESSAGES",
    "device_sdk.store.base:PAGE_MESSAGES",
    "device_sdk.store.database:PAGE_MESSAGES",
    "device_sdk.store.memory:PAGE_MESSAGES",
)
# Where events are logged.
_LOGS = (("device_sdk.engine.events:log", "device_sdk.engine.report:log"),)


class DrivenAttempt(Protocol):
    """One attempt to open a stream."""

    def open(self, deadline: float) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class DrivenEngine(Protocol):
    """What a shell does with an engine. ``lock`` is held for the methods that say so in the engine."""

    lock: threading.RLock
    parked: bool
    on_event: Any
    on_connect: Any
    on_disconnect: Any

    @property
    def state(self) -> str: ...
    @property
    def wants_open(self) -> bool: ...
    def adopt(self, saved: Any, store: Store, now: float, wake: Callable[[], None]) -> None: ...
    def start(self, now: float) -> None: ...
    def reconnect_now(self, now: float) -> None: ...
    def attempt(self) -> DrivenAttempt: ...
    def on_open(self, now: float) -> None: ...
    def on_open_failed(self, error: DeviceSdkError, now: float) -> None: ...
    def on_readable(self, now: float) -> None: ...
    def on_writable(self, now: float) -> None: ...
    def on_deadline(self, now: float) -> None: ...
    def flush(self, now: float) -> None: ...
    def interest(self) -> tuple[int, bool, bool] | None: ...
    def next_deadline(self) -> float | None: ...
    def has_output(self) -> bool: ...
    def wants_attention(self) -> bool: ...
    def unpark(self) -> bool: ...
    def take_callbacks(self) -> list[Any]: ...
    def handled(self, count: int) -> bool: ...
    def is_drained(self) -> bool: ...
    def connection(self) -> object | None: ...
    def stats(self) -> Any: ...
    def close_connection(self) -> None: ...
    def drop_connection(self) -> None: ...
    def finish(self) -> None: ...
    def subscribe(self, subscriptions: list[Subscription], handler: Any) -> object: ...
    def publish(
        self,
        topic_field: bytes,
        payload: bytes,
        flags: int,
        properties: bytes,
        expires_at: float | None,
        now: float,
    ) -> Delivery | None: ...


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine is set up; the names are those of the arguments of a client."""

    client_id: str
    version: str
    keep_alive: int
    session_expiry: int
    receive_maximum: int
    inflight: int
    inbox_limit: int
    ack_timeout: float | None
    reconnect: ReconnectPolicy


def make_engine(
    transport: Transport, options: EngineOptions, store: Store | None, draw: Callable[[], float]
) -> DrivenEngine:
    """Return an engine with a lock of its own; ``draw`` returns random numbers from 0 to 1."""
    connect_options = _found("device_sdk.mqtt.options:ConnectOptions")(
        options.client_id,
        version=options.version,
        keep_alive=options.keep_alive,
        session_expiry=options.session_expiry,
        receive_maximum=options.receive_maximum,
    )
    kind = _found("device_sdk.engine.engine:Engine")
    engine: Any = kind(
        threading.RLock(),
        transport,
        connect_options,
        policy=StorePolicy(),
        store=store,
        reconnect=options.reconnect,
        draw=draw,
        inflight=options.inflight,
        inbox_limit=options.inbox_limit,
        ack_timeout=options.ack_timeout,
    )
    driven: DrivenEngine = engine if hasattr(kind, "take_callbacks") else _EngineOfParts(engine)
    return driven


class _EngineOfParts:
    """An engine that is made of parts, driven like one that was all in one object."""

    #: What is asked here -> where it is there.
    _PLACES = {
        "connection": "outgoing.online",
        "notify": "events.notify",
        "on_connect": "reactions._on_connect",
        "on_disconnect": "reactions._on_disconnect",
        "on_event": "events.reporter.on_event",
        "publish": "outgoing.publish",
        "reconnect_now": "reactions.reconnect_now",
        "start": "life.start",
        "subscribe": "incoming.subscribe",
        "state": "life.state",
        "take_callbacks": "events.take",
    }
    _WITHOUT_TIME = frozenset({"reconnect_now", "start"})

    def __init__(self, engine: Any) -> None:
        object.__setattr__(self, "_engine", engine)

    def __getattr__(self, name: str) -> Any:
        found = attrgetter(self._PLACES.get(name, name))(self._engine)
        if name == "connection":
            return lambda: found
        return (lambda now: found()) if name in self._WITHOUT_TIME else found

    def __setattr__(self, name: str, value: object) -> None:
        part, _, last = self._PLACES.get(name, name).rpartition(".")
        setattr(attrgetter(part)(self._engine) if part else self._engine, last, value)

    def present_connection(self) -> Any:
        return self._engine.connection

    def finish(self) -> None:
        self._engine.end()
        self._engine.close_store()


class SessionFacts(NamedTuple):
    """What a run has to know of the client's session.

    ``generation`` is another number after the session was lost; ``changes``: the number of its last change;
    ``remembered``: packet identifiers of received QoS 2 messages that were handled and not released;
    ``asks``: whether a SUBSCRIBE or UNSUBSCRIBE waits for its answer.
    """

    known: bool
    generation: int
    changes: int
    remembered: int
    asks: bool


def session_facts(engine: DrivenEngine) -> SessionFacts:
    """Return the facts of the present session."""
    session = _session(engine)
    return SessionFacts(
        known=session.known,
        generation=session.generation,
        changes=session.change_number,
        remembered=sum(message is None for message in session.received.values()),
        asks=bool(session.requests),
    )


def begins_clean(engine: DrivenEngine) -> bool:
    """Whether the CONNECT of the present connection asks for a clean start; False: there is none."""
    if isinstance(engine, _EngineOfParts):
        connection = engine.present_connection()
        protocol = None if connection is None or connection.retired else connection.protocol
    else:
        protocol = getattr(engine, "_protocol", None)
    if protocol is None:
        return False
    return (
        protocol.handshake.clean_start if hasattr(protocol, "handshake") else protocol._clean_start
    ) is True


def number_from_one(engine: DrivenEngine) -> None:
    """Let so many messages have passed that packet identifiers begin at 1 again."""
    _session(engine).last_packet_id = 0


def numbers_of(delivery: Delivery) -> tuple[int, int]:
    """Return its place in the queue, and the number of the change that makes it durable."""
    return delivery.sequence, delivery.change


def _session(engine: DrivenEngine) -> Any:
    return engine.session  # type: ignore[attr-defined]


class _Silence:
    """A log that nobody reads: runs report thousands of things."""

    def info(self, text: str, *values: object) -> None:
        pass

    def warning(self, text: str, *values: object, error: BaseException | None = None) -> None:
        pass


@contextmanager
def surroundings(page_messages: int) -> Iterator[None]:
    """Log nothing, and let few messages fill a page of the queue, so that a run has many."""
    with ExitStack() as patches:
        for place in _there(*_PAGE_SIZES):
            patches.enter_context(mock.patch(place.replace(":", "."), page_messages))
        for places in _LOGS:
            patches.enter_context(mock.patch(_first(*places).replace(":", "."), _Silence()))
        yield
