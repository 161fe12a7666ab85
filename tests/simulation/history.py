"""What was promised and what happened, and the invariants between them.

I2: QoS 2 exactly once while the session lives, in both directions. I3: first arrivals per topic in publish
order. I4: what the broker's books say about packet identifiers and the window. I8: a clock that leaps expires
only what has an expiry. I9: attempts to connect are bounded. And: what was accepted and is durable arrives.

Payloads are unique, so that a message is known by its payload.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from device_sdk import Delivery
from tests.simulation.layout import ACKNOWLEDGED, EXPIRED

__all__ = ["EXACTLY_ONCE_TOPIC", "Command", "History", "Promise", "SimulationFailure"]

#: Only QoS 2 goes here: a restart repeats these with DUP, a QoS 1 message may go as a new one.
EXACTLY_ONCE_TOPIC = "once"

#: Attempts to connect of one process: in a minute, and in an hour.
_MOST_PER_MINUTE = 30
_MOST_PER_HOUR = 600


class SimulationFailure(AssertionError):
    """An invariant does not hold."""


def require(condition: object, problem: str) -> None:
    """Raise SimulationFailure with the problem unless the condition is true."""
    if not condition:
        raise SimulationFailure(problem)


@dataclass(slots=True)
class Promise:
    """A message that the application has published, and what we know of it."""

    payload: bytes
    topic: str
    qos: int
    index: int  # among all, in publish order
    sequence: int
    change: int  # the number of the change that makes it durable
    delivery: Delivery | None  # None: the application did not keep it
    expires_at: float | None = None
    broken_off: bool = False  # a crash came before it was durable: it may be lost
    forgotten: bool = False  # a crash came before its end was durable: QoS 1 may come again
    restarted: bool = False  # the process that made ``delivery`` is gone
    ended_at: int | None = None  # the number of the change that says so
    last_epoch: int = 0  # the session in which it arrived last; 0: never

    @property
    def status(self) -> str:
        """What the client says of it; empty if nobody asks."""
        return "" if self.delivery is None else self.delivery.state


@dataclass(slots=True)
class Command:
    """A message for the client."""

    payload: bytes
    topic: str
    qos: int
    index: int
    received_at: int | None = None  # the number of the change that says so (QoS 2)
    times: int = 0  # handled
    may_repeat: bool = False


class History:
    """Everything that happened in one run. Every method raises SimulationFailure if it must not have."""

    def __init__(self) -> None:
        self.promises: dict[bytes, Promise] = {}
        self.commands: dict[bytes, Command] = {}
        self.crashed = False
        self.epoch = 0  # counts the broker's sessions
        self.epoch_lives = False
        self.unnoticed = 0  # commands that MQTT cannot save: see connected()
        self._open: dict[bytes, Promise] = {}  # those whose end is not durable yet
        self._by_sequence: dict[int, Promise] = {}
        self._last_up: dict[str, int] = {}
        self._last_down: dict[str, int] = {}
        self._outstanding: dict[bytes, Command] = {}  # commands that have to be handled
        self._arrived_with: dict[
            int, Command
        ] = {}  # packet identifier -> QoS 2 command that came with it last
        self._in_hand: set[bytes] = set()  # delivered and not handled
        self._unrecorded: dict[bytes, Command] = {}  # handled QoS 2 commands without a change that says so
        self._unwritten: dict[bytes, Command] = {}  # handled QoS 2 commands whose change may not be durable
        self._epochs: list[tuple[int, int]] = [
            (0, 0)
        ]  # (change number, session that changes since belong to)
        self._attempts: deque[float] = deque()

    # From the client to the broker

    def published(self, promise: Promise) -> None:
        """The client has accepted a message."""
        self.promises[promise.payload] = promise
        if promise.qos or promise.sequence:
            self._open[promise.payload] = promise
            self._by_sequence[promise.sequence] = promise

    def arrived(self, payload: bytes, qos: int) -> None:
        """The broker has accepted a PUBLISH."""
        promise = self.promises.get(payload)
        if promise is None:
            raise SimulationFailure(f"{payload!r} arrived at the broker and was never published")
        require(promise.qos == qos, f"{payload!r} was published at QoS {promise.qos} and came at {qos}")
        if promise.last_epoch:
            self._arrived_again(promise)
        elif qos:
            last = self._last_up.get(promise.topic, 0)
            require(
                promise.index > last, f"I3: {payload!r} on {promise.topic} was overtaken by number {last}"
            )
            self._last_up[promise.topic] = promise.index
        promise.last_epoch = self.epoch

    def _arrived_again(self, promise: Promise) -> None:
        name = f"QoS {promise.qos} message {promise.payload!r}"
        # A QoS 0 message that waited in the store leaves before the store knows that it has left.
        require(promise.qos or promise.forgotten, f"{name} came twice")
        require(promise.qos < 2 or promise.last_epoch != self.epoch, f"I2: {name} came twice in one session")
        done = promise.status == ACKNOWLEDGED and not promise.forgotten
        require(not done, f"{name} was acknowledged and came again")

    def changed(self, number: int, change: tuple[Any, ...]) -> None:
        """The session handed a change to the store."""
        kind = change[0]
        if kind == "done":
            promise = self._by_sequence.get(change[1])
            if promise is not None:
                promise.ended_at = number
        elif kind == "received":
            command = self._arrived_with.get(change[1])
            if command is not None and command.received_at is None:
                command.received_at = number
                self._unrecorded.pop(command.payload, None)
                self._unwritten[command.payload] = command

    def committed(self, durable_through: int) -> None:
        """Close the books about what has ended for good."""
        for promise in list(self._open.values()):
            if promise.ended_at is not None and promise.ended_at <= durable_through:
                self._close(promise)

    def _close(self, promise: Promise) -> None:
        del self._open[promise.payload]
        if self._by_sequence.get(promise.sequence) is promise:
            del self._by_sequence[promise.sequence]

    def restarted(self, durable_through: int | None) -> None:
        """The client's process is over; ``None``: in good order, else what the next one will find."""
        for promise in list(self._open.values()):
            promise.restarted = True
            if durable_through is not None and promise.change > durable_through:
                promise.broken_off = True
            ended = promise.ended_at is not None
            if promise.broken_off or (ended and _is_durable(promise.ended_at, durable_through)):
                self._close(promise)
            elif ended:
                promise.forgotten, promise.ended_at = True, None
            promise.change = 0
        if durable_through is not None:
            self.crashed = True
            for command in self._unwritten.values():
                if not _is_durable(command.received_at, durable_through):
                    command.may_repeat, command.received_at = command.times > 0, None
            if self._in_hand:  # their answers wait behind those to what is in hand [MQTT-4.6.0-3]
                for command in self._unrecorded.values():
                    command.may_repeat = True
            known = [epoch for number, epoch in self._epochs if number <= durable_through]
            self._epochs = [(0, known[-1])]
        else:
            self._epochs = [(0, self._epochs[-1][1])]
        self._unwritten.clear()
        self._unrecorded.clear()
        self._in_hand.clear()
        self._attempts.clear()

    # From the broker to the client

    def commanded(self, command: Command, *, expected: bool) -> None:
        """The broker got a message for the client; ``expected``: the client's session is subscribed."""
        self.commands[command.payload] = command
        if expected and command.qos:
            self._outstanding[command.payload] = command

    def delivered(self, payload: bytes, packet_id: int) -> None:
        """The client has read it."""
        command = self.commands.get(payload)
        if command is None:
            raise SimulationFailure(f"{payload!r} arrived at the client and nobody sent it")
        self._in_hand.add(payload)
        if command.qos == 2:
            self._arrived_with[packet_id] = command

    def handled(self, payload: bytes) -> None:
        """The application has finished with it."""
        command = self.commands[payload]
        self._in_hand.discard(payload)
        if command.qos == 2 and command.received_at is None:
            self._unrecorded[payload] = command
        name = f"QoS {command.qos} command {payload!r}"
        if command.times:
            require(command.qos, f"{name} was handled twice")
            require(command.qos == 1 or command.may_repeat, f"I2: {name} was handled twice")
            command.may_repeat = False
        elif command.qos:
            last = self._last_down.get(command.topic, 0)
            require(command.index > last, f"I3: {name} on {command.topic} was overtaken by number {last}")
            self._last_down[command.topic] = command.index
        command.times += 1
        self._outstanding.pop(payload, None)

    # Sessions and connections

    def session_is(self, epoch: int, *, lives: bool) -> None:
        """The broker has this session now."""
        if epoch != self.epoch or not lives:
            self._outstanding.clear()  # those that were not through are lost with the old one
        self.epoch, self.epoch_lives = epoch, lives

    def connected(self, epoch: int, change_number: int, *, resumed: bool, remembered: int) -> None:
        """CONNACK has come, for this session; ``remembered``: received packet identifiers that we still keep.

        A session whose first CONNACK was lost begins without a word: the next CONNACK says "present". Then
        a new message may carry an identifier that is remembered from the old session, and is taken for a
        repetition.
        """
        if resumed and epoch != self._epochs[-1][1]:
            self.unnoticed += remembered
        self._epochs.append((change_number, epoch))

    def attempted(self, now: float) -> None:
        """The client begins to open a connection."""
        attempts = self._attempts
        attempts.append(now)
        while attempts[0] < now - 3600:
            attempts.popleft()
        minute = sum(moment > now - 60 for moment in attempts)
        require(minute <= _MOST_PER_MINUTE, f"I9: {minute} attempts to connect within a minute")
        require(len(attempts) <= _MOST_PER_HOUR, f"I9: {len(attempts)} attempts to connect within an hour")

    # The end

    def check_expired(self, now: float) -> None:
        """A message has just expired: it had a right to."""
        for promise in self._open.values():
            if promise.status == EXPIRED and not promise.restarted:
                require(promise.expires_at is not None, f"I8: {promise.payload!r} expired without an expiry")
                early = promise.expires_at is not None and now < promise.expires_at
                require(not early, f"I8: {promise.payload!r} expired before its time")

    def check_violations(self, violations: list[str]) -> None:
        """I4 and the rest of the standard, as the broker sees it."""
        if self.crashed:
            # Only QoS 2 remembers its first transmission in time.
            excused = "sent again without DUP"
            violations = [
                text for text in violations if not text.endswith(excused) or f"({EXACTLY_ONCE_TOPIC})" in text
            ]
        require(not violations, f"the broker saw: {violations[:3]}")

    def check_settled(self, now: float) -> None:
        """Everything has come to its end: nothing that was promised is missing."""
        for promise in self.promises.values():
            if promise.qos == 0:
                continue
            late = promise.expires_at is not None and now >= promise.expires_at
            if not (promise.last_epoch or promise.broken_off or late):
                raise SimulationFailure(f"QoS {promise.qos} message {promise.payload!r} is lost")
            state = promise.status
            ended = state in (ACKNOWLEDGED, "") or (state == EXPIRED and late)
            require(ended or promise.restarted, f"{promise.payload!r} is {state} and nothing goes on")
        lost = list(self._outstanding)
        require(len(lost) <= self.unnoticed, f"commands {lost[:5]} were never handled")


def _is_durable(number: int | None, durable_through: int | None) -> bool:
    return number is not None and (durable_through is None or number <= durable_through)
