"""The network between one client and the model broker: it delays, cuts, swallows and refuses.

Nothing is in two places: bytes to the broker wait in :attr:`Cable.up`, bytes to the client stay in the
broker's link until they arrive. So the broker's books about packet identifiers are as strict as they can be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from device_sdk.errors import ConnectFailedError, TransportClosedError
from device_sdk.net.base import Transport
from device_sdk.testing.model_broker import ModelBroker
from device_sdk.testing.model_link import BrokerLink
from tests.simulation.tape import Note
from tests.simulation.timeline import Timeline

__all__ = ["Cable", "Network", "SimulatedTransport"]

_ANY_FILE = 99
_AMPLE = 1 << 16  # bytes
_LONGEST_FAREWELL = 0.2  # seconds


class Cable:
    """One network connection, from the client's end to the broker's.

    ``gone``: the broker's end knows that it is over; ``broken``: the client's end does, or will after it has
    read ``incoming``; ``silent``: both ends wait for the other one for ever, as on a half-open connection.
    """

    def __init__(self, network: Network, link: BrokerLink, latency: float) -> None:
        self.link = link
        self.latency = latency
        self.up = bytearray()  # on the way to the broker
        self.incoming: deque[bytes | None] = deque()  # arrived at the client; None: a reset
        self.capacity = _AMPLE  # bytes on the way before send() takes no more
        self.chunk = _AMPLE  # bytes that arrive together
        self.stalled_until = 0.0
        self.epoch = 0  # the broker's session that it belongs to; 0: before CONNECT
        self.blocked = False  # send() took less than it was offered
        self.silent = self.broken = self.gone = self.closed = False
        self._network = network
        self._down = bytearray()  # left by a delivery that was limited to ``chunk``
        self._up_planned = self._down_planned = False

    @property
    def alive(self) -> bool:
        """Whether both ends believe in it."""
        return not (self.gone or self.broken or self.closed)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Take bytes from the client."""
        if self.broken:
            raise TransportClosedError("broken pipe")
        taken = min(len(data), max(0, self.capacity - len(self.up)))
        self.up += data[:taken]
        self.blocked = taken < len(data)
        self.carry_up()
        return taken

    def has_room(self) -> bool:
        """Whether send() would take something; a broken cable tells so by being writable."""
        return self.broken or len(self.up) < self.capacity

    def carry_up(self) -> None:
        """See to it that what waits will arrive at the broker."""
        if self.up and not (self._up_planned or self.gone or self.silent):
            self._up_planned = True
            self._network.timeline.after(self.latency, self._arrive_up)

    def carry_down(self) -> None:
        """See to it that the broker's output will arrive at the client."""
        if not (self._down_planned or self.gone or self.silent or self.closed):
            self._down_planned = True
            self._network.timeline.after(self.latency, self._arrive_down)

    def stall(self, seconds: float) -> None:
        """Hold everything back for a while."""
        self.stalled_until = self._network.timeline.now + seconds

    def cut(self, up: int, down: int, *, reset: bool) -> None:
        """Break it; the broker still gets ``up`` bytes of what is on its way, and the client ``down``."""
        if self.gone:
            return
        self._hand_over(bytes(self.up[:up]))
        self.gone = self.broken = True
        rest = self._take_down(down)
        if rest:
            self.incoming.append(rest)
        self.incoming.append(None if reset else b"")
        self._leave()

    def close(self) -> None:
        """The client closes its end: what it sent arrives, unless the cable is silent, or stalled for long.

        A CONNECT that arrives very late would take the session over from a later connection, with a clean
        start as its client wanted it then. Nobody can help that, and no client can be told.
        """
        if self.closed:
            return
        self.closed = self.broken = True
        stalled = self.stalled_until - self._network.timeline.now
        if stalled > _LONGEST_FAREWELL:
            self.silent = True
        if not (self.gone or self.silent):
            self._network.timeline.after(max(self.latency, stalled), self._end)

    def _end(self) -> None:
        if not (self.gone or self.silent):
            self._hand_over(bytes(self.up))
            self.gone = True
            self._leave()

    def _leave(self) -> None:
        self.up.clear()
        self.link.connection_lost(self._network.timeline.now)
        self._network.forget(self)

    def _is_stalled(self, again: Callable[[], None]) -> bool:
        wait = self.stalled_until - self._network.timeline.now
        if wait > 0:
            self._network.timeline.after(wait, again)
        return wait > 0

    def _arrive_up(self) -> None:
        if self._is_stalled(self._arrive_up):
            return
        self._up_planned = False
        if self._network.strikes(self):
            self.carry_up()
            return
        if self.gone or self.silent:
            return
        self._hand_over(bytes(self.up[: self.chunk]))
        self.carry_up()
        if self.blocked:
            self._network.wake()

    def _arrive_down(self) -> None:
        if self._is_stalled(self._arrive_down):
            return
        self._down_planned = False
        if self._network.strikes(self):
            self.carry_down()
            return
        if self.gone or self.silent or self.closed:
            return
        data = self._take_down(self.chunk)
        if data:
            self.incoming.append(data)
        if self._down:
            self.carry_down()
        elif self.link.closed:
            self.broken = self.gone = True
            self.incoming.append(b"")
            self._network.forget(self)
        if self.incoming:
            self._network.wake()

    def _hand_over(self, data: bytes) -> None:
        """Let bytes arrive at the broker."""
        del self.up[: len(data)]
        if data:
            self.link.receive_data(data, self._network.timeline.now)
            self._network.broker_acted()
            self.carry_down()

    def _take_down(self, most: int) -> bytes:
        self._down += self.link.data_to_send()
        data = bytes(self._down[:most])
        del self._down[:most]
        return data


class SimulatedTransport(Transport):
    """The client's end of one cable after the other."""

    description = "simulated"

    def __init__(self, network: Network) -> None:
        self._network = network
        self._note = network.note
        self.cable: Cable | None = None

    def open(self, deadline: float) -> None:
        """Connect at once: the time that it takes is the shell's to spend."""
        self._note("open", deadline)
        self.cable = self._network.connect()

    def fileno(self) -> int:
        """Return some number: nobody polls it."""
        return _ANY_FILE

    @property
    def readable(self) -> bool:
        """Whether recv() has something to tell."""
        return self.cable is not None and bool(self.cable.incoming)

    @property
    def writable(self) -> bool:
        """Whether send() refused something and would take it now."""
        return self.cable is not None and self.cable.blocked and self.cable.has_room()

    def recv(self) -> bytes | None:
        """Return what has arrived."""
        cable = self._opened()
        if not cable.incoming:
            return None
        data = cable.incoming.popleft()
        self._note("read", data)
        if data is None:
            raise TransportClosedError("connection reset by peer")
        return data

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Put bytes on their way."""
        cable = self._opened()
        taken = cable.send(data)
        self._note("sent", bytes(data[:taken]), len(data) - taken)
        return taken

    def wants_write(self) -> bool:
        """Whether send() refused something."""
        return self.cable is not None and self.cable.blocked

    def abort(self) -> None:
        """End the cable."""
        self._note("abort")
        self.close()

    def close(self) -> None:
        """End the cable."""
        self._note("close")
        cable, self.cable = self.cable, None
        if cable is not None:
            cable.close()

    def _opened(self) -> Cable:
        if self.cable is None:
            raise TransportClosedError("not open")
        return self.cable


class Network:
    """Makes cables, or refuses to.

    ``note`` is told each call of the transports that are made after it was set.
    ``wake``: the client is to look; ``broker_acted``: the broker has read something; ``strikes``: whether
    a fault comes in the way of a delivery, which is tried again then as far as possible.
    """

    def __init__(self, timeline: Timeline, broker: ModelBroker, dice: Random, latency: float) -> None:
        self.timeline = timeline
        self.broker = broker
        self.dice = dice
        self.latency = latency
        self.cables: list[Cable] = []
        self.refuses_until = 0.0
        self.hangs_until = 0.0
        self.receive_maximum: int | None = None  # what the broker will announce next
        self.slow: tuple[int, int] | None = None  # capacity and chunk of the next cables
        self.note: Note = _nothing
        self.wake: Callable[[], None] = _nothing
        self.broker_acted: Callable[[], None] = _nothing
        self.strikes: Callable[[Cable], bool] = _never

    def connect(self) -> Cable:
        """Return a new cable. Raises: ConnectFailedError: the broker is not there."""
        if self.timeline.now < self.refuses_until:
            raise ConnectFailedError("connection refused")
        if self.receive_maximum is not None and not self.cables:
            # Not while an older connection may still deliver: its limit was another one.
            self.broker.receive_maximum, self.receive_maximum = self.receive_maximum, None
        cable = Cable(self, self.broker.connect(), self.latency * (0.2 + self.dice.random()))
        if self.slow is not None:
            cable.capacity, cable.chunk = self.slow
        self.cables.append(cable)
        return cable

    def forget(self, cable: Cable) -> None:
        """The broker's end of it is over."""
        if cable in self.cables:
            self.cables.remove(cable)

    def carry_down(self) -> None:
        """The broker may have output on any cable."""
        for cable in self.cables:
            cable.carry_down()

    def heal(self) -> None:
        """From now on everything works."""
        self.refuses_until = self.hangs_until = 0.0
        self.slow = None
        for cable in self.cables:
            cable.stalled_until = 0.0
            cable.capacity = cable.chunk = _AMPLE


def _nothing(*_: object) -> None:
    pass


def _never(_: Cable) -> bool:
    return False
