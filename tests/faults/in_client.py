"""Faults in the engine and the shell: several connections, the window, subscriptions, WebSocket."""

from __future__ import annotations

from tests.faults.fault import Fault, v5, v31, v311

__all__ = ["IN_CLIENT"]

_ENGINE, _REACTIONS, _CONNECTION = "engine/engine.py", "engine/reactions.py", "engine/connection.py"
_CONNECTOR, _RESUMPTION = "engine/connecting/connector.py", "engine/connecting/resumption.py"
_AUTHENTICATION = "engine/connecting/authentication.py"
_PUBLISHER, _ROUTER = "engine/outgoing/publisher.py", "engine/incoming/router.py"
_PROTOCOL, _SESSION = "mqtt/protocol.py", "mqtt/session.py"
_WEBSOCKET, _UPGRADE = "net/websocket.py", "net/upgrade.py"

_CONNECT = "        protocol.connect(now, clean_start=clean, clears=self._resumption.clears)\n"

IN_CLIENT = (
    # A connection begins
    Fault(
        "something leaves before CONNECT",
        v5("MQTT-3.1.0-1") + v311("MQTT-3.1.0-1"),
        _PROTOCOL,
        "        self.output.add(self.handshake.connect(",
        "        self.output.add(_PINGREQ)\n        self.output.add(self.handshake.connect(",
    ),
    Fault(
        "CONNECT is sent twice",
        v5("MQTT-3.1.0-2") + v311("MQTT-3.1.0-2"),
        _CONNECTOR,
        _CONNECT,
        _CONNECT * 2,
    ),
    Fault(
        "SUBSCRIBE leaves before CONNACK",
        v5("MQTT-3.1.2-30"),
        _ENGINE,
        "                packet_log=self.connector.packet_log(),\n            )  # fmt: skip\n",
        "                packet_log=self.connector.packet_log(),\n            )  # fmt: skip\n"
        "            self.incoming.router.send(self.connection.protocol)\n",
    ),
    Fault(
        "the second connection has another client identifier",
        v5("MQTT-3.1.3-2") + v311("MQTT-3.1.3-2"),
        _CONNECTOR,
        _CONNECT,
        '        if self._resumption.was_connected:\n            self._options.client_id = "other"\n'
        + _CONNECT,
    ),
    Fault(
        "a client identifier is made up with 25 characters",
        v31("MQTT-3.1/CLIENT-ID"),
        "engine/arguments.py",
        "os.urandom(7).hex()",
        "os.urandom(8).hex()",
    ),
    Fault(
        "the assigned client identifier is not kept in the store",
        v5("MQTT-3.1.3-7", "MQTT-3.2.2-16"),
        _SESSION,
        'self.record(("fact", "client_id", client_id))',
        'self.record(("fact", "client_id", ""))',
    ),
    Fault(
        "every connection asks for a clean start",
        v5("MQTT-3.1.3-7", "MQTT-3.2.2-5"),
        _RESUMPTION,
        "        return not self.was_connected\n",
        "        return True\n",
    ),
    Fault(
        "a refused version is changed for MQTT 3.1",
        v31("MQTT-3.1/ONLY-WHEN-ASKED"),
        _REACTIONS,
        "        error.retry = classify(error, reason_code)\n",
        "        error.retry = classify(error, reason_code)\n"
        "        if reason_code == 1:\n"
        '            self._resumption._options.version = "3.1"\n',
    ),
    Fault(
        "a session that is present is called lost",
        v5("MQTT-3.2.2-5") + v311("MQTT-3.2.2-2"),
        _RESUMPTION,
        "lost = known and not event.session_present and expected",
        "lost = known and expected",
    ),
    Fault(
        "the application is not told that its session is present",
        v311("MQTT-3.2.2-2"),
        _PROTOCOL,
        "events.append(ConnectAcknowledged(present, server, []))",
        "events.append(ConnectAcknowledged(False, server, []))",
    ),
    # A connection ends
    Fault(
        "a client that was taken over fights for its name",
        v5("MQTT-3.1.4-3"),
        "engine/connecting/brokers.py",
        "            return self.policy.delay(0, NEVER, self._draw())\n",
        "            return self.policy.delay(0, SOON, self._draw())\n",
    ),
    Fault(
        "failed attempts do not wait longer each time",
        v311("MQTT-3.1.4-2"),
        "engine/connecting/back_off.py",
        "self.first * 2.0 ** min(failures, 32)",
        "self.first * 2.0 ** min(failures, 1)",
    ),
    Fault(
        "after DISCONNECT the client keeps the connection open",
        v5("MQTT-3.14.4-2") + v311("MQTT-3.14.4-1"),
        _CONNECTION,
        "self.retired = self.leave_by is None\n",
        "pass\n",
    ),
    Fault(
        "after a fault of the server the client keeps the connection open",
        v5("MQTT-3.14.4-2", "MQTT-4.13.1-1") + v311("MQTT-4.8.0-1", "MQTT-3.2.0-1"),
        _CONNECTION,
        "        self.stream.close(goodbye)\n",
        "",
    ),
    Fault(
        "the DISCONNECT that says what was wrong does not leave",
        v5("MQTT-4.13.1-1"),
        _CONNECTION,
        "        self.stream.close(goodbye)\n",
        "        self.stream.close([])\n",
    ),
    Fault(
        "a failure inside the client leaves the connection open",
        v311("MQTT-4.8.0-2"),
        _ENGINE,
        "            self.connection = None\n        transport.close()\n",
        "            self.connection = None\n",
    ),
    # The window
    Fault(
        "a message that comes late does not count those past PUBREC",
        v5("MQTT-3.3.4-7", "MQTT-4.9.0-2"),
        _PUBLISHER,
        "and len(session.in_flight) + len(session.released) < protocol.outbound.window",
        "and len(session.in_flight) < protocol.outbound.window",
    ),
    Fault(
        "the queue is sent with one message too many in the window",
        v5("MQTT-3.3.4-7", "MQTT-4.9.0-2"),
        "engine/outgoing/replay.py",
        " - len(session)\n",
        " - len(session) + 1\n",
    ),
    Fault(
        "a full window holds SUBSCRIBE back",
        v5("MQTT-3.3.4-8", "MQTT-4.9.0-3"),
        "engine/incoming/asking.py",
        "        if self.online is None:\n            return\n        if self._outbox",
        "        if self.online is None or not self.online.outbound.has_room:\n            return\n"
        "        if self._outbox",
    ),
    Fault(
        "a full window holds QoS 0 back",
        v5("MQTT-3.3.4-8", "MQTT-4.9.0-3"),
        _PUBLISHER,
        "        if flags < 2 and expires_at is None:\n",
        "        if flags < 2 and expires_at is None and len(self._session) < protocol.window:\n",
    ),
    # What was received
    Fault(
        "acknowledgements do not leave when the handlers have ended",
        v5("MQTT-4.5.0-2", "MQTT-3.3.4-1") + v311("MQTT-4.5.0-2", "MQTT-3.3.4-1"),
        _PUBLISHER,
        "            online.acknowledge_handled()\n",
        "            pass\n",
    ),
    Fault(
        "a message is not acknowledged when its handler fails",
        v5("MQTT-4.5.0-2") + v311("MQTT-4.5.0-2"),
        "threads.py",
        "                    self._dispatch.failed(handler, error)\n            if item.token is None:\n",
        "                    self._dispatch.failed(handler, error)\n                    handled -= 1\n"
        "                    break\n            else:\n",
    ),
    Fault(
        "a message for which there is no handler is not acknowledged",
        v5("MQTT-4.5.0-2") + v311("MQTT-4.5.0-2"),
        "threads.py",
        "            if item.token is None:\n",
        "            if item.token is None and handlers:\n",
    ),
    # SUBSCRIBE and UNSUBSCRIBE
    Fault(
        "a request without an answer is not asked again",
        v5("MQTT-3.8.4-1", "MQTT-3.10.4-4") + v311("MQTT-3.8.4-1", "MQTT-3.10.4-4"),
        "engine/incoming/request_line.py",
        "in (*self.sent.values(), *self.unsent) if one is not witness]",
        "in self.unsent if one is not witness]",
    ),
    Fault(
        "the subscriptions of a lost session are not asked for again",
        v5("MQTT-3.2.2-5") + v311("MQTT-3.2.2-3"),
        _ROUTER,
        "        if session_present:\n            return\n",
        "        if session_present or self.wanted:\n            return\n",
    ),
    Fault(
        "a code of success in UNSUBACK counts as a refusal",
        v5("MQTT-3.10.4-5", "MQTT-3.11.3-1"),
        _ROUTER,
        "for topic, code in codes if code >= 0x80]\n",
        "for topic, code in codes if code >= 0x11]\n",
    ),
    Fault(
        "a refused filter counts as granted",
        v5("MQTT-3.8.4-7", "MQTT-3.9.3-1") + v311("MQTT-3.8.4-5", "MQTT-3.9.3-1"),
        _ROUTER,
        "for topic, code in codes if code >= 0x80]\n",
        "for topic, code in codes if code > 0x80]\n",
    ),
    Fault(
        "the codes of SUBACK are read from the end",
        v5("MQTT-3.9.3-1") + v311("MQTT-3.9.3-1"),
        _ROUTER,
        "= zip(request.topic_filters, answer.reason_codes, strict=True)",
        "= zip(request.topic_filters, reversed(answer.reason_codes), strict=True)",
    ),
    # Enhanced authentication
    Fault(
        "a re-authentication begins with continue authentication",
        v5("MQTT-4.12.1-1"),
        _AUTHENTICATION,
        "connection.auth(_AGAIN, self._properties(attempt.data))",
        "connection.auth(_CONTINUE, self._properties(attempt.data))",
    ),
    Fault(
        "an authentication is continued with re-authenticate",
        v5("MQTT-4.12.0-3"),
        _AUTHENTICATION,
        "protocol.auth(_CONTINUE, properties)",
        "protocol.auth(_AGAIN, properties)",
    ),
    Fault(
        "the server's demand for more data is not answered",
        v5("MQTT-4.12.0-2", "MQTT-4.12.0-3"),
        _AUTHENTICATION,
        '                return self._properties(self._call("respond", data or b""))\n',
        '                self._call("respond", data or b"")\n                return None\n',
    ),
    Fault(
        "a re-authentication that fails here ends the connection as if all were well",
        v5("MQTT-4.12.1-2"),
        _CONNECTION,
        "protocol.disconnect(_UNSPECIFIED_ERROR)",
        "protocol.disconnect()",
    ),
    # WebSocket
    Fault(
        "packets travel in text frames",
        v5("MQTT-6.0.0-1") + v311("MQTT-6.0.0-1"),
        _WEBSOCKET,
        "protocol.send_binary(piece)",
        "protocol.send_text(piece)",
    ),
    Fault(
        "a text frame of the server is taken",
        v5("MQTT-6.0.0-1") + v311("MQTT-6.0.0-1"),
        _WEBSOCKET,
        "if frame.opcode is Opcode.BINARY or frame.opcode is Opcode.CONT:",
        "if frame.opcode in (Opcode.BINARY, Opcode.CONT, Opcode.TEXT):",
    ),
    Fault(
        "only the first of several frames is read",
        v5("MQTT-6.0.0-2") + v311("MQTT-6.0.0-2"),
        _WEBSOCKET,
        'return parts[0] if len(parts) == 1 and type(parts[0]) is bytes else b"".join(parts)',
        'return bytes(parts[0]) if parts else b""',
    ),
    Fault(
        "no subprotocol is offered",
        v5("MQTT-6.0.0-3") + v311("MQTT-6.0.0-3"),
        _UPGRADE,
        "subprotocols=[self._subprotocol],",
        "subprotocols=None,",
    ),
    Fault(
        "a server that chooses no subprotocol is taken",
        v5("MQTT-6.0.0-4") + v311("MQTT-6.0.0-4"),
        _UPGRADE,
        "        if protocol.subprotocol is None:\n",
        "        if protocol.subprotocol == []:\n",
    ),
)
