"""The engine behind a client, and who may use it when; publishing alone is in :mod:`._outgoing`.

Reading and writing belong to one thread at a time. A publisher that finds another thread at it leaves the
writing to that thread, which looks again when it has finished.
"""

from __future__ import annotations

import select
import threading
import weakref
from time import monotonic

from device_sdk._clock import boottime
from device_sdk._weak import weakly
from device_sdk.engine.reentry import has_lock, refuse_reentry
from device_sdk.errors import TransportError
from device_sdk.mqtt.events import ConnectionEnded
from device_sdk.mqtt.protocol import CONNECTED, DISCONNECTING
from device_sdk.paho._engine import PahoEngine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.engine.connection import Connection
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.mqtt.message import AckToken
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.session import Session
    from device_sdk.net.base import Transport
    from device_sdk.paho._reports import Reports
    from device_sdk.store.base import SavedSession, Store

__all__ = ["Core"]

_LONGEST_WAIT = 3600.0
_LAST_ANSWERS_SECONDS = 1.0


class Core:
    """One engine, its lock, and the turns of reading and writing.

    ``lock`` guards the engine. The methods take it themselves, unless they say that it is held.
    """

    def __init__(
        self, store: Store | None, reports: Reports, wants_log: Callable[[], bool], wake: Callable[[], None]
    ) -> None:
        self.lock = threading.RLock()  # see device_sdk.engine.reentry
        self.engine = engine = _make_engine(self.lock, store, reports, wants_log)
        engine.consumers.bind(wake)
        self._wake = wake
        self._io = threading.RLock()
        # The engine's own, as methods around them would be calls more in every turn of a loop.
        self.begin = engine.begin
        self.leave = engine.leave
        self.take_retired = engine.take_retired
        self.take_callbacks = engine.events.take  # the lock is held
        self.handled = engine.handled  # the lock is held
        self.interest = engine.interest
        self.tell = engine.reactions.tell

    def __del__(self) -> None:
        if hasattr(self, "engine"):  # else the constructor raised
            self.engine.close_stream()

    # The store

    def restore(self, saved: SavedSession, store: Store, fields: ConnectOptions) -> None:
        """Go on with what an earlier process has left in the store, which is closed with this object."""
        engine = self.engine
        engine.adopt(saved, fields.client_id, fields.version, boottime())
        store.on_progress = weakly(self.on_store_progress)
        weakref.finalize(self, _close_store, store, engine.session, self.lock)

    def on_store_progress(self) -> None:
        """The store moved on."""
        with self.lock:
            self.engine.outgoing.store_progressed()
            wake = self.engine.parked
        if wake:
            self._wake()

    # Connections

    def say_goodbye(self, reason_code: int, properties: dict[str, Any]) -> bool:
        """Queue DISCONNECT as the last packet; return whether a loop is to be woken. The lock is held."""
        engine = self.engine
        if engine.open_connection is not None:
            engine.handled(0)  # in on_message: what it was called for is acknowledged first
            engine.close_connection(reason_code, properties, boottime())
        return engine.parked

    def has_said_goodbye(self, retired: Connection) -> bool:
        """Whether a connection that has ended did so by our DISCONNECT."""
        return retired.protocol.state == DISCONNECTING

    def close(self, retired: Connection, *, hears_out: bool) -> None:
        """Close the stream of a connection that has ended, after a DISCONNECT with the reason.

        ``hears_out``: let the broker answer what was sent, and close first; wait a second for it at most.
        """
        with self._io:
            if hears_out and self.engine.answers_due:
                _hear_out(retired.stream.transport, monotonic() + _LAST_ANSWERS_SECONDS)
            left = retired.protocol.state <= CONNECTED
            retired.stream.close([] if left else retired.protocol.data_to_send(0, boottime()))

    # The turns of a loop

    def read(self) -> None:
        """Take in what has come: the stream is readable."""
        with self._io:
            self.engine.on_readable(boottime())

    def write_on(self, *, waits: bool) -> None:
        """Send more: the stream is writable. Without ``waits`` not while another thread is at it."""
        self._step(self.engine.on_writable, waits=waits)

    def write(self) -> None:
        """Send what there is, unless another thread is at it: it looks again when it has finished."""
        engine, io = self.engine, self._io
        while not io._is_owned():  # type: ignore[attr-defined]
            try:  # _step() written out: a call less
                if not io.acquire(False):
                    return
                engine.flush(boottime())
            finally:
                try:
                    io.release()
                except RuntimeError:
                    pass  # it was not taken
            with self.lock:
                if not engine.has_output():
                    return

    def keep_time(self) -> None:
        """Do what is due: send a ping, or end a connection whose broker does not answer."""
        with self.lock:
            deadline = self.engine.next_deadline()
        if deadline is not None and boottime() >= deadline:
            self._step(self.engine.on_deadline, waits=False)

    def _step(self, step: Callable[[float], None], *, waits: bool) -> None:
        """Take a step of the engine, unless this thread is reading or writing already, further out.

        Without ``waits`` not while another thread is at it, either.
        """
        io = self._io
        if has_lock(io):
            return
        try:
            if io.acquire(waits):
                step(boottime())
        finally:
            try:
                io.release()
            except RuntimeError:
                pass  # it was not taken

    def wait(self, poll: Any, timeout: float) -> tuple[list[tuple[int, int]], bool]:
        """Wait at most ``timeout`` seconds; meanwhile, whoever adds output wakes the loop.

        Returns: the descriptors that are ready, as ``poll`` returns them, and whether to call
        :meth:`keep_time`.
        """
        engine = self.engine
        with self.lock:
            busy = engine.has_output() or bool(engine.events.queue)
            deadline = engine.next_deadline()
            engine.parked = not busy
        if deadline is not None:
            timeout = min(timeout, max(0.0, deadline - boottime()))
        # Rounded up: rounded down, the last millisecond would be spent in a loop.
        ready = poll.poll(0 if busy else int(min(timeout, _LONGEST_WAIT) * 1000 + 0.999))
        engine.parked = False
        return ready, deadline is not None

    def callbacks_waiting(self) -> bool:
        """Whether :meth:`take_callbacks` would return something."""
        return bool(self.engine.events.queue)

    def is_parked(self) -> bool:
        """Whether a loop waits that has to be woken.

        That it has been woken is for the loop to say: a signal between asking and waking loses nothing.
        """
        with self.lock:
            return self.engine.parked

    # Questions

    def has_output(self) -> bool:
        """Whether :meth:`write` has something to do."""
        with self.lock:
            return self.engine.has_output()

    def wants_write(self) -> bool:
        """Whether there is something to send, also when the stream does not take it at the moment."""
        with self.lock:
            return self.engine.wants_write()

    def is_idle(self) -> bool:
        """Whether nothing waits to leave or to be acknowledged."""
        with self.lock:
            return self.engine.idle

    def outstanding(self) -> int:
        """Return the number of messages of QoS 1 and 2 that the broker has not acknowledged."""
        with self.lock:
            return self.engine.outstanding

    def in_flight(self) -> int:
        """Return the number of those that were sent."""
        with self.lock:
            return len(self.engine.session)

    # Messages

    def acknowledge_by_hand(self, acknowledge: Callable[[AckToken], object] | None) -> None:
        """Let the program acknowledge messages, or not any more."""
        with self.lock:
            self.engine.incoming.acknowledge_by_hand(acknowledge)

    def request(self, name: str, wanted: list[Any], properties: dict[str, Any]) -> tuple[int, bool] | None:
        """Queue SUBSCRIBE or UNSUBSCRIBE, by the name of the protocol's method.

        Returns: its mid, and whether a loop has to be woken; ``None`` without a connection.
        """
        refuse_reentry(self.lock, f"{name}()")
        with self.lock:
            connection = self.engine.open_connection
            if connection is None:
                return None
            mid: int = getattr(connection, name)(wanted, properties)
            return mid, self.engine.parked

    def drop_outgoing(self) -> list[Delivery]:
        """Forget what the broker has not acknowledged; return it."""
        with self.lock:
            return self.engine.drop_outgoing()


def _hear_out(transport: Transport, until: float) -> None:
    """Read on until the peer closes, at the latest at a monotonic time.

    The kernel answers input that comes after the close with a reset, and a reset can overtake what was sent.
    """
    poll = select.poll()
    try:
        poll.register(transport.fileno(), select.POLLIN)
        while (data := transport.recv()) != b"":
            seconds = until - monotonic()
            if seconds <= 0 or (data is None and not poll.poll(seconds * 1000)):
                return
    except TransportError:
        pass


def _make_engine(
    lock: threading.RLock, store: Store | None, reports: Reports, wants_log: Callable[[], bool]
) -> PahoEngine:
    """Return an engine that tells ``reports``, and that nothing it tells keeps."""

    def tell(event: Any) -> Any:
        if type(event) is not ConnectionEnded:
            return reports.tell(event)
        teller = engine()
        return reports.tell_ended(event, 0 if teller is None else teller.goodbye_size)

    made = PahoEngine(lock, store, tell, wants_log)
    engine = weakref.ref(made)
    return made


def _close_store(store: Store, session: Session, lock: threading.RLock) -> None:
    """Hand over what is left, and where the packet identifiers are to go on."""
    with lock:
        session.record(("reserved", session.last_packet_id))
        changes = session.take_changes()
    if changes:
        store.submit(changes, session.change_number)
    store.close()
