"""The servers of one client: in which order they are tried, when, and which of them has the session.

A pure state machine: time and dice are arguments, nothing here opens a connection.
"""

from __future__ import annotations

from device_sdk.engine.connecting.back_off import NEVER, SOON, TAKEN_OVER
from device_sdk.engine.connecting.will_trial import WillTrial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_sdk.engine.connecting.back_off import ReconnectPolicy
    from device_sdk.net.base import Transport

__all__ = ["Broker", "Brokers"]

# DISCONNECT of a server that is not to be tried first again: busy, shutting down, use another server, moved.
_GO_ELSEWHERE = frozenset({0x89, 0x8B, 0x9C, 0x9D})
_LONGEST_RETURN_S = 86_400.0


class Broker:
    """One server: its stream, and the credentials of its URL, which are for no other server.

    ``address`` tells servers apart: host and port whatever the scheme, or the path or name of a stream
    without a host. The order of the list is the order of preference.
    """

    __slots__ = ("address", "password", "rests_until", "transport", "user_name", "will_trial")

    def __init__(
        self, transport: Transport, address: str, user_name: str | None = None, password: str | None = None
    ) -> None:
        self.transport = transport
        self.address = address
        self.user_name = user_name
        self.password = password
        self.will_trial = WillTrial()
        self.rests_until = 0.0  # a server that refused us is passed over until then


class Brokers:
    """Whose turn it is. The caller of every method holds the engine's lock.

    - After a failed attempt it is the turn of the next one, at once. When each has had its turn, the *round*
      is over: then comes the wait of the policy, and a new round that begins with the first.
    - After the end of a connection that was stable, the same server is tried first again: it has the session.
      One that ended early, or with a reason to go elsewhere, counts like a failed attempt.
    - A server that refused is passed over until its own, longer wait is over. After a take-over nobody is
      tried before that: two clients with one name would chase each other through the list.
    """

    def __init__(
        self,
        brokers: Sequence[Broker],
        policy: ReconnectPolicy,
        draw: Callable[[], float],
        *,
        return_to_first: float | None = None,
        shared_session: bool = False,
    ) -> None:
        self.all = tuple(brokers)
        self.first = self.current = self.all[0]
        self.policy = policy
        self.shared_session = shared_session
        self.return_at: float | None = None  # when to look whether the first one is back
        self._return_after = self._return_wait = return_to_first
        self._draw = draw
        self._failures = 0  # rounds in a row
        self._tried: set[Broker] = set()  # in this round
        self._session_at: str | None = None

    # The outcome of attempts

    def attempt_failed(self, retry: str, now: float) -> float | None:
        """The current one could not be reached, or said no: the next one's turn.

        Returns: the seconds to wait before it; ``None``: at once, because the round is not over.
        """
        self._let_rest(retry, now)
        self._tried.add(self.current)
        if self.current is self.first:
            self.return_at = None  # it was looked for, just now
        for broker in self.all:
            if broker not in self._tried and broker.rests_until <= now:
                self.current = broker
                return None
        self._tried.clear()
        return self._new_round(now)

    def connection_lost(self, retry: str, reason_code: int | None, lasted: float, now: float) -> float:
        """The connection to the current one ended after ``lasted`` seconds.

        Returns: the seconds to wait before the next attempt.
        """
        self._tried.clear()
        stable = lasted >= self.policy.stable
        if stable:
            self._failures = 0
            if self.current is self.first:
                self._return_wait = self._return_after
        if reason_code == TAKEN_OVER:
            self._failures += 1
            return self.policy.delay(0, NEVER, self._draw())
        if stable and retry == SOON and reason_code not in _GO_ELSEWHERE:
            return self._wait()
        self._let_rest(retry, now)
        self._tried.add(self.current)
        return self._new_round(now)

    def accepted(self, now: float) -> None:
        """The current one has accepted the connection."""
        self._tried.clear()
        self.current.rests_until = 0.0
        if self.current is self.first:
            self.return_at = None
        elif self._return_wait is not None:
            # A time that was fixed already stays: connections that end before would put it off for ever.
            due = now + self._return_wait if self.return_at is None else self.return_at
            self.return_at = max(due, self.first.rests_until)

    def return_to_first(self) -> None:
        """The first one can be reached again, and the present connection is given up for it."""
        self.current = self.first
        self._tried.clear()
        if self._return_wait is not None:
            # One that takes streams and then no clients, or not for long, must not cost a good connection
            # again and again.
            self._return_wait = max(self._return_wait, min(2 * self._return_wait, _LONGEST_RETURN_S))

    def looked(self) -> None:
        """The time to look for the first one has come, and a look is under way."""
        self.return_at = None

    def return_failed(self, now: float) -> None:
        """The first one still cannot be reached; the present connection was not touched."""
        if self._return_after is not None:
            self._return_wait = self._return_after
            self.return_at = now + self._return_after

    def start_over(self) -> None:
        """Circumstances have changed: all that was learned from failures is forgotten."""
        self._failures = 0
        self._tried.clear()
        for broker in self.all:
            broker.rests_until = 0.0

    def _let_rest(self, retry: str, now: float) -> None:
        if retry != SOON:
            self.current.rests_until = now + self.policy.delay(self._failures, retry, self._draw())

    def _new_round(self, now: float) -> float:
        wait = self._wait()
        ready = [broker for broker in self.all if broker.rests_until <= now + wait]
        fresh = [broker for broker in ready if broker not in self._tried]
        self.current = (fresh or ready or sorted(self.all, key=lambda broker: broker.rests_until))[0]
        return max(wait, self.current.rests_until - now)

    def _wait(self) -> float:
        wait = self.policy.delay(self._failures, SOON, self._draw())
        self._failures += 1
        return wait

    # The session

    def restore(self, session_at: object) -> None:
        """Remember what the store says: where the session was when the last process ended."""
        if isinstance(session_at, str):
            self._session_at = session_at

    def session_is_elsewhere(self, client_id: str) -> bool:
        """Whether another server has the session, so that it has to begin anew at the current one."""
        if self._session_at is None or self.shared_session:
            return False
        return self._session_at != self._identity(client_id)

    def session_begins(self, client_id: str) -> str | None:
        """The current one has the session now. Returns: what is to be stored, ``None`` if it is known."""
        identity = self._identity(client_id)
        if identity == self._session_at:
            return None
        self._session_at = identity
        return identity

    def _identity(self, client_id: str) -> str:
        return f"{client_id}@{self.current.address}"
