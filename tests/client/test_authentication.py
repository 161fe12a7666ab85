"""Enhanced authentication: the application's authenticator against a broker that plays a script."""

from __future__ import annotations

import queue
import threading
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk import Authenticator, Client, Message
from device_sdk.engine.connecting.back_off import ReconnectPolicy
from device_sdk.errors import (
    ArgumentError,
    ArgumentTypeError,
    AuthenticationError,
    ClosedError,
    DeviceSdkError,
    LocalProtocolError,
    NotConnectedError,
    RefusedError,
    RemoteProtocolError,
)
from device_sdk.mqtt.packets import Auth, Connack, Disconnect, Puback
from device_sdk.testing import BrokerServer, ScriptedBroker
from device_sdk.testing.scripted_broker import Step, close, expect, expect_close, ignore, send
from tests.steps import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

METHOD = {"authentication_method": "REVERSE"}
NEVER_AGAIN = ReconnectPolicy(first=1_000, longest=1_000)


def data(value: bytes | None) -> dict[str, Any]:
    return METHOD if value is None else {**METHOD, "authentication_data": value}


class Reverse(Authenticator):
    """Answers with the challenge backwards; the server proves itself with ``proof``."""

    method = "REVERSE"

    def __init__(self, proof: bytes | None = None) -> None:
        self.proof = proof
        self.starts = 0

    def start(self) -> bytes | None:
        self.starts += 1
        return b"start %d" % self.starts

    def respond(self, data: bytes) -> bytes | None:
        return data[::-1]

    def finish(self, data: bytes | None) -> None:
        if data != self.proof:
            raise ValueError(f"{data!r} proves nothing")


CONNECT = [
    expect("connect", authentication_method="REVERSE", authentication_data=b"start 1"),
    send(Auth(0x18, data(b"abc"))),
    expect("auth", reason_code=0x18, authentication_method="REVERSE", authentication_data=b"cba"),
]
ACCEPTED = [*CONNECT, send(Connack(False, 0, METHOD))]


@contextmanager
def scripted(*scripts: list[Step]) -> Iterator[BrokerServer[ScriptedBroker]]:
    """A broker that plays the scripts, all of them, before the test ends."""
    with BrokerServer(ScriptedBroker(*scripts, version="5.0")) as server:
        yield server
        server.wait_for(lambda: server.broker.done or server.broker.failure is not None, timeout=5)
        server.broker.check()


def client_for(broker: BrokerServer[ScriptedBroker], auth: Authenticator, **options: Any) -> Client:
    return Client(broker.url, auth=auth, reconnect=NEVER_AGAIN, **options)


def outcome(client: Client) -> queue.SimpleQueue[object]:
    """Re-authenticate in a thread of its own; the error, or None."""
    results: queue.SimpleQueue[object] = queue.SimpleQueue()

    def run() -> None:
        try:
            client.reauthenticate(10)
        except DeviceSdkError as error:
            results.put(error)
        else:
            results.put(None)

    threading.Thread(target=run).start()
    return results


@pytest.mark.conformance("5.0", "MQTT-4.12.0-2", "MQTT-4.12.0-3")
def test_the_exchange_comes_before_connack_and_its_data_are_checked() -> None:
    script = [*CONNECT, send(Connack(False, 0, data(b"it is me"))), ignore()]
    with scripted(script) as broker, closing(client_for(broker, Reverse(b"it is me"))) as client:
        client.connect(5)
        assert client.state == "connected"


@pytest.mark.conformance("5.0", "MQTT-4.12.0-2", "MQTT-4.12.0-3")
def test_several_rounds_are_answered_and_none_is_data_too() -> None:
    class Silent(Reverse):
        def respond(self, data: bytes) -> bytes | None:
            return data[::-1] or None

    script = [
        *CONNECT,
        send(Auth(0x18, METHOD)),
        expect("auth", authentication_method="REVERSE", authentication_data=None),
        send(Connack(False, 0, METHOD)),
        ignore(),
    ]
    with scripted(script) as broker, closing(client_for(broker, Silent())) as client:
        client.connect(5)


def test_a_server_that_proves_nothing_gets_disconnect_and_no_message() -> None:
    script = [*CONNECT, send(Connack(False, 0, data(b"wrong"))), expect("disconnect", reason_code=0x80)]
    with scripted([*script, expect_close()]) as broker:
        client = client_for(broker, Reverse(b"right"))
        client.publish("secret", b"x", qos=1)
        with pytest.raises(AuthenticationError, match=r"REVERSE: finish\(\) raised ValueError: b'wrong'"):
            client.connect(5)
        assert (client.stats.connects, client.stats.queued) == (0, 1)
        client.close(0)


def test_an_authenticator_that_fails_sends_disconnect() -> None:
    class Failing(Reverse):
        def respond(self, data: bytes) -> bytes | None:
            raise RuntimeError("no key")

    script = [expect("connect"), send(Auth(0x18, METHOD)), expect("disconnect", reason_code=0x80)]
    with (
        scripted([*script, expect_close()]) as broker,
        closing(client_for(broker, Failing())) as client,
        pytest.raises(AuthenticationError, match=r"respond\(\) raised RuntimeError: no key"),
    ):
        client.connect(5)


@pytest.mark.parametrize("returned", ["text", b"x" * 65_536])
def test_without_data_to_begin_with_nothing_is_sent(returned: Any) -> None:
    class Wrong(Reverse):
        def start(self) -> bytes | None:
            found: bytes = returned
            return found

    with (
        scripted([expect_close()]) as broker,
        closing(client_for(broker, Wrong())) as client,
        pytest.raises(AuthenticationError, match=r"start\(\) must return up to 65,535 bytes"),
    ):
        client.connect(5)


def test_a_server_with_another_method_is_refused() -> None:
    script = [expect("connect"), send(Connack(False, 0, {"authentication_method": "OTHER"})), ignore()]
    with (
        scripted(script) as broker,
        closing(client_for(broker, Reverse())) as client,
        pytest.raises(RemoteProtocolError, match="authentication method"),
    ):
        client.connect(5)


@pytest.mark.parametrize("reason_code", [0x00, 0x19])
def test_auth_that_is_not_the_servers_turn_ends_the_attempt(reason_code: int) -> None:
    script = [expect("connect"), send(Auth(reason_code, METHOD)), expect("disconnect"), expect_close()]
    with (
        scripted(script) as broker,
        closing(client_for(broker, Reverse())) as client,
        pytest.raises((AuthenticationError, RemoteProtocolError)),
    ):
        client.connect(5)


@pytest.mark.conformance("5.0", "MQTT-4.12.1-1", "MQTT-4.12.0-3")
def test_reauthentication_runs_on_the_connection_while_messages_go_on() -> None:
    script = [
        *ACCEPTED,
        expect("auth", reason_code=0x19, authentication_method="REVERSE", authentication_data=b"start 2"),
        send(Auth(0x18, data(b"xyz"))),
        expect("auth", reason_code=0x18, authentication_data=b"zyx"),
        send(Auth(0x00, METHOD)),
        expect("publish"),
        send(lambda seen: Puback(seen.packet_id)),
        ignore(),
    ]
    with scripted(script) as broker, closing(client_for(broker, Reverse())) as client:
        client.connect(5)
        client.reauthenticate(5)
        client.publish("t", b"x", qos=1).wait(5)
        assert client.stats.connects == 1


@pytest.mark.conformance("5.0", "MQTT-4.12.1-2")
def test_a_refused_reauthentication_raises_the_servers_reason() -> None:
    refusal = Disconnect(0x87, {"reason_string": "expired key"})
    script = [*ACCEPTED, expect("auth", reason_code=0x19), send(refusal), close()]
    with scripted(script) as broker, closing(client_for(broker, Reverse())) as client:
        client.connect(5)
        with pytest.raises(RefusedError, match="expired key") as caught:
            client.reauthenticate(5)
        assert caught.value.reason_code == 0x87


@pytest.mark.conformance("5.0", "MQTT-4.12.1-2")
def test_a_reauthentication_that_fails_on_our_side_ends_the_connection_with_disconnect() -> None:
    script = [
        *ACCEPTED,
        expect("auth", reason_code=0x19),
        send(Auth(0x00, data(b"unproven"))),
        expect("disconnect", reason_code=0x80),
        expect_close(),
    ]
    with scripted(script) as broker, closing(client_for(broker, Reverse())) as client:
        client.connect(5)
        with pytest.raises(AuthenticationError, match="unproven"):
            client.reauthenticate(5)
        eventually(lambda: client.state == "waiting")


def test_only_one_reauthentication_goes_on_at_a_time_and_close_ends_it() -> None:
    with scripted([*ACCEPTED, expect("auth", reason_code=0x19), ignore()]) as broker:
        client = client_for(broker, Reverse())
        client.connect(5)
        first = outcome(client)
        broker.wait_for(lambda: len(broker.broker.received) == 3, timeout=5)
        with pytest.raises(LocalProtocolError, match="going on already"):
            client.reauthenticate(5)
        client.close(0)
        assert isinstance(first.get(timeout=5), ClosedError)


def test_reauthentication_without_an_answer_is_a_timeout() -> None:
    with (
        scripted([*ACCEPTED, expect("auth", reason_code=0x19), ignore()]) as broker,
        closing(client_for(broker, Reverse())) as client,
    ):
        client.connect(5)
        with pytest.raises(TimeoutError, match=r"no outcome within 0\.05 s"):
            client.reauthenticate(0.05)


def test_it_needs_a_connection_and_an_authenticator() -> None:
    with pytest.raises(NotConnectedError):
        Client("memory://nobody", auth=Reverse()).reauthenticate()
    with pytest.raises(ArgumentError, match="auth: "):
        Client("memory://nobody").reauthenticate()


class Nameless(Reverse):
    method = ""


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"auth": Reverse(), "version": "3.1.1"}, "auth"),
        ({"auth": Nameless()}, "auth"),
        ({"auth": Reverse(), "properties": METHOD}, "properties"),
    ],
)
def test_a_client_that_cannot_authenticate_so_is_not_made(options: dict[str, Any], argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Client("memory://nobody", **options)
    assert caught.value.argument == argument


def test_an_authenticator_is_an_authenticator() -> None:
    wrong: Any = "SCRAM"
    with pytest.raises(ArgumentTypeError, match="auth: must be an Authenticator"):
        Client("memory://nobody", auth=wrong)


def test_a_busy_handler_does_not_delay_the_exchange() -> None:
    free = threading.Event()
    hello = [send(Connack(False, 0, METHOD)), send(b"\x30\x04\x00\x01t\x00")]
    again = [expect("auth", reason_code=0x19), send(Auth(0x18, data(b"q"))), expect("auth")]
    handled: list[Message] = []

    def handler(message: Message) -> None:
        handled.append(message)
        assert free.wait(5)

    script = [*CONNECT, *hello, *again, send(Auth(0x00, METHOD)), ignore()]
    with scripted(script) as broker, closing(client_for(broker, Reverse(), on_message=handler)) as client:
        client.connect(5)
        eventually(lambda: handled)
        client.reauthenticate(5)
        free.set()
