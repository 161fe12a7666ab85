"""One network connection of :class:`ModelBroker`: bytes in, bytes out, packets between, and their ends."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from device_sdk.errors import RemoteProtocolError
from device_sdk.mqtt.codes import REASON_CODES
from device_sdk.mqtt.decode import decode_packet
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.packets import Connack, Disconnect, Packet, Publish
from device_sdk.testing.model_conversation import Broker, Conversation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_sdk.testing.model_session import ModelSession

__all__ = ["BrokerLink", "connect_version"]

CONNECT = 0x10
UNSUPPORTED = ""
_VERSIONS = {(b"MQIsdp", 3): "3.1", (b"MQTT", 4): "3.1.1", (b"MQTT", 5): "5.0"}


def connect_version(data: bytes) -> str | None:
    """Read the protocol version from the first bytes of a CONNECT packet.

    Returns: ``"3.1"``, ``"3.1.1"``, ``"5.0"``, ``""`` for any other protocol, ``None`` while incomplete.
    Source: MQTT 5.0 §3.1.2.1, §3.1.2.2.
    """
    start = next((index for index in range(1, min(len(data), 5)) if data[index] < 0x80), None)
    if start is None:
        return UNSUPPORTED if len(data) >= 5 else None
    name_at = start + 3
    if len(data) < name_at:
        return None
    name_length = int.from_bytes(data[start + 1 : name_at])
    if name_length not in (4, 6):
        return UNSUPPORTED
    if len(data) <= name_at + name_length:
        return None
    name, level = bytes(data[name_at : name_at + name_length]), data[name_at + name_length]
    return _VERSIONS.get((name, level), UNSUPPORTED)


class BrokerLink:
    """The broker's end of one network connection. Made by :meth:`ModelBroker.connect`.

    ``closed``: the broker wants the stream closed once its output is delivered. ``reset`` and ``reading`` are
    for :class:`BrokerServer`: this broker never resets and always reads. ``version`` and ``session`` are
    ``None`` until CONNECT.
    """

    reset = False
    reading = True

    def __init__(self, broker: Broker, versions: Sequence[str]) -> None:
        self.version: str | None = None
        self.closed = False
        self.keep_alive: float = 0
        self._versions = versions
        self._most_bytes = broker.limits.maximum_packet_size
        self._conversation = Conversation(self, broker)
        self._buffer = bytearray()
        # Chunks of output, each with the packet identifier that the client may use again after reading it.
        self._output: list[tuple[bytes, int | None]] = []
        self._maximum_packet_size: float = math.inf
        self._last_heard = 0.0

    @property
    def session(self) -> ModelSession | None:
        """The session, from CONNECT to the end of the connection."""
        return self._conversation.session

    @property
    def client_id(self) -> str:
        """The client identifier, empty before CONNECT."""
        return self._conversation.client_id

    @property
    def receive_maximum(self) -> int:
        """How many QoS 1 and 2 messages the client takes at once."""
        return self._conversation.receive_maximum

    @property
    def in_flight_peak(self) -> int:
        """The largest number of unacknowledged QoS 1 and 2 messages of the client that the broker saw."""
        return self._conversation.book.peak

    # Bytes

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the client and act on every whole packet. ``now`` in seconds, on any clock."""
        self._buffer += data
        if not self.closed:
            self._last_heard = now
            self._handle_packets(now)
        if self._conversation.has_left and self._buffer:
            self._conversation.note(
                f"{len(self._buffer)} bytes after DISCONNECT: {self._buffer[:16].hex(' ')}"
            )
        if self.closed:
            self._buffer.clear()

    def data_to_send(self) -> bytes:
        """Return and forget the output so far. The client counts as having read it."""
        output = b"".join(chunk for chunk, _ in self._output)
        for _, freed in self._output:
            if freed is not None:
                self._conversation.book.free(freed)
        self._output.clear()
        return output

    def connection_lost(self, now: float) -> None:
        """Take the end of the stream: the will is due, the session waits or ends. Safe to call twice."""
        self.close(now, with_will=True)

    def send(self, packet: Packet, *, frees: int | None = None) -> None:
        """Queue a packet. ``frees``: the packet identifier that it gives back to the client."""
        self._output.append((encode_packet(packet, self.version or "5.0"), frees))

    def send_if_it_fits(self, publish: Publish) -> bool:
        """Queue a PUBLISH unless it exceeds the client's maximum packet size.

        Source: MQTT 5.0 §3.1.2.11.4: the server then behaves as if it had been delivered.
        """
        if self.version != "5.0":
            publish.properties = {}
        data = encode_packet(publish, self.version or "5.0")
        if len(data) > self._maximum_packet_size:
            return False
        self._output.append((data, None))
        return True

    def agree(self, keep_alive: float, maximum_packet_size: float) -> None:
        """Take the connection's fields of CONNECT: seconds, bytes."""
        self.keep_alive = keep_alive
        self._maximum_packet_size = maximum_packet_size

    # Time and ends

    def next_deadline(self) -> float | None:
        """Return when silence becomes fatal: one and a half keep alives. Source: MQTT 5.0 §3.1.2.10."""
        if self.closed or not self.keep_alive:
            return None
        return self._last_heard + 1.5 * self.keep_alive

    def handle_deadline(self, now: float) -> None:
        """End the connection when the keep alive has run out."""
        deadline = self.next_deadline()
        if deadline is not None and now >= deadline:
            self.end(0x8D, now)

    def end(self, reason_code: int, now: float, *, with_will: bool = True) -> None:
        """Close from the broker's side, with DISCONNECT in MQTT 5.0. Safe to call twice."""
        if self.closed:
            return
        if self.version == "5.0" and self.session is not None:
            self.send(Disconnect(reason_code))
        elif self.version == "5.0" and reason_code in REASON_CODES["connack"]:
            self.send(Connack(False, reason_code))
        self.close(now, with_will=with_will)

    def close(self, now: float, *, with_will: bool) -> None:
        """Close without another packet. Safe to call twice."""
        self.closed = True
        self._conversation.leave(now, with_will=with_will)

    # Packets

    def _handle_packets(self, now: float) -> None:
        while self._buffer and not self.closed:
            packet = self._next_packet(now)
            if packet is None:
                return
            self._conversation.handle(packet, now)

    def _next_packet(self, now: float) -> Packet | None:
        data = bytes(self._buffer)
        if self.version is None and not self._begins(data, now):
            return None
        try:
            decoded = decode_packet(data, self.version or "")
        except RemoteProtocolError as error:
            self._conversation.violate(f"{error} in {data[:32].hex(' ')}", now, error.reason_code)
            return None
        if decoded is None:
            return None
        packet, used = decoded
        del self._buffer[:used]
        maximum = self._most_bytes
        if maximum is not None and used > maximum:
            problem = f"{packet.type} of {used} bytes, the maximum packet size is {maximum}"
            self._conversation.violate(problem, now, 0x95)
            return None
        return packet

    def _begins(self, data: bytes, now: float) -> bool:
        """Find the protocol version; return whether the broker speaks it."""
        if data[0] != CONNECT:
            self._conversation.violate(f"the first packet is not CONNECT: {data[:16].hex(' ')}", now)
            return False
        version = connect_version(data)
        if version is None:
            return False
        if version in self._versions:
            self.version = version
            return True
        # A client of an unknown version can at least read the oldest form of the answer.
        self._conversation.note("asks for a protocol version that this broker does not speak")
        modern = "3.1.1" not in self._versions
        self.version = "5.0" if modern else "3.1.1"
        self.send(Connack(False, 0x84 if modern else 1))
        self.close(now, with_will=False)
        return False
