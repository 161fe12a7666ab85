"""Acknowledgement by the application: the tokens on received messages, and how repetitions are recognised.

Equal redelivery keys are a promise: it is the same message. So a key is given a second time only where the
server cannot have used the packet identifier for anything else meanwhile, that is, before we have sent the
acknowledgement. Afterwards DUP alone does not tell: the server may have received the acknowledgement, given
the identifier to another message, and lost that one's first copy together with the connection.
"""

from __future__ import annotations

import os
from collections import deque

from device_sdk.mqtt.message import AckToken, Message
from device_sdk.mqtt.wire import decoded_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.protocol import Protocol

    Key = tuple[str, int, int]

__all__ = ["HeldBounds", "ManualAcks"]

_ANY_NUMBER = 1 << 17  # more than there are packet identifiers


class HeldBounds:
    """How much the application may have without an acknowledgement before reading pauses.

    ``bytes`` of topics, payloads and properties; ``messages``: the receive maximum in MQTT 3.x, where the
    server does not know it; in MQTT 5.0 it sends no more, and there is no bound here.
    """

    __slots__ = ("bytes", "messages")

    def __init__(self, most_bytes: int, options: ConnectOptions) -> None:
        self.bytes = most_bytes
        bounded = options.negotiates or options.version != "5.0"
        self.messages = options.receive_maximum if bounded else _ANY_NUMBER


class ManualAcks:
    """Gives every received QoS 1 and 2 message its token. Runs under the engine's lock.

    A token is all that is kept of a message here. ``count`` and ``held``: messages of this connection without
    an acknowledgement, and their bytes; ``full``: they reach ``bounds``, which are ``None`` for no bounds.
    """

    __slots__ = (
        "_acknowledge", "_bounds", "_epoch", "_generation", "_lost_sessions", "_open_keys", "_protocol",
        "_tokens", "full", "held",
    )  # fmt: skip

    def __init__(self, acknowledge: Callable[[AckToken], object], bounds: HeldBounds | None = None) -> None:
        self.held = 0
        self.full = False
        self._acknowledge = acknowledge
        self._bounds = bounds
        self._tokens: deque[AckToken] = deque()
        self._protocol: Protocol | None = None  # that of the last messages
        self._lost_sessions = -1
        self._epoch = ""
        self._generation = 0
        self._open_keys: dict[int, Key] = {}  # not acknowledged when their connection ended

    @property
    def count(self) -> int:
        """Messages without an acknowledgement."""
        return len(self._tokens)

    def claim(self, events: list[Any], protocol: Protocol) -> None:
        """Put tokens on the messages among the events of one connection."""
        for event in events:
            if type(event) is Message and event.qos:
                if protocol is not self._protocol:
                    self._change_connection(protocol)
                event.token = AckToken(event.packet_id, event.qos, self._key(event), self._acknowledge)
                if self._bounds is not None:
                    self._count(event, event.token)
        protocol.inbound.keep_tokens()
        self._look()

    def _count(self, message: Message, token: AckToken) -> None:
        token.size = len(message.topic) + len(message.payload)
        if message.properties:
            token.size += decoded_size(message.properties)
        self._tokens.append(token)
        self.held += token.size

    def forget(self) -> None:
        """Begin to count anew: the connection of these messages is over."""
        self._tokens.clear()
        self.held = 0
        self.full = False

    def settle(self) -> bool:
        """Let go of what the application has acknowledged; return whether reading may go on for that."""
        was_full, tokens = self.full, self._tokens
        while tokens and tokens[0].handled:
            self.held -= tokens.popleft().size
        self._look()
        return was_full and not self.full

    def _look(self) -> None:
        bounds = self._bounds
        self.full = bounds is not None and (self.held >= bounds.bytes or len(self._tokens) >= bounds.messages)

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
            for token in self._protocol.unacknowledged():
                if token.qos == 1 and type(token) is AckToken and token.redelivery_key is not None:
                    self._open_keys[token.packet_id] = token.redelivery_key
        self._protocol = protocol
