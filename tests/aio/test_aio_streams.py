"""AsyncClient over every kind of stream: each stands before a model broker as a door that passes bytes on."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from device_sdk import AsyncClient, Message, TLSOptions
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import TransportError
from device_sdk.testing import BrokerServer, Certificates, ModelBroker
from tests.aio.conftest import Run, cancelled, turns
from tests.client.test_client_threads import descriptors
from tests.steps import eventually_in_loop as eventually
from tests.steps import join_threads, step

Server = BrokerServer[ModelBroker]
Greeting = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HOST = "127.0.0.1"
FAST = ReconnectPolicy(first=0.02, longest=0.05)
KINDS = ["tcp", "tls", "unix", "tls-unix", "ws", "wss", "http", "socks5", "tls-socks5"]
WITH_HANDSHAKE = [kind for kind in KINDS if kind not in ("tcp", "unix")]
NEEDS = {"tls": "cryptography", "ws": "websockets", "wss": "cryptography", "socks5": "socks"}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    for part in request.param.split("-"):
        if part in NEEDS:
            pytest.importorskip(NEEDS[part], reason=f"needs {NEEDS[part]}")
    if request.param == "wss":
        pytest.importorskip("websockets", reason="needs websockets")
    return str(request.param)


@pytest.fixture(autouse=True)
def no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mqtt_proxy", "MQTT_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Door:
    """Where a client of one kind comes in; ``streams`` are those that are open."""

    def __init__(self, kind: str, server: Server, folder: Path) -> None:
        self.kind = kind
        self.server = server
        self.folder = folder
        self.streams: set[asyncio.StreamWriter] = set()
        self.silent = False  # take connections, and say nothing
        self.came = 0
        self.arguments: dict[str, Any] = {}
        self.url = ""

    async def open(self, stack: AsyncExitStack) -> None:
        """Listen, and fill in what a client has to be made with."""
        tls = None
        if self.kind.startswith("tls") or self.kind == "wss":
            certificates = Certificates(self.folder)
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificates.server.certificate, certificates.server.key)
            options = TLSOptions(ca_file=certificates.ca, server_name="localhost")
            self.arguments["tls"] = options
        if self.kind.endswith("unix"):
            path = self.folder / "socket"
            self.url = f"unix:{path}"
            listener = await asyncio.start_unix_server(self._plain, path, ssl=self._unless_silent(tls))
        elif self.kind in ("ws", "wss"):
            listener = await self._listen_ws(tls)
            self.url = f"{self.kind}://{HOST}:{self._port(listener)}"
        elif self.kind in ("http", "socks5"):
            greeting = {"http": _greet_http, "socks5": _greet_socks5}[self.kind]
            listener = await asyncio.start_server(partial(self._plain, greeting=greeting), HOST, 0)
            self.url = "mqtt://broker.example"
            self.arguments["proxy"] = f"{self.kind}://{HOST}:{self._port(listener)}"
        elif self.kind == "tls-socks5":
            inner = await asyncio.start_server(self._plain, HOST, 0, ssl=tls)
            stack.push_async_callback(_stop, inner)
            inner_port = self._port(inner)
            forward = partial(self._plain, greeting=_greet_socks5, port=inner_port)
            listener = await asyncio.start_server(forward, HOST, 0)
            self.url = "mqtts://broker.example"
            self.arguments["proxy"] = f"socks5://{HOST}:{self._port(listener)}"
        else:
            listener = await asyncio.start_server(self._plain, HOST, 0, ssl=self._unless_silent(tls))
            self.url = f"{'mqtts' if tls else 'mqtt'}://{HOST}:{self._port(listener)}"
        stack.push_async_callback(_stop, listener)

    def _unless_silent(self, tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
        return None if self.silent else tls

    @staticmethod
    def _port(listener: Any) -> int:
        return int(next(iter(listener.sockets)).getsockname()[1])

    async def _listen_ws(self, tls: ssl.SSLContext | None) -> Any:
        if self.silent:
            return await asyncio.start_server(self._plain, HOST, 0)
        from websockets.asyncio.server import serve

        async def pass_on(connection: Any) -> None:
            reader, writer = await asyncio.open_connection(HOST, self.server.port)
            self._enter(writer)

            async def inward() -> None:
                async for data in connection:
                    writer.write(data)
                    await writer.drain()

            inwards = asyncio.ensure_future(inward())
            try:
                while data := await reader.read(65536):
                    await connection.send(data)
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                inwards.cancel()
                await asyncio.gather(inwards, return_exceptions=True)
                self._leave(writer)

        return await serve(
            pass_on,
            HOST,
            0,
            ssl=tls,
            subprotocols=["mqtt"],  # type: ignore[list-item]
            compression=None,
            close_timeout=0.2,
        )

    async def _plain(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        greeting: Greeting | None = None,
        port: int = 0,
    ) -> None:
        self._enter(writer)
        try:
            if self.silent:
                await reader.read()
                return
            if greeting is not None:
                await greeting(reader, writer)
            back_reader, back_writer = await asyncio.open_connection(HOST, port or self.server.port)
            await asyncio.gather(_pump(reader, back_writer), _pump(back_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # slammed
        finally:
            self._leave(writer)

    def _enter(self, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        self.streams.add(writer)
        step()

    def _leave(self, writer: asyncio.StreamWriter) -> None:
        self.streams.discard(writer)
        writer.close()
        step()

    def slam(self) -> None:
        """Cut every stream."""
        for writer in list(self.streams):
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _stop(listener: Any) -> None:
    listener.close()
    await asyncio.sleep(0)


async def _greet_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 Yes\r\n\r\n")


async def _greet_socks5(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly((await reader.readexactly(2))[1])
    writer.write(b"\5\0")
    length = (await reader.readexactly(5))[4]
    await reader.readexactly(length + 2)
    writer.write(b"\5\0\0\1\0\0\0\0\0\0")


@asynccontextmanager
async def door(kind: str, server: Server, folder: Path, *, silent: bool = False) -> AsyncIterator[Door]:
    async with AsyncExitStack() as stack:
        entrance = Door(kind, server, folder)
        entrance.silent = silent
        await entrance.open(stack)
        try:
            yield entrance
        finally:
            entrance.slam()
            await eventually(lambda: not entrance.streams)


def test_messages_of_every_size_go_out_and_come_back(
    kind: str, server: Server, run: Run, tmp_path: Path
) -> None:
    sizes = [0, 1, 200, 70_000, 200_000] * 4
    received: list[Message] = []

    async def main() -> None:
        async with (
            door(kind, server, tmp_path) as entrance,
            AsyncClient(entrance.url, **entrance.arguments) as client,
        ):
            await client.connect(5)
            await client.subscribe("echo/#", qos=1, on_message=received.append).wait(5)
            deliveries = [
                await client.publish(f"echo/{index}", os.urandom(size), qos=1)
                for index, size in enumerate(sizes)
            ]
            for delivery in deliveries:
                await delivery.wait(10)
            await eventually(lambda: len(received) == len(sizes))
            assert [message.payload for message in received] == [each.payload for each in deliveries]
            assert client.stats.connects == 1

    run(main())


def test_a_stream_that_is_cut_is_opened_again_and_loses_nothing(
    kind: str, server: Server, run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        async with (
            door(kind, server, tmp_path) as entrance,
            AsyncClient(entrance.url, reconnect=FAST, **entrance.arguments) as client,
        ):
            await client.connect(5)
            for number in range(3):
                first = await client.publish("t", b"%d" % (2 * number), qos=2)
                entrance.slam()
                second = await client.publish("t", b"%d" % (2 * number + 1), qos=2)
                await first.wait(10)
                await second.wait(10)
            assert client.stats.reconnects >= 1

    run(main())
    assert server.call(lambda: server.broker.payloads("t")) == [b"%d" % number for number in range(6)]


@pytest.mark.parametrize("kind", WITH_HANDSHAKE, indirect=True)
def test_a_close_in_the_middle_of_opening_waits_for_nobody(
    kind: str, server: Server, run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        async with door(kind, server, tmp_path, silent=True) as entrance:
            first = 0
            for life in range(3):
                client = AsyncClient(entrance.url, **entrance.arguments)
                await client.start()
                await eventually(lambda life=life: entrance.came > life)  # type: ignore[misc]
                async with asyncio.timeout(2):
                    await client.close(0)
                await asyncio.to_thread(join_threads)
                await eventually(lambda: not entrance.streams)
                await turns()  # in which the door closes its ends
                first = first or descriptors()
            assert descriptors() <= first

    run(main())


@pytest.mark.parametrize("kind", ["http", "socks5", "tls-socks5"], indirect=True)
def test_a_connect_that_is_cancelled_in_the_middle_of_opening_may_be_repeated(
    kind: str, server: Server, run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        async with door(kind, server, tmp_path, silent=True) as entrance:
            client = AsyncClient(entrance.url, **entrance.arguments)
            task = asyncio.ensure_future(client.connect(5))
            await eventually(lambda: entrance.came)
            await cancelled(task)
            assert client.state == "idle"
            await asyncio.to_thread(join_threads)
            entrance.silent = False
            await client.connect(5)
            await (await client.publish("t", b"x", qos=1)).wait(5)
            await client.close()

    run(main())


def test_an_open_that_runs_out_of_time_says_so_and_the_loop_runs_on(
    kind: str, server: Server, run: Run, tmp_path: Path
) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async def main() -> None:
        nonlocal ticks
        async with door(kind, server, tmp_path, silent=True) as entrance:
            ticker = asyncio.ensure_future(tick())
            client = AsyncClient(entrance.url, connect_timeout=0.3, **entrance.arguments)
            for _ in range(20):  # a machine that was busy with other things may have had no time for a tick
                ticks = 0
                with pytest.raises(TransportError):
                    await client.connect(5)
                if ticks >= 2:  # a loop that stands still meanwhile has one at most
                    break
            else:
                pytest.fail("the loop stood still during each open()")
            await client.close()
            await cancelled(ticker)

    run(main())
