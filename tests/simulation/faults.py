"""What can go wrong in a run. Each fault says whether there was anything that it could break."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.history import SimulationFailure
from tests.simulation.network import Cable
from tests.simulation.process import Process
from tests.simulation.storage import SimulatedStore

if TYPE_CHECKING:
    from tests.simulation.run import Run

__all__ = ["FAULTS", "Faults"]

_HOUR, _YEAR = 3600.0, 31_557_600.0
_ALL = 1 << 30
_LONGEST_KEEP_ALIVE = 100
_NOTICE_SECONDS = 60.0  # besides one and a half keep alives: slow handlers pause the reading


class Faults:
    """The faults of one run. Each method takes the cable whose delivery it strikes, or ``None``."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._dice = run.dice
        self._network = run.network

    @property
    def _now(self) -> float:
        return self._run.timeline.now

    def _cable(self, struck: Cable | None) -> Cable | None:
        """The cable that works at present."""
        if struck is not None:
            return struck if struck.alive and not struck.silent else None
        return next((each for each in self._network.cables if each.alive and not each.silent), None)

    def heal(self) -> None:
        """The store works again."""
        store = self._store()
        if store is not None:
            store.recover()

    def _store(self) -> SimulatedStore | None:
        process = self._run.process
        return process.store if process is not None and isinstance(process.store, SimulatedStore) else None

    # Connections

    def cut_before(self, struck: Cable | None) -> bool:
        """The stream breaks before what is on its way to the broker; answers may still come."""
        return self._cut(struck, 0, self._dice.choice([0, _ALL]))

    def cut_after(self, struck: Cable | None) -> bool:
        """The broker has read everything, and its answers do not come, or not all of them."""
        return self._cut(struck, _ALL, self._dice.choice([0, 0, self._dice.randint(1, 40)]))

    def cut_within(self, struck: Cable | None) -> bool:
        """The stream breaks anywhere, for each end at another place."""
        cable = self._cable(struck)
        up = 0 if cable is None else self._dice.randint(0, len(cable.up))
        return self._cut(struck, up, self._dice.randint(0, 60))

    def _cut(self, struck: Cable | None, up: int, down: int) -> bool:
        cable = self._cable(struck)
        if cable is None:
            return False
        cable.cut(up, down, reset=self._dice.random() < 0.5)
        self._run.broker_acted()
        self._network.wake()
        return True

    def half_open(self, struck: Cable | None) -> bool:
        """Bytes vanish in both directions; keep alive has to notice it."""
        cable, process = self._cable(struck), self._run.process
        if cable is None or process is None:
            return False
        cable.silent = True
        keep_alive = max(self._run.plan.process.keep_alive, _LONGEST_KEEP_ALIVE)
        seconds = 1.5 * keep_alive + _NOTICE_SECONDS
        self._run.timeline.after(seconds, self._noticed(cable, process, seconds, 0))
        return True

    def _noticed(self, cable: Cable, process: Process, seconds: float, looks: int) -> Callable[[], None]:
        def look() -> None:
            if cable.closed or process.over:
                return
            if looks == 2:
                raise SimulationFailure("a half-open connection was not noticed")
            # After a leap of the clock everything is late: the client needs its time all the same.
            self._run.timeline.after(seconds, self._noticed(cable, process, seconds, looks + 1))

        return look

    def stall(self, struck: Cable | None) -> bool:
        """Nothing moves for a while, and nothing is lost."""
        cable = self._cable(struck)
        if cable is None:
            return False
        cable.stall(self._dice.choice([0.1, 1.0, 8.0, 40.0]))
        return True

    def slow(self, struck: Cable | None) -> bool:
        """Few bytes at a time, now and on the next connections."""
        chunk = self._dice.choice([3, 20, 100])
        self._network.slow = (3 * chunk, chunk)
        cable = self._cable(struck)
        if cable is not None:
            cable.capacity, cable.chunk = self._network.slow
        self._run.timeline.after(self._dice.expovariate(1 / 20), self._fast)
        return True

    def _fast(self) -> None:
        self._network.slow = None
        for cable in self._network.cables:
            cable.capacity = cable.chunk = _ALL
        self._network.wake()

    # The broker

    def restart(self, struck: Cable | None) -> bool:
        """The broker restarts and keeps its sessions."""
        if self._dice.random() < 0.5:
            self._run.broker.disconnect_all(self._now)
            self._network.carry_down()
        else:
            for cable in list(self._network.cables):
                cable.cut(0, 0, reset=True)
            self._network.wake()
        self._network.refuses_until = self._now + self._dice.choice([0.0, 1.0, 20.0])
        return True

    def lose_session(self, struck: Cable | None) -> bool:
        """The broker restarts and has forgotten everything. MQTT 3.1 has no way to say so."""
        if self._run.plan.version == "3.1":
            return False
        self._run.broker.forget_sessions(self._now)
        self._run.broker_acted()
        self._network.carry_down()
        return True

    def outage(self, struck: Cable | None) -> bool:
        """The broker is away for long; meanwhile attempts are few."""
        run, process = self._run, self._run.process
        if process is None or self._network.refuses_until > self._now:
            return False
        for cable in list(self._network.cables):
            cable.cut(0, 0, reset=True)
        self._network.wake()
        seconds = self._dice.choice([600.0, 3 * _HOUR])
        self._network.refuses_until = self._now + seconds
        before = process.attempts
        most = 20 + 2 * seconds / (run.plan.process.longest_delay / 2)

        def count() -> None:
            made = process.attempts - before
            if made > most:
                raise SimulationFailure(f"I9: {made} attempts to connect in an outage of {seconds:g} s")

        run.timeline.after(seconds, count)
        return True

    def refuse_open(self, struck: Cable | None) -> bool:
        """Connections are refused for a moment, the present one is reset."""
        self._network.refuses_until = max(self._network.refuses_until, self._now + self._dice.uniform(0, 30))
        return self._cut(struck, 0, 0) or struck is None

    def hang_open(self, struck: Cable | None) -> bool:
        """Opening a connection does not come to an end."""
        self._network.hangs_until = self._now + self._dice.uniform(0, 60)
        return self._cut(struck, _ALL, 0) or struck is None

    def refuse_connect(self, struck: Cable | None) -> bool:
        """The broker is busy, and says so in CONNACK."""
        self._run.refusal = self._dice.choice([0x88, 0x97, 0x87])
        self._run.refuses_until = self._now + self._dice.uniform(0, 60)
        return self._cut(struck, 0, 0) or struck is None

    def say_disconnect(self, struck: Cable | None) -> bool:
        """The broker ends the connection and says why: MQTT 5.0."""
        cable = self._cable(struck)
        if cable is None:
            return False
        cable.link.end(self._dice.choice([0x89, 0x8B, 0x8E, 0x97]), self._now)
        self._run.broker_acted()
        cable.carry_down()
        return True

    def change_receive_maximum(self, struck: Cable | None) -> bool:
        """The next CONNACK has another receive maximum."""
        if self._run.plan.version != "5.0":
            return False
        self._network.receive_maximum = self._dice.choice([1, 1, 2, 3, 10, 65_535])
        return True

    def change_keep_alive(self, struck: Cable | None) -> bool:
        """The next CONNACK has another keep alive."""
        if self._run.plan.version != "5.0":
            return False
        self._run.broker.server_keep_alive = self._dice.choice([5, 20, _LONGEST_KEEP_ALIVE])
        return True

    # The client's computer

    def crash(self, struck: Cable | None) -> bool:
        """The client's process is killed, or its power is cut; a new one finds what was durable."""
        run, store = self._run, self._store()
        if run.process is None or store is None or store.failure is not None:
            return False  # while the store fails nothing is promised
        self._lose_stream(run.process)
        run.history.restarted(store.durable_through)
        run.process.crash()
        run.durable = store.cut_power()
        self._boot_later()
        return True

    def _lose_stream(self, process: Process) -> None:
        cable = process.transport.cable
        if cable is None:
            return
        if self._dice.random() < 0.5:
            cable.silent = cable.closed = True  # no power: the broker waits
        else:
            cable.cut(self._dice.randint(0, len(cable.up)), 0, reset=False)
            self._run.broker_acted()

    def leave(self, struck: Cable | None) -> bool:
        """The program ends in good order and starts again."""
        run, store = self._run, self._store()
        process = run.process
        if process is None or run.durable is None or (store is not None and store.failure is not None):
            return False
        process.leave()
        run.history.restarted(None)
        self._boot_later()
        return True

    def _boot_later(self) -> None:
        self._run.process = None
        self._run.timeline.after(self._dice.choice([0.0, 1.0, 30.0]), self._run.boot)

    def fail_store(self, struck: Cable | None) -> bool:
        """The store cannot write or read for a while."""
        store = self._store()
        if store is None or store.failure is not None:
            return False
        store.fail(self._dice.choice([0.1, 2.0, 60.0]))
        return True

    def slow_store(self, struck: Cable | None) -> bool:
        """Commits take longer from now on, or are faster again."""
        store = self._store()
        if store is None:
            return False
        store.delay = self._dice.choice([0.0, 0.05, 3.0])
        return True

    def leap(self, struck: Cable | None) -> bool:
        """All clocks leap, as after the sleep of the computer on which everything runs."""
        self._run.timeline.leap(self._dice.choice([100.0, 5 * _HOUR, 10 * _YEAR]))
        self._network.wake()
        return True

    def leap_alone(self, struck: Cable | None) -> bool:
        """Only the client's clock leaps: nothing happened, and yet everything is late."""
        process = self._run.process
        if process is None:
            return False
        process.ahead += self._dice.choice([100.0, 5 * _HOUR, 10 * _YEAR])
        self._run.ahead = process.ahead
        process.wake()
        return True


#: Name -> fault; a run draws from those that its plan has.
FAULTS: dict[str, Callable[[Faults, Cable | None], bool]] = {
    "cut before a packet": Faults.cut_before,
    "cut after a packet": Faults.cut_after,
    "cut within a packet": Faults.cut_within,
    "half-open connection": Faults.half_open,
    "stall": Faults.stall,
    "slow link": Faults.slow,
    "broker restart": Faults.restart,
    "session lost": Faults.lose_session,
    "outage": Faults.outage,
    "open refused": Faults.refuse_open,
    "open hangs": Faults.hang_open,
    "CONNECT refused": Faults.refuse_connect,
    "DISCONNECT with a reason": Faults.say_disconnect,
    "receive maximum changes": Faults.change_receive_maximum,
    "keep alive changes": Faults.change_keep_alive,
    "client crash": Faults.crash,
    "client restart": Faults.leave,
    "store fails": Faults.fail_store,
    "store gets slow": Faults.slow_store,
    "clock leap of all": Faults.leap,
    "clock leap of the client": Faults.leap_alone,
}
