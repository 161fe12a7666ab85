"""Write-ahead: what must be durable before which bytes leave, and what must not wait for it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from device_sdk.mqtt import (
    Disconnect,
    Packet,
    Pingreq,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
)
from device_sdk.mqtt.session import Outgoing, Session
from tests.mqtt.peer import Peer, connected, every_version, messages_in, outgoing
from tests.store.doubles import SlowStore, message_facts, restored, session_facts


class StoredPeer(Peer):
    """A Peer whose session is kept in a slow store, and whose output waits for it."""

    store: SlowStore

    def hand_over(self) -> None:
        """Give the new changes to the store, as the engine does before it sends."""
        changes = self.session.take_changes()
        if changes:
            self.store.submit(changes, self.session.change_number)

    def leaving(self) -> list[Packet]:
        """Return the packets that leave with what is durable now."""
        self.hand_over()
        can_send = self.protocol.can_send(self.store.durable_through)
        packets = self.sent(self.store.durable_through)
        assert bool(packets) == can_send
        return packets

    def commit(self, count: int = 1 << 62) -> list[Packet]:
        """Make changes durable; return the packets that leave for it."""
        self.hand_over()
        self.store.commit(count)
        return self.leaving()

    def publish(self, payload: bytes = b"x", qos: int = 1, **fields: Any) -> Outgoing:
        message = outgoing(payload, qos, version=self.version, **fields)
        record_message(self.session, message)
        self.protocol.publish(message, self.now)
        return message


def record_message(session: Session, message: Outgoing) -> int:
    """Write a message ahead, as the engine's queue does."""
    fields = (message.topic_field, b"x", message.flags, message.properties, message.expires_at)
    return session.record(("message", message.sequence, *fields))


def stored(version: str = "5.0", **arguments: Any) -> StoredPeer:
    """Return a connected StoredPeer with a new session; its changes so far are durable."""
    peer = StoredPeer(version, session=Session(journal=True), **arguments)
    peer.store = SlowStore()
    connected(version, peer=peer)
    peer.session.allocate()  # writes down that a block of packet identifiers is in use from now on
    peer.session.last_packet_id = 0
    peer.commit()
    return peer


def reconnected(peer: StoredPeer, *, present: bool = True) -> StoredPeer:
    peer.hand_over()
    peer.cut()
    second = StoredPeer(peer.version, session=peer.session)
    second.store = peer.store
    connected(peer.version, peer=second, clean_start=False, present=present)
    return second


# What waits


@every_version
def test_a_qos_2_publish_waits_for_its_packet_identifier(version: str) -> None:
    peer = stored(version)
    peer.publish(b"x", 2)
    assert peer.leaving() == []
    assert peer.protocol.has_output
    assert peer.commit(1) == [], "the message is durable, its identifier is not"
    assert peer.commit(1) == [Publish("t", b"x", qos=2, packet_id=1)]


@every_version
def test_a_pubrel_waits_for_its_pubrec(version: str) -> None:
    peer = stored(version)
    peer.publish(b"x", 2)
    peer.commit()
    peer.receive(Pubrec(1))
    assert peer.leaving() == []
    assert peer.commit(1) == [Pubrel(1)]


@every_version
def test_a_pubrec_waits_for_its_packet_identifier(version: str) -> None:
    peer = stored(version)
    messages = messages_in(peer.receive(Publish("t", qos=2, packet_id=5)))
    assert peer.leaving() == []
    for message in messages:
        message.handled = True
    peer.protocol.acknowledge_handled()
    assert peer.leaving() == []
    assert peer.commit(1) == [Pubrec(5)]


@every_version
def test_a_pubcomp_waits_for_the_release_of_its_packet_identifier(version: str) -> None:
    """Else a restart could take the identifier's next message for a repetition, and lose it."""
    peer = stored(version)
    for message in messages_in(peer.receive(Publish("t", qos=2, packet_id=5))):
        message.handled = True
    peer.protocol.acknowledge_handled()
    peer.commit()
    peer.receive(Pubrel(5))
    assert peer.leaving() == []
    assert peer.commit(1) == [Pubcomp(5)]


def test_a_second_pubrel_is_not_answered_before_the_first_is_durable() -> None:
    peer = stored()
    for message in messages_in(peer.receive(Publish("t", qos=2, packet_id=5))):
        message.handled = True
    peer.protocol.acknowledge_handled()
    peer.commit()
    peer.receive(Pubrel(5))
    second = reconnected(peer)
    second.receive(Pubrel(5))
    assert second.leaving() == []
    assert second.commit() == [Pubcomp(5, 0x92)]


# What does not wait


@every_version
def test_qos_0_qos_1_and_puback_do_not_wait(version: str) -> None:
    peer = stored(version)
    peer.publish(b"x", 1)
    for message in messages_in(peer.receive(Publish("t", qos=1, packet_id=5))):
        message.handled = True
    peer.protocol.acknowledge_handled()
    peer.protocol.subscribe([Subscription("a")])
    assert peer.leaving() == [
        Publish("t", b"x", qos=1, packet_id=1),
        Puback(5),
        Subscribe(2, [Subscription("a")]),
    ]


def test_what_follows_a_waiting_packet_keeps_its_place() -> None:
    peer = stored()
    peer.publish(b"1", 1)
    peer.publish(b"2", 2)
    peer.publish(b"3", 1)
    peer.publish(b"4", 2)
    peer.publish(b"5", 1)

    def payloads(packets: list[Packet]) -> list[bytes]:
        return [packet.payload for packet in packets if isinstance(packet, Publish)]

    assert payloads(peer.leaving()) == [b"1"]
    assert payloads(peer.commit(4)) == [b"2", b"3"]
    assert payloads(peer.commit(3)) == []
    assert payloads(peer.commit(1)) == [b"4", b"5"]
    assert peer.protocol.buffered == 0


def test_waiting_output_is_counted() -> None:
    peer = stored()
    peer.publish(b"1", 1)
    peer.publish(bytes(100), 2)
    size = peer.protocol.buffered
    assert 0 < size - len(peer.bytes_sent(0)) == peer.protocol.buffered
    assert peer.protocol.buffered > 100


def test_pingreq_overtakes_packets_that_wait() -> None:
    peer = stored(keep_alive=10)
    peer.publish(b"x", 2)
    peer.advance(10.0)
    assert peer.leaving() == [Pingreq()]
    assert peer.commit() == [Publish("t", b"x", qos=2, packet_id=1)]


def test_disconnect_overtakes_packets_that_wait_and_they_stay_behind() -> None:
    peer = stored()
    peer.publish(b"1", 1)
    peer.publish(b"2", 2)
    peer.protocol.disconnect()
    assert peer.leaving() == [Publish("t", b"1", qos=1, packet_id=1), Disconnect()]
    assert peer.commit() == []
    assert list(peer.session.in_flight) == [1, 2], "the next connection sends them"


# Across connections


@every_version
def test_a_repeated_pubrel_waits_for_what_the_last_connection_wrote(version: str) -> None:
    peer = stored(version)
    peer.publish(b"x", 2)
    peer.commit()
    peer.receive(Pubrec(1))
    second = reconnected(peer)
    assert second.leaving() == []
    assert second.commit() == [Pubrel(1)]


@every_version
def test_a_repeated_publish_waits_for_what_the_last_connection_wrote(version: str) -> None:
    peer = stored(version)
    peer.publish(b"x", 2)
    second = reconnected(peer)
    assert second.leaving() == []
    assert second.commit() == [Publish("t", b"x", qos=2, packet_id=1, dup=True)]


def test_a_repeated_pubrec_waits_for_what_the_last_connection_wrote() -> None:
    peer = stored()
    for message in messages_in(peer.receive(Publish("t", qos=2, packet_id=5))):
        message.handled = True
    peer.protocol.acknowledge_handled()
    second = reconnected(peer)
    second.receive(Publish("t", qos=2, packet_id=5, dup=True))
    assert second.leaving() == []
    assert second.commit() == [Pubrec(5)]


def test_a_lost_session_is_forgotten_before_the_server_can_use_its_identifiers_again() -> None:
    """A server whose session is new sends nothing before it has read a SUBSCRIBE."""
    peer = stored()
    for message in messages_in(peer.receive(Publish("t", qos=2, packet_id=5))):
        message.handled = True
    peer.protocol.acknowledge_handled()
    peer.commit()
    second = reconnected(peer, present=False)
    second.protocol.subscribe([Subscription("a")])
    assert second.leaving() == []
    assert [packet.type for packet in second.commit()] == ["subscribe"]


def test_a_lost_session_without_received_messages_makes_nobody_wait() -> None:
    peer = stored()
    peer.publish(b"x", 1)
    second = reconnected(peer, present=False)
    second.protocol.subscribe([Subscription("a")])
    assert [packet.type for packet in second.leaving()] == ["subscribe"]


# The journal


def test_without_a_journal_nothing_is_numbered_and_nothing_waits() -> None:
    session = Session()
    assert session.record(("done", 1)) == 0
    assert session.take_changes() == []
    peer = connected()
    peer.publish(b"x", 2)
    assert [packet.type for packet in peer.sent(durable_through=0)] == ["publish"]


def test_changes_are_numbered_without_gaps() -> None:
    session = Session(journal=True)
    assert [session.record(("done", number)) for number in (7, 8)] == [1, 2]
    assert session.take_changes() == [("done", 7), ("done", 8)]
    assert session.take_changes() == []
    assert session.record(("lost",)) == session.change_number == 3


def test_the_changes_of_one_exchange_in_each_direction() -> None:
    peer = stored()
    message = peer.publish(b"x", 2)
    peer.receive(Pubrec(1), Pubcomp(1))
    for arrived in messages_in(peer.receive(Publish("t", qos=2, packet_id=5))):
        arrived.handled = True
    peer.protocol.acknowledge_handled()
    peer.receive(Pubrel(5))
    fields = (message.topic_field, b"x", message.flags, message.properties, None)
    assert peer.session.take_changes() == [
        ("message", message.sequence, *fields),
        ("sent", message.sequence, 1),
        ("released", message.sequence),
        ("done", message.sequence, "acknowledged"),
        ("received", 5),
        ("completed", 5),
    ]


def test_a_refused_message_is_done() -> None:
    peer = stored()
    message = peer.publish(b"x", 1)
    peer.receive(Puback(1, 0x87))
    assert peer.session.take_changes()[-1] == ("done", message.sequence, "refused")


# Round trip: the changes make the session again

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 2)),
        st.tuples(st.sampled_from(["queue", "cut", "lose"]), st.just(0)),
        st.tuples(st.sampled_from(["puback", "refuse", "pubrec", "pubcomp"]), st.integers(0, 5)),
        st.tuples(st.sampled_from(["arrive", "pubrel"]), st.integers(1, 4)),
        st.tuples(st.just("handle"), st.integers(0, 3)),
    ),
    max_size=30,
)


class Exchange:
    """Any legal exchange with a server, journal on."""

    def __init__(self) -> None:
        self.peer: Peer = stored()
        self.session = self.peer.session
        self.changes: list[Any] = []
        self.waiting: list[Outgoing] = []
        self.arrived: list[Any] = []

    def do(self, step: str, choice: int) -> None:
        getattr(self, "_" + step)(choice)

    def _publish(self, qos: int) -> None:
        self.peer.publish(b"x", qos)

    def _queue(self, _: int) -> None:
        self.waiting.append(outgoing(b"later", 1))
        record_message(self.session, self.waiting[-1])

    def _answer(self, messages: list[Outgoing], choice: int, answer: type[Packet], *fields: int) -> None:
        if messages:
            self.peer.receive(answer(messages[choice % len(messages)].packet_id, *fields))  # type: ignore[call-arg]

    def _in_flight(self, qos: int) -> list[Outgoing]:
        return [message for message in self.session.in_flight.values() if message.qos == qos]

    def _puback(self, choice: int) -> None:
        self._answer(self._in_flight(1), choice, Puback)

    def _refuse(self, choice: int) -> None:
        self._answer(self._in_flight(2), choice, Pubrec, 0x97)

    def _pubrec(self, choice: int) -> None:
        self._answer(self._in_flight(2), choice, Pubrec)

    def _pubcomp(self, choice: int) -> None:
        self._answer(list(self.session.released.values()), choice, Pubcomp)

    def _arrive(self, packet_id: int) -> None:
        self.arrived += messages_in(self.peer.receive(Publish("t", qos=2, packet_id=packet_id)))

    def _handle(self, choice: int) -> None:
        if choice < len(self.arrived):
            self.arrived.pop(choice).handled = True
            self.peer.protocol.acknowledge_handled()

    def _pubrel(self, packet_id: int) -> None:
        if self.session.received.get(packet_id, self) is None:
            self.peer.receive(Pubrel(packet_id))

    def _cut(self, _: int, present: bool = True) -> None:
        self.peer.cut()
        self.peer = StoredPeer(session=self.session)
        connected(peer=self.peer, clean_start=False, present=present)

    def _lose(self, _: int) -> None:
        given_back = list(self.session.in_flight.values())
        self._cut(0, present=False)
        self.waiting = sorted([*given_back, *self.waiting], key=lambda message: message.sequence)


@given(STEPS)
def test_replaying_the_changes_into_a_store_makes_the_same_session(steps: list[tuple[str, int]]) -> None:
    exchange = Exchange()
    store = SlowStore()
    store.submitted = exchange.session.change_number
    for step, choice in steps:
        exchange.do(step, choice)
        store.submit(exchange.session.take_changes(), exchange.session.change_number)
    store.commit()
    session, waiting = restored(store.cut_power().open())
    assert session_facts(session) == session_facts(exchange.session)
    assert list(map(message_facts, waiting)) == list(map(message_facts, exchange.waiting))
