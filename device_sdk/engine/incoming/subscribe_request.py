"""A SUBSCRIBE or UNSUBSCRIBE packet that waits for its turn, then for its answer."""

from __future__ import annotations

from device_sdk._printable import printable
from device_sdk._weak import fresh

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from device_sdk.engine.consumers import Consumers
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.message import Subscription

__all__ = ["SubscribeRequest"]

_UNSPECIFIED_ERROR = 0x80


class SubscribeRequest:
    """A SUBSCRIBE or UNSUBSCRIBE and its answer; it is sent as soon as there is a connection.

    ``reason_codes`` holds, once done, one code per topic filter: the granted QoS, or 0x80 and above.
    ``properties`` holds, once done, what an MQTT 5.0 broker added: ``reason_string``, and ``user_property``
    as a list of pairs.
    ``sent_properties``: those of the packet itself.
    ``is_repeat``: the engine asks again for what it has asked for before; nobody waits, so it may be split.
    """

    __slots__ = (
        "_consumers",
        "_parts",
        "_whole",
        "answered",
        "error",
        "is_repeat",
        "properties",
        "reason_codes",
        "sent_properties",
        "subscriptions",
        "topic_filters",
    )

    def __init__(
        self,
        subscriptions: list[Subscription] | None,
        topic_filters: list[str],
        consumers: Consumers,
        *,
        sent_properties: dict[str, Any] | None = None,
        is_repeat: bool = False,
    ) -> None:
        self.sent_properties = sent_properties or {}
        self.is_repeat = is_repeat
        self.subscriptions = subscriptions  # None: unsubscribe
        self.topic_filters = topic_filters
        self.reason_codes: list[int] = []
        self.properties: dict[str, Any] = {}
        self.error: DeviceSdkError | None = None
        self.answered: Any = consumers.event()  # set once it is done
        self._consumers = consumers
        self._parts: list[SubscribeRequest] = []
        self._whole: SubscribeRequest | None = None

    def split(self) -> list[SubscribeRequest]:
        """Return a SUBSCRIBE for each topic filter; this one is done when all of them are. For the engine."""
        if self.subscriptions is None or len(self.subscriptions) < 2:
            return [self]
        for wanted in self.subscriptions:
            part = SubscribeRequest(
                [wanted], [wanted.topic], self._consumers,
                sent_properties=self.sent_properties, is_repeat=self.is_repeat,
            )  # fmt: skip
            part._whole = self
            self._parts.append(part)
        return list(self._parts)

    def add(self, wanted: Subscription) -> None:
        """Ask for one more, before it is sent. For the engine."""
        assert self.subscriptions is not None
        self.subscriptions.append(wanted)
        self.topic_filters.append(wanted.topic)

    @property
    def done(self) -> bool:
        """Whether the broker has answered, or never will."""
        return bool(self.answered.is_set())

    @property
    def why(self) -> str:
        """What to add to the error of a wait that ends: why there is no connection, or ``""``."""
        return self._consumers.why

    def wait(self, timeout: float | None = None) -> list[int]:
        """Wait for the broker's answer and return its reason codes. Any thread.

        Raises: TimeoutError: no answer within ``timeout`` seconds. SubscribeRefused: at least one topic
        filter was refused. ClosedError: the client was closed before.
        """
        self._consumers.wait(self.answered.wait, timeout)
        return self.answer(timeout)

    def answer(self, timeout: float | None) -> list[int]:
        """Return or raise what :meth:`wait` does, after a wait of ``timeout`` seconds."""
        if not self.done:
            asked = ", ".join(self.topic_filters)
            raise TimeoutError(printable(f"no answer for {asked} within {timeout:g} s{self._consumers.why}"))
        if self.error is not None:
            raise fresh(self.error)
        return self.reason_codes

    def finish(
        self,
        reason_codes: list[int],
        error: DeviceSdkError | None = None,
        properties: dict[str, Any] | None = None,
    ) -> None:
        """Store the answer and wake who waits. For the engine."""
        self.reason_codes = reason_codes
        self.properties = properties or {}
        self.error = error
        self.answered.set()
        if self._whole is not None:
            self._whole._part_done()

    def _part_done(self) -> None:
        if not all(part.done for part in self._parts):
            return
        errors = [part.error for part in self._parts if part.error is not None]
        codes = [code for part in self._parts for code in part.reason_codes or [_UNSPECIFIED_ERROR]]
        self.finish(codes, errors[0] if errors else None, self._parts[-1].properties)
