"""Who runs callbacks: one thread at a time, without any lock held that another thread could wait for."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic

from device_sdk.mqtt.message import Message
from device_sdk.paho._message import Listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.paho._acks import Acknowledgements
    from device_sdk.paho._core import Core
    from device_sdk.paho._program import Program
    from device_sdk.paho._settings import ConnectSettings

__all__ = ["CallbackRunner"]

_FLUSH_SECONDS = 0.005  # acknowledgements and pings of a long batch leave at least this often


class CallbackRunner:
    """Runs what the engine has for the program, in the order in which it happened.

    ``todo``: what a callback that has raised has left behind; it comes first the next time. ``listener``:
    hears of published messages, and knows the thread that runs callbacks. ``acknowledges``: messages of QoS 1
    or 2 were handled, so there is something to send.
    """

    def __init__(
        self, core: Core, program: Program, acks: Acknowledgements, connect: ConnectSettings
    ) -> None:
        self.todo: deque[Any] = deque()
        self.acknowledges = False
        self.listener = Listener(core.tell)
        self._core = core
        self._program = program
        self._acks = acks
        self._connect = connect
        self._gate = threading.RLock()  # whoever holds it runs callbacks; nobody ever waits for it

    def run(self) -> None:
        """Call what waits to be called, unless somebody does already: then they go on with it."""
        core, gate, todo, listener = self._core, self._gate, self.todo, self.listener
        me = threading.get_ident()
        while (todo or core.callbacks_waiting()) and listener.thread != me:
            try:
                if not gate.acquire(False):
                    return
                listener.thread = me
                while True:
                    with core.lock:
                        todo.extend(core.take_callbacks())
                    if not todo:
                        break
                    self._run_batch()
            finally:
                if listener.thread == me:
                    listener.thread = 0
                try:
                    gate.release()
                except RuntimeError:
                    pass  # it was not taken

    def forget_acknowledgements(self) -> None:
        """What ``acknowledges`` says has been heeded."""
        self.acknowledges = False

    def _run_batch(self) -> None:
        """Call what is in the queue. What a callback raises ends this; the rest stays in the queue."""
        todo, program, has_properties = self.todo, self._program, self._connect.protocol == 5
        logs = program.wants_log()
        handled = 0
        flush_at = monotonic() + _FLUSH_SECONDS
        try:
            while todo:
                item = todo.popleft()
                if type(item) is not Message:
                    function, argument = item
                    function(argument)
                    continue
                handled += 1
                if item.token is None:
                    item.handled = True  # whatever its callback does: later ones must not wait for it
                else:
                    self._acks.keep(item.token)
                if logs:
                    program.log_received(item, has_properties)
                program.deliver(item, has_properties)
                if item.qos:
                    self.acknowledges = True
                if handled >= 64 or item.qos:
                    now = monotonic()
                    if now >= flush_at:
                        count, handled = handled, 0
                        self._settle(count)
                        flush_at = monotonic() + _FLUSH_SECONDS
        finally:
            if handled:
                with self._core.lock:
                    self._core.handled(handled)

    def _settle(self, handled: int) -> None:
        """So many messages are handled: let acknowledgements, and what else is due, leave."""
        with self._core.lock:
            self._core.handled(handled)
        self._core.keep_time()
        self._core.write()
