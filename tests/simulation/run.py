"""One run: everything that happens follows from its seed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from device_sdk import MemoryStore, Store
from device_sdk.mqtt.packets import Connect, Publish
from device_sdk.testing.model_broker import ModelBroker
from device_sdk.testing.model_session import ModelSession
from tests.simulation.faults import FAULTS, Faults
from tests.simulation.history import EXACTLY_ONCE_TOPIC, Command, History, SimulationFailure
from tests.simulation.layout import session_facts, surroundings
from tests.simulation.network import Cable, Network
from tests.simulation.process import CLIENT_ID, Process, ProcessOptions
from tests.simulation.storage import SimulatedStore
from tests.simulation.tape import Note
from tests.simulation.timeline import Timeline

__all__ = ["COMMAND_LINE", "Figures", "Plan", "Run", "simulate"]

#: Repeats one run.
COMMAND_LINE = "python -m tests.simulation --seed {seed}"

_NEVER = 0xFFFF_FFFF
_TOPICS = ("a", "b", EXACTLY_ONCE_TOPIC)
_COMMAND_TOPICS = ("cmd/x", "cmd/y")
_SETTLING_SECONDS = 7200.0
_MOST_STEPS = 2_000_000


@dataclass(slots=True)
class Figures:
    """What runs have done."""

    runs: int = 0
    messages: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    virtual_seconds: float = 0.0
    connects: int = 0
    turns: int = 0

    def add(self, other: Figures) -> None:
        """Count another one in."""
        self.runs += other.runs
        self.messages += other.messages
        self.faults.update(other.faults)
        self.virtual_seconds += other.virtual_seconds
        self.connects += other.connects
        self.turns += other.turns


class Plan:
    """What stays the same through one run, drawn from its seed."""

    def __init__(self, dice: Random) -> None:
        self.version = dice.choice(["5.0", "5.0", "5.0", "3.1.1", "3.1"])
        self.store = dice.choice(["slow", "slow", "slow", "memory", "none"])
        self.store_delay = dice.choice([0.0, 0.05, 0.5, 3.0])
        self.receive_maximum = dice.choice([1, 2, 5, 65_535])
        self.latency = dice.choice([0.001, 0.02, 0.3])
        self.page_messages = dice.choice([2, 8, 8, 500])
        self.messages = dice.randint(100, 500)
        self.pause = dice.choice([0.02, 0.2, 2.0, 20.0])  # seconds between bursts, on average
        self.burst = dice.choice([1, 5, 20])  # messages at most
        self.fault_per_delivery = dice.choice([0.02, 0.08, 0.2])
        self.fault_pause = dice.choice([5.0, 30.0, 200.0])  # seconds between those of the quiet, on average
        # Not all kinds in each run: some hide what others would show.
        self.faults = [name for name in FAULTS if dice.random() < 0.6] or ["cut within a packet"]
        # Where a fault meets bytes on their way, it is an end of the stream more often than not.
        ends = [name for name in self.faults if name.startswith(("cut ", "client crash", "session lost"))]
        self.faults_of_streams = [*self.faults, *ends, *ends, *ends]
        self.process = ProcessOptions(
            version=self.version,
            keep_alive=dice.choice([10, 30, 60]),
            session_expiry=dice.choice([_NEVER, _NEVER, 600]),
            receive_maximum=dice.choice([1, 2, 10, 65_535]),
            inflight=dice.choice([1, 2, 4, 20]),
            inbox_limit=dice.choice([1, 4, 1000]),
            ack_timeout=dice.choice([None, None, 45.0]),
            handler_seconds=dice.choice([0.0, 0.1, 10.0]),
            first_delay=1.0,
            longest_delay=dice.choice([20.0, 60.0]),
        )


class Run:
    """A client, a broker and what lies between them; ``go()`` lets it all happen.

    ``note`` is told everything that an application, a transport or a store of the client can see of it.
    ``durable`` returns the store below a :class:`SimulatedStore`.
    """

    def __init__(
        self, seed: int, note: Note | None = None, durable: Callable[[], Store] = MemoryStore
    ) -> None:
        self._note = note
        self.dice = dice = Random(seed)
        self.plan = plan = Plan(dice)
        self.figures = Figures(runs=1)
        self.timeline = Timeline()
        self._began = self.timeline.now
        self.history = History()
        self.broker = ModelBroker(
            unique_messages=True,
            receive_maximum=plan.receive_maximum,
            authorize_connect=self._authorize_connect,
            authorize_publish=self._authorize_publish,
        )
        self.network = Network(self.timeline, self.broker, dice, plan.latency)
        if note is not None:
            self.network.note = note
        self.network.wake = self._wake
        self.network.broker_acted = self.broker_acted
        self.network.strikes = self._strikes
        self.refusal = 0  # the reason code of CONNACK
        self.refuses_until = 0.0
        self.process: Process | None = None
        self.durable: Store | None = None
        if plan.store != "none":
            self.durable = durable() if plan.store == "slow" else MemoryStore()
        self.ahead = 0.0
        self.boots_at: float | None = None
        self._faults = Faults(self)
        self._faulty = True
        self._session: ModelSession | None = None
        self._sent = self._commanded = 0
        self._left = plan.messages

    def go(self) -> Figures:
        """Let it all happen. Raises: SimulationFailure: an invariant does not hold."""
        with surroundings(self.plan.page_messages):
            self.boot()
            self._plan_burst()
            self._plan_fault()
            while self._left > 0:
                self._step(float("inf"))
            self._settle()
        self.history.check_violations(self.broker.violations)
        self.history.check_settled(self.timeline.now + self.ahead)
        self.figures.messages = self._sent + self._commanded
        self.figures.virtual_seconds = self.timeline.now - self._began - self.timeline.leapt
        return self.figures

    # What happens by itself

    def _step(self, until: float) -> None:
        """Go on to the next thing that happens."""
        timeline, process = self.timeline, self.process
        wake = float("inf") if process is None else process.next_wake()
        broker_due = self.broker.next_deadline()
        due = min(wake, timeline.next_due(), until, float("inf") if broker_due is None else broker_due)
        timeline.go_to(due)
        if broker_due is not None and broker_due <= timeline.now:
            self.broker.handle_deadline(timeline.now)
            self.broker_acted()
            self.network.carry_down()
        if process is not None and process is self.process and (process.woken or wake <= timeline.now):
            process.turn()
            self.figures.turns += 1
            if self.figures.turns > _MOST_STEPS:
                raise SimulationFailure(f"{_MOST_STEPS} turns, and no end")

    def _settle(self) -> None:
        """Let everything work well until nothing is left to do."""
        self._faulty = False
        self.network.heal()
        self.refuses_until = 0.0
        self._faults.heal()
        deadline = self.timeline.now + _SETTLING_SECONDS
        while not self._is_quiet():
            if self.timeline.now >= deadline:
                self.history.check_violations(self.broker.violations)  # would be the reason
                raise SimulationFailure(f"no end: {self._unfinished()}")
            self._step(deadline)

    def _is_quiet(self) -> bool:
        process, session = self.process, self.broker.sessions.get(CLIENT_ID)
        if process is None or session is None or not session.subscriptions:
            return False
        return process.is_quiet() and not (session.queue or session.in_flight)

    def _unfinished(self) -> str:
        process, session = self.process, self.broker.sessions.get(CLIENT_ID)
        theirs = "" if session is None else f", broker: {len(session.queue)} and {list(session.in_flight)}"
        if process is None:
            return "no process" + theirs
        engine = process.engine
        return (
            f"{engine.state}, {engine.stats().queued} wait, {engine.stats().in_flight} in flight, "
            f"asks: {session_facts(engine).asks}{theirs}"
        )

    # The application

    def _plan_burst(self) -> None:
        self.timeline.after(self.dice.expovariate(1 / self.plan.pause), self._burst)

    def _burst(self) -> None:
        """Publish some messages, and let somebody else publish to the client."""
        process, dice = self.process, self.dice
        if process is not None:
            if dice.random() < 0.05:
                process.wind()
            for _ in range(dice.randint(1, self.plan.burst)):
                self._publish(process)
                self._left -= 1
            if isinstance(process.store, SimulatedStore):
                self.history.committed(process.store.durable_through)
        if self._session is not None and dice.random() < 0.3:
            self._session._last_packet_id = 0  # as after 65,535 messages
        if dice.random() < 0.5:
            for _ in range(dice.randint(1, self.plan.burst)):
                self._command()
                self._left -= 1
        if self._left > 0:
            self._plan_burst()

    def _publish(self, process: Process) -> None:
        dice = self.dice
        self._sent += 1
        topic = dice.choice(_TOPICS)
        qos = 2 if topic == EXACTLY_ONCE_TOPIC else dice.choice([0, 1, 1, 1, 2, 2])
        expiry = dice.choice([1.0, 30.0, 86_400.0]) if dice.random() < 0.1 else None
        process.publish(topic, b"%d" % self._sent, qos, self._sent, expiry)

    def _command(self) -> None:
        dice = self.dice
        self._commanded += 1
        payload, topic, qos = (
            b"c%d" % self._commanded,
            dice.choice(_COMMAND_TOPICS),
            dice.choice([0, 1, 1, 2, 2]),
        )
        session = self.broker.sessions.get(CLIENT_ID)
        expected = session is not None and bool(session.subscriptions)
        self.history.commanded(Command(payload, topic, qos, self._commanded), expected=expected)
        self.broker.publish(topic, payload, qos=qos, now=self.timeline.now)
        self.network.carry_down()

    def boot(self) -> None:
        """Start the client's program."""
        store: Store | None = self.durable
        if self.plan.store == "slow":
            store = SimulatedStore(
                self.timeline, self.dice, self.plan.store_delay, self.history.changed, self.durable
            )
        self.process = Process(
            self.timeline,
            self.network,
            self.history,
            self.dice,
            self.plan.process,
            store,
            self.ahead,
            self._note,
        )

    def _wake(self) -> None:
        if self.process is not None:
            self.process.wake()

    # The broker

    def broker_acted(self) -> None:
        """Note which session the broker has now."""
        session = self.broker.sessions.get(CLIENT_ID)
        history = self.history
        if session is not self._session:
            self._session = session
            history.session_is(history.epoch + (session is not None), lives=session is not None)
        for cable in self.network.cables:
            if session is not None and cable.link.session is session:
                cable.epoch = history.epoch

    def _authorize_connect(self, _: Connect) -> int:
        if self.timeline.now < self.refuses_until:
            return self.refusal
        self.figures.connects += 1
        return 0

    def _authorize_publish(self, _: str, publish: Publish) -> int:
        if self.broker.sessions.get(CLIENT_ID) is not self._session:
            self.broker_acted()  # the session began with the same bytes
        self.history.arrived(publish.payload, publish.qos)
        return 0

    # Faults

    def _plan_fault(self) -> None:
        self.timeline.after(self.dice.expovariate(1 / self.plan.fault_pause), self._fault_of_the_quiet)

    def _fault_of_the_quiet(self) -> None:
        if self._faulty:
            self._inject(None)
            self._plan_fault()

    def _strikes(self, cable: Cable) -> bool:
        """Whether a fault comes in the way of this delivery."""
        if not self._faulty or self.dice.random() >= self.plan.fault_per_delivery:
            return False
        return self._inject(cable)

    def _inject(self, cable: Cable | None) -> bool:
        name = self.dice.choice(self.plan.faults if cable is None else self.plan.faults_of_streams)
        struck = FAULTS[name](self._faults, cable)
        self.figures.faults[name] += struck
        return struck


def simulate(seed: int) -> Figures:
    """Do one run. Raises: SimulationFailure: an invariant does not hold; the text has the seed."""
    try:
        return Run(seed).go()
    except Exception as error:
        kind = "" if isinstance(error, SimulationFailure) else f"{type(error).__name__}: "
        text = f"{kind}{error}\nrepeat it: {COMMAND_LINE.format(seed=seed)}"
        raise SimulationFailure(text).with_traceback(sys.exc_info()[2]) from error
