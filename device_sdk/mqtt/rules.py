"""Departures from the standard, asked for by name.

The defaults are the standard's behaviour. A rule is read where it matters and costs nothing elsewhere. One
object may serve any number of connections and threads, because it is never written to.
"""

from __future__ import annotations

from device_sdk.mqtt.codes import RETURN_CODE_MEANINGS
from device_sdk.mqtt.decode import read_topic_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping
    from typing import Any

    from device_sdk.mqtt.session import Outgoing

__all__ = ["STANDARD", "ProtocolRules"]


def _read_topic(field: bytes) -> str:
    return read_topic_name(field, 0, len(field))[0]


class ProtocolRules:
    """The points at which a connection may depart from the standard.

    ``assumes_session``: in MQTT 3.x messages in flight are repeated with their packet identifiers even if
    CONNACK says that the server has no session; the application still sees the flag of CONNACK.

    ``keeps_payload_until_pubcomp``: a message keeps its content past PUBREC. If the server has certainly lost
    its half of the exchange (after a clean start, or in MQTT 5.0 without a session) the message is published
    again instead of counted as acknowledged: it may arrive twice, but it is not lost. Not with a journal: a
    store keeps the content only until PUBREC.

    ``accepts_unasked_suback``: a SUBACK or UNSUBACK that answers no request is an event like the others.

    ``explains_early_end``: a server that breaks the protocol before it has accepted the connection is sent a
    DISCONNECT with the reason, where MQTT 5.0 allows it.

    ``mqtt_3_refusals``: reason code by return code, for servers that know only MQTT 3.x and refuse a CONNECT
    of MQTT 5.0 in their own format, as MQTT 3.1.1 §3.1.2.2 has them do; empty: such a CONNACK is malformed.

    ``read_topic``: decodes and checks the topic name of a PUBLISH, given with its length; raises
    MalformedPacketError or RemoteProtocolError. Source: MQTT 5.0 §3.3.2.1.

    ``sends_before_connack``: messages may be sent as soon as CONNECT is queued. Until CONNACK ``window``
    counts only those of this connection. Source: MQTT 5.0 §3.1.4.

    ``delivers_at_pubrel``: a message of QoS 2 is answered with PUBREC at once, delivered when its PUBREL
    comes, and answered with PUBCOMP when it is handled. Beyond 16 MiB that wait for their PUBREL it is
    delivered at once, and PUBREC follows. Not with a journal: a store keeps no content, and a crash after
    PUBREC would lose it. Source: MQTT 5.0 §4.3.3.

    ``choose_packet_id``: returns the preferred packet identifier of a message, or 0; the message gets the
    next free one from there.

    ``postpones``: reason codes above 0x7F of PUBACK and PUBREC that do not end a message, which is to be
    published again later; the event is :class:`~device_sdk.mqtt.events.PublishPostponed`.

    ``note_answer``: called with packet type, reason code and properties of each acknowledgement of a message:
    PUBREC and PUBCOMP, and a PUBACK if it says more than success.
    """

    __slots__ = (
        "accepts_unasked_suback",
        "assumes_session",
        "choose_packet_id",
        "delivers_at_pubrel",
        "explains_early_end",
        "keeps_payload_until_pubcomp",
        "mqtt_3_refusals",
        "note_answer",
        "postpones",
        "read_topic",
        "sends_before_connack",
    )

    def __init__(
        self,
        *,
        assumes_session: bool = False,
        keeps_payload_until_pubcomp: bool = False,
        accepts_unasked_suback: bool = False,
        explains_early_end: bool = True,
        sends_before_connack: bool = False,
        delivers_at_pubrel: bool = False,
        mqtt_3_refusals: Mapping[int, int] | None = None,
        read_topic: Callable[[bytes], str] = _read_topic,
        choose_packet_id: Callable[[Any], int] | None = None,
        note_answer: Callable[[Any, int, int, dict[str, Any]], None] | None = None,
        postpones: Container[int] = (),
    ) -> None:
        self.assumes_session = assumes_session
        self.keeps_payload_until_pubcomp = keeps_payload_until_pubcomp
        self.accepts_unasked_suback = accepts_unasked_suback
        self.explains_early_end = explains_early_end
        self.sends_before_connack = sends_before_connack
        self.delivers_at_pubrel = delivers_at_pubrel
        self.postpones = postpones
        self.mqtt_3_refusals = RETURN_CODE_MEANINGS if mqtt_3_refusals is None else mqtt_3_refusals
        self.read_topic = read_topic
        self.choose_packet_id: Callable[[Outgoing], int] | None = choose_packet_id
        self.note_answer: Callable[[Outgoing, int, int, dict[str, Any]], None] | None = note_answer


#: The rules of the standard.
STANDARD = ProtocolRules()
