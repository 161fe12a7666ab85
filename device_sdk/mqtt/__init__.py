"""The MQTT protocol, sans-IO: no socket, no thread, no clock, no file.

:func:`decode_packet` and :func:`encode_packet` are the whole codec for MQTT 3.1, 3.1.1 and 5.0; packet
classes are in :mod:`device_sdk.mqtt.packets`, numbers and names in :mod:`device_sdk.mqtt.codes`.

One connection is a :class:`~device_sdk.mqtt.protocol.Protocol` and its parts. A part knows what it needs and
not the Protocol: it returns what is for the whole connection to react to.

=================  ===================================================================================
``protocol.py``    the table of handlers by packet type; states, deadlines, the end; SUBSCRIBE, AUTH
``handshake.py``   CONNECT and CONNACK: what is asked for, granted, and to be believed
``framing.py``     where packets begin and end in the bytes received: lengths, partial packets, patience
``inbound.py``     PUBLISH from the server, PUBACK and PUBREC in receive order, PUBREL and PUBCOMP
``outbound.py``    our PUBLISH, PUBACK or PUBREC, PUBREL and PUBCOMP; what is repeated on a new connection
``output.py``      what waits to leave: the server's limits, order, write-ahead gates, the last packet
``aliasing.py``    topic aliases for what leaves
``keep_alive.py``  when PINGREQ is due, and when silence means that the server is gone
``rules.py``       what may be asked for that is not the standard's behaviour
``session.py``     what outlives the connection: exchanges under way, packet identifiers, the journal
``options.py``     the fields of CONNECT           ``events.py``   what a Protocol returns
``message.py``     messages for the application    ``refusals.py`` refusals of the server as errors
``encode.py``, ``decode.py``, ``wire.py``, ``packets.py``, ``codes.py``, ``topics.py``: the codec
=================  ===================================================================================
"""

from __future__ import annotations

from device_sdk.mqtt.codes import ReasonCode, reason_name
from device_sdk.mqtt.decode import decode_packet
from device_sdk.mqtt.encode import encode_packet
from device_sdk.mqtt.message import Message, Subscription, Will
from device_sdk.mqtt.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from device_sdk.mqtt.topics import FilterTree, topic_matches, validate_filter, validate_topic

__all__ = [
    "Auth",
    "Connack",
    "Connect",
    "Disconnect",
    "FilterTree",
    "Message",
    "Packet",
    "Pingreq",
    "Pingresp",
    "Puback",
    "Pubcomp",
    "Publish",
    "Pubrec",
    "Pubrel",
    "ReasonCode",
    "Suback",
    "Subscribe",
    "Subscription",
    "Unsuback",
    "Unsubscribe",
    "Will",
    "decode_packet",
    "encode_packet",
    "reason_name",
    "topic_matches",
    "validate_filter",
    "validate_topic",
]
