"""The session by itself: identifiers, encoding of a message, and what losing it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_sdk.errors import LocalProtocolError
from device_sdk.mqtt import Publish, encode_packet
from device_sdk.mqtt.session import ACKNOWLEDGED, PENDING_STATES, QUEUED, Session
from device_sdk.mqtt.wire import encode_properties
from tests.mqtt.peer import outgoing


def test_a_new_session_is_empty() -> None:
    session = Session()
    assert len(session) == 0
    assert session.lose() == ([], [])
    assert session.generation == 1


def test_identifiers_start_at_1_and_skip_those_in_use() -> None:
    session = Session()
    session.in_flight[1] = outgoing()
    session.released[2] = outgoing()
    session.requests[4] = ("suback", 1)
    assert [session.allocate() for _ in range(3)] == [3, 5, 6]
    assert len(session) == 2, "requests are no messages"


@pytest.mark.conformance("5.0", "MQTT-2.2.1-3")
@pytest.mark.conformance("3.1.1", "MQTT-2.3.1-2")
def test_identifiers_wrap_past_0() -> None:
    session = Session()
    session.last_packet_id = 65_534
    session.in_flight[1] = outgoing()
    assert [session.allocate() for _ in range(2)] == [65_535, 2]


def test_the_last_free_identifier_is_found_and_then_there_is_none() -> None:
    session = Session()
    session.in_flight.update((number, outgoing()) for number in range(1, 65_536) if number != 7)
    assert session.allocate() == 7
    session.requests[7] = ("suback", 1)
    with pytest.raises(LocalProtocolError, match="65,535"):
        session.allocate()


@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.conformance("5.0", "MQTT-2.2.1-3")
@pytest.mark.conformance("3.1.1", "MQTT-2.3.1-2")
def test_a_withheld_identifier_is_given_to_nobody_until_the_session_is_lost(journal: bool) -> None:
    session = Session(journal=journal)
    assert session.allocate() == 1
    session.take_changes()
    session.withhold(2)
    session.restore_withheld([4])
    assert session.take_changes() == ([("withheld", 2)] if journal else [])
    assert [session.allocate(), session.allocate(), session.allocate_from(2)] == [3, 5, 3]
    session.last_packet_id = 65_535
    assert [session.allocate() for _ in range(4)] == [1, 3, 5, 6]
    session.lose()
    assert session.allocate_from(2) == 2


def test_withheld_identifiers_can_use_up_all_that_there_are() -> None:
    session = Session()
    session.restore_withheld(number for number in range(1, 65_536) if number != 7)
    assert session.allocate() == 7
    session.withhold(7)
    with pytest.raises(LocalProtocolError, match="65,535"):
        session.allocate()


def test_losing_a_session_parts_what_to_repeat_from_what_is_finished() -> None:
    session = Session(journal=True)
    first, second, third = outgoing(qos=1), outgoing(qos=2), outgoing(qos=2)
    session.in_flight.update({9: first, 3: second})
    session.released[5] = third
    session.received[8] = None
    session.requests[4] = ("suback", 1)
    assert session.lose() == ([first, second], [third])
    assert (len(session), session.received) == (0, {})
    assert [message.status for message in (first, second, third)] == [QUEUED, QUEUED, ACKNOWLEDGED]
    assert session.take_changes() == [("done", third.sequence, "acknowledged"), ("lost",)]


def test_a_new_message_waits_to_be_published() -> None:
    message = outgoing(b"x", 2, retain=True)
    assert (message.qos, message.retain, message.status) == (2, True, "queued")
    assert message.status in PENDING_STATES


@given(
    st.binary(max_size=300) | st.integers(16_000, 17_000).map(bytes),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from([{}, {"content_type": "text/plain"}, {"user_property": [["a", "b" * 200]]}]),
    st.none() | st.integers(1, 1000),
)
def test_a_message_encodes_as_the_codec_does(
    payload: bytes, qos: int, retain: bool, properties: dict[str, object], expiry: int | None
) -> None:
    expires_at = None if expiry is None else 50.0 + expiry
    message = outgoing(payload, qos, topic="a/é", retain=retain, expires_at=expires_at)
    message.properties = encode_properties(properties, "publish")
    # The message expiry interval comes first: the order of the dict is that of the bytes.
    expected = properties if expiry is None else {"message_expiry_interval": expiry, **properties}
    packet = Publish(
        "a/é", payload, qos=qos, retain=retain, packet_id=7 if qos else None, properties=expected
    )
    assert message.encode(7 if qos else 0, 50.0) == encode_packet(packet, "5.0")


@pytest.mark.parametrize("size", [3, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_the_fixed_header_has_the_shortest_remaining_length(size: int) -> None:
    packet = outgoing(b"x" * (size - 3), 0, topic="t", retain=True, version="3.1.1").encode(0, 0.0)
    header = packet[: len(packet) - size]
    assert header[0] == 0x31
    assert len(header) == 2 + (size > 127) + (size > 16_383) + (size > 2_097_151)
    assert sum((byte & 127) << 7 * index for index, byte in enumerate(header[1:])) == size
