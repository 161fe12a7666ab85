"""The MQTT protocol, sans-IO: no socket, no thread, no clock, no file.

:func:`decode_packet` and :func:`encode_packet` are the whole codec for MQTT 3.1, 3.1.1 and 5.0; packet
classes are in :mod:`device_sdk.mqtt.packets`, numbers and names in :mod:`device_sdk.mqtt.codes`.

One connection is a :class:`~device_sdk.mqtt.protocol.Protocol` and its parts. A part knows what it needs and
not the Protocol; packets that concern the whole connection are returned to it.

=================  ===================================================================================
``protocol.py``    the table of handlers by packet type; states, deadlines, the end; SUBSCRIBE, AUTH
``handshake.py``   CONNECT and CONNACK: request, grant, and the checks of the answer
``framing.py``     cuts received bytes into packets: lengths, partial packets, time limits
``inbound.py``     PUBLISH from the server, PUBACK and PUBREC in receive order, PUBREL and PUBCOMP
``skipping.py``    messages of other clients that cannot be delivered, and when they are skipped
``outbound.py``    our PUBLISH, PUBACK or PUBREC, PUBREL and PUBCOMP; the repeats on a new connection
``output.py``      packets waiting to be sent: the server's limits, order, write-ahead gates, last packet
``aliasing.py``    topic aliases of outgoing messages
``keep_alive.py``  deadlines of PINGREQ and PINGRESP
``rules.py``       departures from the standard that a program may ask for
``session.py``     state that outlives the connection: exchanges, packet identifiers, the journal
``options.py``     the fields of CONNECT           ``events.py``   events of a Protocol
``message.py``     messages for the application    ``refusals.py`` refusals of the server as errors
``encode.py``, ``decode.py``, ``wire.py``, ``packets.py``, ``codes.py``, ``topics.py``: the codec
=================  ===================================================================================
"""

from __future__ import annotations

from device_sdk._load import export

TYPE_CHECKING = False
if TYPE_CHECKING:
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

_HOMES = {
    **dict.fromkeys(__all__, "packets"),
    **dict.fromkeys(("ReasonCode", "reason_name"), "codes"),
    **dict.fromkeys(("Message", "Subscription", "Will"), "message"),
    **dict.fromkeys(("FilterTree", "topic_matches", "validate_filter", "validate_topic"), "topics"),
    "decode_packet": "decode",
    "encode_packet": "encode",
}


def __getattr__(name: str) -> object:
    return export(globals(), _HOMES, name)
