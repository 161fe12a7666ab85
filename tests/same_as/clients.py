"""Client and AsyncClient with a program that uses all they have, brokers, and a bad network between.

One seed is one program, written once: it runs on :class:`device_sdk.Client` in threads that take turns, or on
:class:`device_sdk.AsyncClient` in an event loop, both in virtual time. Nothing of the inside of the package
is touched. Noted are all calls of the program with what they return or raise, handlers, hooks and events,
calls of transports and stores with bytes and changes, wake-ups, and what each thread waits for and how long.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from inspect import isawaitable
from random import Random
from typing import Any

from device_sdk import (
    AsyncClient,
    Client,
    MemoryStore,
    Message,
    ReconnectPolicy,
    SqliteStore,
    Store,
    StorePolicy,
    Subscription,
    Will,
)
from device_sdk.errors import ConnectFailedError, TransportClosedError
from device_sdk.testing.model_broker import ModelBroker
from tests.same_as.strands import PORTS, STRANDS, StrandSelector, StrandThread
from tests.same_as.virtual import CHANCE, CLOCK
from tests.simulation.network import Network, SimulatedTransport
from tests.simulation.storage import SimulatedStore
from tests.simulation.tape import Note, RecordedStore, facts_of
from tests.simulation.timeline import Timeline

__all__ = ["run"]

_CLIENT_ID = "node-17"
_FIRST_DESCRIPTOR = 1 << 20  # above all real ones
_TOPICS = ("a", "b", "site/1/t", "site/2/t")
_COMMAND_TOPICS = ("cmd/x", "cmd/y", "both/z", "nobody")
_FILTERS = ("cmd/#", "cmd/x", "both/+", "+/z", "#")
_STEPS = (20, 60)
_LONG_ENOUGH = 400.0  # seconds, for every job to end
_REFUSALS = (0x87, 0x88, 0x97, 0x9C)
_REASONS = (0x8B, 0x8E, 0x97, 0x9D)


class World:
    """What happens by itself: deliveries, and what brokers do in time."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.networks: list[Network] = []

    @property
    def now(self) -> float:
        """The time."""
        return self.timeline.now

    def next_due(self) -> float:
        """When the next thing happens."""
        deadlines = [network.broker.next_deadline() for network in self.networks]
        return min(self.timeline.next_due(), *(due for due in deadlines if due is not None), float("inf"))

    def go_to(self, moment: float) -> None:
        """Move on, and let it happen."""
        self.timeline.go_to(moment)
        for network in self.networks:
            due = network.broker.next_deadline()
            if due is not None and due <= self.now:
                network.broker.handle_deadline(self.now)
                network.carry_down()


class PortTransport(SimulatedTransport):
    """As its base class, with a descriptor that a selector knows, and an ``open()`` that takes its time."""

    def __init__(self, network: Network, number: int, name: str) -> None:
        super().__init__(network)
        self.description = f"simulated {name}"
        self._fd = _FIRST_DESCRIPTOR + number
        self._aborted = False
        PORTS[self._fd] = self

    def open(self, deadline: float) -> None:
        """Connect after a while, or never."""
        self._aborted = False
        network = self._network
        STRANDS.pause(network.latency * (1 + network.dice.random()))
        while network.hangs_until > network.timeline.now and not self._aborted:
            STRANDS.pause(1.0)
        if self._aborted:
            raise TransportClosedError(f"{self.description}: aborted")
        if network.timeline.now >= deadline:
            raise ConnectFailedError(f"{self.description}: too late")
        super().open(deadline)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def abort(self) -> None:
        """End the stream, or the attempt to open it."""
        self._aborted = True
        super().abort()


class NotedSelector(StrandSelector):
    """Notes what is waited for: each return of it is a wake-up."""

    note: Note = staticmethod(lambda *_: None)

    def select(self, timeout: float | None = None) -> list[Any]:
        """As the base class."""
        watched = [(fd - _FIRST_DESCRIPTOR, key.events) for fd, key in self._keys.items() if fd in PORTS]
        NotedSelector.note("select", timeout, [each for each in watched if each[0] >= 0])
        return super().select(timeout)


class StrandLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self._strand_selector = NotedSelector()
        super().__init__(self._strand_selector)

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *arguments: Any, context: Any = None
    ) -> asyncio.Handle:
        """As the base class, whose socket to itself no selector watches here."""
        handle = super().call_soon_threadsafe(callback, *arguments, context=context)
        self._strand_selector.wake()
        return handle


class Shell:
    """What is different between the two clients: how to wait, and how to do several things at once."""

    client_class: Any

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run the program."""
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        raise NotImplementedError

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        """Do something besides."""
        raise NotImplementedError


class Threads(Shell):
    """A coroutine that never waits for anything but by blocking."""

    client_class = Client

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run it to its end."""
        try:
            main.send(None)
        except StopIteration:
            return
        raise AssertionError("a program with threads has awaited something")

    async def sleep(self, seconds: float) -> None:
        """Block."""
        STRANDS.pause(seconds)

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        """In a thread."""
        StrandThread(target=self.run, args=(job,), daemon=True).start()


class Loop(Shell):
    """Tasks in an event loop."""

    client_class = AsyncClient

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run it in a loop of its own."""
        loop = StrandLoop()
        try:
            loop.run_until_complete(main)
        finally:
            loop.close()

    async def sleep(self, seconds: float) -> None:
        """Let the others run."""
        await asyncio.sleep(seconds)

    def spawn(self, job: Coroutine[Any, Any, None]) -> None:
        """In a task."""
        self._tasks.append(asyncio.get_running_loop().create_task(job))


class Program:
    """The program of one seed."""

    def __init__(self, seed: int, note: Note, folder: str) -> None:
        self.dice = dice = Random(seed)
        self._note = note
        self._folder = folder
        self.shell: Shell = Loop() if seed % 2 else Threads()
        self.world = World()
        self.refusal = 0
        self.networks = [self._new_network() for _ in range(dice.choice([1, 1, 2]))]
        self._version = dice.choice(["5.0", "5.0", "5.0", "3.1.1", "3.1"])
        self._manual = dice.random() < 0.25
        self._store_kind = dice.choice(["none", "none", "memory", "slow", "sqlite", "path"])
        self._durable = MemoryStore()
        self._options = self._new_options()
        self._transports = [
            PortTransport(network, number, f"broker {number}") for number, network in enumerate(self.networks)
        ]
        self._held: list[Message] = []
        self._jobs = 0
        self._done = 0
        self._raises = dice.random() < 0.2
        self.client: Any = None

    def _new_network(self) -> Network:
        broker = ModelBroker(
            receive_maximum=self.dice.choice([1, 2, 65_535]),
            authorize_connect=lambda _: self.refusal,
            topic_alias_maximum=self.dice.choice([0, 10]),
        )
        network = Network(self.world.timeline, broker, self.dice, self.dice.choice([0.001, 0.05, 0.4]))
        network.note = self._note
        network.wake = STRANDS.poke
        self.world.networks.append(network)
        return network

    def _new_options(self) -> dict[str, Any]:
        dice, five = self.dice, self._version == "5.0"
        options: dict[str, Any] = {
            "client_id": _CLIENT_ID if dice.random() < 0.8 else None,
            "version": self._version,
            "keep_alive": dice.choice([0, 10, 60]),
            "clean_start": dice.choice([None, None, True, False]),
            "inflight": dice.choice([1, 2, 20]),
            "ack_timeout": dice.choice([None, 20.0]),
            "inbox_limit": dice.choice([1, 3, 1000]),
            "buffer_qos0": dice.random() < 0.5,
            "on_session_lost": dice.choice(["republish", "fail"]),
            "manual_ack": self._manual,
            "reconnect": ReconnectPolicy(0.5, dice.choice([2.0, 30.0])),
            "return_to_first": dice.choice([None, 40.0]),
            "shared_session": dice.random() < 0.2,
            "policy": self._new_policy(),
        }
        if five:
            options |= {
                "session_expiry": dice.choice([0, 60, 86_400]),
                "receive_maximum": dice.choice([1, 3, 65_535]),
                "topic_alias_maximum": dice.choice([0, 5]),
                "use_topic_aliases": dice.random() < 0.3,
                "use_identifiers": dice.random() < 0.3,
            }
        if dice.random() < 0.3:
            options["will"] = Will("a", b"gone", qos=1)
        elif dice.random() < 0.3:
            options["will"] = lambda: Will("b", b"%d" % self.world.now)
        if dice.random() < 0.3:
            options["credentials"] = lambda: ("user", b"secret")
        if dice.random() < 0.5:
            options["on_message"] = self._handler("default")
        for name in ("on_connect", "on_disconnect", "on_event"):
            options[name] = self._hook(name)
        return options

    def _new_policy(self) -> StorePolicy:
        dice = self.dice
        return StorePolicy(
            max_messages=dice.choice([None, 3, 20]),
            overflow=dice.choice(["reject", "drop_oldest", "drop_newest", "block"]),
            block_timeout=2.0,
            max_age=dice.choice([None, None, 30.0]),
            keep_last=dice.choice([(), ("site/#",)]),
            durability=dice.choice(["batch", "sync", "os"]),
        )

    def _new_store(self) -> Store | str | None:
        kind = self._store_kind
        if kind == "none":
            return None
        if kind == "path":
            return "queue.db"
        if kind == "sqlite":
            return RecordedStore(SqliteStore("queue.db", self._options["policy"]), self._note)
        if kind == "slow":
            delay = self.dice.choice([0.0, 0.2, 2.0])
            slow = SimulatedStore(self.world.timeline, self.dice, delay, lambda *_: None, self._durable)
            return RecordedStore(slow, self._note)
        return RecordedStore(self._durable, self._note)

    # Hooks and handlers

    def _hook(self, name: str) -> Callable[[Any], None]:
        def hook(argument: Any) -> None:
            self._note("hook", name, facts_of(argument))
            if self._raises and self.dice.random() < 0.05:
                raise ValueError(f"raised in {name}")

        return hook

    def _handler(self, name: str) -> Callable[[Message], Any]:
        sleeps = self.dice.choice([0.0, 0.0, 0.3])

        def seen(message: Message) -> None:
            self._note("handler", name, facts_of(message), message.redelivery_key is None)
            if self._manual and message.qos:
                self._held.append(message)
            if self._raises and self.dice.random() < 0.1:
                raise ValueError(f"raised in {name}")

        async def slowly(message: Message) -> None:
            seen(message)
            await self.shell.sleep(sleeps)
            await self._answer(message)

        def handler(message: Message) -> Any:
            if not sleeps and message.response_topic is None:
                return seen(message)
            if isinstance(self.shell, Loop):
                return slowly(message)
            return self.shell.run(slowly(message))

        return handler

    async def _answer(self, message: Message) -> None:
        """Answer a request as a responder does."""
        if message.response_topic is not None and message.topic.startswith("svc/"):
            properties = {"correlation_data": message.correlation_data}
            await self._call(
                "publish", message.response_topic, b"re " + message.payload, qos=1, properties=properties
            )

    # Calls

    async def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the client, wait if it wants to be waited for, and note what came of it."""
        return await self._outcome(name, lambda: getattr(self.client, name)(*arguments, **named))

    async def _outcome(self, name: str, function: Callable[[], Any]) -> Any:
        try:
            result = function()
            if isawaitable(result) and not hasattr(result, "topic_filters"):
                result = await result
        except Exception as error:
            self._note("call", name, "raised", facts_of(error))
            return None
        shown = result
        if hasattr(result, "topic_filters"):
            shown = ("request", facts_of(list(result.topic_filters)), result.done)
        elif hasattr(result, "qos") and hasattr(result, "state"):
            shown = ("delivery", result.topic, result.qos, result.state)
        elif name == "messages":
            shown = "inbox"
        self._note("call", name, facts_of(shown))
        return result

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        self._jobs += 1

        async def counted() -> None:
            try:
                await job
            finally:
                self._done += 1

        self.shell.spawn(counted())

    # What the program does

    async def publish(self) -> None:
        """Publish some messages; wait for one of them, perhaps."""
        dice = self.dice
        for _ in range(dice.choice([1, 1, 2, 10])):
            named: dict[str, Any] = {"qos": dice.randrange(3), "retain": dice.random() < 0.1}
            if dice.random() < 0.15:
                named["expiry"] = dice.choice([1.0, 20.0])
            if self._version == "5.0" and dice.random() < 0.15:
                named["properties"] = {"content_type": "text/plain", "user_property": [("a", "1")]}
            payload = dice.choice([b"%d" % dice.randrange(1 << 30), "text", None, bytearray(100)])
            delivery = await self._call("publish", dice.choice(_TOPICS), payload, **named)
            if delivery is None or dice.random() < 0.4:
                continue
            if dice.random() < 0.3:
                self._spawn(self._wait("wait_stored", delivery.wait_stored))
            else:
                self._spawn(self._wait("wait", delivery.wait))

    async def _wait(self, name: str, wait: Callable[[float], Awaitable[Any] | Any]) -> None:
        """Wait for something for some time."""
        seconds = self.dice.choice([0.5, 10.0, 60.0])
        await self._outcome(name, lambda: wait(seconds))

    async def subscribe(self) -> None:
        """Subscribe, with a handler or without."""
        dice = self.dice
        topic: Any = dice.choice(_FILTERS)
        if dice.random() < 0.2:
            topic = [Subscription(topic, 2), Subscription("site/#", 1)]
        handler = self._handler(f"of {dice.randrange(100)}") if dice.random() < 0.7 else None
        request = await self._call("subscribe", topic, dice.randrange(3), on_message=handler)
        if request is not None and dice.random() < 0.5:
            self._spawn(self._wait("granted", request.wait))

    async def unsubscribe(self) -> None:
        """Unsubscribe from one or two."""
        topic: Any = self.dice.choice(_FILTERS)
        request = await self._call("unsubscribe", self.dice.choice([topic, [topic, "site/#"]]))
        if request is not None and self.dice.random() < 0.5:
            self._spawn(self._wait("unsubscribed", request.wait))

    async def request(self) -> None:
        """Ask oneself something."""
        self._spawn(self._request(b"%d" % self.dice.randrange(1000), self.dice.choice([1.0, 20.0])))

    async def _request(self, payload: bytes, timeout: float) -> None:
        await self._call("subscribe", "svc/#", 1, on_message=self._handler("responder"))
        answer = await self._call("request", "svc/echo", payload, timeout)
        self._note("answered", answer is not None)

    async def pull(self) -> None:
        """Take a few messages from the inbox."""
        inbox = await self._call("messages")
        if inbox is not None:
            self._spawn(self._pull(inbox, self.dice.choice([1, 5])))

    async def _pull(self, inbox: Any, count: int) -> None:
        for _ in range(count):
            message = await self._outcome("get", lambda: inbox.get(10.0))
            if message is None:
                return
            if self._manual and message.qos:
                self._held.append(message)

    async def acknowledge(self) -> None:
        """Acknowledge some of the messages that wait for it, in any order."""
        for _ in range(self.dice.choice([1, 5])):
            if self._held:
                message = self._held.pop(self.dice.randrange(len(self._held)))
                await self._outcome("acknowledge", message.acknowledge)

    async def look(self) -> None:
        """Look at the state of things."""
        self._note("state", self.client.state, facts_of(self.client.stats), self.client.client_id)

    async def hurry(self) -> None:
        """The link came up."""
        await self._call("reconnect_now")

    async def mistake(self) -> None:
        """Call something with an argument that cannot work."""
        wrong: list[tuple[str, tuple[Any, ...]]] = [
            ("publish", ("a/#", b"x")), ("publish", ("a", 17)), ("subscribe", ("a/#/b",)),
            ("subscribe", ([],)), ("unsubscribe", ("",)), ("request", ("a", b"x", -1.0)),
            ("reauthenticate", ()), ("close", (-1,)),
        ]  # fmt: skip
        name, arguments = self.dice.choice(wrong)
        await self._call(name, *arguments)

    # What others do

    async def command(self) -> None:
        """Somebody publishes to the client."""
        dice = self.dice
        network = dice.choice(self.networks)
        for _ in range(dice.choice([1, 2, 8])):
            payload = b"c%d" % dice.randrange(1 << 30)
            network.broker.publish(
                dice.choice(_COMMAND_TOPICS), payload, qos=dice.randrange(3), now=self.world.now
            )
        network.carry_down()

    async def trouble(self) -> None:
        """Something goes wrong in the network or at a broker."""
        dice = self.dice
        network = dice.choice(self.networks)
        cables = [cable for cable in network.cables if cable.alive]
        kind = dice.randrange(10)
        if kind == 0:
            for cable in cables:
                cable.cut(dice.randint(0, len(cable.up)), dice.choice([0, 20]), reset=dice.random() < 0.5)
        elif kind == 1:
            network.refuses_until = self.world.now + dice.uniform(0, 20)
            for cable in cables:
                cable.cut(0, 0, reset=True)
        elif kind == 2:
            network.hangs_until = self.world.now + dice.uniform(0, 30)
            for cable in cables:
                cable.cut(0, 0, reset=False)
        elif kind == 3:
            network.broker.forget_sessions(self.world.now)
            network.carry_down()
        elif kind == 4:
            network.broker.disconnect_all(self.world.now, dice.choice(_REASONS))
            network.carry_down()
        elif kind == 5:
            self.refusal = dice.choice(_REFUSALS) if self._version == "5.0" else 3
        elif kind == 6:
            self.refusal = 0
        elif kind == 7:
            for cable in cables:
                cable.silent = True
        elif kind == 8:
            for cable in cables:
                cable.stall(dice.choice([0.5, 5.0, 25.0]))
        else:
            network.slow = dice.choice([None, (60, 20)])
        STRANDS.poke()

    def _heal(self) -> None:
        self.refusal = 0
        for network in self.networks:
            network.heal()
            network.hangs_until = 0.0

    # From the beginning to the end

    async def main(self) -> None:
        """Live once or twice."""
        for life in range(self.dice.choice([1, 2])):
            if life and self._store_kind in ("none", "slow"):
                return  # the second life of a program needs a store that another one can open
            await self._live()

    async def _live(self) -> None:
        dice = self.dice
        transports: Any = self._transports
        place = transports if len(transports) > 1 else transports[0]
        self.client = self.shell.client_class(place, store=self._new_store(), **self._options)
        if dice.random() < 0.5:
            await self.publish()
            await self.subscribe()
        await (
            self._call("start") if dice.random() < 0.6 else self._call("connect", dice.choice([1.0, 10.0]))
        )
        steps = [
            *[self.publish] * 6,
            *[self.command] * 4,
            *[self.subscribe, self.acknowledge, self.trouble] * 2,
            *[self.unsubscribe, self.pull, self.look, self.hurry, self.mistake, self.request],
        ]
        for _ in range(dice.randint(*_STEPS)):
            await dice.choice(steps)()
            if dice.random() < 0.6:
                await self.shell.sleep(dice.expovariate(1 / dice.choice([0.05, 1.0, 8.0])))
        if dice.random() < 0.7:
            self._heal()
            await self._call("start")
            await self.shell.sleep(60.0)
        await self.look()
        await self._call("close", dice.choice([0.0, 5.0, 30.0]))
        self._heal()
        await self.shell.sleep(_LONG_ENOUGH)
        await self.look()
        await self.publish()
        self._note("jobs", self._jobs, self._done)


def run(seed: int, note: Note) -> None:
    """Do one run."""
    CHANCE.reset(seed)
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="device-sdk-same-as-") as folder:
        os.chdir(folder)
        NotedSelector.note = staticmethod(note)
        try:
            program = Program(seed, note, folder)
            CLOCK.show = lambda: program.world.now
            STRANDS.begin(program.world, lambda: note("wake"))
            program.shell.run(program.main())
        finally:
            CLOCK.reset()
            os.chdir(before)


def _use_noted_selectors() -> None:
    import selectors

    selectors.DefaultSelector = NotedSelector  # type: ignore[misc, assignment]


_use_noted_selectors()
