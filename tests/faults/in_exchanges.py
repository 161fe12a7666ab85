"""Faults in the exchanges of QoS 1 and 2, in both directions, and in what is repeated after a reconnect."""

from __future__ import annotations

from tests.faults.fault import Fault, v5, v31, v311

__all__ = ["IN_EXCHANGES"]

_PROTOCOL, _RECEIVE, _SESSION = "mqtt/protocol.py", "mqtt/receive.py", "mqtt/session.py"

_PUBACK = 'out.append(b"\\x40\\x02" + packet_id'
_PUBREC = 'out.append(b"\\x50\\x02" + packet_id'
_PUBREL = '            self._out.append(b"\\x62\\x02" + packet_id'
_PUBCOMP = 'pubcomp = b"\\x70\\x02" + packet_id'

#: Properties of an acknowledgement: its remaining length, what follows the packet identifier.
_REASON_STRING = ("\\x09", 'b"\\0\\x05\\x1f\\0\\x02ok"')
_USER_PROPERTY = ("\\x0b", 'b"\\0\\x07\\x26\\0\\x01n\\0\\x01v"')


def _explaining(packet: str, statements: tuple[str, str], old: str) -> tuple[Fault, ...]:
    """An acknowledgement with a reason string, or a user property, whether or not it fits."""
    found = []
    for statement, what, (length, properties) in zip(
        statements, ("a reason string", "a user property"), (_REASON_STRING, _USER_PROPERTY), strict=True
    ):
        tail = old + '.to_bytes(2, "big")'
        new = tail.replace("\\x02", length) + " + " + properties
        found.append(Fault(f"{packet} always has {what}", v5(statement), _PROTOCOL, tail, new))
    return tuple(found)


IN_EXCHANGES = (
    # PUBLISH, the first time
    Fault(
        "QoS 0 is sent with DUP",
        v5("MQTT-3.3.1-2", "MQTT-4.3.1-1") + v311("MQTT-3.3.1-2", "MQTT-4.3.1-1"),
        _PROTOCOL,
        "FIRST_BYTES[flags], length, topic_field",
        "FIRST_BYTES[flags | 8], length, topic_field",
    ),
    Fault(
        "QoS 1 and 2 are sent with DUP the first time",
        v5("MQTT-4.3.2-2", "MQTT-4.3.3-2", "MQTT-3.3.1-3")
        + v311("MQTT-4.3.2-1", "MQTT-4.3.3-1", "MQTT-3.3.1-3"),
        _SESSION,
        "FIRST_BYTES[self.flags], length",
        "FIRST_BYTES[self.flags | 8], length",
    ),
    Fault(
        "every message has the same packet identifier",
        v5("MQTT-4.3.2-1", "MQTT-4.3.3-1") + v311("MQTT-2.3.1-2", "MQTT-4.3.2-1", "MQTT-4.3.3-1"),
        _PROTOCOL,
        "        packet_id = session.allocate()\n        packet = message.encode",
        "        packet_id = session.allocate() and 1\n        packet = message.encode",
    ),
    Fault(
        "a packet identifier past PUBREC is used again",
        v5("MQTT-4.3.3-1", "MQTT-2.2.1-3") + v311("MQTT-2.3.1-2"),
        _SESSION,
        "                and packet_id not in self.released\n"
        "                and packet_id not in self.requests\n"
        "            ):",
        "                and packet_id not in self.requests\n            ):",
    ),
    Fault(
        "a message of QoS 1 is forgotten as soon as it is sent",
        v5("MQTT-4.3.2-3", "MQTT-4.4.0-1", "MQTT-3.1.2-23", "MQTT-4.1.0-1")
        + v311("MQTT-4.3.2-1", "MQTT-3.1.2-4", "MQTT-4.1.0-1", "MQTT-4.4.0-1"),
        _PROTOCOL,
        "        session.in_flight[packet_id] = message\n",
        "        if flags >= 4:\n            session.in_flight[packet_id] = message\n",
    ),
    Fault(
        "a message of QoS 2 is forgotten as soon as it is sent",
        v5("MQTT-4.3.3-3", "MQTT-4.3.3-4") + v311("MQTT-4.3.3-1"),
        _PROTOCOL,
        "        session.in_flight[packet_id] = message\n",
        "        if flags < 4:\n            session.in_flight[packet_id] = message\n",
    ),
    # What answers it
    Fault(
        "PUBACK with an error code counts as success",
        v5("MQTT-4.4.0-2", "MQTT-3.1.2-29"),
        _RECEIVE,
        "        if reason_code >= 0x80:\n            self._refuse",
        "        if reason_code > 0xFF:\n            self._refuse",
    ),
    Fault(
        "PUBREC with an error code is answered with PUBREL",
        v5("MQTT-4.4.0-2", "MQTT-3.3.4-7", "MQTT-4.9.0-2"),
        _PROTOCOL,
        "        elif reason_code >= 0x80:\n            self._refuse",
        "        elif reason_code > 0xFF:\n            self._refuse",
    ),
    Fault(
        "a refused message keeps its place in the window",
        v5("MQTT-3.3.4-7", "MQTT-4.9.0-2", "MQTT-4.4.0-2"),
        _PROTOCOL,
        "        if session.in_flight.pop(message.packet_id, None) is None:\n",
        "        if status == REFUSED:\n            pass\n"
        "        elif session.in_flight.pop(message.packet_id, None) is None:\n",
    ),
    Fault(
        "PUBREC is not answered",
        v5("MQTT-4.3.3-4") + v311("MQTT-4.3.3-1"),
        _PROTOCOL,
        _PUBREL,
        '            str(b"\\x62\\x02" + packet_id',
    ),
    Fault(
        "PUBREL has another packet identifier",
        v5("MQTT-4.3.3-4", "MQTT-2.2.1-5") + v311("MQTT-2.3.1-6"),
        _PROTOCOL,
        _PUBREL,
        '            self._out.append(b"\\x62\\x02" + (packet_id + 1)',
    ),
    Fault(
        "the last PUBREC is answered first",
        v5("MQTT-4.6.0-4") + v311("MQTT-4.6.0-4"),
        _PROTOCOL,
        _PUBREL,
        '            self._out.insert(0, b"\\x62\\x02" + packet_id',
    ),
    Fault(
        "an exchange of QoS 2 ends when its message expires",
        v5("MQTT-4.3.3-13"),
        _PROTOCOL,
        "        elif reason_code >= 0x80:\n            self._refuse",
        "        elif reason_code >= 0x80 or message.expires_at:\n            self._refuse",
    ),
    Fault(
        "a message past PUBREC has no place in the window",
        v5("MQTT-3.3.4-7", "MQTT-4.9.0-2"),
        _SESSION,
        "return len(self.in_flight) + len(self.released)",
        "return len(self.in_flight)",
    ),
    # What is repeated
    Fault(
        "DUP is not set on a repeat",
        v5("MQTT-3.3.1-1", "MQTT-3.3.1-3") + v311("MQTT-3.3.1-1", "MQTT-3.3.1-3"),
        _PROTOCOL,
        "_DUP = 0x08",
        "_DUP = 0x00",
    ),
    Fault(
        "PUBLISH is not repeated",
        v5("MQTT-4.4.0-1", "MQTT-4.3.2-3", "MQTT-4.3.3-3", "MQTT-3.1.2-23")
        + v311("MQTT-4.4.0-1", "MQTT-3.1.2-4", "MQTT-4.1.0-1"),
        _PROTOCOL,
        "                self._resend[message.packet_id] = message\n",
        "                pass\n",
    ),
    Fault(
        "PUBLISH is repeated in the reverse order",
        v5("MQTT-4.6.0-1") + v311("MQTT-4.6.0-1"),
        _PROTOCOL,
        "resend.popitem(last=False)",
        "resend.popitem()",
    ),
    Fault(
        "PUBLISH is repeated with another packet identifier",
        v311("MQTT-2.3.1-3", "MQTT-4.4.0-1") + v5("MQTT-4.4.0-1"),
        _PROTOCOL,
        "packet = resend.popitem(last=False)[1].packet\n",
        "packet = resend.popitem(last=False)[1].encode(99, 0.0)\n",
    ),
    Fault(
        "PUBREL is not repeated",
        v5("MQTT-4.3.3-5", "MQTT-4.4.0-1") + v311("MQTT-4.3.3-1", "MQTT-4.4.0-1"),
        _PROTOCOL,
        "for packet_id in self.session.released:",
        "for packet_id in ():",
    ),
    Fault(
        "after PUBREC the PUBLISH is repeated",
        v5("MQTT-4.3.3-6") + v311("MQTT-4.3.3-1"),
        _PROTOCOL,
        "            del session.in_flight[packet_id]\n            self._resend.pop(packet_id, None)\n"
        "            session.released[packet_id] = message\n            message.packet = None\n",
        "            session.released[packet_id] = message\n",
    ),
    Fault(
        "the window is ignored when messages are repeated",
        v5("MQTT-3.3.4-7", "MQTT-4.9.0-2"),
        _PROTOCOL,
        "while resend and len(self.session) - len(resend) < self.window:",
        "while resend:",
    ),
    Fault(
        "a message that was sent expires before its repeat",
        v5("MQTT-4.3.3-7"),
        _PROTOCOL,
        "if len(packet) > self._largest_packet or message.flags in self._refused_flags:\n"
        "                error",
        "if message.expires_at or message.flags in self._refused_flags:\n                error",
    ),
    Fault(
        "messages are repeated on a live connection, with each PINGREQ",
        v5("MQTT-4.4.0-1") + v311("MQTT-4.4.0-1") + v31("MQTT-3.1/RESEND-TIMER"),
        _PROTOCOL,
        "        if not self._urgent:\n            self._urgent.append(_PINGREQ)\n",
        "        if not self._urgent:\n            self._urgent.append(_PINGREQ)\n"
        "            self._out += [one.packet for one in self.session.in_flight.values() if one.packet]\n",
    ),
    # PUBLISH from the server
    Fault(
        "QoS 0 is not delivered",
        v5("MQTT-3.3.4-1") + v311("MQTT-3.3.4-1"),
        _RECEIVE,
        "        if not qos:\n            events.append(message)\n",
        "        if not qos:\n            pass\n",
    ),
    Fault(
        "PUBACK has another packet identifier",
        v5("MQTT-4.3.2-4", "MQTT-2.2.1-5", "MQTT-3.3.4-1")
        + v311("MQTT-4.3.2-2", "MQTT-2.3.1-6", "MQTT-3.3.4-1"),
        _PROTOCOL,
        _PUBACK,
        'out.append(b"\\x40\\x02" + (packet_id + 1)',
    ),
    Fault(
        "PUBREC has another packet identifier",
        v5("MQTT-4.3.3-8", "MQTT-2.2.1-5", "MQTT-3.3.4-1")
        + v311("MQTT-4.3.3-2", "MQTT-2.3.1-6", "MQTT-3.3.4-1"),
        _PROTOCOL,
        _PUBREC,
        'out.append(b"\\x50\\x02" + (packet_id + 1)',
    ),
    Fault(
        "PUBCOMP has another packet identifier",
        v5("MQTT-4.3.3-11") + v311("MQTT-4.3.3-2"),
        _PROTOCOL,
        _PUBCOMP,
        'pubcomp = b"\\x70\\x02" + (packet_id + 1)',
    ),
    Fault(
        "a PUBREL for an unknown message is not answered",
        v5("MQTT-4.3.3-11"),
        _PROTOCOL,
        "        if packet_id not in received:\n",
        "        if packet_id not in received:\n            return\n        if packet_id not in received:\n",
    ),
    Fault(
        "acknowledgements leave in the order in which handlers end",
        v5("MQTT-4.6.0-2", "MQTT-4.6.0-3") + v311("MQTT-4.6.0-2", "MQTT-4.6.0-3"),
        _PROTOCOL,
        "        while waiting and waiting[0].handled:\n            message = waiting.popleft()\n",
        "        for message in [one for one in waiting if one.handled]:\n"
        "            waiting.remove(message)\n",
    ),
    Fault(
        "QoS 2 is delivered again when DUP is set",
        v5("MQTT-4.3.3-10") + v311("MQTT-4.3.3-2"),
        _RECEIVE,
        "            if packet_id in received:\n",
        "            if packet_id in received and not message.dup:\n",
    ),
    Fault(
        "QoS 2 is delivered again after PUBREC",
        v5("MQTT-4.3.3-10") + v311("MQTT-4.3.3-2"),
        _PROTOCOL,
        "                session.received[packet_id] = None\n",
        "                session.received.pop(packet_id)\n",
    ),
    Fault(
        "a packet identifier stays used after PUBCOMP",
        v5("MQTT-4.3.3-12") + v311("MQTT-4.3.3-2"),
        _PROTOCOL,
        "            del received[packet_id]\n",
        "            pass\n",
    ),
    Fault(
        "QoS 1 with DUP is taken for a repeat",
        v5("MQTT-4.3.2-5") + v311("MQTT-4.3.2-2"),
        _RECEIVE,
        "        else:\n            self._incoming += 1\n        self._unacknowledged.append(message)\n",
        "        else:\n            self._incoming += 1\n        self._unacknowledged.append(message)\n"
        "        if message.dup and message.qos == 1:\n            return\n",
    ),
    Fault(
        "a long silence ends the session of an open connection",
        v311("MQTT-4.1.0-2") + v5("MQTT-4.1.0-1"),
        _PROTOCOL,
        "        if not self._urgent:\n            self._urgent.append(_PINGREQ)\n",
        "        self.session.received.clear()\n"
        "        if not self._urgent:\n            self._urgent.append(_PINGREQ)\n",
    ),
    Fault(
        "after UNSUBSCRIBE no exchange is completed",
        v5("MQTT-3.10.4-3") + v311("MQTT-3.10.4-3"),
        _PROTOCOL,
        '        answer = "suback" if packet.type == "subscribe" else "unsuback"\n',
        '        answer = "suback" if packet.type == "subscribe" else "unsuback"\n'
        '        if answer == "unsuback":\n            self._handlers[6] = self._ignored\n',
    ),
    *_explaining("PUBACK", ("MQTT-3.4.2-2", "MQTT-3.4.2-3"), _PUBACK),
    *_explaining("PUBREC", ("MQTT-3.5.2-2", "MQTT-3.5.2-3"), _PUBREC),
    *_explaining("PUBREL", ("MQTT-3.6.2-2", "MQTT-3.6.2-3"), _PUBREL),
    *_explaining("PUBCOMP", ("MQTT-3.7.2-2", "MQTT-3.7.2-3"), _PUBCOMP),
)
