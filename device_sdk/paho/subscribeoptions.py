"""The options of one subscription in MQTT 5.0, in paho-mqtt's shape."""

from __future__ import annotations

from device_sdk._printable import printable
from device_sdk.paho.exception import MQTTException

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["MQTTException", "SubscribeOptions"]

_NAMES = ("QoS", "noLocal", "retainAsPublished", "retainHandling")


class SubscribeOptions:
    """Options of one subscription. Source: MQTT 5.0 §3.8.3.1.

    ``qos`` 0..2 becomes the attribute ``QoS``. ``noLocal``: not the client's own messages.
    ``retainAsPublished``: messages keep the retain flag they were published with. ``retainHandling``: when
    retained messages are sent, one of the three ``RETAIN_...`` numbers.

    Raises: AssertionError: ``qos`` or ``retainHandling`` outside 0..2. MQTTException: an assignment to an
    attribute that is no option.
    """

    RETAIN_SEND_ON_SUBSCRIBE = 0
    RETAIN_SEND_IF_NEW_SUB = 1
    RETAIN_DO_NOT_SEND = 2

    names = list(_NAMES)

    QoS: int
    noLocal: bool
    retainAsPublished: bool
    retainHandling: int

    def __init__(
        self,
        qos: int = 0,
        noLocal: bool = False,
        retainAsPublished: bool = False,
        retainHandling: int = RETAIN_SEND_ON_SUBSCRIBE,
    ) -> None:
        self.QoS = qos
        self.noLocal = noLocal
        self.retainAsPublished = retainAsPublished
        self.retainHandling = retainHandling
        self._check()

    def __setattr__(self, name: str, value: object) -> None:
        if name not in _NAMES:
            raise MQTTException(f"{name} is not a subscription option; there are: {', '.join(_NAMES)}")
        super().__setattr__(name, value)

    def _check(self) -> None:
        for name in ("retainHandling", "QoS"):
            if getattr(self, name) not in (0, 1, 2):
                raise AssertionError(printable(f"{name} must be 0, 1 or 2, not {getattr(self, name)}"))

    def pack(self) -> bytes:
        """Return the option byte of SUBSCRIBE. Raises: AssertionError, as the constructor."""
        self._check()
        flags = bool(self.noLocal) << 2 | bool(self.retainAsPublished) << 3
        return bytes((self.retainHandling << 4 | flags | self.QoS,))

    def unpack(self, buffer: bytes | bytearray) -> int:
        """Take the options from the first byte; return the bytes used, 1. Raises: AssertionError."""
        byte = buffer[0]
        self.QoS = byte & 3
        self.noLocal = bool(byte & 4)
        self.retainAsPublished = bool(byte & 8)
        self.retainHandling = byte >> 4 & 3
        self._check()
        return 1

    def json(self) -> dict[str, Any]:
        """Return the options by name."""
        return {name: getattr(self, name) for name in _NAMES}

    def __str__(self) -> str:
        return "{" + ", ".join(f"{name}={value}" for name, value in self.json().items()) + "}"

    __repr__ = __str__
