"""A service manager that listens, as systemd does."""

from __future__ import annotations

import socket
import time


class Manager:
    """The socket of a service manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Return the words since the last time; a datagram is there when its sender has returned."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def wait_for(self, word: str, seconds: float = 20.0) -> list[str]:
        """Wait for these words; return all since the last time. Raises: TimeoutError."""
        found: list[str] = []
        deadline = time.monotonic() + seconds
        while not any(word in each for each in found):
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            found.append(self._socket.recv(4096).decode())
        self._socket.setblocking(False)
        return found

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
