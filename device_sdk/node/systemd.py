"""The words that systemd wants to hear of a running node: ready, how it is, alive, stopping.

Without systemd, or in a unit without ``Type=notify``, nobody wants to hear them, and nothing is sent.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

from device_sdk._log import Log
from device_sdk._printable import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Notifier"]

_SHORTEST_S = 0.1  # between two words, whatever the unit says

log = Log("device_sdk.node")


class Notifier:
    """Tells systemd how the node is. Never raises and never waits. One thread.

    ``interval``: seconds after which :meth:`alive` is wanted again, half of ``WatchdogSec``; ``None``: nobody
    watches.

    Args:
        environment: has ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` if systemd wants words.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        environment: Mapping[str, str] = os.environ,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.interval = _interval(environment) if self._address else None
        self._clock = clock
        self._fed_at = -float("inf")
        self._status = ""

    def ready(self) -> None:
        """Say that the start is complete."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Say in one line how the node is, if that has changed."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={printable(text)}")

    def alive(self) -> None:
        """Feed the watchdog, if it is time for that. May be called often."""
        now = self._clock()
        if self.interval is not None and now - self._fed_at >= self.interval * 0.9:
            self._fed_at = now
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the stop has begun."""
        self._send("STOPPING=1")

    def _send(self, words: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
                stream.setblocking(False)  # a manager that is stuck must not stop the node
                stream.sendto(words.encode(), self._address)
        except (OSError, ValueError) as error:
            log.debug("systemd was not told %s", words, error=error)


def _address(name: str) -> str:
    """Return the address of the socket: an absolute path, or ``@`` and an abstract name; else nothing."""
    if name.startswith("@"):
        return f"\0{name[1:]}"
    return name if name.startswith("/") else ""


def _interval(environment: Mapping[str, str]) -> float | None:
    pid = environment.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None  # it watches another process
    try:
        seconds = int(environment.get("WATCHDOG_USEC", "")) / 1e6
        return max(_SHORTEST_S, seconds / 2) if seconds > 0 else None
    except (ValueError, OverflowError):
        return None
