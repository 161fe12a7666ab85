"""A real Mosquitto over WebSocket, with and without TLS."""

from __future__ import annotations

import asyncio
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_sdk import AsyncClient, Client, Message
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import ConnectFailedError, TlsError
from device_sdk.net.base import Transport, open_transport
from device_sdk.net.tls import TLSOptions
from device_sdk.testing import Certificates
from device_sdk.testing.broker_process import MosquittoBroker
from tests.steps import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSIONS = ["3.1", "3.1.1", "5.0"]
FAST = ReconnectPolicy(first=0.02, longest=0.1)
HOST = "127.0.0.1"


class WebMosquitto(MosquittoBroker):
    """Mosquitto with two more ports: WebSocket, and WebSocket over TLS."""

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self.certificates = certificates
        self.ws_port, self.wss_port = self._reserve_port(), self._reserve_port()

    def _ports(self) -> tuple[int, ...]:
        return (*super()._ports(), self.ws_port, self.wss_port)

    def _command(self, folder: Path) -> list[str]:
        command = super()._command(folder)
        server = self.certificates.server
        lines = [
            f"listener {self.ws_port} {HOST}",
            "protocol websockets",
            f"listener {self.wss_port} {HOST}",
            "protocol websockets",
            f"certfile {server.certificate}",
            f"keyfile {server.key}",
        ]
        with (folder / "mosquitto.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")
        return command

    def plain(self, **options: object) -> Transport:
        return open_transport(f"ws://{HOST}:{self.ws_port}", **options)

    def secure(self, **options: object) -> Transport:
        tls = TLSOptions(ca_file=self.certificates.ca)
        return open_transport(f"wss://localhost:{self.wss_port}", tls=tls, **options)


def running(folder: Path) -> Iterator[WebMosquitto]:
    if not WebMosquitto.available():
        pytest.skip("needs mosquitto")
    with WebMosquitto(Certificates(folder)) as broker:
        yield broker
        assert broker.folder is not None
        sys.stderr.write((broker.folder / broker.log_name).read_text(errors="replace"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebMosquitto]:
    yield from running(tmp_path_factory.mktemp("certificates"))


def round_trip(transport: Transport, version: str = "5.0") -> None:
    """Send a message of each QoS to ourselves, and one of 200 KiB to nobody.

    Mosquitto's library for WebSocket sends 4 KiB in 100 ms, to every client.
    """
    received: list[Message] = []
    payloads = [b"0", b"1", bytes(range(256)) * 16]
    with Client(transport, version=version) as client:
        client.connect(5)
        client.subscribe("t/#", qos=2, on_message=received.append).wait(5)
        for number, payload in enumerate(payloads):
            client.publish(f"t/{number}", payload, qos=number).wait(5)
        client.publish("large", bytes(200 * 1024), qos=1).wait(5)
        eventually(lambda: len(received) == len(payloads))
    assert {message.topic: message.payload for message in received} == {
        f"t/{number}": payload for number, payload in enumerate(payloads)
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_of_every_qos_go_round_over_websocket(broker: WebMosquitto, version: str) -> None:
    round_trip(broker.plain(), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_messages_of_every_qos_go_round_over_websocket_with_tls(broker: WebMosquitto, version: str) -> None:
    round_trip(broker.secure(), version)


def test_the_old_subprotocol_is_chosen_too(broker: WebMosquitto) -> None:
    round_trip(broker.plain(subprotocol="mqttv3.1"), "3.1")


def test_a_thousand_messages_arrive_in_order_at_another_client(broker: WebMosquitto) -> None:
    received: list[bytes] = []
    with Client(broker.plain()) as reader, Client(broker.secure(), inflight=100) as writer:
        reader.connect(5)
        reader.subscribe("t", qos=1, on_message=lambda message: received.append(message.payload)).wait(5)
        writer.connect(5)
        deliveries = [writer.publish("t", b"%d" % number, qos=1) for number in range(1000)]
        for delivery in deliveries:
            delivery.wait(10)
        eventually(lambda: len(received) == 1000)
    assert received == [b"%d" % number for number in range(1000)]


def test_the_client_comes_back_after_a_restart_of_the_broker(broker: WebMosquitto) -> None:
    with Client(broker.plain(), reconnect=FAST) as client:
        client.connect(5)
        broker.restart()
        client.publish("t", b"after", qos=1).wait(10)
        assert client.stats.reconnects >= 1


def test_a_subprotocol_that_the_broker_does_not_know_is_an_error(broker: WebMosquitto) -> None:
    client = Client(broker.plain(subprotocol="chat"))
    with pytest.raises(ConnectFailedError, match="cannot open ws"):
        client.connect(5)
    client.close()


def test_the_port_of_plain_mqtt_is_told_apart(broker: WebMosquitto) -> None:
    client = Client(broker.url().replace("mqtt:", "ws:"))
    with pytest.raises(ConnectFailedError, match="check scheme"):
        client.connect(5)
    client.close()


def test_a_certificate_of_an_unknown_ca_ends_the_attempt(broker: WebMosquitto) -> None:
    client = Client(open_transport(f"wss://localhost:{broker.wss_port}"))
    with pytest.raises(TlsError, match="not trusted"):
        client.connect(5)
    client.close()


class Toll:
    """Lets a request through to the broker if its path is the next one that it expects, else refuses it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.valid = ""
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        self.asked.append(path)
        if path != self.valid:
            writer.write(f"HTTP/1.1 403 expired {path}\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()
            return
        broker_reader, broker_writer = await asyncio.open_connection(HOST, self.port)
        broker_writer.write(head)
        await asyncio.gather(pump(reader, broker_writer), pump(broker_reader, writer))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


def test_a_url_that_is_valid_once_is_asked_for_in_each_attempt(
    broker: WebMosquitto, caplog: pytest.LogCaptureFixture
) -> None:
    """As with presigned URLs: each connection, and each attempt after a refusal, has another one."""
    caplog.set_level("DEBUG", "device_sdk")
    events: list[str] = []

    async def main() -> None:
        toll = Toll(broker.ws_port)
        server = await asyncio.start_server(toll.serve, HOST, 0)
        url = f"ws://{HOST}:{server.sockets[0].getsockname()[1]}"
        calls = itertools.count(1)

        def presigned() -> str:
            number = next(calls)
            if number == 2:
                raise LookupError("the signer is away")
            if number != 3:  # which comes too late
                toll.valid = f"/mqtt?X-Signature=secret-{number}"
            return f"{url}/mqtt?X-Signature=secret-{number}"

        async with AsyncClient(
            url,
            network={"target": presigned},
            reconnect=FAST,
            on_event=lambda event: events.append(event.text),
        ) as client:
            await client.connect(10)
            for expected in (1, 2):
                await (await client.publish("t", b"x", qos=1)).wait(10)
                assert client.stats.connects == expected
                if expected == 1:
                    client.reconnect_now(replace=True)
        server.close()
        await server.wait_closed()
        assert toll.asked == [f"/mqtt?X-Signature=secret-{number}" for number in (1, 3, 4)]

    asyncio.run(main())
    told = "\n".join((*events, caplog.text))
    assert "target() raised LookupError('the signer is away')" in told
    assert "answers 403 expired /mqtt?***" in told
    assert "secret" not in told
