"""One attempt to connect: what the application is asked for it, and the stream to one server."""

from __future__ import annotations

import threading
from types import NoneType

from device_sdk.errors import ArgumentError, ArgumentTypeError, ConnectFailedError, TransportClosedError
from device_sdk.mqtt.options import ConnectOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from device_sdk.engine.brokers import Broker
    from device_sdk.mqtt.message import Will

    Fields = tuple[str | None, bytes | None, Will | None]  # user name, password, will

__all__ = ["Attempt", "Personals"]


class Personals:
    """User name, password and will: constant, or asked from the application before each attempt.

    ``credentials`` returns ``(user_name, password)`` or an object with these two attributes; ``will`` a
    :class:`Will` or ``None``. They are called in the thread that opens the stream, without the lock, one
    attempt at a time.
    """

    def __init__(
        self,
        options: ConnectOptions,
        credentials: Callable[[], object] | None = None,
        will: Callable[[], Will | None] | None = None,
    ) -> None:
        self._options = options
        self._given = options.user_name, options.password
        self._credentials = credentials
        self._will = will
        self._asking = threading.Lock()

    def ask(self, broker: Broker) -> Fields:
        """Return user name, password and will for CONNECT. Raises: ConnectFailedError: what went wrong."""
        user_name, password = self._constant(broker)
        will: Any = self._options.will
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

    def check(self, brokers: Sequence[Broker]) -> None:
        """Make sure that what is constant can be sent. Raises: ArgumentError, ArgumentTypeError: by name."""
        if self._credentials is None:
            for broker in brokers:
                self._checked(*self._constant(broker), self._options.will)

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
            version=self._options.version,
            user_name=user_name,
            password=password,
            will=will,
        )
        return options.user_name, options.password, options.will

    def tell(self, fields: Fields) -> None:
        """Use what :meth:`ask` returned for the next CONNECT."""
        self._options.user_name, self._options.password, self._options.will = fields


class Attempt:
    """One attempt. :meth:`open` may run in a thread that is left behind; nobody looks at it then.

    ``is_return``: a connection to another server works meanwhile, and goes on if this attempt fails.
    """

    __slots__ = ("_lock", "_opens", "_over", "_personals", "broker", "fields", "is_return", "transport")

    def __init__(self, broker: Broker, personals: Personals, *, is_return: bool) -> None:
        self.broker = broker
        self.transport = broker.transport
        self.is_return = is_return
        self.fields: Fields = (None, None, None)
        self._personals = personals
        self._lock = threading.Lock()
        self._opens = False  # the transport is this attempt's
        self._over = False

    def open(self, deadline: float) -> None:
        """Ask the application, then open the stream; blocks. Raises: as :meth:`Transport.open`."""
        self.fields = self._personals.ask(self.broker)
        with self._lock:
            self._check()  # the application may have taken so long that the transport is a later attempt's
            self._opens = True
        self.transport.open(deadline)
        try:
            self._check()
        except TransportClosedError:  # close() came just before the transport began, and could not hold it
            self.transport.close()
            raise

    def _check(self) -> None:
        if self._over:
            raise TransportClosedError(f"{self.transport.description}: this attempt was left behind")

    def abort(self) -> None:
        """End the attempt for good, and its stream as :meth:`Transport.abort`. Any thread."""
        with self._lock:
            self._over = True
        if self._opens:
            self.transport.abort()

    def close(self) -> None:
        """End the attempt for good, and its stream as :meth:`Transport.close`."""
        with self._lock:
            self._over = True
        if self._opens:
            self.transport.close()


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
