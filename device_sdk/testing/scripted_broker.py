"""A broker that plays a script: it expects certain packets and answers with exactly these bytes.

For cases that no real broker produces on demand: a late PUBACK, a malformed CONNACK, a close between two
bytes. A script is a list of steps, one list for each network connection, in order::

    broker = ScriptedBroker(
        [
            expect("connect", client_id="c1"),
            send(Connack()),
            expect("publish", topic="a", qos=1),
            send(lambda seen: Puback(seen.packet_id)),
            close(),
        ],
        version="5.0",
    )

Drive it in memory like a :class:`ModelBroker`, or put it on a socket with :class:`BrokerServer`. At the end
``broker.check()`` raises an AssertionError with the step that failed and its cause.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from device_sdk.errors import RemoteProtocolError
from device_sdk.mqtt.decode import decode_packet
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.packets import Packet, Pingresp
from device_sdk.testing.model_link import connect_version

__all__ = [
    "ScriptedBroker",
    "ScriptedLink",
    "Step",
    "close",
    "expect",
    "expect_close",
    "ignore",
    "reset",
    "send",
    "silence",
    "stall",
]

#: Argument of :func:`send`: a packet, raw bytes, or a function of the packet that was expected last.
Sendable: TypeAlias = "Packet | bytes | Callable[[Any], Packet | bytes]"

#: Argument of :func:`expect`: a packet's name, a whole packet, or a predicate.
Wanted: TypeAlias = "str | Packet | Callable[[Any], bool]"

_DEFAULT_VERSION = "5.0"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a script; made by the functions of this module. ``kind`` is the function's name."""

    kind: str
    what: Any = None
    fields: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        what = self.what.__name__ if callable(self.what) else self.what
        parts = [] if what is None else [what if isinstance(what, str) else repr(what)]
        parts += [f"{name}={value!r}" for name, value in self.fields.items()]
        return f"{self.kind}({', '.join(parts)})"


def expect(wanted: Wanted, **fields: Any) -> Step:
    """Wait for a packet.

    ``wanted``: its name in lower case, a whole packet to be equal to, or a predicate on the packet.
    ``fields``: only these are compared, each a field of the packet or an MQTT 5.0 property; a callable value
    is a predicate on the field.
    """
    return Step("expect", wanted, fields)


def send(*what: Sendable) -> Step:
    """Send packets or raw bytes. A callable gets the packet that was expected last and returns either."""
    return Step("send", what)


def close() -> Step:
    """Close the stream in an orderly way, after all output. Ends the script."""
    return Step("close")


def reset() -> Step:
    """Abort the stream with a TCP reset; undelivered output is lost. Ends the script."""
    return Step("reset")


def stall(seconds: float = math.inf) -> Step:
    """Neither read nor answer for this many seconds; data that arrives meanwhile is for the next steps.

    As the last step it need not be over for the script to be done.
    """
    return Step("stall", seconds)


def silence(seconds: float) -> Step:
    """Require that no packet arrives for this many seconds."""
    return Step("silence", seconds)


def expect_close() -> Step:
    """Require that the client ends the stream, with nothing but a DISCONNECT before."""
    return Step("expect_close")


def ignore() -> Step:
    """Read and drop all further packets. Ends the script."""
    return Step("ignore")


class ScriptedBroker:
    """Plays one script for each network connection, in order. Not thread-safe; :class:`BrokerServer` is.

    ``version``: of the codec, and required of CONNECT; ``None``: that of CONNECT.
    ``answer_pings``: a PINGREQ that no step expects is answered and otherwise ignored.

    ``failure``: the first failure, or ``None``. ``received``: every packet, in order. A DISCONNECT after the
    last step is fine; any other packet there is a failure, unless :func:`ignore` allows it.
    """

    def __init__(
        self, *scripts: Sequence[Step], version: str | None = None, answer_pings: bool = True
    ) -> None:
        self.scripts = scripts
        self.version = version
        self.answer_pings = answer_pings
        self.failure: str | None = None
        self.received: list[Packet] = []
        self.links: list[ScriptedLink] = []

    @property
    def done(self) -> bool:
        """Whether every step of every script has been played."""
        return len(self.links) >= len(self.scripts) and all(link.done for link in self.links)

    def connect(self) -> ScriptedLink:
        """Accept the next network connection; more connections than scripts are a failure."""
        number = len(self.links)
        link = ScriptedLink(self, number + 1, self.scripts[number] if number < len(self.scripts) else ())
        self.links.append(link)
        if number >= len(self.scripts):
            link.fail(f"there are {len(self.scripts)} scripts and no more connections were expected")
        return link

    def check(self) -> None:
        """Raise AssertionError after a failure or if a step was not played."""
        if self.failure is not None:
            raise AssertionError(self.failure)
        for link in self.links:
            if not link.done:
                raise AssertionError(f"{link.position()}: not played: {link.step}")
        if len(self.links) < len(self.scripts):
            raise AssertionError(f"{len(self.links)} of {len(self.scripts)} connections were made")

    def next_deadline(self) -> float | None:
        """Return when a :func:`stall` or :func:`silence` ends."""
        deadlines = [link.next_deadline() for link in self.links]
        return min((each for each in deadlines if each is not None), default=None)

    def handle_deadline(self, now: float) -> None:
        """Play on after a :func:`stall` or :func:`silence` has ended."""
        for link in self.links:
            link.handle_deadline(now)


class ScriptedLink:
    """One network connection of a :class:`ScriptedBroker`.

    ``closed``: the broker wants the stream closed after its output; ``reset``: at once and with a reset;
    ``reading``: whether it takes bytes off the stream now.
    """

    def __init__(self, broker: ScriptedBroker, number: int, script: Sequence[Step]) -> None:
        self.broker = broker
        self.number = number
        self.script = script
        self.closed = False
        self.reset = False
        self.reading = True
        self.seen: Packet | None = None
        self._position = 0
        self._version = broker.version
        self._buffer = bytearray()
        self._output = bytearray()
        self._until: float | None = None
        self._lost = False

    @property
    def step(self) -> Step | None:
        """The present step, ``None`` after the last."""
        return self.script[self._position] if self._position < len(self.script) else None

    @property
    def done(self) -> bool:
        """Whether every step has been played, apart from a last :func:`ignore` or :func:`stall`."""
        return all(step.kind in ("ignore", "stall") for step in self.script[self._position :])

    def position(self) -> str:
        """Name the connection and the step, counted from 1, for failures."""
        return f"connection {self.number}, step {self._position + 1} of {len(self.script)}"

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the client and play on. ``now`` in seconds, on any clock."""
        if self.closed:
            return
        self._buffer += data
        self._play(now)

    def data_to_send(self) -> bytes:
        """Return and forget the output so far."""
        output = bytes(self._output)
        self._output.clear()
        return output

    def connection_lost(self, now: float) -> None:
        """Take the end of the stream. A script that still waits for packets has failed."""
        if self._lost:
            return
        self._lost = True
        # The end of the stream ends a stall: packets before it may still be expected.
        self._play(now)
        if not self.closed and not self.done:
            self.fail(f"{self.step} is still to be played and the client ended the stream")
        self.closed = True

    def next_deadline(self) -> float | None:
        """Return the end of the present stall or silence, or ``None``."""
        return None if self.closed else self._until

    def handle_deadline(self, now: float) -> None:
        """Play on if the time has passed."""
        if not self.closed and self._until is not None and now >= self._until:
            self._play(now)

    def fail(self, problem: str) -> None:
        """Record the first failure, and close."""
        if self.broker.failure is None:
            self.broker.failure = f"{self.position()}: {problem}"
        self.closed = True

    def _play(self, now: float) -> None:
        """Play steps until one has to wait."""
        while not self.closed:
            step = self.step
            played = _PLAYERS[step.kind](self, step, now) if step is not None else self._after_script()
            if not played:
                return
            self._position += step is not None

    def _play_expect(self, step: Step, now: float) -> bool:
        taken = self._next_packet()
        if taken is None:
            return False
        packet, raw = taken
        if packet.type == "pingreq" and self.broker.answer_pings and not _fits(step, packet):
            self._output += encode_packet(Pingresp(), self._codec_version())
            return self._play_expect(step, now)
        problem = _difference(step, packet)
        if problem is not None:
            self.fail(f"expected {step}, {problem}\n  got {packet!r}\n  hex {raw.hex(' ')}")
            return False
        self.seen = packet
        return True

    def _play_send(self, step: Step, now: float) -> bool:
        if self._lost:
            return False
        for what in step.what:
            made = what(self.seen) if callable(what) else what
            self._output += made if isinstance(made, bytes) else encode_packet(made, self._codec_version())
        return True

    def _play_close(self, step: Step, now: float) -> bool:
        self.closed = True
        return True

    def _play_reset(self, step: Step, now: float) -> bool:
        self._output.clear()
        self.closed = self.reset = True
        return True

    def _play_stall(self, step: Step, now: float) -> bool:
        over = self._wait(step.what, now)
        self.reading = over
        return over

    def _play_silence(self, step: Step, now: float) -> bool:
        over = self._wait(step.what, now)
        return self._nothing_arrived(step) and over

    def _play_expect_close(self, step: Step, now: float) -> bool:
        return self._nothing_arrived(step, "disconnect") and self._lost

    def _play_ignore(self, step: Step, now: float) -> bool:
        self._buffer.clear()
        return False

    def _after_script(self) -> bool:
        self._nothing_arrived(None, "disconnect")
        return False

    def _wait(self, seconds: float, now: float) -> bool:
        """Start or continue to wait. Returns: whether the time has passed or the stream has ended."""
        if self._until is None:
            self._until = now + seconds
        if now < self._until and not self._lost:
            return False
        self._until = None
        return True

    def _nothing_arrived(self, step: Step | None, *allowed: str) -> bool:
        """Read the packets that have arrived: PINGREQ is answered, a packet that is not allowed fails."""
        while (taken := self._next_packet()) is not None:
            packet, raw = taken
            if packet.type == "pingreq" and self.broker.answer_pings:
                self._output += encode_packet(Pingresp(), self._codec_version())
            elif packet.type not in allowed:
                wanted = "nothing after the script" if step is None else str(step)
                self.fail(f"expected {wanted}\n  got {packet!r}\n  hex {raw.hex(' ')}")
        return not self.closed

    def _codec_version(self) -> str:
        return self._version or _DEFAULT_VERSION

    def _next_packet(self) -> tuple[Packet, bytes] | None:
        data = bytes(self._buffer)
        if not data or self.closed:
            return None
        if data[0] == 0x10:
            version = connect_version(data)
            if version is None:
                return None
            self._version = self._version or version
            if version != self._version:
                self.fail(f"CONNECT is for MQTT {version or 'unknown'}, not {self._version}")
                return None
        try:
            decoded = decode_packet(data, self._codec_version())
        except RemoteProtocolError as error:
            self.fail(f"expected {self.step}\n  got no packet: {error}\n  hex {data.hex(' ')}")
            return None
        if decoded is None:
            return None
        packet, used = decoded
        del self._buffer[:used]
        self.broker.received.append(packet)
        return packet, data[:used]


def _fits(step: Step, packet: Packet) -> bool:
    return _difference(step, packet) is None


def _difference(step: Step, packet: Packet) -> str | None:
    """Return the difference of a packet from an expectation, ``None`` if it fits."""
    wanted = step.what
    if isinstance(wanted, str):
        if packet.type != wanted:
            return f"it is a {packet.type.upper()}"
    elif isinstance(wanted, Packet):
        if packet != wanted:
            return "it differs"
    elif not wanted(packet):
        return "the predicate says no"
    for name, value in step.fields.items():
        got = _field(packet, name)
        if not (value(got) if callable(value) else got == value):
            return f"{name} is {got!r}"
    return None


def _field(packet: Packet, name: str) -> Any:
    if name in packet.field_names:
        return getattr(packet, name)
    properties: dict[str, Any] = getattr(packet, "properties", {})
    return properties.get(name)


_PLAYERS: dict[str, Callable[[ScriptedLink, Step, float], bool]] = {
    "expect": ScriptedLink._play_expect,
    "send": ScriptedLink._play_send,
    "close": ScriptedLink._play_close,
    "reset": ScriptedLink._play_reset,
    "stall": ScriptedLink._play_stall,
    "silence": ScriptedLink._play_silence,
    "expect_close": ScriptedLink._play_expect_close,
    "ignore": ScriptedLink._play_ignore,
}
