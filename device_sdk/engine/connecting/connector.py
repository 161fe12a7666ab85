"""The way to a connection: whose turn it is, one attempt to reach that server, and CONNECT on its stream."""

from __future__ import annotations

from device_sdk._load import load
from device_sdk._log import is_debugged
from device_sdk.engine.connecting.attempt import Attempt
from device_sdk.engine.connecting.versions import Versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from device_sdk.engine.connecting.authentication import Authentication
    from device_sdk.engine.connecting.brokers import Broker, Brokers
    from device_sdk.engine.connecting.credentials import Credentials
    from device_sdk.engine.connecting.resumption import Resumption
    from device_sdk.engine.packet_log import PacketLog
    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.store.base import SavedSession

__all__ = ["Connector"]

# Shows the packets of a connection; imported only when its logger is switched on.
_PACKET_LOG = "device_sdk.engine.packet_log:PacketLog"
_PACKET_LOGGER = "device_sdk.packets"


class Connector:
    """Makes attempts, one at a time, and of an open stream a protocol that has said CONNECT.

    ``transport``: the stream of the last attempt that was no look for the first server; of the first server
    before any attempt. ``under_way``: the attempt whose outcome is not known yet. ``versions``: the version
    of MQTT for each server.

    :meth:`connect`, :meth:`outdate`, :meth:`take_attempt` and :meth:`use` run under the engine's lock.
    """

    __slots__ = (
        "_authentication", "_credentials", "_new_protocol", "_options", "_resumption",
        "brokers", "transport", "under_way", "versions",
    )  # fmt: skip

    def __init__(
        self,
        brokers: Brokers,
        options: ConnectOptions,
        credentials: Credentials,
        resumption: Resumption,
        authentication: Authentication | None,
        new_protocol: Callable[[bool], Protocol],
    ) -> None:
        self.brokers = brokers
        self.transport = brokers.first.transport
        self._options = options
        self._credentials = credentials
        self._resumption = resumption
        self._authentication = authentication
        self.versions = Versions(options)
        self._new_protocol = new_protocol
        self.under_way: Attempt | None = None

    def attempt(self, *, is_return: bool) -> Attempt:
        """Return an attempt on the server whose turn it is, or with ``is_return`` on the first one."""
        broker: Broker = self.brokers.first if is_return else self.brokers.current
        self.under_way = attempt = Attempt(broker, self._credentials, is_return=is_return)
        if not is_return:
            self.transport = broker.transport
        return attempt

    def take_attempt(self) -> None:
        """Note that the attempt has its outcome."""
        self.under_way = None

    def outdate(self) -> None:
        """Abort the attempt that is under way; its outcome means nothing, and another one follows.

        A look for the first server goes on: it ends nothing that works.
        """
        attempt = self.under_way
        if attempt is not None and not attempt.is_return:
            attempt.outdate()

    def use(self, attempt: Attempt) -> None:
        """Go on with the stream of this attempt, which looked for the first server."""
        self.transport = attempt.transport

    def prepare(self, attempt: Attempt | None, now: float) -> None:
        """Put the answers of the application into the next CONNECT. Calls it; without the lock.

        Raises: AuthenticationError: the authenticator failed.
        """
        if attempt is not None:
            user_name, password, will = attempt.fields
            trial, options = attempt.broker.will_trial, self._options
            if trial.is_trial:  # a fresh token would prove nothing
                user_name, password = options.user_name, options.password
            without = trial.leaves_out(will, now)
            self._credentials.apply((user_name, password, None if without else will))
        if self._authentication is not None:
            self._authentication.begin(self._options)

    def restore(self, saved: SavedSession) -> bool:
        """Take over the session of an earlier client; return whether it is another client's, and lost."""
        return self._resumption.restore(saved)

    def connect(self, now: float) -> Protocol:
        """Return the protocol of a new connection, with CONNECT as its first output."""
        self.versions.choose(self.brokers.current.address, now)
        clean = self._resumption.begins_clean()
        protocol = self._new_protocol(self._resumption.is_vouched)
        protocol.connect(now, clean_start=clean, clears=self._resumption.clears)
        return protocol

    @property
    def clears(self) -> bool:
        """Whether the present connection only ends the session at the server."""
        return self._resumption.clears

    def packet_log(self) -> PacketLog | None:
        """Return a log of the packets of the next connection, if somebody wants to see them."""
        if not is_debugged(_PACKET_LOGGER):
            return None
        packet_log: PacketLog = load(_PACKET_LOG)(self.transport.description, self._options.version)
        return packet_log

    def left(self, *, answered: bool) -> None:
        """The client leaves a connection; ``answered``: the server has said what it knows of the session."""
        if not answered:
            self._resumption.unanswered()
