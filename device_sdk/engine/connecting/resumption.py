"""The question of every CONNECT: does the server resume the session, or begin a new one?

Source: docs/decisions/0008-when-a-session-is-resumed.md, MQTT 5.0 §3.1.2.4, §4.1. In MQTT 3.x a clean session
ends with its connection: docs/decisions/0031-a-session-of-mqtt-3-begins-with-two-connections.md.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.engine.connecting.brokers import Brokers
    from device_sdk.mqtt.events import ConnectAcknowledged
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.session import Session
    from device_sdk.store.base import SavedSession

__all__ = ["Resumption"]

_MOST_WITHHELD = 60_000  # packet identifiers: with fewer than 5,536 others a session cannot go on for long


class Resumption:
    """The session at the server, as far as this client can know it. The engine's lock guards every method.

    ``clears``: the present connection only ends the session that the server may have (MQTT 3.x).
    """

    __slots__ = (
        "_asks_clean", "_begins_anew", "_brokers", "_clean_start", "_cleared_at", "_draw", "_is_durable",
        "_made_up", "_options", "_session", "_unanswered", "_wants_messages", "clears", "was_connected",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        options: ConnectOptions,
        brokers: Brokers,
        draw: Callable[[], float],
        *,
        clean_start: bool | None,
        is_durable: bool,
        made_up: bool = False,
        wants_messages: Callable[[], bool] = lambda: True,
    ) -> None:
        self.clears = False
        self.was_connected = False  # in the life of this client
        self._session = session
        self._options = options
        self._brokers = brokers
        self._draw = draw
        self._clean_start = clean_start
        self._is_durable = is_durable
        # The name of the client is new: no server has a session of it.
        self._made_up = made_up and not is_durable
        if self._made_up:
            session.outlive_connection(False)
        self._wants_messages = wants_messages  # whether there are subscriptions
        self._cleared_at: str | None = None  # the server that has no session, because we have ended it
        self._asks_clean = False  # the last CONNECT did
        self._begins_anew = False  # the server has a session that we know nothing of
        self._unanswered = False  # a CONNECT may have begun a new session that we never heard of

    @property
    def is_vouched(self) -> bool:
        """Whether the application says that it shares a session with the server, whatever we know of it."""
        return self._clean_start is False

    def restore(self, saved: SavedSession) -> bool:
        """Take over the session of an earlier client; return whether it is another client's, and lost."""
        self._brokers.restore(saved.facts.get("broker"))
        name = saved.facts.get("session")
        self._session.restore_received(saved.received, known=name == self._options.client_id)
        if name is None or self._session.known:
            return False
        self._unanswered = True  # ask for every subscription, whatever that session has
        return True

    def begins_clean(self) -> bool:
        """Return the clean start flag of the next CONNECT."""
        clean = self._is_clean()
        self.clears = False
        is_fresh = self._made_up
        if clean and self._keeps_session:
            is_fresh = self._cleared_at == self._brokers.current.address
            self.clears = clean = not is_fresh
        self._asks_clean = clean
        if not (clean or is_fresh or self._session.known):
            # The server may remember identifiers of an earlier life: it would swallow a QoS 2 message
            # under one of them as a repetition.
            self._session.skip_to(int(self._draw() * 65_535))
        return clean

    def _is_clean(self) -> bool:
        if self._begins_anew or self._brokers.session_is_elsewhere(self._options.client_id):
            return True
        if len(self._session.withheld) > _MOST_WITHHELD:
            return True
        if self._clean_start is not None:
            return self._clean_start
        if self._is_durable:
            return False
        if self._made_up and self._options.version != "5.0":
            return not self._wants_messages()
        return not self.was_connected

    @property
    def _keeps_session(self) -> bool:
        """Whether a session of MQTT 3.x is to outlive this connection, although it has to begin anew."""
        if self._options.version == "5.0" or self._clean_start:
            return False
        return self._is_durable or not self._made_up or self._wants_messages()

    def unanswered(self) -> None:
        """Note that a CONNECT had no answer: the server may have begun a new session all the same."""
        self._unanswered = True

    def begin_anew(self) -> None:
        """Ask for a clean start next: the server has a session that this client knows nothing of."""
        self._begins_anew = True

    def cleared(self) -> None:
        """Note that the present server has no session of this client any more."""
        self._cleared_at = self._brokers.current.address
        self._unanswered = False
        self._session.outlive_connection(False)

    def accepted(self, event: ConnectAcknowledged) -> str | None:
        """Note the answer to CONNECT; return why the session is lost, ``None`` if it is not."""
        elsewhere = self._brokers.session_is_elsewhere(self._options.client_id)
        identity = self._brokers.session_begins(self._options.client_id)
        if identity is not None:
            self._session.record(("fact", "broker", identity))
        known = self.was_connected or event.republish
        expected = not (self._clean_start or (self._asks_clean and self._options.version != "5.0"))
        lost = known and not event.session_present and expected
        self._cleared_at = None
        self._session.outlive_connection(not self._asks_clean)
        self.was_connected = True
        self._begins_anew = False
        if not lost:
            return None
        return "another broker has the session" if elsewhere else "the broker no longer has the session"

    def has_subscriptions(self, event: ConnectAcknowledged) -> bool:
        """Return whether the server still has our subscriptions; once for each answer to CONNECT."""
        unanswered, self._unanswered = self._unanswered, False
        return event.session_present and not unanswered
