"""The question of every CONNECT: does the server resume the session, or begin a new one?

Source: docs/decisions/0008-when-a-session-is-resumed.md, MQTT 5.0 §3.1.2.4, §4.1.
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
    """The session at the server, as far as this client can know it. The engine's lock guards every method."""

    __slots__ = (
        "_asks_clean", "_begins_anew", "_brokers", "_clean_start", "_draw", "_is_durable", "_options",
        "_session", "_unanswered", "was_connected",
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
    ) -> None:
        self.was_connected = False  # in the life of this client
        self._session = session
        self._options = options
        self._brokers = brokers
        self._draw = draw
        self._clean_start = clean_start
        self._is_durable = is_durable
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
        clean = self._asks_clean = self._is_clean()
        if not (clean or self._session.known):
            # The server may remember identifiers of an earlier life: it would swallow a QoS 2 message
            # under one of them as a repetition.
            self._session.skip_to(int(self._draw() * 65_535))
        return clean

    def _is_clean(self) -> bool:
        if self._begins_anew or self._brokers.session_is_elsewhere(self._options.client_id):
            return True
        if len(self._session.withheld) > _MOST_WITHHELD:
            return True
        if self._clean_start is None:
            return not self._is_durable and not self.was_connected
        return self._clean_start

    def unanswered(self) -> None:
        """Note that a CONNECT had no answer: the server may have begun a new session all the same."""
        self._unanswered = True

    def begin_anew(self) -> None:
        """Ask for a clean start next: the server has a session that this client knows nothing of."""
        self._begins_anew = True

    def accepted(self, event: ConnectAcknowledged) -> str | None:
        """Note the answer to CONNECT; return why the session is lost, ``None`` if it is not."""
        elsewhere = self._brokers.session_is_elsewhere(self._options.client_id)
        identity = self._brokers.session_begins(self._options.client_id)
        if identity is not None:
            self._session.record(("fact", "broker", identity))
        known = self.was_connected or event.republish
        lost = known and not event.session_present and not self._clean_start
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
