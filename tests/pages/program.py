"""Runs a program of a page in a thread, and leads the broker that it names to one of the test."""

from __future__ import annotations

import queue
import re
import socket
import threading
from typing import Any

import pytest

SECONDS = 20.0
_NOBODY_LISTENS = 1  # a port


class Program:
    """A program that runs. ``printed``: its lines so far; ``names``: what it has defined."""

    def __init__(self, code: str) -> None:
        self.printed: list[str] = []
        self.names: dict[str, Any] = {"__name__": "__main__", "print": self._print}
        self._lines: queue.Queue[str | None] = queue.Queue()  # None: it has ended
        self._code = compile(code, "a program of the page", "exec")
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _print(self, *values: object) -> None:
        line = " ".join(map(str, values))
        self.printed.append(line)
        self._lines.put(line)

    def _run(self) -> None:
        try:
            exec(self._code, self.names)
        except BaseException as error:
            self._error = error
        self._lines.put(None)

    def wait_for(self, pattern: str) -> str:
        """Return the next line that begins so. Raises: AssertionError: there is none."""
        while True:
            try:
                line = self._lines.get(timeout=SECONDS)
            except queue.Empty:
                raise AssertionError(f"no line {pattern!r}, but {self.printed}") from None
            if line is None:
                self.join()
                raise AssertionError(f"it has ended without a line {pattern!r}, with {self.printed}")
            if re.match(pattern, line):
                return line

    def join(self) -> list[str]:
        """Wait for its end and return what it has printed. Raises: what the program raised."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), f"it still runs, and has printed {self.printed}"
        if self._error is not None:
            raise self._error
        return self.printed


class Places:
    """Leads ``*.example`` to ports on 127.0.0.1: those of ``ports``, else one where nobody listens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ports: dict[tuple[str, int], int] = {}
        self._look_up = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def _getaddrinfo(self, host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name.endswith(".example"):
            host, port = "127.0.0.1", self.ports.get((name, port), _NOBODY_LISTENS)
        return self._look_up(host, port, *arguments, **named)
