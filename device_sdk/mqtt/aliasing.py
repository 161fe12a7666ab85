"""Outgoing topic aliases: a topic name crosses the network once, after that two bytes stand for it.

Worth it where bytes cost more than time: modems, serial lines. Threads: the caller serialises all calls.
Source: MQTT 5.0 §3.3.2.3.4.
"""

from __future__ import annotations

from collections import OrderedDict

from device_sdk.mqtt.session import FIRST_BYTES
from device_sdk.mqtt.wire import encode_varint, read_varint

__all__ = ["MOST_ALIASES", "OutgoingAliases"]

MOST_ALIASES = 1_000  # even if the server allows more: bounds the topic names that are kept
_ALIAS_COST = 3  # bytes of the property
_TOPIC_ALIAS = b"\x23"


class OutgoingAliases:
    """The topic aliases of one connection: as many as the server allows, none in MQTT 3.x.

    The topic used least recently gives up its alias to a new one.
    """

    __slots__ = ("_given", "_most")

    def __init__(self) -> None:
        self._most = 0
        self._given: OrderedDict[bytes, int] = OrderedDict()  # by topic field, least recently used first

    def allow(self, most: int) -> None:
        """Begin with as many aliases as CONNACK allows."""
        self._most = min(most, MOST_ALIASES)

    def shorten(
        self,
        flags: int,
        topic_field: bytes,
        identifier: bytes,
        properties: bytes,
        payload: bytes,
        largest: int,
    ) -> bytes | None:
        """Return the PUBLISH with a topic alias; ``None`` if it is not allowed or does not pay.

        ``flags``, ``topic_field``, ``properties``: as in :class:`~device_sdk.mqtt.session.Outgoing`;
        ``identifier``: the encoded packet identifier, or nothing; ``largest``: bytes that the server takes.
        """
        if not self._most or len(topic_field) - 2 <= _ALIAS_COST:
            return None
        given = self._given
        alias = given.get(topic_field)
        known = alias is not None
        if alias is None:
            alias = len(given) + 1 if len(given) < self._most else next(iter(given.values()))
        parts = (
            b"\0\0" if known else topic_field,
            identifier,
            *_with_alias(properties, alias),
            payload,
        )
        length = encode_varint(sum(map(len, parts)))
        packet = b"".join((FIRST_BYTES[flags], length, *parts))
        if len(packet) > largest:
            return None  # introducing the alias would make it larger than the server accepts
        if known:
            given.move_to_end(topic_field)
        else:
            if len(given) >= self._most:
                given.popitem(last=False)
            given[topic_field] = alias
        return packet


def _with_alias(properties: bytes, alias: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the pieces of a property block with the alias as its first property."""
    length, start = read_varint(properties, 0, len(properties))
    return encode_varint(length + _ALIAS_COST), _TOPIC_ALIAS, alias.to_bytes(2, "big"), properties[start:]
