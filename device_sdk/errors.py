"""Every exception that device_sdk raises, in one tree.

::

    DeviceSdkError
    ├── ArgumentError (+ValueError)            a wrong value, named by ``argument``
    │   └── ArgumentTypeError (+TypeError)     a value of the wrong type
    ├── ProtocolError
    │   ├── LocalProtocolError (+ValueError)   we asked for something MQTT forbids now
    │   └── RemoteProtocolError                the peer broke the rules (``reason_code``)
    │       └── MalformedPacketError           its bytes cannot be a packet
    ├── RefusedError                           the broker said no (``reason_code``)
    │   ├── ConnectRefused
    │   ├── PublishRefused
    │   └── SubscribeRefused
    ├── AuthenticationError                    our authenticator failed, or rejects the broker
    ├── NotConnectedError                      the operation needs a network connection
    ├── ClosedError                            the client was closed, or never started
    ├── DeliveryError                          a message will not be acknowledged
    │   ├── DeliveryExpiredError               its expiry passed before it was sent, or repeated
    │   ├── DeliveryCancelledError             the program took it back
    │   ├── DroppedError                       a bound or the close dropped it
    │   └── SessionLostError                   the broker no longer has the session
    ├── TransportError (+OSError)
    │   ├── ConnectFailedError                 no byte stream could be opened
    │   │   └── TlsError                       the two ends do not trust or understand each other
    │   └── TransportClosedError               the stream ended or was aborted
    ├── StoreError
    │   ├── StoreUnavailableError              its disk hangs or cannot be read; another time it may
    │   └── QueueFullError                     a bound of the queue was reached
    ├── DriverError
    │   ├── BusError (+OSError)                the bus failed: no acknowledge, I/O error
    │   ├── DeviceNotFoundError                nothing answers at that place
    │   ├── ChecksumError                      data arrived damaged
    │   └── ReadTimeoutError (+TimeoutError)   the device did not answer in time
    ├── ConfigError (+ValueError)              a configuration file is wrong
    └── MissingDependency (+ImportError)       a package is not installed (``packages``)

Reason codes are plain integers here, so that this module depends on nothing; their names are in
:class:`device_sdk.mqtt.codes.ReasonCode`. Waiting too long raises the builtin :class:`TimeoutError`.
"""

from __future__ import annotations

from device_sdk._printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "AuthenticationError",
    "BusError",
    "ChecksumError",
    "ClosedError",
    "ConfigError",
    "ConnectFailedError",
    "ConnectRefused",
    "DeliveryCancelledError",
    "DeliveryError",
    "DeliveryExpiredError",
    "DeviceNotFoundError",
    "DeviceSdkError",
    "DriverError",
    "DroppedError",
    "LocalProtocolError",
    "MalformedPacketError",
    "MissingDependency",
    "NotConnectedError",
    "ProtocolError",
    "PublishRefused",
    "QueueFullError",
    "ReadTimeoutError",
    "RefusedError",
    "RemoteProtocolError",
    "SessionLostError",
    "StoreError",
    "StoreUnavailableError",
    "SubscribeRefused",
    "TlsError",
    "TransportClosedError",
    "TransportError",
]


class DeviceSdkError(Exception):
    """Base of everything that device_sdk raises on purpose.

    ``retry`` says whether a client's next attempt to connect can succeed: ``"soon"``, ``"later"`` (the other
    end is busy) or ``"never"`` (not without a change of configuration). It sets the delay between attempts.

    ``str(error)`` is one line of at most 2,000 characters (the list of a :class:`ConfigError`: one for each
    fault) that is safe to log and to show, whoever chose a text in it: line ends, control characters and
    those that change the direction are written as in a Python literal. Attributes hold what was received.
    """

    retry: str = "soon"

    def __str__(self) -> str:
        return printable(super().__str__())

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the class with the finished text as its only argument: an error that a process
        # pool brings back would break the pool.
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[DeviceSdkError], arguments: tuple[object, ...], state: dict[str, object]) -> object:
    error = kind.__new__(kind, *arguments)
    vars(error).update(state)
    return error


class ArgumentError(DeviceSdkError, ValueError):
    """An argument has a value that can never work.

    Raised before anything is queued or sent. ``argument`` is the name of the parameter.
    Example: ``publish("a/#", b"")`` (wildcards are for filters), ``qos=3``.
    """

    retry = "never"

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(f"{argument}: {problem}")
        self.argument = argument


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument has the wrong type. Example: ``publish("a", payload=21.5)``."""


class ProtocolError(DeviceSdkError):
    """One side broke MQTT's rules; see the two subclasses for which."""


class LocalProtocolError(ProtocolError, ValueError):
    """We asked for something the protocol does not allow in the present state.

    Example: QoS 2 on a connection whose broker announced Maximum QoS 1.
    """


class RemoteProtocolError(ProtocolError):
    """The peer sent a well-formed packet that it was not allowed to send.

    ``reason_code`` is the code that an MQTT 5.0 client puts in its DISCONNECT (0x82, 0x93, 0x94, ...).
    """

    def __init__(self, problem: str, reason_code: int = 0x82) -> None:
        super().__init__(problem)
        self.reason_code = reason_code


class MalformedPacketError(RemoteProtocolError):
    """The peer's bytes cannot be decoded as a control packet. ``reason_code`` is 0x81 or 0x95."""

    def __init__(self, problem: str, reason_code: int = 0x81) -> None:
        super().__init__(problem, reason_code)


class RefusedError(DeviceSdkError):
    """The broker answered with a reason code that means no.

    ``reason_code`` is the number on the wire (MQTT 3.x return codes included); ``reason_string``
    and ``user_properties`` come from an MQTT 5.0 broker and are ``None`` and ``()`` if it sent none.
    ``advice`` ends the text.
    """

    def __init__(
        self,
        problem: str,
        reason_code: int,
        reason_string: str | None = None,
        user_properties: tuple[tuple[str, str], ...] = (),
        advice: str = "",
    ) -> None:
        said = f"{problem}: {reason_string}" if reason_string else problem
        super().__init__(f"{said}; {advice}" if advice else said)
        self.reason_code = reason_code
        self.reason_string = reason_string
        self.user_properties = user_properties


class ConnectRefused(RefusedError):
    """CONNACK carried an error. Example: 0x86, bad user name or password."""


class PublishRefused(RefusedError):
    """PUBACK or PUBREC carried a reason code of 0x80 or above. Example: 0x87, not authorized.

    Or the broker ended connections because of the message; then it may have been received all the same.
    """


class SubscribeRefused(RefusedError):
    """SUBACK or UNSUBACK refused at least one topic filter."""


class AuthenticationError(DeviceSdkError):
    """The application's authenticator raised: it failed, or it rejected the broker's data."""


class NotConnectedError(DeviceSdkError):
    """The operation needs an established network connection and there is none."""


class ClosedError(DeviceSdkError):
    """The client is closed, not started yet, or belongs to the parent of a forked process."""


class DeliveryError(DeviceSdkError):
    """The message behind a delivery will never be acknowledged."""


class DeliveryExpiredError(DeliveryError):
    """The message's expiry interval passed before it was sent, or before it was to be sent again.

    In the second case the broker may have received it.
    """


class DeliveryCancelledError(DeliveryError):
    """The program has taken the message back with ``cancel()``, before it was sent."""


class DroppedError(DeliveryError):
    """The message was dropped by a bound of the queue, a limit of the broker or the end of the client."""


class SessionLostError(DeliveryError):
    """The broker lost the session, and the client is configured not to publish again."""


class TransportError(DeviceSdkError, OSError):
    """The byte stream below MQTT failed."""


class ConnectFailedError(TransportError):
    """No stream could be opened: name not found, connection refused, no route, timed out."""


class TlsError(ConnectFailedError):
    """The TLS handshake failed; retrying is pointless until a certificate or an option changes.

    Example: the broker's certificate has expired, or is from a CA that we do not trust.
    """

    retry = "never"


class TransportClosedError(TransportError):
    """The stream ended, was reset, or was aborted by our side.

    ``by_peer`` says how the peer ended it: ``"closed"`` or ``"reset"``; ``None``: it was not the peer, or
    that is not known.
    """

    by_peer: str | None = None

    @classmethod
    def ended(cls, problem: str, by_peer: str | None) -> Self:
        """Return the error with its attribute; an OSError wants no ``__init__`` of its own."""
        error = cls(problem)
        error.by_peer = by_peer
        return error


class StoreError(DeviceSdkError):
    """The session store failed, or cannot be used as asked."""


class StoreUnavailableError(StoreError):
    """The disk of the session store does not answer, or cannot be read. Another time it may."""


class QueueFullError(StoreError):
    """The outgoing queue reached a bound of its policy and the policy is to reject."""


class DriverError(DeviceSdkError):
    """A sensor could not be read."""


class BusError(DriverError, OSError):
    """The bus failed. Example: no acknowledge from the device's address."""


class DeviceNotFoundError(DriverError):
    """Nothing is at the given place. Example: ``/proc/meminfo`` is missing."""


class ChecksumError(DriverError):
    """The device answered, but the data was damaged on the way."""


class ReadTimeoutError(DriverError, TimeoutError):
    """The device did not answer within its specified time."""


class ConfigError(DeviceSdkError, ValueError):
    """A configuration file is wrong; the message lists every fault found."""


# Extra of this distribution -> the requirements that it stands for, as in pyproject.toml. Advice names these:
# this distribution is on no package index, and whoever registered its name there could run code on a device.
_PACKAGES = {
    "blinka": (
        "adafruit-blinka>=9.2",
        "adafruit-circuitpython-bme280>=2.6.4",
        "adafruit-circuitpython-sht4x>=1.0",
    ),
    "broker": ("iotcore>=0.4",),
    "identity": ("cryptography>=42",),
    "node": ("msgspec>=0.18",),
    "proxy": ("PySocks>=1.7.1",),
    "serial": ("pyserial>=3.5",),
    "srv": ("dnspython>=2.4",),
    "websockets": ("websockets>=14",),
}


class MissingDependency(DeviceSdkError, ImportError):
    """An optional package is needed and not installed.

    ``packages``: the requirements to install; ``extra``: the extra that stands for them in an installation
    from a checkout, ``pip install '.[extra]'``. ``how``: what to do, if it is not to install these.
    """

    retry = "never"

    def __init__(self, feature: str, extra: str, how: str = "") -> None:
        self.extra = extra
        self.packages = _PACKAGES.get(extra, ())
        wanted = " ".join(f"'{package}'" for package in self.packages)
        how = how or f"pip install {wanted}" if wanted else f"see the extra {extra!r} in pyproject.toml"
        super().__init__(f"{feature} needs what is not installed: {how}")
