"""User name, password and will of the next CONNECT, and its birth: constants, or asked for."""

from __future__ import annotations

import threading
from types import NoneType

from device_sdk.errors import ArgumentError, ArgumentTypeError, ConnectFailedError
from device_sdk.mqtt.options import ConnectOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from device_sdk.engine.connecting.brokers import Broker
    from device_sdk.engine.outgoing.greetings import Greeting, Greetings
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.message import Will

    Fields = tuple[str | None, bytes | None, Will | None]  # user name, password, will

__all__ = ["Credentials"]


class Credentials:
    """User name, password and will: constant, or asked from the application before each attempt.

    ``credentials`` returns ``(user_name, password)`` or an object with these two attributes; ``will`` a
    :class:`Will` or ``None``. They are called in the thread that opens the stream, without the lock, one
    attempt at a time; last of all the callable for the birth of the connection.
    """

    def __init__(
        self,
        options: ConnectOptions,
        credentials: Callable[[], object] | None = None,
        will: Callable[[], Will | None] | None = None,
        greetings: Greetings | None = None,
    ) -> None:
        self._options = options
        self._given = options.user_name, options.password
        self._given_will = options.will
        self._credentials = credentials
        self._will = will
        self._greetings = greetings
        self._asking = threading.Lock()

    def ask(self, broker: Broker) -> Fields:
        """Return user name, password and will for CONNECT. Raises: ConnectFailedError: what went wrong."""
        user_name, password = self._constant(broker)
        will: Any = self._given_will
        if self._credentials is not None or self._will is not None:
            if not self._asking.acquire(blocking=False):
                raise ConnectFailedError("credentials: the call for an earlier attempt has not returned yet")
            try:
                if self._credentials is not None:
                    user_name, password = _pair(_called("credentials", self._credentials))
                if self._will is not None:
                    will = _called("will", self._will)
            finally:
                self._asking.release()
        try:
            return self._checked(user_name, password, will)
        except ArgumentError as error:
            raise ConnectFailedError(f"this cannot be sent in CONNECT: {error}") from error

    def ask_birth(self) -> Greeting | DeviceSdkError | None:
        """Return the birth of the connection, if the application is to be asked for it; never raises."""
        return None if self._greetings is None else self._greetings.ask()

    def check(self, brokers: Sequence[Broker]) -> None:
        """Make sure that what is constant can be sent. Raises: ArgumentError, ArgumentTypeError: by name."""
        if self._credentials is None:
            for broker in brokers:
                self._checked(*self._constant(broker), self._given_will)

    def _constant(self, broker: Broker) -> tuple[Any, Any]:
        user_name, password = self._given
        return (
            broker.user_name if user_name is None else user_name,
            broker.password if password is None else password,
        )

    def _checked(self, user_name: Any, password: Any, will: Any) -> Fields:
        if not isinstance(user_name, (str, NoneType)):
            raise ArgumentTypeError("user_name", f"must be a str or None, not {type(user_name).__name__}")
        if not isinstance(password, (bytes, str, NoneType)):
            raise ArgumentTypeError("password", f"must be bytes, str or None, not {type(password).__name__}")
        options = ConnectOptions(
            self._options.client_id,
            version=None if self._options.negotiates else self._options.version,
            user_name=user_name,
            password=password,
            will=will,
        )
        return options.user_name, options.password, options.will

    def apply(self, fields: Fields) -> None:
        """Put what :meth:`ask` returned into the next CONNECT."""
        self._options.identify(*fields)


def _called(name: str, function: Callable[[], object]) -> Any:
    try:
        return function()
    except BaseException as error:  # also sys.exit(): this thread is ours
        raise ConnectFailedError(f"{name}: the callable raised {type(error).__name__}: {error}") from error


def _pair(found: object) -> tuple[object, object]:
    if isinstance(found, (tuple, list)) and len(found) == 2:
        return found[0], found[1]
    try:
        return found.user_name, found.password  # type: ignore[attr-defined]
    except AttributeError:
        raise ConnectFailedError(
            "credentials: the callable must return (user_name, password) or an object with these attributes, "
            f"not {type(found).__name__}"
        ) from None
