"""Faults in the exchanges of QoS 1 and 2, in both directions, and in what is repeated after a reconnect."""

from __future__ import annotations

from tests.faults.fault import Fault, v5, v31, v311

__all__ = ["IN_EXCHANGES"]

_PROTOCOL, _SESSION = "mqtt/protocol.py", "mqtt/session.py"
_INBOUND, _OUTBOUND, _OUTPUT = "mqtt/inbound.py", "mqtt/outbound.py", "mqtt/output.py"
_REFUSE = "            self._refuse(message, reason_code, properties, events)\n"
_REFUSE_ELSE = _REFUSE + "        else:\n"  # PUBACK
_REFUSE_RETURN = _REFUSE + "            return\n"  # PUBREC

_PUBACK = 'output.answer(b"\\x40\\x02" + packet_id'
_PUBREC = 'output.answer(b"\\x50\\x02" + packet_id'
_PUBREL = 'pubrel = b"\\x62\\x02" + packet_id'
_PUBCOMP = 'pubcomp = b"\\x70\\x02" + packet_id'

#: Properties of an acknowledgement: its remaining length, what follows the packet identifier.
_REASON_STRING = ("\\x09", 'b"\\0\\x05\\x1f\\0\\x02ok"')
_USER_PROPERTY = ("\\x0b", 'b"\\0\\x07\\x26\\0\\x01n\\0\\x01v"')


def _explaining(packet: str, statements: tuple[str, str], file: str, old: str) -> tuple[Fault, ...]:
    """An acknowledgement with a reason string, or a user property, whether or not it fits."""
    found = []
    for statement, what, (length, properties) in zip(
        statements, ("a reason string", "a user property"), (_REASON_STRING, _USER_PROPERTY), strict=True
    ):
        tail = old + '.to_bytes(2, "big")'
        new = tail.replace("\\x02", length) + " + " + properties
        found.append(Fault(f"{packet} always has {what}", v5(statement), file, tail, new))
    return tuple(found)


IN_EXCHANGES = (
    # PUBLISH, the first time
    Fault(
        "QoS 0 is sent with DUP",
        v5("MQTT-3.3.1-2", "MQTT-4.3.1-1") + v311("MQTT-3.3.1-2", "MQTT-4.3.1-1"),
        _OUTPUT,
        "FIRST_BYTES[flags], length, topic_field",
        "FIRST_BYTES[flags | 8], length, topic_field",
    ),
    Fault(
        "QoS 1 and 2 are sent with DUP the first time",
        v5("MQTT-4.3.2-2", "MQTT-4.3.3-2", "MQTT-3.3.1-3")
        + v311("MQTT-4.3.2-1", "MQTT-4.3.3-1", "MQTT-3.3.1-3"),
        _OUTPUT,
        "FIRST_BYTES[flags], length, topic, identifier",
        "FIRST_BYTES[flags | 8], length, topic, identifier",
    ),
    Fault(
        "every message has the same packet identifier",
        v5("MQTT-4.3.2-1", "MQTT-4.3.3-1") + v311("MQTT-2.3.1-2", "MQTT-4.3.2-1", "MQTT-4.3.3-1"),
        _OUTBOUND,
        "        packet_id = session.allocate_from(chosen) if chosen else session.allocate()\n",
        "        packet_id = session.allocate() and 1\n",
    ),
    Fault(
        "a packet identifier past PUBREC is used again",
        v5("MQTT-4.3.3-1", "MQTT-2.2.1-3") + v311("MQTT-2.3.1-2"),
        _SESSION,
        "                and packet_id not in self.released\n"
        "                and packet_id not in self.requests\n"
        "                and packet_id not in self.withheld\n",
        "                and packet_id not in self.requests\n"
        "                and packet_id not in self.withheld\n",
    ),
    Fault(
        "a message of QoS 1 is forgotten as soon as it is sent",
        v5("MQTT-4.3.2-3", "MQTT-4.4.0-1", "MQTT-3.1.2-23", "MQTT-4.1.0-1")
        + v311("MQTT-4.3.2-1", "MQTT-3.1.2-4", "MQTT-4.1.0-1", "MQTT-4.4.0-1"),
        _OUTPUT,
        "        in_flight[packet_id] = message\n",
        "        if flags >= 4:\n            in_flight[packet_id] = message\n",
    ),
    Fault(
        "a message of QoS 2 is forgotten as soon as it is sent",
        v5("MQTT-4.3.3-3", "MQTT-4.3.3-4") + v311("MQTT-4.3.3-1"),
        _OUTPUT,
        "        in_flight[packet_id] = message\n",
        "        if flags < 4:\n            in_flight[packet_id] = message\n",
    ),
    # What answers it
    Fault(
        "PUBACK with an error code counts as success",
        v5("MQTT-4.4.0-2", "MQTT-3.1.2-29"),
        _OUTBOUND,
        "        if reason_code >= 0x80:\n" + _REFUSE_ELSE,
        "        if reason_code > 0xFF:\n" + _REFUSE_ELSE,
    ),
    Fault(
        "PUBREC with an error code is answered with PUBREL",
        v5("MQTT-4.4.0-2", "MQTT-3.3.4-7", "MQTT-4.9.0-2"),
        _OUTBOUND,
        "        if reason_code >= 0x80:\n" + _REFUSE_RETURN,
        "        if reason_code > 0xFF:\n" + _REFUSE_RETURN,
    ),
    Fault(
        "a refused message keeps its place in the window",
        v5("MQTT-3.3.4-7", "MQTT-4.9.0-2", "MQTT-4.4.0-2"),
        _OUTBOUND,
        "        if session.in_flight.pop(message.packet_id, None) is None:\n",
        "        if status == REFUSED:\n            pass\n"
        "        elif session.in_flight.pop(message.packet_id, None) is None:\n",
    ),
    Fault(
        "PUBREC is not answered",
        v5("MQTT-4.3.3-4") + v311("MQTT-4.3.3-1"),
        _OUTBOUND,
        "        output.add(pubrel, change)\n",
        "",
    ),
    Fault(
        "PUBREL has another packet identifier",
        v5("MQTT-4.3.3-4", "MQTT-2.2.1-5") + v311("MQTT-2.3.1-6"),
        _OUTBOUND,
        _PUBREL,
        'pubrel = b"\\x62\\x02" + (packet_id + 1)',
    ),
    Fault(
        "the last PUBREC is answered first",
        v5("MQTT-4.6.0-4") + v311("MQTT-4.6.0-4"),
        _OUTBOUND,
        "        output.add(pubrel, change)\n",
        "        output._chunks.insert(0, pubrel)\n",
    ),
    Fault(
        "an exchange of QoS 2 ends when its message expires",
        v5("MQTT-4.3.3-13"),
        _OUTBOUND,
        "        if reason_code >= 0x80:\n" + _REFUSE_RETURN,
        "        if reason_code >= 0x80 or message.expires_at:\n" + _REFUSE_RETURN,
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
        _OUTBOUND,
        "_DUP = 0x08",
        "_DUP = 0x00",
    ),
    Fault(
        "PUBLISH is not repeated",
        v5("MQTT-4.4.0-1", "MQTT-4.3.2-3", "MQTT-4.3.3-3", "MQTT-3.1.2-23")
        + v311("MQTT-4.4.0-1", "MQTT-3.1.2-4", "MQTT-4.1.0-1"),
        _OUTBOUND,
        "            self.repeats[message.packet_id] = message\n",
        "            pass\n",
    ),
    Fault(
        "PUBLISH is repeated in the reverse order",
        v5("MQTT-4.6.0-1") + v311("MQTT-4.6.0-1"),
        _OUTBOUND,
        "repeats.popitem(last=False)",
        "repeats.popitem()",
    ),
    Fault(
        "PUBLISH is repeated with another packet identifier",
        v311("MQTT-2.3.1-3", "MQTT-4.4.0-1") + v5("MQTT-4.4.0-1"),
        _OUTBOUND,
        "        if not self._output.takes(message.flags, len(packet)):\n            self._hold(message)\n",
        "        packet = message.encode(99, 0.0)\n"
        "        if not self._output.takes(message.flags, len(packet)):\n            self._hold(message)\n",
    ),
    Fault(
        "PUBREL is not repeated",
        v5("MQTT-4.3.3-5", "MQTT-4.4.0-1") + v311("MQTT-4.3.3-1", "MQTT-4.4.0-1"),
        _OUTBOUND,
        "for packet_id in session.released:",
        "for packet_id in ():",
    ),
    Fault(
        "after PUBREC the PUBLISH is repeated",
        v5("MQTT-4.3.3-6") + v311("MQTT-4.3.3-1"),
        _OUTBOUND,
        "        del session.in_flight[packet_id]\n"
        "        self.repeats.pop(packet_id, None)\n"
        "        if self.left_out or self.held:\n"
        "            self._moved_on(packet_id)\n"
        "        session.released[packet_id] = message\n"
        "        if not self._keeps_payload:\n"
        "            message.packet = None\n",
        "        session.released[packet_id] = message\n        if not self._keeps_payload:\n",
    ),
    Fault(
        "the window is ignored when messages are repeated",
        v5("MQTT-3.3.4-7", "MQTT-4.9.0-2"),
        _OUTBOUND,
        "while repeats and not self._paced and len(session) - len(repeats) < self.window:",
        "while repeats and not self._paced:",
    ),
    Fault(
        "a message that was sent expires while there is life left",
        v5("MQTT-4.3.3-7"),
        _OUTBOUND,
        "and message.expires_at <= now:",
        "and message.expires_at <= now + 3600:",
    ),
    Fault(
        "messages are repeated on a live connection, with each PINGREQ",
        v5("MQTT-4.4.0-1") + v311("MQTT-4.4.0-1") + v31("MQTT-3.1/RESEND-TIMER"),
        _PROTOCOL,
        "            if self.output.urge(_PINGREQ, now):\n",
        "            if self.output.urge(_PINGREQ, now):\n                keep_alive.pinged(asked=False)\n"
        "            for one in self.session.in_flight.values():\n"
        '                self.output.add(one.packet or b"")\n'
        "            if False:\n",
    ),
    # PUBLISH from the server
    Fault(
        "QoS 0 is not delivered",
        v5("MQTT-3.3.4-1") + v311("MQTT-3.3.4-1"),
        _INBOUND,
        "            self._unacknowledged.append(message)\n        events.append(message)\n",
        "            self._unacknowledged.append(message)\n            events.append(message)\n",
    ),
    Fault(
        "PUBACK has another packet identifier",
        v5("MQTT-4.3.2-4", "MQTT-2.2.1-5", "MQTT-3.3.4-1")
        + v311("MQTT-4.3.2-2", "MQTT-2.3.1-6", "MQTT-3.3.4-1"),
        _INBOUND,
        _PUBACK,
        'output.answer(b"\\x40\\x02" + (packet_id + 1)',
    ),
    Fault(
        "PUBREC has another packet identifier",
        v5("MQTT-4.3.3-8", "MQTT-2.2.1-5", "MQTT-3.3.4-1")
        + v311("MQTT-4.3.3-2", "MQTT-2.3.1-6", "MQTT-3.3.4-1"),
        _INBOUND,
        _PUBREC,
        'output.answer(b"\\x50\\x02" + (packet_id + 1)',
    ),
    Fault(
        "PUBCOMP has another packet identifier",
        v5("MQTT-4.3.3-11") + v311("MQTT-4.3.3-2"),
        _INBOUND,
        _PUBCOMP,
        'pubcomp = b"\\x70\\x02" + (packet_id + 1)',
    ),
    Fault(
        "a PUBREL for an unknown message is not answered",
        v5("MQTT-4.3.3-11"),
        _INBOUND,
        "        if packet_id not in received:\n            if self._has_properties:\n",
        "        if packet_id not in received:\n            return\n"
        "        if packet_id not in received:\n            if self._has_properties:\n",
    ),
    Fault(
        "acknowledgements leave in the order in which handlers end",
        v5("MQTT-4.6.0-2", "MQTT-4.6.0-3") + v311("MQTT-4.6.0-2", "MQTT-4.6.0-3"),
        _INBOUND,
        "        while waiting and waiting[0].handled:\n            message = waiting.popleft()\n",
        "        for message in [one for one in waiting if one.handled]:\n"
        "            waiting.remove(message)\n",
    ),
    Fault(
        "QoS 2 is delivered again when DUP is set",
        v5("MQTT-4.3.3-10") + v311("MQTT-4.3.3-2"),
        _INBOUND,
        "        if packet_id not in received:\n            received[packet_id] = message\n",
        "        if packet_id not in received or message.dup:\n            received[packet_id] = message\n",
    ),
    Fault(
        "QoS 2 is delivered again after PUBREC",
        v5("MQTT-4.3.3-10") + v311("MQTT-4.3.3-2"),
        _INBOUND,
        "                session.received[packet_id] = None\n",
        "                session.received.pop(packet_id)\n",
    ),
    Fault(
        "a packet identifier stays used after PUBCOMP",
        v5("MQTT-4.3.3-12") + v311("MQTT-4.3.3-2"),
        _INBOUND,
        "            del received[packet_id]\n",
        "            pass\n",
    ),
    Fault(
        "QoS 1 with DUP is taken for a repeat",
        v5("MQTT-4.3.2-5") + v311("MQTT-4.3.2-2"),
        _INBOUND,
        "            self._unacknowledged.append(message)\n        events",
        "            self._unacknowledged.append(message)\n"
        "            if message.dup and qos == 1:\n"
        "                return\n"
        "        events",
    ),
    Fault(
        "a long silence ends the session of an open connection",
        v311("MQTT-4.1.0-2") + v5("MQTT-4.1.0-1"),
        _PROTOCOL,
        "            if self.output.urge(_PINGREQ, now):\n",
        "            self.session.received.clear()\n            if self.output.urge(_PINGREQ, now):\n",
    ),
    Fault(
        "after UNSUBSCRIBE no exchange is completed",
        v5("MQTT-3.10.4-3") + v311("MQTT-3.10.4-3"),
        _PROTOCOL,
        "        self.session.requests[packet_id] = (answer, count)\n",
        "        self.session.requests[packet_id] = (answer, count)\n"
        '        if answer == "unsuback":\n'
        "            handlers = _handlers(self.version, self.inbound, self.outbound)\n"
        "            handlers[6] = _ignored\n"
        "            self.framing.use(handlers)\n",
    ),
    *_explaining("PUBACK", ("MQTT-3.4.2-2", "MQTT-3.4.2-3"), _INBOUND, _PUBACK),
    *_explaining("PUBREC", ("MQTT-3.5.2-2", "MQTT-3.5.2-3"), _INBOUND, _PUBREC),
    *_explaining("PUBREL", ("MQTT-3.6.2-2", "MQTT-3.6.2-3"), _OUTBOUND, _PUBREL),
    *_explaining("PUBCOMP", ("MQTT-3.7.2-2", "MQTT-3.7.2-3"), _INBOUND, _PUBCOMP),
)
