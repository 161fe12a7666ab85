"""version=None and a real Mosquitto that a gate keeps from MQTT 5.0, in the words of older brokers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from device_sdk import AsyncClient, Message
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.engine.events import ClientEvent
from tests.steps import eventually_in_loop as eventually

if TYPE_CHECKING:
    from device_sdk.testing.broker_process import ChildBroker

FAST = ReconnectPolicy(first=0.02, longest=0.1)
REFUSALS = {
    "in 5.0": b"\x20\x03\x00\x84\x00",
    "in 3.1.1": b"\x20\x02\x00\x01",
}
HOST = "127.0.0.1"


class Gate:
    """Answers CONNECT of MQTT 5.0 itself; every other connection goes to the broker. ``levels``: who came."""

    def __init__(self, port: int, refusal: bytes) -> None:
        self.port = port
        self.refusal = refusal
        self.levels: list[int] = []

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return f"mqtt://{HOST}:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(9)  # up to the protocol level, with a remaining length of one byte
        self.levels.append(head[8])
        if head[8] == 5:
            writer.write(self.refusal)
            writer.close()
            return
        broker_reader, broker_writer = await asyncio.open_connection(HOST, self.port)
        broker_writer.write(head)
        await asyncio.gather(_pump(reader, broker_writer), _pump(broker_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


def port_of(broker: ChildBroker) -> int:
    return urlsplit(broker.url("5.0")).port or 0


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_a_broker_of_old_is_spoken_to_in_its_version(mosquitto: ChildBroker, refusal: bytes) -> None:
    gate = Gate(port_of(mosquitto), refusal)
    events: list[ClientEvent] = []
    received: list[Message] = []

    async def main() -> None:
        async with (
            gate as url,
            AsyncClient(url, version=None, client_id="old", reconnect=FAST, on_event=events.append) as client,
        ):
            early = [await client.publish("t", b"%d" % qos, qos=qos, expiry=60) for qos in range(3)]
            await client.connect(10)
            await client.subscribe("t", qos=2, on_message=received.append)
            for delivery in early:
                await delivery.wait(10)
            for _ in range(2):
                for qos in range(3):
                    delivery = await client.publish("t", b"later %d" % qos, qos=qos, properties={})
                    await delivery.wait(10)
                client.reconnect_now(replace=True)
                await eventually(lambda: client.state == "connected")
            await eventually(lambda: len(received) >= 6)
            assert client.stats.reconnects == 2

    asyncio.run(main())
    assert gate.levels == [5, 4, 4, 4, 4]  # the first in 3.1.1 only clears what the broker may have
    assert [event.kind for event in events].count("version") == 1
    assert {message.payload for message in received} >= {b"later 0", b"later 1", b"later 2"}


def test_a_broker_of_today_is_spoken_to_in_its_version(mosquitto: ChildBroker) -> None:
    async def main() -> None:
        got: list[Message] = []
        async with AsyncClient(mosquitto.url("5.0"), version=None, reconnect=FAST) as client:
            await client.connect(10)
            await client.subscribe("t", qos=1, on_message=got.append)
            await (await client.publish("t", b"x", qos=1, properties={"content_type": "text"})).wait(10)
            await eventually(lambda: bool(got))
            answer = await asyncio.wait_for(_echo(client), 10)
            assert answer.payload == b"back"
        assert got[0].properties == {"content_type": "text"}

    asyncio.run(main())


async def _echo(client: AsyncClient) -> Message:
    async def answer(message: Message) -> None:
        assert message.properties is not None
        properties = {"correlation_data": message.properties["correlation_data"]}
        await client.publish(message.properties["response_topic"], b"back", qos=1, properties=properties)

    await client.subscribe("question", qos=1, on_message=answer)
    return await client.request("question", b"?", 5)


def test_the_command_takes_auto(mosquitto: ChildBroker) -> None:
    gate = Gate(port_of(mosquitto), REFUSALS["in 3.1.1"])

    async def main() -> None:
        async with gate as url:
            command = (sys.executable, "-m", "device_sdk", "pub", "--url", url, "-V", "auto", "-q", "1")
            process = await asyncio.create_subprocess_exec(
                *command, "-t", "t", "-m", "x", stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            _, errors = await asyncio.wait_for(process.communicate(), 30)
            assert (process.returncode, gate.levels) == (0, [5, 4]), errors

    asyncio.run(main())
