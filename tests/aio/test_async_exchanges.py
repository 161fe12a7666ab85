"""Request and response, and re-authentication, through the asyncio client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from device_sdk import AsyncClient, Message
from device_sdk.errors import (
    ArgumentError,
    LocalProtocolError,
    NotConnectedError,
    PublishRefused,
    SubscribeRefused,
)
from device_sdk.mqtt.packets import Auth, Connack, Puback, Suback
from device_sdk.testing import BrokerServer, ModelBroker, ScriptedBroker
from device_sdk.testing.scripted_broker import Step, expect, ignore, send
from tests.aio.conftest import Run, assert_nobody_waits, run_in
from tests.client.test_authentication import ACCEPTED, Reverse, data
from tests.steps import eventually_in_loop as eventually

Server = BrokerServer[ModelBroker]


class Responder(AsyncClient):
    """Answers every request on ``echo`` with its payload in capitals."""

    async def answer(self, message: Message) -> None:
        assert message.response_topic is not None
        properties = {"correlation_data": message.correlation_data}
        await self.publish(message.response_topic, message.payload.upper(), qos=1, properties=properties)


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_requests_of_several_tasks_get_their_own_responses(server: Server, run: Run, qos: int) -> None:
    async def main() -> None:
        async with Responder(server.url) as responder, AsyncClient(server.url, client_id="c") as client:
            await responder.subscribe("echo", qos=2, on_message=responder.answer)
            await client.connect(5)
            requests = [client.request("echo", f"request {n}", 5, qos=qos) for n in range(8)]
            responses = await asyncio.gather(*requests)
            assert [message.payload for message in responses] == [b"REQUEST %d" % n for n in range(8)]
            assert responses[0].topic == "response/c"
            await eventually(lambda: client.stats.acks_held == 0)
            assert_nobody_waits(client)

    run(main())


def test_a_handler_may_make_a_request(server: Server, run: Run) -> None:
    got: list[bytes] = []

    async def main() -> None:
        async with Responder(server.url) as responder, AsyncClient(server.url, inbox_limit=1) as client:

            async def handler(message: Message) -> None:
                got.append((await client.request("echo", message.payload, 5)).payload)

            await responder.subscribe("echo", qos=1, on_message=responder.answer)
            await client.subscribe("go", qos=1, on_message=handler)
            for _ in range(2):
                await client.publish("go", b"x", qos=1)
            await eventually(lambda: got == [b"X", b"X"])

    run(main())


def test_a_request_without_an_answer_ends_with_its_time(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            with pytest.raises(TimeoutError, match=r"no response to the request on void within 1 s"):
                await client.request("void", b"", 1.0)  # long enough to be sent on a busy machine
            assert_nobody_waits(client)
        client = AsyncClient("memory://nobody")
        with pytest.raises(TimeoutError, match="was not sent: response/"):
            await client.request("void", b"", 0.05)
        await client.close(0)

    run(main())


@pytest.mark.parametrize("refused", ["subscribe", "publish"])
def test_what_keeps_a_request_from_getting_through_is_raised(run: Run, refused: str) -> None:
    script: list[Step] = [expect("connect"), send(Connack()), expect("subscribe")]
    if refused == "subscribe":
        script += [send(lambda seen: Suback(seen.packet_id, [0x87])), ignore()]
    else:
        script += [
            send(lambda seen: Suback(seen.packet_id, [1])),
            expect("publish"),
            send(lambda seen: Puback(seen.packet_id, 0x87)),
            ignore(),
        ]

    async def main(url: str) -> None:
        async with AsyncClient(url) as client:
            with pytest.raises(SubscribeRefused if refused == "subscribe" else PublishRefused):
                await client.request("echo", b"", 5)
            assert_nobody_waits(client)

    with BrokerServer(ScriptedBroker(script, version="5.0")) as server:
        run(main(server.url))


def test_mqtt_3_has_no_requests() -> None:
    async def main() -> None:
        client = AsyncClient("memory://nobody", version="3.1.1")
        with pytest.raises(ArgumentError, match=r"needs MQTT 5\.0"):
            await client.request("t")
        await client.close()

    run_in(main())


def test_a_reauthentication_waits_for_the_answer_of_the_server(run: Run) -> None:
    script = [
        *ACCEPTED,
        expect("auth", reason_code=0x19, authentication_data=b"start 2"),
        send(Auth(0x18, data(b"abc"))),
        expect("auth", reason_code=0x18, authentication_data=b"cba"),
        send(Auth(0x00, data(None))),
        expect("auth", reason_code=0x19),
        ignore(),
    ]

    async def main(url: str) -> None:
        client = AsyncClient(url, auth=Reverse())
        await client.connect(5)
        await client.reauthenticate(5)
        with pytest.raises(TimeoutError, match=r"had no outcome within 0\.05 s"):
            await client.reauthenticate(0.05)
        with pytest.raises(LocalProtocolError, match="going on already"):
            await client.reauthenticate(5)
        await client.close(0)

    with BrokerServer(ScriptedBroker(script, version="5.0")) as server:
        run(main(server.url))


def test_without_a_connection_there_is_nothing_to_reauthenticate() -> None:
    async def main() -> None:
        client = AsyncClient("memory://nobody", auth=Reverse())
        with pytest.raises(NotConnectedError):
            await client.reauthenticate()
        await client.close()

    run_in(main())


def test_a_request_at_the_end_of_the_client_says_so(server: Server, run: Run) -> None:
    async def main() -> None:
        async with AsyncClient(server.url) as client:
            await client.connect(5)
            request: asyncio.Task[Any] = asyncio.create_task(client.request("void", b"", 10))
            await eventually(lambda: client.stats.acknowledged == 1)
        with pytest.raises(Exception, match="closed"):
            await request

    run(main())
