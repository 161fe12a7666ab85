"""Faults in the life of a connection: CONNACK, limits, keep alive, SUBSCRIBE, AUTH, DISCONNECT."""

from __future__ import annotations

from tests.faults.fault import Fault, v5, v31, v311

__all__ = ["IN_CONNECTIONS"]

_ALIASING, _KEEP_ALIVE = "mqtt/aliasing.py", "mqtt/keep_alive.py"
_PROTOCOL, _SESSION = "mqtt/protocol.py", "mqtt/session.py"
_FRAMING, _HANDSHAKE = "mqtt/framing.py", "mqtt/handshake.py"
_INBOUND, _OUTPUT = "mqtt/inbound.py", "mqtt/output.py"

IN_CONNECTIONS = (
    # CONNACK
    Fault(
        "a refusal is taken for an acceptance",
        v5(
            "MQTT-3.1.2-2", "MQTT-3.1.3-8", "MQTT-3.1.4-6", "MQTT-3.2.2-7", "MQTT-3.2.2-12", "MQTT-3.2.2-13",
            "MQTT-4.12.0-1", "MQTT-4.12.0-4", "MQTT-4.13.2-1",
        )
        + v311("MQTT-3.1.2-2", "MQTT-3.1.3-8", "MQTT-3.1.3-9", "MQTT-3.2.2-5")
        + v31("MQTT-3.1/ONLY-WHEN-ASKED"),
        _HANDSHAKE,
        "        if connack.reason_code:\n",
        "        if connack.reason_code > 255:\n",
    ),
    Fault(
        "a refused connection stays open",
        v5("MQTT-3.2.2-7", "MQTT-3.1.4-6", "MQTT-4.13.2-1") + v311("MQTT-3.2.2-5"),
        _PROTOCOL,
        "            self._fail(end.error)\n"
        "            events.append(end)\n",
        "            events.append(end)\n",
    ),
    Fault(
        "a second CONNACK is taken",
        v5("MQTT-3.2.0-2"),
        _PROTOCOL,
        "    handlers[3] = inbound.on_publish\n",
        "    handlers[2] = read\n"
        "    handlers[3] = inbound.on_publish\n",
    ),
    Fault(
        "PUBLISH is taken before CONNACK",
        v5("MQTT-3.2.0-1") + v311("MQTT-3.2.0-1"),
        _PROTOCOL,
        "        self.state = CONNECTING\n",
        "        self.state = CONNECTING\n"
        "        self.framing.use(_handlers(self.version, self.inbound, self.outbound))\n",
    ),
    Fault(
        "session present is taken after a clean start",
        v5("MQTT-3.2.2-2") + v311("MQTT-3.2.2-1"),
        _HANDSHAKE,
        "        if present and self.clean_start and not",
        '        if present and self.clean_start and options.version == "3.1" and not',
    ),
    Fault(
        "a session that the client does not know is resumed",
        v5("MQTT-3.2.2-4"),
        _HANDSHAKE,
        "and not (self._session.known or self._vouched):",
        "and False:",
    ),
    Fault(
        "MQTT 3.1 has session present",
        v31("MQTT-3.1/SESSION-PRESENT"),
        _HANDSHAKE,
        '        if options.version == "3.1" and',
        '        if options.version == "3" and',
    ),
    Fault(
        "what a lost session had in flight is repeated",
        v5("MQTT-3.1.2-4", "MQTT-3.2.2-5") + v311("MQTT-3.1.2-6", "MQTT-3.2.2-3"),
        _SESSION,
        "        unfinished = list(self.in_flight.values())\n",
        "        unfinished = list(self.in_flight.values())[1:]\n",
    ),
    Fault(
        "what a lost session had in flight comes back in the reverse order",
        v5("MQTT-3.2.2-5") + v311("MQTT-3.2.2-3"),
        _SESSION,
        "        unfinished = list(self.in_flight.values())\n",
        "        unfinished = list(self.in_flight.values())[::-1]\n",
    ),
    Fault(
        "what was received in a lost session is remembered",
        v5("MQTT-3.1.2-4", "MQTT-3.2.2-5") + v311("MQTT-3.1.2-6", "MQTT-3.2.2-3"),
        _SESSION,
        "        self.received.clear()\n",
        "",
    ),
    Fault(
        "the messages of a lost session keep their packets",
        v5("MQTT-3.1.2-4") + v311("MQTT-3.1.2-6"),
        _SESSION,
        "        for message in republish:\n            message.packet = None\n",
        "        for message in republish:\n",
    ),
    Fault(
        "an assigned client identifier is not used",
        v5("MQTT-3.1.3-7", "MQTT-3.2.2-16"),
        _HANDSHAKE,
        "            options.take_name(assigned)  # Source",
        "            pass  # Source",
    ),
    # The limits of the server
    Fault(
        "maximum QoS is ignored",
        v5("MQTT-3.2.2-9", "MQTT-3.2.2-11"),
        _OUTPUT,
        "if flags >> 1 > self._maximum_qos or",
        "if flags >> 1 > 2 or",
    ),
    Fault(
        "retain available is ignored",
        v5("MQTT-3.2.2-14"),
        _OUTPUT,
        'or (flags & 1 and not server.get("retain_available", 1))',
        "or flags > 5",
    ),
    Fault(
        "a PUBLISH may be one byte larger than the server takes",
        v5("MQTT-3.2.2-15"),
        _OUTPUT,
        '        identifier = packet_id.to_bytes(2, "big")\n'
        '        packet = b"".join((FIRST_BYTES[flags], length, topic, identifier, properties, payload))\n'
        "        size = len(packet)\n"
        "        if size > self.largest_packet or",
        '        identifier = packet_id.to_bytes(2, "big")\n'
        '        packet = b"".join((FIRST_BYTES[flags], length, topic, identifier, properties, payload))\n'
        "        size = len(packet)\n"
        "        if size > self.largest_packet + 1 or",
    ),
    Fault(
        "a SUBSCRIBE may be larger than the server takes",
        v5("MQTT-3.2.2-15"),
        _PROTOCOL,
        "        if len(encoded) > largest:\n"
        "            raise LocalProtocolError(\n"
        '                f"topic filters',
        "        if len(encoded) > largest + 10:\n"
        "            raise LocalProtocolError(\n"
        '                f"topic filters',
    ),
    Fault(
        "the server's receive maximum is ignored",
        v5("MQTT-3.3.4-7", "MQTT-4.9.0-1", "MQTT-4.9.0-2"),
        _HANDSHAKE,
        'self.window = min(self._inflight, server.get("receive_maximum", 65_535))',
        "self.window = self._inflight",
    ),
    Fault(
        "topic aliases are used although the server allows none",
        v5("MQTT-3.2.2-17", "MQTT-3.2.2-18"),
        _OUTPUT,
        'server.get("topic_alias_maximum", 0)',
        'server.get("topic_alias_maximum", 9)',
    ),
    Fault(
        "one topic alias too many is used",
        v5("MQTT-3.2.2-17", "MQTT-3.3.2-9"),
        _ALIASING,
        "alias = len(given) + 1 if len(given) < self._most else",
        "alias = len(given) + 1 if len(given) <= self._most else",
    ),
    Fault(
        "the copy for a repeat has the topic alias",
        v5("MQTT-3.3.2-7"),
        _OUTPUT,
        "identifier, properties, message.payload)\n",
        "identifier, properties, message.payload)\n        message.packet = self._chunks[-1]\n",
    ),
    # What the client announces
    Fault(
        "a packet one byte above our maximum is taken",
        v5("MQTT-3.1.2-24"),
        _FRAMING,
        "        if total > self._limit:\n",
        "        if total > self._limit + 1:\n",
    ),
    Fault(
        "a topic alias above our maximum is taken",
        v5("MQTT-3.1.2-26", "MQTT-3.1.2-27", "MQTT-3.3.2-11"),
        _INBOUND,
        "if not 0 < alias <= self._alias_maximum:",
        "if not 0 < alias <= 65_535:",
    ),
    Fault(
        "the highest topic alias that we announced is refused",
        v5("MQTT-3.3.2-10"),
        _INBOUND,
        "if not 0 < alias <= self._alias_maximum:",
        "if not 0 < alias < self._alias_maximum:",
    ),
    Fault(
        "a topic alias cannot be set again",
        v5("MQTT-3.3.2-10"),
        _INBOUND,
        "            self.aliases[alias] = topic\n",
        "            self.aliases.setdefault(alias, topic)\n",
    ),
    Fault(
        "topic aliases survive the connection",
        v5("MQTT-3.3.2-7"),
        _INBOUND,
        "        self.aliases: dict[int, str] = {}\n",
        '        self.aliases = session.__dict__.setdefault("aliases", {})\n',
    ),
    Fault(
        "the server may send more messages than our receive maximum",
        v5("MQTT-3.3.4-9"),
        _INBOUND,
        "if self._incoming >= self._receive_maximum:",
        "if self._incoming > self._receive_maximum:",
    ),
    # Keep alive
    Fault(
        "the server's keep alive is ignored",
        v5("MQTT-3.1.2-21", "MQTT-3.2.2-21"),
        _PROTOCOL,
        'self.keep_alive.agree(server.get("server_keep_alive", self.keep_alive.interval))',
        "self.keep_alive.agree(self.keep_alive.interval)",
    ),
    Fault(
        "PINGREQ comes after the keep alive time",
        v5("MQTT-3.1.2-20") + v311("MQTT-3.1.2-23"),
        _KEEP_ALIVE,
        "period = self.interval - min(_MARGIN, self.interval / 10)",
        "period = self.interval + min(_MARGIN, self.interval / 10)",
    ),
    Fault(
        "what comes in postpones PINGREQ",
        v5("MQTT-3.1.2-20"),
        _KEEP_ALIVE,
        "return min(sent, received) + period",
        "return max(sent, received) + period",
    ),
    Fault(
        "a server that does not answer PINGREQ is never given up",
        v5("MQTT-3.12.4-1") + v311("MQTT-3.12.4-1"),
        _KEEP_ALIVE,
        "            return DEAD\n",
        '            return "ping"\n',
    ),
    # SUBSCRIBE and UNSUBSCRIBE
    Fault(
        "a packet identifier of a SUBSCRIBE is given to a message",
        v5("MQTT-2.2.1-3"),
        _SESSION,
        "            and packet_id not in self.requests\n"
        "            and packet_id not in self.withheld\n        ):",
        "            and packet_id not in self.withheld\n        ):",
    ),
    Fault(
        "SUBACK may answer any packet identifier",
        v5("MQTT-2.2.1-6", "MQTT-3.8.4-2", "MQTT-3.10.4-5")
        + v311("MQTT-2.3.1-7", "MQTT-3.8.4-2", "MQTT-3.10.4-4"),
        _PROTOCOL,
        "        if expected is None or expected[0] != packet.type:\n",
        '        if expected is None:\n            expected = ("", len(packet.reason_codes or ()))\n'
        "        if False:\n",
    ),
    Fault(
        "UNSUBACK may answer SUBSCRIBE",
        v5("MQTT-2.2.1-6") + v311("MQTT-2.3.1-7"),
        _PROTOCOL,
        "        if expected is None or expected[0] != packet.type:\n",
        "        if expected is None:\n",
    ),
    Fault(
        "SUBACK may have fewer or more codes than SUBSCRIBE has filters",
        v5("MQTT-3.8.4-6", "MQTT-3.11.3-1") + v311("MQTT-3.8.4-5"),
        _PROTOCOL,
        "        if len(codes) != expected[1]:\n",
        "        if not codes:\n",
    ),
    # AUTH
    Fault(
        "AUTH of the server may have another method",
        v5("MQTT-4.12.0-5"),
        _HANDSHAKE,
        "        if not (known and self.is_our_method(properties)):\n",
        "        if not known:\n",
    ),
    Fault(
        "AUTH of the server is taken although CONNECT had no method",
        v5("MQTT-4.12.0-6"),
        _HANDSHAKE,
        "        if not (known and self.is_our_method(properties)):\n",
        "        if known and not self.is_our_method(properties):\n",
    ),
    Fault(
        "CONNACK may have another authentication method",
        v5("MQTT-4.12.0-5", "MQTT-4.12.0-6"),
        _HANDSHAKE,
        "        if not self.is_our_method(server):\n",
        "        if not connack:\n",
    ),
    Fault(
        "we send AUTH with another method",
        v5("MQTT-4.12.1-1", "MQTT-4.12.0-5"),
        _HANDSHAKE,
        "        if not self.is_our_method(properties):\n"
        "            raise LocalProtocolError",
        "        if not self.options:\n"
        "            raise LocalProtocolError",
    ),
    Fault(
        "we send AUTH although CONNECT had no method",
        v5("MQTT-4.12.0-7"),
        _HANDSHAKE,
        'if "authentication_method" not in self.options.properties:\n            raise LocalProtocolError(',
        "if not self.options:\n            raise LocalProtocolError(",
    ),
    Fault(
        "we send AUTH with the reason code of a server",
        v5("MQTT-3.15.2-1"),
        _PROTOCOL,
        "if reason_code not in (0x18, 0x19):",
        "if reason_code not in (0x00, 0x18, 0x19):",
    ),
    Fault(
        "we send an AUTH that its explanations make too large",
        v5("MQTT-3.15.2-2", "MQTT-3.15.2-3"),
        _PROTOCOL,
        "        if len(packet) > largest:\n"
        "            raise LocalProtocolError(\n"
        '                f"properties: the AUTH',
        "        if not packet:\n"
        "            raise LocalProtocolError(\n"
        '                f"properties: the AUTH',
    ),
    Fault(
        "AUTH of the server is not passed on",
        v5("MQTT-4.12.0-2", "MQTT-4.12.0-3"),
        _PROTOCOL,
        "        events.append(AuthReceived(packet.reason_code, packet.properties))",
        "        return",
    ),
    # The end
    Fault(
        "a DISCONNECT that is too large keeps its reason string",
        v5("MQTT-3.14.2-3"),
        _PROTOCOL,
        '_EXPLANATIONS = ("reason_string", "user_property")',
        '_EXPLANATIONS = ("user_property",)',
    ),
    Fault(
        "a DISCONNECT that is too large keeps its user properties",
        v5("MQTT-3.14.2-4"),
        _PROTOCOL,
        '_EXPLANATIONS = ("reason_string", "user_property")',
        '_EXPLANATIONS = ("reason_string",)',
    ),
    Fault(
        "packets leave after DISCONNECT",
        v5("MQTT-3.14.4-1", "MQTT-4.12.1-2") + v311("MQTT-3.14.4-2"),
        _OUTPUT,
        "        if self._ended and self._last_packet is None:\n"
        "            return []\n"
        "        chunks",
        "        chunks",
    ),
    Fault(
        "DISCONNECT of the server may have a session expiry interval",
        v5("MQTT-3.14.2-2"),
        _PROTOCOL,
        'if "session_expiry_interval" in packet.properties:',
        "if not packet:",
    ),
    Fault(
        "DISCONNECT of the server does not end the connection",
        v5("MQTT-3.1.4-3", "MQTT-4.13.2-1", "MQTT-4.12.1-2"),
        _PROTOCOL,
        "        self._fail(error)\n"
        "        events.append(ConnectionEnded(error, packet",
        "        events.append(ConnectionEnded(error, packet",
    ),
    Fault(
        "DISCONNECT before CONNACK is a protocol error",
        v5("MQTT-3.14.0-1"),
        _PROTOCOL,
        "        handlers[14] = handlers[15] = read\n"
        "    else:\n"
        "        handlers[15] = no_packet\n"
        "    return handlers\n"
        "\n"
        "\n"
        "def _handlers(",
        "        handlers[15] = read\n"
        "    else:\n"
        "        handlers[15] = no_packet\n"
        "    return handlers\n"
        "\n"
        "\n"
        "def _handlers(",
    ),
    Fault(
        "a fault of the server is not answered with its reason",
        v5("MQTT-4.13.1-1"),
        _PROTOCOL,
        "last_words = encode_packet(Disconnect(error.reason_code), self.version)",
        "last_words = encode_packet(Disconnect(), self.version)",
    ),
    Fault(
        "a fault of the server does not end the connection",
        v5("MQTT-4.13.1-1") + v311("MQTT-4.8.0-1", "MQTT-2.2.2-2"),
        _PROTOCOL,
        "        return [ConnectionEnded(error, silent=silent)]",
        "        return []",
    ),
    Fault(
        "a connection of MQTT 3 ends with a DISCONNECT that has a reason",
        v311("MQTT-4.8.0-1"),
        _PROTOCOL,
        'if introduced and self.version == "5.0" and isinstance(error, RemoteProtocolError):',
        "if introduced and isinstance(error, RemoteProtocolError):",
    ),
    Fault(
        "the end of the stream before CONNACK is no end",
        v311("MQTT-3.2.2-6"),
        _PROTOCOL,
        "        if self.state == CLOSED:\n            return []\n        during",
        "        if self.state != CONNECTED:\n            return []\n        during",
    ),
)  # fmt: skip
