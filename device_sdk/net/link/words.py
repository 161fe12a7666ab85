"""Reasons for the end of an epoch: the numbers of CLOSE, three of our own, and what they mean for people."""

from __future__ import annotations

from device_sdk._peers import recognise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from device_sdk.net.link.frame import Splitter

__all__ = ["ABORTED", "AWAY", "BUSY", "CUT_SHORT", "DONE", "REFUSED", "RESTARTED", "SILENT", "STALLED",
           "TERMS", "UNKNOWN", "VERSIONS", "VIOLATION", "explain", "explain_silence"]  # fmt: skip

# On the line. Source: docs/link.md §CLOSE.
DONE, REFUSED, AWAY, VERSIONS, TERMS, UNKNOWN, VIOLATION, STALLED, ABORTED, BUSY = range(10)
# Not on the line.
SILENT, RESTARTED, CUT_SHORT = range(256, 259)

_TEXTS = {
    DONE: "the other end has closed it",
    REFUSED: "the gateway's broker refused the connection; the gateway's log says why",
    AWAY: "the gateway has no connection to its broker",
    VERSIONS: "the other end speaks another version of the link: update the older one",
    TERMS: "the other end cannot work with this size of frames or windows",
    UNKNOWN: "the other end has restarted, or has given this stream up",
    VIOLATION: "an end broke the protocol of the link (docs/link.md)",
    STALLED: "frames arrive but are not acknowledged: the line is too noisy, or an end is broken",
    ABORTED: "reset by the other end",
    BUSY: "the gateway has no room for another stream",
    SILENT: "nothing came for several heart-beats: a cable is unplugged, or the other end is off",
    RESTARTED: "the other end has restarted",
    CUT_SHORT: "the other end has closed it before all of its data had come",
}


def explain(reason: int) -> str:
    """Return the text for a reason; one that is not known is a number."""
    return _TEXTS.get(reason) or f"the other end has closed it for reason {reason}, which is not known here"


def explain_silence(splitter: Splitter, heard_callers: bool, heard_self: bool) -> str:
    """Return why no WELCOME may have come, from what has come instead."""
    if heard_self:
        return "our own HELLO comes back: a loopback plug, or a line that echoes"
    if heard_callers:
        return "the other end begins a stream as well: one of the two must be the gateway"
    if not splitter.first:
        return "nothing came: check wiring (TX to RX) and power, and that the other end has framing=link"
    shown = splitter.first[:16].hex(" ")
    return recognise(splitter.first.strip(b"\0")) or (
        f"no frame was among the bytes that came ({shown}): "
        "compare baud rate and parity of both ends, and that both have framing=link"
    )
