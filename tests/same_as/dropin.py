"""The drop-in for paho-mqtt with a program that calls its loop functions, and a broker at the other end.

Everything happens in one thread, over a Unix socket: what one end has sent, the other end can read. The
program does something by chance: publish, subscribe, loop, look; or the broker does, or time passes, or the
stream breaks. Noted are, in order, all calls with what they return or raise, all callbacks with their
arguments, and all bytes that the broker reads.
"""

from __future__ import annotations

import os
import socket
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from enum import Enum
from random import Random
from typing import Any

from device_sdk import MemoryStore
from device_sdk.paho import client as mqtt
from device_sdk.paho.packettypes import PacketTypes
from device_sdk.paho.properties import Properties
from device_sdk.paho.reasoncodes import ReasonCode
from device_sdk.paho.subscribeoptions import SubscribeOptions
from device_sdk.paho.v1 import client as mqtt_v1
from device_sdk.testing.model_broker import ModelBroker
from device_sdk.testing.model_link import BrokerLink
from tests.same_as.virtual import CHANCE, CLOCK
from tests.simulation.tape import Note, RecordedStore, Text, facts_of

__all__ = ["run"]

_PATH = "broker.sock"  # relative, so that it is the same text in either process
_STEPS = (40, 160)
_SETTLING_STEPS = 60
_CALLBACKS = (
    "on_connect", "on_connect_fail", "on_disconnect", "on_log", "on_message", "on_pre_connect", "on_publish",
    "on_socket_close", "on_socket_open", "on_socket_register_write", "on_socket_unregister_write",
    "on_subscribe", "on_unsubscribe",
)  # fmt: skip
_EVENT_LOOP = ("on_socket_register_write", "on_socket_unregister_write")
_TOPICS = ("a", "b", "cmd/x", "cmd/y", "both/z")
_FILTERS = ("cmd/#", "cmd/x", "both/+", "a", "#")
#: What a broker that has gone wrong sends.
_NONSENSE = (
    b"\x20\x02\x00\x00",  # a second CONNACK
    b"\x40\x02\x00\x00",  # packet identifier 0
    b"\x40\x02\x12\x34",  # PUBACK for nothing
    b"\x50\x02\x12\x34",  # PUBREC for nothing
    b"\x62\x02\x12\x34",  # PUBREL for nothing
    b"\x70\x02\x12\x34",  # PUBCOMP for nothing
    b"\x90\x03\x12\x34\x00",  # SUBACK for nothing
    b"\xb0\x02\x12\x34",  # UNSUBACK for nothing
    b"\x36\x05\x00\x01a\x00\x01",  # QoS 3
    b"\xe0\x00",  # DISCONNECT, which MQTT 3 does not have
    b"\xe0\x02\x8b\x00",
    b"\xff\xff\xff\xff\xff",
)


def shown(value: Any) -> Any:
    """Return what a value of the drop-in says, in built-in types."""
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, ReasonCode):
        return ("ReasonCode", value.packetType, value.value)
    if isinstance(value, Properties):
        return ("Properties", facts_of(value.json()))
    if isinstance(value, mqtt.MQTTMessage):
        fields = value.topic, value.payload, value.qos, value.retain, value.dup, value.mid, value.timestamp
        return ("MQTTMessage", *fields, shown(getattr(value, "properties", None)))
    if isinstance(value, mqtt.MQTTMessageInfo):
        return ("MQTTMessageInfo", value.mid, shown(value.rc))
    if isinstance(value, (socket.socket, mqtt.Client)):
        return "socket" if isinstance(value, socket.socket) else "client"
    if isinstance(value, dict):
        return [(shown(key), shown(one)) for key, one in value.items()]
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *(shown(one) for one in value))
    return facts_of(value)


class Peer:
    """The broker's end: a model behind a listening socket, which may also misbehave."""

    def __init__(self, note: Note, dice: Random) -> None:
        self._note = note
        self._dice = dice
        self.broker = ModelBroker(
            receive_maximum=dice.choice([1, 2, 65_535]), authorize_connect=lambda _: self._refusal
        )
        self._refusal = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(_PATH)
        self._listener.listen(8)
        self._listener.setblocking(False)
        self._ends: list[tuple[socket.socket, BrokerLink, bytearray]] = []

    def refuse(self, reason_code: int) -> None:
        """Answer the next CONNECT packets with it; 0: accept them."""
        self._refusal = reason_code

    def pump(self, most: int = 1 << 20) -> None:
        """Read what has come, and send the first bytes of what waits for each connection."""
        with suppress(BlockingIOError):
            while True:
                end, _ = self._listener.accept()
                end.setblocking(False)
                self._ends.append((end, self.broker.connect(), bytearray()))
                self._note("accepted")
        for end, link, output in list(self._ends):
            data = self._read(end)
            if data:
                self._note("arrived", data)
                if not link.closed:
                    link.receive_data(data, CLOCK.now)
            output += link.data_to_send()
            part = bytes(output[:most])
            del output[: len(part)]
            gone = data == b""
            if part:
                try:
                    end.sendall(part)
                except OSError:
                    gone = True
            if gone or (link.closed and not output):
                self.close(end, link, output)

    @staticmethod
    def _read(end: socket.socket) -> bytes | None:
        """Return everything that is there; ``b""``: the client has closed; ``None``: nothing."""
        data = b""
        while True:
            try:
                part = end.recv(1 << 16)
            except BlockingIOError:
                return data or None
            except OSError:
                return data
            data += part
            if not part:
                return data

    def close(self, end: socket.socket, link: BrokerLink, output: bytearray) -> None:
        """End a connection."""
        self._note("closed")
        self._ends.remove((end, link, output))
        end.close()
        link.connection_lost(CLOCK.now)

    def cut(self) -> None:
        """End all connections, without a word."""
        for each in list(self._ends):
            self.close(*each)

    def say(self, data: bytes) -> None:
        """Send something that no broker would."""
        for end, _, _ in self._ends:
            with suppress(OSError):
                end.sendall(data)

    def command(self) -> None:
        """Publish something to whoever has subscribed."""
        dice = self._dice
        payload = b"%d" % dice.randrange(1 << 30)
        self.broker.publish(dice.choice(_TOPICS), payload, qos=dice.randrange(3), now=CLOCK.now)

    def pass_time(self) -> None:
        """Let the broker do what is due."""
        self.broker.handle_deadline(CLOCK.now)

    def shut(self) -> None:
        """Close everything."""
        self.cut()
        self._listener.close()
        os.unlink(_PATH)


class Program:
    """A program that uses the drop-in, written by chance."""

    def __init__(self, seed: int, note: Note) -> None:
        self.dice = dice = Random(seed)
        self._given_note = note
        self._muted = False
        self.peer = Peer(self._note, dice)
        self._version = dice.choice([mqtt.MQTTv5, mqtt.MQTTv311, mqtt.MQTTv31])
        self._clean = dice.random() < 0.5
        self._manual = dice.random() < 0.3
        self._api = dice.choice([1, 2, 2])
        self._callbacks = [
            name for name in _CALLBACKS if dice.random() < 0.8 and (name not in _EVENT_LOOP or seed % 3 == 0)
        ]
        self._raises = dice.random() < 0.2
        self._acts = dice.random() < 0.4
        self._store = MemoryStore() if dice.random() < 0.3 else None
        self._stopped: list[object] = []
        self._infos: list[mqtt.MQTTMessageInfo] = []
        self._held: list[tuple[int, int]] = []  # packet identifier and QoS of messages to be acknowledged
        self._depth = 0
        self.client = self._new_client()

    def _note(self, word: str, *values: object) -> None:
        if not self._muted:
            self._given_note(word, *values)

    def _new_client(self) -> mqtt.Client:
        five = self._version == mqtt.MQTTv5
        given: dict[str, Any] = {
            "client_id": "program", "protocol": self._version, "transport": "unix",
            "clean_session": None if five else self._clean, "userdata": "userdata",
        }  # fmt: skip
        client: mqtt.Client
        if self._api == 1:
            client = mqtt_v1.Client(**given)
        else:
            client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, manual_ack=self._manual, **given)
        if self._store is not None:
            client.store_set(RecordedStore(self._store, self._note))
        for name in self._callbacks:
            setattr(client, name, self._callback(name))
        client.suppress_exceptions = self.dice.random() < 0.5
        if self.dice.random() < 0.3:
            client.message_callback_add("both/#", self._callback("both/#"))
        if self.dice.random() < 0.3:
            client.will_set("a", b"gone", 1, retain=True)
        if self.dice.random() < 0.2:
            client.username_pw_set("user", "secret")
        if self.dice.random() < 0.5:
            client.max_inflight_messages_set(self.dice.choice([1, 2, 5]))
        if self.dice.random() < 0.2:
            client.max_queued_messages_set(self.dice.choice([1, 5]))
        return client

    def _callback(self, name: str) -> Callable[..., None]:
        def called(client: mqtt.Client, *arguments: Any) -> None:
            self._note("callback", name, *map(shown, arguments))
            if name in ("on_message", "both/#"):
                message = arguments[1]
                if self._manual and message.qos:
                    self._held.append((message.mid, message.qos))
            if name == "on_log" or self._depth > 2:
                return
            if self._acts and self.dice.random() < 0.1:
                self._depth += 1
                try:
                    self.dice.choice([self.publish, self.subscribe, self.look])()
                finally:
                    self._depth -= 1
            if self._raises and self.dice.random() < 0.1:
                raise ValueError(f"raised in {name}")

        if name != "on_log":
            return called

        def logged(client: mqtt.Client, userdata: object, level: int, text: str) -> None:
            self._note("log", shown(level), Text(text))

        return logged

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the client and note what came of it."""
        try:
            result = getattr(self.client, name)(*arguments, **named)
        except Exception as error:
            self._note("call", name, "raised", type(error).__name__, Text(error))
            return None
        self._note("call", name, shown(result))
        return result

    # What the program does

    def connect(self) -> None:
        """Connect, or again."""
        dice = self.dice
        keep_alive = dice.choice([10, 60])
        if self._version != mqtt.MQTTv5:
            self._call("connect", _PATH, 1883, keep_alive)
            return
        properties = None
        if dice.random() < 0.5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = dice.choice([0, 600])
            properties.TopicAliasMaximum = 5
        self._call(
            "connect",
            _PATH,
            1883,
            keep_alive,
            clean_start=dice.choice([True, False, 3]),
            properties=properties,
        )

    def reconnect(self) -> None:
        """As before."""
        self._call("reconnect")

    def disconnect(self) -> None:
        """Leave."""
        if self._version == mqtt.MQTTv5 and self.dice.random() < 0.5:
            self._call("disconnect", ReasonCode(PacketTypes.DISCONNECT, identifier=4))
        else:
            self._call("disconnect")

    def publish(self) -> None:
        """Publish a few messages."""
        dice = self.dice
        for _ in range(dice.choice([1, 1, 1, 5, 25])):
            properties = None
            if self._version == mqtt.MQTTv5 and dice.random() < 0.2:
                properties = Properties(PacketTypes.PUBLISH)
                properties.ContentType = "text/plain"
                properties.UserProperty = ("a", "1")
                if dice.random() < 0.3:
                    properties.TopicAlias = 1
            payload = dice.choice([b"%d" % dice.randrange(1 << 30), "text", 17, 1.5, None, bytearray(300)])
            info = self._call(
                "publish", dice.choice(_TOPICS), payload, dice.randrange(3), dice.random() < 0.1, properties
            )
            if info is not None:
                self._infos.append(info)

    def subscribe(self) -> None:
        """Subscribe in one of the ways that there are."""
        dice, topic, qos = self.dice, self.dice.choice(_FILTERS), self.dice.randrange(3)
        if self._version == mqtt.MQTTv5 and dice.random() < 0.5:
            options = SubscribeOptions(qos, noLocal=dice.random() < 0.5)
            self._call("subscribe", dice.choice([(topic, options), [(topic, options), ("a", options)]]))
            return
        ways: list[Any] = [(topic, qos), ((topic, qos),), ([(topic, qos), ("b", 1)],)]
        self._call("subscribe", *dice.choice(ways))

    def unsubscribe(self) -> None:
        """Unsubscribe from one filter or two."""
        self._call("unsubscribe", self.dice.choice([self.dice.choice(_FILTERS), ["cmd/#", "a"]]))

    def mistake(self) -> None:
        """Call something with an argument that cannot work."""
        wrong: list[tuple[str, tuple[Any, ...]]] = [
            ("publish", ("a/#", b"x")), ("publish", ("a", b"x", 3)), ("publish", ("", b"x")),
            ("publish", ("a", object())), ("subscribe", ("a", 7)), ("subscribe", ("#/a",)),
            ("subscribe", ([],)), ("unsubscribe", ("",)), ("loop", (-1.0,)), ("connect", ("", 1883)),
            ("connect", (_PATH, 0)), ("max_inflight_messages_set", (-1,)), ("ack", (77, 1)),
        ]  # fmt: skip
        name, arguments = self.dice.choice(wrong)
        self._call(name, *arguments)

    def acknowledge(self) -> None:
        """Acknowledge one of the messages that wait for it."""
        if self._held:
            self._call("ack", *self._held.pop(self.dice.randrange(len(self._held))))

    def read(self) -> None:
        """What an event loop does with a readable socket."""
        self._call("loop_read")

    def write(self) -> None:
        """What an event loop does with a writable socket."""
        self._call("loop_write")

    def misc(self) -> None:
        """What an event loop does now and then."""
        self._call("loop_misc")

    def loop(self) -> None:
        """One turn of the client's own loop."""
        self._call("loop", 0.0)

    def look(self) -> None:
        """Ask for the state of things."""
        self._call("is_connected")
        self._call("want_write")
        self._call("socket")
        published: list[object] = []
        for info in self._infos:
            try:
                published.append(info.is_published())
            except Exception as error:
                published.append(type(error).__name__)
        self._note("published", published)

    def change(self) -> None:
        """Set something while the client works."""
        dice = self.dice
        name, argument = dice.choice([("max_inflight_messages_set", 3), ("max_queued_messages_set", 4)])
        self._call(name, argument)

    def start_again(self) -> None:
        """End the program without a word, and start it again with what the store has."""
        if self._store is None:
            return
        self._infos.clear()
        self._held.clear()
        self._note("killed")
        self._muted = True  # whatever becomes of the old client
        self._stopped += (self.client, self._store)
        self._store.on_progress = None
        self._store = deepcopy(self._store)
        self._store.close()
        self.peer.cut()
        self._muted = False
        self.client = self._new_client()
        self.connect()

    # What the broker and the world do

    def broker_reads(self) -> None:
        """The broker gets all, and answers, perhaps not at once."""
        self.peer.pump(self.dice.choice([0, 3, 40, 1 << 20, 1 << 20]))

    def broker_commands(self) -> None:
        """Somebody publishes."""
        for _ in range(self.dice.choice([1, 1, 4])):
            self.peer.command()
        self.peer.pump()

    def time_passes(self) -> None:
        """Seconds, or minutes."""
        CLOCK.now += self.dice.choice([0.5, 6.0, 11.0, 70.0])
        self.peer.pass_time()
        self.peer.pump()

    def trouble(self) -> None:
        """Something goes wrong at the broker's end."""
        dice, peer = self.dice, self.peer
        kind = dice.randrange(5)
        if kind == 0:
            peer.cut()
        elif kind == 1:
            peer.say(dice.choice(_NONSENSE))
        elif kind == 2:
            peer.broker.disconnect_all(CLOCK.now, dice.choice([0x8B, 0x8E, 0x97]))
            peer.pump()
        elif kind == 3:
            peer.broker.forget_sessions(CLOCK.now)
            peer.pump()
        else:
            peer.refuse(dice.choice([0x87, 0x88, 0, 0]))

    def go(self) -> None:
        """Let it all happen."""
        self.connect()
        steps: list[Callable[[], None]] = [
            *[self.publish, self.broker_reads, self.loop] * 5,
            *[self.read, self.write, self.subscribe, self.broker_commands] * 3,
            *[self.misc, self.look, self.acknowledge, self.time_passes] * 2,
            self.unsubscribe, self.mistake, self.trouble, self.reconnect, self.disconnect, self.connect,
            self.change, self.start_again,
        ]  # fmt: skip
        for _ in range(self.dice.randint(*_STEPS)):
            self.dice.choice(steps)()
        self.peer.refuse(0)
        self.connect()
        for _ in range(_SETTLING_STEPS):
            self.peer.pump()
            self.loop()
        self.look()
        self.disconnect()
        self.peer.pump()
        self.loop()

    def end(self) -> None:
        """Close everything."""
        self._muted = True
        self.peer.shut()


def run(seed: int, note: Note) -> None:
    """Do one run."""
    CLOCK.reset()
    CHANCE.reset(seed)
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="device-sdk-same-as-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        os.chdir(folder)
        try:
            program = Program(seed, note)
            try:
                program.go()
            finally:
                program.end()
        finally:
            os.chdir(before)
