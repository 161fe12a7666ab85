"""Received messages that the program acknowledges by itself."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.mqtt.message import AckToken
    from device_sdk.paho._core import Core

__all__ = ["Acknowledgements"]


class Acknowledgements:
    """Keeps the tokens of received messages of QoS 1 and 2 until ``Client.ack()``, if ``by_hand``."""

    def __init__(self, core: Core) -> None:
        self.by_hand = False
        self._core = core
        self._waiting: dict[tuple[int, int], AckToken] = {}  # by mid and QoS

    def set_by_hand(self, on: bool) -> None:
        """Let the program acknowledge, or the client."""
        self.by_hand = on
        self._core.acknowledge_by_hand(_mark_handled if on else None)

    def keep(self, token: AckToken) -> None:
        """Keep the token of a message that the program has to acknowledge."""
        self._waiting[token.packet_id, token.qos] = token

    def acknowledge(self, mid: int, qos: int) -> bool:
        """Acknowledge a message if it is kept; return whether there may be output now."""
        token = self._waiting.pop((mid, qos), None)
        if token is None:
            return False
        token.acknowledge(token)
        with self._core.lock:
            self._core.handled(0)
        return True


def _mark_handled(token: AckToken) -> None:
    token.handled = True
