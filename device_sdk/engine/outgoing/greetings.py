"""The messages that belong to one connection and not to the queue: its birth and its farewell."""

from __future__ import annotations

import threading

from device_sdk.engine.arguments import check_payload
from device_sdk.errors import ArgumentError, ArgumentTypeError, DeviceSdkError
from device_sdk.mqtt.message import Message, Will, check_payload_format
from device_sdk.mqtt.options import check_range
from device_sdk.mqtt.session import Outgoing
from device_sdk.mqtt.topics import validate_topic
from device_sdk.mqtt.wire import encode_properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Greeting", "Greetings"]

_PENDING = "birth: the call for an earlier attempt has not returned yet"


class Greeting(Outgoing):
    """A birth or a farewell: ``name``. It ends with its connection: no store has it, nothing repeats it."""

    __slots__ = ("name",)

    def __init__(self, name: str, topic_field: bytes, payload: bytes, flags: int, properties: bytes) -> None:
        super().__init__(topic_field, payload, flags, properties)
        self.name = name

    def renewed(self, flags: int, version: str) -> Greeting:
        """Return the same message with these flags, for one connection that speaks this version."""
        properties = (self.properties or b"\0") if version == "5.0" else b""
        return Greeting(self.name, self.topic_field, self.payload, flags, properties)

    @property
    def topic(self) -> str:
        """The topic name."""
        return self.topic_field[2:].decode()


class Greetings:
    """What the application wants to be said. ``birth``, ``farewell``: constants, or ``None``.

    :meth:`ask` calls a ``birth`` that is callable. Raises: ArgumentError, ArgumentTypeError: by name.
    """

    __slots__ = ("_ask", "_asking", "_version", "birth", "farewell")

    def __init__(self, version: str, birth: object = None, farewell: object = None) -> None:
        self._version = version
        self._ask: Callable[[], object] | None = birth if callable(birth) else None
        self._asking = threading.Lock()
        constant = None if callable(birth) else birth
        self.birth = None if constant is None else _greeting("birth", constant, version)
        self.farewell = None if farewell is None else _greeting("farewell", farewell, version)

    def ask(self) -> Greeting | DeviceSdkError | None:
        """Return the birth for the next connection, or why there is none; ``None``: none, or a constant.

        Calls the application: in the thread that opens the stream, without the lock, one attempt at a time.
        """
        if self._ask is None:
            return None
        if not self._asking.acquire(blocking=False):
            return DeviceSdkError(_PENDING)
        try:
            found = self._ask()
            return None if found is None else _greeting("birth", found, self._version)
        except ArgumentError as error:
            return error
        except BaseException as error:  # also sys.exit(): this thread is ours
            return DeviceSdkError(f"birth: the callable raised {type(error).__name__}: {error}")
        finally:
            self._asking.release()


def _greeting(name: str, found: object, version: str) -> Greeting:
    """Return a message as it is sent, checked. Raises: ArgumentError, ArgumentTypeError: by name."""
    if not isinstance(found, (Message, Will)):
        raise ArgumentTypeError(name, f"must be a Message, not {type(found).__name__}")
    topic = validate_topic(found.topic, f"{name}.topic")
    qos = check_range(f"{name}.qos", found.qos, 0, 2)
    if qos == 2:
        raise ArgumentError(f"{name}.qos", "must be 0 or 1: QoS 2 would have to go on after the connection")
    payload = check_payload(found.payload, f"{name}.payload")
    block = b""
    if version == "5.0":
        properties = found.properties or {}
        block = encode_properties(properties, "publish")
        for mine in ("subscription_identifier", "topic_alias"):
            if mine in properties:
                raise ArgumentError(f"{name}.properties", f"{mine} is not the program's to give")
        check_payload_format(f"{name}.payload", payload, properties)
    elif found.properties:
        raise ArgumentError(f"{name}.properties", f"MQTT {version} has no properties")
    flags = qos << 1 | bool(found.retain)
    return Greeting(name, len(topic).to_bytes(2, "big") + topic, payload, flags, block)
