"""Acknowledgement by the application: the tokens on received messages, and how repetitions are recognised.

Equal redelivery keys are a promise: it is the same message. So a key is given a second time only where the
server cannot have used the packet identifier for anything else meanwhile, that is, before we have sent the
acknowledgement. Afterwards DUP alone does not tell: the server may have received the acknowledgement, given
the identifier to another message, and lost that one's first copy together with the connection.
"""

from __future__ import annotations

import os

from device_sdk.mqtt.message import Message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.mqtt.protocol import Protocol

    Key = tuple[str, int, int]

__all__ = ["AckToken", "ManualAcks"]


class AckToken:
    """What a message carries until the application acknowledges it: how to do it, and ``redelivery_key``."""

    __slots__ = ("acknowledge", "redelivery_key")

    def __init__(self, redelivery_key: Key, acknowledge: Callable[[Message], None]) -> None:
        self.redelivery_key = redelivery_key
        self.acknowledge = acknowledge

    def __reduce__(self) -> tuple[object, ...]:
        # A message may go to another process; the client and its connection cannot.
        return AckToken, (self.redelivery_key, _acknowledge_copy)


def _acknowledge_copy(_: Message) -> None:
    raise RuntimeError("this is a copy: acknowledge the message that the client has received")


class ManualAcks:
    """Gives every received QoS 1 and 2 message its token. Runs under the engine's lock."""

    def __init__(self, acknowledge: Callable[[Message], None]) -> None:
        self._acknowledge = acknowledge
        self._protocol: Protocol | None = None  # that of the last messages
        self._lost_sessions = -1
        self._epoch = ""
        self._generation = 0
        self._open_keys: dict[int, Key] = {}  # not acknowledged when their connection ended

    def claim(self, events: list[Any], protocol: Protocol) -> None:
        """Put tokens on the messages among the events of one connection."""
        for event in events:
            if type(event) is Message and event.qos:
                if protocol is not self._protocol:
                    self._change_connection(protocol)
                event.token = AckToken(self._key(event), self._acknowledge)

    def _key(self, message: Message) -> Key:
        earlier = self._open_keys.pop(message.packet_id, None)
        if message.dup and earlier is not None:
            return earlier
        self._generation += 1
        return (self._epoch, message.packet_id, self._generation)

    def _change_connection(self, protocol: Protocol) -> None:
        if self._lost_sessions != protocol.session.generation:
            self._lost_sessions = protocol.session.generation
            self._epoch = os.urandom(8).hex()
            self._generation = 0
            self._open_keys.clear()
        elif self._protocol is not None:
            for message in self._protocol.unacknowledged():
                if message.qos == 1 and message.token is not None:
                    self._open_keys[message.packet_id] = message.token.redelivery_key
        self._protocol = protocol
