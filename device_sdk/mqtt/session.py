"""The session: the state that client and server keep beyond one network connection.

Source: MQTT 5.0 §4.1, §4.3, §4.4; MQTT 3.1.1 §3.1.2.4, §4.4. Client and server packet identifiers are two
separate name spaces, hence ``in_flight``/``released`` on one side and ``received`` on the other.

Write-ahead. A session that is kept in a store emits numbered *changes*. The protocol marks each chunk of
output that must not overtake a change with the number of that change. Without a store nothing is numbered.
"""

from __future__ import annotations

from math import ceil

from device_sdk.errors import LocalProtocolError
from device_sdk.mqtt.skipping import Unreadable
from device_sdk.mqtt.wire import encode_varint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from typing import Any

    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.message import AckToken, Message

    Change = tuple[Any, ...]

__all__ = [
    "ACKNOWLEDGED",
    "CANCELLED",
    "DROPPED",
    "EXPIRED",
    "FIRST_BYTES",
    "INVALIDATED",
    "PENDING_STATES",
    "QUEUED",
    "REFUSED",
    "SENT",
    "SHORT_LENGTHS",
    "STORED",
    "Outgoing",
    "Session",
]

# The states of an outgoing message, in the public API's words.
QUEUED = "queued"
STORED = "stored"
SENT = "sent"
ACKNOWLEDGED = "acknowledged"
REFUSED = "refused"
EXPIRED = "expired"
DROPPED = "dropped"
INVALIDATED = "invalidated"
CANCELLED = "cancelled"
PENDING_STATES = frozenset({QUEUED, STORED, SENT})

_HIGHEST_PACKET_ID = 65_535
_RESERVED_BLOCK = 1_024  # packet identifiers that a journal entry sets aside; a crash skips the rest of them
_PUBLISH = 0x30
#: First byte of a PUBLISH by its flags, and remaining lengths of one byte: enough for nearly every message.
FIRST_BYTES = [bytes((_PUBLISH | flags,)) for flags in range(16)]
SHORT_LENGTHS = [bytes((length,)) for length in range(128)]


class Outgoing:
    """One application message on its way out.

    A single object is the record in the queue, the entry in the window and the completion event, so that a
    message costs one allocation. ``topic_field`` is the encoded topic name with its length; ``properties``
    the encoded property block with its length (MQTT 5.0) or empty (3.x), without the message expiry interval,
    which is worked out from ``expires_at`` (seconds of the caller's clock, or ``None``) when the packet is
    made; ``flags`` are the QoS and RETAIN bits of the fixed header. ``packet`` is the encoded PUBLISH, kept
    for the repeat after a reconnect; of a message in flight it is ``None`` if this connection cannot take it.
    ``answer``: reason code and properties of PUBACK, PUBREC or PUBCOMP, of the first that says more than
    success.
    """

    __slots__ = (
        "answer",
        "error",
        "expires_at",
        "flags",
        "packet",
        "packet_id",
        "payload",
        "properties",
        "sequence",
        "status",
        "topic_field",
    )

    def __init__(
        self,
        topic_field: bytes,
        payload: bytes,
        flags: int,
        properties: bytes = b"",
        expires_at: float | None = None,
    ) -> None:
        self.topic_field = topic_field
        self.payload = payload
        self.flags = flags
        self.properties = properties
        self.expires_at = expires_at
        self.sequence = 0
        self.status: str = QUEUED
        self.packet_id = 0
        self.packet: bytes | None = None
        self.error: DeviceSdkError | None = None
        self.answer: tuple[int, dict[str, Any]] | None = None

    @property
    def qos(self) -> int:
        """0, 1 or 2."""
        return (self.flags & 6) >> 1

    @property
    def retain(self) -> bool:
        """Whether the server keeps the message for later subscribers."""
        return bool(self.flags & 1)

    def encode(self, packet_id: int, now: float) -> bytes:
        """Return the PUBLISH packet; ``packet_id`` is 0 at QoS 0, ``now`` matters only with an expiry."""
        topic, payload = self.topic_field, self.payload
        properties = self.properties if self.expires_at is None else self.current_properties(now)
        identifier = packet_id.to_bytes(2, "big") if packet_id else b""
        size = len(topic) + len(identifier) + len(properties) + len(payload)
        length = SHORT_LENGTHS[size] if size < 128 else encode_varint(size)
        return b"".join((FIRST_BYTES[self.flags], length, topic, identifier, properties, payload))

    def current_properties(self, now: float) -> bytes:
        """Return the property block; an expiry interval is the time left, at least one second."""
        block = self.properties
        if self.expires_at is None or not block:
            return block
        start = next(index for index in range(4) if block[index] < 128) + 1
        seconds = min(max(1, ceil(self.expires_at - now)), 0xFFFFFFFF)
        body = b"\x02" + seconds.to_bytes(4, "big") + block[start:]
        return encode_varint(len(body)) + body


class Session:
    """State that survives the network connection. Not thread-safe: the engine's lock guards it."""

    def __init__(self, *, journal: bool = False) -> None:
        self.in_flight: dict[int, Outgoing] = {}  # PUBLISH sent, in the order of sending
        self.released: dict[int, Outgoing] = {}  # PUBREC received, in the order of the PUBRECs
        self.received: dict[int, Message | AckToken | None] = {}  # incoming QoS 2: not yet released by PUBREL
        self.unreadable = Unreadable()
        # Those of them that PUBREC answered at once, see ProtocolRules: whether their PUBREL has come.
        self.releases: dict[int, bool] = {}
        self.requests: dict[int, Any] = {}  # SUBSCRIBE and UNSUBSCRIBE; these end with the connection
        self.withheld: set[int] = set()  # of messages given up unanswered: the server may still have them
        self.last_packet_id = 0
        self._reserved = 0 if journal else _HIGHEST_PACKET_ID  # identifiers up to here may be given out
        self.generation = 0  # how often the server lost the session
        self.known = False  # whether a connection has begun it, in this process or an earlier one
        self.outlives_connection = True  # False: a clean session of MQTT 3.1, whose CONNACK cannot say so
        self.journal = journal
        self.change_number = 0
        self._changes: list[Change] = []

    def __len__(self) -> int:
        """Messages that the server has not finished acknowledging."""
        return len(self.in_flight) + len(self.released)

    def restore_received(self, packet_ids: Iterable[int], *, known: bool) -> None:
        """Remember incoming QoS 2 messages of an earlier process; ``known``: the session is its session."""
        self.received.update(dict.fromkeys(packet_ids))
        self.known = known

    def restore_withheld(self, packet_ids: Iterable[int]) -> None:
        """Withhold the packet identifiers that an earlier process withheld."""
        self.withheld.update(packet_ids)

    def withhold(self, packet_id: int) -> None:
        """Give this packet identifier to no message until the server has lost the session.

        Its PUBLISH was sent, and the message ends here without an answer. The server may have it, so it may
        take another message under this identifier for a repetition, or answer the wrong one.
        Source: MQTT 5.0 §2.2.1 [MQTT-2.2.1-3], §4.3.3.
        """
        self.withheld.add(packet_id)
        self.record(("withheld", packet_id))

    def outlive_connection(self, outlives: bool) -> None:
        """Note whether the server's session outlives its connection. Source: MQTT 3.1 §3.1."""
        self.outlives_connection = outlives

    def skip_to(self, packet_id: int) -> None:
        """Continue packet identifiers after this one, 0 to 65,535."""
        self.last_packet_id = packet_id

    def allocate(self) -> int:
        """Reserve the next free packet identifier.

        Returns: 1..65535, unused by any PUBLISH, SUBSCRIBE or UNSUBSCRIBE of this client, and not withheld.
        Raises: LocalProtocolError: all 65,535 are in use.
        Source: MQTT 5.0 §2.2.1 [MQTT-2.2.1-3].
        """
        packet_id = self.last_packet_id + 1
        if (
            packet_id <= self._reserved
            and packet_id not in self.in_flight
            and packet_id not in self.released
            and packet_id not in self.requests
            and packet_id not in self.withheld
        ):
            self.last_packet_id = packet_id
            return packet_id
        return self._search_packet_id()

    def allocate_from(self, packet_id: int) -> int:
        """As :meth:`allocate`, but from this identifier on. Later searches continue where they were."""
        last, self.last_packet_id = self.last_packet_id, packet_id - 1
        try:
            return self.allocate()
        finally:
            self.last_packet_id = last

    def _search_packet_id(self) -> int:
        """The slow half of :meth:`allocate`: wrap around, skip identifiers in use, reserve the next block.

        The journal is one block ahead, so that a crash cannot hide that an identifier was given out.
        """
        packet_id = self.last_packet_id
        for _ in range(_HIGHEST_PACKET_ID):
            packet_id = packet_id + 1 if packet_id < _HIGHEST_PACKET_ID else 1
            if (
                packet_id not in self.in_flight
                and packet_id not in self.released
                and packet_id not in self.requests
                and packet_id not in self.withheld
            ):
                if self.journal and not self.last_packet_id < packet_id <= self._reserved:
                    self._reserved = min(packet_id + _RESERVED_BLOCK, _HIGHEST_PACKET_ID)
                    ahead = min(self._reserved + _RESERVED_BLOCK, _HIGHEST_PACKET_ID)
                    self.record(("reserved", ahead))
                self.last_packet_id = packet_id
                return packet_id
        raise LocalProtocolError("all 65,535 packet identifiers are in use; wait for acknowledgements")

    def record(self, change: Change) -> int:
        """Append a change to the journal and return its number; without a journal do nothing and return 0."""
        if not self.journal:
            return 0
        self._changes.append(change)
        self.change_number += 1
        return self.change_number

    def begin(self, client_id: str, *, assigned: bool) -> None:
        """Note that a connection has begun or resumed the session; ``assigned``: the server chose the name.

        Source: MQTT 5.0 §3.2.2.3.7 [MQTT-3.2.2-16].
        """
        self.unreadable.begin()
        if assigned:
            self.record(("fact", "client_id", client_id))
            self.known = False
        if not self.known:
            self.known = True
            self.record(("fact", "session", client_id))

    def take_changes(self) -> list[Change]:
        """Return the changes since the last call. The last of them has the number ``change_number``."""
        changes = self._changes
        if changes:
            self._changes = []
        return changes

    def note_handled(self) -> None:
        """Record the QoS 2 messages that were handled but not answered, so that no repeat is delivered."""
        for packet_id, message in self.received.items():
            if message is not None and message.handled:
                self.received[packet_id] = None
                self.record(("received", packet_id))

    def forget_received(self) -> None:
        """Forget received QoS 2 messages: the server may reuse their packet identifiers now."""
        for packet_id in list(self.received):
            del self.received[packet_id]
            self.record(("completed", packet_id))
        self.releases.clear()

    def begin_released_anew(self) -> None:
        """Put messages past PUBREC back in flight, in front of the others. They must have their content."""
        unfinished = {**self.released, **self.in_flight}
        self.released.clear()
        self.in_flight.clear()
        self.in_flight.update(unfinished)

    def lose(self, sent: Collection[Outgoing] = ()) -> tuple[list[Outgoing], list[Outgoing]]:
        """Discard the state that the server has lost, except messages that it was ``sent`` since.

        Returns: the messages to publish again as new ones, in their original order, and those that were past
        PUBREC: the server owned them already, so they count as acknowledged and must not be repeated.
        Source: MQTT 5.0 §3.2.2.1.1 [MQTT-3.2.2-5].
        """
        self.generation += 1
        unfinished = list(self.in_flight.values())
        republish = [message for message in unfinished if message not in sent]
        finished = list(self.released.values())
        self.in_flight.clear()
        self.released.clear()
        self.received.clear()
        self.withheld.clear()
        self.releases.clear()
        for message in republish:
            message.packet = None
            message.packet_id = 0
            message.status = QUEUED
        for message in finished:
            message.status = ACKNOWLEDGED
            message.packet = None
            self.record(("done", message.sequence, ACKNOWLEDGED))
        self.record(("lost",))
        if sent:
            for message in unfinished:
                if message in sent:
                    self.in_flight[message.packet_id] = message
                    self.record(("sent", message.sequence, message.packet_id))
        return republish, finished
