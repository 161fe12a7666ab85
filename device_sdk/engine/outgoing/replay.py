"""From the backlog into the window: how much of what waits is sent now, and how fast."""

from __future__ import annotations

from device_sdk.engine.outgoing.endings import TOO_LATE
from device_sdk.errors import DeliveryExpiredError, DroppedError, LocalProtocolError
from device_sdk.mqtt.session import DROPPED, EXPIRED, QUEUED, SENT
from device_sdk.store.base import MESSAGE_FLAGS, PAGE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque

    from device_sdk.engine.outgoing.backlog import Backlog
    from device_sdk.engine.outgoing.delivery import Delivery
    from device_sdk.engine.outgoing.endings import Endings
    from device_sdk.errors import DeviceSdkError
    from device_sdk.mqtt.protocol import Protocol
    from device_sdk.mqtt.session import Outgoing, Session

__all__ = ["Replay"]

_QOS_FLAGS = 6
_PACKET_IDS = 65_535  # SUBSCRIBE takes from them as well
_NO_PAST = _NOTHING = -1  # a message that was sent without a store has the number 0
_BURST_SECONDS = 0.05  # what a replay rate may make up for after a late wake-up

_OUTDATED = "the birth of a connection, a newer message on its topic, replaced it"


class Replay:
    """Sends what waits, as the window, the network and the rate allow. Not thread-safe.

    The rate is for the *past* only: the messages published before the connection began.
    """

    def __init__(
        self,
        session: Session,
        rate: float | None,
        unsendable: str,
        backlog: Backlog,
        endings: Endings,
    ) -> None:
        self.obstacle: LocalProtocolError | None = None  # why the first message of this connection is held
        self._unsendable = unsendable
        self.wants_more = False  # the last fill() stopped until the network has taken what is buffered
        self.held_until: float | None = None  # it stopped because of the rate, which allows a message then
        self._session = session
        self._rate = rate or 0.0
        self._backlog = backlog
        self._endings = endings
        self._past = _NO_PAST  # sequence number of the last message that the rate holds back
        self._next_at = 0.0  # when the rate allows the next message of the past
        self._has_properties: bool | None = None  # what this client sends; None: all messages are its own
        self._outdated = b""  # the topic of birth, and the last message on it that birth replaces
        self._outdated_through = _NOTHING

    def speak(self, version: str) -> None:
        """Translate from now on: the store has messages of a client that may have spoken another version."""
        self._has_properties = version == "5.0"

    def connected(self, last_sequence: int) -> None:
        """A connection begins: the messages up to this one are the past."""
        self.obstacle = None
        self._past = last_sequence if self._rate else _NO_PAST
        self._outdated_through = _NOTHING

    def outdate(self, topic_field: bytes, through: int) -> None:
        """On this connection send no message on this topic any more up to this sequence number."""
        self._outdated, self._outdated_through = topic_field, through

    def fill(self, protocol: Protocol, now: float, most: int) -> list[Delivery]:
        """Move messages from the backlog into the window, or ``most`` of them; return those that ended."""
        backlog, held, has_properties = self._backlog, self._backlog.held, self._has_properties
        room, lanes = self._plan(protocol, most)
        last, self.wants_more, self.held_until = self._outdated_through, False, None
        ended: list[Delivery] = []
        moved = moved_bytes = 0
        for lane, reserved, past in lanes:
            room -= reserved
            while lane and moved < most:
                delivery = lane[0]
                if delivery.status != QUEUED or (delivery.sequence <= last and self._drops(delivery, ended)):
                    lane.popleft()  # replaced by a newer one, and counted then
                    continue
                if held.topics and delivery.topic_field in held.topics:
                    if not held.postpone(lane, lane is backlog.live) or most == 1:
                        break
                    continue
                if room <= 0 if delivery.flags & _QOS_FLAGS else self._is_behind(protocol):
                    break
                if delivery.sequence <= past and not self._in_pace(now):
                    break
                lane.popleft()
                moved += 1
                moved_bytes += len(delivery.topic_field) + len(delivery.properties) + len(delivery.payload)
                marks = delivery.flags, delivery.expires_at, delivery.properties
                if marks[0] > MESSAGE_FLAGS:
                    backlog.unmark(delivery)
                if marks[1] is not None and marks[1] <= now:
                    self._give_up(delivery, EXPIRED, DeliveryExpiredError(TOO_LATE), ended)
                    continue
                if has_properties is not None and bool(delivery.properties) is not has_properties:
                    self.translate(delivery)
                try:
                    if delivery.flags >= 2:
                        protocol.publish(delivery, now)
                        room -= 1
                        if backlog.pages.asked:
                            backlog.pages.forget(delivery.sequence)
                    else:
                        self._send_qos0(delivery, protocol, now)
                except LocalProtocolError as error:
                    room -= self._step_over(delivery, marks, protocol, now, error, ended)
        backlog.took(moved, moved_bytes)
        return ended

    def _is_behind(self, protocol: Protocol) -> bool:
        """Whether the network has to take what is buffered before more of QoS 0 is sent."""
        self.wants_more = protocol.output.buffered > PAGE_BYTES
        return self.wants_more

    def _plan(self, protocol: Protocol, most: int) -> tuple[int, list[tuple[deque[Delivery], int, int]]]:
        """Return how many messages the window has room for, and the lanes to serve.

        Each with the places that are to stay free, and the last message of the past.
        """
        session, backlog, outbound = self._session, self._backlog, protocol.outbound
        window = outbound.window + len(outbound.left_out)
        room = min(window, _PACKET_IDS - len(session.requests) - len(session.withheld)) - len(session)
        # Half of the window stays free for what is published now.
        reserve = (outbound.window - len(outbound.held)) // 2 if backlog.overtaking else 0
        lanes = [(backlog.live, 0, _NO_PAST), (backlog.queue, reserve, self._past)]
        if most == 1 and backlog.live:
            lanes.pop()  # who asks for one message has judged the first
        return room, lanes

    def _step_over(
        self,
        delivery: Delivery,
        marks: tuple[int, float | None, bytes],
        protocol: Protocol,
        now: float,
        error: LocalProtocolError,
        ended: list[Delivery],
    ) -> bool:
        """Do as the policy says with a message that is beyond a limit of the server.

        ``marks``: its flags, expiry and properties while it waited. Returns: whether it has a place in the
        window, with a lower QoS.
        """
        flags, lowered = delivery.flags, protocol.output.lowered(delivery.flags)
        if self._unsendable == "lower_qos" and lowered != flags:
            delivery.flags = lowered
            try:
                if lowered >= 2:
                    protocol.publish(delivery, now)
                    self._backlog.pages.forget(delivery.sequence)
                    return True
                self._send_qos0(delivery, protocol, now)
                return False
            except LocalProtocolError as still:
                delivery.flags, error = flags, still
        if self._unsendable == "drop":
            self._give_up(delivery, DROPPED, DroppedError(str(error)), ended)
            return False
        # A new one: this one refers to our frame, and so to the message.
        self.obstacle = self.obstacle or LocalProtocolError(str(error))
        self._backlog.hold(delivery, *marks)
        return False

    def _send_qos0(self, delivery: Delivery, protocol: Protocol, now: float) -> None:
        properties = delivery.current_properties(now)
        protocol.publish_qos0(delivery.topic_field, delivery.payload, delivery.flags, properties)
        self._endings.end(delivery, SENT, None)

    def translate(self, message: Outgoing) -> None:
        """Fit a message to the version of MQTT that this client speaks: one of two has properties."""
        if not self._has_properties:
            message.properties = b""
        elif not message.properties:
            message.properties = b"\0"

    def _drops(self, delivery: Delivery, ended: list[Delivery]) -> bool:
        """Whether birth, which is newer, replaces this message; it has ended then."""
        if delivery.topic_field != self._outdated:
            return False
        self._backlog.left(delivery, self._backlog.queue)
        self._give_up(delivery, DROPPED, DroppedError(_OUTDATED), ended)
        return True

    def _give_up(self, delivery: Delivery, status: str, error: DeviceSdkError, ended: list[Delivery]) -> None:
        self._endings.end(delivery, status, error)
        ended.append(delivery)

    def _in_pace(self, now: float) -> bool:
        """Whether the rate allows one more message of the past."""
        if now < self._next_at:
            self.held_until = self._next_at
            return False
        self._next_at = max(self._next_at, now - _BURST_SECONDS) + 1 / self._rate
        return True
