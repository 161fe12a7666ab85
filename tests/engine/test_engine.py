"""The life cycle: a stream opens, breaks, stalls or is closed, or something unforeseen fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from device_sdk.errors import RemoteProtocolError, TransportClosedError
from device_sdk.mqtt.message import Subscription
from device_sdk.mqtt.packets import Connack, Connect, Disconnect, Publish
from device_sdk.store.memory import MemoryStore
from tests.engine.rig import Rig, SlowStore, payloads, types


def first_connect(rig: Rig) -> Connect:
    packet = rig.open()[0]
    assert isinstance(packet, Connect)
    return packet


def test_a_memory_client_begins_clean_once_and_resumes_afterwards() -> None:
    rig = Rig()
    starts = [first_connect(rig).clean_start]
    rig.lose()  # nobody answered: it is still the first time
    rig.advance(1)
    starts.append(first_connect(rig).clean_start)
    rig.feed(Connack())
    rig.lose()
    rig.advance(2)
    starts.append(first_connect(rig).clean_start)
    assert starts == [True, True, False]


def test_a_client_with_a_store_always_resumes() -> None:
    assert not first_connect(Rig(store=MemoryStore())).clean_start


@pytest.mark.parametrize("wanted", [True, False])
def test_clean_start_can_be_chosen(wanted: bool) -> None:
    rig = Rig(clean_start=wanted)
    for _ in range(2):
        assert first_connect(rig).clean_start is wanted
        rig.feed(Connack())
        rig.lose()
        rig.advance(rig.retry_delay())


def test_the_states_of_a_life() -> None:
    rig = Rig()
    states = [rig.engine.life.state]
    rig.connect()
    states.append(rig.engine.life.state)
    rig.lose()
    states.append(rig.engine.life.state)
    rig.engine.end()
    rig.engine.close_store()
    assert [*states, rig.engine.life.state] == ["connecting", "connected", "waiting", "closed"]


def test_a_connection_that_breaks_while_sending_is_reported_and_tried_again() -> None:
    rig = Rig()
    rig.connect()
    rig.events()
    rig.transport.broken = True
    rig.publish(b"x")
    assert rig.sent() == []
    assert rig.engine.life.state == "waiting"
    assert rig.events() == ["disconnected"]
    rig.advance(1)
    assert payloads(rig.connect(session_present=True)) == [b"x"]


def test_a_partial_send_goes_on_with_the_rest_and_then_with_what_follows() -> None:
    rig = Rig()
    rig.connect()
    rig.transport.room = 5
    rig.publish(b"a" * 50)
    rig.publish(b"b" * 50)
    assert rig.sent() == []
    with rig.engine.lock:
        assert not rig.engine.has_output()  # blocked: nothing to do until the transport has room
    rig.transport.room = None
    rig.engine.on_writable(rig.clock())
    assert payloads(rig.sent()) == [b"a" * 50, b"b" * 50]


def test_what_was_left_of_a_broken_connection_is_not_sent_on_the_next() -> None:
    rig = Rig()
    rig.connect()
    rig.transport.room = 3
    rig.publish(b"half")
    rig.sent()
    rig.transport.room = None
    rig.lose()
    rig.advance(1)
    assert types(rig.open()) == ["connect"]


def test_a_malformed_packet_ends_the_connection_with_its_reason() -> None:
    rig = Rig()
    rig.connect()
    rig.publish(b"x")
    rig.sent()
    [goodbye] = rig.feed(b"\x30\x03\x00\x05ab")
    assert isinstance(goodbye, Disconnect)
    assert goodbye.reason_code == 0x81
    assert isinstance(rig.engine.life.last_error, RemoteProtocolError)
    assert rig.transport.closes == 1
    rig.advance(1)
    assert payloads(rig.connect(session_present=True)) == [b"x"]


def test_nothing_follows_the_servers_disconnect() -> None:
    store = SlowStore()
    rig = Rig(store=store)
    rig.connect()
    store.commit()
    rig.publish(b"waits for the store", qos=2)
    rig.publish(b"waits behind it", qos=2)
    assert rig.feed(Disconnect(0x8B)) == []


def test_closing_sends_everything_and_disconnect_last() -> None:
    rig = Rig()
    rig.connect()
    rig.publish(b"x", qos=0)
    with rig.engine.lock:
        rig.engine.close_connection()
    assert types(rig.sent()) == ["publish", "disconnect"]
    assert not rig.engine.has_connection()
    assert rig.transport.closes == 1


def test_a_stream_that_ends_while_closing_is_no_failed_attempt() -> None:
    rig = Rig()
    rig.connect()
    rig.events()
    rig.transport.room = 0
    with rig.engine.lock:
        rig.engine.close_connection()
    rig.lose()
    assert rig.events() == []
    assert rig.engine.life.state == "closing"


def test_a_stream_that_opens_after_the_close_says_nothing() -> None:
    """A CONNECT that nobody ends with DISCONNECT would publish the will."""
    rig = Rig()
    with rig.engine.lock:
        rig.engine.close_connection()
    assert rig.open() == []
    assert not rig.engine.has_connection()


def test_drained_means_acknowledged_sent_and_handled() -> None:
    rig = Rig()
    rig.connect()

    def drained() -> bool:
        with rig.engine.lock:
            return rig.engine.is_drained()

    assert drained()
    rig.publish(b"x")
    assert not drained()
    [packet] = rig.sent()
    assert not drained()
    rig.feed(b"\x40\x02" + packet.packet_id.to_bytes(2, "big"))
    assert drained()
    rig.feed(Publish("a", b"in", qos=0))
    assert not drained()
    rig.handle()
    assert drained()


def test_leftovers_of_a_dead_connection_do_not_hold_up_the_close() -> None:
    rig = Rig()
    rig.connect()
    rig.transport.room = 2
    rig.publish(b"qos 0 that never left", qos=0)
    rig.sent()
    rig.lose()
    with rig.engine.lock:
        assert rig.engine.is_drained()


def test_an_unforeseen_error_ends_the_connection_with_an_event_and_nothing_is_lost() -> None:
    rig = Rig()
    rig.connect()
    rig.publish(b"x")
    rig.sent()
    rig.events()
    error = KeyError("surprise")
    rig.engine.on_fault(error, rig.clock())
    fault, ended = rig.event_objects()
    assert (fault.kind, fault.error, ended.kind) == ("internal_error", error, "disconnected")
    assert "KeyError" in fault.text
    rig.advance(1)
    assert payloads(rig.connect(session_present=True)) == [b"x"]


def test_an_unforeseen_error_between_connections_backs_off_as_well() -> None:
    rig = Rig()
    rig.engine.on_fault(KeyError("surprise"), rig.clock())
    assert rig.engine.life.state == "waiting"
    rig.engine.on_fault(KeyError("again"), rig.clock())
    assert rig.retry_delay() == 1  # a wait goes on


def test_a_transport_whose_deadline_fails_ends_the_connection() -> None:
    rig = Rig(keep_alive=10)
    rig.connect()

    def dead(now: float) -> None:
        raise TransportClosedError("the modem does not answer")

    rig.transport.handle_deadline = dead  # type: ignore[method-assign]
    rig.advance(9)
    assert rig.engine.life.state == "waiting"
    assert "modem" in str(rig.engine.life.last_error)


def test_a_flood_of_output_lets_the_shell_read_in_between() -> None:
    rig = Rig()
    rig.connect()
    sends = []

    def send(data: bytes | bytearray | memoryview) -> int:
        sends.append(len(data))
        rig.publish(b"x" * 1000, qos=0)  # the application is as fast as the network
        return len(data)

    rig.transport.send = send  # type: ignore[method-assign]
    rig.publish(b"first", qos=0)
    rig.engine.flush(rig.clock())
    assert 1 < len(sends) < 100
    with rig.engine.lock:
        assert rig.engine.has_output()


def test_on_event_that_raises_is_logged_and_not_an_event_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()

    def hook(event: object) -> None:
        raise RuntimeError("the hook is broken")

    rig.engine.events.reporter.on_event = hook
    rig.connect()
    rig.handle()
    assert not rig.engine.events.queue
    assert "on_event raised" in caplog.text


def test_on_disconnect_gets_the_error_and_on_connect_the_answer() -> None:
    seen: list[object] = []
    rig = Rig(on_connect=seen.append, on_disconnect=seen.append)
    rig.connect(session_present=False, receive_maximum=7)
    rig.lose()
    rig.handle()
    assert getattr(seen[0], "properties", {})["receive_maximum"] == 7
    assert isinstance(seen[1], TransportClosedError)


def test_the_end_of_a_connection_is_reported_with_its_place_once() -> None:
    rig = Rig()
    rig.connect()
    rig.transport.recv = fail_with(TransportClosedError("hand made: reset"))  # type: ignore[method-assign]
    rig.engine.on_readable(rig.clock())
    [text] = [event.text for event in rig.event_objects() if event.kind == "disconnected"]
    assert text.startswith("hand made: reset; next attempt")


def fail_with(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_requests_of_a_dropped_connection_are_asked_again() -> None:
    rig = Rig()
    rig.connect()
    rig.engine.incoming.subscribe([Subscription("a", 1)], None)
    assert types(rig.sent()) == ["subscribe"]
    with rig.engine.lock:
        rig.engine.close_connection()
    rig.sent()
    rig.engine.drop_connection()
    with rig.engine.lock:
        rig.engine.life.start()
    assert types(rig.connect(session_present=True)) == ["subscribe"]
