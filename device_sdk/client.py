"""The client for programs with threads: publish and subscribe from anywhere, handlers in one thread."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from time import monotonic

from device_sdk._arguments import explained
from device_sdk._clock import boottime
from device_sdk._printable import printable
from device_sdk._weak import fresh, weakly
from device_sdk.client_base import BaseClient
from device_sdk.engine.arguments import disconnect_fields, seconds
from device_sdk.engine.incoming.inbox import Inbox
from device_sdk.engine.life_cycle import CONNECTED
from device_sdk.engine.reentry import refuse_reentry
from device_sdk.errors import QueueFullError, SubscribeRefused
from device_sdk.threads import CallbackThread, NetworkThread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.mqtt.message import Message
    from device_sdk.store.base import Store

__all__ = ["Client"]

_JOIN_SECONDS = 2.0
_EXIT_DRAIN_SECONDS = 1.0


class Client(BaseClient):
    """An MQTT client with a bounded queue, automatic reconnection and one callback thread.

    All methods may be called from any thread, also inside handlers; not from the handler of a signal (set a
    flag there, or start a thread): where it has interrupted this client, they raise :class:`RuntimeError`.
    After ``fork()`` the child's copy raises :class:`ClosedError`; make a new client in the child.

    The arguments are those of ``__init__``, below.
    """

    _network: NetworkThread | None = None
    _callbacks: CallbackThread | None = None
    _inbox: Inbox | None = None  # from messages() on

    # Of this class, so that help(Client) shows a user the whole client in one place.
    publish = BaseClient.publish
    subscribe = BaseClient.subscribe
    unsubscribe = BaseClient.unsubscribe

    # Life

    def start(self) -> None:
        """Begin to connect and return at once; the client keeps trying for ever. Again: nothing happens.

        Raises: ClosedError: after :meth:`close`, or in a forked child.
        """
        refuse_reentry(self._life, "start()")
        refuse_reentry(self._engine.lock, "start()")
        with self._life:
            self._check_open()
            if self._network is not None:
                return
            callbacks = CallbackThread(self._engine, lambda: self.on_message, self._wake)
            network = NetworkThread(self._engine, callbacks, self._options.connect_timeout)
            try:
                self._callbacks, self._network = callbacks, network  # before it can park: publishers wake it
                callbacks.start()
                with self._engine.lock:
                    self._engine.consumers.explain(None)
                    self._engine.life.start()
                network.start()
                _clients.add(self)
            except BaseException:  # no more threads, or of the handler of a signal
                network.cancel()
                self._stop_network(monotonic() + _JOIN_SECONDS)
                self._stop_callbacks()
                self._engine.drop_connection()
                raise

    @explained
    def connect(self, timeout: float = 10.0) -> None:
        """Start, and wait until the broker has accepted the connection.

        Raises: ConnectFailedError, ConnectRefused, RemoteProtocolError, TransportClosedError: the first
        attempt failed. TimeoutError: no outcome within ``timeout`` seconds. After an error the client has
        stopped trying; what was queued is still there, and connect() or start() may be called again.
        """
        seconds("timeout", timeout)
        life = self._engine.life
        refuse_reentry(self._engine.lock, "connect()")
        with self._engine.lock:
            if life.state == CONNECTED:
                return
            outcome = life.want_outcome(threading.Event)
        self.start()
        decided = self._engine.consumers.wait(outcome.wait, timeout)
        with self._engine.lock:
            life.forget_outcome()
            error = life.last_error
            if life.state == CONNECTED:
                return
        with self._life:
            self._check_open()
            self._stop_network(monotonic() + _JOIN_SECONDS)
            self._stop_callbacks()
        outcome.set()  # for others in connect()
        if decided and error is not None:
            raise fresh(error)
        raise TimeoutError(
            printable(f"no connection to {self._engine.transport.description} within {timeout:g} s")
        )

    def close(
        self,
        drain: float = 5.0,
        *,
        reason_code: int = 0,
        session_expiry: int | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Finish what is queued for at most ``drain`` seconds, disconnect, and end the threads.

        Without a store, what the broker has not acknowledged by then is dropped, and its deliveries raise.
        Returns within ``drain`` and about four more seconds. Idempotent. Inside a handler: the callback
        thread ends after the handler has returned.

        What the caller has taken is settled: inside a handler its message, elsewhere the last message that
        this thread has taken from :meth:`messages`. It is acknowledged, unless an exception is on its way:
        then the broker sends it again. The end of the interpreter settles nothing either.

        ``reason_code`` of DISCONNECT: 0x04 has the broker publish the will. ``session_expiry``: seconds that
        it keeps the session from now, instead of the constructor's. ``properties``: ``reason_string``, and
        ``user_property`` (pairs); left out where they would exceed what the broker accepts. All of them: MQTT
        5.0, with a connection.
        Raises: ArgumentError, ArgumentTypeError: by name, nothing happened. Source: MQTT 5.0 §3.14.2.
        """
        seconds("drain", drain, zero=True)
        goodbye = disconnect_fields(self._options, reason_code, session_expiry, properties)
        self._close(drain, goodbye, settles=True)

    def _close(self, drain: float, goodbye: tuple[int, dict[str, Any]], *, settles: bool) -> None:
        callbacks = self._callbacks
        if self._closed and callbacks is not None and callbacks.is_current():
            return  # somebody else closes and waits for this very handler
        if not self._closed:  # if it is, a signal may have interrupted the close() that waits
            refuse_reentry(self._life, "close()")
            refuse_reentry(self._engine.lock, "close()")
        with self._life:
            if self._closed:
                return
            self._closed = True
            self._engine.goodbye = goodbye
            if settles:
                self._settle_last()
            deadline = monotonic() + drain
            try:
                self._drain(deadline)
            finally:  # also when Ctrl-C ends the wait
                self._stop_network(deadline + _JOIN_SECONDS)
                self._engine.end()
                self._engine.close_store()
                self._stop_callbacks()
                _clients.discard(self)

    def __enter__(self) -> Client:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reconnect_now(self, *, replace: bool = False) -> None:
        """Connect again at once, for example when the link came up.

        A wait between two attempts ends. ``replace``: so does a connection, however alive it looks, and an
        attempt that is under way: after a change of the route, the address or the credentials. DISCONNECT is
        its last packet, if it can leave within a second, so that the broker does not publish the will; then
        session, messages in flight and subscriptions go on as after a loss. On a dead link the broker learns
        of it only by the new CONNECT, and publishes a will that has no ``will_delay_interval``.
        Source: MQTT 5.0 §3.14.4 [MQTT-3.14.4-3].
        """
        try:
            if self._reconnect_now(replace):
                self._wake()
        except BaseException:  # of the handler of a signal
            self._wake()
            raise

    def reauthenticate(self, timeout: float = 10.0) -> None:
        """Prove again who we are, on the connection as it is, and wait for the server's answer (MQTT 5.0).

        Raises: ArgumentError: the client has no ``auth``. NotConnectedError: there is no connection.
        LocalProtocolError: another one is going on. AuthenticationError: the authenticator raised.
        RefusedError, TransportClosedError, ...: the connection ended, a new one authenticates anew.
        TimeoutError: no outcome within ``timeout`` seconds; it goes on. ClosedError.
        Source: MQTT 5.0 §4.12.1.
        """
        attempt = self._reauthenticate(timeout)
        self._engine.consumers.wait(attempt.over.wait, timeout)
        attempt.outcome(timeout)

    def request(
        self,
        topic: str,
        payload: bytes | bytearray | memoryview | str | None = b"",
        timeout: float = 10.0,
        *,
        qos: int = 1,
        properties: Mapping[str, Any] | None = None,
    ) -> Message:
        """Publish a request and wait for the response to it (MQTT 5.0); from any thread, also in handlers.

        The responder publishes to the request's response topic, with its correlation data. The first request
        subscribes to the response topic. Responses reach only the request that they answer.

        Args: ``timeout`` seconds, which is also the expiry of the request; the others as :meth:`publish`.

        Raises: TimeoutError: no response in time. PublishRefused, DroppedError, SessionLostError: the request
        did not get through. SubscribeRefused: the response topic is not allowed. NotConnectedError: the
        server was asked for response information and there is no connection. ClosedError. ArgumentError,
        ArgumentTypeError: by name; ``version``: MQTT 3.x has neither response topic nor correlation data.
        Source: MQTT 5.0 §4.10.
        """
        call = self._call(topic, timeout, properties)
        try:
            call.subscription.wait(timeout)
        except (SubscribeRefused, TimeoutError) as error:
            raise call.not_asked(error) from None
        expiry = call.begin()
        try:
            delivery = self.publish(topic, payload, qos=qos, expiry=expiry, properties=call.properties)
            call.watch(delivery)
            wait, woken = self._engine.consumers.wait, call.woken
            while not call.is_over(delivery) and (left := call.left) > 0 and wait(woken.wait, left):
                woken.clear()
        finally:
            call.end()
        return call.answer()

    def messages(self) -> Inbox:
        """Return the inbox: every message that no handler takes waits there, from this call on.

        Call it before subscribing if nothing may be missed. Iterating ends when the client is closed;
        ``get(timeout)`` takes one message.

        Raises: ClosedError: after close().
        """
        with self._engine.lock:
            self._check_open()
            if self._inbox is None:
                self._inbox = Inbox(weakly(self._settle), self._engine.consumers)
                self._engine.incoming.router.open_inbox(self._inbox)
            return self._inbox

    # Helpers

    def _open_store(self, store: Store, *, made_up: bool) -> None:
        super()._open_store(store, made_up=made_up)
        _clients.add(self)  # started or not: what it queues is written before the process ends

    def _wake(self) -> None:
        network = self._network
        if network is not None:
            network.wake()

    def _settle(self, finished: int) -> None:
        callbacks = self._callbacks
        if callbacks is not None:
            callbacks.settle(finished)

    def _settle_last(self) -> None:
        """Settle the message that whoever closes the client has in hand."""
        callbacks = self._callbacks
        if callbacks is not None and callbacks.is_current():
            callbacks.settle_current()
        if self._inbox is not None:
            self._inbox.settle_last()

    def _publish_later(
        self, topic_field: bytes, payload: bytes, flags: int, block: bytes, expires_at: float | None
    ) -> Delivery:
        """Wait for room in the queue; the lock is held, and released while waiting."""
        engine, outbox = self._engine, self._engine.outgoing.outbox
        deadline = boottime() + self._policy.block_timeout
        if expires_at is not None:
            deadline = min(deadline, expires_at)  # what nobody wants any more must not be sent then
        while True:
            if not outbox.waits.wait_room(deadline - boottime()):
                raise QueueFullError(outbox.bounds.text("no room in time"))
            self._check_open()
            delivery = engine.outgoing.publish(topic_field, payload, flags, block, expires_at, boottime())
            if delivery is not None:
                return delivery

    def _drain(self, deadline: float) -> None:
        network, callbacks = self._network, self._callbacks
        if network is None or callbacks is None:
            return
        with self._engine.lock:
            self._engine.drain(await_handlers=not callbacks.is_current())
            self._engine.parked = False
        network.wake()
        wait = self._engine.consumers.wait
        if not wait(network.drained.wait, max(0.0, deadline - monotonic())):
            return  # close_connection() says the farewell behind what was sent
        with self._engine.lock:
            leaves = self._take_leave()
            if leaves:
                network.drained.clear()
        if leaves:
            network.wake()
            wait(network.drained.wait, max(0.0, deadline - monotonic()))

    def _stop_network(self, deadline: float) -> None:
        network = self._network
        if network is None:
            return
        with self._engine.lock:
            self._engine.close_connection()
        network.wake()
        if not network.join(max(0.1, deadline - monotonic())):
            self._engine.transport.abort()
            network.join(_JOIN_SECONDS)
        self._network = None

    def _stop_callbacks(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            callbacks.stop(_JOIN_SECONDS)

    def _after_fork(self) -> None:
        """In a forked child: unusable, and the connection stays the parent's."""
        for lock in (self._engine.lock, self._life):  # a thread of the parent may hold them for ever here
            lock._at_fork_reinit()  # type: ignore[attr-defined]
        self._closed = True
        network, self._network, self._callbacks = self._network, None, None
        if network is not None:
            network.disown()
        with self._engine.lock:
            self._engine.disown()


_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def _close_all() -> None:
    """At exit: a short chance for what is queued; the threads are daemons and end with the process."""
    for client in list(_clients):
        client._close(_EXIT_DRAIN_SECONDS, (0, {}), settles=False)


def _disown_all() -> None:
    for client in list(_clients):
        client._after_fork()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_disown_all)
