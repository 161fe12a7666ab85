"""The MQTT protocol, sans-IO: no socket, no thread, no clock, no file.

:func:`decode_packet` and :func:`encode_packet` are the whole codec for MQTT 3.1, 3.1.1 and 5.0; packet
classes are in :mod:`device_sdk.mqtt.packets`, numbers and names in :mod:`device_sdk.mqtt.codes`.
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
