"""The fate of one published message."""

from __future__ import annotations

from device_sdk._printable import printable
from device_sdk._weak import fresh
from device_sdk.mqtt.refusals import words
from device_sdk.mqtt.session import ACKNOWLEDGED, PENDING_STATES, QUEUED, SENT, STORED, Outgoing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.engine.outgoing.waits import Settable, Waits

__all__ = ["Delivery"]


class Delivery(Outgoing):
    """What became of one published message.

    Every method may be called from any thread, also inside a message handler. ``on_done`` and ``change`` (the
    number under which a store has it) belong to the client; the engine's lock guards them.
    """

    __slots__ = ("__weakref__", "_waits", "change", "on_done")

    def __init__(
        self,
        waits: Waits,
        topic_field: bytes,
        payload: bytes,
        flags: int,
        properties: bytes,
        expires_at: float | None = None,
    ) -> None:
        # Outgoing.__init__ written out: this runs once a message, a call more is 3 % of publish().
        self.topic_field = topic_field
        self.payload = payload
        self.flags = flags
        self.properties = properties
        self.expires_at = expires_at
        self.sequence = 0
        self.status = QUEUED
        self.packet_id = 0
        self.packet = None
        self.error = None
        self.answer = None
        self.change = 0
        self.on_done: Settable | None = None
        self._waits = waits

    @property
    def state(self) -> str:
        """``queued``, ``stored``, ``sent``, then ``acknowledged`` or one of ``refused``, ``expired``,
        ``dropped``, ``cancelled``, ``invalidated``. QoS 0 ends at ``sent``: nobody acknowledges it.
        """
        if self.status == QUEUED and self._waits.is_durable(self.change):
            return STORED
        return self.status

    @property
    def topic(self) -> str:
        """The topic name."""
        return self.topic_field[2:].decode()

    @property
    def done(self) -> bool:
        """Whether :meth:`wait` would return or raise at once."""
        if self.error is not None or self.status not in PENDING_STATES:
            return True
        return self.status == SENT and self.flags < 2

    @property
    def reason_code(self) -> int | None:
        """What the broker has answered: 0x00, 0x10 (nobody has subscribed to the topic), or 0x80 and above.

        Of PUBACK or PUBREC, else 0x92 of PUBCOMP. ``None``: it has not answered, or never will. Brokers may
        say 0x00 for 0x10, and MQTT 3.x has only 0x00. Source: MQTT 5.0 §3.4.2.1, §3.5.2.1.
        """
        if self.answer is not None:
            return self.answer[0]
        return 0 if self.status == ACKNOWLEDGED else None

    @property
    def reason_string(self) -> str | None:
        """The broker's words to that, if it sent some (MQTT 5.0)."""
        return None if self.answer is None else words(self.answer[1])[0]

    @property
    def user_properties(self) -> tuple[tuple[str, str], ...]:
        """The user properties of that answer (MQTT 5.0)."""
        return () if self.answer is None else words(self.answer[1])[1]

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the broker has acknowledged the message (QoS 0: until it was handed to the connection).

        Raises: TimeoutError: not within ``timeout`` seconds (``None``: no limit). PublishRefused,
        DeliveryExpiredError, DroppedError, DeliveryCancelledError, SessionLostError: it never will be.
        """
        if not self.done and not self._waits.wait_done(self, timeout):
            text = f"{self!r} was not acknowledged within {timeout:g} s{self._waits.why}"
            raise TimeoutError(printable(text))
        if self.error is not None:
            raise fresh(self.error)

    def wait_stored(self, timeout: float | None = None) -> None:
        """Wait until the message survives a restart, or was acknowledged, which is better still.

        Raises: TimeoutError: not within ``timeout`` seconds. StoreError: the client has no store, or the
        store failed. Else as :meth:`wait`.
        """
        if not self.done and not self._waits.wait_stored(self, timeout):
            raise TimeoutError(f"{self!r} was not stored within {timeout:g} s")
        if self.error is not None:
            raise fresh(self.error)

    def cancel(self) -> bool:
        """Take the message back if it still waits: it is not sent, and a store forgets it.

        Returns: True: it ends here, and :meth:`wait` raises :class:`DeliveryCancelledError`. False: it was
        sent, has ended, or the client is closed; nothing has changed then. A message that waits for the
        second time, because the broker lost its session, may have been received in the first.
        Raises: RuntimeError: called in the handler of a signal that has interrupted this client.
        """
        return self._waits.cancel(self)

    def __repr__(self) -> str:
        return f"<Delivery {self.topic!r} qos={self.qos} {self.state}>"
