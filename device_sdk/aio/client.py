"""The client for programs with an event loop: publish, subscribe, handlers and an inbox without threads."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from asyncio import get_running_loop, sleep
from functools import partial

from device_sdk._clock import boottime
from device_sdk._printable import printable
from device_sdk._weak import fresh, weakly
from device_sdk.aio.callbacks import Callbacks
from device_sdk.aio.driver import LoopDriver
from device_sdk.aio.events import LoopConsumers, LoopEvent
from device_sdk.aio.handles import AsyncDelivery, AsyncRequest
from device_sdk.aio.inbox import AsyncInbox
from device_sdk.aio.waits import LoopWaits
from device_sdk.client_base import BaseClient
from device_sdk.engine.arguments import disconnect_fields, seconds
from device_sdk.engine.life_cycle import CONNECTED
from device_sdk.errors import QueueFullError, SubscribeRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Self

    from device_sdk.client_base import Handler
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.mqtt.message import Message, Subscription

__all__ = ["AsyncClient"]

_BURST = 128  # messages that a task may publish before it lets other tasks and the network run
_GOODBYE_SECONDS = 1.0  # how long a DISCONNECT may take to leave
_SHORTEST_EXPIRY = 0.001  # seconds, of a message that has just found room
_HANDLER_SECONDS = 2.0  # time for a handler to end when the client is closed


class AsyncClient(BaseClient):
    """A client for one event loop, asyncio or uvloop: :class:`~device_sdk.client.Client` with ``await``.

    It belongs to the loop in which it is first used, and to that loop's thread. From other threads use
    ``asyncio.run_coroutine_threadsafe(client.publish(...), loop)``; in another loop every method raises
    :class:`RuntimeError`. After ``fork()`` the child's copy raises :class:`ClosedError`.

    Hooks and handlers may be plain functions or coroutine functions. They run in one task, one at a time, in
    the order of arrival, and may use the client; an exception in one is reported by event and log. When the
    loop ends with the client still open (:func:`asyncio.run` cancels that task then), the client sends
    DISCONNECT and closes at once.

    The arguments are those of ``__init__``, below. Opening a store may take some milliseconds, with a disk
    that hangs ``open_timeout``, and happens in the constructor.
    """

    _consumers_class = LoopConsumers
    _driver: LoopDriver | None = None
    _callbacks: Callbacks | None = None  # from start() on
    _inbox: AsyncInbox | None = None
    _over: asyncio.Event | None = None  # made by close(); set when that has ended
    _published = 0  # messages since the last pause of a publishing task

    # Publish and subscribe

    async def publish(  # type: ignore[override]  # it is awaited
        self,
        topic: str,
        payload: bytes | bytearray | memoryview | str | None = b"",
        *,
        qos: int = 0,
        retain: bool = False,
        expiry: float | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> AsyncDelivery:
        """Publish a message, now or as soon as there is a connection and room in the window.

        Suspends the task only once in 128 messages, before it accepts the message, and while the queue is
        full under the policy ``block``. If it is cancelled, the message was not accepted.
        Arguments and errors are those of :meth:`Client.publish`.

        Returns: the delivery, to wait for or to ignore.
        """
        driver = self._driver
        if driver is None or get_running_loop() is not driver.loop:
            self._bind()
        self._published += 1
        if self._published > _BURST:
            self._published = 0
            await sleep(0)
        try:
            delivery = _publish(
                self, topic, payload, qos=qos, retain=retain, expiry=expiry, properties=properties
            )
        except _NoRoomError:
            again = partial(_publish, self, topic, payload, qos=qos, retain=retain, properties=properties)
            delivery = await self._publish_with_room(again, expiry)
        sent_qos0 = self._sent_qos0
        return sent_qos0 if delivery is sent_qos0.delivery else AsyncDelivery(self._waits, delivery)

    def subscribe(  # type: ignore[override]  # the answer is awaited
        self,
        topic: str | Subscription | list[Subscription],
        qos: int = 0,
        *,
        on_message: Handler | None = None,
        no_local: bool = False,
        retain_as_published: bool = False,
        retain_handling: int = 0,
        properties: Mapping[str, Any] | None = None,
    ) -> AsyncRequest:
        """Subscribe, now and again after every reconnect; ``await`` it for the broker's answer.

        ``await client.subscribe("cmd/#")`` returns the granted QoS values or raises
        :class:`SubscribeRefused`; ``await client.subscribe("cmd/#").wait(10)`` waits for at most 10 s.
        The SUBSCRIBE is sent even without ``await``. Arguments and errors are those of
        :meth:`Client.subscribe`; ``on_message`` may be a coroutine function.
        """
        self._bind()
        request = super().subscribe(
            topic,
            qos,
            on_message=on_message,
            no_local=no_local,
            retain_as_published=retain_as_published,
            retain_handling=retain_handling,
            properties=properties,
        )
        return AsyncRequest(request, self._consumers)

    def unsubscribe(  # type: ignore[override]  # the answer is awaited
        self, topic: str | list[str], *, properties: Mapping[str, Any] | None = None
    ) -> AsyncRequest:
        """Unsubscribe from one or more topic filters; ``await`` it as :meth:`subscribe`.

        Raises: ArgumentError, ArgumentTypeError: by name. ClosedError: after close().
        """
        self._bind()
        return AsyncRequest(super().unsubscribe(topic, properties=properties), self._consumers)

    def messages(self) -> AsyncInbox:
        """Return the inbox. From this call on it receives every message for which there is no handler.

        Call it before subscribing if no message may be missed. ``async for`` over it ends when the client is
        closed; ``await inbox.get(timeout)`` takes one message. Several tasks may share it.

        Raises: ClosedError: after close().
        """
        self._bind()
        self._check_open()
        if self._inbox is None:
            self._inbox = AsyncInbox(weakly(self._settle), self._consumers)
            self._engine.incoming.router.open_inbox(self._inbox)
        return self._inbox

    async def request(
        self,
        topic: str,
        payload: bytes | bytearray | memoryview | str | None = b"",
        timeout: float = 10.0,
        *,
        qos: int = 1,
        properties: Mapping[str, Any] | None = None,
    ) -> Message:
        """Publish a request and wait for the response to it (MQTT 5.0), also in handlers.

        Arguments and errors are those of :meth:`Client.request`. Several requests may wait at once.
        Source: MQTT 5.0 §4.10.
        """
        self._bind()
        call = self._call(topic, timeout, properties)
        try:
            await AsyncRequest(call.subscription, self._consumers).wait(timeout)
        except (SubscribeRefused, TimeoutError) as error:
            raise call.not_asked(error) from None
        expiry = call.begin()
        try:
            published = await self.publish(topic, payload, qos=qos, expiry=expiry, properties=call.properties)
            call.watch(published.delivery)
            while not call.is_over(published.delivery) and (left := call.left) > 0:
                await self._consumers.until(call.woken, left)
                call.woken.clear()
        finally:
            call.end()
        return call.answer()

    # Life

    async def start(self) -> None:
        """Begin to connect and return at once; the client retries for ever. A second call has no effect.

        Raises: ClosedError: after :meth:`close`, or in a forked child.
        """
        driver = self._bind()
        self._check_open()
        if self._callbacks is not None:
            return
        callbacks = Callbacks(self._engine, lambda: self.on_message, self._settle, self._loop_ends)
        callbacks.start()
        self._callbacks = callbacks
        driver.serve(callbacks.wake)
        with self._engine.lock:
            self._engine.consumers.explain(None)
            self._engine.life.start()
        driver.schedule()
        _clients.add(self)

    async def connect(self, timeout: float = 10.0) -> None:
        """Start, and wait until the broker has accepted the connection.

        Raises: ConnectFailedError, ConnectRefused, RemoteProtocolError, TransportClosedError: the first
        attempt failed. TimeoutError: no outcome within ``timeout`` seconds. After an error or a cancellation
        the client has stopped trying; queued messages are still there, and connect() or start() may be called
        again.
        """
        seconds("timeout", timeout)
        self._bind()
        life = self._engine.life
        with self._engine.lock:
            if life.state == CONNECTED:
                return
            outcome: Any = life.want_outcome(self._consumers.event)
        await self.start()
        try:
            await self._consumers.until(outcome, timeout)
        finally:
            with self._engine.lock:
                life.forget_outcome()
                decided, error, connected = outcome.is_set(), life.last_error, life.state == CONNECTED
            if not connected:
                callbacks = self._stop_connecting()
                outcome.set()  # for others in connect()
        if connected:
            return
        if callbacks is not None:
            await callbacks.stop(_HANDLER_SECONDS)
        self._check_open()
        if decided and error is not None:
            raise fresh(error)
        raise TimeoutError(
            printable(f"no connection to {self._engine.transport.description} within {timeout:g} s")
        )

    async def close(
        self,
        drain: float = 5.0,
        *,
        reason_code: int = 0,
        session_expiry: int | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        """Send queued messages for at most ``drain`` seconds, disconnect, and close the client.

        Without a store, messages that the broker has not acknowledged by then are dropped, and their
        deliveries raise. Returns within ``drain`` and about four more seconds; a handler that is still
        running then is cancelled. Idempotent. If it is cancelled, the client is closed at once, as with
        ``drain=0``. If a handler calls it, that handler goes on. What the caller has taken is settled, as by
        :meth:`Client.close`: the message of the handler, or the last one that this task has taken.

        Arguments and errors are those of :meth:`Client.close`. Source: MQTT 5.0 §3.14.2.
        """
        seconds("drain", drain, zero=True)
        goodbye = disconnect_fields(self._options, reason_code, session_expiry, properties)
        callbacks = self._callbacks
        in_handler = callbacks is not None and callbacks.is_current()
        if self._closed:
            if self._over is not None and not in_handler:
                await self._over.wait()
            return
        driver = self._bind()
        self._closed = True
        self._over = asyncio.Event()
        self._engine.goodbye = goodbye
        if callbacks is not None and in_handler:
            callbacks.settle_current()
        if self._inbox is not None:
            self._inbox.settle_last()
        try:
            try:
                if callbacks is not None:
                    await self._leave(driver, drain, in_handler=in_handler)
            finally:
                store_closed = self._end()
            await store_closed.wait()
            if callbacks is not None:
                await callbacks.stop(_HANDLER_SECONDS)
        finally:
            self._callbacks = None  # breaks a cycle, so that this client is freed when it is dropped
            self._over.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def reconnect_now(self, *, replace: bool = False) -> None:
        """Connect again at once, as :meth:`Client.reconnect_now`. Does not wait."""
        driver = self._bind()
        self._reconnect_now(replace)
        driver.schedule()

    async def reauthenticate(self, timeout: float = 10.0) -> None:
        """Authenticate again on the present connection and wait for the broker's answer (MQTT 5.0).

        Errors are those of :meth:`Client.reauthenticate`. The authenticator runs in the loop: it has to
        return soon. If it is cancelled, the re-authentication goes on. Source: MQTT 5.0 §4.12.1.
        """
        self._bind()
        attempt = self._reauthenticate(timeout)
        await self._consumers.until(attempt.over, timeout)
        attempt.outcome(timeout)

    # The hooks of the base class

    def _wake(self) -> None:
        driver = self._driver
        if driver is not None:
            driver.wake()

    def _settle(self, finished: int) -> None:
        driver = self._driver
        if driver is not None:
            driver.finished(finished)

    def _publish_later(
        self, topic_field: bytes, payload: bytes, flags: int, block: bytes, expires_at: float | None
    ) -> Delivery:
        raise _NoRoomError

    # Helpers

    @property
    def _consumers(self) -> LoopConsumers:
        consumers = self._engine.consumers
        assert isinstance(consumers, LoopConsumers)
        return consumers

    def _bind(self) -> LoopDriver:
        """Belong to the running loop. Raises: RuntimeError: there is none, or it is another one."""
        loop = get_running_loop()
        driver = self._driver
        if driver is None:
            self._consumers.bind_loop(loop)
            self._room = asyncio.Lock()  # of the tasks waiting for room, the first one checks
            driver = self._driver = LoopDriver(self._engine, loop, self._options.connect_timeout)
            self._waits = LoopWaits(self._engine, driver, self._consumers)
            self._sent_qos0 = AsyncDelivery(self._waits, self._engine.outgoing.outbox.sent_qos0)
            driver.schedule()
        elif loop is not driver.loop:
            self._check_open()  # in a forked child this raises with a better reason
            raise RuntimeError(f"{self!r} belongs to another event loop, in which it was first used")
        return driver

    async def _publish_with_room(self, publish: Callable[..., Delivery], expiry: float | None) -> Delivery:
        """Wait for room in the queue, at most until the expiry, behind the tasks that are waiting already."""
        driver = self._bind()
        timeout = self._policy.block_timeout
        expires_at = boottime() + (timeout if expiry is None else expiry)
        if expiry is not None:
            timeout = min(timeout, expiry)
        try:
            with self._consumers.blocking():
                async with asyncio.timeout(timeout), self._room:
                    while True:
                        self._check_open()
                        try:
                            if expiry is None:
                                return publish()
                            return publish(expiry=max(_SHORTEST_EXPIRY, expires_at - boottime()))
                        except _NoRoomError:
                            await driver.next_turn()
        except TimeoutError:
            raise QueueFullError(f"the queue had no room for the message within {timeout:g} s") from None

    def _stop_connecting(self) -> Callbacks | None:
        """After a failed connect(), go back to before start(). Returns: callbacks still to be run."""
        callbacks, self._callbacks = self._callbacks, None
        if self._closed or callbacks is None:
            return None
        if self._driver is not None:
            self._driver.serve(None)
            self._driver.drop()
        callbacks.finish()
        return callbacks

    async def _leave(self, driver: LoopDriver, drain: float, *, in_handler: bool) -> None:
        """Wait until everything is sent and answered, then until DISCONNECT has left."""
        engine = self._engine
        with self._engine.lock:
            engine.drain(await_handlers=not in_handler)
            engine.handled(0)  # what close() has settled leaves before DISCONNECT
        driver.schedule()
        deadline = boottime() + drain
        if await driver.until(engine.is_drained, drain):
            with self._engine.lock:
                leaves = self._take_leave()
            if leaves:
                driver.schedule()
                await driver.until(engine.is_drained, deadline - boottime())
        with self._engine.lock:
            engine.close_connection()
        driver.schedule()
        await driver.until(lambda: not engine.has_connection(), _GOODBYE_SECONDS)

    def _end(self) -> LoopEvent:
        """The part of close() that never waits. Returns: an event, set when the store is closed.

        A thread closes the store: it cannot be cancelled, and the end of the process waits for it.
        """
        self._end_engine()
        closed = self._consumers.event()

        def close_store() -> None:
            try:
                self._engine.close_store()
            finally:
                closed.set()

        if self._engine.outgoing.journal is None:
            closed.set()
            return closed
        try:
            threading.Thread(target=close_store, name="device-sdk store close").start()
        except RuntimeError:  # no more threads
            close_store()
        return closed

    def _end_engine(self) -> None:
        if self._driver is not None:
            self._driver.drop()
            self._engine.end()
            self._driver.end()
        if self._callbacks is not None:
            self._callbacks.finish()
        _clients.discard(self)

    def _loop_ends(self) -> None:
        """Close the client after its callback task was cancelled, without waiting."""
        if not self._closed:
            self._closed = True
            self._end_engine()
            self._engine.close_store()

    def _after_fork(self) -> None:
        """In a forked child: make the client unusable; the connection stays the parent's."""
        self._engine.lock._at_fork_reinit()  # type: ignore[attr-defined]
        self._closed = True
        if self._driver is not None:
            self._driver.disown()
        with self._engine.lock:
            self._engine.disown()


class _NoRoomError(QueueFullError):
    """The queue is full, and the policy is to wait."""


_publish = BaseClient.publish
_clients: weakref.WeakSet[AsyncClient] = weakref.WeakSet()


def _disown_all() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_disown_all)
