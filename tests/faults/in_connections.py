"""Faults in the life of a connection: CONNACK, limits, keep alive, SUBSCRIBE, AUTH, DISCONNECT."""

from __future__ import annotations

from tests.faults.fault import Fault, v5, v31, v311

__all__ = ["IN_CONNECTIONS"]

_ALIASING, _KEEP_ALIVE = "mqtt/aliasing.py", "mqtt/keep_alive.py"
_PROTOCOL, _RECEIVE, _SESSION = "mqtt/protocol.py", "mqtt/receive.py", "mqtt/session.py"

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
        _PROTOCOL,
        "        if connack.reason_code:\n",
        "        if connack.reason_code > 255:\n",
    ),
    Fault(
        "a refused connection stays open",
        v5("MQTT-3.2.2-7", "MQTT-3.1.4-6", "MQTT-4.13.2-1") + v311("MQTT-3.2.2-5"),
        _PROTOCOL,
        "        self._close()\n        reason_code, properties = connack.reason_code",
        "        reason_code, properties = connack.reason_code",
    ),
    Fault(
        "a second CONNACK is taken",
        v5("MQTT-3.2.0-2"),
        _RECEIVE,
        "        handlers[2] = self._unexpected\n",
        "",
    ),
    Fault(
        "PUBLISH is taken before CONNACK",
        v5("MQTT-3.2.0-1") + v311("MQTT-3.2.0-1"),
        _RECEIVE,
        "        self._handlers[2] = self._on_connack\n",
        "        self._handlers[2] = self._on_connack\n        self._handlers[3] = self._on_publish\n",
    ),
    Fault(
        "session present is taken after a clean start",
        v5("MQTT-3.2.2-2") + v311("MQTT-3.2.2-1"),
        _PROTOCOL,
        "        if present and self._clean_start:\n",
        '        if present and self._clean_start and self.version == "3.1":\n',
    ),
    Fault(
        "a session that the client does not know is resumed",
        v5("MQTT-3.2.2-4"),
        _PROTOCOL,
        "and not (self.session.known or self._vouched):",
        "and False:",
    ),
    Fault(
        "MQTT 3.1 has session present",
        v31("MQTT-3.1/SESSION-PRESENT"),
        _PROTOCOL,
        '        if self.version == "3.1":\n            present =',
        '        if self.version == "3":\n            present =',
    ),
    Fault(
        "what a lost session had in flight is repeated",
        v5("MQTT-3.1.2-4", "MQTT-3.2.2-5") + v311("MQTT-3.1.2-6", "MQTT-3.2.2-3"),
        _SESSION,
        "        republish = list(self.in_flight.values())\n",
        "        republish = list(self.in_flight.values())[1:]\n",
    ),
    Fault(
        "what a lost session had in flight comes back in the reverse order",
        v5("MQTT-3.2.2-5") + v311("MQTT-3.2.2-3"),
        _SESSION,
        "        republish = list(self.in_flight.values())\n",
        "        republish = list(self.in_flight.values())[::-1]\n",
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
        _PROTOCOL,
        "            options.client_id = assigned  # Source",
        "            pass  # Source",
    ),
    # The limits of the server
    Fault(
        "maximum QoS is ignored",
        v5("MQTT-3.2.2-9", "MQTT-3.2.2-11"),
        _PROTOCOL,
        'if flags >> 1 > server.get("maximum_qos", 2)\n',
        "if flags >> 1 > 2\n",
    ),
    Fault(
        "retain available is ignored",
        v5("MQTT-3.2.2-14"),
        _PROTOCOL,
        'or (flags & 1 and not server.get("retain_available", 1))',
        "or flags > 5",
    ),
    Fault(
        "a PUBLISH may be one byte larger than the server takes",
        v5("MQTT-3.2.2-15"),
        _PROTOCOL,
        "        if len(packet) > self._largest_packet or flags in self._refused_flags:\n"
        "            self.check(flags, len(packet))\n"
        "        message.packet_id",
        "        if len(packet) > self._largest_packet + 1 or flags in self._refused_flags:\n"
        "            self.check(flags, len(packet))\n"
        "        message.packet_id",
    ),
    Fault(
        "a SUBSCRIBE may be larger than the server takes",
        v5("MQTT-3.2.2-15"),
        _PROTOCOL,
        "        if len(encoded) > self._largest_packet:\n            raise LocalProtocolError(\n"
        '                f"topic filters',
        "        if len(encoded) > self._largest_packet + 10:\n            raise LocalProtocolError(\n"
        '                f"topic filters',
    ),
    Fault(
        "the server's receive maximum is ignored",
        v5("MQTT-3.3.4-7", "MQTT-4.9.0-1", "MQTT-4.9.0-2"),
        _PROTOCOL,
        'self.window = min(self._inflight, server.get("receive_maximum", 65_535))',
        "self.window = self._inflight",
    ),
    Fault(
        "topic aliases are used although the server allows none",
        v5("MQTT-3.2.2-17", "MQTT-3.2.2-18"),
        _ALIASING,
        'self.server.get("topic_alias_maximum", 0)',
        'self.server.get("topic_alias_maximum", 9)',
    ),
    Fault(
        "one topic alias too many is used",
        v5("MQTT-3.2.2-17", "MQTT-3.3.2-9"),
        _ALIASING,
        "alias = len(given) + 1 if len(given) < self._most_aliases else",
        "alias = len(given) + 1 if len(given) <= self._most_aliases else",
    ),
    Fault(
        "the copy for a repeat has the topic alias",
        v5("MQTT-3.3.2-7"),
        _ALIASING,
        "        self._shorten_last(2)\n",
        "        self._shorten_last(2)\n        message.packet = self._out[-1]\n",
    ),
    # What the client announces
    Fault(
        "a packet one byte above our maximum is taken",
        v5("MQTT-3.1.2-24"),
        _RECEIVE,
        "        if total > self._limit:\n",
        "        if total > self._limit + 1:\n",
    ),
    Fault(
        "a topic alias above our maximum is taken",
        v5("MQTT-3.1.2-26", "MQTT-3.1.2-27", "MQTT-3.3.2-11"),
        _RECEIVE,
        "if not 0 < alias <= self._alias_maximum:",
        "if not 0 < alias <= 65_535:",
    ),
    Fault(
        "the highest topic alias that we announced is refused",
        v5("MQTT-3.3.2-10"),
        _RECEIVE,
        "if not 0 < alias <= self._alias_maximum:",
        "if not 0 < alias < self._alias_maximum:",
    ),
    Fault(
        "a topic alias cannot be set again",
        v5("MQTT-3.3.2-10"),
        _RECEIVE,
        "            self._aliases[alias] = topic\n",
        "            self._aliases.setdefault(alias, topic)\n",
    ),
    Fault(
        "topic aliases survive the connection",
        v5("MQTT-3.3.2-7"),
        _RECEIVE,
        "        self._aliases: dict[int, str] = {}\n",
        '        self._aliases = session.__dict__.setdefault("aliases", {})\n',
    ),
    Fault(
        "the server may send more messages than our receive maximum",
        v5("MQTT-3.3.4-9"),
        _RECEIVE,
        "if self._incoming >= self._receive_maximum:",
        "if self._incoming > self._receive_maximum:",
    ),
    # Keep alive
    Fault(
        "the server's keep alive is ignored",
        v5("MQTT-3.1.2-21", "MQTT-3.2.2-21"),
        _PROTOCOL,
        'self.keep_alive.interval = server.get("server_keep_alive", self.options.keep_alive)',
        "self.keep_alive.interval = self.options.keep_alive",
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
        "return min(self.last_sent, self.last_received) + period",
        "return max(self.last_sent, self.last_received) + period",
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
        "            and packet_id not in self.requests\n        ):\n            self.last_packet_id",
        "        ):\n            self.last_packet_id",
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
        _PROTOCOL,
        "        if not (known and self._is_our_method(packet.properties)):\n",
        "        if not known:\n",
    ),
    Fault(
        "AUTH of the server is taken although CONNECT had no method",
        v5("MQTT-4.12.0-6"),
        _PROTOCOL,
        "        if not (known and self._is_our_method(packet.properties)):\n",
        "        if known and not self._is_our_method(packet.properties):\n",
    ),
    Fault(
        "CONNACK may have another authentication method",
        v5("MQTT-4.12.0-5", "MQTT-4.12.0-6"),
        _PROTOCOL,
        "        if not self._is_our_method(connack.properties):\n",
        "        if not connack:\n",
    ),
    Fault(
        "we send AUTH with another method",
        v5("MQTT-4.12.1-1", "MQTT-4.12.0-5"),
        _PROTOCOL,
        "        if not self._is_our_method(properties):\n            raise LocalProtocolError",
        "        if not self.options:\n            raise LocalProtocolError",
    ),
    Fault(
        "we send AUTH although CONNECT had no method",
        v5("MQTT-4.12.0-7"),
        _PROTOCOL,
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
        "        if len(packet) > self._largest_packet:\n            raise LocalProtocolError(\n"
        '                f"properties: the AUTH',
        "        if not packet:\n            raise LocalProtocolError(\n"
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
        _PROTOCOL,
        "        if self.state > CONNECTED and self._last_packet is None:\n            return []\n",
        "",
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
        "        self._close()\n        error = disconnected(",
        "        error = disconnected(",
    ),
    Fault(
        "DISCONNECT before CONNACK is a protocol error",
        v5("MQTT-3.14.0-1"),
        _RECEIVE,
        "            self._handlers[14] = self._on_disconnect\n",
        "            pass\n",
    ),
    Fault(
        "a fault of the server is not answered with its reason",
        v5("MQTT-4.13.1-1"),
        _PROTOCOL,
        "self._last_packet = encode_packet(Disconnect(error.reason_code), self.version)",
        "self._last_packet = encode_packet(Disconnect(), self.version)",
    ),
    Fault(
        "a fault of the server does not end the connection",
        v5("MQTT-4.13.1-1") + v311("MQTT-4.8.0-1", "MQTT-2.2.2-2"),
        _PROTOCOL,
        "        return [ConnectionEnded(error)]",
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
