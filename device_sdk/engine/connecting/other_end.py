"""Words for a connection that ended before CONNACK: what is at the other end, and what to do."""

from __future__ import annotations

from device_sdk._peers import in_words, looks_like_mqtt, recognise
from device_sdk.errors import ProtocolError, TransportClosedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.errors import DeviceSdkError
    from device_sdk.net.base import Transport

__all__ = ["explain"]

_NO_BRIDGE = "a broker that does not know bridge=True does so, too"


def explain(
    error: DeviceSdkError, transport: Transport, first_bytes: bytes, *, silent: bool, bridge: bool = False
) -> None:
    """Make the text of ``error`` say what is at the other end, if it can be known.

    ``first_bytes``: what came before the end; ``silent``: it ended because the peer did not answer in time;
    ``bridge``: CONNECT had the mark of a bridge.
    """
    is_fault = isinstance(error, ProtocolError)
    if not (is_fault or isinstance(error, TransportClosedError)):
        return  # the broker's own words, or those of an authenticator
    if first_bytes:
        hint = recognise(first_bytes)
        if is_fault and not hint and not looks_like_mqtt(first_bytes):
            hint = in_words(first_bytes)
        if hint and is_fault:
            error.args = (
                f"{transport.description}: {hint}",
            )  # the rules of MQTT that it breaks are beside the point
            return
    else:
        hint = transport.hints[silent]
        if bridge and not silent:
            hint = f"{hint}; {_NO_BRIDGE}" if hint else _NO_BRIDGE
    if hint:
        error.args = (f"{error}; {hint}",)
