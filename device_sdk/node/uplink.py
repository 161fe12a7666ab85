"""The client of a node, also while the file of its queue cannot be opened.

A disk that hangs or cannot be read at the start stops no sensor: the samples wait in memory, and the file is
tried again. When it opens, a client with it takes the place of the first one, and what waited in memory is
queued there.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from device_sdk._clock import boottime
from device_sdk._folding import Folding
from device_sdk._log import Log
from device_sdk.errors import DeviceSdkError, StoreUnavailableError
from device_sdk.node.link import make_client, make_store
from device_sdk.store.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_sdk import Client, Delivery, Message
    from device_sdk.engine.events import ClientEvent
    from device_sdk.net.base import Transport
    from device_sdk.node.tables import NodeConfig
    from device_sdk.store.base import SavedMessage

__all__ = ["RETRY_S", "Uplink"]

#: Pause between two attempts to open a file that could not be opened.
RETRY_S = 30.0
# How long the first client may take to hand over what it has sent, and how often that is looked at.
_SETTLE_S = 5.0
_POLL_S = 0.1

log = Log("device_sdk.node")


class Uplink:
    """The node's client. ``on_event``: called with the events of the present one.

    ``client`` and ``transport`` are the present ones. Methods may be called from any thread.
    Raises: as :func:`make_client`, but for a disk that does not answer or cannot be read.
    """

    def __init__(self, config: NodeConfig, on_event: Callable[[ClientEvent], object]) -> None:
        self._config = config
        self._on_event = on_event
        self._store = make_store(config)
        self._memory: MemoryStore | None = None  # the queue, while its file cannot be opened
        self._lock = threading.Lock()  # while there are two clients
        self._stopped = threading.Event()
        self._round = 0  # of the present client
        self._listening: list[tuple[str, Callable[[Message], object]]] = []
        try:
            self.client, self.transport = self._make(self._store)
        except StoreUnavailableError as error:
            log.warning("%s; samples are kept in memory, and the file is tried again", error)
            self._memory = MemoryStore()
            self.client, self.transport = self._make(self._memory)

    def start(self) -> None:
        """Begin to connect, and to look for the file if it could not be opened."""
        self.client.start()
        if self._memory is not None:
            threading.Thread(target=self._look_for_file, name="device-sdk queue file", daemon=True).start()

    def publish(self, topic: str, payload: bytes, *, qos: int, retain: bool) -> Delivery:
        """As :meth:`Client.publish`."""
        if self._memory is None:
            return self.client.publish(topic, payload, qos=qos, retain=retain)
        with self._lock:
            return self.client.publish(topic, payload, qos=qos, retain=retain)

    def listen(self, topic: str, handler: Callable[[Message], object]) -> None:
        """As :meth:`Client.subscribe`; before :meth:`start`."""
        self._listening.append((topic, handler))
        self.client.subscribe(topic, on_message=handler)

    def clock_was_set(self) -> None:
        """Try to connect at once: a certificate that was not valid yet may be now."""
        self.client.reconnect_now()

    def stop(self) -> None:
        """Look for the file no more; the present client stays. Waits for a change that is going on."""
        self._stopped.set()
        with self._lock:
            pass

    def close(self, drain: float) -> int:
        """Close the client, as :meth:`Client.close`; return how many messages are lost with it."""
        dropped = self.client.stats.dropped
        self.client.close(drain=drain)
        in_memory = 0 if self._memory is None else self._memory.kept or 0
        return self.client.stats.dropped - dropped + in_memory

    def _make(self, store: Any) -> tuple[Client, Transport]:
        return make_client(self._config, partial(self._event, self._round), store=store)

    def _event(self, number: int, event: ClientEvent) -> None:
        if number == self._round:
            self._on_event(event)

    def _look_for_file(self) -> None:
        folding = Folding(log)
        while not self._stopped.wait(RETRY_S):
            try:
                found = make_client(self._config, partial(self._event, self._round + 1), store=self._store)
            except DeviceSdkError as error:
                text = "%s; samples are still kept in memory"
                folding.warning("file", str(error), text, error)
                continue
            for topic, handler in self._listening:
                found[0].subscribe(topic, on_message=handler)
            self._settle()
            with self._lock:
                if self._stopped.is_set():
                    found[0].close(drain=0)
                else:
                    self._change(*found)
            return

    def _settle(self) -> None:
        """Give what the present client has sent a moment to be acknowledged: else it is sent again."""
        until = boottime() + _SETTLE_S
        while (stats := self.client.stats).in_flight + stats.queued and boottime() < until:
            if self.client.state != "connected" or self._stopped.wait(_POLL_S):
                return

    def _change(self, client: Client, transport: Transport) -> None:
        memory, old = self._memory, self.client
        assert memory is not None
        self._round += 1  # the end of the present client is no event
        old.close(drain=0)
        moved = lost = 0
        for message in _messages(memory):
            try:
                client.publish(
                    message.topic_field[2:].decode(),
                    message.payload,
                    qos=message.flags >> 1 & 3,
                    retain=bool(message.flags & 1),
                )
                moved += 1
            except DeviceSdkError as error:
                lost += 1
                why = error
        self.client, self.transport, self._memory = client, transport, None
        log.warning(
            "%s: it is open now; %d messages that waited in memory are in it", self._config.queue.file, moved
        )
        if lost:
            log.warning("%d messages that waited in memory are lost: %s", lost, why)
        client.start()


def _messages(store: MemoryStore) -> Iterator[SavedMessage]:
    """Go through everything that a closed store has, in the order of sending, but for what has expired."""
    page = store.open().messages
    now = boottime()
    while page:
        for message in page:
            if message.expires_at is None or message.expires_at > now:
                yield message
        store.request_page(page[-1].sequence if not page[-1].packet_id else 0)
        page = store.take_page() or []
    store.close()
