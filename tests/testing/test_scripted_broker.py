"""ScriptedBroker in memory and on a socket, and the server that gives a broker its socket."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest

from device_sdk.errors import TransportClosedError
from device_sdk.mqtt.decode import decode_packet
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Subscription, Will
from device_sdk.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
)
from device_sdk.net.base import Transport, open_transport
from device_sdk.net.memory import MemoryTransport
from device_sdk.testing.broker_server import BrokerServer, MemoryBrokerServer
from device_sdk.testing.model_broker import ModelBroker
from device_sdk.testing.scripted_broker import (
    ScriptedBroker,
    ScriptedLink,
    close,
    expect,
    expect_close,
    ignore,
    reset,
    send,
    silence,
    stall,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT = 5.0


def give(link: ScriptedLink, *packets: Packet, now: float = 0.0, version: str = "5.0") -> bytes:
    """Hand packets to the link and return its output."""
    link.receive_data(b"".join(encode_packet(each, version) for each in packets), now)
    return link.data_to_send()


def wire(*packets: Packet, version: str = "5.0") -> bytes:
    return b"".join(encode_packet(each, version) for each in packets)


# The script, in memory


@pytest.mark.parametrize("version", ["3.1", "3.1.1", "5.0"])
def test_a_script_is_played_step_by_step(version: str) -> None:
    broker = ScriptedBroker(
        [
            expect("connect", client_id="c1"),
            send(Connack()),
            expect("publish", topic="a", qos=1),
            send(lambda seen: Puback(seen.packet_id)),
            close(),
        ],
        version=version,
    )
    link = broker.connect()
    assert give(link, Connect("c1"), version=version) == wire(Connack(), version=version)
    assert str(link.step) == "expect(publish, topic='a', qos=1)"
    answer = give(link, Publish("a", qos=1, packet_id=9), version=version)
    assert answer == wire(Puback(9), version=version)
    assert link.closed
    assert broker.done
    broker.check()


def test_packets_may_come_in_pieces_and_together() -> None:
    broker = ScriptedBroker([expect("connect"), expect("publish", payload=b"x"), send(b"\xd0\x00")])
    link = broker.connect()
    for byte in wire(Connect("c1"), Publish("a", b"x")):
        link.receive_data(bytes([byte]), 0.0)
    assert link.data_to_send() == b"\xd0\x00"
    broker.check()


def test_without_a_version_the_one_of_connect_is_spoken() -> None:
    link = ScriptedBroker([expect("connect"), send(Connack())]).connect()
    assert give(link, Connect("c1"), version="3.1.1") == wire(Connack(), version="3.1.1")


def test_connect_must_have_the_version_of_the_script() -> None:
    broker = ScriptedBroker([expect("connect")], version="5.0")
    give(broker.connect(), Connect("c1"), version="3.1.1")
    with pytest.raises(AssertionError, match=r"CONNECT is for MQTT 3\.1\.1, not 5\.0"):
        broker.check()


@pytest.mark.parametrize(
    "step",
    [
        expect("publish"),
        expect(Publish("a", b"x", properties={"content_type": "t"})),
        expect(lambda packet: packet.payload == b"x"),
        expect("publish", content_type="t", correlation_data=None),
        expect("publish", payload=lambda payload: len(payload) == 1),
    ],
)
def test_a_packet_is_expected_by_name_value_predicate_field_or_property(step: Any) -> None:
    broker = ScriptedBroker([step])
    give(broker.connect(), Publish("a", b"x", properties={"content_type": "t"}))
    broker.check()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (expect("subscribe"), "it is a PUBLISH"),
        (expect(Publish("b", b"x")), "it differs"),
        (expect(lambda packet: False), "the predicate says no"),
        (expect("publish", topic="b"), "topic is 'a'"),
        (expect("publish", content_type="t"), "content_type is None"),
        (expect_close(), "expected expect_close"),
        (silence(5), "expected silence"),
    ],
)
def test_an_unexpected_packet_fails_with_step_packet_and_hex(step: Any, words: str) -> None:
    broker = ScriptedBroker([expect("connect"), step])
    link = broker.connect()
    give(link, Connect("c1"), Publish("a", b"x"))
    assert link.closed
    with pytest.raises(AssertionError) as caught:
        broker.check()
    text = str(caught.value)
    assert text.startswith("connection 1, step 2 of 2: expected ")
    assert words in text
    assert "Publish(dup=False" in text
    assert "hex 30 05 00 01 61 00 78" in text


def test_bytes_that_are_no_packet_fail_with_their_hex() -> None:
    broker = ScriptedBroker([expect("connect")])
    broker.connect().receive_data(b"\x00\x01\x02", 0.0)
    with pytest.raises(AssertionError, match=r"got no packet: (.|\n)*hex 00 01 02"):
        broker.check()


def test_only_the_first_failure_counts() -> None:
    broker = ScriptedBroker([expect("connect")], [expect("connect")])
    give(broker.connect(), Publish("first"))
    give(broker.connect(), Publish("second"))
    assert "'first'" in str(broker.failure)


def test_steps_that_were_not_played_fail_the_check() -> None:
    broker = ScriptedBroker([expect("connect"), send(Connack()), expect("publish")])
    give(broker.connect(), Connect("c1"))
    with pytest.raises(AssertionError, match=r"step 3 of 3: not played: expect\(publish\)"):
        broker.check()


def test_connections_that_were_not_made_fail_the_check() -> None:
    broker = ScriptedBroker([], [expect("connect")])
    broker.connect()
    with pytest.raises(AssertionError, match="1 of 2 connections"):
        broker.check()


def test_each_connection_has_its_own_script_and_one_more_is_a_failure() -> None:
    broker = ScriptedBroker(
        [expect("connect", clean_start=True), close()], [expect("connect", clean_start=False)]
    )
    give(broker.connect(), Connect("c1"))
    give(broker.connect(), Connect("c1", clean_start=False))
    broker.check()
    assert broker.connect().closed
    with pytest.raises(AssertionError, match="no more connections"):
        broker.check()


def test_pings_are_answered_besides_the_script() -> None:
    broker = ScriptedBroker([expect("connect"), expect("publish")])
    link = broker.connect()
    assert give(link, Connect("c1"), Pingreq(), Publish("a"), Pingreq()) == wire(Pingresp(), Pingresp())
    broker.check()


def test_pings_are_packets_like_others_on_request_or_when_expected() -> None:
    strict = ScriptedBroker([expect("connect")], answer_pings=False)
    assert give(strict.connect(), Connect("c1"), Pingreq()) == b""
    assert "PINGREQ" in str(strict.failure) or "Pingreq" in str(strict.failure)
    expected = ScriptedBroker([expect("pingreq"), send(b"late")])
    assert give(expected.connect(), Pingreq()) == b"late"


def test_after_the_script_only_disconnect_is_fine() -> None:
    broker = ScriptedBroker([expect("connect")])
    link = broker.connect()
    give(link, Connect("c1"), Disconnect())
    broker.check()
    give(link, Publish("a"))
    with pytest.raises(AssertionError, match="expected nothing after the script"):
        broker.check()


def test_ignore_takes_whatever_follows() -> None:
    broker = ScriptedBroker([expect("connect"), ignore()])
    give(broker.connect(), Connect("c1"), Publish("a"), Publish("b"))
    broker.check()


def test_expect_close_is_played_by_the_end_of_the_stream() -> None:
    broker = ScriptedBroker([expect("connect"), expect_close()])
    link = broker.connect()
    give(link, Connect("c1"), Disconnect())
    assert not broker.done
    link.connection_lost(1.0)
    broker.check()


def test_the_end_of_the_stream_fails_a_script_that_waits() -> None:
    broker = ScriptedBroker([expect("connect"), expect("publish")])
    link = broker.connect()
    give(link, Connect("c1"))
    link.connection_lost(1.0)
    with pytest.raises(AssertionError, match=r"expect\(publish\) is still to be played and the client ended"):
        broker.check()


def test_reset_drops_the_output() -> None:
    link = ScriptedBroker([expect("connect"), send(Connack()), reset()]).connect()
    assert give(link, Connect("c1")) == b""
    assert link.reset
    assert link.closed


def test_a_stall_delays_the_answer_and_stops_reading() -> None:
    broker = ScriptedBroker([expect("connect"), stall(10), send(Connack()), expect("publish")])
    link = broker.connect()
    assert give(link, Connect("c1"), Publish("a"), now=1.0) == b""
    assert (broker.next_deadline(), link.reading) == (11.0, False)
    broker.handle_deadline(10.9)
    assert link.data_to_send() == b""
    broker.handle_deadline(11.0)
    assert link.data_to_send() == wire(Connack())
    assert (broker.next_deadline(), link.reading) == (None, True)
    broker.check()


def test_a_stall_for_ever_ends_a_script() -> None:
    broker = ScriptedBroker([expect("connect"), stall()])
    link = broker.connect()
    give(link, Connect("c1"))
    assert broker.next_deadline() == math.inf
    broker.check()
    link.connection_lost(1.0)
    broker.check()


def test_silence_is_played_when_nothing_came() -> None:
    broker = ScriptedBroker([expect("connect"), silence(5), close()])
    link = broker.connect()
    give(link, Connect("c1"), now=1.0)
    broker.handle_deadline(5.9)
    assert not broker.done
    broker.handle_deadline(6.0)
    broker.check()


# On a socket


class Wire:
    """A blocking client socket with a deadline on everything."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT)

    def send(self, *packets: Packet) -> None:
        self.sock.sendall(wire(*packets))

    def read_packets(self, count: int) -> list[Packet]:
        data = b""
        packets: list[Packet] = []
        while len(packets) < count:
            decoded = decode_packet(data, "5.0")
            if decoded is None:
                more = self.sock.recv(1 << 20)
                assert more, f"closed after {packets}"
                data += more
            else:
                packets.append(decoded[0])
                data = data[decoded[1] :]
        return packets

    def ended(self) -> bool:
        return self.sock.recv(65_536) == b""


@contextlib.contextmanager
def opened(server: BrokerServer[Any]) -> Iterator[Wire]:
    client = Wire(server.port)
    with client.sock:
        yield client


def test_a_script_is_played_on_a_socket() -> None:
    script = [
        expect("connect", client_id="c1"),
        send(Connack()),
        expect("publish"),
        send(lambda seen: Puback(seen.packet_id)),
        close(),
    ]
    with BrokerServer(ScriptedBroker(script)) as server, opened(server) as client:
        client.send(Connect("c1"))
        assert client.read_packets(1) == [Connack()]
        client.send(Publish("a", qos=1, packet_id=4))
        assert client.read_packets(1) == [Puback(4)]
        assert client.ended()
        server.broker.check()


def test_a_scripted_reset_is_a_reset() -> None:
    with BrokerServer(ScriptedBroker([expect("connect"), reset()])) as server, opened(server) as client:
        client.send(Connect("c1"))
        with pytest.raises(ConnectionResetError):
            client.sock.recv(1)


def test_a_stall_ends_by_the_clock_of_the_server() -> None:
    script = [expect("connect"), stall(0.01), send(Connack())]
    with BrokerServer(ScriptedBroker(script)) as server, opened(server) as client:
        client.send(Connect("c1"))
        assert client.read_packets(1) == [Connack()]


def test_the_end_of_a_socket_reaches_the_broker() -> None:
    broker = ScriptedBroker([expect("connect"), expect_close()])
    with BrokerServer(broker) as server:
        with opened(server) as client:
            client.send(Connect("c1"))
        server.wait_for(lambda: broker.done, TIMEOUT)
    broker.check()


def test_a_reset_by_the_client_reaches_the_broker() -> None:
    with BrokerServer(ModelBroker()) as server:
        with opened(server) as client:
            client.send(Connect("c1"))
            client.read_packets(1)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.wait_for(lambda: not server.broker.links, TIMEOUT)


def test_the_model_broker_carries_messages_between_sockets() -> None:
    with (
        BrokerServer(ModelBroker(topic_alias_maximum=0)) as server,
        opened(server) as subscriber,
        opened(server) as publisher,
    ):
        assert server.url == f"mqtt://127.0.0.1:{server.port}"
        subscriber.send(Connect("sub"), Subscribe(1, [Subscription("#", 1)]))
        assert subscriber.read_packets(2) == [Connack(), Suback(1, [1])]
        # More than the socket's buffers take at once.
        payload = bytes(8_000_000)
        publisher.send(Connect("pub"), Publish("a", payload, qos=1, packet_id=1))
        assert publisher.read_packets(2) == [Connack(), Puback(1)]
        assert subscriber.read_packets(1) == [Publish("a", payload, qos=1, packet_id=1)]
        server.wait_for(lambda: len(server.broker.journal) == 1, TIMEOUT)


def test_call_sends_what_the_broker_said() -> None:
    with BrokerServer(ModelBroker()) as server, opened(server) as client:
        client.send(Connect("sub"), Subscribe(1, [Subscription("a")]))
        client.read_packets(2)
        server.call(server.broker.publish, "a", b"from the test")
        assert client.read_packets(1) == [Publish("a", b"from the test")]


def test_bytes_after_disconnect_are_seen_on_a_socket_too() -> None:
    with BrokerServer(ModelBroker()) as server, opened(server) as client:
        client.send(Connect("c1"), Disconnect())
        client.read_packets(1)
        assert client.ended()
        client.send(Pingreq())
        server.wait_for(lambda: server.broker.violations, TIMEOUT)


@pytest.mark.parametrize("abort", [False, True])
def test_disconnect_all_cuts_the_streams_and_tells_the_broker(abort: bool) -> None:
    with BrokerServer(ModelBroker()) as server, opened(server) as client:
        client.send(Connect("c1"))
        client.read_packets(1)
        server.disconnect_all(reset=abort)
        if abort:
            with pytest.raises(ConnectionResetError):
                client.sock.recv(1)
        else:
            assert client.ended()
        server.wait_for(lambda: not server.broker.links, TIMEOUT)


def test_wait_for_has_a_deadline() -> None:
    with BrokerServer(ModelBroker()) as server, pytest.raises(TimeoutError, match=r"after 0\.01 s"):
        server.wait_for(lambda: False, timeout=0.01)


def test_a_mistake_in_a_script_is_raised_in_the_test() -> None:
    def mistaken(_: Any) -> bytes:
        raise KeyError("mistake")

    server = BrokerServer(ScriptedBroker([expect("connect"), send(mistaken)])).start()
    with opened(server) as client:
        client.send(Connect("c1"))
        with pytest.raises(KeyError, match="mistake"):
            server.wait_for(lambda: False, TIMEOUT)
    server.stop()


def test_a_stopped_server_has_left_its_port_and_cannot_be_started_again() -> None:
    server = BrokerServer(ModelBroker()).start()
    server.stop()
    server.stop()
    with BrokerServer(ModelBroker(), port=server.port) as successor:
        assert successor.port == server.port
    with pytest.raises(RuntimeError, match="make a new one"):
        server.start()


# In memory


@contextlib.contextmanager
def memory_client(server: MemoryBrokerServer[Any]) -> Iterator[Transport]:
    client = open_transport(server.url)
    client.open(time.monotonic() + TIMEOUT)
    with contextlib.closing(client):
        yield client


def test_a_script_is_played_on_a_memory_stream() -> None:
    script = [expect("connect", client_id="c1"), send(Connack()), expect("publish"), close()]
    with MemoryBrokerServer(ScriptedBroker(script), "script") as server, memory_client(server) as client:
        client.send(wire(Connect("c1")))
        assert client.recv() is None
        assert server.run(0.0)
        assert client.recv() == wire(Connack())
        client.send(wire(Publish("a")))
        server.run(1.0)
        assert client.recv() == b""
        assert not server.run(2.0)
        server.broker.check()


def test_a_scripted_reset_breaks_a_memory_stream() -> None:
    script = [expect("connect"), reset()]
    with MemoryBrokerServer(ScriptedBroker(script), "script") as server, memory_client(server) as client:
        client.send(wire(Connect("c1")))
        server.run(0.0)
        with pytest.raises(TransportClosedError):
            client.recv()


def test_the_model_broker_serves_memory_streams_and_sees_them_end() -> None:
    with MemoryBrokerServer(ModelBroker(), "model") as server:
        with memory_client(server) as subscriber, memory_client(server) as publisher:
            subscriber.send(wire(Connect("sub", keep_alive=10), Subscribe(1, [Subscription("a")])))
            publisher.send(
                wire(Connect("pub", keep_alive=0), Publish("a", bytes(40_000)), Publish("a", b"x"))
            )
            server.run(0.0)
            received = b""
            while (data := subscriber.recv()) is not None:
                received += data
                server.run(0.0)
            assert received.endswith(wire(Publish("a", bytes(40_000)), Publish("a", b"x")))
            server.run(15.0)
            assert [link.client_id for link in server.broker.links] == ["pub"]
            assert subscriber.recv() == wire(Disconnect(0x8D))
        server.run(16.0)
        assert server.broker.links == []


def test_the_will_of_a_reset_memory_client_is_delivered_in_the_same_run() -> None:
    with (
        MemoryBrokerServer(ModelBroker(topic_alias_maximum=0), "model") as server,
        memory_client(server) as observer,
        memory_client(server) as client,
    ):
        observer.send(wire(Connect("observer"), Subscribe(1, [Subscription("#")])))
        client.send(wire(Connect("c1", will=Will("gone", b"x"))))
        server.run(0.0)
        assert observer.recv() == wire(Connack(), Suback(1, [0]))
        assert isinstance(client, MemoryTransport)
        client.reset()
        server.run(1.0)
        assert observer.recv() == wire(Publish("gone", b"x"))


def test_cut_memory_streams_are_lost_to_the_broker() -> None:
    with MemoryBrokerServer(ModelBroker(), "model") as server, memory_client(server) as client:
        client.send(wire(Connect("c1")))
        server.run(0.0)
        server.disconnect_all(1.0, reset=True)
        assert server.broker.links == []
        with pytest.raises(TransportClosedError):
            client.recv()
