"""CONNECT and its CONNACK: the request, the server's grant, and the checks of its answer.

Threads: the caller serialises all calls. Source: MQTT 5.0 §3.1, §3.2, §4.12.
"""

from __future__ import annotations

from device_sdk.errors import LocalProtocolError, RemoteProtocolError, TransportClosedError
from device_sdk.mqtt.events import ConnectionEnded, SessionCleared, SessionUnknown
from device_sdk.mqtt.refusals import connect_refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.packets import Connack
    from device_sdk.mqtt.rules import ProtocolRules
    from device_sdk.mqtt.session import Outgoing, Session

__all__ = ["LONGEST_CLIENT_ID", "Handshake"]

#: Bytes of the peer that are kept until CONNACK, at least.
FIRST_BYTES = 256

#: Characters of a client identifier that a server may give us: it is kept, and repeated in every CONNECT.
LONGEST_CLIENT_ID = 1_024


class Handshake:
    """The beginning of one connection.

    ``inflight``: messages in flight that the application allows; ``vouched``: the application says that it
    shares a session with the server, even if this client has no record of one.

    ``deadline``: when CONNACK must have arrived, in seconds of the caller's clock; ``clean_start``: as sent
    in CONNECT; ``clears``: the connection only ends the server's session; ``first_bytes``: what came before
    CONNACK, for the recognition of a peer that is no MQTT server; ``server``: the properties of CONNACK;
    ``session_present``: the flag of CONNACK; ``window``: messages that may be in flight; before CONNACK see
    ``ProtocolRules.sends_before_connack``.
    """

    __slots__ = (
        "_earlier",
        "_inflight",
        "_session",
        "_vouched",
        "clean_start",
        "clears",
        "deadline",
        "first_bytes",
        "options",
        "rules",
        "server",
        "session_present",
        "window",
    )

    def __init__(
        self, session: Session, options: ConnectOptions, rules: ProtocolRules, *, inflight: int, vouched: bool
    ) -> None:
        self.options = options
        self._inflight = inflight
        self.rules = rules
        self.clean_start = True
        self.clears = False
        self.deadline = 0.0
        self.first_bytes = b""
        self.server: dict[str, Any] = {}
        self.session_present = False
        self.window = 0
        self._session = session
        self._vouched = vouched
        self._earlier: frozenset[Outgoing] = frozenset()  # in flight when CONNECT was queued

    def connect(self, now: float, *, clean_start: bool, clears: bool = False) -> bytes:
        """Return CONNECT. Source: MQTT 5.0 §3.1."""
        self.clean_start, self.clears = clean_start, clears
        self.deadline = now + self.options.connect_timeout
        if self.rules.sends_before_connack:
            session = self._session
            self._earlier = frozenset(session.in_flight.values())
            self.window = self._inflight + len(session)  # what earlier connections left does not count yet
        return self.options.encode(clean_start=clean_start, without_will=clears)

    def note(self, data: bytes) -> None:
        """Keep the first bytes of the peer."""
        if len(self.first_bytes) < FIRST_BYTES:
            self.first_bytes += data[:FIRST_BYTES]

    def accept(self, connack: Connack) -> ConnectionEnded | None:
        """Take CONNACK; return the end of the connection if it is not accepted.

        Raises: RemoteProtocolError: an acceptance with contents that the standard forbids.
        """
        options, server = self.options, connack.properties
        if connack.reason_code:
            error = connect_refused(
                connack.reason_code, server, options.version,
                anonymous=options.user_name is None, in_3=self._answers_in_3(), bridge=options.bridge,
            )  # fmt: skip
            return ConnectionEnded(error, connack.reason_code, server)
        if self.clears:
            return SessionCleared(TransportClosedError("the session was cleared"))
        present = connack.session_present
        if options.version == "3.1" and not self.rules.assumes_session:
            present = self._session.outlives_connection and not self.clean_start
        if present and self.clean_start and not self.assumes_session:
            raise RemoteProtocolError("CONNACK says session present although a clean start was asked for")
        if present and options.version == "5.0" and not (self._session.known or self._vouched):
            # Source: MQTT 5.0 §3.2.2.1.1 [MQTT-3.2.2-4]
            problem = RemoteProtocolError("CONNACK says session present, and this client knows of no session")
            return SessionUnknown(problem)
        if not self.is_our_method(server):
            raise RemoteProtocolError("CONNACK with another authentication method than that of our CONNECT")
        assigned = server.get("assigned_client_identifier", "")
        if len(assigned) > LONGEST_CLIENT_ID:
            raise RemoteProtocolError(
                f"CONNACK assigns a client identifier of more than {LONGEST_CLIENT_ID} characters", 0x83
            )
        self.server = server
        self.session_present = present
        self.window = min(self._inflight, server.get("receive_maximum", 65_535))
        is_new = bool(assigned) and not options.client_id
        if is_new:
            options.take_name(assigned)  # Source: MQTT 5.0 §3.2.2.3.7 [MQTT-3.2.2-16]
        self._session.begin(options.client_id, assigned=is_new)
        return None

    def sent_already(self) -> frozenset[Outgoing]:
        """Return the messages in flight that were sent on this connection, before CONNACK."""
        if not self.rules.sends_before_connack:
            return self._earlier
        return frozenset(self._session.in_flight.values()) - self._earlier

    def _answers_in_3(self) -> bool:
        """Whether the CONNACK of a server that got a CONNECT of MQTT 5.0 has the form of MQTT 3.x."""
        return self.options.version == "5.0" and self.first_bytes[:2] == b"\x20\x02"

    @property
    def assumes_session(self) -> bool:
        """Whether the session goes on regardless of CONNACK."""
        return self.rules.assumes_session and self.options.version != "5.0"

    def forget_what_is_lost(self) -> None:
        """Before the session goes on, drop what the server has certainly lost, as the rules say."""
        session, clean = self._session, self.clean_start
        if self.session_present and not clean:
            return
        has_nothing = clean or self.options.version == "5.0"
        if has_nothing and self.rules.keeps_payload_until_pubcomp and not session.journal:
            session.begin_released_anew()
        if self.assumes_session and (clean or self.options.version != "3.1"):
            session.forget_received()

    def is_our_method(self, properties: dict[str, Any]) -> bool:
        """Whether the authentication method, or its absence, is that of our CONNECT (MQTT 5.0 §4.12)."""
        method = self.options.properties.get("authentication_method")
        return bool(properties.get("authentication_method") == method)

    def check_auth(self, properties: dict[str, Any]) -> None:
        """Check that an AUTH with these properties may be sent.

        Raises: LocalProtocolError: CONNECT had no authentication method, or another one.
        Source: MQTT 5.0 §4.12 [MQTT-4.12.0-5].
        """
        if "authentication_method" not in self.options.properties:
            raise LocalProtocolError("AUTH needs an authentication method in CONNECT")
        if not self.is_our_method(properties):
            raise LocalProtocolError("authentication_method: must be the one of CONNECT, in every AUTH")

    def check_their_auth(self, properties: dict[str, Any]) -> None:
        """Check that the server's AUTH answers ours. Raises: RemoteProtocolError: it does not."""
        known = "authentication_method" in self.options.properties
        if not (known and self.is_our_method(properties)):
            raise RemoteProtocolError("AUTH with another authentication method than that of our CONNECT")
