"""Faults in the bytes of packets: headers, numbers, properties, reason codes, CONNECT."""

from __future__ import annotations

from tests.faults.fault import Fault, v5, v31, v311

__all__ = ["IN_CODEC"]

_CODES, _DECODE, _ENCODE, _WIRE = "mqtt/codes.py", "mqtt/decode.py", "mqtt/encode.py", "mqtt/wire.py"
_SESSION = "mqtt/session.py"
_FRAMING, _INBOUND, _OUTPUT = "mqtt/framing.py", "mqtt/inbound.py", "mqtt/output.py"

_REQUEST_FLAGS = 'if name in ("pubrel", "subscribe", "unsubscribe")'

IN_CODEC = (
    # The fixed header
    Fault(
        "the reserved flags of a packet with a body of its own are not looked at",
        v5("MQTT-2.1.3-1", "MQTT-3.14.1-1", "MQTT-3.15.1-1") + v311("MQTT-2.2.2-1", "MQTT-2.2.2-2"),
        _DECODE,
        "    if first_byte not in _FIRST_BYTES[version]:\n"
        "        raise _wrong_first_byte(first_byte, version)\n"
        "    return DECODERS",
        "    return DECODERS",
    ),
    Fault(
        "the flags of a short PUBREL are not looked at",
        v5("MQTT-2.1.3-1", "MQTT-3.6.1-1") + v311("MQTT-2.2.2-2", "MQTT-3.6.1-1"),
        _INBOUND,
        "if stop - start == 2 and first == 0x62 else",
        "if stop - start == 2 else",
    ),
    Fault(
        "PUBREL has no flags",
        v5("MQTT-3.6.1-1") + v311("MQTT-3.6.1-1"),
        _CODES,
        _REQUEST_FLAGS,
        'if name in ("subscribe", "unsubscribe")',
    ),
    Fault(
        "SUBSCRIBE has no flags",
        v5("MQTT-3.8.1-1") + v311("MQTT-3.8.1-1"),
        _CODES,
        _REQUEST_FLAGS,
        'if name in ("pubrel", "unsubscribe")',
    ),
    Fault(
        "UNSUBSCRIBE has no flags",
        v5("MQTT-3.10.1-1") + v311("MQTT-3.10.1-1"),
        _CODES,
        _REQUEST_FLAGS,
        'if name in ("pubrel", "subscribe")',
    ),
    Fault(
        "QoS 3 is received like another",
        v5("MQTT-3.3.1-4") + v311("MQTT-3.3.1-4"),
        _INBOUND,
        "if qos == 3 or (first",
        "if (first",
    ),
    Fault(
        "QoS 3 is sent",
        v5("MQTT-3.1.2-12") + v311("MQTT-3.1.2-14"),
        _ENCODE,
        "if not 0 <= value <= 2:",
        "if not 0 <= value <= 3:",
    ),
    Fault(
        "DUP at QoS 0 is received like another flag",
        v5("MQTT-3.3.1-2") + v311("MQTT-3.3.1-2"),
        _INBOUND,
        'qos == 3 or (first & 14 == 8 and self._version != "3.1") or',
        "qos == 3 or",
    ),
    Fault(
        "DUP at QoS 0 is malformed in MQTT 3.1 too",
        v31("MQTT-3.1/DUP-QOS-0"),
        _INBOUND,
        '(first & 14 == 8 and self._version != "3.1")',
        "first & 14 == 8",
    ),
    Fault(
        "DUP on PUBREL is malformed in MQTT 3.1 too",
        v31("MQTT-3.1/PUBREL-DUP"),
        _DECODE,
        "valid | {0x6A, 0x8A, 0xAA}",
        "valid",
    ),
    # Numbers
    Fault(
        "a property length that is longer than it has to be is read",
        v5("MQTT-1.5.5-1"),
        _WIRE,
        "if not byte and shift:",
        "if not byte and shift and False:",
    ),
    Fault(
        "a remaining length that is longer than it has to be is read",
        v5("MQTT-1.5.5-1"),
        _FRAMING,
        "if byte == 0:",
        "if byte == 0 and False:",
    ),
    Fault(
        "a remaining length is written with a byte too many",
        v5("MQTT-1.5.5-1"),
        _WIRE,
        "    if value < 0x80:\n        return bytes",
        "    if value < 0x7F:\n        return bytes",
    ),
    Fault(
        "QoS 0 is read with a packet identifier",
        v5("MQTT-2.2.1-2") + v311("MQTT-2.3.1-5"),
        _INBOUND,
        "        if qos:\n            if end + 2",
        "        if True:\n            if end + 2",
    ),
    Fault(
        "QoS 0 is sent with a packet identifier",
        v5("MQTT-2.2.1-2") + v311("MQTT-2.3.1-5"),
        _OUTPUT,
        "        size = len(topic_field) + len(properties) + len(payload)\n",
        '        topic_field += b"\\0\\1"\n'
        "        size = len(topic_field) + len(properties) + len(payload)\n",
    ),
    Fault(
        "packet identifier 0 is written",
        v5("MQTT-2.2.1-3") + v311("MQTT-2.3.1-1"),
        _ENCODE,
        'return _uint16(packet.packet_id, "packet_id", 1)',
        'return _uint16(packet.packet_id, "packet_id", 0)',
    ),
    Fault(
        "packet identifier 0 is read in PUBLISH",
        v5("MQTT-2.2.1-3") + v311("MQTT-2.3.1-1"),
        _INBOUND,
        '            if not packet_id:\n                raise RemoteProtocolError("PUBLISH with',
        '            if packet_id < 0:\n                raise RemoteProtocolError("PUBLISH with',
    ),
    Fault(
        "packet identifier 0 is read in the other packets",
        v5("MQTT-2.2.1-3") + v311("MQTT-2.3.1-1"),
        _DECODE,
        '    if not packet_id:\n        raise RemoteProtocolError("packet identifier 0")',
        '    if packet_id < 0:\n        raise RemoteProtocolError("packet identifier 0")',
    ),
    Fault(
        "after identifier 65,535 comes 0",
        v5("MQTT-2.2.1-3") + v311("MQTT-2.3.1-2"),
        _SESSION,
        "packet_id + 1 if packet_id < _HIGHEST_PACKET_ID else 1",
        "packet_id + 1 if packet_id < _HIGHEST_PACKET_ID else 0",
    ),
    # Properties
    Fault(
        "no properties are written as nothing",
        v5("MQTT-2.2.2-1"),
        _WIRE,
        'if not properties:\n        return b"\\0"',
        'if not properties:\n        return b""',
    ),
    Fault(
        "a receive maximum of 0 is taken",
        v5("MQTT-4.9.0-1"),
        _CODES,
        '"receive_maximum", "uint16", "connect connack", 1, _UINT16',
        '"receive_maximum", "uint16", "connect connack", 0, _UINT16',
    ),
    Fault(
        "the lower bound of a property is not looked at",
        v5("MQTT-4.9.0-1"),
        _WIRE,
        "if entry.maximum and not entry.minimum <= value",
        "if entry.maximum and not 0 <= value",
    ),
    Fault(
        "a response topic with a wildcard ends the connection of who receives it",
        v5("MQTT-3.3.2-14"),
        _WIRE,
        "        if name not in properties:\n",
        '        if name == "response_topic" and "#" in value:\n'
        "            raise MalformedPacketError(name)\n"
        "        if name not in properties:\n",
    ),
    Fault(
        "a response topic may be sent with a wildcard",
        v5("MQTT-3.3.2-14"),
        _WIRE,
        'if entry.name == "response_topic" and (b"#" in encoded[2:] or b"+" in encoded[2:]):',
        'if entry.name == "response_topic" and b"+" in encoded[2:]:',
    ),
    # CONNECT
    Fault(
        "CONNECT says another protocol name",
        v5("MQTT-3.1.2-1"),
        _CODES,
        '"5.0": ("MQTT", 5)',
        '"5.0": ("MQTt", 5)',
    ),
    Fault(
        "CONNECT of MQTT 3.1.1 says another protocol name",
        v311("MQTT-3.1.2-1"),
        _CODES,
        '"3.1.1": ("MQTT", 4)',
        '"3.1.1": ("MQTt", 4)',
    ),
    Fault(
        "CONNECT of MQTT 3.1 says level 4",
        v31("MQTT-3.1/PROTOCOL"),
        _CODES,
        '("MQIsdp", 3)',
        '("MQIsdp", 4)',
    ),
    Fault(
        "the reserved flag of CONNECT is set",
        v5("MQTT-3.1.2-3") + v311("MQTT-3.1.2-3"),
        _ENCODE,
        "flags = 2 if packet.clean_start else 0",
        "flags = 3 if packet.clean_start else 1",
    ),
    Fault(
        "the will has a flag and no fields",
        v5("MQTT-3.1.2-9") + v311("MQTT-3.1.2-9"),
        _ENCODE,
        "        payload += will_parts\n",
        "",
    ),
    Fault(
        "without a will there is a will QoS",
        v5("MQTT-3.1.2-11") + v311("MQTT-3.1.2-11", "MQTT-3.1.2-13"),
        _ENCODE,
        "flags = 2 if packet.clean_start else 0",
        "flags = 10 if packet.clean_start else 8",
    ),
    Fault(
        "without a will there is will retain",
        v5("MQTT-3.1.2-13") + v311("MQTT-3.1.2-11", "MQTT-3.1.2-15"),
        _ENCODE,
        "flags = 2 if packet.clean_start else 0",
        "flags = 34 if packet.clean_start else 32",
    ),
    Fault(
        "a user name has no flag",
        v5("MQTT-3.1.2-16") + v311("MQTT-3.1.2-18"),
        _ENCODE,
        "flags |= 0x80",
        "flags |= 0",
    ),
    Fault(
        "the user name flag has no user name",
        v5("MQTT-3.1.2-17") + v311("MQTT-3.1.2-19"),
        _ENCODE,
        '        payload.append(encode_string(packet.user_name, "user_name"))\n',
        "",
    ),
    Fault(
        "a password has no flag",
        v5("MQTT-3.1.2-18") + v311("MQTT-3.1.2-20"),
        _ENCODE,
        "flags |= 0x40",
        "flags |= 0",
    ),
    Fault(
        "the password flag has no password",
        v5("MQTT-3.1.2-19") + v311("MQTT-3.1.2-21"),
        _ENCODE,
        '        payload.append(encode_binary(packet.password, "password"))\n',
        "",
    ),
    Fault(
        "the fields of CONNECT come in the reverse order",
        v5("MQTT-3.1.3-1", "MQTT-3.1.3-3") + v311("MQTT-3.1.3-1", "MQTT-3.1.3-3"),
        _ENCODE,
        "        *payload,\n    ]",
        "        *reversed(payload),\n    ]",
    ),
    Fault(
        "an empty client identifier is left out",
        v5("MQTT-3.1.3-3"),
        _ENCODE,
        'payload = [encode_string(packet.client_id, "client_id")]',
        'payload = [encode_string(packet.client_id, "client_id")] if packet.client_id else []',
    ),
    Fault(
        "an empty client identifier is written without a clean start",
        v311("MQTT-3.1.3-7"),
        _ENCODE,
        '(version == "3.1" or not (v5 or packet.clean_start))',
        'version == "3.1"',
    ),
    Fault(
        "an empty client identifier is written in MQTT 3.1",
        v31("MQTT-3.1/CLIENT-ID"),
        _ENCODE,
        '(version == "3.1" or not (v5 or packet.clean_start))',
        "not (v5 or packet.clean_start)",
    ),
    Fault(
        "a password goes without a user name in MQTT 3",
        v311("MQTT-3.1.2-22") + v31("MQTT-3.1/PASSWORD"),
        _ENCODE,
        "if packet.password is not None and packet.user_name is None and not v5:",
        "if False:",
    ),
    # CONNACK, reason codes, SUBACK
    Fault(
        "a refusal may say session present",
        v5("MQTT-3.2.2-6") + v311("MQTT-3.2.2-4"),
        _DECODE,
        "    if flags and code:",
        "    if flags and code < 0:",
    ),
    Fault(
        "the first byte of CONNACK means something in MQTT 3.1",
        v31("MQTT-3.1/SESSION-PRESENT"),
        _DECODE,
        '    if version == "3.1":\n        # The byte',
        '    if version == "3":\n        # The byte',
    ),
    Fault(
        "a received reason code is not looked at",
        v5(
            "MQTT-3.2.2-8", "MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.6.2-1", "MQTT-3.7.2-1", "MQTT-3.9.3-2",
            "MQTT-3.11.3-2", "MQTT-3.14.2-1", "MQTT-3.15.2-1",
        ),
        _DECODE,
        "if code not in RECEIVED_REASON_CODES[packet]:",
        "if code not in range(256):",
    ),
    Fault(
        "a reason code is sent in a packet that does not have it",
        v5(
            "MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.6.2-1", "MQTT-3.7.2-1", "MQTT-3.14.2-1", "MQTT-3.15.2-1"
        ),
        _ENCODE,
        "if code not in REASON_CODES[packet]:",
        "if code not in range(256):",
    ),
    Fault(
        "SUBACK of MQTT 3.1 may say failure",
        v31("MQTT-3.1/SUBACK-FAILURE"),
        _CODES,
        '"3.1": _codes("00 01 02")',
        '"3.1": _codes("00 01 02 80")',
    ),
    Fault(
        "the QoS byte of SUBSCRIBE has more bits",
        v311("MQTT-3.8.3-4"),
        _ENCODE,
        "return options | _qos(subscription.qos)",
        "return options | 4 | _qos(subscription.qos)",
    ),
)  # fmt: skip
