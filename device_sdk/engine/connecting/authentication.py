"""Enhanced authentication: the exchange of AUTH packets, and what an application does in it.

The application's methods run in the thread that owns the transport, without the lock: a slow handler of
messages cannot delay them, and nothing else is read meanwhile. Source: MQTT 5.0 §4.12.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

from device_sdk._weak import fresh
from device_sdk.errors import (
    ArgumentError,
    ArgumentTypeError,
    AuthenticationError,
    DeviceSdkError,
    LocalProtocolError,
    NotConnectedError,
)
from device_sdk.mqtt.events import AuthReceived, ConnectAcknowledged, ConnectionEnded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from device_sdk.mqtt.options import ConnectOptions
    from device_sdk.mqtt.protocol import Protocol

__all__ = ["Authentication", "Authenticator", "Reauthentication", "authentication_for"]

_MOST_ROUNDS = 100  # of one exchange: a server that never ends it must not keep us busy for ever
_SUCCESS, _CONTINUE, _AGAIN = 0x00, 0x18, 0x19


class Authenticator(ABC):
    """One authentication method. Write a subclass and give it to ``Client(auth=...)``.

    ``method`` is its name, for example ``"SCRAM-SHA-256"``. The methods are called one at a time, each soon
    after the packet that it answers, so they have to return soon; they must not call the client. What they
    raise ends the connection. Source: MQTT 5.0 §4.12.
    """

    method: str = ""

    @abstractmethod
    def start(self) -> bytes | None:
        """Return the authentication data to begin with: for each CONNECT, and for a re-authentication."""

    @abstractmethod
    def respond(self, data: bytes) -> bytes | None:
        """Return the answer to the server's data (AUTH with 0x18, continue authentication)."""

    def finish(self, data: bytes | None) -> None:  # noqa: B027 (most methods have nothing to check)
        """Look at the data that came with success, for example the server's proof of itself.

        Raise an exception to reject the server: then nothing is sent to it but DISCONNECT.
        """


def authentication_for(
    auth: object, version: str | None, properties: Mapping[str, Any] | None
) -> tuple[Authentication | None, Mapping[str, Any] | None]:
    """Return the exchange for the ``auth`` of a client, and its CONNECT properties with the method added."""
    if auth is None:
        return None, properties
    if version is None:
        raise ArgumentError("auth", 'needs version="5.0": MQTT 3.1.1 would leave it out')
    if version != "5.0":
        raise ArgumentError("auth", f"MQTT {version} has no enhanced authentication")
    authentication = Authentication(auth)
    return authentication, authentication.connect_properties(properties)


class Reauthentication:
    """A re-authentication that somebody waits for."""

    __slots__ = ("data", "error", "over")

    def __init__(self, over: Any, data: bytes | None) -> None:
        self.over = over
        self.data = data  # of the first AUTH
        self.error: DeviceSdkError | None = None

    def finish(self, error: DeviceSdkError | None) -> None:
        """Wake who waits; ``None`` is a success."""
        self.error = error
        self.over.set()

    def outcome(self, timeout: float) -> None:
        """Raise what was wrong after a wait of ``timeout`` seconds."""
        if not self.over.is_set():
            raise TimeoutError(f"the re-authentication had no outcome within {timeout:g} s")
        if self.error is not None:
            raise fresh(self.error)


class Authentication:
    """The exchange of one client. Says what is to be sent; the engine sends it."""

    def __init__(self, authenticator: object) -> None:
        if not isinstance(authenticator, Authenticator):
            problem = f"must be an Authenticator or None, not {type(authenticator).__name__}"
            raise ArgumentTypeError("auth", problem)
        if not authenticator.method or not isinstance(authenticator.method, str):
            raise ArgumentError("auth", "needs a method: the name that the server knows")
        self._authenticator = authenticator
        self._calls = threading.Lock()  # the application's methods run one at a time
        self._again: Reauthentication | None = None
        self._rounds = 0  # of the exchange that goes on

    def connect_properties(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return CONNECT properties with the authentication method among them."""
        properties = dict(given or {})
        for name in ("authentication_method", "authentication_data"):
            if name in properties:
                raise ArgumentError("properties", f"{name} cannot be given together with auth=")
        return {**properties, "authentication_method": self._authenticator.method}

    def begin(self, options: ConnectOptions) -> None:
        """Put the first data into the next CONNECT. Raises: AuthenticationError."""
        data = self._call("start")
        self._rounds = 0
        options.properties.pop("authentication_data", None)
        if data is not None:
            options.properties["authentication_data"] = data

    def answer(self, event: Any) -> dict[str, Any] | None:
        """Return the properties of the AUTH that answers an event of the connection, or ``None``.

        Raises: AuthenticationError: the application failed or rejects the server, or it is not its turn.
        """
        kind = type(event)
        if kind is ConnectAcknowledged:
            self._call("finish", event.properties.get("authentication_data"))
        elif kind is AuthReceived:
            data = event.properties.get("authentication_data")
            if event.reason_code == _CONTINUE:
                self._rounds += 1
                if self._rounds > _MOST_ROUNDS:
                    raise AuthenticationError(f"the exchange has more than {_MOST_ROUNDS} rounds")
                return self._properties(self._call("respond", data or b""))
            if event.reason_code != _SUCCESS or self._again is None:
                raise AuthenticationError(
                    f"unexpected AUTH (0x{event.reason_code:02x}): the server may not send it now"
                )
            self._call("finish", data)
            self.ended(None)
        elif kind is ConnectionEnded:
            self.ended(event.error)
        return None

    def prepare(self, event: Any) -> Reauthentication:
        """Return a re-authentication with its first data. Calls the authenticator, without the lock.

        ``event`` is set when it is over. Raises: AuthenticationError.
        """
        return Reauthentication(event, self._call("start"))

    def again(self, attempt: Reauthentication, connection: Protocol | None) -> None:
        """Send the first AUTH of a re-authentication. The caller holds the lock.

        Raises: NotConnectedError: there is no connection. LocalProtocolError: another one is going on.
        """
        if connection is None:
            raise NotConnectedError("reauthenticate() needs a connection; the next one authenticates anyway")
        if self._again is not None:
            raise LocalProtocolError("a re-authentication is going on already; wait for its outcome")
        connection.auth(_AGAIN, self._properties(attempt.data))
        self._again, self._rounds = attempt, 0

    def ended(self, error: DeviceSdkError | None) -> None:
        """End a re-authentication, with ``None`` as a success. Any thread."""
        attempt, self._again = self._again, None
        if attempt is not None:
            attempt.finish(error)

    def send(self, protocol: Protocol, answers: list[dict[str, Any]]) -> None:
        """Queue the answers. Raises: AuthenticationError: one cannot be sent. The caller holds the lock."""
        for properties in answers:
            try:
                protocol.auth(_CONTINUE, properties)
            except (LocalProtocolError, ArgumentError) as error:
                raise AuthenticationError(f"{self._authenticator.method}: {error}") from error

    def _properties(self, data: bytes | None) -> dict[str, Any]:
        properties: dict[str, Any] = {"authentication_method": self._authenticator.method}
        if data is not None:
            properties["authentication_data"] = data
        return properties

    def _call(self, name: str, *arguments: Any) -> bytes | None:
        method = self._authenticator.method
        try:
            with self._calls:
                data: object = getattr(self._authenticator, name)(*arguments)
        except Exception as error:
            raise AuthenticationError(f"{method}: {name}() raised {type(error).__name__}: {error}") from error
        if data is None or name == "finish":
            return None
        if not isinstance(data, bytes) or len(data) > 65_535:
            raise AuthenticationError(f"{method}: {name}() must return up to 65,535 bytes or None")
        return data
